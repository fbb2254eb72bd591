//! Reads that the model of the machine does not make: walks, keys with long histories, refusals.

use super::View;
use crate::machine::ownership::{Ownership, Range};
use crate::rows::data::{Stored, row_key, stem};
use bytes::Bytes;
use metadb_engine::sim::SimStore;
use metadb_engine::{Cf, Store, WriteBatch};
use metadb_proto::{Error, Version, v1};
use std::sync::Arc;

const GROUP: u32 = 3;
const TENANT: u64 = 7;

/// A key, a version, and the value or a deletion.
type TestRow<'a> = (&'a [u8], u64, Option<&'a [u8]>);

/// A view, at version 1000, of a tenant with these rows.
fn view(rows: &[TestRow<'_>]) -> View {
    let store = SimStore::new(1);
    let mut batch = WriteBatch::default();
    for (key, version, value) in rows {
        let version = Version(*version);
        let stored = value.map_or(Stored::deleted(version), |value| Stored::put(version, value));
        batch.put(Cf::Data, row_key(&stem(GROUP, TENANT, key), version), stored.row().clone());
    }
    store.write(batch).expect("storage works");
    let mut ownership = Ownership::at_birth(GROUP);
    let everything = Range { tenant_id: TENANT, start: Bytes::new(), end: Bytes::new() };
    ownership.adopt(&everything, 1, Version(1)).expect("nothing else is owned");
    View::new(store, GROUP, Version(1000), Arc::new(ownership))
}

fn header() -> Option<v1::RequestHeader> {
    Some(v1::RequestHeader { tenant_id: TENANT, ..Default::default() })
}

fn keys(view: &View, reverse: bool, at_version: u64) -> Vec<(Bytes, u64)> {
    let read = Some(v1::ReadOptions { at_version, max_staleness_ms: 0 });
    let page = view.scan(&v1::ScanRequest { header: header(), reverse, read, ..Default::default() }).expect("owned");
    page.rows.into_iter().map(|row| (row.key, row.version)).collect()
}

#[test]
fn long_histories_are_passed_over_in_both_directions() {
    let mut rows: Vec<TestRow<'_>> = vec![(b"a", 1, Some(b"")), (b"z", 2, Some(b""))];
    rows.extend((1..=500).map(|version| (&b"hot"[..], version * 2 - 1, Some(&b"v"[..]))));
    rows.extend((1..=100).map(|version| (&b"gone"[..], version, (version < 100).then_some(&b"v"[..]))));
    let view = view(&rows);
    for at in [1, 2, 3, 50, 99, 100, 101, 640, 999, 1000] {
        let mut expected = vec![(Bytes::from_static(b"a"), 1)];
        if at < 100 {
            expected.push((Bytes::from_static(b"gone"), at));
        }
        expected.push((Bytes::from_static(b"hot"), if at % 2 == 1 { at } else { at - 1 }));
        if at >= 2 {
            expected.push((Bytes::from_static(b"z"), 2));
        }
        assert_eq!(keys(&view, false, at), expected, "at {at}");
        expected.reverse();
        assert_eq!(keys(&view, true, at), expected, "at {at}, in reverse");
    }
}

#[test]
fn a_walk_follows_links_and_stops_where_there_is_none() {
    let view = view(&[
        (b"p/1/a", 1, Some(b"\x022/rest")),
        (b"p/2/b", 2, Some(b"\x022/")),
        (b"p/2/file", 3, Some(b"\0text")),
        (b"p/2/cut", 4, Some(b"\x09x")),
    ]);
    let walk = |segments: &[&'static str]| {
        let segments = segments.iter().copied().map(Bytes::from).collect();
        let request = v1::WalkRequest { header: header(), prefix: "p/".into(), start: "1/".into(), segments, read: None };
        view.walk(&request).expect("owned").rows.into_iter().map(|row| row.version).collect::<Vec<_>>()
    };
    assert_eq!(walk(&["a"]), [1]);
    assert_eq!(walk(&["a", "b", "b", "file"]), [1, 2, 2, 3]);
    assert_eq!(walk(&["a", "nothing", "b"]), [1]);
    assert_eq!(walk(&["a", "file", "b"]), [1, 3], "no link");
    assert_eq!(walk(&["a", "cut", "b"]), [1, 4], "a link longer than its value is none");
    assert!(walk(&["b"]).is_empty());
}

#[test]
fn pages_hold_what_was_asked_and_a_foreign_continuation_is_refused() {
    let view = view(&[(b"a", 1, Some(b"1")), (b"b", 2, Some(b"2")), (b"c", 3, Some(b"3"))]);
    let mut request = v1::ScanRequest { header: header(), limit: 2, keys_only: true, ..Default::default() };
    let page = view.scan(&request).expect("owned");
    assert!(page.rows.iter().all(|row| row.value.is_empty()) && page.rows.len() == 2);
    request.continuation = page.continuation;
    let last = view.scan(&request).expect("owned");
    assert_eq!((last.rows.len(), last.continuation.len()), (1, 0), "an exhausted range says so at once");
    for (continuation, start) in [(&b"\x02a"[..], &b""[..]), (b"\x01", b""), (b"\x01a", b"b")] {
        request.continuation = Bytes::copy_from_slice(continuation);
        request.start = Bytes::copy_from_slice(start);
        assert!(matches!(view.scan(&request), Err(Error::Invalid { field, .. }) if field == "continuation"));
    }
}

#[test]
fn a_page_is_bounded_in_bytes() {
    let value = vec![0; metadb_proto::limits::VALUE_BYTES];
    let rows: Vec<TestRow<'_>> = [&b"a"[..], b"b", b"c", b"d", b"e"].map(|key| (key, 1, Some(&value[..]))).to_vec();
    let view = view(&rows);
    let page = view.scan(&v1::ScanRequest { header: header(), ..Default::default() }).expect("owned");
    assert_eq!(page.rows.len(), 3, "keys count too");
    assert!(!page.continuation.is_empty());
    let keys = rows.iter().map(|(key, ..)| Bytes::copy_from_slice(key)).collect();
    let all = view.multi_get(&v1::MultiGetRequest { header: header(), keys, read: None });
    assert!(matches!(all, Err(Error::Invalid { field, .. }) if field == "keys"));
}

#[test]
fn what_was_not_reached_and_what_is_being_replaced_is_unavailable() {
    let view = view(&[(b"a", 1, Some(b"1"))]);
    let get = |at_version| {
        let read = Some(v1::ReadOptions { at_version, max_staleness_ms: 0 });
        view.get(&v1::GetRequest { header: header(), key: "a".into(), read })
    };
    assert_eq!(get(0).expect("the latest").read_version, 1000);
    assert_eq!(get(1).expect("reached").read_version, 1);
    assert!(matches!(get(1001), Err(Error::Unavailable { .. })));
    view.retire();
    assert!(matches!(get(0), Err(Error::Unavailable { .. })));
}
