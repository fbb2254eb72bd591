//! A model of a cluster that does what is planned, and refuses what would lose data: from any state, planning ends where it shall.

use super::*;
use crate::reconcile::plan::{placements, plan};
use metadb_proto::v1::{ClusterRecord, Role};
use proptest::prelude::*;

#[derive(Debug, Clone)]
struct Replicas {
    leader: u64,
    voters: BTreeSet<u64>,
    learners: BTreeSet<u64>,
    index: u64,
}

/// Groups that do as they are told, on nodes that may be dead.
#[derive(Debug, Clone)]
struct Model {
    records: Records,
    groups: BTreeMap<u32, Replicas>,
    /// The replicas that each node has, members or not.
    disks: BTreeMap<u64, BTreeSet<u32>>,
    dead: BTreeSet<u64>,
}

fn node(id: u64) -> NodeRef {
    NodeRef { node_id: id, address: format!("n{id}:1") }
}

impl Model {
    fn new(nodes: u64, replicas: u32, groups: u32) -> Self {
        let cluster = ClusterRecord { cluster_id: "c".into(), replicas, initial_groups: groups, ..Default::default() };
        let nodes = (1..=nodes).map(|id| NodeRecord { node: Some(node(id)), ..Default::default() }).collect();
        let first = Replicas { leader: 1, voters: [1].into(), learners: BTreeSet::new(), index: 0 };
        let records = Records { cluster, nodes, ..Records::default() };
        Model { records, groups: [(0, first)].into(), disks: [(1, [0].into())].into(), dead: BTreeSet::new() }
    }

    fn alive(&self) -> impl Iterator<Item = u64> {
        self.records.nodes.iter().map(id_of).filter(|id| !self.dead.contains(id))
    }

    /// The members that have a replica and live.
    fn answering(&self, group_id: u32, group: &Replicas) -> BTreeSet<u64> {
        let has = |id: &u64| !self.dead.contains(id) && self.disks.get(id).is_some_and(|disk| disk.contains(&group_id));
        group.voters.union(&group.learners).copied().filter(has).collect()
    }

    /// A group whose leader died elects another, if a majority lives.
    fn elect(&mut self) {
        let dead = self.dead.clone();
        for group in self.groups.values_mut() {
            let living: Vec<u64> = group.voters.iter().copied().filter(|id| !dead.contains(id)).collect();
            if dead.contains(&group.leader) && living.len() * 2 > group.voters.len() {
                group.leader = living[0];
            }
        }
    }

    fn statuses(&self) -> BTreeMap<u64, StatusResponse> {
        let of = |id: u64| {
            let disk = self.disks.get(&id).into_iter().flatten();
            let follower = |group_id: &u32| GroupStatus {
                group_id: *group_id,
                role: Role::Follower.into(),
                term: 1,
                last_log_index: 100,
                ..Default::default()
            };
            let leader = |group_id: &u32, group: &Replicas| GroupStatus {
                role: Role::Leader.into(),
                voters: group.voters.iter().map(|id| node(*id)).collect(),
                learners: group.learners.iter().map(|id| node(*id)).collect(),
                membership_index: group.index,
                matched: self.answering(*group_id, group).into_iter().map(|id| (id, 100)).collect(),
                answering: self.answering(*group_id, group).into_iter().collect(),
                ..follower(group_id)
            };
            let groups = disk.map(|group_id| match &self.groups[group_id] {
                group if group.leader == id => leader(group_id, group),
                _ => follower(group_id),
            });
            StatusResponse { node: Some(node(id)), cluster_id: "c".into(), groups: groups.collect(), ..Default::default() }
        };
        self.alive().map(|id| (id, of(id))).collect()
    }

    fn silence(&self) -> Silence {
        self.dead.iter().map(|id| (*id, Duration::from_secs(600))).collect()
    }

