//! Transactions that append to two lists and read a third, all in one request: the material for `checkers::lists`.
//!
//! A list is the value of a key. To append, a client reads the list and puts a longer one under the condition that the key is as it was;
//! what the condition compared is thereby what the transaction read.

use super::{Client, below, think};
use bytes::Bytes;
use checkers::Outcome;
use checkers::lists::Transaction;
use metadb_proto::{Error, v1};
use shard_router::{condition, operation};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Lists of a tenant in use at a time.
const LISTS: u64 = 4;
/// Transactions after which other lists are used, so that lists stay short.
const TRANSACTIONS_PER_GENERATION: usize = 60;
/// Longest pause between two requests of a client.
const THINK: Duration = Duration::from_millis(100);
/// How long a request may take.
const DEADLINE: Duration = Duration::from_secs(4);

/// Appends and reads until told to stop.
pub async fn run(client: Client) {
    for n in 0_u64.. {
        if client.shared.stopped() {
            return;
        }
        think(THINK).await;
        let tenant_id = client.tenants[usize::try_from(below(client.tenants.len() as u64)).unwrap_or(0)];
        let generation = client.shared.lists.lock().len() / TRANSACTIONS_PER_GENERATION;
        let first = below(LISTS);
        let names: Vec<String> = (0..3).map(|step| format!("list/{generation}/{}", (first + step) % LISTS)).collect();
        Box::pin(one(&client, tenant_id, &names, client.process << 32 | n)).await;
    }
}

async fn one(client: &Client, tenant_id: u64, names: &[String], element: u64) {
    let tenant = client.routers[0].tenant(tenant_id).with_deadline(DEADLINE);
    let keys: Vec<Bytes> = names.iter().map(|name| Bytes::from(name.clone())).collect();
    let before = match tenant.multi_get(keys[..2].to_vec()).await {
        Ok(rows) => rows.into_iter().map(|row| (row.key.clone(), row)).collect::<BTreeMap<_, _>>(),
        Err(error) => return drop(client.shared.outcome_of::<()>(&"lists", &error)),
    };
    let label = |name: &str| format!("{tenant_id}/{name}");
    let (mut conditions, mut operations) = (Vec::new(), vec![operation::get(keys[2].clone())]);
    let (mut reads, mut appends) = (Vec::new(), Vec::new());
    for (name, key) in names[..2].iter().zip(&keys) {
        let row = before.get(key);
        conditions.push(row.map_or_else(|| condition::absent(key.clone()), |row| condition::version_is(key.clone(), row.version)));
        let mut elements = decode(row);
        reads.push((label(name), elements.clone()));
        elements.push(element);
        operations.push(operation::put(key.clone(), encode(&elements)));
        appends.push((label(name), element));
    }
    let invoked = client.shared.place();
    let result = tenant.transact(conditions, operations).await;
    let completed = client.shared.place();
    client.shared.trace.event(format_args!("{} lists {names:?} of {tenant_id}: {}", client.process, result.is_ok()));
    let outcome = match &result {
        Ok(response) if response.committed => {
            let row = response.results.first().and_then(|result| result.row.as_ref());
            reads.push((label(&names[2]), decode(row)));
            Outcome::Ok(())
        }
        Ok(_) => Outcome::Fail,
        Err(error) => client.shared.outcome_of(&"lists", error),
    };
    let completed = matches!(outcome, Outcome::Ok(())).then_some(completed);
    client.shared.lists.lock().push(Transaction { invoked, completed, outcome, reads, appends });
}

/// Reads every list that was touched, after the faults.
///
/// # Errors
/// What the reader was told.
pub async fn read_all(client: &Client) -> Result<BTreeMap<String, Vec<u64>>, Error> {
    let names: BTreeSet<String> = {
        let history = client.shared.lists.lock();
        history.iter().flat_map(|transaction| transaction.appends.iter().map(|(name, _)| name.clone())).collect()
    };
    let mut last = BTreeMap::new();
    for label in names {
        let Some((tenant, name)) = label.split_once('/') else { continue };
        let tenant = client.routers[0].tenant(tenant.parse().unwrap_or(0)).with_deadline(DEADLINE);
        let row = tenant.get(Bytes::from(name.to_owned())).await?;
        last.insert(label, decode(row.as_ref()));
    }
    Ok(last)
}

fn encode(elements: &[u64]) -> Bytes {
    elements.iter().flat_map(|element| element.to_le_bytes()).collect()
}

fn decode(row: Option<&v1::KeyValue>) -> Vec<u64> {
    let (elements, _) = row.map_or(&[][..], |row| &row.value).as_chunks::<8>();
    elements.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect()
}
