//! `cairn admin shard top`: the hottest and the largest shards.
//!
//! The nodes count the busiest shards themselves, in windows of some seconds; how large shards are is asked of the groups, more seldom.

use super::find::{Names, end, start};
use crate::cli::admin::kv::escape;
use crate::cli::admin::status;
use crate::cli::admin::top::{HOME, Screen, rate, whole};
use crate::cli::connection::Session;
use crate::failure::Failure;
use crate::output::{self, Format, Output, Show, size, table};
use bytes::Bytes;
use clap::Args;
use futures::StreamExt as _;
use metadb_proto::directory::DIRECTORY_TENANT;
use metadb_proto::v1::shard_status::State;
use metadb_proto::v1::{ShardStatus, StatusResponse};
use serde::Serialize;
use shard_router::operator::Operator;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// How often groups are asked how large their shards are, and how long one may take.
const MEASURE_EVERY: Duration = Duration::from_secs(10);
const MEASURE_WITHIN: Duration = Duration::from_secs(3);
/// Groups that are asked at the same time.
const GROUPS_AT_ONCE: usize = 8;

#[derive(Debug, Args)]
pub(super) struct Top {
    /// Print one round and end.
    #[arg(long)]
    once: bool,
    /// How many shards to list, of the hottest and of the largest each.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=64))]
    shards: u16,
    /// Time between two rounds, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    every_ms: u64,
}

#[derive(Debug, Serialize)]
struct BusyRow {
    tenant: String,
    tenant_id: u64,
    start: String,
    group: u32,
    requests_per_s: f64,
    bytes_per_s: f64,
}

#[derive(Debug, Serialize)]
struct LargeRow {
    tenant: String,
    tenant_id: u64,
    start: String,
    end: String,
    group: u32,
    bytes: u64,
    rows: u64,
}

#[derive(Debug, Serialize)]
struct Frame {
    busiest: Vec<BusyRow>,
    largest: Vec<LargeRow>,
}

impl Show for Frame {
    fn columns(&self) -> Vec<&'static str> {
        vec!["TENANT", "START", "GROUP", "REQ/S", "BYTES"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |row: &BusyRow| {
            let start = if row.start.is_empty() { start(&[]) } else { row.start.clone() };
            vec![row.tenant.clone(), start, row.group.to_string(), rate(row.requests_per_s), format!("{}/s", whole(row.bytes_per_s))]
        };
        self.busiest.iter().map(row).collect()
    }
}

impl Frame {
    /// For a person: the hottest, then the largest.
    fn text(&self) -> String {
        let large = |row: &LargeRow| {
            let start = if row.start.is_empty() { start(&[]) } else { row.start.clone() };
            let end = if row.end.is_empty() { end(&[]) } else { row.end.clone() };
            vec![row.tenant.clone(), start, end, row.group.to_string(), size(row.bytes), row.rows.to_string()]
        };
        let busiest = if self.busiest.is_empty() {
            "nobody asked for anything in the last seconds".to_owned()
        } else {
            table(&self.columns(), self.rows())
        };
        let largest = table(&["TENANT", "START", "END", "GROUP", "BYTES", "ROWS"], self.largest.iter().map(large).collect());
        format!("{busiest}\n\n{largest}")
    }
}

/// What is asked of a shard in a second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Load {
    pub(super) requests_per_s: f64,
    pub(super) bytes_per_s: f64,
}

/// The loads of shards, of all nodes together: by tenant, start and group.
pub(super) fn loads(statuses: &[StatusResponse]) -> BTreeMap<(u64, Bytes, u32), Load> {
    let mut loads: BTreeMap<(u64, Bytes, u32), Load> = BTreeMap::new();
    for status in statuses {
        let seconds = f64::from(status.busiest_window_ms.max(1)) / 1000.0;
        for load in &status.busiest_shards {
            let sum = loads.entry((load.tenant_id, load.start.clone(), load.group_id)).or_default();
            sum.requests_per_s += load.requests as f64 / seconds;
            sum.bytes_per_s += load.bytes as f64 / seconds;
        }
    }
    loads
}

fn busiest(statuses: &[StatusResponse], names: &Names, most: usize) -> Vec<BusyRow> {
    let row = |((tenant_id, start, group), load): ((u64, Bytes, u32), Load)| BusyRow {
        tenant: names.of(tenant_id),
        tenant_id,
        start: escape(&start),
        group,
        requests_per_s: load.requests_per_s,
        bytes_per_s: load.bytes_per_s,
    };
    let mut rows: Vec<BusyRow> = loads(statuses).into_iter().map(row).collect();
    rows.sort_by(|a, b| b.requests_per_s.total_cmp(&a.requests_per_s));
    rows.truncate(most);
    rows
}

