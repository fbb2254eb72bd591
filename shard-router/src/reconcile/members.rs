//! Who shall hold the replicas of each group, and the next step on the way there: pure functions of the directory and of what the nodes say.
//!
//! A group gets as many voters as the cluster has replicas, on nodes that stay; or those that an operator chose for it; on the nodes of its
//! pod, if it has one. A replica that is elsewhere goes as soon as another one is made, and not before. Rules that hold
//! whatever happens: who becomes a voter has caught up as a learner; a group is never planned smaller because nodes are missing; a leader
//! that is to go hands over first; a change is decided on the members that are in force, and refused if they are others by then.
//!
//! Not here: which shards are in a group (that is balance), and the change itself (`metadb::group::members`).

use super::office;
use super::plan::{Records, Step, leader_of, trouble};
use crate::residency;
use metadb_proto::directory::DIRECTORY_GROUP;
use metadb_proto::v1::{
    DropReplicaRequest, GroupRecord, GroupStatus, NodeRecord, NodeRef, Role, StatusResponse, group_record as group, node_record,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A learner that lacks no more entries than this may become a voter.
const CAUGHT_UP_ENTRIES: u64 = 64;
/// Groups that get new replicas at the same time: each is a copy of all its data.
pub(crate) const GROUPS_IN_MOTION: usize = 4;
/// How long a learner may be silent before another node gets the replica in its place.
const LEARNER_PATIENCE: Duration = Duration::from_secs(60);

/// For how long nodes have not answered. Who is not in it answered the last time it was asked.
pub type Silence = BTreeMap<u64, Duration>;

/// The members of a group, as a change asks for them.
#[derive(Debug, Clone, PartialEq)]
pub struct Members {
    /// Who votes.
    pub voters: Vec<NodeRef>,
    /// Who only learns.
    pub learners: Vec<NodeRef>,
    /// Where the members stand in the log that this was decided on.
    pub seen_at: u64,
}

/// Where a group is, and where it shall be.
#[derive(Debug, Clone, PartialEq)]
pub struct Placement {
    /// Which group.
    pub group_id: u32,
    /// Who leads it.
    pub leader: u64,
    /// Who votes in it.
    pub voters: BTreeSet<u64>,
    /// Who learns in it.
    pub learners: BTreeSet<u64>,
    /// Who shall vote.
    pub target: BTreeSet<u64>,
    /// Who shall learn beside them when all is done.
    pub target_learners: BTreeSet<u64>,
}

/// What is known of a cluster at a moment.
pub(super) struct Sight<'a> {
    pub(super) records: &'a Records,
    pub(super) statuses: &'a BTreeMap<u64, StatusResponse>,
    pub(super) silence: &'a Silence,
    pub(super) alive: &'a [NodeRef],
}

fn ids(nodes: &[NodeRef]) -> BTreeSet<u64> {
    nodes.iter().map(|node| node.node_id).collect()
}

fn id_of(record: &NodeRecord) -> u64 {
    record.node.as_ref().map_or(0, |node| node.node_id)
}

