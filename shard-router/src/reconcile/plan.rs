//! What to do next to bring a cluster to what its directory says: a pure function of records and statuses.
//!
//! It never plans two steps whose order matters: each round does what can be done now, and looks again.

pub(crate) mod trouble;

use super::members::{Members, Placement, Sight, Silence};
use super::office;
use crate::operator::group_record;
use metadb_proto::directory::DIRECTORY_GROUP;
use metadb_proto::v1::{
    ClusterRecord, DropReplicaRequest, GroupRecord, GroupStatus, NodeRecord, NodeRef, PodRecord, Role, StatusResponse, TenantRecord,
};
use metadb_proto::v1::{group_record as group, node_record, tenant_record as tenant};
use std::collections::BTreeMap;
use std::time::Duration;

/// A node leads too much when it leads this many groups more than the one that leads fewest: less is not worth an interruption.
const LEADER_SLACK: usize = 2;
/// A voter this many entries behind its leader does not take over.
const LAG_ENTRIES: u64 = 1000;

/// What the directory says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Records {
    /// The cluster's own record.
    pub cluster: ClusterRecord,
    /// All nodes.
    pub nodes: Vec<NodeRecord>,
    /// All groups.
    pub groups: Vec<GroupRecord>,
    /// Tenants that are not finished; others may be left out.
    pub tenants: Vec<TenantRecord>,
    /// All pods.
    pub pods: Vec<PodRecord>,
}

/// One thing to do. Each may be done twice, and may die anywhere.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Have nodes hold replicas of a group that catch up and do not vote yet.
    AddLearners {
        /// Of which group.
        group_id: u32,
        /// The nodes that are new.
        added: Vec<NodeRef>,
        /// All members then.
        members: Members,
        /// How far the leader's log reaches: the new replicas are silent until they have as much.
        through: u64,
    },
    /// Make the replica of a member that has none: it was away when its group was formed, or its replica was deleted as it came back.
    MakeReplica {
        /// Of which group.
        group_id: u32,
        /// Where.
        node: NodeRef,
        /// How far the leader's log reaches: it is silent until it has as much.
        through: u64,
    },
    /// Delete the replica of a node that is no member any more.
    DropReplica {
        /// Of which group, and where it was when it was seen.
        replica: DropReplicaRequest,
        /// On which node.
        node: NodeRef,
        /// The members, which its leader confirms before.
        members: Members,
    },
    /// Make these the members of a group.
    SetMembers {
        /// Of which group.
        group_id: u32,
        /// All members then.
        members: Members,
    },
    /// Have a leader that is to go hand over.
    HandOver {
        /// Of which group.
        group_id: u32,
        /// To which voter.
        node_id: u64,
    },
    /// Note in the directory who the members of a group are.
    RecordMembers {
        /// What the directory says; nothing, if it is not there.
        before: Option<GroupRecord>,
        /// With the members as the group's leader says.
        after: GroupRecord,
    },
    /// Have a node drained that has been silent for longer than the operator allows.
    GiveUpNode {
        /// As the directory has it.
        node: NodeRecord,
        /// For how long.
        silent: Duration,
    },
    /// Note that a node that leaves holds nothing any more.
    FinishRemoval {
        /// As the directory has it.
        node: NodeRecord,
    },
    /// Write the records of groups to be made.
    DefineGroups {
        /// In state creating.
        groups: Vec<GroupRecord>,
    },
    /// Make the replicas of a group and note that it is active.
    FormGroup {
        /// In state creating.
        group: GroupRecord,
        /// The voters that answer, more than half; nobody if it is led already. The others get their replicas later.
        on: Vec<NodeRef>,
    },
    /// Adopt the first shards of tenants that are being created.
    RaiseTenants {
        /// In state creating.
        tenants: Vec<TenantRecord>,
    },
    /// Drop what a deleted tenant has.
    FinishDelete {
        /// In state deleting.
        tenant: TenantRecord,
    },
    /// Note in the directory that the cluster is at a newer feature level: all its nodes know it.
    RaiseLevel {
        /// Which.
        level: u16,
    },
    /// Tell a node at which feature level the cluster is.
    TellLevel {
        /// Whom.
        node: NodeRef,
        /// Which.
        level: u16,
    },
    /// Remove a replica that can't be trusted from its group, and wipe it.
    Rebuild {
        /// Of which group.
        group_id: u32,
        /// On which node.
        node: NodeRef,
        /// Its quarantine.
        ticket: u64,
        /// Who votes without it.
        voters: Vec<NodeRef>,
        /// Who learns without it.
        learners: Vec<NodeRef>,
    },
    /// Hand the leadership of a group over, away from a node without room.
    LeaveFull {
        /// Of which group.
        group_id: u32,
        /// To which node.
        node_id: u64,
    },
    /// Hand the leadership of a group over, to spread leaders.
    MoveLeader {
        /// Of which group.
        group_id: u32,
        /// To which node.
        node_id: u64,
    },
}

