//! `cairn admin shard show`.

use super::find::{Named, Tenant, end, start};
use super::list::{measured, state};
use super::told::{Ended, Row, UnderWay};
use super::top::loads;
use crate::cli::admin::kv::escape;
use crate::cli::admin::{status, top};
use crate::cli::connection::Session;
use crate::failure::Failure;
use crate::output::{Output, Show, size, table};
use metadb_proto::v1::{Role, ShardChangeRecord, ShardRecord};
use serde::Serialize;

/// Changes that ended, of those shown.
const ENDED: usize = 5;

#[derive(Debug, Serialize)]
struct Shown {
    tenant: String,
    tenant_id: u64,
    start: String,
    end: String,
    group: u32,
    /// The node that leads the group.
    leader: Option<u64>,
    epoch: u64,
    /// What the group's own log says.
    state: String,
    bytes: Option<u64>,
    rows: Option<u64>,
    requests_per_s: f64,
    bytes_per_s: f64,
    changes: UnderWay,
    history: Ended,
}

impl Shown {
    fn text(&self) -> String {
        let unknown = || "unknown".to_owned();
        let facts = [
            ("tenant", format!("{} (#{})", self.tenant, self.tenant_id)),
            ("from", if self.start.is_empty() { start(&[]) } else { self.start.clone() }),
            ("to", if self.end.is_empty() { end(&[]) } else { self.end.clone() }),
            ("group", self.leader.map_or_else(|| self.group.to_string(), |leader| format!("{}, led by node {leader}", self.group))),
            ("state", format!("{}, at epoch {}", self.state, self.epoch)),
            ("bytes", self.bytes.map_or_else(unknown, |bytes| format!("about {}", size(bytes)))),
            ("rows", self.rows.map_or_else(unknown, |rows| format!("about {rows}, older versions among them"))),
            ("load", format!("{} requests/s, {}/s", top::rate(self.requests_per_s), top::whole(self.bytes_per_s))),
        ];
        let mut text: String = facts.iter().map(|(name, fact)| format!("{name:<8}{fact}\n")).collect();
        let mut section = |title: &str, rows: Vec<Vec<String>>, columns: &[&str]| {
            if !rows.is_empty() {
                text.push_str(&format!("\n{title}\n{}\n", table(columns, rows)));
            }
        };
        section("under way", self.changes.rows(), &self.changes.columns());
        section("ended", self.history.rows(), &self.history.columns());
        text.trim_end().to_owned()
    }
}

/// Shows a shard.
pub(super) async fn show(session: &Session, output: Output, named: &Named) -> Result<(), Failure> {
    let operator = session.operator();
    let tenant = Tenant::find(&operator, &named.tenant).await?;
    let (shard, names) = (tenant.shard(&named.key)?, tenant.names());
    let found = measured(&operator, std::slice::from_ref(shard)).await;
    let found = found.get(&(tenant.id, shard.start.clone()));
    let statuses: Vec<_> = status::ask_all(session).await?.into_iter().filter_map(|(_, answer)| answer.ok()).collect();
    let leads = |status: &&metadb_proto::v1::StatusResponse| {
        status.groups.iter().any(|group| group.group_id == shard.group_id && group.role() == Role::Leader)
    };
    let load = loads(&statuses).remove(&(tenant.id, shard.start.clone(), shard.group_id)).unwrap_or_default();
    let changes: Vec<ShardChangeRecord> =
        operator.changes(Some(tenant.id)).await?.into_iter().filter(|change| touches(change, shard)).collect();
    let history = operator.shard_history(tenant.id).await?;
    let ended = history.iter().filter(|ended| ended.change.as_ref().is_some_and(|change| touches(change, shard)));
    let shown = Shown {
        tenant: tenant.name.clone(),
        tenant_id: tenant.id,
        start: escape(&shard.start),
        end: escape(&shard.end),
        group: shard.group_id,
        leader: statuses.iter().find(leads).and_then(|status| status.node.as_ref()).map(|node| node.node_id),
        epoch: shard.epoch,
        state: found.map_or_else(|| "unknown".to_owned(), state),
        bytes: found.map(|found| found.bytes),
        rows: found.map(|found| found.rows),
        requests_per_s: load.requests_per_s,
        bytes_per_s: load.bytes_per_s,
        changes: UnderWay(changes.iter().map(|change| Row::of(change, &names)).collect()),
        history: Ended(ended.take(ENDED).map(|ended| Row::ended(ended, &names)).collect()),
    };
    output.done(&shown.text(), &shown)
}

fn touches(change: &ShardChangeRecord, shard: &ShardRecord) -> bool {
    let starts_before = shard.end.is_empty() || change.start < shard.end;
    starts_before && (change.end.is_empty() || shard.start < change.end)
}
