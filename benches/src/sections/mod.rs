//! The parts of the report. Each starts its systems with fresh data, measures, and stops them.

pub mod idle;
pub mod limits;
pub mod moves;
pub mod neighbour;
pub mod pause;
pub mod restart;
pub mod shards;
pub mod throughput;
pub mod verdicts;
pub mod writes;

use crate::systems::cairn::Cairn;
use metadb_proto::v1::{Role, StatusResponse};
use shard_router::operator::Operator;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

/// How often a node that comes back is looked at: part of what is measured, so it is short.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Between two looks whether changes of shards have ended.
const CHANGES_LOOK: Duration = Duration::from_millis(20);

/// Empties a folder.
pub(crate) fn fresh(folder: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    Ok(std::fs::create_dir_all(folder)?)
}

/// Progress goes to standard error; standard output is the report.
pub(crate) fn say(what: &str) {
    let _ = writeln!(std::io::stderr().lock(), "bench: {what}");
}

/// Waits until no change of a shard is under way.
///
/// # Errors
/// If the directory does not answer. Whoever waits has a limit of his own.
pub(crate) async fn changes_ended(operator: &Operator) -> anyhow::Result<()> {
    while !operator.changes(None).await?.is_empty() {
        tokio::time::sleep(CHANGES_LOOK).await;
    }
    Ok(())
}

/// How far each group is applied, as its leader says; of a group without a leader nothing is known.
pub(crate) async fn applied_by_leaders(cairn: &Cairn) -> BTreeMap<u32, u64> {
    let statuses = cairn.cluster().statuses().await;
    let groups = statuses.into_iter().flat_map(|(_, status)| status.groups);
    groups.filter(|group| group.role() == Role::Leader).map(|group| (group.group_id, group.applied_index)).collect()
}

/// Whether a node's replicas work, know who leads, and have applied so much.
fn has_reached(status: &StatusResponse, applied: &BTreeMap<u32, u64>) -> bool {
    let reached = |(group_id, index): (&u32, &u64)| {
        let replica = status.groups.iter().find(|replica| replica.group_id == *group_id);
        replica.is_some_and(|replica| replica.leader.is_some() && replica.problem.is_empty() && replica.applied_index >= *index)
    };
    applied.iter().all(reached)
}

/// Waits until a node has applied what the leaders had when this was called.
///
/// # Errors
/// Never: whoever waits has a limit of his own.
pub(crate) async fn caught_up(cairn: &Cairn, node: usize) -> anyhow::Result<()> {
    let applied = loop {
        let applied = applied_by_leaders(cairn).await;
        if !applied.is_empty() {
            break applied;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    reaches(cairn, node, &applied).await;
    Ok(())
}

/// Waits until a node has applied so much of each group.
pub(crate) async fn reaches(cairn: &Cairn, node: usize, applied: &BTreeMap<u32, u64>) {
    loop {
        if cairn.cluster().status(node).await.is_ok_and(|status| has_reached(&status, applied)) {
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