impl std::fmt::Display for Step {
    /// A short sentence: a step may carry hundreds of records.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const SHOWN: usize = 8;
        let nodes = |nodes: &[NodeRef]| nodes.iter().map(|node| node.node_id.to_string()).collect::<Vec<_>>().join(", ");
        let names = |tenants: &[TenantRecord]| tenants.iter().take(SHOWN).map(|tenant| tenant.name.clone()).collect::<Vec<_>>().join(", ");
        match self {
            Step::AddLearners { group_id, added, .. } => write!(f, "have nodes {} learn group {group_id}", nodes(added)),
            Step::SetMembers { group_id, members } if members.learners.is_empty() => {
                write!(f, "make nodes {} the voters of group {group_id}", nodes(&members.voters))
            }
            Step::SetMembers { group_id, members } => {
                let Members { voters, learners, .. } = members;
                write!(f, "make nodes {} the voters of group {group_id}, and nodes {} its learners", nodes(voters), nodes(learners))
            }
            Step::HandOver { group_id, node_id } => {
                write!(f, "hand the leadership of group {group_id} to node {node_id}: its leader is to go")
            }
            Step::RecordMembers { after, .. } => {
                write!(f, "note nodes {} as the voters of group {}", nodes(&after.voters), after.group_id)
            }
            Step::GiveUpNode { node, silent } => {
                let id = node.node.as_ref().map_or(0, |node| node.node_id);
                write!(f, "drain node {id}, which has been silent for {} s", silent.as_secs())
            }
            Step::FinishRemoval { node } => {
                let id = node.node.as_ref().map_or(0, |node| node.node_id);
                write!(f, "note that node {id} holds nothing any more")
            }
            Step::DefineGroups { groups } => {
                let ends = groups.first().zip(groups.last()).map_or((0, 0), |(first, last)| (first.group_id, last.group_id));
                write!(f, "define {} groups, {} to {}", groups.len(), ends.0, ends.1)
            }
            Step::FormGroup { group, on } if on.is_empty() => write!(f, "note that group {} is formed", group.group_id),
            Step::FormGroup { group, on } => write!(f, "form group {} on nodes {}", group.group_id, nodes(on)),
            Step::MakeReplica { group_id, node, .. } => write!(f, "make the replica of group {group_id} that node {} lacks", node.node_id),
            Step::DropReplica { replica, node, .. } => {
                write!(f, "delete the replica of group {} on node {}, which is no member", replica.group_id, node.node_id)
            }
            Step::RaiseTenants { tenants } => {
                let more = if tenants.len() > SHOWN { ", …" } else { "" };
                write!(f, "raise {} tenants: {}{more}", tenants.len(), names(tenants))
            }
            Step::FinishDelete { tenant } => write!(f, "finish the deletion of tenant {} ({})", tenant.name, tenant.tenant_id),
            Step::RaiseLevel { level } => write!(f, "raise the cluster to feature level {level}"),
            Step::TellLevel { node, level } => write!(f, "tell node {} that the cluster is at feature level {level}", node.node_id),
            Step::Rebuild { group_id, node, voters, .. } => {
                write!(f, "wipe the replica of group {group_id} on node {}; nodes {} vote without it", node.node_id, nodes(voters))
            }
            Step::LeaveFull { group_id, node_id } => {
                write!(f, "hand the leadership of group {group_id} to node {node_id}, away from a full disk")
            }
            Step::MoveLeader { group_id, node_id } => write!(f, "hand the leadership of group {group_id} to node {node_id}"),
        }
    }
}

