//! From one node to a full cluster and back to quiet.

use super::*;

/// With nobody silent for long.
fn plan(records: &Records, statuses: &BTreeMap<u64, StatusResponse>) -> Vec<Step> {
    super::plan(records, statuses, &Silence::new())
}

fn node(node_id: u64) -> NodeRef {
    NodeRef { node_id, address: format!("n{node_id}:1") }
}

fn records(nodes: u64, groups: Vec<GroupRecord>) -> Records {
    let cluster = ClusterRecord { cluster_id: "c".into(), replicas: 3, initial_groups: 4, ..Default::default() };
    let nodes = (1..=nodes).map(|id| NodeRecord { node: Some(node(id)), ..Default::default() }).collect();
    Records { cluster, nodes, groups, ..Records::default() }
}

fn record(group_id: u32, state: group::State, voters: &[u64]) -> GroupRecord {
    GroupRecord { group_id, state: state.into(), voters: voters.iter().map(|id| node(*id)).collect(), ..Default::default() }
}

/// Statuses of nodes that are alive; `led` says which node leads a group, all voters follow.
fn statuses(alive: &[u64], led: &[(u32, u64)], voters: &[u64]) -> BTreeMap<u64, StatusResponse> {
    let of = |id: u64| {
        let groups = led.iter().filter(|_| voters.contains(&id)).map(|(group_id, leader)| GroupStatus {
            group_id: *group_id,
            role: if *leader == id { Role::Leader } else { Role::Follower }.into(),
            term: 1,
            voters: voters.iter().map(|id| node(*id)).collect(),
            ..Default::default()
        });
        StatusResponse { node: Some(node(id)), cluster_id: "c".into(), groups: groups.collect(), ..Default::default() }
    };
    alive.iter().map(|id| (*id, of(*id))).collect()
}

#[test]
fn one_node_of_three_waits_and_so_do_two() {
    let alone = records(1, vec![record(0, group::State::Active, &[1])]);
    assert_eq!(plan(&alone, &statuses(&[1], &[(0, 1)], &[1])), vec![]);
    let two = records(2, vec![record(0, group::State::Active, &[1])]);
    assert_eq!(plan(&two, &statuses(&[1, 2], &[(0, 1)], &[1])), vec![]);
}

