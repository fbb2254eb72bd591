//! What a node costs that has nothing to do: nine groups, many tenants. And how long it takes to make so many by one verb.

use super::{fresh, say};
use crate::plan::Plan;
use crate::procfs;
use crate::report::{Better, Figure, Report, TextTable, cells};
use crate::systems::cairn::{Cairn, GROUPS};
use anyhow::Context as _;
use serde::Serialize;
use std::path::Path;
use tokio::time::Instant;

/// What one node costs.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Cost {
    pub(super) resident_bytes: u64,
    /// Of one core.
    pub(super) cpu_percent: f64,
}

/// Measures.
///
/// # Errors
/// If the cluster does not start, or the verb fails.
pub async fn run(plan: &Plan, data: &Path) -> anyhow::Result<Report> {
    say("idle: Cairn");
    fresh(data)?;
    let cairn = Cairn::start(&plan.cairn, data, 3).await?;
    let begin = Instant::now();
    cairn.command(&["admin", "tenant", "create", "--count", &plan.tenants.to_string(), "--prefix", "idle-"]).await?;
    let seconds = begin.elapsed().as_secs_f64();
    // Any of them can be used now, and the last is.
    let last = cairn.router().tenant_named(&format!("idle-{}", plan.tenants)).await?;
    last.transact(Vec::new(), vec![shard_router::operation::put("k", "v")]).await.context("the last tenant made can't be used")?;
    let (window, costs) = costs(plan, &cairn).await?;
    cairn.stop().await;
    report(plan, seconds, window, &costs)
}

/// What each node costs while nobody asks, and for how many seconds it was looked at.
pub(super) async fn costs(plan: &Plan, cairn: &Cairn) -> anyhow::Result<(f64, Vec<Cost>)> {
    tokio::time::sleep(plan.quiet / 2).await;
    let before: Vec<_> = cairn.pids().into_iter().map(|pid| anyhow::Ok((pid, procfs::cpu(pid)?))).collect::<Result<_, _>>()?;
    let from = Instant::now();
    tokio::time::sleep(plan.quiet).await;
    let window = from.elapsed().as_secs_f64();
    let mut costs = Vec::new();
    for (pid, cpu) in before {
        let spent = procfs::cpu(pid)?.saturating_sub(cpu).as_secs_f64();
        costs.push(Cost { resident_bytes: procfs::resident_bytes(pid)?, cpu_percent: 100.0 * spent / window });
    }
    Ok((window, costs))
}

fn report(plan: &Plan, seconds: f64, window: f64, costs: &[Cost]) -> anyhow::Result<Report> {
    let title = format!("Nodes with {} idle groups and {} tenants, looked at for {window:.0} s", GROUPS + 1, plan.tenants);
    let mut table = TextTable::new(&title, &["node", "resident MB", "% of a core"]);
    for (node, cost) in costs.iter().enumerate() {
        table.row([format!("node-{node}"), cells::number(megabytes(cost), 0), cells::number(cost.cpu_percent, 2)]);
    }
    let most = |pick: fn(&Cost) -> f64| costs.iter().map(pick).reduce(f64::max);
    let figure = |key, what, value: Option<f64>, unit, at_least, moon| Figure {
        key,
        what,
        value,
        unit,
        ours: cells::with_unit(value, unit),
        peer: String::new(),
        at_least: Some(at_least),
        moon,
        better: Better::Lower,
    };
    let figures = vec![
        figure("idle_rss_mb", "idle node, memory, the largest", most(megabytes), " MB", 200.0, Some(100.0)),
        figure("idle_cpu_percent", "idle node, of one core, the busiest", most(|cost| cost.cpu_percent), " %", 2.0, Some(0.5)),
        figure("tenants_s", "tenants made by one verb", Some(seconds), " s", 30.0, None),
    ];
    let raw = serde_json::json!({ "tenants": plan.tenants, "seconds": seconds, "window": window, "nodes": costs });
    let notes = vec![format!("{} tenants were made in {seconds:.1} s", plan.tenants)];
    Ok(Report { tables: vec![table], figures, notes, raw, ..Report::new("idle") })
}

fn megabytes(cost: &Cost) -> f64 {
    cost.resident_bytes as f64 / 1e6
}
