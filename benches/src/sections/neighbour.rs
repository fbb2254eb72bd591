//! A tenant's latency while another one, whose rows are in the same group, asks a hundred times as often.
//!
//! Both use their own keys and connections. The flood comes from a process of its own, so that the victim does not wait behind it in the
//! client; the victim's requests arrive at a fixed rate, and are counted from when they were meant to be sent.

use super::{fresh, say};
use crate::load::{Measured, Open, open};
use crate::plan::{Plan, Verb};
use crate::report::{Better, Figure, Report, TextTable, cells};
use crate::systems::cairn::{Cairn, GROUPS};
use crate::systems::cairn_targets::RouterTarget;
use anyhow::Context as _;
use metadb_proto::principal::Token;
use metadb_proto::v1::key_record;
use shard_router::{Router, RouterConfig};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::sleep;

/// Requests of the victim per second.
const VICTIM_RATE: f64 = 200.0;
/// How much more the other asks.
const FLOOD: f64 = 100.0;
/// How long the flood runs before the victim counts.
const FLOOD_FIRST: Duration = Duration::from_millis(500);
/// Name of the variable through which the flood gets its token.
pub const TOKEN_VARIABLE: &str = "CAIRN_BENCH_TOKEN";

/// What the process that floods is told.
#[derive(Debug, Clone, clap::Args)]
pub struct Flood {
    /// host:port of the nodes.
    #[arg(long, value_delimiter = ',')]
    addresses: Vec<String>,
    /// Whose keys.
    #[arg(long)]
    tenant: u64,
    /// How often a second.
    #[arg(long)]
    rate: f64,
    /// For how long.
    #[arg(long)]
    seconds: f64,
}

/// Floods: the whole work of a process. Says at its end how often it was answered.
///
/// # Errors
/// If nothing was answered.
pub async fn flood(flood: &Flood) -> anyhow::Result<f64> {
    let token = std::env::var(TOKEN_VARIABLE).context("the token is missing")?;
    let target = Arc::new(RouterTarget::new(router(&flood.addresses, token).tenant(flood.tenant)));
    let load = Open { verb: Verb::Put, rate: flood.rate, warm_up: Duration::ZERO, measure: Duration::from_secs_f64(flood.seconds) };
    Ok(open(&target, &load, &[]).await?.per_second)
}

fn router(addresses: &[String], token: String) -> Router {
    Router::new(RouterConfig { seeds: addresses.to_vec(), token, ..RouterConfig::default() })
}

/// Measures.
///
/// # Errors
/// If the cluster does not start, or the victim is not served at all.
pub async fn run(plan: &Plan, data: &Path) -> anyhow::Result<Report> {
    say("neighbour: Cairn");
    fresh(data)?;
    let cairn = Cairn::start(&plan.cairn, data, 3).await?;
    let (victim, other) = neighbours(&cairn).await?;
    let token = key_of(&cairn, victim).await?;
    let target = Arc::new(RouterTarget::new(router(cairn.addresses(), token).tenant(victim)));
    let load = |verb| Open { verb, rate: VICTIM_RATE, warm_up: plan.warm_up, measure: plan.paced };
    let mut alone = Vec::new();
    for verb in [Verb::Put, Verb::Get] {
        alone.push((verb, open(&target, &load(verb), &cairn.pids()).await?));
    }
    let whole = (FLOOD_FIRST + (plan.warm_up + plan.paced) * 2).as_secs_f64() + 1.0;
    let mut child = Command::new(std::env::current_exe()?)
        .arg("flood")
        .arg(format!("--addresses={}", cairn.addresses().join(",")))
        .arg(format!("--tenant={other}"))
        .arg(format!("--rate={}", VICTIM_RATE * FLOOD))
        .arg(format!("--seconds={whole}"))
        .env(TOKEN_VARIABLE, key_of(&cairn, other).await?)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    sleep(FLOOD_FIRST).await;
    let mut flooded = Vec::new();
    for verb in [Verb::Put, Verb::Get] {
        anyhow::ensure!(child.try_wait()?.is_none(), "the flood ended too early");
        flooded.push((verb, open(&target, &load(verb), &cairn.pids()).await?));
    }
    let said = child.wait_with_output().await?;
    let answered = String::from_utf8_lossy(&said.stdout).trim().parse::<f64>().context("the flood was not answered")?;
    cairn.stop().await;
    report(&alone, &flooded, answered)
}

fn report(alone: &[(Verb, Measured)], flooded: &[(Verb, Measured)], answered: f64) -> anyhow::Result<Report> {
    let title =
        format!("A tenant that asks {VICTIM_RATE:.0} times a second, alone and beside one that asks {:.0} times", VICTIM_RATE * FLOOD);
    let mut table =
        TextTable::new(&title, &["what", "when", "answered per second", "p50 µs", "p99 µs", "p99.9 µs", "unanswered", "p99 vs alone"]);
    let mut ratios = Vec::new();
    for ((verb, before), (_, during)) in alone.iter().zip(flooded) {
        let ratio = during.p99_us / before.p99_us;
        ratios.push(ratio);
        for (when, m, ratio) in [("alone", before, String::new()), ("flooded", during, format!("{ratio:.2}x"))] {
            let numbers = [m.per_second, m.p50_us, m.p99_us, m.p999_us].map(|n| cells::number(n, 0));
            let row = [verb.to_string(), when.to_owned()].into_iter().chain(numbers);
            table.row(row.chain([m.errors.to_string(), ratio]));
        }
    }
    let figure = |key, what, at: usize| Figure {
        key,
        what,
        value: ratios.get(at).copied(),
        unit: "x",
        ours: cells::with_unit(flooded.get(at).map(|(_, m)| m.p99_us), " µs"),
        peer: format!("alone {}", cells::with_unit(alone.get(at).map(|(_, m)| m.p99_us), " µs")),
        at_least: Some(3.0),
        moon: Some(1.5),
        better: Better::Lower,
    };
    let figures = vec![
        figure("neighbour_put_p99", "victim's p99 of puts, flooded / alone", 0),
        figure("neighbour_get_p99", "victim's p99 of gets, flooded / alone", 1),
    ];
    let notes = vec![format!("the other was answered {answered:.0} times a second")];
    let raw = serde_json::json!({ "alone": alone, "flooded": flooded, "flood_answered_per_second": answered });
    Ok(Report { tables: vec![table], figures, notes, raw, ..Report::new("neighbour") })
}

/// Two tenants whose rows are in one group.
async fn neighbours(cairn: &Cairn) -> anyhow::Result<(u64, u64)> {
    let mut seen = std::collections::BTreeMap::new();
    // More tenants than groups: two must share one.
    for n in 0..=GROUPS {
        let tenant_id = cairn.tenant(&format!("neighbour-{n}")).await?.tenant_id();
        let shards = cairn.operator().shards(tenant_id).await?;
        let group_id = shards.first().context("a tenant without a shard")?.group_id;
        if let Some(other) = seen.insert(group_id, tenant_id) {
            return Ok((other, tenant_id));
        }
    }
    anyhow::bail!("no two tenants share a group")
}

async fn key_of(cairn: &Cairn, tenant_id: u64) -> anyhow::Result<String> {
    let key = cairn.operator().create_key(key_record::Role::Tenant, tenant_id, "bench").await?;
    Ok(Token::for_key(&key.access_key_id, &key.secret))
}
