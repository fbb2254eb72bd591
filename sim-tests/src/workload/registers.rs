//! Get, put, compare-and-swap, delete and add on a few keys at a time. Every value is unique; keys rotate, so that no search is too long.
//!
//! A third of the changes is asked with a short deadline under a request id of the client's own, and repeated through another router
//! until the answer is known: each must have happened exactly once.

use super::{Client, below, complete, invoke, think};
use crate::planted::Planted;
use bytes::Bytes;
use checkers::Outcome;
use checkers::register::{Call, Return};
use checkers::versions::Commit;
use metadb_proto::{Error, seam, v1};
use shard_router::{condition, operation};
use std::time::Duration;

/// Keys in use at the same time, in each tenant.
const KEYS: u64 = 3;
/// Operations on a key before the next takes its place.
const OPERATIONS_PER_KEY: u64 = 80;
/// Longest pause between two requests of a client.
const THINK: Duration = Duration::from_millis(60);
/// How long a request that will be repeated may take at first, in milliseconds: from less than a sync and a round trip take, so that the
/// repetition often meets the first attempt under way.
const IMPATIENT_MS: std::ops::Range<u64> = 10..80;
/// How long any other request may take.
const PATIENT: Duration = Duration::from_secs(4);
/// How often an open request is repeated before it stays unknown.
const REPEATS: u32 = 4;

/// Asks until told to stop.
pub async fn run(client: Client) {
    let mut last_seen = None;
    let mut unique = 0;
    while !client.shared.stopped() {
        think(THINK).await;
        let tenant_id = client.tenants[usize::try_from(below(client.tenants.len() as u64)).unwrap_or(0)];
        unique += 1;
        let value = client.process << 32 | unique << 8;
        let call = match below(10) {
            0..3 => Call::Get,
            3..5 => Call::Put(value),
            5..8 => Call::Cas { expected: last_seen, new: value },
            8 => Call::Delete,
            _ => Call::Add(1),
        };
        let asked_before = client.shared.registers.lock().operations().len() as u64;
        let generation = asked_before / (OPERATIONS_PER_KEY * KEYS * client.tenants.len() as u64);
        let key = format!("r/{generation}/{}", below(KEYS));
        if let Some(Return::Value(seen) | Return::Refused(seen)) = one(&client, tenant_id, &key, call).await {
            last_seen = seen;
        }
    }
}

/// Reads a key once more, after the faults.
pub async fn read(client: &Client, tenant_id: u64, key: &str) {
    let _ = one(client, tenant_id, key, Call::Get).await;
}

async fn one(client: &Client, tenant_id: u64, key: &str, call: Call) -> Option<Return> {
    let shared = &client.shared;
    let id = invoke(client, &shared.registers, &format!("{tenant_id}/{key}"), call);
    let (outcome, version) = ask(client, tenant_id, key.as_bytes(), call).await;
    let answer = if let Outcome::Ok(answer) = &outcome { Some(*answer) } else { None };
    complete(client, &shared.registers, id, outcome);
    if let Some(version) = version {
        let history = shared.registers.lock();
        let operation = history.operation(id);
        if let Some(completed) = operation.completed {
            shared.commits.lock().entry(tenant_id).or_default().push(Commit {
                invoked: operation.invoked,
                completed,
                version,
                unix_ms: seam::unix_ms(),
            });
        }
    }
    answer
}

async fn ask(client: &Client, tenant_id: u64, key: &[u8], call: Call) -> (Outcome<Return>, Option<u64>) {
    let key = Bytes::copy_from_slice(key);
    if call == Call::Get {
        let got = reader(client, tenant_id).get(key).await;
        let outcome = match got {
            Ok(row) => decode(client, row.as_ref()).map_or(Outcome::Unknown, |value| Outcome::Ok(Return::Value(value))),
            // A read has no effects: whatever went wrong, nothing happened.
            Err(error) => match client.shared.outcome_of(&call, &error) {
                Outcome::Ok(()) | Outcome::Fail | Outcome::Unknown => Outcome::Fail,
            },
        };
        return (outcome, None);
    }
    let (conditions, operations) = transaction(&key, call);
    match transact(client, tenant_id, conditions, operations).await {
        Ok(response) => {
            let outcome = answer(client, call, &response).map_or(Outcome::Unknown, Outcome::Ok);
            (outcome, Some(response.version))
        }
        Err(error) => (client.shared.outcome_of(&call, &error), None),
    }
}