#[test]
fn three_nodes_share_the_directory_and_get_their_groups() {
    let three = records(3, vec![record(0, group::State::Active, &[1])]);
    let steps = plan(&three, &statuses(&[1, 2, 3], &[(0, 1)], &[1]));
    let members = Members { voters: vec![node(1)], learners: vec![node(2), node(3)], seen_at: 0 };
    assert_eq!(steps[0], Step::AddLearners { group_id: 0, added: vec![node(2), node(3)], members, through: 0 });
    let Step::DefineGroups { groups } = &steps[1] else { panic!("{steps:?}") };
    assert_eq!(groups.iter().map(|g| g.group_id).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(groups.iter().all(|g| g.voters.len() == 3 && g.state() == group::State::Creating));
    let first: std::collections::BTreeSet<u64> = groups.iter().filter_map(first_leader).map(|leader| leader.node_id).collect();
    assert_eq!(first.len(), 3, "leaders are spread from the start");
}

#[test]
fn a_node_that_is_registered_but_silent_or_strange_gets_nothing() {
    let three = records(3, vec![record(0, group::State::Active, &[1])]);
    assert_eq!(plan(&three, &statuses(&[1, 2], &[(0, 1)], &[1])), vec![]);
    let mut strange = statuses(&[1, 2, 3], &[(0, 1)], &[1]);
    strange.get_mut(&3).expect("there").cluster_id = "other".into();
    assert_eq!(plan(&three, &strange), vec![]);
}

#[test]
fn voters_that_changed_are_noted() {
    let groups = (1..=4).map(|id| record(id, group::State::Active, &[1, 2, 3]));
    let known = records(3, std::iter::once(record(0, group::State::Active, &[1])).chain(groups).collect());
    let led = [(0, 1), (1, 1), (2, 2), (3, 3), (4, 1)];
    let steps = plan(&known, &statuses(&[1, 2, 3], &led, &[1, 2, 3]));
    let [Step::RecordMembers { before: Some(before), after }] = &steps[..] else { panic!("{steps:?}") };
    assert_eq!((before, &after.voters), (&known.groups[0], &vec![node(1), node(2), node(3)]));
}

#[test]
fn a_group_half_made_is_formed_when_most_of_its_voters_are_there() {
    let mut groups: Vec<GroupRecord> = (0..=4).map(|id| record(id, group::State::Active, &[1, 2, 3])).collect();
    groups[2] = record(2, group::State::Creating, &[1, 2, 3]);
    let half = records(3, groups.clone());
    let led = [(0, 1), (1, 1), (3, 3), (4, 2)];
    let form = |on: &[u64]| vec![Step::FormGroup { group: groups[2].clone(), on: on.iter().map(|id| node(*id)).collect() }];
    assert_eq!(plan(&half, &statuses(&[1, 2, 3], &led, &[1, 2, 3])), form(&[1, 2, 3]));
    assert_eq!(plan(&half, &statuses(&[1, 2], &led, &[1, 2, 3])), form(&[1, 2]), "who is down gets its replica later");
    assert_eq!(plan(&half, &statuses(&[1], &[(0, 1), (1, 1)], &[1, 2, 3])), vec![], "one of three is too few");
    let formed = [(0, 1), (1, 1), (2, 2), (3, 3), (4, 2)];
    assert_eq!(plan(&half, &statuses(&[1, 2, 3], &formed, &[1, 2, 3])), form(&[]), "it is led: only the record lacks");
}

#[test]
fn tenants_are_raised_when_a_group_can_hold_them_and_deleted_at_any_time() {
    let tenant = |tenant_id, state: tenant::State| TenantRecord {
        tenant_id,
        name: format!("t{tenant_id}"),
        state: state.into(),
        ..Default::default()
    };
    let (creating, deleting) = (tenant(1, tenant::State::Creating), tenant(2, tenant::State::Deleting));
    let mut known = records(1, vec![record(0, group::State::Active, &[1])]);
    known.tenants = vec![creating.clone(), deleting.clone(), tenant(3, tenant::State::Active)];
    let alive = statuses(&[1], &[(0, 1), (1, 1)], &[1]);
    assert_eq!(plan(&known, &alive), vec![Step::FinishDelete { tenant: deleting.clone() }]);
    known.groups.push(record(1, group::State::Active, &[1]));
    assert_eq!(plan(&known, &alive), vec![Step::RaiseTenants { tenants: vec![creating] }, Step::FinishDelete { tenant: deleting }]);
}

#[test]
fn leaders_are_spread_one_at_a_time_and_only_in_quiet() {
    let groups: Vec<GroupRecord> = (0..=4).map(|id| record(id, group::State::Active, &[1, 2, 3])).collect();
    let known = records(3, groups);
    let all_on_one = [(0, 1), (1, 1), (2, 1), (3, 1), (4, 1)];
    let steps = plan(&known, &statuses(&[1, 2, 3], &all_on_one, &[1, 2, 3]));
    assert_eq!(steps, vec![Step::MoveLeader { group_id: 1, node_id: 2 }]);
    let spread = [(0, 1), (1, 2), (2, 1), (3, 3), (4, 1)];
    assert_eq!(plan(&known, &statuses(&[1, 2, 3], &spread, &[1, 2, 3])), vec![], "2, 1 and 1 is fair");
    let leaderless = [(0, 1), (1, 1), (2, 1), (3, 1)];
    assert_eq!(plan(&known, &statuses(&[1, 2, 3], &leaderless, &[1, 2, 3])), vec![], "not while a group has no leader");
    let lagging = {
        let mut all = statuses(&[1, 2], &all_on_one, &[1, 2, 3]);
        all.get_mut(&1).expect("there").groups.iter_mut().for_each(|group| group.applied_index = 5000);
        all
    };
    assert_eq!(plan(&known, &lagging), vec![], "nor to one that lags");
}

#[test]
fn planning_converges() {
    let mut known = records(5, vec![record(0, group::State::Active, &[1, 2, 3])]);
    known.cluster.initial_groups = 8;
    let alive = statuses(&[1, 2, 3, 4, 5], &[(0, 1)], &[1, 2, 3]);
    let Some(Step::DefineGroups { groups }) = plan(&known, &alive).into_iter().next() else { panic!("groups first") };
    let mut replicas = BTreeMap::new();
    groups.iter().flat_map(|group| &group.voters).for_each(|voter| *replicas.entry(voter.node_id).or_insert(0) += 1);
    assert!(replicas.values().all(|count| (4..=6).contains(count)), "replicas are spread: {replicas:?}");
}

#[test]
fn the_level_rises_when_every_node_runs_and_knows_a_newer_one_and_who_starts_late_is_told() {
    let groups = (0..=4).map(|id| record(id, group::State::Active, &[1, 2, 3]));
    let mut known = records(3, groups.collect());
    known.cluster.feature_level = 1;
    let led = [(0, 1), (1, 1), (2, 2), (3, 3), (4, 1)];
    let at = |levels: &[(u64, u32, u32)]| {
        let alive: Vec<u64> = levels.iter().map(|(id, ..)| *id).collect();
        let mut statuses = statuses(&alive, &led, &[1, 2, 3]);
        for (id, feature_level, newest_level) in levels {
            let status = statuses.get_mut(id).expect("alive");
            (status.feature_level, status.newest_level) = (*feature_level, *newest_level);
        }
        statuses
    };
    let raises = |known: &Records, levels: &[(u64, u32, u32)]| {
        let steps = plan(known, &at(levels));
        steps.into_iter().filter(|step| matches!(step, Step::RaiseLevel { .. } | Step::TellLevel { .. })).collect::<Vec<_>>()
    };
    assert_eq!(raises(&known, &[(1, 1, 3), (2, 1, 2), (3, 1, 0)]), vec![], "node 3 is of the first build");
    assert_eq!(raises(&known, &[(1, 1, 3), (2, 1, 3)]), vec![], "node 3 is down, and may come back as it was");
    assert_eq!(raises(&known, &[(1, 1, 3), (2, 1, 2), (3, 1, 2)]), vec![Step::RaiseLevel { level: 2 }]);
    known.cluster.feature_level = 2;
    let told = raises(&known, &[(1, 2, 3), (2, 1, 2), (3, 1, 1)]);
    assert_eq!(told, vec![Step::TellLevel { node: node(2), level: 2 }], "node 3 could not understand it, and can't join again");
}

#[test]
fn a_step_is_told_in_a_line_however_much_it_carries() {
    let tenants = (0..300).map(|id| TenantRecord { tenant_id: id, name: format!("tenant-{id}"), ..Default::default() }).collect();
    let told = Step::RaiseTenants { tenants }.to_string();
    assert!(told.starts_with("raise 300 tenants: tenant-0, tenant-1") && told.len() < 200, "{told}");
    let formed = Step::FormGroup { group: record(7, group::State::Creating, &[1, 2, 3]), on: vec![node(1), node(2), node(3)] };
    assert_eq!(formed.to_string(), "form group 7 on nodes 1, 2, 3");
}
