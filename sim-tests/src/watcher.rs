//! Looks at every replica during the run: who says to lead, what state is at which index, what is broken.
//!
//! It looks from inside, at the node objects: what clients and other nodes can't see because the network is cut still counts.

use crate::cluster::Cluster;
use crate::trace::Trace;
use checkers::leaders::Claim;
use checkers::replicas::Sample;
use metadb_proto::v1::Role;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How often it looks who leads.
const LOOK: Duration = Duration::from_millis(50);
/// Every so many looks it takes the hashes of all states: that reads every row.
const LOOKS_PER_HASH: u64 = 40;
/// A hash that is not there by then belongs to a node that was stopped.
const HASH_WITHIN: Duration = Duration::from_millis(500);

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Who said to lead.
    pub claims: Vec<Claim>,
    /// States at indices.
    pub samples: Vec<Sample>,
    /// How many snapshots each replica installed in each life of its node: node, life, group.
    pub installed: BTreeMap<(u64, u64, u32), u64>,
    /// Problems that replicas told of.
    pub problems: BTreeSet<String>,
}

impl Seen {
    /// How many snapshots were installed. One right before its node died may be missed; none is counted that was not.
    #[must_use]
    pub fn snapshots(&self) -> u64 {
        self.installed.values().sum()
    }

    /// How many elections were won.
    #[must_use]
    pub fn elections(&self) -> usize {
        self.claims.iter().map(|claim| (claim.group_id, claim.term)).collect::<BTreeSet<_>>().len()
    }
}

/// Looks until the task is dropped by its owner through `stop`.
pub async fn run(cluster: &Cluster, trace: &Trace, stop: &std::sync::atomic::AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mut known = BTreeSet::new();
    for look in 1_u64.. {
        if stop.load(std::sync::atomic::Ordering::Relaxed) {
            break;
        }
        tokio::time::sleep(LOOK).await;
        for machine in cluster.machines() {
            let Some(node) = machine.node() else { continue };
            for group in node.groups() {
                let status = group.status();
                let installed = group.snapshots_installed();
                if seen.installed.insert((node.node_id(), machine.lives(), status.group_id), installed).unwrap_or(0) < installed {
                    trace.event(format_args!("node {} installed a snapshot of group {}", node.node_id(), status.group_id));
                }
                if !status.problem.is_empty() {
                    seen.problems.insert(format!("node {}, group {}: {}", node.node_id(), status.group_id, status.problem));
                }
                if status.role() == Role::Leader && known.insert((status.group_id, status.term, node.node_id())) {
                    trace.event(format_args!("node {} leads group {} in term {}", node.node_id(), status.group_id, status.term));
                    seen.claims.push(Claim { group_id: status.group_id, term: status.term, node_id: node.node_id() });
                }
            }
        }
        if look % LOOKS_PER_HASH == 0 {
            seen.samples.extend(samples(cluster, trace).await);
        }
    }
    seen
}

/// The state of every replica that answers now.
pub async fn samples(cluster: &Cluster, trace: &Trace) -> Vec<Sample> {
    let mut samples = Vec::new();
    for machine in cluster.machines() {
        let Some(node) = machine.node() else { continue };
        for group in node.groups() {
            let Ok(Ok(status)) = tokio::time::timeout(HASH_WITHIN, group.status_with_hash()).await else { continue };
            trace.event(format_args!(
                "node {} group {} at {}: {}",
                node.node_id(),
                status.group_id,
                status.applied_index,
                status.state_hash
            ));
            samples.push(Sample {
                group_id: status.group_id,
                node_id: node.node_id(),
                applied_index: status.applied_index,
                state_hash: status.state_hash,
            });
        }
    }
    samples
}
