//! A leader's disk fills up while two followers take a snapshot from it: the log that they need next is purged to make room. Once there is
//! room again, both must get on.
//!
//! They take the same snapshot in turns, so that one is always at it: kept alive so, it would be all that they ever get.

use crate::cluster::Cluster;
use crate::planted::Planted;
use crate::scenario::{self, until};
use crate::workload::Client;
use bytes::Bytes;
use metadb_proto::v1::{GroupStatus, Role};
use shard_router::operation;
use shard_router::operator::Wish;
use std::time::Duration;

const GROUP: u32 = 1;
/// Rows of each tenant, and bytes of each: a snapshot takes seconds.
const ROWS: usize = 40;
const ROW_BYTES: usize = 2 << 10;
const DEADLINE: Duration = Duration::from_secs(10);

/// Plays the scenario from a seed; what is wrong.
#[must_use]
pub fn seed(seed: u64, planted: Option<Planted>) -> Vec<String> {
    scenario::play(seed, planted, |cluster, client| async move { live(&cluster, &client).await })
}

fn status(cluster: &Cluster, node: usize) -> Option<GroupStatus> {
    Some(cluster.machines()[node].node()?.group(GROUP)?.status())
}

/// Writes rows of both tenants: one of them is in the group.
async fn write(client: &Client, round: usize, rows: usize) -> Result<(), String> {
    for row in 0..rows {
        for tenant_id in &client.tenants {
            let (key, value) = (format!("full/{round}/{row}"), vec![row.to_le_bytes()[0]; ROW_BYTES]);
            let asked = client.routers[0].tenant(*tenant_id).with_deadline(DEADLINE);
            let written = asked.transact(Vec::new(), vec![operation::put(Bytes::from(key), Bytes::from(value))]).await;
            written.map_err(|error| format!("row {row} of round {round}: {error}"))?;
        }
    }
    Ok(())
}

async fn live(cluster: &Cluster, client: &Client) -> Result<(), String> {
    until("a leader", || cluster.leader(GROUP).is_some()).await?;
    let leader = cluster.leader(GROUP).ok_or("nobody leads")?;
    let others: Vec<usize> = (0..cluster.size()).filter(|node| *node != leader).collect();
    let own = cluster.machines()[leader].identity().ok_or("it has no id")?.node_id;
    cluster.wish(Wish { voters: Some((GROUP, vec![own])), ..Wish::default() }).await?;
    until("a group of one", || others.iter().all(|node| status(cluster, *node).is_none())).await?;
    write(client, 1, ROWS).await?;
    cluster.purge(leader).await;
    cluster.wish(Wish { voters: Some((GROUP, Vec::new())), ..Wish::default() }).await?;
    let takes = |node: &usize| {
        let transfer = status(cluster, *node).and_then(|status| status.receiving_snapshot);
        transfer.is_some_and(|transfer| transfer.done_bytes > 0 && transfer.done_bytes < transfer.total_bytes / 2)
    };
    until("a snapshot on its way to both", || others.iter().all(takes)).await?;
    write(client, 2, 1).await?;
    let last = status(cluster, leader).map_or(0, |status| status.last_log_index);
    let disk = cluster.machines()[leader].disk();
    disk.set_capacity(Some(disk.used_bytes()));
    until("a purge that makes room", || status(cluster, leader).is_some_and(|status| status.purged_index >= last)).await?;
    disk.set_capacity(None);
    let is_whole = |status: GroupStatus, applied: u64| {
        let follows = matches!(status.role(), Role::Leader | Role::Follower);
        follows && status.voters.len() == cluster.size() && status.applied_index >= applied
    };
    let applied = || status(cluster, leader).map_or(u64::MAX, |status| status.applied_index);
    until("three voters who have all", || {
        let applied = applied();
        (0..cluster.size()).all(|node| status(cluster, node).is_some_and(|status| is_whole(status, applied)))
    })
    .await?;
    write(client, 3, 1).await
}
