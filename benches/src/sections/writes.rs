//! Bytes that went to disk, of all nodes together, per byte of key and value put. Beside etcd.
//!
//! So many new keys in no order, from 256 clients; then everything is flushed, and the system is left alone until it writes no more. What
//! the kernel counted of each process in between is the figure.

use super::{fresh, say};
use crate::load::value;
use crate::plan::{MANY, Plan, VALUE_BYTES};
use crate::procfs;
use crate::report::{Better, Figure, Report, TextTable, cells};
use crate::systems::cairn::Cairn;
use crate::systems::etcd::Etcd;
use crate::target::Target;
use bytes::Bytes;
use metadb_proto::v1::FlushRequest;
use metadb_proto::v1::node_admin_client::NodeAdminClient;
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::sleep;

/// Bytes of a key.
const KEY_BYTES: usize = 22;
/// Between two looks at whether the system still writes.
const LOOK_EVERY: Duration = Duration::from_millis(700);
/// Looks at most.
const LOOKS: usize = 20;

/// What one system wrote.
#[derive(Debug, Clone, Serialize)]
struct Written {
    /// Before the flush.
    by_puts: u64,
    /// After it.
    in_all: u64,
}

/// Measures.
///
/// # Errors
/// If Cairn can't be started or written. If etcd can't, it is left out, and the report says why.
pub async fn run(plan: &Plan, data: &Path) -> anyhow::Result<Report> {
    let mut report = Report::new("writes");
    let mut etcd = None;
    if let Some(program) = &plan.etcd {
        say("writes: etcd");
        fresh(data)?;
        match of_etcd(plan, program, data).await {
            Ok(written) => etcd = Some(written),
            Err(error) => report.notes.push(format!("{error:#}")),
        }
    }
    say("writes: Cairn");
    fresh(data)?;
    let cairn = of_cairn(plan, data).await?;
    let put = (plan.counted_puts * (KEY_BYTES + VALUE_BYTES) as u64) as f64;
    let per_byte = |written: u64| written as f64 / put;
    let title = format!("Bytes to disk of three nodes, {} new keys with {VALUE_BYTES} B ({:.1} MB)", plan.counted_puts, put / 1e6);
    let mut table = TextTable::new(&title, &["system", "MB by puts", "MB with flush", "per byte put"]);
    for (system, written) in [("etcd", etcd.as_ref()), ("Cairn", Some(&cairn))] {
        let Some(Written { by_puts, in_all }) = written else { continue };
        let megabytes = [by_puts, in_all].map(|bytes| cells::significant(*bytes as f64 / 1e6));
        table.row([system.to_owned()].into_iter().chain(megabytes).chain([cells::significant(per_byte(*in_all))]));
    }
    report.tables.push(table);
    report.figures.push(Figure {
        key: "write_amplification_vs_etcd",
        what: "bytes to disk per byte put / etcd's",
        value: etcd.as_ref().map(|etcd| cairn.in_all as f64 / etcd.in_all as f64),
        unit: "x",
        ours: format!("{:.2} B/B", per_byte(cairn.in_all)),
        peer: etcd.as_ref().map_or("none".to_owned(), |etcd| format!("{:.2} B/B", per_byte(etcd.in_all))),
        at_least: Some(0.5),
        moon: Some(0.25),
        better: Better::Lower,
    });
    report.raw = serde_json::json!({ "bytes_put": put, "cairn": cairn, "etcd": etcd });
    Ok(report)
}

async fn of_etcd(plan: &Plan, program: &Path, data: &Path) -> anyhow::Result<Written> {
    let etcd = Etcd::start(program, data).await?;
    let target = Arc::new(etcd.connect().await?);
    let pids = etcd.pids();
    let before = quiet(&pids).await?;
    put_all(&target, plan.counted_puts).await?;
    let by_puts = written(&pids)? - before;
    // It commits to its database by itself, ten times a second.
    let in_all = quiet(&pids).await? - before;
    etcd.stop().await;
    Ok(Written { by_puts, in_all })
}

async fn of_cairn(plan: &Plan, data: &Path) -> anyhow::Result<Written> {
    let cairn = Cairn::start(&plan.cairn, data, 3).await?;
    let target = Arc::new(cairn.routed());
    let pids = cairn.pids();
    let before = quiet(&pids).await?;
    put_all(&target, plan.counted_puts).await?;
    let by_puts = written(&pids)? - before;
    for address in cairn.addresses() {
        let mut admin = NodeAdminClient::connect(format!("http://{address}")).await?;
        let mut request = tonic::Request::new(FlushRequest {});
        request.metadata_mut().insert("authorization", format!("Bearer {}", cairn.token()).parse()?);
        admin.flush(request).await?;
    }
    let in_all = quiet(&pids).await? - before;
    cairn.stop().await;
    Ok(Written { by_puts, in_all })
}

fn written(pids: &[u32]) -> anyhow::Result<u64> {
    pids.iter().map(|pid| procfs::written_bytes(*pid)).sum()
}

/// What was written once no more is written, or after a while.
async fn quiet(pids: &[u32]) -> anyhow::Result<u64> {
    let mut last = written(pids)?;
    for _ in 0..LOOKS {
        sleep(LOOK_EVERY).await;
        let now = written(pids)?;
        // A heartbeat's note now and then is no reason to wait.
        if now - last < 64 << 10 {
            return Ok(now);
        }
        last = now;
    }
    Ok(last)
}

async fn put_all<T: Target>(target: &Arc<T>, count: u64) -> anyhow::Result<()> {
    let next = Arc::new(AtomicU64::new(0));
    let clients = (0..MANY).map(|client| {
        let (target, next) = (Arc::clone(target), Arc::clone(&next));
        tokio::spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count {
                    return anyhow::Ok(());
                }
                target.put(client, scattered(n), value()).await?;
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await??;
    }
    Ok(())
}

/// The n-th key: all differ, and neighbours are far from each other.
fn scattered(n: u64) -> Bytes {
    // An odd factor permutes the numbers of 64 bits.
    Bytes::from(format!("write/{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_and_are_as_long_as_counted() {
        let keys: std::collections::BTreeSet<Bytes> = (0..1000).map(scattered).collect();
        assert!(keys.len() == 1000 && keys.iter().all(|key| key.len() == KEY_BYTES));
    }
}
