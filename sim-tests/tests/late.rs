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
fn a_snapshot_that_forgets_requests_would_be_noticed() {
    for bug in [Bug::SnapshotWithoutRequests, Bug::RememberedIsNotChecked] {
        let told = late::seed(SEEDS[0], Some(Planted::Server(bug)));
        assert!(told.iter().any(|told| told.contains("was told")), "{bug:?}: {told:?}");
    }
}
