//! Many shards: how long it takes to make them, what they cost while nobody asks, and how fast they split and merge.

use super::idle::{self, Cost};
use super::{changes_ended, fresh, say};
use crate::plan::Plan;
use crate::report::{Better, Figure, Report, TextTable, cells};
use crate::systems::cairn::Cairn;
use anyhow::Context as _;
use shard_router::operator::{CHANGES_AT_ONCE, Operator, ShardOrder, Wanted};
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

/// Tenants, and so shards, that "few" are.
const FEW: usize = 16;
/// How long all splits, or all merges, may take.
const CHANGED_WITHIN: Duration = Duration::from_secs(300);

/// Measures.
///
/// # Errors
/// If the cluster does not start, or changes do not end.
pub async fn run(plan: &Plan, data: &Path) -> anyhow::Result<Report> {
    say(&format!("shards: Cairn, {}", plan.shards));
    fresh(data)?;
    let cairn = Cairn::start(&plan.cairn, data, 3).await?;
    create(&cairn, "few-", FEW).await?;
    let few = idle(plan, &cairn).await?;
    let begin = Instant::now();
    create(&cairn, "shard-", plan.shards).await?;
    let made_s = begin.elapsed().as_secs_f64();
    let many = idle(plan, &cairn).await?;
    say(&format!("shards: splitting and merging {}", plan.splits));
    let operator = cairn.operator();
    let tenants: Vec<u64> =
        operator.all_shards().await?.iter().map(|shard| shard.tenant_id).filter(|id| *id != 0).take(plan.splits).collect();
    let splits_per_s = changes(&operator, &tenants, Wanted::Split { at: bytes::Bytes::from_static(b"m") }).await?;
    let merges_per_s = changes(&operator, &tenants, Wanted::Merge).await?;
    cairn.stop().await;
    Ok(report(plan, few, many, made_s, splits_per_s, merges_per_s))
}

async fn create(cairn: &Cairn, prefix: &str, count: usize) -> anyhow::Result<()> {
    cairn.command(&["admin", "tenant", "create", "--count", &count.to_string(), "--prefix", prefix]).await?;
    let last = cairn.router().tenant_named(&format!("{prefix}{count}")).await?;
    last.transact(Vec::new(), vec![shard_router::operation::put("k", "v")]).await.context("the last tenant made can't be used")?;
    Ok(())
}

/// What the node that costs most costs.
async fn idle(plan: &Plan, cairn: &Cairn) -> anyhow::Result<Cost> {
    let most =
        |a: Cost, b: Cost| Cost { resident_bytes: a.resident_bytes.max(b.resident_bytes), cpu_percent: a.cpu_percent.max(b.cpu_percent) };
    idle::costs(plan, cairn).await?.1.into_iter().reduce(most).context("no node")
}

/// Has a change made of each tenant's shard; how many a second.
async fn changes(operator: &Operator, tenants: &[u64], wanted: Wanted) -> anyhow::Result<f64> {
    let order = |tenant_id: &u64| ShardOrder {
        tenant_id: *tenant_id,
        key: bytes::Bytes::new(),
        wanted: wanted.clone(),
        reason: "the bench".into(),
        expected: None,
    };
    let orders: Vec<ShardOrder> = tenants.iter().map(order).collect();
    let begin = Instant::now();
    for orders in orders.chunks(CHANGES_AT_ONCE) {
        operator.order_changes(orders).await?;
    }
    tokio::time::timeout(CHANGED_WITHIN, changes_ended(operator)).await.context("changes did not end")??;
    Ok(orders.len() as f64 / begin.elapsed().as_secs_f64())
}

fn report(plan: &Plan, few: Cost, many: Cost, made_s: f64, splits_per_s: f64, merges_per_s: f64) -> Report {
    let title = format!("{} shards beside {FEW}: the node that costs most while nobody asks", plan.shards);
    let mut table = TextTable::new(&title, &["shards", "resident MB", "% of a core"]);
    for (shards, cost) in [(FEW, few), (FEW + plan.shards, many)] {
        table.row([shards.to_string(), cells::number(cost.resident_bytes as f64 / 1e6, 0), cells::number(cost.cpu_percent, 2)]);
    }
    let per_shard = many.resident_bytes.saturating_sub(few.resident_bytes) as f64 / plan.shards as f64;
    let figure = |key, what, value: f64, unit, at_least, better| Figure {
        key,
        what,
        value: Some(value),
        unit,
        ours: cells::with_unit(Some(value), unit),
        peer: String::new(),
        at_least: Some(at_least),
        moon: None,
        better,
    };
    let figures = vec![
        figure("shards_made_s", "shards made by one verb", made_s, " s", 60.0, Better::Lower),
        figure(
            "shards_idle_cpu",
            "idle node, more of a core than with few shards",
            many.cpu_percent - few.cpu_percent,
            " %",
            0.5,
            Better::Lower,
        ),
        figure("shards_bytes", "memory of a node per shard", per_shard, " B", 1024.0, Better::Lower),
        figure("splits_per_s", "splits", splits_per_s, "/s", 200.0, Better::Higher),
        figure("merges_per_s", "merges", merges_per_s, "/s", 200.0, Better::Higher),
    ];
    let raw = serde_json::json!({
        "shards": plan.shards, "made_s": made_s, "few": few, "many": many, "splits": plan.splits,
        "splits_per_s": splits_per_s, "merges_per_s": merges_per_s,
    });
    let notes = vec![format!("{} shards were made in {made_s:.1} s; {} of them split and merged", plan.shards, plan.splits)];
    Report { tables: vec![table], figures, notes, raw, ..Report::new("shards") }
}
