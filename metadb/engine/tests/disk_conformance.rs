//! One suite for both disks: random appends, syncs, cuts, removals and renames, and power failures, against a model of what [`Disk`]
//! promises.
//!
//! The property: after a power failure a file that was synced, cut or renamed is there, with every byte that was synced; behind these there
//! may be bytes of later appends, or zeros in their place, or marks, or what a retired file held, and nothing else. What was removed or
//! retired is gone.
#![cfg(not(madsim))]

mod power;

use metadb_engine::disk::{Disk, FileDisk};
use metadb_engine::sim::{Kind, SimDisk};
use power::PowerDisk;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const NAMES: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Clone)]
enum Step {
    Append(usize, usize),
    Reserve(usize),
    Mark(usize),
    Retire(usize),
    Sync(usize),
    Truncate(usize, u64),
    Remove(usize),
    Rename(usize, usize),
    PowerLoss,
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0..NAMES.len();
    prop_oneof![
        8 => (name.clone(), 1..20_000_usize).prop_map(|(name, bytes)| Step::Append(name, bytes)),
        2 => name.clone().prop_map(Step::Reserve),
        1 => name.clone().prop_map(Step::Mark),
        2 => name.clone().prop_map(Step::Retire),
        4 => name.clone().prop_map(Step::Sync),
        1 => (name.clone(), 0..30_000_u64).prop_map(|(name, bytes)| Step::Truncate(name, bytes)),
        1 => name.clone().prop_map(Step::Remove),
        2 => (name.clone(), name).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => Just(Step::PowerLoss),
    ]
}

/// What is known of a file.
#[derive(Debug, Clone, Default)]
struct File {
    bytes: Vec<u8>,
    synced: usize,
    /// Whether its name is durable.
    named: bool,
    /// What may lie behind its end besides.
    behind: BTreeSet<u8>,
}

trait Machine {
    fn disk(&self) -> Arc<dyn Disk>;
    fn power_loss(&mut self);
}

struct SimMachine(Arc<SimDisk>);

impl Machine for SimMachine {
    fn disk(&self) -> Arc<dyn Disk> {
        self.0.mount()
    }

    fn power_loss(&mut self) {
        self.0.crash(Kind::PowerLoss);
    }
}

struct PowerMachine(PowerDisk, Option<Arc<FileDisk>>);

impl PowerMachine {
    fn new(power: PowerDisk) -> Self {
        let disk = FileDisk::open(power.fresh("disk")).expect("a folder of our own opens");
        PowerMachine(power, Some(disk))
    }
}

impl Machine for PowerMachine {
    fn disk(&self) -> Arc<dyn Disk> {
        self.1.clone().expect("it is up")
    }

    fn power_loss(&mut self) {
        self.0.cut().expect("the power goes");
        self.1 = None;
        self.0.restore().expect("the power comes back");
        self.1 = Some(FileDisk::open(self.0.path().join("disk")).expect("a folder of our own opens"));
    }
}

fn content(disk: &dyn Disk, name: &str) -> Option<Vec<u8>> {
    let length = disk.len(name).expect("a healthy disk reads")?;
    Some(disk.read(name, 0, usize::try_from(length).expect("small files")).expect("a healthy disk reads").to_vec())
}

/// What a power failure left of a file, held against what it may have left.
fn check(name: &str, file: &File, found: Option<Vec<u8>>) -> Option<File> {
    let Some(found) = found else {
        assert!(!file.named, "{name}: its name was durable, and it is gone");
        return None;
    };
    assert!(found.len() >= file.synced, "{name}: {} bytes of {} that were synced", found.len(), file.synced);
    assert_eq!(found[..file.synced], file.bytes[..file.synced], "{name}: what was synced is changed");
    for (at, byte) in found.iter().enumerate().skip(file.synced) {
        let known = *byte == 0 || file.bytes.get(at) == Some(byte) || file.behind.contains(byte);
        assert!(known, "{name}: byte {at} was never written");
    }
    Some(File { synced: found.len(), bytes: found, named: true, behind: BTreeSet::new() })
}