    fn record(&mut self, node_id: u64) -> &mut NodeRecord {
        self.records.nodes.iter_mut().find(|record| id_of(record) == node_id).expect("a node of the model")
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::AddLearners { group_id, added, members, .. } => {
                assert!(added.iter().all(|node| !self.dead.contains(&node.node_id)), "a dead node gets no replica: {added:?}");
                assert!(added.iter().all(|node| office::takes(self.record(node.node_id))), "a node that goes gets no replica: {added:?}");
                added.iter().for_each(|node| self.make(group_id, node.node_id));
                self.set(group_id, &members);
            }
            Step::SetMembers { group_id, members } => self.set(group_id, &members),
            Step::HandOver { group_id, node_id } | Step::MoveLeader { group_id, node_id } => {
                assert!(!self.dead.contains(&node_id), "a dead node does not lead");
                assert!(office::takes(self.record(node_id)), "a node that goes does not get to lead");
                let group = self.groups.get_mut(&group_id).expect("a group of the model");
                assert!(group.voters.contains(&node_id), "only a voter leads");
                group.leader = node_id;
            }
            Step::RecordMembers { after, .. } => {
                self.records.groups.retain(|group| group.group_id != after.group_id);
                self.records.groups.push(after);
            }
            Step::FinishRemoval { node } => {
                let id = id_of(&node);
                let holds = self.groups.values().any(|group| group.voters.contains(&id) || group.learners.contains(&id));
                assert!(!holds, "node {id} still holds a replica");
                assert!(self.dead.contains(&id) || self.disks.get(&id).is_none_or(BTreeSet::is_empty), "node {id} still has a replica");
                self.record(id).set_state(node_record::State::Removed);
            }
            Step::GiveUpNode { node, .. } => self.record(id_of(&node)).set_state(node_record::State::Leaving),
            Step::DefineGroups { groups } => self.records.groups.extend(groups),
            Step::MakeReplica { group_id, node, .. } => {
                let group = &self.groups[&group_id];
                assert!(group.voters.contains(&node.node_id) || group.learners.contains(&node.node_id), "{node:?} is no member");
                assert!(!self.dead.contains(&node.node_id), "a dead node gets no replica: {node:?}");
                self.make(group_id, node.node_id);
            }
            Step::DropReplica { replica, node, members } => {
                let group = &self.groups[&replica.group_id];
                if members.seen_at != group.index {
                    // The leader refuses: the members are others by now.
                    return;
                }
                assert!(!group.voters.contains(&node.node_id) && !group.learners.contains(&node.node_id), "{node:?} is a member");
                self.disks.get_mut(&node.node_id).expect("a disk").remove(&replica.group_id);
            }
            Step::FormGroup { group, on } => {
                let voters = ids(&group.voters);
                assert!(on.iter().all(|node| !self.dead.contains(&node.node_id)) && on.len() * 2 > voters.len(), "on {on:?}");
                let leader = on[0].node_id;
                on.iter().for_each(|node| self.make(group.group_id, node.node_id));
                self.groups.insert(group.group_id, Replicas { leader, voters, learners: BTreeSet::new(), index: 1 });
                let record = self.records.groups.iter_mut().find(|known| known.group_id == group.group_id).expect("defined");
                record.set_state(group::State::Active);
            }
            Step::RaiseTenants { .. }
            | Step::FinishDelete { .. }
            | Step::RaiseLevel { .. }
            | Step::TellLevel { .. }
            | Step::Rebuild { .. }
            | Step::LeaveFull { .. } => unreachable!("the model has no tenants"),
        }
    }

    fn make(&mut self, group_id: u32, node_id: u64) {
        self.disks.entry(node_id).or_default().insert(group_id);
    }

    /// As a group does it: refused if decided on other members; impossible without majorities.
    fn set(&mut self, group_id: u32, members: &Members) {
        let group = self.groups[&group_id].clone();
        assert_eq!(members.seen_at, group.index, "decided on the members in force");
        let (voters, learners) = (ids(&members.voters), ids(&members.learners));
        let lives = |set: &BTreeSet<u64>| set.iter().filter(|id| !self.dead.contains(id)).count() * 2 > set.len();
        assert!(lives(&group.voters) && lives(&voters), "{group:?} -> {voters:?} with {:?} dead", self.dead);
        let caught_up = voters.difference(&group.voters).all(|id| group.learners.contains(id) && !self.dead.contains(id));
        assert!(caught_up, "{voters:?} were not all learners that live: {group:?}");
        assert!(voters.contains(&group.leader), "the leader {} would remove itself: {voters:?}", group.leader);
        assert!(voters.is_disjoint(&learners));
        self.groups.insert(group_id, Replicas { leader: group.leader, voters, learners, index: group.index + 1 });
    }

    /// Plans and does until nothing is left to do.
    fn settle(&mut self) {
        for _ in 0..500 {
            self.elect();
            let steps = plan(&self.records, &self.statuses(), &self.silence());
            if steps.is_empty() {
                return;
            }
            // As if everything was done at once that was planned at once.
            for step in steps {
                self.take(step);
            }
        }
        panic!("no end: {:?}", plan(&self.records, &self.statuses(), &self.silence()));
    }

    fn check(&self) {
        let staying: Vec<u64> = self.records.nodes.iter().filter(|node| office::keeps(node)).map(id_of).collect();
        let leading: Vec<u64> = self.records.nodes.iter().filter(|node| office::takes(node)).map(id_of).collect();
        for (group_id, group) in &self.groups {
            assert_eq!(group.voters.len(), self.records.cluster.replicas as usize, "group {group_id}: {group:?}");
            assert!(group.voters.iter().all(|id| staying.contains(id)), "group {group_id}: {group:?}");
            assert!(group.learners.is_empty(), "group {group_id}: {group:?}");
            assert!(leading.contains(&group.leader), "group {group_id}: {group:?}");
        }
        for id in self.records.nodes.iter().filter(|n| n.state() != node_record::State::Removed).map(id_of) {
            let has = self.disks.get(&id).cloned().unwrap_or_default();
            let shall: BTreeSet<u32> = self.groups.iter().filter(|(_, group)| group.voters.contains(&id)).map(|(id, _)| *id).collect();
            assert!(self.dead.contains(&id) || has == shall, "node {id} has {has:?}, and votes in {shall:?}");
        }
        let statuses = self.statuses();
        assert!(placements(&self.records, &statuses).iter().all(|p| p.target == p.voters));
    }
}