impl Sight<'_> {
    /// What each group that has a leader shall be like.
    pub(super) fn placements(&self) -> Vec<Placement> {
        let mut load: BTreeMap<u64, usize> = BTreeMap::new();
        for voter in self.records.groups.iter().flat_map(|group| &group.voters) {
            *load.entry(voter.node_id).or_default() += 1;
        }
        let groups = self.groups().into_iter();
        groups.map(|(record, leader, seen)| self.placement(&record, leader, seen, &mut load)).collect()
    }

    /// Every group that is made and led, and the directory, which may have no record yet.
    fn groups(&self) -> Vec<(GroupRecord, u64, &GroupStatus)> {
        let mut records: Vec<GroupRecord> =
            self.records.groups.iter().filter(|group| group.state() == group::State::Active).cloned().collect();
        if !records.iter().any(|group| group.group_id == DIRECTORY_GROUP) {
            records.insert(0, crate::operator::group_record(DIRECTORY_GROUP, group::State::Active, Vec::new()));
        }
        let led = |record: GroupRecord| leader_of(record.group_id, self.statuses).map(|(leader, seen)| (record, leader, seen));
        records.into_iter().filter_map(led).collect()
    }

    fn placement(&self, record: &GroupRecord, leader: u64, seen: &GroupStatus, load: &mut BTreeMap<u64, usize>) -> Placement {
        let (voters, learners) = (ids(&seen.voters), ids(&seen.learners));
        let holds = |id: &u64| voters.contains(id) || learners.contains(id);
        let wanted_learners = record.wanted_learners.iter().copied();
        let may_learn = |id: &u64| self.gets(record, *id) || holds(id) && self.keeps(record, *id);
        let wanted_learners: BTreeSet<u64> = wanted_learners.filter(may_learn).collect();
        let target = if record.wanted_voters.is_empty() {
            self.by_size(record, leader, &voters, &learners, load)
        } else {
            self.by_choice(record, &voters, &learners, load)
        };
        for id in target.difference(&voters) {
            *load.entry(*id).or_default() += 1;
        }
        for id in voters.difference(&target) {
            load.entry(*id).and_modify(|replicas| *replicas = replicas.saturating_sub(1));
        }
        let target_learners = wanted_learners.difference(&target).copied().collect();
        Placement { group_id: record.group_id, leader, voters, learners, target, target_learners }
    }

    /// As many voters as the cluster has replicas, if there are so many nodes.
    fn by_size(
        &self,
        group: &GroupRecord,
        leader: u64,
        voters: &BTreeSet<u64>,
        learners: &BTreeSet<u64>,
        load: &BTreeMap<u64, usize>,
    ) -> BTreeSet<u64> {
        let candidates = self.candidates((group, voters), voters, learners, load);
        let mut stays: Vec<u64> = voters.iter().copied().filter(|id| self.keeps(group, *id)).collect();
        let replicas = self.records.cluster.replicas as usize;
        let size = size(replicas, stays.len() + candidates.len(), voters.len());
        // Who goes first when there are too many: the silent, then who holds most; the leader last.
        stays.sort_by_key(|id| (*id != leader, self.silence.contains_key(id), load.get(id).copied().unwrap_or(0), *id));
        stays.truncate(size);
        let leaving = voters.iter().copied().filter(|id| !self.keeps(group, *id));
        stays.into_iter().chain(candidates).chain(leaving).take(size).collect()
    }

    /// The voters that an operator chose. Another takes the place of one that leaves; while there is none, one of those that are there.
    fn by_choice(
        &self,
        group: &GroupRecord,
        voters: &BTreeSet<u64>,
        learners: &BTreeSet<u64>,
        load: &BTreeMap<u64, usize>,
    ) -> BTreeSet<u64> {
        let wanted: BTreeSet<u64> = group.wanted_voters.iter().copied().collect();
        let taken: BTreeSet<u64> = wanted.union(voters).copied().collect();
        // Whoever stepped in before goes on: else two would take turns for ever.
        let stepped_in = voters.difference(&wanted).copied().filter(|id| self.keeps(group, *id));
        let mut substitutes = stepped_in.chain(self.candidates((group, &taken), voters, learners, load));
        // One that was to come for one move, and fell silent before it voted, keeps nothing else from being done.
        let silent = |id: u64| self.silence.get(&id).copied().unwrap_or_default();
        let may_come = |id: u64| self.gets(group, id) && !(group.choice_passes && silent(id) >= LEARNER_PATIENCE);
        let chosen = wanted.iter().filter_map(|id| match may_come(*id) || voters.contains(id) && self.keeps(group, *id) {
            true => Some(*id),
            false => substitutes.next().or(voters.contains(id).then_some(*id)),
        });
        let chosen: BTreeSet<u64> = chosen.collect();
        let lacks = wanted.len().min(voters.len()).saturating_sub(chosen.len());
        let there: Vec<u64> = voters.difference(&chosen).copied().take(lacks).collect();
        chosen.into_iter().chain(there).collect()
    }

    /// Nodes that could get a replica, the best first: one that replaces a node that leaves, one that learns already, one that holds few.
    fn candidates(
        &self,
        (group, taken): (&GroupRecord, &BTreeSet<u64>),
        voters: &BTreeSet<u64>,
        learners: &BTreeSet<u64>,
        load: &BTreeMap<u64, usize>,
    ) -> Vec<u64> {
        let leaving = self.records.nodes.iter().filter(|node| voters.contains(&id_of(node)) && !office::keeps(node));
        let replacing: BTreeSet<u64> = leaving.map(|node| node.replaced_by).collect();
        let may_learn = |id: u64| {
            let silent = self.silence.get(&id).copied().unwrap_or_default();
            self.is_alive(id) || (learners.contains(&id) && silent < LEARNER_PATIENCE)
        };
        let is_well = |id: u64| !trouble::is_quarantined(group.group_id, id, self.statuses);
        let nodes = self.records.nodes.iter().map(id_of).filter(|id| self.gets(group, *id));
        let mut free: Vec<u64> = nodes.filter(|id| !taken.contains(id) && may_learn(*id) && is_well(*id)).collect();
        free.sort_by_key(|id| (!replacing.contains(id), !learners.contains(id), load.get(id).copied().unwrap_or(0), *id));
        free
    }

    /// Whether a node may lead.
    fn takes(&self, id: u64) -> bool {
        self.records.nodes.iter().any(|node| id_of(node) == id && office::takes(node))
    }

    /// Whether a node may get a replica of a group.
    fn gets(&self, group: &GroupRecord, id: u64) -> bool {
        let may = |node: &NodeRecord| office::takes(node) && residency::may_be_on(group, node, &self.records.pods);
        self.records.nodes.iter().any(|node| id_of(node) == id && may(node))
    }

    /// Whether a node may go on to hold a replica of a group.
    fn keeps(&self, group: &GroupRecord, id: u64) -> bool {
        let may = |node: &NodeRecord| office::keeps(node) && residency::may_be_on(group, node, &self.records.pods);
        self.records.nodes.iter().any(|node| id_of(node) == id && may(node))
    }

    fn is_alive(&self, id: u64) -> bool {
        self.alive.iter().any(|node| node.node_id == id)
    }

    /// A node as the directory has it; else as the group has it.
    fn node(&self, id: u64, seen: &GroupStatus) -> NodeRef {
        let known = self.records.nodes.iter().filter_map(|node| node.node.as_ref()).find(|node| node.node_id == id);
        let member = seen.voters.iter().chain(&seen.learners).find(|node| node.node_id == id);
        known.or(member).cloned().unwrap_or(NodeRef { node_id: id, address: String::new() })
    }

    fn nodes(&self, ids: &BTreeSet<u64>, seen: &GroupStatus) -> Vec<NodeRef> {
        ids.iter().map(|id| self.node(*id, seen)).collect()
    }

    /// The next step of every group that is not where it shall be.
    pub(super) fn steps(&self) -> Vec<Step> {
        let placements = self.placements();
        let in_motion = placements.iter().filter(|p| p.learners.difference(&p.target_learners).any(|id| p.target.contains(id))).count();
        let mut room = GROUPS_IN_MOTION.saturating_sub(in_motion);
        let mut steps = Vec::new();
        for placement in &placements {
            let Some((_, seen)) = leader_of(placement.group_id, self.statuses) else { continue };
            let step = self.step(placement, seen, room > 0);
            room -= usize::from(matches!(step, Some(Step::AddLearners { .. })));
            let step = step.or_else(|| self.record_members(placement, seen));
            if step.is_none() {
                steps.extend(self.replica_steps(placement, seen));
            }
            steps.extend(step);
        }
        // A leader that is to go does not wait until others have new replicas.
        steps.sort_by_key(|step| !matches!(step, Step::HandOver { .. }));
        steps.extend(self.node_steps(&placements));
        steps
    }

    fn step(&self, p: &Placement, seen: &GroupStatus, may_start: bool) -> Option<Step> {
        let members = |voters: &BTreeSet<u64>, learners: &BTreeSet<u64>| Members {
            voters: self.nodes(voters, seen),
            learners: self.nodes(&learners.difference(voters).copied().collect(), seen),
            seen_at: seen.membership_index,
        };
        let set = |voters: &BTreeSet<u64>, learners: &BTreeSet<u64>| {
            Some(Step::SetMembers { group_id: p.group_id, members: members(voters, learners) })
        };
        if seen.joint {
            // Begun by someone who died: ended, forwards or back.
            return set(if is_ready(&p.target, p, seen) { &p.target } else { &p.voters }, &p.learners);
        }
        let heir = || {
            let heirs = p.voters.intersection(&p.target).filter(|id| **id != p.leader && self.takes(**id) && seen.answering.contains(id));
            let has_room = |id: &u64| self.statuses.get(id).is_some_and(trouble::has_room);
            let node_id = *heirs.max_by_key(|id| (has_room(id), seen.matched.get(id).copied()))?;
            Some(Step::HandOver { group_id: p.group_id, node_id })
        };
        if !self.takes(p.leader)
            && let Some(step) = heir()
        {
            return Some(step);
        }
        let missing: BTreeSet<u64> = p.target.union(&p.target_learners).copied().collect();
        let missing: BTreeSet<u64> =
            missing.into_iter().filter(|id| !p.voters.contains(id) && !p.learners.contains(id) && self.is_alive(*id)).collect();
        if !missing.is_empty() {
            let all = p.learners.union(&missing).copied().collect();
            let added = self.nodes(&missing, seen);
            return may_start.then(|| Step::AddLearners {
                group_id: p.group_id,
                added,
                members: members(&p.voters, &all),
                through: seen.last_log_index,
            });
        }
        if p.target != p.voters {
            if !is_ready(&p.target, p, seen) {
                return None;
            }
            if p.target.contains(&p.leader) {
                return set(&p.target, &p.target_learners);
            }
            // None of those who shall stay votes yet: first they do, then the leader hands over.
            return heir().or_else(|| set(&p.target.union(&p.voters).copied().collect(), &p.target_learners));
        }
        let moved = seen.voters.iter().chain(&seen.learners).any(|member| self.node(member.node_id, seen).address != member.address);
        if p.learners != p.target_learners || moved { set(&p.voters, &p.target_learners) } else { None }
    }

    fn record_members(&self, p: &Placement, seen: &GroupStatus) -> Option<Step> {
        let before = self.records.groups.iter().find(|group| group.group_id == p.group_id).cloned();
        let known = before.clone().unwrap_or_else(|| crate::operator::group_record(p.group_id, group::State::Active, Vec::new()));
        let (voters, learners) = (self.nodes(&p.voters, seen), self.nodes(&p.learners, seen));
        let mut noted = known.voters.clone();
        noted.sort_by_key(|voter| voter.node_id);
        // A choice that was made for one move is forgotten when it is there.
        let there = known.choice_passes && p.target == p.voters && p.learners == p.target_learners;
        if noted == voters && known.learners == learners && !there {
            return None;
        }
        let mut after = GroupRecord { voters, learners, ..known };
        if there {
            (after.choice_passes, after.wanted_voters) = (false, Vec::new());
        }
        Some(Step::RecordMembers { before, after })
    }

    /// Members that have no replica, and replicas of nodes that are no members.
    fn replica_steps(&self, p: &Placement, seen: &GroupStatus) -> Vec<Step> {
        let group_id = p.group_id;
        let mut steps = Vec::new();
        let members: BTreeSet<u64> = p.voters.union(&p.learners).copied().collect();
        let awaited: BTreeSet<u64> = p.target.union(&p.target_learners).copied().collect();
        for node in self.alive {
            let Some(status) = self.statuses.get(&node.node_id) else { continue };
            let replica = status.groups.iter().find(|group| group.group_id == group_id);
            match replica {
                // A leader that counts on what a replica had is not told that it begins anew.
                None if members.contains(&node.node_id) && !seen.matched.contains_key(&node.node_id) => {
                    steps.push(Step::MakeReplica { group_id, node: node.clone(), through: seen.last_log_index });
                }
                Some(replica)
                    if !seen.joint
                        && !members.contains(&node.node_id)
                        && !awaited.contains(&node.node_id)
                        && !matches!(replica.role(), Role::Leader | Role::Failed) =>
                {
                    let replica = DropReplicaRequest { group_id, term: replica.term, last_log_index: replica.last_log_index };
                    let (voters, learners) = (self.nodes(&p.voters, seen), self.nodes(&p.learners, seen));
                    let members = Members { voters, learners, seen_at: seen.membership_index };
                    steps.push(Step::DropReplica { replica, node: node.clone(), members });
                }
                None | Some(_) => {}
            }
        }
        steps
    }

    /// Nodes that hold nothing any more, and nodes that have been silent for too long.
    fn node_steps(&self, placements: &[Placement]) -> Vec<Step> {
        let all_led = placements.len() >= self.records.groups.len();
        let holds = |id: u64| {
            let in_groups = placements.iter().any(|p| p.voters.contains(&id) || p.learners.contains(&id) || p.target.contains(&id));
            in_groups || self.records.groups.iter().any(|group| group.voters.iter().chain(&group.learners).any(|node| node.node_id == id))
        };
        let joint = self.statuses.values().flat_map(|status| &status.groups).any(|group| group.joint);
        let after = Duration::from_millis(self.records.cluster.replace_dead_after_ms);
        let mut steps = Vec::new();
        for record in &self.records.nodes {
            let id = id_of(record);
            let silent = self.silence.get(&id).copied().unwrap_or_default();
            match record.state() {
                node_record::State::Leaving if all_led && !joint && !holds(id) && !self.keeps_any(id) => {
                    steps.push(Step::FinishRemoval { node: record.clone() })
                }
                node_record::State::Active | node_record::State::Draining
                    if !after.is_zero() && silent >= after && self.can_do_without(id) =>
                {
                    steps.push(Step::GiveUpNode { node: record.clone(), silent });
                }
                node_record::State::Active | node_record::State::Leaving | node_record::State::Draining | node_record::State::Removed => {}
            }
        }
        steps
    }

    /// Whether a node that answers still has a replica of a group that is led: it is deleted before the node is removed.
    fn keeps_any(&self, id: u64) -> bool {
        let replicas = self.statuses.get(&id).into_iter().flat_map(|status| &status.groups);
        replicas
            .into_iter()
            .filter(|replica| replica.role() != Role::Failed)
            .any(|replica| leader_of(replica.group_id, self.statuses).is_some())
    }

    /// Whether enough others answer to hold all replicas.
    fn can_do_without(&self, id: u64) -> bool {
        let others = self.alive.iter().filter(|node| node.node_id != id && self.takes(node.node_id)).count();
        others >= self.records.cluster.replicas as usize
    }
}

/// As many voters as wanted. While there are too few nodes: an odd number, because an even one tolerates no more failures and needs more
/// votes; but no fewer than there are.
fn size(replicas: usize, nodes: usize, voters: usize) -> usize {
    if nodes >= replicas {
        return replicas;
    }
    let odd = nodes - usize::from(nodes.is_multiple_of(2) && nodes > 0);
    odd.max(voters.min(replicas))
}

/// Whether all who come new have nearly all of the log, and a majority of the target answers.
fn is_ready(target: &BTreeSet<u64>, p: &Placement, seen: &GroupStatus) -> bool {
    let caught_up = |id: &u64| {
        let lacks = seen.matched.get(id).map_or(u64::MAX, |matched| seen.last_log_index.saturating_sub(*matched));
        lacks <= CAUGHT_UP_ENTRIES && seen.answering.contains(id)
    };
    let answering = target.iter().filter(|id| seen.answering.contains(id)).count();
    target.difference(&p.voters).all(caught_up) && answering * 2 > target.len()
}

#[cfg(test)]
mod tests;
