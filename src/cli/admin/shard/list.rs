//! `cairn admin shard list`.

use super::find::{Names, Tenant, end, start};
use crate::cli::admin::kv::escape;
use crate::cli::connection::Session;
use crate::failure::{Code, Failure};
use crate::output::{self, Output, Show, size};
use clap::Args;
use futures::StreamExt as _;
use metadb_proto::v1::shard_status::State;
use metadb_proto::v1::{ShardChangeRecord, ShardRange, ShardRecord, ShardStatus};
use serde::Serialize;
use shard_router::operator::{Measure, Operator, range_of};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a group may take to tell how large its shards are: one that does not is left out.
const MEASURE_WITHIN: Duration = Duration::from_secs(5);
/// Groups that are asked at the same time.
const GROUPS_AT_ONCE: usize = 16;

#[derive(Debug, Args)]
pub(super) struct List {
    /// Whose shards; without it, of all tenants.
    #[arg(long, conflicts_with = "group")]
    tenant: Option<String>,
    /// Those of this group, as its own log has them: also those that arrive, and marks of where others went.
    #[arg(long)]
    group: Option<u32>,
    /// Most shards listed.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

#[derive(Debug, Serialize)]
struct Row {
    tenant: String,
    tenant_id: u64,
    start: String,
    end: String,
    group: u32,
    epoch: u64,
    /// As the group's log says; unknown if it did not answer.
    state: String,
    /// About; absent if the group did not answer.
    bytes: Option<u64>,
    rows: Option<u64>,
    /// What is being done to it.
    change: Option<u64>,
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Rows(Vec<Row>);

impl Show for Rows {
    fn columns(&self) -> Vec<&'static str> {
        vec!["TENANT", "START", "END", "GROUP", "EPOCH", "STATE", "BYTES", "ROWS", "CHANGE"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |row: &Row| {
            vec![
                row.tenant.clone(),
                if row.start.is_empty() { start(&[]) } else { row.start.clone() },
                if row.end.is_empty() { end(&[]) } else { row.end.clone() },
                row.group.to_string(),
                row.epoch.to_string(),
                row.state.clone(),
                row.bytes.map_or_else(|| "?".to_owned(), size),
                row.rows.map_or_else(|| "?".to_owned(), |rows| rows.to_string()),
                row.change.map_or_else(String::new, |change| change.to_string()),
            ]
        };
        self.0.iter().map(row).collect()
    }

