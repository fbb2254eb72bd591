//! The same seed twice gives the same trace, bit for bit: in one process, each time in a fresh thread.

#![cfg(madsim)]

use sim_tests::run::{self, Plan};
use std::time::Duration;

#[test]
fn the_same_seed_gives_the_same_trace() {
    let plan = Plan { chaos: Duration::from_secs(6), ..Plan::default() };
    for seed in [1, 2] {
        let (first, second) = (run::seed(seed, plan), run::seed(seed, plan));
        assert_eq!((first.events, &first.trace), (second.events, &second.trace), "seed {seed}");
        assert!(first.events > 500, "a trace of {} events proves little", first.events);
    }
}

#[test]
fn other_seeds_give_other_traces() {
    let plan = Plan { chaos: Duration::from_secs(3), ..Plan::default() };
    assert_ne!(run::seed(1, plan).trace, run::seed(2, plan).trace);
}
