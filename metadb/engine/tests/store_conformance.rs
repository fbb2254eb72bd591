//! One suite for both stores: random batches, flushes, snapshots and crashes against a model.
//!
//! The property: after a crash the store is what it was after some prefix of the batches, no shorter than what a flush had promised; a
//! snapshot and a cursor stay at their moment. A range that is replaced by sorted files holds, after a crash in the middle, what it held,
//! or nothing, or what the files hold. Three machines run it: a simulated one, RocksDB in a process that is killed, and RocksDB on a disk
//! that really loses power.
#![cfg(not(madsim))]

mod power;

use bytes::Bytes;
use metadb_engine::disk::{Disk, FileDisk};
use metadb_engine::rocks::{RocksOptions, RocksStore};
use metadb_engine::sim::{Kind, SimDisk, SimStore};
use metadb_engine::{BatchOp, COLUMN_FAMILIES, Cf, FileExport, Replacement, Row, Store, StoreRead, WriteBatch};
use power::PowerDisk;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{FileFailurePersistence, TestRunner};
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
    /// Replaces a range by rows, from sorted files; if told so, a crash comes so many microseconds after the beginning.
    Replace(Content, Option<(Kind, u64)>),
}

/// What a range shall hold.
#[derive(Debug, Clone)]
struct Content {
    cf: Cf,
    start: Bytes,
    end: Bytes,
    rows: BTreeMap<Bytes, Bytes>,
}

impl Content {
    fn holds(&self, cf: Cf, key: &[u8]) -> bool {
        self.cf == cf && key >= &self.start[..] && (self.end.is_empty() || key < &self.end[..])
    }

    /// Makes the range of a model hold what the content says.
    fn put(&self, model: &mut Model) {
        self.clear(model);
        model.extend(self.rows.iter().map(|(key, value)| ((self.cf, key.clone()), value.clone())));
    }

    fn clear(&self, model: &mut Model) {
        model.retain(|(cf, key), _| !self.holds(*cf, key));
    }
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

fn content() -> impl Strategy<Value = Content> {
    let rows = proptest::collection::btree_map(key(), proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from), 0..20);
    let end = prop_oneof![4 => key(), 1 => Just(Bytes::new())];
    (family(), key(), end, rows).prop_map(|(cf, one, other, mut rows)| {
        let (start, end) = if other.is_empty() || one < other { (one, other) } else { (other, one) };
        rows.retain(|key, _| *key >= start && (end.is_empty() || *key < end));
        Content { cf, start, end, rows }
    })
}

fn crash() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Kill), Just(Kind::PowerLoss)]
}

