//! Seeds that once found a bug find none.

#![cfg(madsim)]

use sim_tests::run::{self, Plan};

#[test]
fn seeds_of_the_corpus_pass() {
    let corpus = include_str!("../corpus/seeds.txt");
    for line in corpus.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        let seed = line.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a line begins with its seed");
        assert_eq!(run::seed(seed, Plan::default()).violations, Vec::<String>::new(), "{line}");
    }
}