fn reader(client: &Client, tenant_id: u64) -> shard_router::Client {
    let reader = client.routers[0].tenant(tenant_id).with_deadline(PATIENT);
    if client.shared.planted == Some(Planted::StaleReads) {
        return reader.with_read(v1::ReadOptions { at_version: 0, max_staleness_ms: 60_000 });
    }
    reader
}

/// Asks patiently, or impatiently and again under the same request id, through another router.
async fn transact(
    client: &Client,
    tenant_id: u64,
    conditions: Vec<v1::Condition>,
    operations: Vec<v1::Operation>,
) -> Result<v1::TransactResponse, Error> {
    let ask = |router: usize, deadline: Duration| client.routers[router].tenant(tenant_id).with_deadline(deadline);
    if below(3) != 0 {
        return ask(0, PATIENT).transact(conditions, operations).await;
    }
    let mut request_id = Bytes::copy_from_slice(&seam::request_id());
    let impatient = Duration::from_millis(IMPATIENT_MS.start + below(IMPATIENT_MS.end - IMPATIENT_MS.start));
    let mut open = None;
    for attempt in 0..REPEATS {
        let (router, deadline) = if attempt == 0 { (0, impatient) } else { (1, PATIENT) };
        if client.shared.planted == Some(Planted::RepeatsWithoutId) {
            request_id = Bytes::copy_from_slice(&seam::request_id());
        }
        let asked = ask(router, deadline);
        match asked.transact_as(request_id.clone(), conditions.clone(), operations.clone()).await {
            Err(error @ Error::UnknownOutcome { .. }) => open = Some(error),
            // Nothing was done by this attempt; one before may have done it.
            Err(error) if open.is_none() => return Err(error),
            Err(_) => {}
            Ok(response) => return Ok(response),
        }
    }
    Err(open.unwrap_or_else(|| Error::UnknownOutcome { message: "repeated in vain".into() }))
}

fn transaction(key: &Bytes, call: Call) -> (Vec<v1::Condition>, Vec<v1::Operation>) {
    let put = |value: u64| operation::put(key.clone(), encode(value));
    match call {
        Call::Get => (Vec::new(), Vec::new()),
        Call::Put(value) => (Vec::new(), vec![put(value)]),
        Call::Cas { expected: None, new } => (vec![condition::absent(key.clone())], vec![put(new)]),
        Call::Cas { expected: Some(value), new } => (vec![condition::value_is(key.clone(), encode(value))], vec![put(new)]),
        Call::Delete => (Vec::new(), vec![operation::delete(key.clone())]),
        Call::Add(delta) => (Vec::new(), vec![operation::add(key.clone(), i64::try_from(delta).unwrap_or(i64::MAX))]),
    }
}

fn answer(client: &Client, call: Call, response: &v1::TransactResponse) -> Option<Return> {
    if !response.committed {
        return decode(client, response.actual.as_ref()).map(Return::Refused);
    }
    let first = response.results.first();
    match call {
        Call::Get => None,
        Call::Put(_) | Call::Cas { .. } => Some(Return::Written),
        Call::Delete => first.map(|result| Return::Deleted(result.deleted > 0)),
        Call::Add(_) => decode(client, first.and_then(|result| result.row.as_ref())).flatten().map(Return::Sum),
    }
}

fn encode(value: u64) -> Bytes {
    Bytes::copy_from_slice(&value.to_le_bytes())
}

/// The value of a row. None, and noted as unexpected, if it is not one of ours.
fn decode(client: &Client, row: Option<&v1::KeyValue>) -> Option<Option<u64>> {
    let Some(row) = row else { return Some(None) };
    if let Ok(bytes) = <[u8; 8]>::try_from(row.value.as_ref()) {
        return Some(Some(u64::from_le_bytes(bytes)));
    }
    client.shared.unexpected.lock().push(format!("{:?} has a value of {} bytes", row.key, row.value.len()));
    None
}