/// Decides what to do. `statuses` are the answers of the nodes that answered, by node id.
#[must_use]
pub fn plan(records: &Records, statuses: &BTreeMap<u64, StatusResponse>, silence: &Silence) -> Vec<Step> {
    let alive = alive(records, statuses);
    let staying: Vec<NodeRef> = alive.iter().filter(|node| takes(node, records)).cloned().collect();
    let mut steps = trouble::rebuild(statuses);
    steps.extend(level_steps(records, statuses, &alive));
    steps.extend(trouble::evacuate(statuses, &staying));
    steps.extend(Sight { records, statuses, silence, alive: &alive }.steps());
    steps.extend(define_groups(records, &staying));
    let creating = records.groups.iter().filter(|group| group.state() == group::State::Creating);
    steps.extend(creating.filter_map(|group| form_group(group, statuses, &alive)));
    if records.groups.iter().any(|group| group.group_id != DIRECTORY_GROUP && group.state() == group::State::Active) {
        let tenants: Vec<_> = records.tenants.iter().filter(|tenant| tenant.state() == tenant::State::Creating).cloned().collect();
        if !tenants.is_empty() {
            steps.push(Step::RaiseTenants { tenants });
        }
    }
    let deleting = records.tenants.iter().filter(|tenant| tenant.state() == tenant::State::Deleting);
    steps.extend(deleting.map(|tenant| Step::FinishDelete { tenant: tenant.clone() }));
    if steps.is_empty() {
        let with_room = staying.iter().filter(|node| statuses.get(&node.node_id).is_some_and(trouble::has_room));
        steps.extend(spread_leaders(records, statuses, &with_room.cloned().collect::<Vec<_>>()));
    }
    steps
}

/// Where the replicas of each group are and where they shall be, as [`plan`] goes about it.
#[must_use]
pub fn placements(records: &Records, statuses: &BTreeMap<u64, StatusResponse>) -> Vec<Placement> {
    let alive = alive(records, statuses);
    Sight { records, statuses, silence: &Silence::new(), alive: &alive }.placements()
}

/// The nodes that answer as what they are, but for those that were removed.
fn alive(records: &Records, statuses: &BTreeMap<u64, StatusResponse>) -> Vec<NodeRef> {
    let here = records.nodes.iter().filter(|node| node.state() != node_record::State::Removed).filter_map(|node| node.node.clone());
    here.filter(|node| is_member(node, records, statuses)).collect()
}

fn takes(node: &NodeRef, records: &Records) -> bool {
    let is_it = |record: &&NodeRecord| record.node.as_ref() == Some(node);
    records.nodes.iter().find(is_it).is_some_and(office::takes)
}

/// Alive, at the address that the directory has, and of this cluster.
fn is_member(node: &NodeRef, records: &Records, statuses: &BTreeMap<u64, StatusResponse>) -> bool {
    statuses.get(&node.node_id).is_some_and(|status| {
        status.cluster_id == records.cluster.cluster_id && status.node.as_ref().is_some_and(|said| said.node_id == node.node_id)
    })
}

/// Raises the level when every node of the directory runs now and knows more; a node that is down might come back with an older build.
/// Nodes that were not told yet, because they have just started, are told.
fn level_steps(records: &Records, statuses: &BTreeMap<u64, StatusResponse>, alive: &[NodeRef]) -> Vec<Step> {
    let in_force = u16::try_from(records.cluster.feature_level.max(1)).unwrap_or(u16::MAX);
    let known = |node: &NodeRecord| {
        let node = node.node.as_ref().filter(|node| alive.contains(node))?;
        u16::try_from(statuses.get(&node.node_id)?.newest_level).ok()
    };
    let here = records.nodes.iter().filter(|node| node.state() != node_record::State::Removed);
    let newest = here.map(|node| known(node).unwrap_or(0)).min().unwrap_or(0);
    let untold = |node: &&NodeRef| {
        let status = statuses.get(&node.node_id);
        status.is_some_and(|status| status.feature_level < in_force.into() && status.newest_level >= in_force.into())
    };
    let mut steps: Vec<Step> = alive.iter().filter(untold).map(|node| Step::TellLevel { node: node.clone(), level: in_force }).collect();
    if newest > in_force {
        steps.push(Step::RaiseLevel { level: newest });
    }
    steps
}

fn define_groups(records: &Records, alive: &[NodeRef]) -> Option<Step> {
    let replicas = records.cluster.replicas as usize;
    if alive.len() < replicas || replicas == 0 {
        return None;
    }
    let mut known = records.groups.clone();
    let mut groups = Vec::new();
    for group_id in 1..=records.cluster.initial_groups {
        if !known.iter().any(|group| group.group_id == group_id) {
            let group = new_group(group_id, alive, &known, replicas);
            known.push(group.clone());
            groups.push(group);
        }
    }
    (!groups.is_empty()).then_some(Step::DefineGroups { groups })
}

