//! Exactly once, and staleness within bounds, each judged on the spot: nobody else writes the keys of a client, so it knows what they must
//! be.
//!
//! A client adds to its counter under request ids of its own, and asks old requests again: each retry, however late, must get the first
//! answer, and the sum must count each request once. And it reads a key of its own from any replica, also from inside the process of one
//! that is cut off, allowing some age: a write that is older than that must be seen.

use super::{Client, below, think};
use crate::cluster::Cluster;
use bytes::Bytes;
use checkers::Outcome;
use metadb_proto::kv::{request, response};
use metadb_proto::{Error, seam, v1};
use shard_router::operation;
use std::sync::Arc;
use std::time::Duration;

/// Longest pause between two requests of a client.
const THINK: Duration = Duration::from_millis(90);
/// How long a request may take.
const DEADLINE: Duration = Duration::from_secs(4);
/// Answers kept to ask for again.
const KEPT: usize = 60;
/// The age that reads allow.
const STALENESS_MS: u32 = 500;
/// What is added to it for what the replica does not know: that the newest entry it has applied was old when it came.
const LATE_MS: u64 = 700;

struct Answered {
    request_id: Bytes,
    response: v1::TransactResponse,
}

/// Asks until told to stop.
pub async fn run(client: Client, cluster: Arc<Cluster>) {
    let tenant_id = client.tenants[usize::try_from(client.process).unwrap_or(0) % client.tenants.len()];
    let counter = Bytes::from(format!("again/{}/sum", client.process));
    let dated = Bytes::from(format!("again/{}/dated", client.process));
    let (mut answered, mut acknowledged, mut unknown) = (Vec::<Answered>::new(), 0_u64, 0_u64);
    // When each write of the dated key was answered, and its version.
    let mut writes: Vec<(u64, u64)> = Vec::new();
    while !client.shared.stopped() {
        think(THINK).await;
        match below(4) {
            0 if !answered.is_empty() => {
                let old = &answered[usize::try_from(below(answered.len() as u64)).unwrap_or(0)];
                Box::pin(ask_again(&client, tenant_id, &counter, old)).await;
            }
            0 | 1 => {
                let request_id = Bytes::copy_from_slice(&seam::random_id());
                let told = Box::pin(add(&client, tenant_id, &counter, &request_id)).await;
                client.shared.trace.event(format_args!("{} adds as {request_id:?}: {told:?}", client.process));
                match told {
                    Ok(response) => {
                        acknowledged += 1;
                        judge_sum(&client, &response, acknowledged..=acknowledged + unknown);
                        answered.truncate(KEPT);
                        answered.insert(0, Answered { request_id, response });
                    }
                    Err(error) => unknown += u64::from(client.shared.outcome_of::<()>(&"again", &error) == Outcome::Unknown),
                }
            }
            2 => {
                let tenant = client.routers[0].tenant(tenant_id).with_deadline(DEADLINE);
                match tenant.transact(Vec::new(), vec![operation::put(dated.clone(), Bytes::from_static(b"x"))]).await {
                    Ok(response) => writes.push((seam::unix_ms(), response.version)),
                    Err(error) => drop(client.shared.outcome_of::<()>(&"dated", &error)),
                }
            }
            _ => Box::pin(read_stale(&client, &cluster, tenant_id, &dated, &writes)).await,
        }
    }
}

async fn add(client: &Client, tenant_id: u64, key: &Bytes, request_id: &Bytes) -> Result<v1::TransactResponse, Error> {
    let tenant = client.routers[usize::try_from(below(2)).unwrap_or(0)].tenant(tenant_id).with_deadline(DEADLINE);
    tenant.transact_as(request_id.clone(), Vec::new(), vec![operation::add(key.clone(), 1)]).await
}

async fn ask_again(client: &Client, tenant_id: u64, key: &Bytes, old: &Answered) {
    match add(client, tenant_id, key, &old.request_id).await {
        Ok(response) if response == old.response => client.shared.trace.event(format_args!("{} got its answer again", client.process)),
        Ok(response) => {
            let told = format!("a retry was told {response:?}, the first time {:?}", old.response);
            client.shared.unexpected.lock().push(told);
        }
        Err(error) => drop(client.shared.outcome_of::<()>(&"again", &error)),
    }
}

fn judge_sum(client: &Client, response: &v1::TransactResponse, possible: std::ops::RangeInclusive<u64>) {
    let row = response.results.first().and_then(|result| result.row.as_ref());
    let sum = row.and_then(|row| <[u8; 8]>::try_from(row.value.as_ref()).ok()).map(u64::from_le_bytes);
    if !sum.is_some_and(|sum| possible.contains(&sum)) {
        client.shared.unexpected.lock().push(format!("a counter is at {sum:?}; requests that were done once each make it {possible:?}"));
    }
}

async fn read_stale(client: &Client, cluster: &Cluster, tenant_id: u64, key: &Bytes, writes: &[(u64, u64)]) {
    let asked_ms = seam::unix_ms();
    let read = v1::ReadOptions { at_version: 0, max_staleness_ms: STALENESS_MS };
    let got = if below(3) == 0 {
        let tenant = client.routers[usize::try_from(below(2)).unwrap_or(0)].tenant(tenant_id).with_deadline(DEADLINE).with_read(read);
        Some(tenant.get(key.clone()).await)
    } else {
        let any = usize::try_from(below(cluster.size() as u64)).unwrap_or(0);
        get_inside(cluster, any, tenant_id, key, read).await
    };
    match got {
        // Nobody was asked, or that node does not know: a router would ask the next.
        None | Some(Err(Error::Moved { .. })) => {}
        Some(Ok(row)) => {
            let seen = row.map_or(0, |row| row.version);
            let due = writes.iter().rev().find(|(answered_ms, _)| answered_ms + u64::from(STALENESS_MS) + LATE_MS < asked_ms);
            if let Some((answered_ms, version)) = due.filter(|(_, version)| *version > seen && !client.shared.wild) {
                let age = asked_ms - answered_ms;
                let told =
                    format!("a read that allows {STALENESS_MS} ms misses version {version}, acknowledged {age} ms before, and sees {seen}");
                client.shared.unexpected.lock().push(told);
            }
        }
        Some(Err(error)) => drop(client.shared.outcome_of::<()>(&"stale read", &error)),
    }
}

/// What a node answers inside its process: whatever cuts it off, it must know how old its own state is.
async fn get_inside(
    cluster: &Cluster,
    node: usize,
    tenant_id: u64,
    key: &Bytes,
    read: v1::ReadOptions,
) -> Option<Result<Option<v1::KeyValue>, Error>> {
    let deadline_ms = u32::try_from(DEADLINE.as_millis()).unwrap_or(u32::MAX);
    let header = v1::RequestHeader { tenant_id, deadline_ms, ..v1::RequestHeader::default() };
    let get = v1::GetRequest { header: Some(header), key: key.clone(), read: Some(read) };
    match cluster.ask_inside(node, request::Body::Get(get)).await? {
        Ok(response::Body::Get(got)) => Some(Ok(got.row)),
        Ok(_) => Some(Err(Error::internal("a get was answered by something else"))),
        Err(error) => Some(Err(error)),
    }
}
