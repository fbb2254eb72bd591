//! Faults of processes: they die, stop, pause, and lose leadership on purpose.

use super::{Fault, Felt, busiest};
use crate::cluster::{Cluster, GROUPS};
use crate::workload::{Shared, below};
use std::time::Duration;

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
        Fault::Stop => Felt::Known(stop(cluster, shared, node).await),
        Fault::Transfer => Felt::Known(transfer(cluster, shared, node).await),
        _ => {
            let led = cluster.leads(node);
            Felt::Known(cluster.kill(node) > 0 || led > 0)
        }
    }
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
