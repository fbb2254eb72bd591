//! Whatever the facts: no rule is broken, every round is bounded, rounds end, and noise moves nothing back.

use super::*;
use metadb_proto::v1::{LabelRule, NodeRef, node_record};
use proptest::prelude::*;
use std::collections::BTreeSet;

const MIB: f64 = 1_048_576.0;

fn node(id: u64, pod: &str) -> Seat {
    let labels = if pod.is_empty() { Default::default() } else { [("pod".to_owned(), pod.to_owned())].into() };
    let record = NodeRecord { node: Some(NodeRef { node_id: id, address: format!("n{id}:1") }), labels, ..Default::default() };
    Seat { record, takes: true }
}

fn group(group_id: u32, pod: &str, voters: &[u64]) -> Load {
    let voters: BTreeSet<u64> = voters.iter().copied().collect();
    Load {
        record: GroupRecord { group_id, pod: pod.into(), ..Default::default() },
        leader: voters.first().copied().unwrap_or(0),
        may_lead: voters.clone(),
        voters,
        bytes: 0.0,
        requests: 0.0,
        settled: true,
        moves: false,
    }
}

fn tenant(tenant_id: u64, pod: &str, at: u32, mib: f64, requests: f64) -> Guest {
    let record = TenantRecord { tenant_id, name: format!("t{tenant_id}"), pod: pod.into(), ..Default::default() };
    Guest { record, groups: [at].into(), whole: true, bytes: mib * MIB, requests, settled: true }
}

fn pod(name: &str) -> PodRecord {
    let rule = LabelRule { label: "pod".into(), values: vec![name.into()] };
    PodRecord { name: name.into(), rules: vec![rule], ..Default::default() }
}

/// With what groups have to do counted from their tenants.
fn facts(nodes: Vec<Seat>, groups: Vec<Load>, tenants: Vec<Guest>) -> Facts {
    let mut facts = Facts { nodes, groups, tenants, pods: vec![pod("a"), pod("b")] };
    count(&mut facts);
    facts
}

fn count(facts: &mut Facts) {
    for group in &mut facts.groups {
        let of = |tenant: &&Guest| tenant.groups.contains(&group.record.group_id);
        let (mut bytes, mut requests) = (0.0, 0.0);
        for tenant in facts.tenants.iter().filter(of) {
            bytes += tenant.bytes / tenant.groups.len() as f64;
            requests += tenant.requests / tenant.groups.len() as f64;
        }
        (group.bytes, group.requests) = (bytes, requests);
    }
}

fn now(facts: &Facts) -> Vec<Move> {
    plan(facts, &Floors::default(), &Bounds::default())
}

/// Without leaderships, which are all on one node at first.
fn copies(facts: &Facts) -> Vec<Move> {
    now(facts).into_iter().filter(|planned| !matches!(planned, Move::Leader { .. })).collect()
}

fn three() -> Vec<Seat> {
    (1..=3).map(|id| node(id, "")).collect()
}

#[test]
fn nothing_moves_where_all_is_even_or_too_little_to_matter() {
    let groups = vec![group(1, "", &[1, 2, 3]), group(2, "", &[1, 2, 3])];
    let even = (0..8).map(|id| tenant(id + 1, "", 1 + u32::try_from(id % 2).expect("small"), 500.0, 100.0)).collect();
    assert_eq!(copies(&facts(three(), groups.clone(), even)), []);
    let little = (1..8).map(|id| tenant(id, "", 1, 1.0, 5.0)).collect();
    assert_eq!(copies(&facts(three(), groups, little)), [], "7 MiB are not worth a move");
}

#[test]
fn bytes_and_requests_are_evened_by_whole_tenants() {
    let groups = vec![group(1, "", &[1, 2, 3]), group(2, "", &[1, 2, 3])];
    let crowded: Vec<Guest> = (1..=8).map(|id| tenant(id, "", 1, 1000.0, 0.0)).collect();
    let moves = copies(&facts(three(), groups.clone(), crowded));
    assert_eq!(moves.iter().filter(|m| matches!(m, Move::Tenant { to: 2, .. })).count(), 4, "{moves:?}");
    let busy: Vec<Guest> = (1..=8).map(|id| tenant(id, "", 1, 0.0, 1000.0)).collect();
    assert_eq!(copies(&facts(three(), groups.clone(), busy)).len(), 4);
    let one = vec![tenant(1, "", 1, 50_000.0, 9000.0)];
    assert_eq!(copies(&facts(three(), groups, one)), [], "to move the only one changes nothing");
}

