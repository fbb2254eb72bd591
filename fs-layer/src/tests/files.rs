//! Files: versions, preconditions, deletion, contents and their collection.

use super::{TENANT, fresh, version};
use crate::error::is_precondition_failed;
use crate::keys::{self, KeyKind};
use crate::model::{FolderKind, NewVersion, NodeKind, Precondition};
use crate::record::{EventKind, EventRecord, Record as _};
use crate::{Namespace, ROOT};
use metadb_proto::Error;

#[tokio::test]
async fn versions_pile_up_newest_first() {
    let (ns, _) = fresh();
    for number in 1..=5u64 {
        let made = ns.put_file(ROOT, "f", version(&format!("e{number}")), Precondition::None).await.expect("put");
        assert_eq!((made.version, made.kind), (number, NodeKind::File));
        assert_eq!(ns.stat_entry(ROOT, "f").await.expect("there"), made);
        assert_eq!(ns.stat(made.id).await.expect("there"), made);
        assert_eq!(ns.stat_path("/F").await.expect("there"), made);
    }
    let id = ns.resolve("f").await.expect("there").id;
    let numbers = |versions: Vec<crate::FileVersion>| versions.into_iter().map(|version| version.number).collect::<Vec<_>>();
    assert_eq!(numbers(ns.list_versions(id, None, 3).await.expect("listed")), [5, 4, 3]);
    assert_eq!(numbers(ns.list_versions(id, Some(3), 0).await.expect("listed")), [2, 1]);
    assert!(matches!(ns.list_versions(id + 1, None, 0).await, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn preconditions_hold_or_nothing_changes() {
    let (ns, memory) = fresh();
    let put = async |precondition| ns.put_file(ROOT, "f", version("e"), precondition).await;
    assert!(matches!(put(Precondition::EtagIs("e".into())).await, Err(Error::NotFound { .. })));
    put(Precondition::Absent).await.expect("absent");
    assert!(matches!(put(Precondition::Absent).await, Err(Error::AlreadyExists { .. })));
    put(Precondition::VersionIs(1)).await.expect("version 1");
    put(Precondition::EtagIs("e".into())).await.expect("etag e");
    let before = memory.rows(TENANT);
    for stale in [Precondition::VersionIs(1), Precondition::EtagIs("x".into())] {
        assert!(is_precondition_failed(&put(stale.clone()).await.expect_err("stale")));
        assert!(is_precondition_failed(&ns.delete(ROOT, "f", stale).await.expect_err("stale")));
    }
    assert_eq!(memory.rows(TENANT), before);
    assert_eq!(ns.delete(ROOT, "f", Precondition::VersionIs(3)).await.expect("deleted").version, 3);
    assert!(matches!(ns.delete(ROOT, "f", Precondition::None).await, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn bad_versions_are_refused() {
    let (ns, memory) = fresh();
    let mut wrong_size = version("e");
    wrong_size.size = 11;
    let mut nowhere = version("e");
    nowhere.content.0[0].nodes.clear();
    let mut talkative = version("e");
    talkative.attributes.insert("k".into(), "v".repeat(9000));
    let long_etag = version(&"e".repeat(2000));
    for (bad, expected) in [(wrong_size, "size"), (nowhere, "content.nodes"), (talkative, "attributes"), (long_etag, "etag")] {
        assert!(matches!(ns.put_file(ROOT, "f", bad, Precondition::None).await, Err(Error::Invalid { field, .. }) if field == expected));
    }
    assert!(memory.rows(TENANT).is_empty());
    ns.put_file(ROOT, "empty", NewVersion::default(), Precondition::None).await.expect("an empty file has no content");
    ns.create_folder(ROOT, "d", FolderKind::Tree).await.expect("made");
    assert!(matches!(ns.put_file(ROOT, "d", version("e"), Precondition::None).await, Err(Error::AlreadyExists { .. })));
}

/// Works off all that was released.
async fn collect(ns: &Namespace) {
    while let Some(released) = ns.released(1).await.expect("listed").pop() {
        while ns.collect(&released.ticket).await.expect("collected") {}
    }
}

#[tokio::test]
async fn contents_live_as_long_as_something_names_them() {
    let (ns, memory) = fresh();
    let first = version("1");
    let part = first.content.0[0].clone();
    ns.put_file(ROOT, "f", first.clone(), Precondition::None).await.expect("put");
    ns.put_file(ROOT, "f", version("2"), Precondition::None).await.expect("put");
    ns.put_file(ROOT, "copy", first.clone(), Precondition::None).await.expect("copied");
    assert_eq!(ns.content(&part.content_id).await.expect("read").expect("named").names, 2);
    assert_eq!(ns.record_copies(&part.content_id, &[3, 1]).await.expect("recorded").part.nodes, [1, 2, 3]);
    assert_eq!(ns.forget_copies(&part.content_id, &[1, 2, 3]).await.expect("recorded").part.nodes, [3], "never the last");
    let mut other = first.clone();
    other.content.0[0].blake3 = [0; 32];
    assert!(matches!(ns.put_file(ROOT, "x", other, Precondition::None).await, Err(Error::Invalid { field, .. }) if field == "content"));

    ns.delete(ROOT, "f", Precondition::None).await.expect("deleted");
    collect(&ns).await;
    assert_eq!(ns.unnamed(0).await.expect("listed").len(), 1, "that of version 2");
    assert!(matches!(ns.forget_content(&part.content_id).await, Err(Error::Invalid { .. })), "the copy names it");
    ns.delete(ROOT, "copy", Precondition::None).await.expect("deleted");
    collect(&ns).await;
    assert!(matches!(ns.put_file(ROOT, "x", first, Precondition::None).await, Err(Error::Invalid { .. })), "on its way out");
    for content in ns.unnamed(0).await.expect("listed") {
        ns.forget_content(&content.part.content_id).await.expect("forgotten");
    }
    assert_eq!(ns.content(&part.content_id).await.expect("read"), None);
    assert!(matches!(ns.record_copies(&part.content_id, &[1]).await, Err(Error::NotFound { .. })));
    let left: Vec<_> = memory.rows(TENANT).into_iter().filter(|row| !row.key.starts_with(&KeyKind::Event.prefix())).collect();
    assert_eq!(left.len(), 2, "the root and the counter of ids: {left:?}");
}

#[tokio::test]
async fn a_flat_folder_keeps_no_version_that_was_replaced() {
    let (ns, _) = fresh();
    let bucket = ns.create_folder(ROOT, "b", FolderKind::Flat).await.expect("made").id;
    let mut id = 0;
    for number in 1..=3u64 {
        let made = ns.put_file(bucket, "k", version(&format!("e{number}")), Precondition::None).await.expect("put");
        assert_eq!(made.version, number);
        assert_eq!((&ns.stat_entry(bucket, "k").await.expect("there"), &ns.stat(made.id).await.expect("there")), (&made, &made));
        id = made.id;
    }
    let numbers: Vec<u64> = ns.list_versions(id, None, 0).await.expect("listed").iter().map(|version| version.number).collect();
    assert_eq!(numbers, [3]);
    collect(&ns).await;
    let (unnamed, next) = ns.unnamed_after(None, 1).await.expect("listed");
    assert_eq!((unnamed.len(), next), (1, Some(unnamed[0].part.content_id)));
    let (rest, next) = ns.unnamed_after(next, 1).await.expect("listed");
    assert_eq!((rest.len(), next), (1, None), "those of versions 1 and 2");
    let (id, nodes) = (rest[0].part.content_id, rest[0].part.nodes.clone());
    ns.record_copies(&id, &[9]).await.expect("a copy that was owed");
    assert!(!ns.forget_content_gone_from(&id, &nodes).await.expect("asked"), "node 9 has one still");
    assert!(ns.forget_content_gone_from(&id, &[1, 2, 9]).await.expect("forgotten"));
    // Who only read of it must not take it for new.
    let mut late = version("late");
    late.content.0[0].content_id = id;
    let refused = ns.clone().naming_known_contents().put_file(bucket, "late", late, Precondition::None).await;
    assert!(matches!(refused, Err(Error::Conflict { .. })), "{refused:?}");
}

#[tokio::test]
async fn many_are_deleted_in_few_transactions() {
    let (ns, _) = fresh();
    let bucket = ns.create_folder(ROOT, "b", FolderKind::Flat).await.expect("made").id;
    let names: Vec<String> = (0..600).map(|index| format!("k{index}")).collect();
    for name in names.iter().step_by(2) {
        ns.put_file(bucket, name, version("e"), Precondition::None).await.expect("put");
    }
    let mut asked = names.clone();
    asked.extend(["k0".to_owned(), String::new()]);
    let fates = ns.delete_many(bucket, &asked).await.expect("deleted");
    for (index, fate) in fates.iter().enumerate() {
        match index {
            600 => assert_eq!(*fate, Ok(false), "the same name again"),
            601 => assert!(matches!(fate, Err(Error::Invalid { .. }))),
            _ => assert_eq!(*fate, Ok(index % 2 == 0), "{index}"),
        }
    }
    assert!(ns.list(bucket, crate::ListOptions::default()).await.expect("listed").entries.is_empty());
    assert_eq!(ns.released(0).await.expect("listed").iter().map(|released| released.node_ids.len()).sum::<usize>(), 300);
    ns.create_folder(ROOT, "d", FolderKind::Tree).await.expect("made");
    assert!(ns.delete_many(ROOT, &["d".into()]).await.expect("asked")[0].is_err());
    assert!(ns.delete_many(bucket, &vec!["x".to_owned(); 1001]).await.is_err());
}

#[tokio::test]
async fn every_change_tells_an_event_in_its_transaction() {
    let (ns, memory) = fresh();
    ns.create_folder(ROOT, "d", FolderKind::Tree).await.expect("made");
    ns.put_file(ROOT, "f", version("1"), Precondition::None).await.expect("put");
    ns.put_file(ROOT, "f", version("2"), Precondition::None).await.expect("put");
    ns.rename(ROOT, "f", ROOT, "g", false).await.expect("renamed");
    ns.delete(ROOT, "g", Precondition::None).await.expect("deleted");
    let (start, end) = keys::all(KeyKind::Event);
    let rows = memory.rows(TENANT).into_iter().filter(|row| row.key >= start && row.key < end);
    let events: Vec<EventRecord> = rows.map(|row| EventRecord::from_bytes(row.value).expect("ours")).collect();
    let kinds: Vec<EventKind> = events.iter().map(EventRecord::kind).collect();
    use EventKind::{Deleted, FileCreated, FileReplaced, FolderCreated, Renamed};
    assert_eq!(kinds, [FolderCreated, FileCreated, FileReplaced, Renamed, Deleted]);
    assert_eq!((events[3].from_name.as_str(), events[3].name.as_str(), events[3].author.as_str()), ("f", "g", "tester"));
}
