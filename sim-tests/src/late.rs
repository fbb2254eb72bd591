//! Retries that come when their request is nearly forgotten, and when it is.
//!
//! A request id is remembered for [`REQUEST_ID_RETENTION`] at least, whatever happens meanwhile: leaders change, a node loses its log and
//! is brought a snapshot, power fails everywhere, nodes restart one after the other. A second before the end every retry must get its
//! first answer, and the counters must have counted each request once. Later a request is forgotten; then a retry is a new request, and
//! its answer shows it: it has a version of its own.
//!
//! Seeds do not last that long, so this is a scenario of its own, without chance but for what the seed decides.

use crate::cluster::{Cluster, GROUPS};
use crate::planted::Planted;
use crate::scenario::{self, WITHIN, until};
use crate::workload::{Client, below};
use bytes::Bytes;
use metadb_proto::limits::REQUEST_ID_RETENTION;
use metadb_proto::{seam, v1};
use shard_router::operation;
use std::time::Duration;
use tokio::time::Instant;

/// When a retry comes, after its request was first asked.
const NEARLY_FORGOTTEN: Duration = REQUEST_ID_RETENTION.saturating_sub(Duration::from_secs(1));
/// From one batch of requests to the next.
const ROUND: Duration = Duration::from_secs(70);
/// Rounds with new requests: as many as there are disturbances.
const ROUNDS: u32 = 4;
/// Requests of a tenant in a round.
const REQUESTS: usize = 6;
/// How long a request may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often a request is asked until it has an answer.
const ATTEMPTS: u32 = 10;

const _: () = assert!(
    ROUND.as_secs() * (ROUNDS as u64) < NEARLY_FORGOTTEN.as_secs(),
    "each disturbance happens between every request of the first round and its retry"
);

/// A request, and what it was told.
struct Asked {
    tenant_id: u64,
    request_id: Bytes,
    at: Instant,
    first: v1::TransactResponse,
}

/// Plays the scenario from a seed; what is wrong.
#[must_use]
pub fn seed(seed: u64, planted: Option<Planted>) -> Vec<String> {
    scenario::play(seed, planted, |cluster, client| async move { live(&cluster, &client).await })
}

async fn live(cluster: &Cluster, client: &Client) -> Result<(), String> {
    let (mut asked, mut brought) = (Vec::new(), 0);
    let begun = Instant::now();
    for round in 0..ROUNDS {
        for tenant_id in client.tenants.iter().copied() {
            for _ in 0..REQUESTS {
                let (request_id, at) = (Bytes::copy_from_slice(&seam::random_id()), Instant::now());
                let first = ask(client, tenant_id, &request_id).await?;
                asked.push(Asked { tenant_id, request_id, at, first });
            }
        }
        brought = disturb(cluster, client, round).await?.unwrap_or(brought);
        tokio::time::sleep_until(begun + ROUND * (round + 1)).await;
    }
    for (number, request) in asked.iter().enumerate() {
        if number % (REQUESTS * client.tenants.len()) == 0 {
            let node = usize::try_from(below(cluster.size() as u64)).unwrap_or(0);
            cluster.kill(node);
            cluster.restart(node);
            // Who has the oldest requests from a snapshot alone is to answer.
            lead(cluster, brought).await?;
        }
        tokio::time::sleep_until(request.at + NEARLY_FORGOTTEN).await;
        let again = ask(client, request.tenant_id, &request.request_id).await?;
        if again != request.first {
            return Err(format!("request {number} was told {:?}, and after {NEARLY_FORGOTTEN:?} {again:?}", request.first));
        }
    }
    let once = REQUESTS as u64 * u64::from(ROUNDS);
    sums_are(client, once).await?;
    // Twice the time in which each is remembered, in each of which something is written: then it is forgotten.
    for _ in 0..10 {
        tokio::time::sleep(REQUEST_ID_RETENTION / 4).await;
        for tenant_id in &client.tenants {
            put(client, *tenant_id).await?;
        }
    }
    for tenant_id in &client.tenants {
        let Some(old) = asked.iter().find(|request| request.tenant_id == *tenant_id) else { return Err("nothing was asked".to_owned()) };
        let again = ask(client, *tenant_id, &old.request_id).await?;
        if again.version <= old.first.version {
            return Err(format!("a request that is forgotten was told {again:?}, as at first: {:?}", old.first));
        }
    }
    sums_are(client, once + 1).await
}

