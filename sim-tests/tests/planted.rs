//! The harness catches what it is there to catch: each planted bug is found within the seeds stated here, about twice as many as it took
//! when the matrix of `docs/testing.md` was printed. `make sim-matrix` prints it anew.

#![cfg(madsim)]

use metadb_proto::planted::Bug;
use sim_tests::planted::Planted;
use sim_tests::run::{self, Plan};

fn caught(planted: Planted, seeds: u64) {
    let plan = Plan { planted: Some(planted), ..Plan::default() };
    let found = (1..=seeds).find(|seed| !run::seed(*seed, plan).violations.is_empty());
    assert!(found.is_some(), "{} passes {seeds} seeds", planted.name());
}

#[test]
fn a_disk_that_lies_about_syncs_is_caught() {
    caught(Planted::SyncsAreLies, 4);
}

#[test]
fn a_retry_without_its_request_id_is_caught() {
    caught(Planted::RepeatsWithoutId, 4);
}

#[test]
fn reads_from_any_replica_are_caught() {
    caught(Planted::StaleReads, 12);
}

#[test]
fn what_counts_before_it_is_on_disk_is_caught() {
    caught(Planted::Server(Bug::VoteIsNotSynced), 25);
    caught(Planted::Server(Bug::AppendIsNotSynced), 4);
    caught(Planted::Server(Bug::FlushIsSkipped), 4);
}

#[test]
fn reads_that_may_be_old_are_caught() {
    caught(Planted::Server(Bug::ReadWithoutLease), 4);
    caught(Planted::Server(Bug::EarlyAnswerRenewsLease), 26);
    caught(Planted::Server(Bug::ReadBeforeApplied), 4);
    caught(Planted::Server(Bug::RestartVotesAtOnce), 36);
    caught(Planted::Server(Bug::StalenessIsNotBounded), 9);
}

#[test]
fn requests_done_twice_and_snapshots_with_less_are_caught() {
    caught(Planted::Server(Bug::RememberedIsNotChecked), 4);
    caught(Planted::Server(Bug::SnapshotWithoutRow), 9);
    caught(Planted::Server(Bug::SnapshotWithoutRequests), 12);
    caught(Planted::Server(Bug::ClockIsBelieved), 36);
}

#[test]
fn rot_that_a_scrub_leaves_out_is_caught() {
    caught(Planted::Server(Bug::ScrubSkipsFamily), 22);
}

#[test]
fn states_that_differ_are_caught() {
    caught(Planted::Server(Bug::DifferenceIsIgnored), 30);
    caught(Planted::Server(Bug::ChangesWhereAsked), 12);
}

#[test]
fn shards_that_arrive_with_less_are_caught() {
    caught(Planted::Server(Bug::MoveForgetsLastRows), 4);
    caught(Planted::Server(Bug::MoveWithoutFence), 4);
    caught(Planted::Server(Bug::MoveForgetsRequests), 4);
}

#[test]
fn wrong_answers_of_the_machine_are_caught() {
    caught(Planted::Server(Bug::ApplyByOwnClock), 4);
    caught(Planted::Server(Bug::ConditionIsNotChecked), 4);
    caught(Planted::Server(Bug::TransactionIsTorn), 4);
    caught(Planted::Server(Bug::PageDropsLastRow), 4);
    caught(Planted::Server(Bug::PageOfAnotherMoment), 4);
}
