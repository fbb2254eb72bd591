//! Many tasks at once on one small tree; afterwards it must be a tree, and every row must agree with the others.

use super::{TENANT, fresh, version};
use crate::keys::{self, KeyKind};
use crate::model::{Entry, FolderKind, NodeKind, Precondition};
use crate::record::{ContentRecord, EntryRecord, NodeRecord, Record as _, VersionRecord, kind_number};
use crate::{Namespace, ROOT};
use metadb_proto::Error;
use metadb_proto::tuple;
use metadb_proto::v1::KeyValue;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// All rows of a namespace, by kind.
struct Rows {
    nodes: BTreeMap<u64, NodeRecord>,
    entries: Vec<Entry>,
    versions: BTreeMap<(u64, u64), VersionRecord>,
    contents: BTreeMap<Vec<u8>, ContentRecord>,
}

impl Rows {
    fn of(all: Vec<KeyValue>) -> Self {
        let mut rows = Rows { nodes: BTreeMap::new(), entries: Vec::new(), versions: BTreeMap::new(), contents: BTreeMap::new() };
        for KeyValue { key, value, .. } in all {
            let is = |kind: KeyKind| key.starts_with(&kind.prefix());
            if is(KeyKind::Node) {
                let (_, id): (u64, u64) = tuple::unpack(&key).expect("a node");
                rows.nodes.insert(id, NodeRecord::from_bytes(value).expect("a node"));
            } else if is(KeyKind::Entry) {
                let (_, parent, name): (u64, u64, Vec<u8>) = tuple::unpack(&key).expect("an entry");
                let canonical = String::from_utf8(name).expect("a name");
                rows.entries.push(EntryRecord::from_row(&value).and_then(|row| row.into_entry(parent, &canonical)).expect("an entry"));
            } else if is(KeyKind::Version) {
                let (_, id, below): (u64, u64, u64) = tuple::unpack(&key).expect("a version");
                rows.versions.insert((id, u64::MAX - below), VersionRecord::from_bytes(value).expect("a version"));
            } else if is(KeyKind::Content) {
                let (_, id): (u64, Vec<u8>) = tuple::unpack(&key).expect("a content");
                rows.contents.insert(id, ContentRecord::from_bytes(value).expect("a content"));
            }
        }
        rows
    }

    /// What must hold of every namespace at rest.
    fn check(&self) {
        let mut named: BTreeMap<u64, &Entry> = BTreeMap::new();
        for entry in &self.entries {
            assert!(named.insert(entry.id, entry).is_none(), "node {} has two names", entry.id);
        }
        for (id, node) in self.nodes.iter().filter(|(id, _)| **id != ROOT) {
            let entry = named.get(id).unwrap_or_else(|| panic!("node {id} is an orphan: {node:?}"));
            assert_eq!((node.parent, node.name.as_str(), node.kind), (entry.parent, entry.name.as_str(), kind_number(entry.kind)));
            assert_eq!((node.head_version, node.size), (entry.version, entry.size));
        }
        for entry in &self.entries {
            assert!(self.nodes.contains_key(&entry.id), "{entry:?} names nothing");
            let parent = self.nodes.get(&entry.parent).unwrap_or_else(|| panic!("{entry:?} is in no folder"));
            assert_eq!(parent.kind, kind_number(NodeKind::Tree));
            // Up to the root, never in a circle.
            let (mut id, mut seen) = (entry.id, BTreeSet::new());
            while id != ROOT {
                assert!(seen.insert(id), "a cycle through {id}");
                id = self.nodes[&id].parent;
            }
            if entry.kind == NodeKind::File {
                for number in 1..=entry.version {
                    assert!(self.versions.contains_key(&(entry.id, number)), "{entry:?} has no version {number}");
                }
                assert_eq!(self.versions[&(entry.id, entry.version)].etag, entry.etag);
                assert!(!self.versions.contains_key(&(entry.id, entry.version + 1)));
            }
        }
        let mut names: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
        for part in self.versions.values().flat_map(|version| &version.parts) {
            *names.entry(part.content_id.to_vec()).or_default() += 1;
        }
        for (id, names) in names {
            assert_eq!(self.contents[&id].names, names, "what is not collected yet is still named");
        }
    }
}

#[derive(Debug, Clone)]
enum Op {
    Folder(usize, u8),
    File(usize, u8),
    Rename(usize, u8, usize, u8, bool),
    Delete(usize, u8),
}

