//! After the faults the cluster must be well again by itself, within bounds: one leader per group, writes in every tenant, all replicas
//! at one index and in one state. A cluster that is safe but stuck fails here.

use crate::cluster::Cluster;
use crate::trace::Trace;
use crate::watcher;
use crate::workload::Client;
use bytes::Bytes;
use checkers::replicas::{self, Sample};
use metadb_proto::v1::Role;
use shard_router::operation;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// All groups have a leader, and every tenant takes a write, within this. The simulated network may hold a message of a cut connection
/// back for up to ten seconds after the cut is over, and two in a row happen.
pub const WELL_WITHIN: Duration = Duration::from_secs(30);
/// All replicas are identical this long after that.
pub const IDENTICAL_WITHIN: Duration = Duration::from_secs(30);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(100);

/// Waits until every group has one leader whom all its replicas name, and every tenant takes a write. What is missing at the end of the
/// time is a violation.
pub async fn well(cluster: &Cluster, client: &Client) -> Vec<String> {
    let end = Instant::now() + WELL_WITHIN;
    let mut missing = leaders(cluster);
    while !missing.is_empty() && Instant::now() < end {
        tokio::time::sleep(LOOK).await;
        missing = leaders(cluster);
    }
    for tenant_id in &client.tenants {
        let left = end.saturating_duration_since(Instant::now()).max(LOOK);
        let asked = client.routers[0].tenant(*tenant_id).with_deadline(left);
        let written = asked.transact(Vec::new(), vec![operation::put(Bytes::from_static(b"healed"), Bytes::from_static(b"yes"))]).await;
        client.shared.trace.event(format_args!("healed tenant {tenant_id}: {}", written.is_ok()));
        missing.extend(written.err().map(|error| format!("tenant {tenant_id} takes no writes {WELL_WITHIN:?} after healing: {error}")));
    }
    missing
}

/// Groups that do not have exactly one leader known to all.
fn leaders(cluster: &Cluster) -> Vec<String> {
    let mut groups: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    let mut leading: BTreeMap<u32, usize> = BTreeMap::new();
    let mut named: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for machine in cluster.machines() {
        let Some(node) = machine.node() else {
            return vec![format!("the node at {} is not up {WELL_WITHIN:?} after healing", machine.address())];
        };
        for status in node.groups().iter().map(|group| group.status()) {
            let told = format!("node {} is {:?} in term {} and names {:?}", node.node_id(), status.role(), status.term, status.leader);
            groups.entry(status.group_id).or_default().push(told);
            *leading.entry(status.group_id).or_default() += usize::from(status.role() == Role::Leader);
            named.entry(status.group_id).or_default().push(status.leader.map_or(0, |leader| leader.node_id));
        }
    }
    let mut missing = Vec::new();
    for (group, told) in groups {
        let mut names = named.remove(&group).unwrap_or_default();
        names.dedup();
        if leading.get(&group) != Some(&1) || names.len() != 1 || names[0] == 0 {
            missing.push(format!("group {group} has no one leader {WELL_WITHIN:?} after healing: {}", told.join("; ")));
        }
    }
    missing
}

/// Waits until all replicas of every group are identical; gives the last look.
pub async fn identical(cluster: &Cluster, trace: &Trace) -> Vec<Sample> {
    let end = Instant::now() + IDENTICAL_WITHIN;
    loop {
        let samples = watcher::samples(cluster, trace).await;
        if replicas::identical(&samples, cluster.size()).passes() || Instant::now() >= end {
            return samples;
        }
        tokio::time::sleep(LOOK).await;
    }
}