fn largest(mut shards: Vec<(u32, ShardStatus)>, names: &Names, most: usize) -> Vec<LargeRow> {
    shards.retain(|(_, shard)| {
        matches!(shard.state(), State::Owned | State::Fenced)
            && shard.range.as_ref().is_some_and(|range| range.tenant_id != DIRECTORY_TENANT)
    });
    shards.sort_by_key(|(_, shard)| Reverse(shard.bytes));
    shards.truncate(most);
    let row = |(group, shard): (u32, ShardStatus)| {
        let range = shard.range.unwrap_or_default();
        LargeRow {
            tenant: names.of(range.tenant_id),
            tenant_id: range.tenant_id,
            start: escape(&range.start),
            end: escape(&range.end),
            group,
            bytes: shard.bytes,
            rows: shard.rows,
        }
    };
    shards.into_iter().map(row).collect()
}

/// The shards of all groups that answer.
async fn all(operator: &Operator) -> Result<Vec<(u32, ShardStatus)>, Failure> {
    let groups = operator.groups().await?;
    let asked = groups.iter().map(|group| async move {
        let shards = operator.shards_of_group(group.group_id, MEASURE_WITHIN).await.unwrap_or_default();
        shards.into_iter().map(|shard| (group.group_id, shard)).collect::<Vec<_>>()
    });
    let found: Vec<Vec<_>> = futures::stream::iter(asked).buffer_unordered(GROUPS_AT_ONCE).collect().await;
    Ok(found.into_iter().flatten().collect())
}

impl Top {
    pub(super) async fn run(self, session: &Session, output: Output) -> Result<(), Failure> {
        let operator = session.operator();
        let every = Duration::from_millis(self.every_ms);
        let live = !self.once && output.format == Format::Table;
        let _screen = live.then(Screen::enter).transpose()?;
        let most = usize::from(self.shards);
        let (mut names, mut large, mut measured) = (Names::all(&operator).await?, Vec::new(), None::<Instant>);
        loop {
            let asked_at = Instant::now();
            if measured.is_none_or(|at| at.elapsed() >= MEASURE_EVERY) {
                (large, names) = (all(&operator).await?, Names::all(&operator).await?);
                measured = Some(asked_at);
            }
            let statuses: Vec<StatusResponse> = status::ask_all(session).await?.into_iter().filter_map(|(_, answer)| answer.ok()).collect();
            let frame = Frame { busiest: busiest(&statuses, &names, most), largest: largest(large.clone(), &names, most) };
            match output.format {
                Format::Table if live => output::bytes(format!("{HOME}{}\n", frame.text()).as_bytes())?,
                Format::Table => output::line(&frame.text())?,
                Format::Json | Format::Yaml => output.show(&frame)?,
            }
            if self.once {
                return Ok(());
            }
            tokio::select! {
                biased;
                _ = tokio::signal::ctrl_c() => return Ok(()),
                () = tokio::time::sleep_until(asked_at + every) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metadb_proto::v1::{ShardLoad, ShardRange};

    #[test]
    fn loads_are_summed_over_nodes_and_the_hottest_comes_first() {
        let load =
            |start: &'static str, requests| ShardLoad { tenant_id: 7, start: start.into(), group_id: 1, requests, bytes: 100, error: 0 };
        let status = |loads: Vec<ShardLoad>| StatusResponse { busiest_shards: loads, busiest_window_ms: 5000, ..Default::default() };
        let rows = busiest(&[status(vec![load("a", 50)]), status(vec![load("b", 60), load("a", 40)])], &Names::default(), 1);
        assert_eq!((rows.len(), rows[0].start.as_str()), (1, "a"));
        assert!((rows[0].requests_per_s - 18.0).abs() < 1e-9 && (rows[0].bytes_per_s - 40.0).abs() < 1e-9, "{rows:?}");
    }

    #[test]
    fn the_largest_are_those_that_are_there_and_never_the_directory() {
        let shard = |tenant_id, bytes, state: State| {
            let range = Some(ShardRange { tenant_id, ..Default::default() });
            (3, ShardStatus { range, bytes, state: state.into(), ..Default::default() })
        };
        let shards =
            vec![shard(0, 900, State::Owned), shard(1, 10, State::Owned), shard(2, 20, State::Fenced), shard(3, 99, State::Dropped)];
        let rows = largest(shards, &Names::default(), 5);
        assert_eq!(rows.iter().map(|row| row.bytes).collect::<Vec<_>>(), [20, 10]);
        let text = Frame { busiest: Vec::new(), largest: rows }.text();
        assert!(text.contains("nobody asked") && text.contains("(begin)"), "{text}");
    }
}
