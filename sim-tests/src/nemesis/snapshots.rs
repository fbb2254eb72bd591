//! Faults on a snapshot's way. The snapshot is made necessary first: a node dies, the others purge what it lacks from their logs, and it
//! comes back.
//!
//! A forced snapshot bit if the node took one in; a death and a cut, if a snapshot was half there; rot, if the node found it.

use super::{Fault, Felt, sleep_up_to};
use crate::cluster::{Cluster, GROUPS};
use crate::workload::Shared;
use metadb_proto::v1::GroupStatus;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;
use tokio::time::Instant;

/// How long the node stays away before the others purge their logs.
const AWAY: Range<Duration> = Duration::from_millis(200)..Duration::from_millis(1200);
/// How long the others may take to purge what it lacks: they may have to elect a leader first.
const PURGED_WITHIN: Duration = Duration::from_secs(3);
/// How long to wait for the middle of a transfer.
const BEGUN_WITHIN: Duration = Duration::from_secs(3);
/// How often it looks for either.
const LOOK: Duration = Duration::from_millis(3);

pub(super) async fn begin(cluster: &Cluster, shared: &Shared, fault: Fault, node: usize) -> Felt {
    let had = ends(cluster, node);
    cluster.kill(node);
    sleep_up_to(AWAY.start, AWAY.end).await;
    let purged = purge(cluster, node, &had).await;
    cluster.restart(node);
    shared.trace.event(format_args!("node {node} had {had:?}; purged behind that: {purged}"));
    if !purged {
        return Felt::Known(false);
    }
    if fault == Fault::ForceSnapshot {
        return Felt::BySnapshot { node };
    }
    let Some(group_id) = half_there(cluster, node).await else { return Felt::Known(false) };
    shared.trace.event(format_args!("a snapshot of group {group_id} is half there"));
    match fault {
        Fault::CutSnapshot => cluster.isolate(node),
        Fault::RotInSnapshot => return rot(cluster, shared, node, group_id),
        _ => drop(cluster.kill(node)),
    }
    Felt::Known(true)
}

/// The last entry that a node has of each group.
fn ends(cluster: &Cluster, node: usize) -> BTreeMap<u32, u64> {
    let statuses = cluster.machines()[node].node().into_iter().flat_map(|node| node.groups()).map(|group| group.status());
    statuses.map(|status| (status.group_id, status.last_log_index)).collect()
}

/// Has the others purge their logs until the leader of some group has no longer what a node needs next. Whether they did.
async fn purge(cluster: &Cluster, absent: usize, had: &BTreeMap<u32, u64>) -> bool {
    let began = Instant::now();
    while began.elapsed() < PURGED_WITHIN {
        for node in (0..cluster.size()).filter(|node| *node != absent) {
            cluster.purge(node).await;
        }
        let lacks = |group: u32| {
            let leader = cluster.leader(group).filter(|leader| *leader != absent)?;
            let status: GroupStatus = cluster.machines()[leader].node()?.group(group)?.status();
            Some(status.purged_index > *had.get(&group)?)
        };
        if (0..=GROUPS).any(|group| lacks(group) == Some(true)) {
            return true;
        }
        tokio::time::sleep(LOOK).await;
    }
    false
}

/// Waits for a group whose snapshot is on its way to a node, and not yet whole.
async fn half_there(cluster: &Cluster, node: usize) -> Option<u32> {
    let began = Instant::now();
    while began.elapsed() < BEGUN_WITHIN {
        let groups = cluster.machines()[node].node().map(|node| node.groups()).unwrap_or_default();
        let half = |status: &GroupStatus| {
            let transfer = status.receiving_snapshot;
            transfer.is_some_and(|transfer| transfer.done_bytes > transfer.total_bytes / 4 && transfer.done_bytes < transfer.total_bytes)
        };
        let found = groups.iter().map(|group| group.status()).find(half);
        if let Some(status) = found {
            return Some(status.group_id);
        }
        tokio::time::sleep(LOOK).await;
    }
    None
}

/// Flips a bit in a file of the snapshot that is whole already.
fn rot(cluster: &Cluster, shared: &Shared, node: usize, group_id: u32) -> Felt {
    let machine = &cluster.machines()[node];
    let found_before = machine.node().map_or(0, |node| node.snapshots().rotten_parts);
    let rotten = machine.rot_received(group_id);
    shared.trace.event(format_args!("a snapshot rots on node {node}: {rotten:?}"));
    if rotten.is_none() { Felt::Known(false) } else { Felt::ByRot { node, found_before } }
}
