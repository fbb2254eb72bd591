//! Faults, one or two at a time, each held for a while and then healed; and the proof that each of them bit.
//!
//! A fault that changes nothing that anybody can see tests nothing. A kill bit if it lost bytes that were not synced or took a leader; a
//! power loss, if it lost bytes; a stop and a transfer, if another node leads then; the others, if clients had to repeat or wait, or a group changed its leader. Over a set of seeds every
//! fault must have bitten.

use crate::cluster::Cluster;
use crate::workload::{Shared, below};
use std::collections::BTreeMap;
use std::time::Duration;

/// Shortest time that faults are held.
const HOLD_MIN: Duration = Duration::from_millis(100);
/// Longest time that faults are held: several elections.
const HOLD_MAX: Duration = Duration::from_millis(3500);
/// A process that died may stay away longer by this: until the others have purged what it lacks, so that it needs a snapshot.
const AWAY_MAX: Duration = Duration::from_secs(4);
/// How long a leader may take to hand its leadership over.
const TRANSFER_WITHIN: Duration = Duration::from_secs(2);
/// Longest quiet time between faults.
const QUIET_MAX: Duration = Duration::from_millis(1500);
/// An operation that took longer than this met something.
const SLOW_OPERATION: Duration = Duration::from_millis(250);
/// What messages take while the network is slow.
const SLOW_MESSAGES: std::ops::Range<Duration> = Duration::from_millis(40)..Duration::from_millis(160);
/// What syncs take while a disk is slow.
const SLOW_SYNCS: std::ops::Range<Duration> = Duration::from_millis(60)..Duration::from_millis(250);

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
    /// Two nodes do not hear each other; the third hears both.
    Cut,
    /// Every message is late.
    SlowNetwork,
    /// A node's syncs are slow.
    SlowDisk,
    /// A process stops for a while and goes on as if nothing had been.
    Pause,
    /// A node leaves in good order, and is started again at the end.
    Stop,
    /// An operator hands the leadership of a group to another voter.
    Transfer,
    /// During the birth: a node dies that is not yet in all groups.
    KillJoining,
    /// During the birth: the directory's leader dies, and with it the reconciler in the middle of its work.
    KillFounding,
}

/// All faults. Those after [`IN_CHAOS`] belong to the birth.
pub const FAULTS: [Fault; 13] = [
    Fault::Kill,
    Fault::PowerLoss,
    Fault::Isolate,
    Fault::OldLeader,
    Fault::OneWay,
    Fault::Cut,
    Fault::SlowNetwork,
    Fault::SlowDisk,
    Fault::Pause,
    Fault::Stop,
    Fault::Transfer,
    Fault::KillJoining,
    Fault::KillFounding,
];
/// How many of them are made once the cluster is born.
const IN_CHAOS: u64 = 11;

/// How often each fault was done, and how often it bit.
pub type Bites = BTreeMap<Fault, (u64, u64)>;

/// Hurts the cluster for a while and leaves it whole.
pub async fn run(cluster: &Cluster, shared: &Shared, how_long: Duration, bites: &mut Bites) {
    let end = tokio::time::Instant::now() + how_long;
    while tokio::time::Instant::now() < end {
        sleep_up_to(Duration::ZERO, QUIET_MAX).await;
        let before = Signs::read(cluster, shared);
        *shared.slowest_ns.lock() = 0;
        let count = if below(4) == 0 { 2 } else { 1 };
        let mut felt: Vec<(Fault, bool)> = Vec::new();
        for _ in 0..count {
            let fault = choose(cluster);
            let node = usize::try_from(below(cluster.size() as u64)).unwrap_or(0);
            shared.trace.event(format_args!("fault {fault:?} on {node}"));
            felt.push((fault, begin(cluster, shared, fault, node).await));
        }
        sleep_up_to(HOLD_MIN, HOLD_MAX).await;
        if felt.iter().any(|(fault, _)| *fault == Fault::Kill) && (cluster.purges_early() || below(2) == 0) {
            sleep_up_to(Duration::ZERO, AWAY_MAX).await;
        }
        shared.trace.event(format_args!("healed"));
        cluster.heal();
        // What was held back is answered, or given up, a little later.
        tokio::time::sleep(HOLD_MIN).await;
        let after = Signs::read(cluster, shared);
        for (fault, already) in felt {
            let counted = bites.entry(fault).or_default();
            counted.0 += 1;
            counted.1 += u64::from(already || (!fault.must_lose() && before.differ(&after, shared)));
        }
    }
}

