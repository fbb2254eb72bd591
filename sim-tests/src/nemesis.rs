//! Faults, one or two at a time, each held for a while and then healed; and the proof that each of them bit.
//!
//! A fault that changes nothing that anybody can see tests nothing. A kill bit if it lost bytes that were not synced or took a leader; a
//! power loss, if it lost bytes; a stop and a transfer, if another node leads then; a leader's pause, if another node led meanwhile; a
//! slow apply, if the node led before it had caught up; a clock, as [`clocks`] says; a disk, as [`disks`] says; a snapshot, as
//! [`snapshots`] says; duplicates, if messages came twice; the others, if clients had to repeat or wait, or a group changed its leader.
//! Over a set of seeds every fault must have bitten.
//!
//! One family, one file. A new fault is a line in [`Fault`], one in [`FAULTS`], and what it does in its family's `begin`.

mod answers;
mod clocks;
mod disks;
mod members;
mod network;
mod process;
mod snapshots;

pub use clocks::DRIFT_MAX;
pub(crate) use clocks::TAME_RATE;
pub(crate) use disks::SCRUB_RATE;

use crate::cluster::Cluster;
use crate::workload::{Shared, below};
use std::collections::BTreeMap;
use std::time::Duration;

/// Shortest time that faults are held.
const HOLD_MIN: Duration = Duration::from_millis(100);
/// Longest time that faults are held: several elections.
const HOLD_MAX: Duration = Duration::from_millis(3500);
/// What takes a lease away is held for longer than leases and elections together.
const HOLD_PAST_LEASE: Duration = Duration::from_millis(1500);
/// A process that died may stay away longer by this: until the others have purged what it lacks, so that it needs a snapshot.
const AWAY_MAX: Duration = Duration::from_secs(4);
/// For how long leaders are read from that a fault may leave behind: until it is over, and what was held back comes.
const READ_OFTEN: Duration = Duration::from_secs(6);
/// Longest quiet time between faults.
const QUIET_MAX: Duration = Duration::from_millis(1500);
/// An operation that took longer than this met something.
const SLOW_OPERATION: Duration = Duration::from_millis(250);

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A process dies; what was not synced is lost but for a random prefix. It is started again at the end.
    Kill,
    /// All machines lose power at once; the last write is torn.
    PowerLoss,
    /// A node hears and is heard by nobody.
    Isolate,
    /// A node is cut from the other nodes, and clients still reach it: an old leader that may not know it.
    OldLeader,
    /// Messages of one node to one other are held back; the way back is open.
    OneWay,
    /// The others hear a leader, and it does not hear them.
    DeafLeader,
    /// Two nodes do not hear each other; the third hears both.
    Cut,
    /// Every message is late.
    SlowNetwork,
    /// Messages between nodes, and requests with an id, come a second time, much later and behind newer ones.
    Duplicates,
    /// A node's syncs are slow.
    SlowDisk,
    /// A node's disk has hardly any room left, or none.
    FullDisk,
    /// A sync of a node's log fails. The node is killed in the end: it must not have acknowledged what it could not sync.
    FailedSync,
    /// Rows of a node's store do not read back any more.
    RotRows,
    /// A node dies, and its log is not what it was when it starts again.
    RotLog,
    /// Rows that nobody reads rot in a node's store, and the node is asked to scrub.
    RotCold,
    /// A row of a node's store is not what was applied, beneath every checksum.
    AlterRow,
    /// A process stops for a while and goes on as if nothing had been.
    Pause,
    /// The same for the node that leads most, for longer than its leases.
    PauseLeader,
    /// A leader does not hear one follower; when that one would be elected, the other follower dies, and comes back at once behind the
    /// same cut.
    Blink,
    /// A follower's answer comes when its leader, whom nobody hears any more, has told it something else that ends at the same entry.
    LateAnswer,
    /// A node leaves in good order, and is started again at the end.
    Stop,
    /// An operator hands the leadership of a group to another voter.
    Transfer,
    /// An operator has groups shrink, and grow again.
    Members,
    /// A node's monotonic clock runs too fast or too slow: by what leases allow for, in wild seeds by far more.
    ClockRate,
    /// A node's wall clock jumps, forwards or backwards.
    ClockJump,
    /// A node applies entries late, and is handed leadership before it has caught up.
    SlowApply,
    /// A node dies, the others purge what it lacks from their logs, and it comes back: nothing but a snapshot helps.
    ForceSnapshot,
    /// A node that is being brought a snapshot dies in the middle of it.
    KillReceiver,
    /// A node that is being brought a snapshot is cut off in the middle of it.
    CutSnapshot,
    /// A bit flips in what a node has of a snapshot that it is being brought.
    RotInSnapshot,
    /// During the birth: a node dies that is not yet in all groups.
    KillJoining,
    /// During the birth: the directory's leader dies, and with it the reconciler in the middle of its work.
    KillFounding,
}

