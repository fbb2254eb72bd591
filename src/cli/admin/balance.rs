//! `cairn admin balance`: what would be moved to even loads, and have it moved.

use super::shard::watch_changes;
use crate::cli::connection::Session;
use crate::failure::{Code, Failure};
use crate::output::{self, Output, Show, duration, size};
use clap::Args;
use metadb_proto::v1::ShardChangeRecord;
use serde::Serialize;
use shard_router::balance::bounds;
use shard_router::balance::measure::Loads;
use shard_router::balance::plan::{Bounds, Facts, Floors, Move, plan};
use shard_router::operator::{Operator, Outlook};
use std::time::Duration;
use tokio::time::Instant;

/// How often loads are looked at before a plan, and how long between two looks: the windows that nodes tell.
const LOOKS: u32 = 3;
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long is waited for replicas and leaders.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often is looked how far they are.
const WATCH_EVERY: Duration = Duration::from_millis(500);

const EXAMPLES: &str = "\
Examples:
  cairn admin balance --dry-run                       what would move where, how many bytes, how long
  cairn admin balance                                 one round, watched until it is done
  cairn admin balance --tenants 100 --dry-run         a larger round
  cairn admin setting set balance.enabled true --reason 'let it do so by itself'

Tenants move whole, within their pod. Nodes that are drained get nothing. Nothing moves where all is even within a fifth.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Balance {
    /// Show what would be moved, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not wait: the cluster goes on by itself.
    #[arg(long)]
    no_wait: bool,
    /// Most tenants that are moved.
    #[arg(long, default_value_t = Bounds::default().tenants, value_name = "N")]
    tenants: usize,
}

/// A plan, as it is printed.
#[derive(Debug, Serialize)]
struct Planned {
    dry_run: bool,
    moves: Vec<Row>,
    bytes: u64,
    total_ms: u64,
}

#[derive(Debug, Serialize)]
struct Row {
    what: &'static str,
    name: String,
    from: String,
    to: String,
    bytes: u64,
    expected_ms: u64,
    pause_ms: f64,
}

impl Show for Planned {
    fn columns(&self) -> Vec<&'static str> {
        vec!["WHAT", "WHICH", "FROM", "TO", "COPIES", "TAKES", "PAUSE"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |row: &Row| {
            let pause = if row.pause_ms > 0.0 { format!("{:.1} ms", row.pause_ms) } else { "-".to_owned() };
            vec![row.what.to_owned(), row.name.clone(), row.from.clone(), row.to.clone(), size(row.bytes), duration(row.expected_ms), pause]
        };
        self.moves.iter().map(row).collect()
    }

    fn empty(&self) -> &'static str {
        "all is even: nothing would move"
    }
}

impl Balance {
    pub(super) async fn run(self, session: &Session, output: Output) -> Result<(), Failure> {
        let operator = session.operator();
        let facts = facts(&operator).await?;
        let moves = plan(&facts, &Floors::default(), &Bounds { tenants: self.tenants, ..bounds(&facts) });
        let shown = show(&operator, &facts, &moves, self.dry_run).await?;
        if self.dry_run || moves.is_empty() {
            return output.show(&shown);
        }
        output::note(&format!("to expect: {} copied, in about {}", size(shown.bytes), duration(shown.total_ms)));
        let mut changes = Vec::new();
        for planned in &moves {
            match operator.carry_out(planned).await {
                Ok(ordered) => changes.extend(ordered),
                Err(error) => output::note(&format!("{planned:?} could not be asked for: {error}")),
            }
        }
        if !self.no_wait {
            output::note("the cluster does it by itself: Ctrl-C ends the watching, not the work");
            watch(&operator, &changes).await?;
        }
        output.show(&shown)
    }
}

async fn facts(operator: &Operator) -> Result<Facts, Failure> {
    let mut loads = Loads::default();
    loop {
        let members = operator.membership().await?;
        loads.look(&members.statuses);
        if loads.looks() >= LOOKS {
            return Ok(operator.facts(&members, &loads).await?);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn show(operator: &Operator, facts: &Facts, moves: &[Move], dry_run: bool) -> Result<Planned, Failure> {
    let outlook = operator.outlook(None).await?;
    let rows: Vec<Row> = moves.iter().map(|planned| row(facts, planned, &outlook)).collect();
    let bytes = rows.iter().map(|row| row.bytes).sum();
    Ok(Planned { dry_run, total_ms: rows.iter().map(|row| row.expected_ms).sum(), moves: rows, bytes })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "bytes of a shard or a group, which are no fractions and not negative"
)]
fn row(facts: &Facts, planned: &Move, outlook: &Outlook) -> Row {
    match planned {
        Move::Tenant { tenant_id, from, to } => {
            let tenant = facts.tenants.iter().find(|tenant| tenant.record.tenant_id == *tenant_id);
            let cost = outlook.of_move(tenant.map_or(0, |tenant| tenant.bytes as u64));
            let from = from.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            let pause_ms = cost.pause_micros as f64 / 1000.0;
            let (from, to) = (format!("group {from}"), format!("group {to}"));
            let name = tenant.map_or_else(|| format!("#{tenant_id}"), |tenant| tenant.record.name.clone());
            Row { what: "tenant", name, from, to, bytes: cost.bytes, expected_ms: cost.total_ms, pause_ms }
        }
        Move::Replica { group_id, from, to } => {
            let bytes = facts.groups.iter().find(|group| group.record.group_id == *group_id).map_or(0, |group| group.bytes as u64);
            let expected_ms = bytes.saturating_mul(1000) / outlook.rate() + 1000;
            let (from, to) = (format!("node {from}"), format!("node {to}"));
            Row { what: "replica", name: format!("group {group_id}"), from, to, bytes, expected_ms, pause_ms: 0.0 }
        }
        Move::Leader { group_id, from, to } => {
            let (from, to) = (format!("node {from}"), format!("node {to}"));
            Row { what: "leader", name: format!("group {group_id}"), from, to, bytes: 0, expected_ms: 100, pause_ms: 0.0 }
        }
    }
}

/// Until tenants and replicas are where they shall be.
async fn watch(operator: &Operator, changes: &[ShardChangeRecord]) -> Result<(), Failure> {
    if !changes.is_empty() {
        watch_changes(operator, changes).await?;
    }
    let until = Instant::now() + PATIENCE;
    loop {
        let left = operator.membership().await?.relocations().len();
        if left == 0 {
            return Ok(());
        }
        if Instant::now() >= until {
            let failure = Failure::new(Code::Unavailable, format!("{left} groups are still on their way; the cluster goes on"));
            return Err(failure.hint("`cairn admin group list` shows how far it is"));
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}