fn op() -> impl Strategy<Value = Op> {
    let (folder, name) = (0usize..8, 0u8..3);
    prop_oneof![
        5 => (folder.clone(), name.clone()).prop_map(|(f, n)| Op::Folder(f, n)),
        3 => (folder.clone(), name.clone()).prop_map(|(f, n)| Op::File(f, n)),
        6 => (folder.clone(), name.clone(), folder.clone(), name.clone(), any::<bool>()).prop_map(|(f, n, g, m, r)| Op::Rename(f, n, g, m, r)),
        4 => (folder, name).prop_map(|(f, n)| Op::Delete(f, n)),
    ]
}

/// Runs one task's operations over the folders that all tasks know.
async fn run(ns: Namespace, ops: Vec<Op>, known: std::sync::Arc<parking_lot::Mutex<Vec<u64>>>) {
    let pick = |index: usize| {
        let known = known.lock();
        known[index % known.len()]
    };
    for op in ops {
        let result = match op {
            Op::Folder(f, n) => match ns.create_folder(pick(f), &n.to_string(), FolderKind::Tree).await {
                Ok(made) => {
                    // Few folders, so that the tasks meet.
                    let mut known = known.lock();
                    if known.len() < 8 {
                        known.push(made.id);
                    }
                    Ok(())
                }
                Err(error) => Err(error),
            },
            Op::File(f, n) => ns.put_file(pick(f), &n.to_string(), version("e"), Precondition::None).await.map(|_| ()),
            Op::Rename(f, n, g, m, r) => ns.rename(pick(f), &n.to_string(), pick(g), &m.to_string(), r).await.map(|_| ()),
            Op::Delete(f, n) => {
                ns.delete(pick(f), &n.to_string(), Precondition::None).await.map(|gone| known.lock().retain(|id| *id != gone.id))
            }
        };
        match result {
            Ok(()) | Err(Error::NotFound { .. } | Error::AlreadyExists { .. } | Error::Invalid { .. } | Error::Conflict { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_tree_stays_a_tree(tasks in prop::collection::vec(prop::collection::vec(op(), 40..80), 6..12)) {
        runtime().block_on(async {
            let (ns, memory) = fresh();
            memory.dawdle(4);
            let known = std::sync::Arc::new(parking_lot::Mutex::new(vec![ROOT]));
            for name in ["x", "y", "z"] {
                let made = ns.create_folder(ROOT, name, FolderKind::Tree).await.expect("made");
                known.lock().push(made.id);
            }
            let running: Vec<_> = tasks.into_iter().map(|ops| tokio::spawn(run(ns.clone(), ops, known.clone()))).collect();
            for task in running {
                task.await.expect("the task ended");
            }
            Rows::of(memory.rows(TENANT)).check();
        });
    }

    #[test]
    fn two_renames_at_once_never_make_a_cycle(rounds in 1usize..30) {
        runtime().block_on(async {
            let (ns, memory) = fresh();
            for _ in 0..rounds {
                let a = ns.create_folder(ROOT, "a", FolderKind::Tree).await.expect("made").id;
                let b = ns.create_folder(ROOT, "b", FolderKind::Tree).await.expect("made").id;
                let (first, second) = (ns.clone(), ns.clone());
                let into_b = tokio::spawn(async move { first.rename(ROOT, "a", b, "a", false).await });
                let into_a = tokio::spawn(async move { second.rename(ROOT, "b", a, "b", false).await });
                let (into_b, into_a) = (into_b.await.expect("ended"), into_a.await.expect("ended"));
                assert!(into_b.is_ok() != into_a.is_ok(), "{into_b:?} {into_a:?}");
                Rows::of(memory.rows(TENANT)).check();
                let (outer, holder) = if into_b.is_ok() { ("b", (b, "a")) } else { ("a", (a, "b")) };
                ns.delete(holder.0, holder.1, Precondition::None).await.expect("empty");
                ns.delete(ROOT, outer, Precondition::None).await.expect("empty");
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_of_one_name_each_get_a_version() {
    let (ns, memory) = fresh();
    let writers: Vec<_> = (0..16)
        .map(|_| {
            let ns = ns.clone();
            tokio::spawn(async move { ns.put_file(ROOT, "f", version("e"), Precondition::None).await.expect("put").version })
        })
        .collect();
    let mut numbers = BTreeSet::new();
    for writer in writers {
        numbers.insert(writer.await.expect("ended"));
    }
    assert_eq!(numbers, (1..=16).collect());
    Rows::of(memory.rows(TENANT)).check();
    let (start, end) = keys::all(KeyKind::Counter);
    assert_eq!(memory.rows(TENANT).iter().filter(|row| row.key >= start && row.key < end).count(), 1);
}
