//! One suite for both disks: random operations, crashes and failing syncs against a model of the log.
//!
//! The property: after a crash the log is what it was after some prefix of the submissions, no shorter than what was acknowledged as
//! durable, and it goes on from there. Three machines run it: a simulated one, a real disk under a process that is killed, and a real disk
//! that loses power.
#![cfg(not(madsim))]

mod power;

use bytes::Bytes;
use metadb_engine::EngineError;
use metadb_engine::disk::{Disk, FileDisk};
use metadb_engine::log::{GroupState, Log, LogOp, LogOptions, Record};
use metadb_engine::sim::{Kind, SimDisk};
use parking_lot::{Mutex, RwLock};
use power::PowerDisk;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{FileFailurePersistence, TestRunner};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const GROUPS: u32 = 3;

#[derive(Debug, Clone)]
enum Step {
    Submit(Vec<Draft>),
    /// Waits until all is answered.
    Settle,
    /// Lets the writer run a little.
    Yield,
    Crash(Kind),
    Close,
    FailSync,
    ReadAll,
}

/// An operation before it is known which indexes exist.
#[derive(Debug, Clone)]
enum Draft {
    Append { group: u32, sizes: Vec<usize> },
    Truncate { group: u32, back: u64 },
    Purge { group: u32, ahead: u64 },
    Vote { group: u32 },
    Committed { group: u32 },
    Forget { group: u32 },
}

