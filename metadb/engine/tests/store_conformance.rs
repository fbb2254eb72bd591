//! One suite for both stores: random batches, flushes, snapshots and crashes against a model.
//!
//! The property: after a crash the store is what it was after some prefix of the batches, no shorter than what a flush had promised; a
//! snapshot and a cursor stay at their moment.
#![cfg(not(madsim))]

use bytes::Bytes;
use metadb_engine::rocks::{RocksOptions, RocksStore};
use metadb_engine::sim::{Kind, SimStore};
use metadb_engine::{BatchOp, COLUMN_FAMILIES, Cf, Row, Store, StoreRead, WriteBatch};
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use proptest::test_runner::FileFailurePersistence;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

type Model = BTreeMap<(Cf, Bytes), Bytes>;

#[derive(Debug, Clone)]
enum Step {
    Write(Vec<(Cf, BatchOp)>),
    Flush,
    Snapshot,
    DropSnapshots,
    Crash(Kind),
    Range(Cf, Bytes, Bytes, bool),
    First(Bytes, u64),
}

/// A key of the data family: a name, its terminator, a version; so that the filters are exercised.
fn key() -> impl Strategy<Value = Bytes> {
    ("[ab]{1,3}", 0..4_u64).prop_map(|(name, version)| data_key(name.as_bytes(), version))
}

fn data_key(name: &[u8], version: u64) -> Bytes {
    let mut key = name.to_vec();
    key.extend([0, 1]);
    key.extend((!version).to_be_bytes());
    key.into()
}

fn family() -> impl Strategy<Value = Cf> {
    prop_oneof![3 => Just(Cf::Data), 1 => Just(Cf::Changes), 1 => Just(Cf::State)]
}

fn change() -> impl Strategy<Value = (Cf, BatchOp)> {
    let op = prop_oneof![
        6 => (key(), proptest::collection::vec(any::<u8>(), 0..40)).prop_map(|(key, value)| BatchOp::Put(key, value.into())),
        2 => key().prop_map(BatchOp::Delete),
        1 => (key(), key()).prop_map(|(start, end)| BatchOp::DeleteRange(start, end)),
    ];
    (family(), op)
}

fn step() -> impl Strategy<Value = Step> {
    let bound = prop_oneof![4 => key(), 1 => Just(Bytes::new())];
    prop_oneof![
        8 => proptest::collection::vec(change(), 0..8).prop_map(Step::Write),
        2 => Just(Step::Flush),
        2 => Just(Step::Snapshot),
        1 => Just(Step::DropSnapshots),
        1 => prop_oneof![Just(Kind::Kill), Just(Kind::PowerLoss)].prop_map(Step::Crash),
        4 => (family(), bound.clone(), bound, any::<bool>()).prop_map(|(cf, start, end, reverse)| Step::Range(cf, start, end, reverse)),
        4 => ("[ab]{1,3}", 0..5_u64).prop_map(|(name, version)| Step::First(name.into(), version)),
    ]
}

fn apply(model: &mut Model, ops: &[(Cf, BatchOp)]) -> WriteBatch {
    let mut batch = WriteBatch::default();
    for (cf, op) in ops {
        match op {
            BatchOp::Put(key, value) => {
                model.insert((*cf, key.clone()), value.clone());
                batch.put(*cf, key.clone(), value.clone());
            }
            BatchOp::Delete(key) => {
                model.remove(&(*cf, key.clone()));
                batch.delete(*cf, key.clone());
            }
            BatchOp::DeleteRange(start, end) => {
                model.retain(|(family, key), _| family != cf || key < start || key >= end);
                batch.delete_range(*cf, start.clone(), end.clone());
            }
        }
    }
    batch
}

fn rows_of(model: &Model, cf: Cf, start: &[u8], end: &[u8]) -> Vec<Row> {
    let inside = |key: &Bytes| &key[..] >= start && (end.is_empty() || &key[..] < end);
    model.iter().filter(|((family, key), _)| *family == cf && inside(key)).map(|((_, key), value)| (key.clone(), value.clone())).collect()
}

fn collect(reader: &dyn StoreRead, cf: Cf, start: &[u8], end: &[u8], reverse: bool) -> Vec<Row> {
    reader.cursor(cf, start..end, reverse).collect::<Result<_, _>>().expect("a healthy store reads")
}

fn observe(reader: &dyn StoreRead) -> Model {
    let all = |cf| collect(reader, cf, &[], &[], false).into_iter().map(move |(key, value)| ((cf, key), value));
    COLUMN_FAMILIES.into_iter().flat_map(all).collect()
}

trait Machine {
    fn store(&self) -> Arc<dyn Store>;
    /// Takes it down, and up again.
    fn crash(&mut self, kind: Kind);
}

struct SimMachine(Arc<SimStore>);

impl Machine for SimMachine {
    fn store(&self) -> Arc<dyn Store> {
        self.0.clone()
    }

    fn crash(&mut self, kind: Kind) {
        self.0.crash(kind);
    }
}

struct RocksMachine {
    folder: tempfile::TempDir,
    lives: usize,
    store: Arc<RocksStore>,
}

fn open(path: &Path) -> Arc<RocksStore> {
    let options = RocksOptions { block_cache_bytes: 1 << 20, memtable_bytes: 1 << 20, memtables: 2, background_jobs: 2, open_files: 64 };
    RocksStore::open(path, &options).expect("what a crash leaves can be opened")
}