fn step() -> impl Strategy<Value = Step> {
    let bound = prop_oneof![4 => key(), 1 => Just(Bytes::new())];
    prop_oneof![
        8 => proptest::collection::vec(change(), 0..8).prop_map(Step::Write),
        2 => Just(Step::Flush),
        2 => Just(Step::Snapshot),
        1 => Just(Step::DropSnapshots),
        1 => crash().prop_map(Step::Crash),
        1 => content().prop_map(|content| Step::Replace(content, None)),
        1 => (content(), crash(), 0..400_u64).prop_map(|(content, kind, after)| Step::Replace(content, Some((kind, after)))),
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
    /// Another store of the same kind, and a disk, to make sorted files.
    fn maker(&self) -> (Arc<dyn Store>, Arc<dyn Disk>);
    /// Takes it down, and up again.
    fn crash(&mut self, kind: Kind);
}

struct SimMachine(Arc<SimStore>, Arc<SimDisk>);

impl Machine for SimMachine {
    fn store(&self) -> Arc<dyn Store> {
        self.0.clone()
    }

    fn maker(&self) -> (Arc<dyn Store>, Arc<dyn Disk>) {
        (SimStore::new(1), self.1.clone())
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
        // Names in a folder below are second names of files on their way in.
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), new.join(entry.file_name()))?;
        }
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

    fn maker(&self) -> (Arc<dyn Store>, Arc<dyn Disk>) {
        maker(self.folder.path())
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

/// RocksDB on a disk under a machine that really loses power.
struct PowerMachine {
    power: PowerDisk,
    store: Option<Arc<RocksStore>>,
}

impl PowerMachine {
    fn new(power: PowerDisk) -> Self {
        // Names of sorted files count from 1 again.
        power.fresh("spool");
        let store = Some(open(&power.fresh("store")));
        Self { power, store }
    }
}

impl Machine for PowerMachine {
    fn store(&self) -> Arc<dyn Store> {
        self.store.clone().expect("it is up")
    }

    fn maker(&self) -> (Arc<dyn Store>, Arc<dyn Disk>) {
        maker(&self.power.path())
    }

    /// To lose power is the worse of the two, whichever is asked for.
    fn crash(&mut self, _: Kind) {
        self.power.cut().expect("the power goes");
        self.store = None;
        self.power.restore().expect("the power comes back");
        self.store = Some(open(&self.power.path().join("store")));
    }
}

fn maker(folder: &Path) -> (Arc<dyn Store>, Arc<dyn Disk>) {
    let path = folder.join("maker");
    if path.exists() {
        std::fs::remove_dir_all(&path).expect("a folder of our own can be removed");
    }
    (open(&path), FileDisk::open(folder.join("spool")).expect("a folder of our own opens"))
}

/// Writes the content into sorted files, a few rows each, and says how to take them in.
async fn files(machine: &impl Machine, content: &Content, counter: &mut u64) -> (Arc<dyn Disk>, Vec<Replacement>) {
    let (maker, disk) = machine.maker();
    let mut batch = WriteBatch::default();
    content.rows.iter().for_each(|(key, value)| batch.put(content.cf, key.clone(), value.clone()));
    maker.write(batch).expect("a healthy store writes");
    let mut part = Replacement { cf: content.cf, range: content.start.clone()..content.end.clone(), files: Vec::new() };
    let (mut next, mut rows) = (Some(content.start.clone()), 0);
    while let Some(start) = next {
        *counter += 1;
        let name = format!("sorted-{counter}");
        let range = start..content.end.clone();
        let export =
            FileExport { view: maker.snapshot(), cf: content.cf, range, disk: Arc::clone(&disk), name: name.clone(), max_bytes: 100 };
        let exported = maker.export(export).await.expect("a healthy store exports");
        rows += exported.rows;
        next = exported.next;
        if exported.rows > 0 {
            part.files.push(name);
        } else {
            assert_eq!(disk.len(&name).expect("a healthy disk reads"), None);
        }
    }
    assert_eq!(rows, content.rows.len() as u64);
    (disk, vec![part])
}

/// After a crash while a range was being replaced: the state found, if it is one that may be.
fn survived(content: &Content, states: &[Model], seen: &Model) -> bool {
    states.iter().rev().any(|state| {
        let (mut emptied, mut replaced) = (state.clone(), state.clone());
        content.clear(&mut emptied);
        content.put(&mut replaced);
        [state, &emptied, &replaced].contains(&seen)
    })
}

#[expect(clippy::too_many_lines, reason = "one arm for each step: read as a table")]
async fn run<M: Machine>(mut machine: M, steps: Vec<Step>) -> M {
    let mut counter = 0;
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
            Step::Replace(content, None) => {
                let (disk, parts) = files(&machine, &content, &mut counter).await;
                store.replace(disk, parts).await.expect("a healthy store takes files in");
                let mut model = last;
                content.put(&mut model);
                assert_eq!(observe(&*store), model);
                states.push(model);
                flushed = states.len() - 1;
            }
            Step::Replace(content, Some((kind, after))) => {
                snapshots.clear();
                let (disk, parts) = files(&machine, &content, &mut counter).await;
                let replacing = store.replace(disk, parts);
                drop(store);
                let done = tokio::time::timeout(Duration::from_micros(after), replacing).await;
                machine.crash(kind);
                let seen = observe(&*machine.store());
                let mut replaced = last;
                content.put(&mut replaced);
                match done {
                    Ok(done) => {
                        done.expect("a healthy store takes files in");
                        assert_eq!(seen, replaced);
                    }
                    Err(_) => assert!(survived(&content, &states[flushed..], &seen), "{content:?}: found {seen:?}"),
                }
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
    machine
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime starts").block_on(future)
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
        block_on(run(SimMachine(store, SimDisk::new(seed)), steps));
    }
}

proptest! {
    #![proptest_config(cases(12))]
    #[test]
    fn rocksdb_store(steps in proptest::collection::vec(step(), 1..60)) {
        block_on(run(RocksMachine::new(), steps));
    }
}

/// The same, on a disk that really loses what was not synced.
#[test]
#[expect(clippy::disallowed_macros, reason = "the steps of a failed run are read in its output")]
fn real_power_failure() {
    let Some(mut power) = PowerDisk::new() else { return };
    let mut runner = TestRunner::new(ProptestConfig { failure_persistence: None, max_shrink_iters: 0, ..cases(8) });
    let strategy = proptest::collection::vec(step(), 5..30);
    for _ in 0..runner.config().cases {
        let mut steps = strategy.new_tree(&mut runner).expect("steps are made").current();
        steps.push(Step::Crash(Kind::PowerLoss));
        println!("{steps:?}");
        power = block_on(run(PowerMachine::new(power), steps)).power;
    }
}
