//! Churn of members: an operator has groups shrink and grow again, while everything else goes on.

use super::Felt;
use crate::cluster::{Cluster, GROUPS};
use crate::workload::{Shared, below};
use metadb_proto::v1::Role;
use shard_router::operator::Wish;
use std::time::Duration;

/// Pause between two attempts to take a wish back.
const RETRY: Duration = Duration::from_millis(200);
/// How often that is tried: longer than a simulated connection is held back.
const ATTEMPTS: u32 = 300;

/// Has all groups shrink to one replica, or one group to a single voter and a learner. Not once bytes may have rotted that nobody has read
/// since: they might be the last copy then.
pub(super) async fn begin(cluster: &Cluster, shared: &Shared, node: usize) -> Felt {
    if cluster.machines()[cluster.spoilable()].is_spoilt() {
        return Felt::Known(false);
    }
    let Some(chosen) = cluster.machines()[node].identity().map(|identity| identity.node_id) else { return Felt::Known(false) };
    let Some(other) = cluster.machines()[(node + 1) % cluster.size()].identity().map(|identity| identity.node_id) else {
        return Felt::Known(false);
    };
    let group = u32::try_from(below(u64::from(GROUPS) + 1)).unwrap_or(0);
    let wish = match below(3) {
        0 => Wish { replicas: Some(1), ..Wish::default() },
        1 => Wish { voters: Some((group, vec![chosen])), ..Wish::default() },
        _ => Wish { voters: Some((group, vec![chosen])), learners: Some((group, vec![other])), ..Wish::default() },
    };
    cluster.set_shrinks(true);
    let told = cluster.wish(wish.clone()).await;
    shared.trace.event(format_args!("wish {wish:?}: {told:?}"));
    // Also one of which nobody knows whether it was granted is taken back.
    Felt::ByMembers
}

/// Whether a group has other voters than all nodes now.
pub(super) fn have_changed(cluster: &Cluster) -> bool {
    let nodes = cluster.machines().iter().filter_map(|machine| machine.node());
    let led = nodes.flat_map(|node| node.groups()).map(|group| group.status()).filter(|status| status.role() == Role::Leader);
    led.into_iter().any(|status| status.voters.len() != cluster.size())
}

/// Takes every wish back: each group shall be on all nodes again.
pub(super) async fn restore(cluster: &Cluster, shared: &Shared) {
    let replicas = u32::try_from(cluster.size()).ok();
    let mut wishes = vec![Wish { replicas, ..Wish::default() }];
    for group in 0..=GROUPS {
        wishes.push(Wish { voters: Some((group, Vec::new())), learners: Some((group, Vec::new())), ..Wish::default() });
    }
    for wish in wishes {
        for _ in 0..ATTEMPTS {
            let told = cluster.wish(wish.clone()).await;
            shared.trace.event(format_args!("wish {wish:?}: {told:?}"));
            if told.is_ok() {
                break;
            }
            tokio::time::sleep(RETRY).await;
        }
    }
    cluster.set_shrinks(false);
}
