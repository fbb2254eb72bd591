//! Collecting: three stores, and the namespace over a database in memory.

#[expect(dead_code, reason = "the namespace's own tests use the rest of it")]
#[path = "../../../../fs-layer/src/tests/memory.rs"]
mod memory;

use super::{Cluster, ContentPart, TENANT, bytes};
use crate::collect::{CollectConfig, Collector};
use fs_layer::{Content, FolderKind, Fs, Namespace, NewVersion, Precondition, ROOT};
use memory::Memory;
use metadb_proto::Principal;
use shard_router::{Local, Router, RouterConfig};
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

const AT_ONCE: CollectConfig =
    CollectConfig { every: Duration::from_secs(1), after: Duration::ZERO, orphan_age: Duration::from_secs(3600) };

struct Setup {
    cluster: Cluster,
    fs: Fs,
    names: Namespace,
    bucket: u64,
}

impl Setup {
    async fn new() -> Setup {
        let local = Local { node_id: 1, kv: Memory::with_tenant(TENANT), principal: Principal::Node(1) };
        let fs = Fs::new(Router::new(RouterConfig { local: Some(local), ..RouterConfig::default() }));
        let cluster = Cluster::start_over(3, Arc::new(fs.clone())).await;
        let names = fs.namespace(TENANT);
        let bucket = names.create_folder(ROOT, "b", FolderKind::Flat).await.expect("made").id;
        Setup { cluster, fs, names, bucket }
    }

    fn collector(&self, node: u64, config: CollectConfig) -> Collector {
        Collector::new(self.fs.clone(), self.cluster.store(node).clone(), config)
    }

    /// Puts a file as the S3 door does: bytes, then the name.
    async fn put(&self, key: &str, len: usize) -> ContentPart {
        let part = self.cluster.write(1, &bytes(len)).await;
        self.names.put_file(self.bucket, key, version(&part), Precondition::None).await.expect("named");
        part
    }

    fn copies(&self, part: &ContentPart) -> Vec<u64> {
        (1..=3).filter(|id| self.cluster.file(*id, part).exists()).collect()
    }
}

fn version(part: &ContentPart) -> NewVersion {
    NewVersion { content: Content(vec![part.clone()]), size: part.size_bytes, etag: "e".into(), ..NewVersion::default() }
}

