//! The harness catches what it is there to catch: each planted bug is found within a few seeds.

#![cfg(madsim)]

use sim_tests::planted::Planted;
use sim_tests::run::{self, Plan};

/// Seeds that may pass before one fails.
const PATIENCE: u64 = 12;

fn caught(planted: Planted) {
    let plan = Plan { planted: Some(planted), ..Plan::default() };
    let found = (1..=PATIENCE).find(|seed| !run::seed(*seed, plan).violations.is_empty());
    assert!(found.is_some(), "{planted:?} passes {PATIENCE} seeds");
}

#[test]
fn a_disk_that_lies_about_syncs_is_caught() {
    caught(Planted::SyncsAreLies);
}

#[test]
fn a_retry_without_its_request_id_is_caught() {
    caught(Planted::RepeatsWithoutId);
}

#[test]
fn reads_from_any_replica_are_caught() {
    caught(Planted::StaleReads);
}