/// Names and lengths of the files that matter.
fn listing(folder: &Path) -> Vec<(std::ffi::OsString, Option<u64>)> {
    let entries = std::fs::read_dir(folder).expect("the folder is there").filter_map(Result::ok);
    let files = entries.map(|entry| (entry.file_name(), entry.metadata().ok().map(|data| data.len())));
    let mut files: Vec<_> = files.filter(|(name, _)| !name.to_string_lossy().starts_with("LOG")).collect();
    files.sort();
    files
}

fn copy(old: &Path, new: &Path) -> std::io::Result<()> {
    if new.exists() {
        std::fs::remove_dir_all(new)?;
    }
    std::fs::create_dir(new)?;
    for entry in std::fs::read_dir(old)? {
        let entry = entry?;
        std::fs::copy(entry.path(), new.join(entry.file_name()))?;
    }
    Ok(())
}

impl RocksMachine {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let store = open(&folder.path().join("0"));
        Self { folder, lives: 0, store }
    }
}

impl Machine for RocksMachine {
    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    /// The next life gets the files as they are while the store is still open: what a kill leaves.
    fn crash(&mut self, _: Kind) {
        let old = self.folder.path().join(self.lives.to_string());
        self.lives += 1;
        let new = self.folder.path().join(self.lives.to_string());
        // RocksDB changes files in the background: the picture is taken again until nothing moved meanwhile.
        loop {
            let before = listing(&old);
            if copy(&old, &new).is_ok() && listing(&old) == before {
                break;
            }
        }
        self.store = open(&new);
    }
}

async fn run(mut machine: impl Machine, steps: Vec<Step>) {
    let mut states = vec![Model::new()];
    let mut flushed = 0;
    let mut snapshots: Vec<(Arc<dyn StoreRead>, Model)> = Vec::new();
    for step in steps {
        let store = machine.store();
        let last = states.last().expect("starts with one").clone();
        match step {
            Step::Write(ops) => {
                // A cursor made before the write must not see it.
                let mut before = store.cursor(Cf::Data, &[]..&[], false);
                let first = before.next();
                let mut model = last.clone();
                store.write(apply(&mut model, &ops)).expect("a healthy store writes");
                let seen: Vec<Row> = first.into_iter().chain(before).collect::<Result<_, _>>().expect("a healthy store reads");
                assert_eq!(seen, rows_of(&last, Cf::Data, &[], &[]));
                assert_eq!(observe(&*store), model);
                states.push(model);
            }
            Step::Flush => {
                store.flush().await.expect("a healthy store flushes");
                flushed = states.len() - 1;
            }
            Step::Snapshot => snapshots.push((store.snapshot(), last)),
            Step::DropSnapshots => snapshots.clear(),
            Step::Crash(kind) => {
                snapshots.clear();
                drop(store);
                machine.crash(kind);
                let seen = observe(&*machine.store());
                let survived = (flushed..states.len()).rev().find(|at| states[*at] == seen);
                assert!(survived.is_some(), "flushed {flushed} of {}: found {seen:?}", states.len() - 1);
                states = vec![seen];
                flushed = 0;
            }
            Step::Range(cf, start, end, reverse) => {
                let mut expected = rows_of(&last, cf, &start, &end);
                for (key, value) in &expected {
                    assert_eq!(store.get(cf, key).expect("a healthy store reads").as_ref(), Some(value));
                }
                if reverse {
                    expected.reverse();
                }
                assert_eq!(collect(&*store, cf, &start, &end, reverse), expected);
            }
            Step::First(name, version) => {
                let start = data_key(&name, version);
                let prefix = start.len() - 8;
                let expected = rows_of(&last, Cf::Data, &start, &[]).into_iter().find(|(key, _)| key.starts_with(&start[..prefix]));
                for reader in [&*store as &dyn StoreRead, &*store.snapshot()] {
                    assert_eq!(reader.first(Cf::Data, &start..&[], prefix).expect("a healthy store reads"), expected);
                    let any = reader.first(Cf::Data, &start..&[], 0).expect("a healthy store reads");
                    assert_eq!(any, rows_of(&last, Cf::Data, &start, &[]).into_iter().next());
                }
            }
        }
        for (snapshot, model) in &snapshots {
            assert_eq!(&observe(&**snapshot), model);
        }
    }
}

fn block_on(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime starts").block_on(future);
}

fn cases(count: u32) -> ProptestConfig {
    let kept = Box::new(FileFailurePersistence::WithSource("seeds"));
    let default = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { default.cases } else { count };
    ProptestConfig { cases, max_shrink_iters: 400, failure_persistence: Some(kept), ..default }
}

proptest! {
    #![proptest_config(cases(300))]
    #[test]
    fn simulated_store(seed in any::<u64>(), steps in proptest::collection::vec(step(), 1..60)) {
        let store = SimStore::new(seed);
        store.set_flush_latency(Duration::from_micros(20));
        block_on(run(SimMachine(store), steps));
    }
}

proptest! {
    #![proptest_config(cases(12))]
    #[test]
    fn rocksdb_store(steps in proptest::collection::vec(step(), 1..60)) {
        block_on(run(RocksMachine::new(), steps));
    }
}