fn draining(model: &mut Model, id: u64, keeps_replicas: bool) {
    let record = model.record(id);
    record.set_state(node_record::State::Draining);
    record.keeps_replicas = keeps_replicas;
}

fn leaving(model: &mut Model, id: u64, replaced_by: u64) {
    let record = model.record(id);
    record.set_state(node_record::State::Leaving);
    record.replaced_by = replaced_by;
}

#[test]
fn a_cluster_grows_and_shrinks_by_the_number_of_replicas() {
    let mut model = Model::new(5, 1, 4);
    for replicas in [1, 3, 5, 3, 1] {
        model.records.cluster.replicas = replicas;
        model.settle();
        model.check();
    }
}

#[test]
fn a_node_that_is_down_while_groups_are_formed_gets_its_replicas_when_it_is_back() {
    let mut model = Model::new(3, 3, 2);
    while !model.records.groups.iter().any(|group| group.state() == group::State::Creating) {
        plan(&model.records, &model.statuses(), &model.silence()).into_iter().for_each(|step| model.take(step));
    }
    model.dead.insert(3);
    model.settle();
    let active = |model: &Model| model.records.groups.iter().filter(|group| group.state() == group::State::Active).count();
    assert_eq!(active(&model), 3, "the directory and two groups: {:?}", model.records.groups);
    assert!(model.groups[&1].voters == [1, 2, 3].into() && !model.disks.get(&3).is_some_and(|disk| disk.contains(&1)), "{model:?}");
    model.dead.remove(&3);
    model.settle();
    model.check();
}

#[test]
fn a_node_that_leaves_hands_everything_over_and_is_removed() {
    let mut model = Model::new(4, 3, 8);
    model.settle();
    leaving(&mut model, 1, 0);
    model.settle();
    model.check();
    assert_eq!(model.record(1).state(), node_record::State::Removed);
}

