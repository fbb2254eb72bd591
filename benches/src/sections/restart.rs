//! How soon a node serves again that was killed with much state: from the start of its process.
//!
//! Alone: until a linearizable read is answered, over a new connection. One of three: until its replicas have applied all that the leaders
//! had when it was started, and a linearizable read is answered then. In both cases the reads are of keys that were written before the kill.
//! The node is killed right after the last write, with whatever it has not flushed.

use super::{applied_by_leaders, fresh, reaches, say};
use crate::plan::Plan;
use crate::report::{Better, Figure, Report, TextTable, cells, median};
use crate::systems::cairn::Cairn;
use anyhow::Context as _;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;
use shard_router::operation;
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Bytes of a value.
const VALUE: usize = 1024;
/// Rows of one transaction.
const ROWS: u64 = 512;
/// Transactions in flight.
const FILLERS: usize = 8;
/// A node that is not back by then never is.
const BACK_WITHIN: Duration = Duration::from_secs(120);
/// How often each node is killed: the middle counts.
const TIMES: usize = 3;

/// The times of one cluster.
#[derive(Debug, Clone, Serialize)]
struct Times {
    nodes: usize,
    serving_s: Vec<f64>,
}

/// Measures.
///
/// # Errors
/// If a cluster does not start, can't be filled, or a node does not come back.
pub async fn run(plan: &Plan, data: &Path) -> anyhow::Result<Report> {
    let mut all = Vec::new();
    for nodes in [1, 3] {
        say(&format!("restart: {nodes} node(s) with {} MB", plan.state_bytes / 1_000_000));
        fresh(data)?;
        let cairn = Cairn::start(&plan.cairn, data, nodes).await?;
        let rows = fill(&cairn, plan.state_bytes).await?;
        let mut serving_s = Vec::new();
        for time in 0..TIMES {
            // What comes after the kills before is not flushed either.
            put(&cairn, rows + time as u64 * ROWS).await?;
            serving_s.push(kill_and_wait(&cairn, nodes, rows).await?);
        }
        cairn.stop().await;
        all.push(Times { nodes, serving_s });
    }
    let gigabytes = plan.state_bytes as f64 / 1e9;
    let mut table = TextTable::new(
        &format!("Serving again after SIGKILL, with {gigabytes:.2} GB of values of {VALUE} B, seconds from the start of the process"),
        &["cluster", "fastest", "median", "slowest"],
    );
    for times in &all {
        let [fast, middle, slow] =
            [f64::min as fn(f64, f64) -> f64, f64::max, f64::max].map(|pick| times.serving_s.iter().copied().reduce(pick));
        let name = if times.nodes == 1 { "one node alone".to_owned() } else { format!("one of {}", times.nodes) };
        let middle = median(times.serving_s.iter().copied()).or(middle);
        table.row([name].into_iter().chain([fast, middle, slow].map(|s| cells::with_unit(s, ""))));
    }
    let figure = |key, what, at: usize| {
        let value = all.get(at).and_then(|times: &Times| median(times.serving_s.iter().copied()));
        let ours = format!("with {gigabytes:.2} GB");
        Figure { key, what, value, unit: " s", ours, peer: String::new(), at_least: Some(5.0), moon: Some(1.0), better: Better::Lower }
    };
    let figures = vec![
        figure("restart_alone_s", "serving again after SIGKILL, alone", 0),
        figure("restart_of_three_s", "serving again after SIGKILL, one of three", 1),
    ];
    Ok(Report { tables: vec![table], figures, raw: serde_json::to_value(&all)?, ..Report::new("restart") })
}

/// Writes so many bytes of values; returns how many rows.
async fn fill(cairn: &Cairn, bytes: u64) -> anyhow::Result<u64> {
    let rows = bytes.div_ceil(VALUE as u64 * ROWS) * ROWS;
    let batches = (0..rows).step_by(usize::try_from(ROWS)?).map(|first| put(cairn, first));
    futures::stream::iter(batches).buffer_unordered(FILLERS).try_collect::<()>().await?;
    Ok(rows)
}

/// Writes some rows from there.
async fn put(cairn: &Cairn, first: u64) -> anyhow::Result<()> {
    // Not all the same, so that compression has something to do.
    let value = |n: u64| Bytes::from(noisy(n));
    let puts = (first..first + ROWS).map(|n| operation::put(key(n), value(n))).collect();
    let client = cairn.router().tenant(cairn.tenant_id()).with_deadline(Duration::from_secs(60));
    client.transact(Vec::new(), puts).await.context("the state can't be written")?;
    Ok(())
}

fn key(n: u64) -> Bytes {
    Bytes::from(format!("state/{n:012}"))
}

/// Half noise, half text, as metadata is.
fn noisy(n: u64) -> Vec<u8> {
    let mut state = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut value = vec![b'm'; VALUE];
    for chunk in value[..VALUE / 2].chunks_exact_mut(8) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        chunk.copy_from_slice(&(state ^ (state >> 29)).to_le_bytes());
    }
    value
}

/// Kills the node that leads most, starts it, and waits until it serves.
async fn kill_and_wait(cairn: &Cairn, nodes: usize, rows: u64) -> anyhow::Result<f64> {
    let node = cairn.cluster().leads_most().await?.node;
    cairn.cluster().kill(node).await?;
    let mut applied = std::collections::BTreeMap::new();
    if nodes > 1 {
        // The others go on; what they have is what it must reach.
        let lead_all = async {
            while applied.len() <= crate::systems::cairn::GROUPS {
                sleep(Duration::from_millis(50)).await;
                applied = applied_by_leaders(cairn).await;
            }
        };
        timeout(BACK_WITHIN, lead_all).await.context("the other nodes do not lead all groups")?;
    }
    let begin = Instant::now();
    cairn.cluster().start(node).await?;
    let serves = async {
        reaches(cairn, node, &applied).await;
        loop {
            let fresh = cairn.fresh_router().tenant(cairn.tenant_id());
            match timeout(Duration::from_secs(2), fresh.get(key(rows - 1))).await {
                Ok(Ok(Some(_))) => return Ok(begin.elapsed().as_secs_f64()),
                Ok(Ok(None)) => anyhow::bail!("a row that was acknowledged is gone"),
                Ok(Err(_)) | Err(_) => sleep(super::LOOK_EVERY).await,
            }
        }
    };
    timeout(BACK_WITHIN, serves).await.context("the node does not serve again")?
}
