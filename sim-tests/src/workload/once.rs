//! Keys that are written once, each by one client, and read all together after the faults: however many there are, no search is needed
//! to see that an acknowledged one is missing.

use super::{Client, below, think};
use bytes::Bytes;
use checkers::Outcome;
use checkers::acknowledged::Write;
use shard_router::{condition, operation};
use std::time::Duration;

/// Longest pause between two requests of a client.
const THINK: Duration = Duration::from_millis(80);
/// How long a request may take.
const DEADLINE: Duration = Duration::from_secs(3);
/// What all keys begin with.
pub const PREFIX: &str = "once/";

/// Writes until told to stop.
pub async fn run(client: Client) {
    for n in 0_u64.. {
        if client.shared.stopped() {
            return;
        }
        think(THINK).await;
        let tenant_id = client.tenants[usize::try_from(below(client.tenants.len() as u64)).unwrap_or(0)];
        let key = format!("{PREFIX}{:04}/{n:06}", client.process);
        let value = client.process << 32 | n;
        client.shared.trace.event(format_args!("{} asks once {tenant_id}/{key}", client.process));
        let asked = client.routers[0].tenant(tenant_id).with_deadline(DEADLINE);
        let conditions = vec![condition::absent(Bytes::from(key.clone()))];
        let operations = vec![operation::put(Bytes::from(key.clone()), Bytes::copy_from_slice(&value.to_le_bytes()))];
        let outcome = match asked.transact(conditions, operations).await {
            Ok(response) if response.committed => Outcome::Ok(()),
            Ok(response) => {
                // Nobody else writes this key, and each request has its id: it can't be there already.
                client.shared.unexpected.lock().push(format!("{key} was there before it was written: {response:?}"));
                Outcome::Unknown
            }
            Err(error) => client.shared.outcome_of(&key, &error),
        };
        client.shared.trace.event(format_args!("{} is told once {outcome:?}", client.process));
        client.shared.once.lock().insert(format!("{tenant_id}/{key}"), Write { value, outcome });
    }
}
