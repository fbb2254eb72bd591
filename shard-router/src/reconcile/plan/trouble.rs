//! What is done about nodes without room and about replicas that can't be trusted.
//!
//! * A node whose disk is full leads nothing that another voter can lead.
//! * A replica in quarantine is removed from its group, wiped, and added again by the steps that fill groups up. It is removed only while a
//!   majority of those that remain is well: a group that has lost its majority is left as it is, for a person.

use super::{Step, can_lead, leader_of};
use metadb_proto::v1::{GroupStatus, NodeRef, Role, Room, StatusResponse};
use std::collections::{BTreeMap, BTreeSet};

type Statuses = BTreeMap<u64, StatusResponse>;

/// Whether a node may be given more to lead.
pub(crate) fn has_room(status: &StatusResponse) -> bool {
    status.disk.as_ref().is_none_or(|disk| matches!(disk.room(), Room::Plenty | Room::Unspecified))
}

fn replica(group_id: u32, node_id: u64, statuses: &Statuses) -> Option<&GroupStatus> {
    statuses.get(&node_id)?.groups.iter().find(|group| group.group_id == group_id)
}

/// Whether a node says that its replica of a group can't be trusted.
pub(in crate::reconcile) fn is_quarantined(group_id: u32, node_id: u64, statuses: &Statuses) -> bool {
    replica(group_id, node_id, statuses).is_some_and(|replica| replica.rebuild_ticket != 0)
}

fn is_well(group_id: u32, node_id: u64, statuses: &Statuses) -> bool {
    replica(group_id, node_id, statuses).is_some_and(|replica| matches!(replica.role(), Role::Leader | Role::Follower | Role::Candidate))
}

/// Replicas to be removed and wiped: one of each group at a time.
pub(super) fn rebuild(statuses: &Statuses) -> Vec<Step> {
    let mut begun = BTreeSet::new();
    let mut steps = Vec::new();
    for (node_id, status) in statuses {
        let Some(node) = status.node.clone() else { continue };
        for sick in status.groups.iter().filter(|group| group.rebuild_ticket != 0) {
            let group_id = sick.group_id;
            let Some((_, leader)) = leader_of(group_id, statuses) else { continue };
            let without = |members: &[NodeRef]| members.iter().filter(|member| member.node_id != *node_id).cloned().collect::<Vec<_>>();
            let (voters, learners) = (without(&leader.voters), without(&leader.learners));
            let well = voters.iter().filter(|voter| is_well(group_id, voter.node_id, statuses)).count();
            if well * 2 > voters.len() && begun.insert(group_id) {
                steps.push(Step::Rebuild { group_id, node: node.clone(), ticket: sick.rebuild_ticket, voters, learners });
            }
        }
    }
    steps
}

/// Leaders on full disks, each to the voter with room that leads least, of those that may lead.
pub(super) fn evacuate(statuses: &Statuses, staying: &[NodeRef]) -> Vec<Step> {
    let may_lead = |id: u64| staying.iter().any(|node| node.node_id == id);
    let mut led: BTreeMap<u64, usize> = BTreeMap::new();
    for (node_id, status) in statuses {
        led.insert(*node_id, status.groups.iter().filter(|group| group.role() == Role::Leader).count());
    }
    let mut steps = Vec::new();
    for status in statuses.values().filter(|status| !has_room(status)) {
        for group in status.groups.iter().filter(|group| group.role() == Role::Leader) {
            let voters = group.voters.iter().map(|voter| voter.node_id);
            let takers = voters.filter(|id| may_lead(*id) && statuses.get(id).is_some_and(has_room) && can_lead(*id, group, statuses));
            if let Some(node_id) = takers.min_by_key(|id| (led.get(id).copied().unwrap_or(0), *id)) {
                *led.entry(node_id).or_default() += 1;
                steps.push(Step::LeaveFull { group_id: group.group_id, node_id });
            }
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use metadb_proto::v1::DiskStatus;

    const GROUP: u32 = 3;

    fn node(node_id: u64) -> NodeRef {
        NodeRef { node_id, address: format!("n{node_id}:1") }
    }

    fn nodes(ids: &[u64]) -> Vec<NodeRef> {
        ids.iter().copied().map(node).collect()
    }

    /// Node 1 leads, those of `failed` are in quarantine under their own number, the rest follows.
    fn statuses(alive: &[u64], voters: &[u64], failed: &[u64]) -> Statuses {
        let of = |id: u64| {
            let group = GroupStatus { group_id: GROUP, term: 1, ..Default::default() };
            let group = if failed.contains(&id) {
                GroupStatus { role: Role::Failed.into(), rebuild_ticket: id, ..group }
            } else {
                let role = if id == 1 { Role::Leader } else { Role::Follower }.into();
                GroupStatus { role, voters: nodes(voters), ..group }
            };
            StatusResponse { node: Some(node(id)), cluster_id: "c".into(), groups: vec![group], ..Default::default() }
        };
        alive.iter().map(|id| (*id, of(*id))).collect()
    }

    #[test]
    fn a_replica_in_quarantine_is_removed_and_wiped() {
        let steps = rebuild(&statuses(&[1, 2, 3], &[1, 2, 3], &[3]));
        let step = Step::Rebuild { group_id: GROUP, node: node(3), ticket: 3, voters: nodes(&[1, 2]), learners: vec![] };
        assert_eq!(steps, [step]);
        let again = rebuild(&statuses(&[1, 2, 3], &[1, 2], &[3]));
        assert!(matches!(&again[..], [Step::Rebuild { voters, .. }] if *voters == nodes(&[1, 2])), "it died before the wipe: {again:?}");
    }

    #[test]
    fn what_has_no_healthy_majority_is_left_to_a_person() {
        assert_eq!(rebuild(&statuses(&[1, 3], &[1, 2, 3], &[3])), [], "of the two that remain one is away");
        assert_eq!(rebuild(&statuses(&[2, 3], &[2, 3], &[3])), [], "nobody leads");
        assert_eq!(rebuild(&statuses(&[1], &[1], &[1])), [], "the last copy");
        let five = rebuild(&statuses(&[1, 2, 3, 4, 5], &[1, 2, 3, 4, 5], &[4, 5]));
        assert!(matches!(&five[..], [Step::Rebuild { ticket: 4, .. }]), "one at a time: {five:?}");
    }

    #[test]
    fn a_full_node_hands_its_leaders_to_one_with_room() {
        let low = || Some(DiskStatus { room: Room::Low.into(), ..Default::default() });
        let mut seen = statuses(&[1, 2, 3], &[1, 2, 3], &[]);
        let all = nodes(&[1, 2, 3]);
        assert_eq!(evacuate(&seen, &all), []);
        seen.get_mut(&1).expect("there").disk = low();
        assert_eq!(evacuate(&seen, &all), [Step::LeaveFull { group_id: GROUP, node_id: 2 }]);
        assert_eq!(evacuate(&seen, &nodes(&[1, 3])), [Step::LeaveFull { group_id: GROUP, node_id: 3 }], "node 2 is drained");
        seen.get_mut(&2).expect("there").disk = low();
        assert_eq!(evacuate(&seen, &all), [Step::LeaveFull { group_id: GROUP, node_id: 3 }]);
        seen.get_mut(&3).expect("there").disk = low();
        assert_eq!(evacuate(&seen, &all), [], "all are full: a leader that serves reads is better than none");
    }
}