/// Where hardly any log is kept, more nodes die than elsewhere: each is a snapshot.
fn choose(cluster: &Cluster) -> Fault {
    if cluster.purges_early() && below(4) == 0 {
        return Fault::Kill;
    }
    FAULTS[usize::try_from(below(IN_CHAOS)).unwrap_or(0)]
}

impl Fault {
    /// Whether its bite is told at once, by what was lost.
    fn must_lose(self) -> bool {
        matches!(self, Fault::Kill | Fault::PowerLoss | Fault::Stop | Fault::Transfer)
    }
}

/// Does it; whether it is known to have bitten at once.
async fn begin(cluster: &Cluster, shared: &Shared, fault: Fault, node: usize) -> bool {
    let other = (node + 1 + usize::try_from(below(cluster.size() as u64 - 1)).unwrap_or(0)) % cluster.size();
    match fault {
        Fault::Kill | Fault::KillJoining | Fault::KillFounding => {
            let led = cluster.leads(node);
            cluster.kill(node) > 0 || led > 0
        }
        Fault::PowerLoss => cluster.power_loss() > 0,
        Fault::Isolate => {
            cluster.isolate(node);
            false
        }
        Fault::OldLeader => {
            let node = (0..cluster.size()).max_by_key(|node| cluster.leads(*node)).unwrap_or(node);
            for peer in (0..cluster.size()).filter(|peer| *peer != node) {
                cluster.cut(node, peer);
                cluster.cut(peer, node);
            }
            false
        }
        Fault::OneWay => {
            cluster.cut(node, other);
            false
        }
        Fault::Cut => {
            cluster.cut(node, other);
            cluster.cut(other, node);
            false
        }
        Fault::SlowNetwork => {
            cluster.set_latency(SLOW_MESSAGES);
            false
        }
        Fault::SlowDisk => {
            cluster.set_sync_latency(node, SLOW_SYNCS);
            false
        }
        Fault::Pause => {
            cluster.pause(node);
            false
        }
        Fault::Stop => stop(cluster, shared, node).await,
        Fault::Transfer => transfer(cluster, shared, node).await,
    }
}

/// Bit if the node led a group, left in good order, and others lead all that it led.
async fn stop(cluster: &Cluster, shared: &Shared, node: usize) -> bool {
    let groups = || (0..=crate::cluster::GROUPS).filter(|group| cluster.leader(*group) == Some(node)).collect::<Vec<_>>();
    let led = groups();
    let left = cluster.stop(node).await;
    shared.trace.event(format_args!("node {node} led {led:?} and left: {left:?}"));
    match left {
        Ok(left) => left && !led.is_empty() && led.iter().all(|group| cluster.leader(*group).is_some()),
        Err(problem) => {
            shared.unexpected.lock().push(problem);
            false
        }
    }
}

/// Bit if the node leads the group now and did not before.
async fn transfer(cluster: &Cluster, shared: &Shared, node: usize) -> bool {
    let group = u32::try_from(below(u64::from(crate::cluster::GROUPS) + 1)).unwrap_or(0);
    let before = cluster.leader(group);
    let node = if before == Some(node) { (node + 1) % cluster.size() } else { node };
    let told = cluster.transfer(group, node, TRANSFER_WITHIN).await;
    let after = cluster.leader(group);
    shared.trace.event(format_args!("group {group} from {before:?} to {node}: {told:?}, now {after:?}"));
    before.is_some_and(|before| before != node) && after == Some(node)
}

async fn sleep_up_to(least: Duration, most: Duration) {
    let spread = u64::try_from((most - least).as_micros()).unwrap_or(u64::MAX);
    tokio::time::sleep(least + Duration::from_micros(below(spread))).await;
}

/// What can be seen of a fault from outside.
struct Signs {
    repeats: u64,
    terms: u64,
}

impl Signs {
    fn read(cluster: &Cluster, _: &Shared) -> Self {
        Signs { repeats: cluster.client_repeats(), terms: cluster.terms() }
    }

    fn differ(&self, later: &Signs, shared: &Shared) -> bool {
        let slowest = Duration::from_nanos(*shared.slowest_ns.lock());
        later.repeats > self.repeats || later.terms > self.terms || slowest > SLOW_OPERATION
    }
}