/// Forms a group with the voters that answer, if they are more than half: one that is down must not keep the others from it. Whoever
/// initialises it, its log begins with the same members.
fn form_group(group: &GroupRecord, statuses: &BTreeMap<u64, StatusResponse>, alive: &[NodeRef]) -> Option<Step> {
    if leader_of(group.group_id, statuses).is_some() {
        // Somebody formed it and died. What is lacking now may have been lost, and is made with more care.
        return Some(Step::FormGroup { group: group.clone(), on: Vec::new() });
    }
    let on: Vec<NodeRef> = group.voters.iter().filter(|voter| alive.contains(voter)).cloned().collect();
    (on.len() * 2 > group.voters.len()).then(|| Step::FormGroup { group: group.clone(), on })
}

/// A new group on the nodes that hold the fewest replicas.
pub(crate) fn new_group(group_id: u32, nodes: &[NodeRef], known: &[GroupRecord], replicas: usize) -> GroupRecord {
    let load = |node: &NodeRef| known.iter().filter(|group| group.voters.iter().any(|voter| voter.node_id == node.node_id)).count();
    let mut by_load: Vec<&NodeRef> = nodes.iter().collect();
    by_load.sort_by_key(|node| (load(node), node.node_id));
    let mut voters: Vec<NodeRef> = by_load.into_iter().take(replicas).cloned().collect();
    voters.sort_by_key(|voter| voter.node_id);
    let mut record = group_record(group_id, group::State::Creating, voters);
    record.group_id = group_id;
    record
}

/// Who leads a new group first: the voters in turn, so that leaders are spread from the start.
pub(crate) fn first_leader(group: &GroupRecord) -> Option<&NodeRef> {
    let turn = (group.group_id as usize).checked_rem(group.voters.len())?;
    group.voters.get(turn)
}

pub(crate) fn leader_of(group_id: u32, statuses: &BTreeMap<u64, StatusResponse>) -> Option<(u64, &GroupStatus)> {
    let groups = statuses.iter().flat_map(|(node_id, status)| status.groups.iter().map(move |group| (*node_id, group)));
    groups.filter(|(_, group)| group.group_id == group_id && group.role() == Role::Leader).max_by_key(|(_, group)| group.term)
}

/// One leader a round moves, from the node that leads most to the one that leads fewest, of those that may lead.
fn spread_leaders(records: &Records, statuses: &BTreeMap<u64, StatusResponse>, staying: &[NodeRef]) -> Option<Step> {
    let mut led: BTreeMap<u64, Vec<&GroupStatus>> = staying.iter().map(|node| (node.node_id, Vec::new())).collect();
    for group in records.groups.iter().filter(|group| group.group_id != DIRECTORY_GROUP && group.state() == group::State::Active) {
        // A group without a leader is busy enough: nothing moves while one is missing.
        let (node_id, status) = leader_of(group.group_id, statuses)?;
        if let Some(groups) = led.get_mut(&node_id) {
            groups.push(status);
        }
    }
    let (most, groups) = led.iter().max_by_key(|(node_id, groups)| (groups.len(), **node_id))?;
    let mut takers: Vec<(&u64, usize)> =
        led.iter().map(|(node_id, groups)| (node_id, groups.len())).filter(|(node_id, _)| *node_id != most).collect();
    takers.sort_by_key(|(node_id, count)| (*count, **node_id));
    for (node_id, _) in takers.into_iter().filter(|(_, count)| count + LEADER_SLACK <= groups.len()) {
        if let Some(group) = groups.iter().find(|group| can_lead(*node_id, group, statuses)) {
            return Some(Step::MoveLeader { group_id: group.group_id, node_id: *node_id });
        }
    }
    None
}

pub(crate) fn can_lead(node_id: u64, group: &GroupStatus, statuses: &BTreeMap<u64, StatusResponse>) -> bool {
    let replica = statuses.get(&node_id).and_then(|status| status.groups.iter().find(|replica| replica.group_id == group.group_id));
    group.voters.iter().any(|voter| voter.node_id == node_id)
        && replica.is_some_and(|replica| replica.role() == Role::Follower && replica.applied_index + LAG_ENTRIES >= group.applied_index)
}

#[cfg(test)]
mod tests;
