//! Disks that fill up, refuse a sync, or give back other bytes than they were given.
//!
//! Bytes rot on one node only, always the same in a run, and only where every group votes on all nodes: what rots on a majority is lost, and
//! nobody can help that. A full disk bit if the node said that it has no room; a failed sync, if the node said that its log has stopped; rot,
//! if the node put replicas in quarantine, or began anew.

use super::{Fault, Felt};
use crate::cluster::Cluster;
use crate::workload::{Shared, below};
use metadb_engine::Cf;
use std::time::Duration;
use tokio::time::Instant;

/// Most of what a disk may still take once it is said to be nearly full, as a part of what it holds.
const LEFT_PART: u64 = 10;
/// Rows that rot at once: one alone may never be read.
const ROTTEN_ROWS: usize = 12;
/// How fast a node scrubs when it is asked to.
pub(crate) const SCRUB_RATE: u64 = 1 << 30;
/// How long it may take to read all that is there.
const SCRUBBED_WITHIN: Duration = Duration::from_secs(3);
/// How often is looked whether it has.
const LOOK: Duration = Duration::from_millis(5);
/// Flips in the log: most bytes of most of them are not read again.
const ROTTEN_BYTES: usize = 8;

pub(super) async fn begin(cluster: &Cluster, shared: &Shared, fault: Fault, node: usize) -> Felt {
    match fault {
        Fault::FullDisk => full(cluster, node),
        // One that is starting has no log yet that could stop: it would not start.
        Fault::FailedSync if cluster.machines()[node].node().is_none() => Felt::Known(false),
        Fault::FailedSync => {
            cluster.machines()[node].spoil();
            cluster.machines()[node].disk().fail_syncs(1);
            Felt::ByTrouble { node }
        }
        Fault::RotRows => rot_rows(cluster, shared),
        Fault::RotLog => rot_log(cluster, shared),
        Fault::RotCold => rot_cold(cluster, shared).await,
        Fault::AlterRow => alter_row(cluster, shared),
        _ => Felt::Known(false),
    }
}

fn full(cluster: &Cluster, node: usize) -> Felt {
    let machine = &cluster.machines()[node];
    let used = machine.disk().used_bytes();
    machine.disk().set_capacity(Some(used + below(used / LEFT_PART + 1)));
    if below(2) == 0 {
        machine.store().set_full(true);
    }
    Felt::ByTrouble { node }
}

/// Bytes rot only where every replica is whole: the others are needed to rebuild this one.
fn victim(cluster: &Cluster) -> Option<usize> {
    let whole = |number: usize| {
        let node = cluster.machines()[number].node();
        node.is_some_and(|node| node.groups().len() > crate::cluster::GROUPS as usize && node.quarantined() == 0)
    };
    ((0..cluster.size()).all(whole) && cluster.votes_everywhere()).then(|| cluster.spoilable())
}

fn rot_rows(cluster: &Cluster, shared: &Shared) -> Felt {
    let Some(node) = victim(cluster) else { return Felt::Known(false) };
    let machine = &cluster.machines()[node];
    let renewed_before = machine.renewals();
    machine.spoil();
    for _ in 0..ROTTEN_ROWS {
        let family = if below(4) == 0 { Cf::State } else { Cf::Data };
        let row = machine.store().rot(family);
        shared.trace.event(format_args!("a row of {family:?} rots on node {node}: {row:?}"));
    }
    Felt::ByQuarantine { node, renewed_before }
}

fn rot_log(cluster: &Cluster, shared: &Shared) -> Felt {
    let Some(node) = victim(cluster) else { return Felt::Known(false) };
    let machine = &cluster.machines()[node];
    let renewed_before = machine.renewals();
    machine.spoil();
    cluster.kill(node);
    for _ in 0..ROTTEN_BYTES {
        let found = machine.rot_log();
        shared.trace.event(format_args!("the log rots on node {node}: {found:?}"));
    }
    Felt::ByQuarantine { node, renewed_before }
}

/// In rows that no client asks for: which keys a commit touched. A scrub that begins then must meet them: a move or a comparison may do so
/// as well, but not as soon.
async fn rot_cold(cluster: &Cluster, shared: &Shared) -> Felt {
    let Some(node) = victim(cluster) else { return Felt::Known(false) };
    let machine = &cluster.machines()[node];
    let (Some(running), Some(row)) = (machine.node(), machine.store().rot(Cf::Changes)) else { return Felt::Known(false) };
    let renewed_before = machine.renewals();
    machine.spoil();
    shared.trace.event(format_args!("a cold row rots on node {node}: {row:?}"));
    let (life, asked) = (machine.lives(), running.scrub_status());
    // One that is under way may be past it.
    let needed = asked.passes + 1 + u64::from(asked.running);
    let began = Instant::now();
    while began.elapsed() < SCRUBBED_WITHIN && machine.lives() == life && running.quarantined() == 0 {
        let status = running.scrub_status();
        if status.passes < needed {
            running.begin_scrub(SCRUB_RATE);
        } else {
            if status.rot == asked.rot && status.problems.is_empty() && machine.store().rotten() > 0 {
                shared.unexpected.lock().push(format!("a scrub of node {node} ended, and did not find what rots there"));
            }
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    Felt::ByQuarantine { node, renewed_before }
}

/// In rows that no client asks for: a read that one of them decides would tell as well. Only the other replicas know what stood there.
fn alter_row(cluster: &Cluster, shared: &Shared) -> Felt {
    let Some(node) = victim(cluster) else { return Felt::Known(false) };
    let machine = &cluster.machines()[node];
    let (Some(running), Some(row)) = (machine.node(), machine.store().alter(Cf::Changes)) else { return Felt::Known(false) };
    machine.spoil();
    shared.trace.event(format_args!("a row is altered on node {node}: {row:?}"));
    Felt::ByDifference { node, differed_before: running.differed() }
}