#[test]
fn who_may_not_be_where_he_is_goes_first_and_only_where_he_may_be() {
    let groups = vec![group(1, "", &[1, 2, 3]), group(2, "a", &[1, 2, 3]), group(3, "b", &[1, 2, 3])];
    let nodes = vec![node(1, "a"), node(2, "a"), node(3, "a")];
    let moves = copies(&facts(nodes.clone(), groups.clone(), vec![tenant(7, "a", 1, 0.0, 0.0)]));
    assert_eq!(moves, [Move::Tenant { tenant_id: 7, from: [1].into(), to: 2 }]);
    let mut own = groups;
    own[1].record.own_of_tenant = 9;
    assert_eq!(copies(&facts(nodes, own, vec![tenant(7, "a", 1, 0.0, 0.0)])), [], "its pod has no group for it: for a person");
}

#[test]
fn a_tenant_in_several_groups_or_in_its_own_stays() {
    let mut groups = vec![group(1, "", &[1, 2, 3]), group(2, "", &[1, 2, 3]), group(3, "", &[1, 2, 3])];
    let mut spread = tenant(1, "", 1, 9000.0, 9000.0);
    spread.groups = [1, 2].into();
    assert_eq!(copies(&facts(three(), groups.clone(), vec![spread])), []);
    groups[0].record.own_of_tenant = 1;
    let two = vec![tenant(1, "", 1, 9000.0, 9000.0), tenant(2, "", 2, 1.0, 1.0)];
    assert_eq!(copies(&facts(three(), groups, two)), []);
}

#[test]
fn an_empty_node_gets_replicas_and_then_leaders() {
    let nodes = (1..=4).map(|id| node(id, "")).collect();
    let groups: Vec<Load> = (1..=12).map(|id| group(id, "", &[1, 2, 3])).collect();
    let mut facts = facts(nodes, groups, Vec::new());
    let first = now(&facts);
    assert!(first.iter().filter(|m| matches!(m, Move::Replica { to: 4, .. })).count() == 2, "two at a time: {first:?}");
    converge(&mut facts);
    for id in 1..=4 {
        let held = facts.groups.iter().filter(|group| group.voters.contains(&id)).count();
        let led = facts.groups.iter().filter(|group| group.leader == id).count();
        assert!((7..=11).contains(&held) && (2..=4).contains(&led), "node {id} holds {held} and leads {led}");
    }
}

#[test]
fn a_drained_or_full_node_gets_nothing() {
    let mut nodes: Vec<Seat> = (1..=4).map(|id| node(id, "")).collect();
    nodes[3].record.set_state(node_record::State::Draining);
    nodes[3].takes = false;
    let groups: Vec<Load> = (1..=12).map(|id| group(id, "", &[1, 2, 3])).collect();
    let mut facts = facts(nodes, groups, Vec::new());
    converge(&mut facts);
    assert!(facts.groups.iter().all(|group| !group.voters.contains(&4)));
}

/// Plans and does until nothing is planned; how many rounds it took.
fn converge(facts: &mut Facts) -> usize {
    for round in 0..2000 {
        let moves = now(facts);
        if moves.is_empty() {
            return round;
        }
        check(facts, &moves);
        moves.iter().for_each(|done| apply(facts, done));
        count(facts);
    }
    panic!("no end: {:?}", now(facts));
}

/// What must hold of every plan.
fn check(facts: &Facts, moves: &[Move]) {
    let Bounds { tenants, replicas, leaders } = Bounds::default();
    assert!(moves.len() <= tenants + replicas + leaders);
    let mut once = BTreeSet::new();
    let mut after = facts.clone();
    for planned in moves {
        let group = |id: u32| after.groups.iter().find(|group| group.record.group_id == id).expect("a group");
        let seat = |id: u64| after.nodes.iter().find(|seat| id_of(seat) == id).expect("a node");
        match planned {
            Move::Tenant { tenant_id, from, to } => {
                let tenant = after.tenants.iter().find(|tenant| tenant.record.tenant_id == *tenant_id).expect("a tenant");
                assert!(residency::may_hold(&group(*to).record, &tenant.record), "{planned:?}");
                assert!(tenant.settled && tenant.groups == *from && !from.contains(to) || from.len() > 1, "{planned:?}");
                assert!(once.insert((0, *tenant_id)), "moved twice in a round: {planned:?}");
            }
            Move::Replica { group_id, from, to } => {
                let group = group(*group_id);
                assert!(seat(*to).takes && residency::may_be_on(&group.record, &seat(*to).record, &after.pods), "{planned:?}");
                assert!(group.settled && group.voters.contains(from) && !group.voters.contains(to), "{planned:?}");
                assert!(once.insert((1, u64::from(*group_id))), "moved twice in a round: {planned:?}");
            }
            Move::Leader { group_id, from, to } => {
                let group = group(*group_id);
                assert!(group.settled && group.leader == *from && group.voters.contains(to) && seat(*to).takes, "{planned:?}");
                assert!(once.insert((1, u64::from(*group_id))), "moved twice in a round: {planned:?}");
            }
        }
        apply(&mut after, planned);
    }
}

