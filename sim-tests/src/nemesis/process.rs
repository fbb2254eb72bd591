//! Faults of processes: they die, stop, pause, and lose leadership on purpose.

use super::{Fault, Felt, busiest, sleep_up_to};
use crate::cluster::{Cluster, GROUPS};
use crate::workload::{Shared, below};
use std::ops::Range;
use std::time::Duration;

/// How long a node that does not hear its leader waits until it stands for election: a lease and an election time, and more.
const RIVAL_WAITS: Range<Duration> = Duration::from_millis(900)..Duration::from_millis(1500);
/// How long a node rests before it applies.
const APPLIES_LATE: Range<Duration> = Duration::from_millis(150)..Duration::from_millis(500);
/// How long a leader may take to hand its leadership over.
const TRANSFER_WITHIN: Duration = Duration::from_secs(2);

pub(super) async fn begin(cluster: &Cluster, shared: &Shared, fault: Fault, node: usize) -> Felt {
    match fault {
        Fault::PowerLoss => Felt::Known(cluster.power_loss() > 0),
        Fault::Pause => {
            cluster.pause(node);
            Felt::BySigns
        }
        Fault::PauseLeader => {
            let node = busiest(cluster, node);
            let led = cluster.led_by(node);
            cluster.pause(node);
            Felt::ByLoss { node, led }
        }
        Fault::Blink => blink(cluster, node).await,
        Fault::SlowApply => Felt::Known(slow_apply(cluster, shared, node).await),
        Fault::Stop => Felt::Known(stop(cluster, shared, node).await),
        Fault::Transfer => Felt::Known(transfer(cluster, shared, node).await),
        _ => {
            let led = cluster.leads(node);
            Felt::Known(cluster.kill(node) > 0 || led > 0)
        }
    }
}

/// What a restarted node has forgotten may be what a leader counts on: that it promised not to vote. It bit if it voted later: if another
/// node leads in the end. Leases must hold for clocks at the bounds of what is allowed for: the leader's is slow, and its rival's is fast.
async fn blink(cluster: &Cluster, node: usize) -> Felt {
    let leader = busiest(cluster, node);
    let led = cluster.led_by(leader);
    let [rival, forgetful] = [1, 2].map(|step| (leader + step) % cluster.size());
    cluster.cut(leader, rival);
    cluster.cut(rival, leader);
    sleep_up_to(RIVAL_WAITS.start, RIVAL_WAITS.end).await;
    cluster.rival(leader, rival);
    cluster.cut(leader, forgetful);
    cluster.cut(forgetful, leader);
    cluster.kill(forgetful);
    cluster.restart(forgetful);
    Felt::ByLoss { node: leader, led }
}

/// Bit if the node leads a group of which it has not applied all that is committed.
async fn slow_apply(cluster: &Cluster, shared: &Shared, node: usize) -> bool {
    let pause = APPLIES_LATE.start + (APPLIES_LATE.end - APPLIES_LATE.start) * u32::try_from(below(100)).unwrap_or(0) / 100;
    cluster.set_apply_pause(node, pause);
    tokio::time::sleep(pause * 2).await;
    let mut bit = false;
    for group in (0..=GROUPS).filter(|group| cluster.leader(*group) != Some(node)) {
        let told = cluster.transfer(group, node, TRANSFER_WITHIN).await;
        let leads = cluster.leader(group) == Some(node);
        bit |= leads && cluster.is_behind(node, group);
        shared.trace.event(format_args!("group {group} goes to {node}, which applies {pause:?} late: {told:?}, leads: {leads}"));
    }
    bit
}

/// Bit if the node led a group, left in good order, and others lead all that it led.
async fn stop(cluster: &Cluster, shared: &Shared, node: usize) -> bool {
    let led = cluster.led_by(node);
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
    let group = u32::try_from(below(u64::from(GROUPS) + 1)).unwrap_or(0);
    let before = cluster.leader(group);
    let node = if before == Some(node) { (node + 1) % cluster.size() } else { node };
    let told = cluster.transfer(group, node, TRANSFER_WITHIN).await;
    let after = cluster.leader(group);
    shared.trace.event(format_args!("group {group} from {before:?} to {node}: {told:?}, now {after:?}"));
    before.is_some_and(|before| before != node) && after == Some(node)
}