#[test]
fn a_node_that_is_drained_hands_its_leaders_over_first_and_then_everything_and_stays_a_node() {
    let mut model = Model::new(4, 3, 8);
    model.settle();
    draining(&mut model, 1, false);
    let led: Vec<u32> = model.groups.iter().filter(|(_, group)| group.leader == 1).map(|(id, _)| *id).collect();
    let steps = plan(&model.records, &model.statuses(), &model.silence());
    let group = |step: &Step| if let Step::HandOver { group_id, .. } = step { Some(*group_id) } else { None };
    let handed: BTreeSet<u32> = steps.iter().map_while(group).collect();
    assert!(!led.is_empty() && led.iter().copied().eq(handed), "all that it leads, at once and first: {led:?}, {steps:?}");
    model.settle();
    model.check();
    assert_eq!(model.record(1).state(), node_record::State::Draining);
    assert!(model.disks[&1].is_empty());
    model.record(1).set_state(node_record::State::Active);
    draining(&mut model, 2, false);
    model.settle();
    model.check();
    assert!(!model.disks[&1].is_empty(), "it holds again");
}

#[test]
fn a_node_that_is_drained_of_leaders_keeps_its_replicas_and_gets_none() {
    let mut model = Model::new(4, 3, 8);
    model.settle();
    let before = model.disks.clone();
    draining(&mut model, 1, true);
    model.settle();
    model.check();
    assert_eq!(model.disks, before);
    // Now another one goes, and node 1 is not there to take its place.
    leaving(&mut model, 2, 0);
    model.settle();
    let gained: Vec<&u32> = model.disks[&1].difference(&before[&1]).collect();
    assert!(gained.is_empty(), "{gained:?}");
}

#[test]
fn a_dead_node_is_replaced_by_the_node_that_was_named() {
    let mut model = Model::new(5, 3, 8);
    model.record(5).set_state(node_record::State::Removed);
    model.settle();
    model.record(5).set_state(node_record::State::Active);
    let held: Vec<u32> = model.groups.iter().filter(|(_, group)| group.voters.contains(&2)).map(|(id, _)| *id).collect();
    model.dead.insert(2);
    leaving(&mut model, 2, 5);
    model.settle();
    model.check();
    assert!(held.iter().all(|id| model.groups[id].voters.contains(&5)) && !held.is_empty(), "{:?}", model.groups);
}

#[test]
fn a_silent_node_is_given_up_only_if_the_operator_allows_it_and_others_can_take_over() {
    let mut model = Model::new(4, 3, 4);
    model.settle();
    model.dead.insert(3);
    model.settle();
    assert_eq!(model.record(3).state(), node_record::State::Active, "nobody allowed it");
    model.records.cluster.replace_dead_after_ms = 300_000;
    model.settle();
    model.check();
    assert_eq!(model.record(3).state(), node_record::State::Removed);
    // Nor does a node that was drained before it fell silent keep its replicas for ever.
    let mut drained = Model::new(4, 3, 4);
    drained.settle();
    drained.record(3).set_state(node_record::State::Draining);
    drained.record(3).keeps_replicas = true;
    drained.dead.insert(3);
    drained.settle();
    assert_eq!(drained.record(3).state(), node_record::State::Draining, "nobody allowed it");
    drained.records.cluster.replace_dead_after_ms = 300_000;
    drained.settle();
    drained.check();
    assert_eq!(drained.record(3).state(), node_record::State::Removed);
    model.dead.insert(4);
    model.settle();
    assert_eq!(model.record(4).state(), node_record::State::Active, "two nodes can't hold three replicas");
}

#[test]
fn too_few_nodes_leave_a_group_as_it_is() {
    let mut model = Model::new(3, 3, 2);
    model.settle();
    leaving(&mut model, 3, 0);
    let before = model.groups.clone();
    model.settle();
    let voters = |groups: &BTreeMap<u32, Replicas>| groups.values().map(|group| group.voters.clone()).collect::<Vec<_>>();
    assert_eq!(voters(&before), voters(&model.groups));
    assert!(model.groups.values().all(|group| group.leader != 3), "but it leads nothing any more");
}

