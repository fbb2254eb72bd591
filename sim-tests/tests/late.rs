//! Retries after 299 seconds, and after their request is forgotten.

#![cfg(madsim)]

use metadb_proto::planted::Bug;
use sim_tests::late;
use sim_tests::planted::Planted;

/// Seeds whose nodes take snapshots in small parts, and whose clocks can be believed.
const SEEDS: [u64; 2] = [3, 6];

#[test]
fn a_retry_after_nearly_five_minutes_gets_its_first_answer_whatever_happened() {
    for seed in SEEDS {
        assert_eq!(late::seed(seed, None), Vec::<String>::new(), "seed {seed}");
    }
}

#[test]
fn what_is_not_remembered_is_noticed() {
    let told = late::seed(SEEDS[0], Some(Planted::Server(Bug::RememberedIsNotChecked)));
    assert!(told.iter().any(|told| told.contains("was told")), "{told:?}");
    // Replicas compare their states, so this one may be gone before it is asked: then it can't lead when it shall.
    let told = late::seed(SEEDS[0], Some(Planted::Server(Bug::SnapshotWithoutRequests)));
    assert!(!told.is_empty());
}
