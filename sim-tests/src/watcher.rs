//! Looks at every replica during the run: who says to lead, what state is at which index, what is broken.
//!
//! It looks from inside, at the node objects: what clients and other nodes can't see because the network is cut still counts.

use crate::cluster::Cluster;
use crate::trace::Trace;
use checkers::leaders::Claim;
use checkers::ownership::Owners;
use checkers::raft::{self, Judge};
use checkers::replicas::Sample;
use metadb::node::SnapshotTotals;
use metadb::raft::probe::{self, Did, Written};
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
    /// What transfers of snapshots came to in each life of a node: node, life.
    pub transfers: BTreeMap<(u64, u64), SnapshotTotals>,
    /// Problems that replicas told of.
    pub problems: BTreeSet<String>,
    /// Raft's invariants, at every step.
    pub judge: Judge,
    /// Who serves what, at every step.
    pub owners: Owners,
}

impl Seen {
    /// How many snapshots were installed. One right before its node died may be missed; none is counted that was not.
    #[must_use]
    pub fn snapshots(&self) -> u64 {
        self.installed.values().sum()
    }

    /// How many transfers of snapshots went on where an earlier one had stopped, and how many of their parts were found rotten.
    #[must_use]
    pub fn transfers(&self) -> (u64, u64) {
        self.transfers.values().fold((0, 0), |sum, one| (sum.0 + one.resumed, sum.1 + one.rotten_parts))
    }

    /// How many elections were won.
    #[must_use]
    pub fn elections(&self) -> usize {
        self.claims.iter().map(|claim| (claim.group_id, claim.term)).collect::<BTreeSet<_>>().len()
    }
}

/// Looks until the task is dropped by its owner through `stop`.
pub async fn run(cluster: &Cluster, trace: &Trace, stop: &std::sync::atomic::AtomicBool) -> Seen {
    let mut seen = Seen { judge: Judge::excusing_reads(cluster.is_wild()), ..Seen::default() };
    let mut known = BTreeSet::new();
    drop(probe::take());
    for look in 1_u64.. {
        if stop.load(std::sync::atomic::Ordering::Relaxed) {
            break;
        }
        tokio::time::sleep(LOOK).await;
        judge_steps(cluster, &mut seen, trace);
        cluster.tend();
        for machine in cluster.machines() {
            let Some(node) = machine.node() else { continue };
            // A row that was altered may have spread by a snapshot, and who does not have it differs then.
            let altered = cluster.machines().iter().any(|machine| machine.is_spoilt());
            if node.differed() > 0 && !altered {
                seen.problems.insert(format!("the state of node {} differs from the others', and nobody altered it", node.node_id()));
            }
            let snapshots = node.snapshots();
            let before = seen.transfers.insert((node.node_id(), machine.lives()), snapshots).unwrap_or_default();
            if (before.sent, before.resumed, before.rotten_parts) != (snapshots.sent, snapshots.resumed, snapshots.rotten_parts) {
                trace.event(format_args!("node {} {snapshots:?}", node.node_id()));
            }
            for group in node.groups() {
                let status = group.status();
                let _ = seen.judge.step(&stands(node.node_id(), &status));
                let installed = group.snapshots_installed();
                if seen.installed.insert((node.node_id(), machine.lives(), status.group_id), installed).unwrap_or(0) < installed {
                    trace.event(format_args!("node {} installed a snapshot of group {}", node.node_id(), status.group_id));
                }
                if !status.problem.is_empty() && !machine.is_spoilt() {
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
    judge_steps(cluster, &mut seen, trace);
    seen
}

/// All that replicas did since this was last called.
fn judge_steps(cluster: &Cluster, seen: &mut Seen, trace: &Trace) {
    for event in probe::take() {
        if let Did::Owns { version, shards } = event.did {
            let ranges = shards.into_iter().map(|(tenant_id, start, end)| (tenant_id, start.to_vec(), end.to_vec()));
            if !seen.owners.step(event.group_id, version, ranges.collect()) {
                trace.event(format_args!("group {} serves what another one serves at version {version}", event.group_id));
            }
            continue;
        }
        let machine = cluster.machines().iter().find(|machine| machine.placed_at() == event.machine);
        let Some(identity) = machine.and_then(|machine| machine.identity()) else { continue };
        let Some(what) = what(event.did) else { continue };
        let event = raft::Event { node_id: identity.node_id, group_id: event.group_id, what };
        tracing::debug!(target: "probe", "{} {event:?}", trace.now_ns());
        if !seen.judge.step(&event) {
            trace.event(format_args!("an invariant is broken by {event:?}"));
        }
    }
}

fn stands(node_id: u64, status: &metadb_proto::v1::GroupStatus) -> raft::Event {
    let positions = raft::Positions {
        purged: status.purged_index,
        flushed: status.flushed_index,
        applied: status.applied_index,
        committed: status.committed_index,
        last: status.last_log_index,
    };
    raft::Event { node_id, group_id: status.group_id, what: raft::What::Stands(positions) }
}

/// As Raft's invariants see it, if they care.
fn what(did: Did) -> Option<raft::What> {
    Some(match did {
        Did::Owns { .. } => return None,
        Did::Made => raft::What::Made,
        Did::Opened { vote, purged, log, applied } => raft::What::Opened { vote, purged, log: entries(log), applied },
        Did::Voted { term, candidate, leads } => raft::What::Voted { term, candidate, leads },
        Did::Appended { append, entries: written } => raft::What::Appended { append, entries: entries(written) },
        Did::Durable { append } => raft::What::Durable { append },
        Did::Truncated { from } => raft::What::Truncated { from },
        Did::Purged { through } => raft::What::Purged { through },
        Did::Flushed { through } => raft::What::Flushed { through },
        Did::Applied { entries: applied } => raft::What::Applied { entries: entries(applied) },
        Did::Asked { read } => raft::What::Asked { read },
        Did::ReadAt { read, index } => raft::What::ReadAt { read, index },
        Did::Served { index, applied } => raft::What::Served { index, applied },
        Did::Installed { through } => raft::What::Installed { through },
    })
}

fn entries(written: Vec<Written>) -> Vec<raft::Entry> {
    let entry = |Written { index, term, digest, voters }| raft::Entry { index, term, digest, voters };
    written.into_iter().map(entry).collect()
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
