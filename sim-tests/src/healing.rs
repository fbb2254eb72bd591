//! After the faults the cluster must be well again by itself, within bounds: one leader per group, writes in every tenant, all replicas
//! at one index and in one state. A cluster that is safe but stuck fails here.

use crate::cluster::{Cluster, GROUPS};
use crate::nemesis::SCRUB_RATE;
use crate::trace::Trace;
use crate::watcher;
use crate::workload::Client;
use bytes::Bytes;
use checkers::replicas::{self, Sample};
use metadb_engine::StoreRead as _;
use metadb_proto::seam;
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
/// All nodes have read what they have at rest, and those with rot were rebuilt, within this.
pub const SCRUBBED_WITHIN: Duration = Duration::from_secs(60);
/// All groups have compared the states of their replicas, and those that differed were rebuilt, within this.
pub const COMPARED_WITHIN: Duration = Duration::from_secs(60);
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

/// Has every node read what it has at rest, until each has done so while it was whole. Rot that is left then is a violation.
pub async fn scrubbed(cluster: &Cluster, trace: &Trace) -> Vec<String> {
    let end = Instant::now() + SCRUBBED_WITHIN;
    // Of each machine: in which life it was asked, and how many passes must have ended.
    let mut asked: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
    loop {
        let mut waits = Vec::new();
        for (number, machine) in cluster.machines().iter().enumerate() {
            let Some(node) = machine.node().filter(|node| node.quarantined() == 0) else {
                waits.push(number);
                continue;
            };
            let status = node.scrub_status();
            let needed = match asked.get(&number) {
                Some((life, needed)) if *life == machine.lives() => *needed,
                _ => {
                    // One that is under way may be past what rots.
                    let needed = status.passes + 1 + u64::from(status.running);
                    asked.insert(number, (machine.lives(), needed));
                    needed
                }
            };
            if status.passes < needed {
                node.begin_scrub(SCRUB_RATE);
                waits.push(number);
            }
        }
        if waits.is_empty() || Instant::now() >= end {
            trace.event(format_args!("scrubbed but for {waits:?}"));
            let late = waits.iter().map(|number| format!("machine {number} has not scrubbed {SCRUBBED_WITHIN:?} after healing"));
            let machines = cluster.machines().iter().enumerate();
            let rotten = machines.map(|(number, machine)| (number, machine.store().rotten())).filter(|(_, rows)| *rows > 0);
            return late.chain(rotten.map(|(number, rows)| format!("{rows} rotten rows on machine {number} after a scrub"))).collect();
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until every group has compared the whole states of its replicas since now, and those that differed were rebuilt. A row that was
/// altered on one machine and is still not what the others have is a violation then.
pub async fn compared(cluster: &Cluster, trace: &Trace) -> Vec<String> {
    let (end, since_ms) = (Instant::now() + COMPARED_WITHIN, seam::unix_ms());
    let mut missing = uncompared(cluster, since_ms);
    while !missing.is_empty() && Instant::now() < end {
        tokio::time::sleep(LOOK).await;
        missing = uncompared(cluster, since_ms);
    }
    trace.event(format_args!("compared but for {missing:?}"));
    for (number, machine) in cluster.machines().iter().enumerate() {
        for (cf, key) in machine.store().altered() {
            let here = machine.store().get(cf, &key).ok().flatten();
            let others = cluster.machines().iter().enumerate().filter(|(other, _)| *other != number);
            if !others.into_iter().any(|(_, other)| other.store().get(cf, &key).ok().flatten() == here) {
                missing.push(format!("row {key:?} of machine {number} was altered, and was not found"));
            }
        }
    }
    missing
}

/// Groups that have not compared all since a moment, and nodes that are not whole.
fn uncompared(cluster: &Cluster, since_ms: u64) -> Vec<String> {
    let mut missing = Vec::new();
    for (number, machine) in cluster.machines().iter().enumerate() {
        if machine.node().is_none_or(|node| node.quarantined() > 0) {
            missing.push(format!("machine {number} is not whole {COMPARED_WITHIN:?} after healing"));
        }
    }
    for group_id in 0..=GROUPS {
        let leader = cluster.leader(group_id).and_then(|leader| cluster.machines()[leader].node()?.group(group_id));
        let whole_ms = leader.and_then(|leader| leader.status().comparison).map_or(0, |comparison| comparison.whole_ms);
        // A clock that was fast may have begun one in the future.
        if !(since_ms..=seam::unix_ms()).contains(&whole_ms) {
            missing.push(format!("group {group_id} has not compared its replicas {COMPARED_WITHIN:?} after healing"));
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
