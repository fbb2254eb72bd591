//! The encodings are frozen: these bytes must stay readable. And the order of row keys is the order of keys.

use super::{applied, change, data, escape, kind, request, shard, successor};
use bytes::Bytes;
use metadb_engine::EngineError;
use metadb_proto::{Version, v1};
use proptest::prelude::*;

fn is_corrupt<T: std::fmt::Debug>(result: Result<T, EngineError>) {
    assert!(matches!(result, Err(EngineError::Corrupt { .. })), "{result:?}");
}

/// Every cut of a row, and a row of another format, is refused.
fn only_whole<T: std::fmt::Debug>(row: &Bytes, decode: impl Fn(&Bytes) -> Result<T, EngineError>) {
    for end in 0..row.len() {
        is_corrupt(decode(&row.slice(..end)));
    }
    let mut other = row.to_vec();
    other[0] = 9;
    is_corrupt(decode(&other.into()));
}

#[test]
fn a_data_row() {
    let stem = data::stem(3, 7, b"a\0b");
    let key = data::row_key(&stem, Version(5));
    assert_eq!(hex::encode(&key), "00000003000000000000000761".to_owned() + "00ff62" + "0001" + "fffffffffffffffa");
    assert_eq!(data::split(&key).expect("well formed"), (stem.clone(), Version(5)));
    assert_eq!(data::key_of(&stem).expect("well formed"), Bytes::from_static(b"a\0b"));
    assert_eq!(hex::encode(data::Stored::put(Version(5), b"v").row()), "0176");
    assert_eq!(hex::encode(data::Stored::deleted(Version(5)).row()), "00");
    is_corrupt(data::split(&Bytes::from_static(b"short")));
    is_corrupt(data::key_of(&stem[..stem.len() - 1]));
    for bad in [&b""[..], b"\x02v", b"\0v"] {
        is_corrupt(data::Stored::read(Version(1), Bytes::copy_from_slice(bad)));
    }
}

#[test]
fn a_change_row() {
    let change = |version, id, keys: &[&'static [u8]]| change::Change {
        version: Version(version),
        tenant_id: 7,
        request_id: Bytes::from_static(id),
        keys: keys.iter().copied().map(Bytes::from_static).collect(),
    };
    let mut changes = change::Changes::default();
    assert_eq!(changes.take(3), None);
    changes.add(&change(4, b"", &[b"k"]));
    changes.add(&change(5, b"id", &[b"lm"]));
    changes.add(&change(6, b"j", &[]));
    let (key, row) = changes.take(3).expect("three requests");
    assert_eq!(changes.take(3), None);
    assert_eq!(hex::encode(&key), "000000030000000000000006");
    assert_eq!(change::version_of(&key).expect("well formed"), Version(6));
    is_corrupt(change::version_of(&key[..11]));
    let first = "000000000000000400000000000000070000000001000000016b";
    let second = "00000000000000050000000000000007026964".to_owned() + "00000001000000026c6d";
    let third = "00000000000000060000000000000007016a00000000";
    assert_eq!(hex::encode(&row), "03".to_owned() + first + &second + third);
    assert_eq!(change::decode(&row).expect("well formed"), [change(4, b"", &[b"k"]), change(5, b"id", &[b"lm"]), change(6, b"j", &[])]);
    for end in 0..row.len() {
        // Cut between commits it is a row too.
        let between = [first.len(), first.len() + second.len()].map(|hex| 1 + hex / 2);
        assert_eq!(change::decode(&row.slice(..end)).is_ok(), between.contains(&end), "cut at {end}");
    }
    is_corrupt(change::decode(&Bytes::from_static(b"\x01")));
}

#[test]
fn a_change_row_is_bounded_and_a_large_commit_has_its_own() {
    let key = Bytes::from(vec![b'k'; 4096]);
    let change =
        |version, keys| change::Change { version: Version(version), tenant_id: 7, request_id: Bytes::new(), keys: vec![key.clone(); keys] };
    let large = change(0, change::ROW_BYTES / 4096 + 1);
    let mut changes = change::Changes::default();
    assert!(changes.has_room(&large), "alone it has a place");
    let mut commits = 0;
    while changes.has_room(&change(commits, 1)) {
        commits += 1;
        changes.add(&change(commits, 1));
    }
    assert!(!changes.has_room(&large));
    let (_, row) = changes.take(3).expect("many commits");
    assert!(row.len() <= change::ROW_BYTES && row.len() + 2 * key.len() > change::ROW_BYTES, "{} bytes", row.len());
    assert_eq!(change::decode(&row).expect("well formed").len() as u64, commits);
}

#[test]
fn the_applied_row() {
    let applied = applied::Applied { position: Bytes::from_static(b"p"), membership: Bytes::from_static(b"mm"), version: Version(5) };
    assert_eq!(hex::encode(applied::key(3)), "0000000300");
    let row = applied.encode();
    assert_eq!(hex::encode(&row), "0100000000000000050000000170000000026d6d");
    assert_eq!(applied::Applied::decode(&row).expect("well formed"), applied);
    only_whole(&row, |row| applied::Applied::decode(row));
}

