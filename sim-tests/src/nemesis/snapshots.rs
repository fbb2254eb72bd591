//! Faults in the middle of a snapshot's way. The snapshot is made necessary first: a node stays away until the others have purged what it
//! lacks, and comes back.

use super::{Fault, Felt, sleep_up_to};
use crate::cluster::Cluster;
use std::time::Duration;

/// How long the node stays away.
const AWAY: std::ops::Range<Duration> = Duration::from_secs(1)..Duration::from_secs(3);
/// How long to wait for the middle of a transfer.
const BEGUN_WITHIN: Duration = Duration::from_secs(3);
/// How often it looks for that.
const LOOK: Duration = Duration::from_millis(3);

/// Bit if a snapshot was half there.
pub(super) async fn begin(cluster: &Cluster, fault: Fault, node: usize) -> Felt {
    cluster.kill(node);
    sleep_up_to(AWAY.start, AWAY.end).await;
    cluster.restart(node);
    let began = tokio::time::Instant::now();
    while !is_half_there(cluster, node) {
        if began.elapsed() > BEGUN_WITHIN {
            return Felt::Known(false);
        }
        tokio::time::sleep(LOOK).await;
    }
    let rotten = match fault {
        Fault::CutSnapshot => {
            cluster.isolate(node);
            true
        }
        Fault::RotInSnapshot => cluster.machines()[node].spool().rot().is_some(),
        _ => {
            cluster.kill(node);
            true
        }
    };
    Felt::Known(rotten)
}

fn is_half_there(cluster: &Cluster, node: usize) -> bool {
    let Some(node) = cluster.machines()[node].node() else { return false };
    let transfers = node.groups().into_iter().filter_map(|group| group.status().receiving_snapshot);
    transfers.into_iter().any(|transfer| transfer.done_bytes > 0 && transfer.done_bytes < transfer.total_bytes)
}