/// All faults. Those after [`IN_CHAOS`] belong to the birth.
pub const FAULTS: [Fault; 32] = [
    Fault::Kill,
    Fault::PowerLoss,
    Fault::Isolate,
    Fault::OldLeader,
    Fault::OneWay,
    Fault::DeafLeader,
    Fault::Cut,
    Fault::SlowNetwork,
    Fault::Duplicates,
    Fault::SlowDisk,
    Fault::FullDisk,
    Fault::FailedSync,
    Fault::RotRows,
    Fault::RotLog,
    Fault::RotCold,
    Fault::AlterRow,
    Fault::Pause,
    Fault::PauseLeader,
    Fault::Blink,
    Fault::LateAnswer,
    Fault::Stop,
    Fault::Transfer,
    Fault::Members,
    Fault::ClockRate,
    Fault::ClockJump,
    Fault::SlowApply,
    Fault::ForceSnapshot,
    Fault::KillReceiver,
    Fault::CutSnapshot,
    Fault::RotInSnapshot,
    Fault::KillJoining,
    Fault::KillFounding,
];
/// How many of them are made once the cluster is born.
const IN_CHAOS: u64 = 30;

/// How often each fault was done, and how often it bit.
pub type Bites = BTreeMap<Fault, (u64, u64)>;

/// What is known of a fault's bite.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Felt {
    /// It bit, or it did not: no later look says more.
    Known(bool),
    /// It bit if clients or elections show it.
    BySigns,
    /// It bit if, when it ends, another node leads one of these groups.
    ByLoss { node: usize, led: Vec<u32> },
    /// It bit if, when it ends, the node says that something is wrong with its disks.
    ByTrouble { node: usize },
    /// It bit if, after it, the node has replicas in quarantine, or has begun anew meanwhile.
    ByQuarantine { node: usize, renewed_before: u64 },
    /// It bit if, after it, the node has replicas in quarantine, or has had more since its start because their state differed.
    ByDifference { node: usize, differed_before: u64 },
    /// It bit if, when it ends, the node has taken in a snapshot since its last start.
    BySnapshot { node: usize },
    /// It bit if, when it ends, the node has found rot in more parts of snapshots.
    ByRot { node: usize, found_before: u64 },
    /// It bit if, when it ends, a group has other voters.
    ByMembers,
    /// It bit if more messages came twice.
    ByCount { before: u64 },
}

impl Felt {
    /// Which node it is about, if it is about one.
    fn node(&self) -> Option<usize> {
        match self {
            Felt::ByLoss { node, .. }
            | Felt::ByTrouble { node }
            | Felt::ByQuarantine { node, .. }
            | Felt::ByDifference { node, .. }
            | Felt::BySnapshot { node }
            | Felt::ByRot { node, .. } => Some(*node),
            Felt::Known(_) | Felt::BySigns | Felt::ByMembers | Felt::ByCount { .. } => None,
        }
    }
}