    fn empty(&self) -> &'static str {
        "no shards"
    }
}

/// What a group says of a shard, in words.
pub(super) fn state(status: &ShardStatus) -> String {
    match status.state() {
        State::Owned => "owned".to_owned(),
        State::Fenced => format!("fenced, goes to group {}", status.other_group_id),
        State::Expected => format!("arrives from group {}", status.other_group_id),
        State::Dropped if status.other_group_id == 0 => "dropped".to_owned(),
        State::Dropped => format!("went to group {}", status.other_group_id),
        State::Unspecified => "unknown".to_owned(),
    }
}

impl List {
    pub(super) async fn run(self, session: &Session, output: Output) -> Result<(), Failure> {
        let operator = session.operator();
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let mut rows = match (&self.tenant, self.group) {
            (_, Some(group)) => of_group(&operator, group).await?,
            (Some(name), None) => {
                let tenant = Tenant::find(&operator, name).await?;
                of_directory(&operator, first(tenant.shards.clone(), limit), Some(tenant.id), &tenant.names()).await?
            }
            (None, None) => {
                let shards = operator.every_shard(limit.saturating_add(1)).await?;
                of_directory(&operator, first(shards, limit), None, &Names::all(&operator).await?).await?
            }
        };
        if rows.len() > limit {
            rows = first(rows, limit);
        }
        output.show(&Rows(rows))
    }
}

/// No more than so many, and says so.
fn first<T>(mut all: Vec<T>, limit: usize) -> Vec<T> {
    if all.len() > limit {
        output::note(&format!("the first {limit} only: --limit shows more, --tenant and --group others"));
        all.truncate(limit);
    }
    all
}

async fn of_group(operator: &Operator, group: u32) -> Result<Vec<Row>, Failure> {
    if !operator.groups().await?.iter().any(|record| record.group_id == group) {
        return Err(Failure::new(Code::NotFound, format!("there is no group {group}")).hint("`cairn admin group list` shows the groups"));
    }
    let names = Names::all(operator).await?;
    let changes = operator.changes(None).await?;
    let shards = operator.shards_of_group(group, MEASURE_WITHIN).await?;
    let row = |status: ShardStatus| {
        let range = status.range.clone().unwrap_or_default();
        Row {
            tenant: names.of(range.tenant_id),
            tenant_id: range.tenant_id,
            start: escape(&range.start),
            end: escape(&range.end),
            group,
            epoch: status.epoch,
            state: state(&status),
            bytes: Some(status.bytes),
            rows: Some(status.rows),
            change: change_of(&changes, &range),
        }
    };
    Ok(shards.into_iter().map(row).collect())
}

async fn of_directory(operator: &Operator, shards: Vec<ShardRecord>, tenant: Option<u64>, names: &Names) -> Result<Vec<Row>, Failure> {
    let changes = operator.changes(tenant).await?;
    let measured = measured(operator, &shards).await;
    let row = |shard: ShardRecord| {
        let range = range_of(&shard);
        let status = measured.get(&(shard.tenant_id, shard.start.clone())).filter(|status| status.range.as_ref() == Some(&range));
        Row {
            tenant: names.of(shard.tenant_id),
            tenant_id: shard.tenant_id,
            start: escape(&shard.start),
            end: escape(&shard.end),
            group: shard.group_id,
            epoch: shard.epoch,
            state: status.map_or_else(|| "unknown".to_owned(), state),
            bytes: status.map(|status| status.bytes),
            rows: status.map(|status| status.rows),
            change: change_of(&changes, &range),
        }
    };
    Ok(shards.into_iter().map(row).collect())
}

fn change_of(changes: &[ShardChangeRecord], range: &ShardRange) -> Option<u64> {
    let touches = |change: &&ShardChangeRecord| {
        let starts_before = range.end.is_empty() || change.start < range.end;
        change.tenant_id == range.tenant_id && starts_before && (change.end.is_empty() || range.start < change.end)
    };
    changes.iter().find(touches).map(|change| change.change_id)
}

/// What the groups say of shards, of those that answer; by tenant and start.
pub(super) async fn measured(operator: &Operator, shards: &[ShardRecord]) -> BTreeMap<(u64, bytes::Bytes), ShardStatus> {
    let mut by_group = BTreeMap::<u32, Vec<ShardRange>>::new();
    for shard in shards {
        by_group.entry(shard.group_id).or_default().push(range_of(shard));
    }
    let asked = by_group.into_iter().map(|(group, ranges)| async move {
        let found = operator.shards_in(group, &ranges, Measure::Sizes, MEASURE_WITHIN).await;
        if let Err(error) = &found {
            output::note(&format!("group {group} does not tell how large its shards are: {error}"));
        }
        found.unwrap_or_default()
    });
    let found: Vec<Vec<ShardStatus>> = futures::stream::iter(asked).buffer_unordered(GROUPS_AT_ONCE).collect().await;
    let keyed = |status: ShardStatus| status.range.clone().map(|range| ((range.tenant_id, range.start), status));
    found.into_iter().flatten().filter_map(keyed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_found_by_what_it_touches() {
        let range = |start: &'static str, end: &'static str| ShardRange { tenant_id: 7, start: start.into(), end: end.into() };
        let change = ShardChangeRecord { change_id: 4, tenant_id: 7, start: "g".into(), end: "p".into(), ..Default::default() };
        let found = |range: &ShardRange| change_of(std::slice::from_ref(&change), range);
        assert_eq!((found(&range("", "g")), found(&range("g", "h")), found(&range("k", ""))), (None, Some(4), Some(4)));
        assert_eq!((found(&range("p", "")), found(&ShardRange { tenant_id: 8, ..range("", "") })), (None, None));
    }

    #[test]
    fn what_a_group_says_is_told_in_words() {
        let told = |state: State, other_group_id| super::state(&ShardStatus { state: state.into(), other_group_id, ..Default::default() });
        assert_eq!(told(State::Fenced, 3), "fenced, goes to group 3");
        assert_eq!((told(State::Dropped, 0), told(State::Dropped, 3)), ("dropped".into(), "went to group 3".into()));
    }
}