#[test]
fn an_operator_chooses_the_members_of_one_group() {
    let mut model = Model::new(5, 3, 2);
    model.settle();
    let group = model.records.groups.iter_mut().find(|group| group.group_id == 1).expect("there");
    (group.wanted_voters, group.wanted_learners) = (vec![3, 4, 5], vec![1]);
    model.settle();
    assert_eq!((&model.groups[&1].voters, &model.groups[&1].learners), (&[3, 4, 5].into(), &[1].into()));
    leaving(&mut model, 4, 2);
    model.settle();
    assert_eq!(model.groups[&1].voters, [2, 3, 5].into(), "another takes the place of one that leaves");
}

#[test]
fn a_replica_on_its_way_to_a_node_that_dies_keeps_no_other_node_from_leaving() {
    let mut model = Model::new(5, 3, 2);
    model.settle();
    let before: Vec<u64> = model.groups[&1].voters.iter().copied().collect();
    let [stays, goes, leaves] = before[..] else { panic!("three voters: {before:?}") };
    let others: Vec<u64> = (1..=5).filter(|id| !before.contains(id)).collect();
    let group = model.records.groups.iter_mut().find(|group| group.group_id == 1).expect("there");
    (group.wanted_voters, group.choice_passes) = (vec![stays, leaves, others[0]], true);
    model.dead.insert(others[0]);
    leaving(&mut model, leaves, 0);
    model.settle();
    assert_eq!(model.groups[&1].voters, [stays, goes, others[1]].into());
}

#[test]
fn a_change_that_died_half_way_is_ended() {
    let mut model = Model::new(3, 3, 1);
    model.settle();
    let mut statuses = model.statuses();
    let joint = statuses.values_mut().flat_map(|status| &mut status.groups).find(|group| group.group_id == 1).expect("led");
    joint.joint = true;
    let steps = plan(&model.records, &statuses, &Silence::new());
    assert!(matches!(&steps[..], [Step::SetMembers { group_id: 1, members }] if ids(&members.voters) == [1, 2, 3].into()), "{steps:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_wished_planning_ends_where_it_shall(wishes in prop::collection::vec((0_u8..6, 1_u64..8, 0_usize..3), 1..8)) {
        let mut model = Model::new(7, 3, 3);
        model.settle();
        for (wish, id, replicas) in wishes {
            let staying = model.records.nodes.iter().filter(|n| n.state() == node_record::State::Active).count();
            match wish {
                0 => model.records.cluster.replicas = [1, 3, 5][replicas].min(u32::try_from(staying - model.dead.len()).unwrap_or(1) / 2 * 2 + 1),
                1 if staying - model.dead.len() > model.records.cluster.replicas as usize + 1 && model.record(id).state() == node_record::State::Active => {
                    leaving(&mut model, id, 0);
                }
                4 if staying - model.dead.len() > model.records.cluster.replicas as usize + 1 && model.record(id).state() == node_record::State::Active => {
                    draining(&mut model, id, false);
                }
                5 if model.record(id).state() == node_record::State::Draining => model.record(id).set_state(node_record::State::Active),
                // One that is dead leaves at once: the next may die only when all have all their replicas again.
                2 if staying > model.records.cluster.replicas as usize + 1 && model.records.cluster.replicas > 1 && model.record(id).state() == node_record::State::Active => {
                    model.dead.insert(id);
                    leaving(&mut model, id, 0);
                }
                _ => {
                    let rounds = replicas + 1;
                    for _ in 0..rounds {
                        model.elect();
                        for step in plan(&model.records, &model.statuses(), &model.silence()) {
                            model.take(step);
                        }
                    }
                    continue;
                }
            }
            model.settle();
            let room = model.records.nodes.iter().filter(|n| n.state() == node_record::State::Active && !model.dead.contains(&id_of(n))).count();
            if room >= model.records.cluster.replicas as usize {
                model.check();
            }
        }
    }
}