/// Hurts the cluster for a while and leaves it whole.
pub async fn run(cluster: &Cluster, shared: &Shared, how_long: Duration, bites: &mut Bites) {
    let end = tokio::time::Instant::now() + how_long;
    // Seeds that follow each other begin with different faults, so that few of them make all.
    let mut first = usize::try_from(cluster.seed() % IN_CHAOS).ok().map(|number| FAULTS[number]);
    while tokio::time::Instant::now() < end {
        sleep_up_to(Duration::ZERO, QUIET_MAX).await;
        let before = Signs::read(cluster);
        *shared.slowest_ns.lock() = 0;
        let count = if below(4) == 0 { 2 } else { 1 };
        let mut felt: Vec<(Fault, Felt)> = Vec::new();
        for _ in 0..count {
            let fault = first.take().unwrap_or_else(|| choose(cluster));
            let node = usize::try_from(below(cluster.size() as u64)).unwrap_or(0);
            shared.trace.event(format_args!("fault {fault:?} on {node}"));
            if fault.may_leave_an_old_leader() {
                (0..cluster.size()).for_each(|leader| cluster.read_often(leader, cluster.led_by(leader), READ_OFTEN));
            }
            felt.push((fault, begin(cluster, shared, fault, node).await));
        }
        // So does what a reconciler has to do first.
        let lasts = felt.iter().any(|(fault, _)| fault.takes_lease() || *fault == Fault::Members);
        sleep_up_to(if lasts { HOLD_PAST_LEASE } else { HOLD_MIN }, HOLD_MAX).await;
        if felt.iter().any(|(fault, _)| *fault == Fault::Kill) && (cluster.purges_early() || below(2) == 0) {
            sleep_up_to(Duration::ZERO, AWAY_MAX).await;
        }
        let lost: Vec<bool> = felt.iter().map(|(_, felt)| shows(cluster, felt)).collect();
        for node in felt.iter().filter(|(fault, _)| *fault == Fault::FailedSync).filter_map(|(_, felt)| felt.node()) {
            // Nothing but a restart starts a log again whose sync failed.
            cluster.kill(node);
        }
        let changed = members::have_changed(cluster);
        shared.trace.event(format_args!("healed"));
        cluster.heal();
        if felt.iter().any(|(_, felt)| *felt == Felt::ByMembers) {
            members::restore(cluster, shared).await;
        }
        // What was held back is answered, or given up, a little later.
        tokio::time::sleep(HOLD_MIN).await;
        let differs = before.differ(&Signs::read(cluster), shared);
        for ((fault, felt), lost) in felt.into_iter().zip(lost) {
            let bit = match felt {
                Felt::Known(bit) => bit,
                Felt::BySigns => differs,
                Felt::ByLoss { .. } | Felt::ByTrouble { .. } | Felt::BySnapshot { .. } | Felt::ByRot { .. } => lost,
                Felt::ByMembers => changed,
                Felt::ByQuarantine { node, renewed_before } => {
                    let machine = &cluster.machines()[node];
                    machine.renewals() > renewed_before || machine.node().is_some_and(|node| node.quarantined() > 0)
                }
                Felt::ByDifference { node, differed_before } => {
                    let node = cluster.machines()[node].node();
                    node.is_some_and(|node| node.differed() > differed_before || node.quarantined() > 0)
                }
                Felt::ByCount { before } => metadb_proto::seam::simulated::duplicated() > before,
            };
            let counted = bites.entry(fault).or_default();
            *counted = (counted.0 + 1, counted.1 + u64::from(bit));
        }
    }
}

/// Where hardly any log is kept, more nodes die than elsewhere: each is a snapshot. In wild seeds more clocks are wrong. Of late answers only
/// every second one or so meets a read.
fn choose(cluster: &Cluster) -> Fault {
    if cluster.purges_early() && below(4) == 0 {
        return Fault::Kill;
    }
    if cluster.is_wild() && below(3) == 0 {
        return Fault::ClockRate;
    }
    if below(12) == 0 {
        return Fault::LateAnswer;
    }
    FAULTS[usize::try_from(below(IN_CHAOS)).unwrap_or(0)]
}

