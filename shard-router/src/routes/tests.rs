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

#[test]
fn what_a_group_says_of_a_range_is_believed_unless_something_later_is_known() {
    let at = |epoch, place| Place { epoch, ..place };
    let routes = TenantRoutes::new(vec![place("", "g", 1), at(5, place("g", "p", 2)), place("p", "", 1)], 1);
    let learnt = routes.with(&at(4, place("c", "", 9)), 7);
    let expected = [place("", "c", 1), at(4, place("c", "g", 9)), at(5, place("g", "p", 2)), at(4, place("p", "", 9))];
    assert_eq!((learnt.shards, learnt.generation), (expected.to_vec(), 7));
    assert_eq!(routes.with(&at(5, place("", "", 9)), 7).only().and_then(|only| only.group_id), Some(9));
}

mod tiles {
    use super::*;
    use proptest::prelude::*;

    fn bound() -> impl Strategy<Value = String> {
        prop::sample::select(vec!["", "a", "b", "c", "d", "e"]).prop_map(str::to_owned)
    }

    proptest! {
        #[test]
        fn whatever_is_learnt_every_key_has_one_shard_with_the_highest_epoch_told(
            told in prop::collection::vec((bound(), bound(), 1..9_u32, 1..9_u64), 0..12)
        ) {
            let mut routes = TenantRoutes::new(vec![Place::whole(Some(0), 0)], 1);
            let told: Vec<Place> = told
                .into_iter()
                .filter(|(start, end, ..)| end.is_empty() || start < end)
                .map(|(start, end, group, epoch)| Place { epoch, ..place(&start, &end, group) })
                .collect();
            for place in &told {
                routes = routes.with(place, 2);
            }
            let mut end = Bytes::new();
            for (number, shard) in routes.shards.iter().enumerate() {
                prop_assert!(shard.start == end && (number == 0 || !end.is_empty()), "a gap or an overlap at {shard:?}");
                end = shard.end.clone();
            }
            prop_assert!(end.is_empty());
            for key in ["", "a", "aa", "b", "c", "d", "e", "f"] {
                let highest = told.iter().filter(|place| place.holds(key.as_bytes())).map(|place| place.epoch).max().unwrap_or(0);
                prop_assert_eq!(routes.at(key.as_bytes()).map(|place| place.epoch), Ok(highest));
            }
        }
    }
}