fn clusters() -> impl Strategy<Value = Facts> {
    let nodes = prop::collection::vec((0_usize..3, 0_u8..8), 4..9);
    let groups = prop::collection::vec((0_usize..3, any::<u64>(), 0_u8..10), 2..14);
    let tenants = prop::collection::vec((0_usize..3, any::<u16>(), 0.0_f64..3000.0, 0.0_f64..2000.0, 0_u8..12), 0..50);
    (nodes, groups, tenants).prop_map(|(nodes, groups, tenants)| {
        let pods = ["", "a", "b"];
        let seats: Vec<Seat> = nodes.iter().zip(1..).map(|((pod, state), id)| Seat { takes: *state > 0, ..node(id, pods[*pod]) }).collect();
        let groups: Vec<Load> = groups
            .iter()
            .zip(1_u32..)
            .map(|((pod, pick, rare), id)| {
                let mut ids: Vec<u64> = seats.iter().map(id_of).collect();
                ids.sort_by_key(|node| (pick ^ node).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                let mut made = group(id, pods[*pod], &ids[..3]);
                made.settled = *rare != 0;
                made.record.own_of_tenant = u64::from(*rare == 1) * 3;
                made
            })
            .collect();
        let count = groups.len();
        let tenants = tenants
            .iter()
            .zip(1..)
            .map(|((pod, at, mib, requests, rare), id)| {
                let at = groups[usize::from(*at) % count].record.group_id;
                let mut made = tenant(id, pods[*pod], at, *mib, *requests);
                made.settled = *rare != 0;
                if *rare == 1 {
                    made.groups.insert(groups[0].record.group_id);
                }
                made
            })
            .collect();
        facts(seats, groups, tenants)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_rule_is_broken_and_planning_ends(mut facts in clusters()) {
        converge(&mut facts);
        prop_assert_eq!(now(&facts), vec![]);
        // Whoever has a place where he may be is there.
        for tenant in facts.tenants.iter().filter(|tenant| tenant.settled) {
            let has_place = facts.groups.iter().any(|group| residency::is_for(&group.record, &tenant.record));
            let is_there = tenant.groups.iter().all(|id| {
                facts.groups.iter().any(|group| group.record.group_id == *id && residency::may_hold(&group.record, &tenant.record))
            });
            prop_assert!(is_there || !has_place, "{:?}", tenant);
        }
    }

    #[test]
    fn noise_moves_nothing_back(mut facts in clusters(), noise in prop::collection::vec(any::<u64>(), 12)) {
        converge(&mut facts);
        let mut left: BTreeMap<u64, BTreeSet<BTreeSet<u32>>> = BTreeMap::new();
        let truth: Vec<(f64, f64)> = facts.tenants.iter().map(|tenant| (tenant.bytes, tenant.requests)).collect();
        for salt in noise {
            for ((tenant, (bytes, requests)), n) in facts.tenants.iter_mut().zip(&truth).zip(1_u64..) {
                let by = |shift: u32| 0.95 + f64::from(u8::try_from((salt ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> shift & 0xff).unwrap_or(0)) / 2550.0;
                (tenant.bytes, tenant.requests) = (bytes * by(8), requests * by(24));
            }
            count(&mut facts);
            for done in now(&facts) {
                if let Move::Tenant { tenant_id, from, to } = &done {
                    let places = left.entry(*tenant_id).or_default();
                    prop_assert!(!places.contains(&[*to].into()), "tenant {} goes back to group {}", tenant_id, to);
                    places.insert(from.clone());
                }
                apply(&mut facts, &done);
            }
            count(&mut facts);
        }
    }
}
