//! A leader's disk that fills up while it gives a snapshot.

#![cfg(madsim)]

use sim_tests::full;

/// One whose nodes keep little log, and one whose nodes keep more.
const SEEDS: [u64; 2] = [3, 5];

#[test]
fn followers_get_on_although_the_log_behind_their_snapshot_was_purged() {
    for seed in SEEDS {
        assert_eq!(full::seed(seed, None), Vec::<String>::new(), "seed {seed}");
    }
}