fn run<M: Machine>(mut machine: M, steps: Vec<Step>) -> M {
    let mut files: BTreeMap<&str, File> = BTreeMap::new();
    let mut fill = 0_u8;
    let mut retired = BTreeSet::new();
    for step in steps {
        let disk = machine.disk();
        match step {
            Step::Append(name, bytes) => {
                fill = fill.wrapping_add(1).max(1);
                disk.append(NAMES[name], &vec![fill; bytes]).expect("a healthy disk writes");
                let file = files.entry(NAMES[name]).or_default();
                file.bytes.resize(file.bytes.len() + bytes, fill);
            }
            Step::Reserve(name) => {
                disk.reserve(NAMES[name], 100_000);
                files.entry(NAMES[name]).or_insert_with(|| File { behind: retired.clone(), ..File::default() });
            }
            Step::Mark(name) => {
                let Some(file) = files.get_mut(NAMES[name]) else { continue };
                fill = fill.wrapping_add(1).max(1);
                disk.mark(NAMES[name], &[fill; 32]);
                file.behind.insert(fill);
            }
            Step::Retire(name) => {
                let Some(file) = files.remove(NAMES[name]) else { continue };
                disk.retire(NAMES[name]).expect("a healthy disk retires");
                retired.extend(file.bytes.iter().chain(&file.behind));
            }
            Step::Sync(name) => {
                let Some(file) = files.get_mut(NAMES[name]) else { continue };
                disk.sync(NAMES[name]).expect("a healthy disk syncs");
                (file.synced, file.named) = (file.bytes.len(), true);
            }
            Step::Truncate(name, bytes) => {
                let Some(file) = files.get_mut(NAMES[name]) else { continue };
                disk.truncate(NAMES[name], bytes).expect("a healthy disk cuts");
                file.bytes.truncate(usize::try_from(bytes).expect("small files"));
                (file.synced, file.named) = (file.bytes.len(), true);
            }
            Step::Remove(name) => {
                disk.remove(NAMES[name]).expect("a healthy disk removes");
                files.remove(NAMES[name]);
            }
            Step::Rename(from, to) if from != to && files.contains_key(NAMES[from]) => {
                disk.rename(NAMES[from], NAMES[to]).expect("a healthy disk renames");
                let file = files.remove(NAMES[from]).unwrap_or_default();
                files.insert(NAMES[to], File { named: true, ..file });
            }
            Step::Rename(..) => {}
            Step::PowerLoss => {
                drop(disk);
                machine.power_loss();
                let disk = machine.disk();
                for name in NAMES {
                    let found = content(&*disk, name);
                    match files.remove(name) {
                        Some(file) => drop(check(name, &file, found).map(|file| files.insert(name, file))),
                        None => assert_eq!(found, None, "{name} was removed, or never there"),
                    }
                }
                continue;
            }
        }
        for name in NAMES {
            assert_eq!(content(&*disk, name), files.get(name).map(|file| file.bytes.clone()), "{name}");
        }
    }
    machine
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn simulated_disk(seed in any::<u64>(), steps in proptest::collection::vec(step(), 1..60)) {
        run(SimMachine(SimDisk::new(seed)), steps);
    }
}

/// The same, on a disk that really loses what was not synced.
#[test]
#[expect(clippy::disallowed_macros, reason = "the steps of a failed run are read in its output")]
fn real_power_failure() {
    let Some(mut power) = PowerDisk::new() else { return };
    let mut runner = TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() });
    let strategy = proptest::collection::vec(step(), 10..60);
    for _ in 0..20 {
        let mut steps = strategy.new_tree(&mut runner).expect("steps are made").current();
        steps.push(Step::PowerLoss);
        println!("{steps:?}");
        power = run(PowerMachine::new(power), steps).0;
    }
}
