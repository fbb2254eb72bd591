//! Faults of the ways between machines, and slow disks: everything arrives, but not everywhere, not in time, or more than once.

use super::{Fault, Felt, busiest};
use crate::cluster::Cluster;
use crate::workload::below;
use metadb_proto::seam::simulated;
use std::ops::Range;
use std::time::Duration;

/// What messages take while the network is slow.
const SLOW_MESSAGES: Range<Duration> = Duration::from_millis(40)..Duration::from_millis(160);
/// What syncs take while a disk is slow.
const SLOW_SYNCS: Range<Duration> = Duration::from_millis(60)..Duration::from_millis(250);
/// One of so many messages comes twice while they do.
const DUPLICATE_EVERY: u64 = 4;
/// How much later at most: behind elections, and behind what was asked after it.
const DUPLICATE_LATER: Duration = Duration::from_millis(2500);

pub(super) fn begin(cluster: &Cluster, fault: Fault, node: usize) -> Felt {
    let other = (node + 1 + usize::try_from(below(cluster.size() as u64 - 1)).unwrap_or(0)) % cluster.size();
    let others = |node: usize| (0..cluster.size()).filter(move |peer| *peer != node);
    match fault {
        Fault::OldLeader => {
            let node = busiest(cluster, node);
            for peer in others(node) {
                cluster.cut(node, peer);
                cluster.cut(peer, node);
            }
        }
        Fault::DeafLeader => {
            let node = busiest(cluster, node);
            others(node).for_each(|peer| cluster.cut(peer, node));
        }
        Fault::OneWay => cluster.cut(node, other),
        Fault::Cut => {
            cluster.cut(node, other);
            cluster.cut(other, node);
        }
        Fault::SlowNetwork => cluster.set_latency(SLOW_MESSAGES),
        Fault::Duplicates => {
            let before = simulated::duplicated();
            simulated::set_duplicates(Some((DUPLICATE_EVERY, DUPLICATE_LATER)));
            return Felt::ByCount { before };
        }
        Fault::SlowDisk => cluster.set_sync_latency(node, SLOW_SYNCS),
        _ => cluster.isolate(node),
    }
    Felt::BySigns
}