#[test]
fn a_shard_row() {
    let key = shard::key(3, 7, b"s\0");
    assert_eq!(hex::encode(&key), "00000003010000000000000007".to_owned() + "7300ff0001");
    assert_eq!(shard::read_key(&key).expect("well formed"), (7, Bytes::from_static(b"s\0")));
    let row = |state| shard::Shard { end: Bytes::from_static(b"e"), epoch: 2, version: Version(5), state };
    let states = [
        (shard::State::Owned, "01010000000000000002000000000000000500000000"),
        (shard::State::Dropped { to: None }, "01020000000000000002000000000000000500000000"),
        (shard::State::Dropped { to: Some(9) }, "01030000000000000002000000000000000500000009"),
        (shard::State::Fenced { to: 9, epoch: 3 }, "010400000000000000020000000000000005000000090000000000000003"),
        (shard::State::Expected { from: 9, through: Version(4) }, "010500000000000000020000000000000005000000090000000000000004"),
    ];
    for (state, bytes) in states {
        let encoded = row(state).encode();
        assert_eq!(hex::encode(&encoded), bytes.to_owned() + "65");
        assert_eq!(shard::Shard::decode(&encoded).expect("well formed"), row(state));
        // A shorter end is an end too: what comes before it must be whole.
        for end in 0..encoded.len() - 1 {
            is_corrupt(shard::Shard::decode(&encoded[..end]));
        }
    }
    is_corrupt(shard::Shard::decode(&[9; 30]));
    is_corrupt(shard::Shard::decode(&[1; 1]));
}

#[test]
fn a_request_row() {
    let id = [0xab; 16];
    let expected = "0000000302".to_owned() + "0000000000000004" + "0000000000000007" + &"ab".repeat(16);
    let key = request::key(3, 4, 7, &id);
    assert_eq!(hex::encode(&key), expected);
    assert_eq!(request::id_of(&key).expect("well formed"), Bytes::copy_from_slice(&id));
    let (start, end) = request::of_tenant(3, 4, 7);
    assert!(key >= start && key < end);
    assert!(
        [request::key(3, 4, 8, &[]), request::key(3, 5, 7, &id), request::key(3, 4, 6, &id)].iter().all(|key| *key < start || *key >= end)
    );
    let outcome = v1::TransactResponse { committed: true, version: 5, ..Default::default() };
    let row = request::encode(&outcome);
    assert_eq!(hex::encode(&row), "0108011005");
    assert_eq!(request::decode(&row).expect("well formed"), outcome);
    is_corrupt(request::decode(&Bytes::new()));
    is_corrupt(request::decode(&Bytes::from_static(b"\x09")));
    is_corrupt(request::decode(&Bytes::from_static(b"\x01\xff")));
    let (start, end) = request::before(3, 4);
    assert!(request::key(3, 3, u64::MAX, &[0xff; 16]) < end && request::key(3, 0, 0, &[]) >= start && request::key(3, 4, 0, &[]) >= end);
}

#[test]
fn kinds_of_state_rows_are_frozen() {
    assert_eq!((kind::APPLIED, kind::SHARD, kind::REQUEST), (0, 1, 2));
}

#[test]
fn a_successor_is_the_least_key_after_a_prefix() {
    assert_eq!(successor(b"a\xff"), b"b");
    assert_eq!(successor(b"ab"), b"ac");
    assert!(successor(b"\xff\xff").is_empty() && successor(b"").is_empty());
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(vec![0_u8, 1, 2, b'a', 0xfe, 0xff]), 0..6)
}

proptest! {
    #[test]
    fn escaped_keys_sort_as_keys_and_come_back(a in key(), b in key()) {
        let escaped = |key: &[u8]| { let mut out = Vec::new(); escape::push(&mut out, key); out };
        prop_assert_eq!(escaped(&a).cmp(&escaped(&b)), a.cmp(&b));
        prop_assert_eq!(escape::read(&escaped(&a)), Some(a));
    }

    #[test]
    fn row_keys_sort_by_tenant_key_and_falling_version(a in (0..3_u64, key(), 0..4_u64), b in (0..3_u64, key(), 0..4_u64)) {
        let row = |(tenant, key, version): &(u64, Vec<u8>, u64)| data::row_key(&data::stem(1, *tenant, key), Version(*version));
        let order = (a.0, &a.1, std::cmp::Reverse(a.2)).cmp(&(b.0, &b.1, std::cmp::Reverse(b.2)));
        prop_assert_eq!(row(&a).cmp(&row(&b)), order);
    }

    #[test]
    fn a_range_of_rows_holds_the_keys_between(start in key(), end in key(), middle in key(), version: u64) {
        let between = start <= middle && (end.is_empty() || middle < end);
        let row = data::row_key(&data::stem(1, 7, &middle), Version(version));
        let inside = data::range(1, 7, &start, &end).is_some_and(|(start, end)| row >= start && row < end);
        prop_assert_eq!(inside, between);
        let (start, end) = data::range(1, 7, b"", b"").expect("everything");
        for other in [data::stem(1, 6, &middle), data::stem(1, 8, &middle), data::stem(2, 7, &middle), data::stem(0, 7, &middle)] {
            prop_assert!(!(other >= start && other < end));
        }
    }

    #[test]
    fn stored_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let bytes = Bytes::from(bytes);
        let _ = (change::decode(&bytes), change::version_of(&bytes), applied::Applied::decode(&bytes), shard::Shard::decode(&bytes));
        let _ = (request::decode(&bytes), request::id_of(&bytes), data::split(&bytes), data::key_of(&bytes), shard::read_key(&bytes), escape::read(&bytes));
    }
}