fn draft() -> impl Strategy<Value = Draft> {
    let group = 0..GROUPS;
    prop_oneof![
        8 => (group.clone(), proptest::collection::vec(prop_oneof![9 => 0..120_usize, 1 => 500..3000_usize], 1..5))
            .prop_map(|(group, sizes)| Draft::Append { group, sizes }),
        2 => (group.clone(), 0..4_u64).prop_map(|(group, back)| Draft::Truncate { group, back }),
        3 => (group.clone(), 0..6_u64).prop_map(|(group, ahead)| Draft::Purge { group, ahead }),
        2 => group.clone().prop_map(|group| Draft::Vote { group }),
        2 => group.clone().prop_map(|group| Draft::Committed { group }),
        1 => group.prop_map(|group| Draft::Forget { group }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => proptest::collection::vec(draft(), 1..4).prop_map(Step::Submit),
        3 => Just(Step::Settle),
        4 => Just(Step::Yield),
        1 => Just(Step::Crash(Kind::Kill)),
        2 => Just(Step::Crash(Kind::PowerLoss)),
        1 => Just(Step::Close),
        1 => Just(Step::FailSync),
        2 => Just(Step::ReadAll),
    ]
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Group {
    vote: Option<Bytes>,
    committed: Option<Bytes>,
    mark: Option<Bytes>,
    next: Option<u64>,
    entries: BTreeMap<u64, Bytes>,
}

type Model = BTreeMap<u32, Group>;

fn apply(model: &mut Model, op: &LogOp) {
    if let LogOp::Forget { group } = op {
        model.remove(group);
        return;
    }
    let group = model.entry(op.group()).or_default();
    match op {
        LogOp::Append { entries, .. } => {
            for entry in entries {
                group.entries.insert(entry.index, entry.bytes.clone());
                group.next = Some(entry.index + 1);
            }
        }
        LogOp::Truncate { from_index, .. } => {
            group.entries.split_off(from_index);
            let end = group.entries.last_key_value().map(|(last, _)| last + 1);
            group.next = end.or(group.next.map(|next| next.min(*from_index)));
        }
        LogOp::Purge { through_index, mark, .. } => {
            group.entries = group.entries.split_off(&(through_index + 1));
            group.next = Some(group.next.map_or(through_index + 1, |next| next.max(through_index + 1)));
            group.mark = Some(mark.clone());
        }
        LogOp::Vote { bytes, .. } => group.vote = Some(bytes.clone()),
        LogOp::Committed { bytes, .. } => group.committed = Some(bytes.clone()),
        LogOp::Forget { .. } => {}
    }
}

fn durable(op: &LogOp) -> bool {
    !matches!(op, LogOp::Committed { .. } | LogOp::Purge { .. })
}

/// The bytes of something, told apart from all others by a counter.
fn content(counter: &mut u64, size: usize) -> Bytes {
    *counter += 1;
    let mut bytes = counter.to_le_bytes().to_vec();
    let fill = u8::try_from(*counter % 251).expect("below 251");
    bytes.resize(size.max(8), fill);
    bytes.into()
}

fn to_op(model: &Model, draft: &Draft, counter: &mut u64) -> LogOp {
    match draft {
        Draft::Append { group, sizes } => {
            let first = model.get(group).and_then(|group| group.next).unwrap_or(1);
            let entries = (first..).zip(sizes).map(|(index, size)| Record { index, bytes: content(counter, *size) }).collect();
            LogOp::Append { group: *group, entries }
        }
        Draft::Truncate { group, back } => {
            let entries = model.get(group).map(|group| &group.entries);
            let (first, last) =
                entries.and_then(|entries| Some((*entries.keys().next()?, *entries.keys().last()?))).unwrap_or((u64::MAX, 0));
            let from_index = if first == u64::MAX { u64::MAX } else { last.saturating_sub(*back).max(first) };
            LogOp::Truncate { group: *group, from_index }
        }
        Draft::Purge { group, ahead } => {
            let known = model.get(group);
            let first = known.and_then(|group| group.entries.keys().next().copied().or(group.next)).unwrap_or(1);
            LogOp::Purge { group: *group, through_index: first + ahead, mark: content(counter, 8) }
        }
        Draft::Vote { group } => LogOp::Vote { group: *group, bytes: content(counter, 16) },
        Draft::Committed { group } => LogOp::Committed { group: *group, bytes: content(counter, 24) },
        Draft::Forget { group } => LogOp::Forget { group: *group },
    }
}

fn observe(log: &Log) -> Result<Model, EngineError> {
    let mut seen = Model::new();
    for id in log.groups() {
        let GroupState { vote, committed, purge_mark, first_index, last_index } = log.group(id).expect("it was listed");
        let mut entries = BTreeMap::new();
        let mut from = 0;
        loop {
            let records = log.read(id, from..u64::MAX, 700)?;
            let Some(last) = records.last() else { break };
            from = last.index + 1;
            entries.extend(records.into_iter().map(|record| (record.index, record.bytes)));
        }
        assert_eq!(first_index, entries.keys().next().copied());
        assert_eq!(last_index, entries.keys().last().copied());
        seen.insert(id, Group { vote, committed, mark: purge_mark, next: None, entries });
    }
    Ok(seen)
}

/// Without what can't be observed: which index must come next in an empty group.
fn visible(model: &Model) -> Model {
    model.iter().map(|(id, group)| (*id, Group { next: None, ..group.clone() })).collect()
}

/// The machine under the log.
trait Machine {
    fn disk(&self) -> Arc<dyn Disk>;
    /// Takes it down; the log of this life is dropped after that.
    fn crash(&mut self, kind: Kind);
    /// Starts it again, when nobody uses the disk of the last life any more.
    fn restart(&mut self) {}
    fn fail_sync(&self);
}

struct SimMachine(Arc<SimDisk>);

impl Machine for SimMachine {
    fn disk(&self) -> Arc<dyn Disk> {
        self.0.mount()
    }

    fn crash(&mut self, kind: Kind) {
        self.0.crash(kind);
    }

    fn fail_sync(&self) {
        self.0.fail_syncs(1);
    }
}

/// A real disk whose process can be declared dead: nothing it does after that reaches the files.
struct Gate {
    disk: Arc<FileDisk>,
    dead: RwLock<bool>,
    failing: Mutex<bool>,
}

impl Gate {
    fn pass<T>(&self, call: impl FnOnce(&FileDisk) -> Result<T, EngineError>) -> Result<T, EngineError> {
        let dead = self.dead.read();
        if *dead { Err(EngineError::Stopped { message: "killed".to_owned() }) } else { call(&self.disk) }
    }
}

impl Disk for Gate {
    fn list(&self) -> Result<Vec<String>, EngineError> {
        self.pass(Disk::list)
    }
    fn len(&self, name: &str) -> Result<Option<u64>, EngineError> {
        self.pass(|disk| disk.len(name))
    }
    fn read(&self, name: &str, offset: u64, bytes: usize) -> Result<Bytes, EngineError> {
        self.pass(|disk| disk.read(name, offset, bytes))
    }
    fn reserve(&self, name: &str, bytes: u64) {
        let dead = self.dead.read();
        if !*dead {
            self.disk.reserve(name, bytes);
        }
    }
    fn retire(&self, name: &str) -> Result<(), EngineError> {
        self.pass(|disk| disk.retire(name))
    }
    fn mark(&self, name: &str, bytes: &[u8]) {
        let dead = self.dead.read();
        if !*dead {
            self.disk.mark(name, bytes);
        }
    }
    fn append(&self, name: &str, bytes: &[u8]) -> Result<(), EngineError> {
        self.pass(|disk| disk.append(name, bytes))
    }
    fn sync(&self, name: &str) -> Result<(), EngineError> {
        if std::mem::take(&mut *self.failing.lock()) {
            return Err(EngineError::Io { operation: "sync", path: name.to_owned(), message: "injected".to_owned() });
        }
        self.pass(|disk| disk.sync(name))
    }
    fn truncate(&self, name: &str, bytes: u64) -> Result<(), EngineError> {
        self.pass(|disk| disk.truncate(name, bytes))
    }
    fn remove(&self, name: &str) -> Result<(), EngineError> {
        self.pass(|disk| disk.remove(name))
    }
    fn rename(&self, from: &str, to: &str) -> Result<(), EngineError> {
        self.pass(|disk| disk.rename(from, to))
    }
    fn simulated_sync_latency(&self) -> Option<Duration> {
        None
    }
}

struct FileMachine {
    folder: tempfile::TempDir,
    gate: Arc<Gate>,
}

impl FileMachine {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let gate = Self::gate(&folder);
        Self { folder, gate }
    }

    fn gate(folder: &tempfile::TempDir) -> Arc<Gate> {
        let disk = FileDisk::open(folder.path().join("log")).expect("a folder of our own opens");
        Arc::new(Gate { disk, dead: RwLock::new(false), failing: Mutex::new(false) })
    }
}

impl Machine for FileMachine {
    fn disk(&self) -> Arc<dyn Disk> {
        self.gate.clone()
    }

    fn crash(&mut self, _: Kind) {
        *self.gate.dead.write() = true;
        self.gate = Self::gate(&self.folder);
    }

    fn fail_sync(&self) {
        *self.gate.failing.lock() = true;
    }
}

/// A real disk under a machine that really loses power.
struct PowerMachine {
    power: PowerDisk,
    gate: Option<Arc<Gate>>,
    dark: bool,
}

impl PowerMachine {
    fn new(power: PowerDisk) -> Self {
        let gate = Some(Self::gate(&power.fresh("log")));
        Self { power, gate, dark: false }
    }

    fn gate(folder: &std::path::Path) -> Arc<Gate> {
        let disk = FileDisk::open(folder).expect("a folder of our own opens");
        Arc::new(Gate { disk, dead: RwLock::new(false), failing: Mutex::new(false) })
    }

    fn now(&self) -> &Arc<Gate> {
        self.gate.as_ref().expect("it is up")
    }
}

impl Machine for PowerMachine {
    fn disk(&self) -> Arc<dyn Disk> {
        self.now().clone()
    }

    /// A killed process cannot write any more; a machine without power cannot sync what it wrote.
    fn crash(&mut self, kind: Kind) {
        self.dark = kind == Kind::PowerLoss;
        if self.dark {
            self.power.cut().expect("the power goes");
        }
        *self.now().dead.write() = true;
    }

    #[expect(clippy::disallowed_methods, reason = "a real machine is waited for in real time")]
    fn restart(&mut self) {
        let gate = self.gate.take().expect("it was up");
        let started = std::time::Instant::now();
        while Arc::strong_count(&gate) > 1 && started.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(gate);
        if std::mem::take(&mut self.dark) {
            self.power.restore().expect("the power comes back");
        }
        self.gate = Some(Self::gate(&self.power.path().join("log")));
    }

    fn fail_sync(&self) {
        *self.now().failing.lock() = true;
    }
}

#[derive(Default)]
struct History {
    /// The states after each submission since the last opening; the first is the one found then.
    states: Vec<Model>,
    /// For each submission: whether its operations need a sync.
    needs_sync: Vec<bool>,
    /// Answers in the order in which they came: the submission and whether it went well.
    answers: Arc<Mutex<Vec<(usize, bool)>>>,
}

impl History {
    fn start(found: Model) -> Self {
        Self { states: vec![found], ..Self::default() }
    }

    /// At least so many submissions must survive.
    fn promised(&self) -> usize {
        let answers = self.answers.lock();
        answers.iter().filter(|(at, fine)| *fine && self.needs_sync[*at]).map(|(at, _)| at + 1).max().unwrap_or(0)
    }

    fn last(&self) -> &Model {
        self.states.last().expect("starts with one")
    }
}

async fn settle(history: &History) {
    while history.answers.lock().len() < history.needs_sync.len() {
        tokio::time::sleep(Duration::from_micros(100)).await;
    }
    let answers = history.answers.lock();
    assert!(answers.iter().enumerate().all(|(order, (at, _))| order == *at), "answers out of order: {answers:?}");
}

fn options() -> LogOptions {
    LogOptions { segment_bytes: 4096, cache_bytes: 600, queue_submissions: 64, batch_bytes: 2000 }
}

async fn reopen(machine: &dyn Machine, history: &History, promised: usize) -> (Log, History) {
    let log = Log::open(machine.disk(), options()).await.expect("what a crash leaves can be opened");
    let seen = observe(&log).expect("what was recovered can be read");
    let survived = (promised..history.states.len()).rev().find(|at| visible(&history.states[*at]) == seen);
    let Some(survived) = survived else {
        panic!("promised {promised} of {}: found {seen:?}\nlast was {:?}", history.states.len() - 1, visible(history.last()));
    };
    let found = history.states[survived].clone();
    (log, History::start(found))
}

async fn run<M: Machine>(mut machine: M, steps: Vec<Step>) -> M {
    let mut log = Log::open(machine.disk(), options()).await.expect("an empty disk opens");
    let mut history = History::start(Model::new());
    let mut counter = 0;
    for step in steps.into_iter().chain([Step::Close, Step::ReadAll]) {
        match step {
            Step::Submit(drafts) => {
                let mut model = history.last().clone();
                let mut ops = Vec::new();
                for draft in &drafts {
                    let op = to_op(&model, draft, &mut counter);
                    apply(&mut model, &op);
                    ops.push(op);
                }
                let at = history.needs_sync.len();
                history.needs_sync.push(ops.iter().any(durable));
                history.states.push(model);
                let answers = Arc::clone(&history.answers);
                log.submit(ops, Box::new(move |result| answers.lock().push((at, result.is_ok()))));
                assert_eq!(observe(&log).expect("submitted entries can be read"), visible(history.last()));
            }
            Step::Settle => settle(&history).await,
            Step::Yield => tokio::time::sleep(Duration::from_micros(60)).await,
            Step::Crash(kind) => {
                // Before the crash: to shut a file system down is not an instant, and a sync that overlaps it may lie.
                let promised = history.promised();
                machine.crash(kind);
                drop(log);
                machine.restart();
                (log, history) = reopen(&machine, &history, promised).await;
            }
            Step::Close => {
                log.close().await.expect("a healthy log closes");
                settle(&history).await;
                (log, history) = reopen(&machine, &history, history.states.len() - 1).await;
            }
            Step::FailSync => {
                settle(&history).await;
                machine.fail_sync();
                let (sender, answer) = tokio::sync::oneshot::channel();
                let ops = vec![LogOp::Vote { group: 0, bytes: content(&mut counter, 9) }];
                let mut model = history.last().clone();
                apply(&mut model, &ops[0]);
                history.states.push(model);
                history.needs_sync.push(true);
                log.submit(ops, Box::new(move |result| drop(sender.send(result))));
                assert!(matches!(answer.await, Ok(Err(EngineError::Io { .. }))));
                let (sender, answer) = tokio::sync::oneshot::channel();
                log.submit(vec![LogOp::Forget { group: 0 }], Box::new(move |result| drop(sender.send(result))));
                assert!(matches!(answer.await, Ok(Err(EngineError::Stopped { .. }))));
                let promised = history.promised();
                machine.crash(Kind::Kill);
                drop(log);
                machine.restart();
                (log, history) = reopen(&machine, &history, promised).await;
            }
            Step::ReadAll => assert_eq!(observe(&log).expect("it can be read"), visible(history.last())),
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
    #![proptest_config(cases(150))]
    #[test]
    fn simulated_disk(seed in any::<u64>(), steps in proptest::collection::vec(step(), 1..60)) {
        let disk = SimDisk::new(seed);
        disk.set_sync_latency(Duration::from_micros(1)..Duration::from_micros(80));
        block_on(run(SimMachine(disk), steps));
    }
}

proptest! {
    #![proptest_config(cases(24))]
    #[test]
    fn real_disk(steps in proptest::collection::vec(step(), 1..40)) {
        block_on(run(FileMachine::new(), steps));
    }
}

/// The same, on a disk that really loses what was not synced.
#[test]
#[expect(clippy::disallowed_macros, reason = "the steps of a failed run are read in its output")]
fn real_power_failure() {
    let Some(mut power) = PowerDisk::new() else { return };
    let mut runner = TestRunner::new(ProptestConfig { failure_persistence: None, max_shrink_iters: 0, ..cases(10) });
    let strategy = proptest::collection::vec(step(), 10..40);
    for _ in 0..runner.config().cases {
        let mut steps = strategy.new_tree(&mut runner).expect("steps are made").current();
        steps.push(Step::Crash(Kind::PowerLoss));
        println!("{steps:?}");
        let machine = PowerMachine::new(power);
        power = block_on(run(machine, steps)).power;
    }
}