fn age(path: &std::path::Path, at: Duration) {
    let file = File::options().write(true).open(path).expect("there");
    file.set_modified(UNIX_EPOCH + at).expect("set");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_overwritten_or_deleted_is_freed_on_every_node() {
    let setup = Setup::new().await;
    let (first, second) = (setup.put("k", 10).await, setup.put("k", 2000).await);
    let collector = setup.collector(2, AT_ONCE);
    let done = collector.pass(TENANT).await.expect("collected");
    assert_eq!((done.releases, done.contents, done.bytes, done.left), (1, 1, 10, 0), "{done:?}");
    assert_eq!((setup.copies(&first), setup.copies(&second).len()), (vec![], 3));
    assert_eq!(setup.names.content(&first.content_id).await.expect("read"), None, "the row is gone too");
    setup.names.delete(setup.bucket, "k", Precondition::None).await.expect("deleted");
    let done = collector.pass(TENANT).await.expect("collected");
    assert_eq!((done.releases, done.contents, done.bytes), (1, 1, 2000), "{done:?}");
    assert_eq!((1..=3).map(|id| setup.cluster.files(id)).sum::<usize>(), 0, "nothing is left anywhere");
    assert_eq!(collector.pass(TENANT).await.expect("nothing to do").contents, 0);
    let counters = setup.cluster.store(2).counters();
    assert_eq!((counters.collected, counters.bytes_collected, counters.copies_removed), (2, 2010, 6));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_released_a_moment_ago_stays_for_those_who_read_it() {
    let setup = Setup::new().await;
    let part = setup.put("k", 10).await;
    setup.names.delete(setup.bucket, "k", Precondition::None).await.expect("deleted");
    let patient = CollectConfig { after: Duration::from_millis(u64::MAX), ..AT_ONCE };
    let done = setup.collector(1, patient).pass(TENANT).await.expect("passed");
    assert!(done.more && done.releases == 0, "{done:?}");
    assert_eq!(setup.copies(&part), [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_object_keeps_its_bytes_until_its_last_name_goes() {
    let setup = Setup::new().await;
    let part = setup.put("k", 10).await;
    let copying = setup.names.clone().naming_known_contents();
    copying.put_file(setup.bucket, "copy", version(&part), Precondition::None).await.expect("copied");
    let collector = setup.collector(3, AT_ONCE);
    for key in ["k", "copy"] {
        assert_eq!(setup.copies(&part), [1, 2, 3], "before {key} goes");
        setup.names.delete(setup.bucket, key, Precondition::None).await.expect("deleted");
        collector.pass(TENANT).await.expect("collected");
    }
    assert!(setup.copies(&part).is_empty());
    // Who read of it before comes too late.
    let late = copying.put_file(setup.bucket, "late", version(&part), Precondition::None).await.expect_err("its bytes are gone");
    assert!(matches!(late, metadb_proto::Error::Conflict { .. }), "{late}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_down_loses_its_copy_later() {
    let mut setup = Setup::new().await;
    let part = setup.put("k", 10).await;
    setup.names.delete(setup.bucket, "k", Precondition::None).await.expect("deleted");
    setup.cluster.stop(3).await;
    // Node 2 has no connection to it that outlived its door, as node 1 has.
    let collector = setup.collector(2, AT_ONCE);
    let done = collector.pass(TENANT).await.expect("collected");
    assert_eq!((done.contents, done.left), (0, 1), "{done:?}");
    assert_eq!(setup.copies(&part), [3]);
    let row = setup.names.content(&part.content_id).await.expect("read").expect("kept as long as a copy is");
    assert_eq!((row.names, row.part.nodes), (0, vec![3]));
    setup.cluster.restart(3).await;
    // Another node's collector does not hold the failure against it.
    let done = setup.collector(1, AT_ONCE).pass(TENANT).await.expect("collected");
    assert_eq!((done.contents, done.left), (1, 0), "{done:?}");
    assert!(setup.copies(&part).is_empty());
    assert_eq!(setup.names.content(&part.content_id).await.expect("read"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_collectors_at_once_do_no_harm() {
    let setup = Setup::new().await;
    let mut gone = Vec::new();
    for index in 0..20 {
        gone.push(setup.put(&format!("k{index}"), 100).await);
    }
    let kept = setup.put("kept", 100).await;
    for index in 0..20 {
        setup.names.delete(setup.bucket, &format!("k{index}"), Precondition::None).await.expect("deleted");
    }
    let collectors = [1, 2, 3].map(|node| setup.collector(node, AT_ONCE));
    let mut contents = 0;
    for _ in 0..3 {
        let passes = futures::future::join_all(collectors.iter().map(|collector| collector.pass(TENANT))).await;
        contents += passes.into_iter().map(|pass| pass.expect("passed").contents).sum::<u64>();
    }
    assert_eq!(contents, 20, "each is counted once");
    assert!(gone.iter().all(|part| setup.copies(part).is_empty()));
    assert_eq!(setup.copies(&kept), [1, 2, 3]);
    assert_eq!(setup.cluster.read(2, &kept, 0..100).await.expect("read"), bytes(100));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_file_that_no_row_knows_goes_and_no_other() {
    let setup = Setup::new().await;
    let [orphan, young, elsewhere] = [setup.cluster.write(1, &bytes(10)).await, setup.cluster.write(1, &bytes(10)).await, {
        let body = super::pieces(&bytes(10));
        setup.cluster.store(1).write(TENANT + 1, body, Some(10)).await.expect("written")
    }];
    let named = setup.put("k", 10).await;
    for part in [&orphan, &named, &elsewhere] {
        age(&setup.cluster.file(1, part), Duration::from_secs(1000));
    }
    let store = setup.cluster.store(1);
    let report = store.sweep_orphans(AT_ONCE.orphan_age).await.expect("walked");
    assert_eq!((report.files, report.removed), (4, 1), "{report:?}");
    assert!(!setup.cluster.file(1, &orphan).exists() && setup.cluster.file(2, &orphan).exists(), "each node sweeps its own");
    for part in [&young, &named, &elsewhere] {
        assert!(setup.cluster.file(1, part).exists());
    }
    assert_eq!((report.foreign, store.counters().orphans_removed), (1, 1), "the tenant that nobody knows is told of");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nodes_take_turns() {
    let setup = Setup::new().await;
    let mut turns = [0; 4];
    for turn in 0..300_u64 {
        let mut key = [0; 16];
        key[8..].copy_from_slice(&turn.to_be_bytes());
        let on: Vec<usize> = (1..=3).filter(|id| setup.cluster.store(*id as u64).is_first_for(&key)).collect();
        assert_eq!(on.len(), 1, "exactly one has the turn");
        turns[on[0]] += 1;
    }
    assert!(turns[1..].iter().all(|turns| (60..140).contains(turns)), "{turns:?}");
}