impl Fault {
    /// Whether somebody may go on to lead whom the others have left: what it answers then is asked for.
    fn may_leave_an_old_leader(self) -> bool {
        self.takes_lease() || matches!(self, Fault::Isolate | Fault::Pause | Fault::Transfer | Fault::ClockRate)
    }

    /// Whether it must outlast the leases of whoever leads.
    fn takes_lease(self) -> bool {
        matches!(self, Fault::PauseLeader | Fault::DeafLeader | Fault::OldLeader | Fault::Blink | Fault::LateAnswer | Fault::CutSnapshot)
    }
}

async fn begin(cluster: &Cluster, shared: &Shared, fault: Fault, node: usize) -> Felt {
    match fault {
        Fault::Kill
        | Fault::PowerLoss
        | Fault::Pause
        | Fault::PauseLeader
        | Fault::Blink
        | Fault::Stop
        | Fault::Transfer
        | Fault::SlowApply
        | Fault::KillJoining
        | Fault::KillFounding => process::begin(cluster, shared, fault, node).await,
        Fault::Isolate
        | Fault::OldLeader
        | Fault::OneWay
        | Fault::DeafLeader
        | Fault::Cut
        | Fault::SlowNetwork
        | Fault::Duplicates
        | Fault::SlowDisk => network::begin(cluster, fault, node),
        Fault::FullDisk | Fault::FailedSync | Fault::RotRows | Fault::RotLog | Fault::RotCold | Fault::AlterRow => {
            disks::begin(cluster, shared, fault, node).await
        }
        Fault::ForceSnapshot | Fault::KillReceiver | Fault::CutSnapshot | Fault::RotInSnapshot => {
            snapshots::begin(cluster, shared, fault, node).await
        }
        Fault::LateAnswer => answers::begin(cluster, shared, node).await,
        Fault::Members => members::begin(cluster, shared, node).await,
        Fault::ClockRate => clocks::rate(cluster, shared, node),
        Fault::ClockJump => clocks::jump(cluster, shared, node).await,
    }
}

/// Whether what it says is so at the end of a fault.
fn shows(cluster: &Cluster, felt: &Felt) -> bool {
    let up = |node: &usize| cluster.machines()[*node].node();
    match felt {
        Felt::ByLoss { node, led } => led.iter().any(|group| cluster.leader(*group).is_some_and(|leader| leader != *node)),
        Felt::ByTrouble { node } => up(node).is_some_and(|node| !node.problems().is_empty()),
        Felt::BySnapshot { node } => up(node).is_some_and(|node| node.groups().iter().any(|group| group.snapshots_installed() > 0)),
        Felt::ByRot { node, found_before } => up(node).is_some_and(|node| node.snapshots().rotten_parts > *found_before),
        Felt::Known(_) | Felt::BySigns | Felt::ByMembers | Felt::ByQuarantine { .. } | Felt::ByDifference { .. } | Felt::ByCount { .. } => {
            false
        }
    }
}

/// The node that leads most groups, or the one proposed if none leads any.
fn busiest(cluster: &Cluster, proposed: usize) -> usize {
    (0..cluster.size()).max_by_key(|node| (cluster.leads(*node), *node == proposed)).unwrap_or(proposed)
}

async fn sleep_up_to(least: Duration, most: Duration) {
    let spread = u64::try_from(most.saturating_sub(least).as_micros()).unwrap_or(u64::MAX);
    tokio::time::sleep(least + Duration::from_micros(below(spread))).await;
}

/// What can be seen of a fault from outside.
struct Signs {
    repeats: u64,
    terms: u64,
}

impl Signs {
    fn read(cluster: &Cluster) -> Self {
        Signs { repeats: cluster.client_repeats(), terms: cluster.terms() }
    }

    fn differ(&self, later: &Signs, shared: &Shared) -> bool {
        let slowest = Duration::from_nanos(*shared.slowest_ns.lock());
        later.repeats > self.repeats || later.terms > self.terms || slowest > SLOW_OPERATION
    }
}
