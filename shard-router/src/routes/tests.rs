//! Which shard holds a key, whom to ask, and the bound.

use super::*;

fn place(start: &str, end: &str, group_id: u32) -> Place {
    Place {
        start: Bytes::copy_from_slice(start.as_bytes()),
        end: Bytes::copy_from_slice(end.as_bytes()),
        group_id: Some(group_id),
        epoch: 1,
    }
}

fn node(node_id: u64) -> NodeRef {
    NodeRef { node_id, address: format!("n{node_id}:1") }
}

#[test]
fn keys_and_bounds_find_their_shard() {
    let routes = TenantRoutes::new(vec![place("m", "", 2), place("", "c", 1), place("c", "m", 3)], 1);
    let group = |place: Result<&Place, Error>| place.expect("covered").group_id.expect("known");
    assert_eq!([&b""[..], b"b", b"c", b"lz", b"m", b"zz"].map(|key| group(routes.at(key))), [1, 1, 3, 3, 2, 2]);
    assert_eq!([&b"a"[..], b"c", b"d", b"m", b"n", b""].map(|end| group(routes.below(end))), [1, 1, 3, 3, 2, 2]);
    assert_eq!(routes.overlapping(b"b", b"c\0").count(), 2);
    assert_eq!(routes.overlapping(b"b", b"").count(), 3);
    assert!(TenantRoutes::new(vec![place("", "c", 1), place("d", "", 1)], 1).at(b"c").is_err(), "a gap is told");
}

#[test]
fn the_leader_is_asked_first_then_the_local_voter_then_any_but_the_avoided() {
    let mut map = RouteMap::new(10);
    map.learn_voters(1, vec![node(1), node(2), node(3)]);
    assert_eq!(map.pick(1, None, Some(2), 0).map(|n| n.node_id), Some(2));
    map.learn_leader(1, Arc::new(node(3)));
    assert_eq!(map.pick(1, None, Some(2), 0).map(|n| n.node_id), Some(3));
    assert_eq!(map.pick(1, Some(&node(3)), Some(2), 0).map(|n| n.node_id), Some(2));
    for random in 0..20 {
        let picked = map.pick(1, Some(&node(3)), None, random).map(|n| n.node_id);
        assert!(picked == Some(1) || picked == Some(2));
    }
    map.doubt_leader(1, &node(3));
    assert_eq!(map.leader(1), None);
    map.learn_leader(1, Arc::new(node(3)));
    map.learn_voters(1, vec![node(1)]);
    assert_eq!(map.leader(1), None, "no voter any more");
    assert_eq!(map.pick(1, Some(&node(1)), None, 5).map(|n| n.node_id), Some(1), "the avoided one, if there is no other");
}

#[test]
fn the_number_of_tenants_is_bounded() {
    let mut map = RouteMap::new(10);
    for tenant in 1..=1000_u64 {
        map.learn_tenant(tenant, Arc::new(TenantRoutes::directory()), tenant.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        assert!(map.tenants.len() <= 10);
        assert!(map.tenant(tenant).is_some());
    }
}
