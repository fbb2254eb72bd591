//! Money moved between accounts of one tenant, and statements of all accounts: read page by page at the version of the first page, by
//! whichever replica answers, while transfers go on.

use super::{Client, below, think};
use bytes::Bytes;
use checkers::bank::Statement;
use metadb_proto::v1::ReadOptions;
use metadb_proto::{Error, v1};
use shard_router::{Scan, condition, operation};
use std::time::Duration;

/// Accounts of each tenant.
pub const ACCOUNTS: usize = 9;
/// What each begins with.
const MONEY_EACH: i64 = 100;
/// What all hold together.
pub const MONEY: i64 = MONEY_EACH * ACCOUNTS as i64;
/// Rows of a page: a statement has several.
const PAGE: u32 = 4;
/// Longest pause between two requests of a client.
const THINK: Duration = Duration::from_millis(100);
/// How long a request may take.
const DEADLINE: Duration = Duration::from_secs(4);

/// Moves money and draws statements until told to stop.
pub async fn run(client: Client) {
    while !client.shared.stopped() {
        think(THINK).await;
        let tenant_id = client.tenants[usize::try_from(below(client.tenants.len() as u64)).unwrap_or(0)];
        let tenant = client.routers[0].tenant(tenant_id).with_deadline(DEADLINE);
        let done = if below(3) == 0 { Box::pin(state(&client, &tenant)).await } else { Box::pin(transfer(&tenant)).await };
        client.shared.trace.event(format_args!("{} banks with {tenant_id}: {}", client.process, done.is_ok()));
        if let Err(error) = done {
            let _ = client.shared.outcome_of::<()>(&"bank", &error);
        }
    }
}

fn account(n: u64) -> Bytes {
    Bytes::from(format!("bank/{n}"))
}

fn amount(value: &[u8]) -> i64 {
    <[u8; 8]>::try_from(value).map_or(i64::MIN, i64::from_le_bytes)
}

fn money(amount: i64) -> Bytes {
    Bytes::copy_from_slice(&amount.to_le_bytes())
}

async fn transfer(tenant: &shard_router::Client) -> Result<(), Error> {
    let from = below(ACCOUNTS as u64);
    let to = (from + 1 + below(ACCOUNTS as u64 - 1)) % ACCOUNTS as u64;
    let rows = tenant.multi_get(vec![account(from), account(to)]).await?;
    let [a, b] = &rows[..] else {
        // The first who comes opens the bank.
        let accounts = (0..ACCOUNTS as u64).map(|n| operation::put(account(n), money(MONEY_EACH))).collect();
        return tenant.transact(vec![condition::absent(account(0))], accounts).await.map(drop);
    };
    let some = 1 + i64::try_from(below(20)).unwrap_or(0);
    if amount(&a.value) < some {
        return Ok(());
    }
    let conditions = vec![condition::value_is(a.key.clone(), a.value.clone()), condition::value_is(b.key.clone(), b.value.clone())];
    let put = |row: &v1::KeyValue, change: i64| operation::put(row.key.clone(), money(amount(&row.value) + change));
    tenant.transact(conditions, vec![put(a, -some), put(b, some)]).await.map(drop)
}

async fn state(client: &Client, tenant: &shard_router::Client) -> Result<(), Error> {
    let mut statement = Statement::new();
    let (mut continuation, mut read) = (Bytes::new(), ReadOptions::default());
    loop {
        let (start, end) = (Bytes::from_static(b"bank/"), Bytes::from_static(b"bank0"));
        let page = tenant.scan(Scan { start, end, limit: PAGE, continuation, read, ..Scan::default() }).await?;
        statement.extend(page.rows.iter().map(|row| (String::from_utf8_lossy(&row.key).into_owned(), amount(&row.value))));
        if page.continuation.is_empty() {
            break;
        }
        (continuation, read) = (page.continuation, ReadOptions { at_version: page.read_version, max_staleness_ms: 0 });
        think(THINK).await;
    }
    // Before the bank is open there is nothing.
    if !statement.is_empty() {
        client.shared.statements.lock().push(statement);
    }
    Ok(())
}
