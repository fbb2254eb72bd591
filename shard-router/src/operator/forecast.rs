//! What a change of members may be expected to cost: which groups move where, how many bytes that is, and how long it takes.
//!
//! Bytes are those of the shards of a group now, all versions of their keys, not compressed. The time rests on what snapshots from the nodes
//! that send last reached, or on their bound if that is less; where none was sent yet, a constant stands in, which is documented for
//! operators. What a new replica can be brought from the log alone is faster.

use super::{Membership, Operator};
use crate::reconcile::office;
use metadb_proto::v1::StatusResponse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a group may take to tell how much it holds.
const MEASURE_WITHIN: Duration = Duration::from_secs(5);
/// What a node sends in a second while none of its snapshots told, in bytes.
const RATE: u64 = 32 << 20;
/// What it takes to have a node learn a group and vote in it, besides the copy.
const STEPS: Duration = Duration::from_secs(1);
/// What it takes to hand a leadership over.
const HAND_OVER: Duration = Duration::from_millis(100);
/// Groups that get new replicas at the same time.
const AT_ONCE: u64 = crate::reconcile::members::GROUPS_IN_MOTION as u64;

/// A group that will have other members, or another leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relocation {
    /// Which.
    pub group_id: u32,
    /// Who votes now.
    pub from: BTreeSet<u64>,
    /// Who shall vote.
    pub to: BTreeSet<u64>,
    /// Who leads, if that one is to hand over.
    pub leader_goes: Option<u64>,
    /// About how much the group holds; none: its leader did not tell, or nothing is copied.
    pub bytes: Option<u64>,
}

impl Relocation {
    fn copies(&self) -> impl Iterator<Item = u64> {
        self.to.difference(&self.from).copied()
    }
}

/// What a change may be expected to cost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forecast {
    /// The groups that it touches.
    pub relocations: Vec<Relocation>,
    /// What is copied in all.
    pub bytes: u64,
    /// About how long until all is done.
    pub total: Duration,
}

impl Membership {
    /// The groups that are not where they shall be, or whose leader is to go.
    #[must_use]
    pub fn relocations(&self) -> Vec<Relocation> {
        let takes = |id: u64| {
            self.records.nodes.iter().any(|record| record.node.as_ref().is_some_and(|node| node.node_id == id) && office::takes(record))
        };
        let moved = self.placements().into_iter().map(|p| {
            let leader_goes = (!takes(p.leader) || !p.target.contains(&p.leader)).then_some(p.leader);
            Relocation { group_id: p.group_id, from: p.voters, to: p.target, leader_goes, bytes: None }
        });
        moved.filter(|relocation| relocation.from != relocation.to || relocation.leader_goes.is_some()).collect()
    }
}

impl Operator {
    /// What it costs to bring a cluster to what its records say. A group that does not tell its size counts as empty.
    pub async fn forecast(&self, members: &Membership) -> Forecast {
        let mut relocations = members.relocations();
        let copied: Vec<&mut Relocation> = relocations.iter_mut().filter(|relocation| relocation.copies().next().is_some()).collect();
        let measured = copied.into_iter().map(|relocation| async move {
            let shards = self.shards_of_group(relocation.group_id, MEASURE_WITHIN).await;
            relocation.bytes = shards.ok().map(|shards| shards.iter().map(|shard| shard.bytes).sum());
        });
        futures::future::join_all(measured).await;
        expect(relocations, &members.statuses)
    }
}

/// What a node sends in a second.
fn rate(status: Option<&StatusResponse>) -> u64 {
    let (reached, bound) = status.map_or((0, 0), |status| (status.snapshot_bytes_per_s, status.snapshot_limit_bytes_per_s));
    let reached = if reached == 0 { RATE } else { reached };
    if bound == 0 { reached } else { reached.min(bound) }
}

/// Every node sends and receives as fast as the last snapshots went; the busiest one decides.
fn expect(relocations: Vec<Relocation>, statuses: &BTreeMap<u64, StatusResponse>) -> Forecast {
    let mut busy: BTreeMap<u64, u64> = BTreeMap::new();
    let (mut bytes, mut moving, mut handed) = (0_u64, 0_u64, 0_u32);
    for relocation in &relocations {
        handed += u32::from(relocation.leader_goes.is_some());
        let size = relocation.bytes.unwrap_or(0);
        // Whoever leads by then sends.
        let stays = relocation.from.intersection(&relocation.to).find(|id| Some(**id) != relocation.leader_goes);
        let Some(sender) = stays.or_else(|| relocation.from.first()) else { continue };
        let ms = size.saturating_mul(1000) / rate(statuses.get(sender)).max(1);
        moving += u64::from(relocation.copies().next().is_some());
        for receiver in relocation.copies() {
            bytes = bytes.saturating_add(size);
            for node in [*sender, receiver] {
                let spent = busy.entry(node).or_default();
                *spent = spent.saturating_add(ms);
            }
        }
    }
    let copying = Duration::from_millis(busy.values().copied().max().unwrap_or(0));
    let rounds = u32::try_from(moving.div_ceil(AT_ONCE)).unwrap_or(u32::MAX);
    let total = copying.saturating_add(STEPS.saturating_mul(rounds)).saturating_add(HAND_OVER.saturating_mul(handed));
    Forecast { relocations, bytes, total }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn moved(group_id: u32, from: [u64; 3], to: [u64; 3], bytes: Option<u64>) -> Relocation {
        Relocation { group_id, from: from.into(), to: to.into(), leader_goes: None, bytes }
    }

    fn reached(bytes_per_s: u64, bound: u64) -> StatusResponse {
        StatusResponse { snapshot_bytes_per_s: bytes_per_s, snapshot_limit_bytes_per_s: bound, ..Default::default() }
    }

    #[test]
    fn the_node_that_sends_or_receives_most_decides() {
        let statuses = [(1, reached(10 * MIB, 0)), (2, reached(20 * MIB, 0))].into();
        let both = vec![moved(1, [1, 3, 4], [1, 3, 5], Some(100 * MIB)), moved(2, [2, 3, 4], [2, 3, 5], Some(100 * MIB))];
        let told = expect(both, &statuses);
        assert_eq!((told.bytes, told.total), (200 * MIB, Duration::from_secs(16)), "10 s and 5 s to node 5, and the steps");
    }

    #[test]
    fn a_bound_counts_and_what_is_not_known_is_assumed() {
        let one = || vec![moved(1, [1, 2, 3], [1, 2, 4], Some(64 * MIB))];
        assert_eq!(expect(one(), &BTreeMap::new()).total, Duration::from_secs(3));
        assert_eq!(expect(one(), &[(1, reached(0, 4 * MIB))].into()).total, Duration::from_secs(17));
        assert_eq!(expect(vec![moved(1, [1, 2, 3], [1, 2, 4], None)], &BTreeMap::new()).bytes, 0);
    }

    #[test]
    fn leaders_that_hand_over_copy_nothing() {
        let relocation = Relocation { leader_goes: Some(1), ..moved(1, [1, 2, 3], [1, 2, 3], None) };
        let told = expect(vec![relocation.clone(), Relocation { group_id: 2, ..relocation }], &BTreeMap::new());
        assert_eq!((told.bytes, told.total), (0, HAND_OVER * 2));
    }
}