const SUM: &[u8] = b"late/sum";

/// Adds one under a request id, until it is told how that ended.
async fn ask(client: &Client, tenant_id: u64, request_id: &Bytes) -> Result<v1::TransactResponse, String> {
    transact(client, tenant_id, request_id, operation::add(Bytes::from_static(SUM), 1)).await
}

/// Writes something else.
async fn put(client: &Client, tenant_id: u64) -> Result<v1::TransactResponse, String> {
    let request_id = Bytes::copy_from_slice(&seam::random_id());
    transact(client, tenant_id, &request_id, operation::put(Bytes::from_static(b"late/other"), Bytes::from_static(b"x"))).await
}

async fn transact(client: &Client, tenant_id: u64, request_id: &Bytes, operation: v1::Operation) -> Result<v1::TransactResponse, String> {
    let mut told = None;
    for _ in 0..ATTEMPTS {
        match asking(client, tenant_id).transact_as(request_id.clone(), Vec::new(), vec![operation.clone()]).await {
            Ok(answer) => return Ok(answer),
            Err(error) => told = Some(error),
        }
    }
    Err(format!("no answer: {told:?}"))
}

/// Through either router.
fn asking(client: &Client, tenant_id: u64) -> shard_router::Client {
    client.routers[usize::try_from(below(2)).unwrap_or(0)].tenant(tenant_id).with_deadline(DEADLINE)
}

async fn sums_are(client: &Client, expected: u64) -> Result<(), String> {
    for tenant_id in client.tenants.iter().copied() {
        let row = asking(client, tenant_id).get(Bytes::from_static(SUM)).await.map_err(|error| error.to_string())?;
        let sum = row.and_then(|row| <[u8; 8]>::try_from(row.value.as_ref()).ok()).map(u64::from_le_bytes);
        if sum != Some(expected) {
            return Err(format!("the counter of tenant {tenant_id} is at {sum:?}; requests that were done once each make it {expected}"));
        }
    }
    Ok(())
}

/// Has a node lead the groups of tenants.
async fn lead(cluster: &Cluster, node: usize) -> Result<(), String> {
    for group in 1..=GROUPS {
        until("a leader", || cluster.leader(group).is_some()).await?;
        let mut told = Ok(());
        for _ in 0..ATTEMPTS {
            if cluster.leader(group) == Some(node) {
                break;
            }
            // It may have to start first.
            told = cluster.transfer(group, node, WITHIN).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        if cluster.leader(group) != Some(node) {
            return Err(format!("group {group} is not led by {node}: {told:?}"));
        }
    }
    Ok(())
}

/// What happens once between a request and its retry; who was brought snapshots. An error: it did not come about, so nothing was tried.
async fn disturb(cluster: &Cluster, client: &Client, round: u32) -> Result<Option<usize>, String> {
    match round {
        0 => {
            for group in 0..=GROUPS {
                let lead = cluster.leader(group).ok_or("nobody leads")?;
                let to = (lead + 1) % cluster.size();
                cluster.transfer(group, to, WITHIN).await?;
                until("the new leader", || cluster.leader(group) == Some(to)).await?;
            }
        }
        1 => {
            let node = (cluster.leader(1).ok_or("nobody leads")? + 1) % cluster.size();
            cluster.kill(node);
            for tenant_id in &client.tenants {
                put(client, *tenant_id).await?;
            }
            // More than once: a leader may have to be elected first.
            for _ in 0..3 {
                for other in (0..cluster.size()).filter(|other| *other != node) {
                    cluster.purge(other).await;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            cluster.restart(node);
            let installed = || {
                let groups = cluster.machines()[node].node().map(|node| node.groups()).unwrap_or_default();
                (1..=GROUPS).all(|id| groups.iter().any(|group| group.group_id() == id && group.snapshots_installed() > 0))
            };
            until("a snapshot of each group of tenants", installed).await?;
            return Ok(Some(node));
        }
        2 => {
            cluster.power_loss();
            (0..cluster.size()).for_each(|node| cluster.restart(node));
        }
        _ => {
            for node in 0..cluster.size() {
                cluster.stop(node).await?;
                cluster.restart(node);
                until("leaders", || (0..=GROUPS).all(|group| cluster.leader(group).is_some())).await?;
            }
        }
    }
    Ok(None)
}
