//! The middle of a shard is where half of its bytes lie before, however its keys are made.

use super::*;
use crate::machine::ownership::Ownership;
use crate::rows::data::Stored;
use futures::FutureExt as _;
use metadb_engine::sim::SimStore;
use metadb_engine::{Store, WriteBatch};
use metadb_proto::Version;
use proptest::prelude::*;
use std::sync::Arc;

const GROUP: u32 = 3;
const TENANT: u64 = 7;

fn view(rows: &[(Vec<u8>, usize)]) -> View {
    let store = SimStore::new(1);
    let mut batch = WriteBatch::default();
    for (key, bytes) in rows {
        let row_key = data::row_key(&data::stem(GROUP, TENANT, key), Version(5));
        batch.put(Cf::Data, row_key, Stored::put(Version(5), &vec![1; *bytes]).row().clone());
    }
    // Neighbours: another tenant, and another group.
    for (group, tenant) in [(GROUP, TENANT + 1), (GROUP + 1, TENANT)] {
        batch.put(Cf::Data, data::row_key(&data::stem(group, tenant, b"m"), Version(5)), Stored::put(Version(5), b"x").row().clone());
    }
    store.write(batch).expect("written");
    View::new(store as Arc<dyn Store>, GROUP, Version(5), Arc::new(Ownership::at_birth(GROUP)))
}

fn measured(view: &View, start: &[u8], end: &[u8]) -> v1::ShardStatus {
    let range = v1::ShardRange { tenant_id: TENANT, start: Bytes::copy_from_slice(start), end: Bytes::copy_from_slice(end) };
    let mut shards = [v1::ShardStatus { range: Some(range), state: State::Owned.into(), ..Default::default() }];
    view.measure(&mut shards, true).now_or_never().expect("the simulated store does not wait").expect("measured");
    let [shard] = shards;
    shard
}

/// Whether at least a third of the bytes lies on each side, one row more or less.
fn is_fair(rows: &[(Vec<u8>, usize)], middle: &[u8]) -> bool {
    let bytes =
        |of: &dyn Fn(&Vec<u8>) -> bool| rows.iter().filter(|(key, _)| of(key)).map(|(key, bytes)| key.len() + bytes + 30).sum::<usize>();
    let largest = rows.iter().map(|(key, bytes)| key.len() + bytes + 30).max().unwrap_or(0);
    let (below, above) = (bytes(&|key| key.as_slice() < middle), bytes(&|key| key.as_slice() >= middle));
    let third = (below + above) / 3;
    below + largest >= third && above + largest >= third
}

#[test]
fn what_has_not_two_keys_has_no_middle() {
    assert_eq!(measured(&view(&[]), b"", b""), v1::ShardStatus { bytes: 0, rows: 0, middle: None, ..measured(&view(&[]), b"", b"") });
    let one = measured(&view(&[(b"k".to_vec(), 10)]), b"", b"");
    assert!(one.rows == 1 && one.bytes > 10 && one.middle.is_none(), "{one:?}");
    let two = view(&[(b"k".to_vec(), 10), (b"l".to_vec(), 10)]);
    assert_eq!(measured(&two, b"", b"").middle.as_deref(), Some(&b"l"[..]));
    assert_eq!(measured(&two, b"", b"l").middle, None, "only the keys of the shard count");
    // A first row that outweighs all: what is behind it goes.
    let heavy = view(&[(b"a".to_vec(), 5000), (b"b".to_vec(), 1), (b"c".to_vec(), 1)]);
    assert_eq!(measured(&heavy, b"", b"").middle.as_deref(), Some(&b"b"[..]));
}

#[test]
fn large_shards_are_cut_where_their_bytes_are() {
    // More rows than are read: dense numbers, then a long tail below one prefix, then a key far away.
    let mut rows: Vec<(Vec<u8>, usize)> = (0..15_000_u32).map(|number| (format!("users/{number:06}").into_bytes(), 40)).collect();
    rows.extend((0..15_000_u32).map(|number| (format!("zoo/animals/by-name/{number:09}").into_bytes(), 40)));
    rows.push((vec![0xff; 40], 1));
    let found = measured(&view(&rows), b"", b"");
    assert_eq!(found.rows, 30_001);
    let middle = found.middle.expect("many keys");
    assert!(rows.iter().any(|(key, _)| *key == middle) && is_fair(&rows, &middle), "{}", middle.escape_ascii());
    let upper = measured(&view(&rows), b"zoo", b"").middle.expect("many keys");
    assert!(is_fair(&rows[15_000..], &upper), "{}", upper.escape_ascii());
}

#[test]
fn the_middles_of_too_many_are_refused() {
    let mut shards = vec![v1::ShardStatus::default(); MIDDLES_AT_ONCE + 1];
    let refused = view(&[]).measure(&mut shards, true).now_or_never().expect("the simulated store does not wait");
    assert!(matches!(refused, Err(Error::Invalid { .. })), "{refused:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_middle_is_a_key_with_keys_on_both_sides(
        keys in proptest::collection::btree_map(proptest::collection::vec(prop_oneof![Just(0_u8), Just(255), any::<u8>()], 0..6), 0..200_usize, 2..40)
    ) {
        let rows: Vec<(Vec<u8>, usize)> = keys.into_iter().collect();
        let middle = measured(&view(&rows), b"", b"").middle.expect("two keys");
        prop_assert!(rows[1..].iter().any(|(key, _)| *key == middle));
        prop_assert!(is_fair(&rows, &middle));
    }
}
