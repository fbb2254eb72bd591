//! Folders, paths, renames and listings.

use super::{TENANT, fresh, version};
use crate::error::is_not_empty;
use crate::model::{FolderKind, ListOptions, NodeKind, Precondition};
use crate::{Namespace, ROOT};
use metadb_proto::Error;

async fn folder(ns: &Namespace, parent: u64, name: &str) -> u64 {
    ns.create_folder(parent, name, FolderKind::Tree).await.expect("made").id
}

async fn names(ns: &Namespace, id: u64) -> Vec<String> {
    ns.list(id, ListOptions::default()).await.expect("listed").entries.into_iter().map(|entry| entry.name).collect()
}

#[tokio::test]
async fn an_empty_tenant_has_a_root() {
    let (ns, _) = fresh();
    assert_eq!(ns.stat(ROOT).await.expect("the root").kind, NodeKind::Tree);
    assert_eq!(ns.resolve("/").await.expect("the root").id, ROOT);
    assert!(names(&ns, ROOT).await.is_empty());
    assert!(matches!(ns.stat(2).await, Err(Error::NotFound { .. })));
    assert!(matches!(ns.list(2, ListOptions::default()).await, Err(Error::NotFound { .. })));
    assert!(matches!(ns.create_folder(99, "a", FolderKind::Tree).await, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn names_are_kept_as_given_and_compared_canonically() {
    let (ns, _) = fresh();
    let id = folder(&ns, ROOT, "Été").await;
    assert!(matches!(ns.create_folder(ROOT, "E\u{301}TE\u{301}", FolderKind::Tree).await, Err(Error::AlreadyExists { .. })));
    assert_eq!(ns.stat_entry(ROOT, "éTÉ").await.expect("found").name, "Été");
    assert_eq!(ns.resolve("/ÉTÉ").await.expect("found").id, id);
    let respelled = ns.rename(ROOT, "été", ROOT, "ÉTÉ", false).await.expect("respelled");
    assert_eq!((respelled.id, respelled.name.as_str()), (id, "ÉTÉ"));
    assert_eq!(names(&ns, ROOT).await, ["ÉTÉ"]);
    assert_eq!(ns.stat(id).await.expect("there").name, "ÉTÉ");

    let bucket = ns.create_folder(ROOT, "bucket", FolderKind::Flat).await.expect("made").id;
    for key in ["a", "A", "../x", "é", "e\u{301}"] {
        ns.put_file(bucket, key, version("v"), Precondition::Absent).await.expect(key);
    }
    assert_eq!(names(&ns, bucket).await, ["../x", "A", "a", "e\u{301}", "é"]);
}

#[tokio::test]
async fn bad_names_change_nothing() {
    let (ns, memory) = fresh();
    folder(&ns, ROOT, "a").await;
    let before = memory.rows(TENANT);
    for bad in ["", ".", "..", "a/b", "a\0b", &"x".repeat(256)] {
        assert!(
            matches!(ns.create_folder(ROOT, bad, FolderKind::Flat).await, Err(Error::Invalid { field, .. }) if field == "name"),
            "{bad:?}"
        );
        assert!(
            matches!(ns.put_file(ROOT, bad, version("e"), Precondition::None).await, Err(Error::Invalid { field, .. }) if field == "name")
        );
        assert!(matches!(ns.rename(ROOT, "a", ROOT, bad, true).await, Err(Error::Invalid { field, .. }) if field == "to_name"));
    }
    assert_eq!(memory.rows(TENANT), before);
}

#[tokio::test]
async fn a_deep_path_is_one_read() {
    let (ns, memory) = fresh();
    let mut parent = ROOT;
    for depth in 0..40 {
        parent = folder(&ns, parent, &format!("D{depth}")).await;
    }
    let file = ns.put_file(parent, "File", version("e"), Precondition::None).await.expect("put");
    let path: String = (0..40).map(|depth| format!("/d{depth}")).collect::<String>() + "/file";
    let before = memory.reads();
    let entry = ns.resolve(&path).await.expect("resolved");
    assert_eq!((entry.id, entry.parent, entry.name.as_str()), (file.id, parent, "File"));
    assert_eq!(memory.reads() - before, 1);
    assert_eq!(ns.stat_path(&path).await.expect("there"), file);
    assert_eq!(ns.resolve_place(&format!("{path}2")).await.expect("a place"), (parent, "file2".to_owned()));
    for missing in ["/d0/nope", "/d0/nope/x", &format!("{path}/x")] {
        assert!(matches!(ns.resolve(missing).await, Err(Error::NotFound { .. })), "{missing}");
    }
    for bad in ["/..", "/d0/../d0"] {
        assert!(matches!(ns.resolve(bad).await, Err(Error::Invalid { field, .. }) if field == "path"), "{bad}");
    }
}

#[tokio::test]
async fn behind_a_flat_folder_the_rest_is_one_key() {
    let (ns, _) = fresh();
    let bucket = ns.create_folder(ROOT, "Bucket", FolderKind::Flat).await.expect("made").id;
    let file = ns.put_file(bucket, "a//B/../c/", version("e"), Precondition::None).await.expect("put");
    assert_eq!(ns.resolve("/bucket/a//B/../c/").await.expect("found").id, file.id);
    assert!(matches!(ns.resolve("/bucket/a").await, Err(Error::NotFound { .. })));
    assert_eq!(ns.resolve("/bucket/").await.expect("found").id, bucket);
    assert_eq!(ns.resolve_place("bucket/x/y").await.expect("a place"), (bucket, "x/y".to_owned()));
    assert!(matches!(ns.create_folder(bucket, "f", FolderKind::Tree).await, Err(Error::Invalid { .. })));
    assert!(matches!(ns.rename(ROOT, "bucket", bucket, "b", false).await, Err(Error::Invalid { field, .. }) if field == "to_parent"));
}

#[tokio::test]
async fn renaming_a_folder_moves_all_beneath_it_in_one_transaction() {
    let (ns, memory) = fresh();
    let (a, b) = (folder(&ns, ROOT, "a").await, folder(&ns, ROOT, "b").await);
    let deep = folder(&ns, folder(&ns, a, "x").await, "y").await;
    ns.put_file(deep, "f", version("e"), Precondition::None).await.expect("put");
    let before = memory.rows(TENANT).len();
    let entry = ns.rename(ROOT, "a", b, "moved", false).await.expect("moved");
    assert_eq!((entry.id, entry.parent), (a, b));
    assert_eq!(memory.rows(TENANT).len(), before + 1, "an event, and nothing per file");
    assert_eq!(ns.stat_path("/b/moved/x/y/f").await.expect("moved along").etag, "e");
    assert!(matches!(ns.resolve("/a").await, Err(Error::NotFound { .. })));
    assert_eq!(ns.stat(a).await.expect("there").parent, b);
    // Beneath itself, at any depth, and over what holds it.
    for to in [a, deep] {
        assert!(matches!(ns.rename(b, "moved", to, "z", true).await, Err(Error::Invalid { field, .. }) if field == "to_parent"));
    }
    assert!(is_not_empty(&ns.rename(b, "moved", ROOT, "b", true).await.expect_err("not empty")));
}

#[tokio::test]
async fn what_a_rename_may_replace() {
    let (ns, _) = fresh();
    let (a, b) = (folder(&ns, ROOT, "a").await, folder(&ns, ROOT, "b").await);
    let file = ns.put_file(a, "f", version("new"), Precondition::None).await.expect("put");
    let old = ns.put_file(b, "f", version("old"), Precondition::None).await.expect("put");
    assert!(matches!(ns.rename(a, "f", b, "f", false).await, Err(Error::AlreadyExists { .. })));
    ns.rename(a, "f", b, "f", true).await.expect("replaced");
    assert_eq!(ns.stat_entry(b, "f").await.expect("there").id, file.id);
    assert!(matches!(ns.stat(old.id).await, Err(Error::NotFound { .. })));
    assert_eq!(ns.released(0).await.expect("listed")[0].node_ids, [old.id]);
    // Folder over folder: only an empty one. Kinds do not mix.
    assert!(is_not_empty(&ns.rename(ROOT, "a", ROOT, "b", true).await.expect_err("b has f")));
    ns.rename(ROOT, "b", ROOT, "a", true).await.expect("a is empty");
    assert_eq!(ns.resolve("/a/f").await.expect("there").id, file.id);
    assert!(matches!(ns.stat(a).await, Err(Error::NotFound { .. })));
    folder(&ns, ROOT, "c").await;
    assert!(matches!(ns.rename(b, "f", ROOT, "c", true).await, Err(Error::Invalid { field, .. }) if field == "to_name"));
    assert!(matches!(ns.rename(ROOT, "nope", ROOT, "c", true).await, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn only_empty_folders_are_deleted() {
    let (ns, _) = fresh();
    let a = folder(&ns, ROOT, "a").await;
    ns.put_file(a, "f", version("e"), Precondition::None).await.expect("put");
    assert!(is_not_empty(&ns.delete(ROOT, "a", Precondition::None).await.expect_err("not empty")));
    ns.delete(a, "f", Precondition::None).await.expect("deleted");
    ns.delete(ROOT, "A", Precondition::None).await.expect("deleted");
    // What is remembered of the folder must not let anything be made in it.
    assert!(matches!(ns.put_file(a, "g", version("e"), Precondition::None).await, Err(Error::NotFound { .. })));
    assert!(matches!(ns.create_folder(a, "g", FolderKind::Tree).await, Err(Error::NotFound { .. })));
    assert!(matches!(ns.list(a, ListOptions::default()).await, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn a_flat_folder_is_listed_by_prefix_and_delimiter() {
    let (ns, memory) = fresh();
    let bucket = ns.create_folder(ROOT, "b", FolderKind::Flat).await.expect("made").id;
    for folder in ["a", "b", "é"] {
        for file in 0..150 {
            ns.put_file(bucket, &format!("{folder}/{file:03}"), version("e"), Precondition::None).await.expect("put");
        }
    }
    ns.put_file(bucket, "top", version("e"), Precondition::None).await.expect("put");
    let options = |continuation| ListOptions { delimiter: "/".into(), limit: 2, continuation, ..ListOptions::default() };
    let before = memory.reads();
    let first = ns.list(bucket, options(None)).await.expect("listed");
    assert_eq!((first.common_prefixes.as_slice(), first.entries.len()), (&["a/".to_owned(), "b/".to_owned()][..], 0));
    assert!(memory.reads() - before <= 6, "seeks, does not read all");
    let second = ns.list(bucket, options(first.continuation)).await.expect("listed");
    assert_eq!(
        (second.common_prefixes.as_slice(), second.entries[0].name.as_str(), second.continuation),
        (&["é/".to_owned()][..], "top", None)
    );

    let under = ListOptions { prefix: "é/".into(), delimiter: "/".into(), ..ListOptions::default() };
    let listed = ns.list(bucket, under).await.expect("listed");
    assert_eq!((listed.entries.len(), listed.common_prefixes.len(), listed.continuation), (150, 0, None));
    assert_eq!((listed.entries[7].name.as_str(), listed.entries[7].size, listed.entries[7].etag.as_str()), ("é/007", 10, "e"));
    for bad in [
        ListOptions { prefix: "a\0".into(), ..ListOptions::default() },
        ListOptions { continuation: Some("x".into()), ..ListOptions::default() },
    ] {
        assert!(matches!(ns.list(bucket, bad).await, Err(Error::Invalid { .. })));
    }
}
