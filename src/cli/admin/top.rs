//! `cairn admin top`: who is busy, and with what: nodes, groups and the tenants that ask most, with rates.
//!
//! Every round asks each node for its status, as `cairn admin status` does; rates are differences between two rounds. The nodes count
//! tenants themselves, in windows of some seconds, so theirs are rates already.

use super::status;
use crate::cli::connection::Session;
use crate::failure::Failure;
use crate::output::{self, Format, Output, Show, size, table};
use clap::Args;
use metadb_proto::v1::{GroupStatus, Role, StatusResponse};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

const EXAMPLES: &str = "\
Examples:
  cairn admin top                              redrawn each second, until Ctrl-C
  cairn admin top --tenants 20 --every-ms 5000
  cairn admin top --once -o json | jq '.tenants[0]'";

/// The first lines of a terminal: the cursor to the upper left, and everything below cleared.
pub(super) const HOME: &str = "\u{1b}[H\u{1b}[J";
/// Another screen for as long as it runs, and back to the one before.
const ENTER: &str = "\u{1b}[?1049h\u{1b}[?25l";
const LEAVE: &str = "\u{1b}[?25h\u{1b}[?1049l";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Top {
    /// Print one round and end.
    #[arg(long)]
    once: bool,
    /// How many tenants to list.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=64))]
    tenants: u16,
    /// Time between two rounds, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    every_ms: u64,
}

/// What one round shows.
#[derive(Debug, Serialize)]
struct Frame {
    nodes: Vec<NodeRow>,
    groups: Vec<GroupRow>,
    tenants: Vec<TenantRow>,
}

#[derive(Debug, Serialize)]
struct NodeRow {
    node: u64,
    up: bool,
    requests_per_s: f64,
    cpu_percent: f64,
    resident_bytes: u64,
    leads: usize,
    replicas: usize,
    log_syncs_per_s: f64,
    log_bytes: u64,
    data_bytes: u64,
}

#[derive(Debug, Serialize)]
struct GroupRow {
    group: u32,
    leader: Option<u64>,
    entries_per_s: f64,
    /// Entries that the slowest replica lacks.
    lag: u64,
    /// Entries committed and not yet applied, at the leader.
    unapplied: u64,
    shards: u64,
}

#[derive(Debug, Serialize)]
struct TenantRow {
    tenant: String,
    tenant_id: u64,
    requests_per_s: f64,
    bytes_per_s: f64,
}

impl Show for Frame {
    fn columns(&self) -> Vec<&'static str> {
        vec!["NODE", "STATE", "REQ/S", "CPU", "RAM", "LEADS", "REPLICAS", "SYNCS/S", "LOG", "DATA"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |node: &NodeRow| {
            vec![
                node.node.to_string(),
                if node.up { "up".into() } else { "down".into() },
                rate(node.requests_per_s),
                format!("{:.0} %", node.cpu_percent),
                size(node.resident_bytes),
                node.leads.to_string(),
                node.replicas.to_string(),
                rate(node.log_syncs_per_s),
                size(node.log_bytes),
                size(node.data_bytes),
            ]
        };
        self.nodes.iter().map(row).collect()
    }
}

impl Frame {
    /// For a person: the nodes, then the groups, then the tenants.
    fn text(&self) -> String {
        let group = |group: &GroupRow| {
            vec![
                group.group.to_string(),
                group.leader.map_or("none".into(), |leader| format!("node {leader}")),
                rate(group.entries_per_s),
                group.lag.to_string(),
                group.unapplied.to_string(),
                group.shards.to_string(),
            ]
        };
        let tenant =
            |tenant: &TenantRow| vec![tenant.tenant.clone(), rate(tenant.requests_per_s), format!("{}/s", whole(tenant.bytes_per_s))];
        let nodes = table(&self.columns(), self.rows());
        let columns = ["GROUP", "LEADER", "ENTRIES/S", "LAG", "UNAPPLIED", "SHARDS"];
        let groups = table(&columns, self.groups.iter().map(group).collect());
        let tenants = if self.tenants.is_empty() {
            "nobody asked for anything in the last seconds".to_owned()
        } else {
            table(&["TENANT", "REQ/S", "BYTES"], self.tenants.iter().map(tenant).collect())
        };
        format!("{nodes}\n\n{groups}\n\n{tenants}")
    }
}

/// A rate in few digits.
pub(super) fn rate(per_second: f64) -> String {
    if per_second < 10.0 { format!("{per_second:.1}") } else { format!("{per_second:.0}") }
}

#[expect(clippy::cast_possible_truncation, reason = "bytes for people: casts of floats saturate")]
pub(super) fn whole(bytes: f64) -> String {
    size(bytes.max(0.0) as u64)
}

/// What each node of the directory said; none: it did not answer.
type Round = BTreeMap<u64, Option<StatusResponse>>;

async fn ask(session: &Session) -> Result<Round, Failure> {
    let asked = status::ask_all(session).await?;
    Ok(asked.into_iter().filter_map(|(record, answer)| Some((record.node?.node_id, answer.ok()))).collect())
}

impl Top {
    pub(super) async fn run(self, session: &Session, output: Output) -> Result<(), Failure> {
        let tenants = session.operator().tenants().await?;
        let names: BTreeMap<u64, String> = tenants.into_iter().map(|tenant| (tenant.tenant_id, tenant.name)).collect();
        let every = Duration::from_millis(self.every_ms);
        let (mut before, mut asked_at) = (ask(session).await?, Instant::now());
        let live = !self.once && output.format == Format::Table;
        let _screen = live.then(Screen::enter).transpose()?;
        loop {
            tokio::select! {
                biased;
                _ = tokio::signal::ctrl_c() => return Ok(()),
                () = tokio::time::sleep_until(asked_at + every) => {}
            }
            let now = ask(session).await?;
            let frame = frame(&before, &now, asked_at.elapsed(), &names, self.tenants.into());
            (before, asked_at) = (now, Instant::now());
            match output.format {
                Format::Table if live => output::bytes(format!("{HOME}{}\n", frame.text()).as_bytes())?,
                Format::Table => output::line(&frame.text())?,
                Format::Json | Format::Yaml => output.show(&frame)?,
            }
            if self.once {
                return Ok(());
            }
        }
    }
}

/// A screen of its own, given back at the end.
pub(super) struct Screen;

impl Screen {
    pub(super) fn enter() -> Result<Self, Failure> {
        output::bytes(ENTER.as_bytes()).map(|()| Screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // There is nobody left to tell if this fails.
        let _ = output::bytes(LEAVE.as_bytes());
    }
}

fn frame(before: &Round, now: &Round, took: Duration, names: &BTreeMap<u64, String>, tenants: usize) -> Frame {
    let seconds = took.as_secs_f64().max(0.001);
    let node =
        |(id, status): (&u64, &Option<StatusResponse>)| node_row(*id, before.get(id).and_then(Option::as_ref), status.as_ref(), seconds);
    Frame { nodes: now.iter().map(node).collect(), groups: group_rows(before, now, seconds), tenants: tenant_rows(now, names, tenants) }
}

fn node_row(node: u64, before: Option<&StatusResponse>, now: Option<&StatusResponse>, seconds: f64) -> NodeRow {
    // A node that was started anew counts from 0 again: then there is no difference to tell.
    let per_second = |number: fn(&StatusResponse) -> u64| match (before, now) {
        (Some(before), Some(now)) if now.uptime_ms >= before.uptime_ms => number(now).saturating_sub(number(before)) as f64 / seconds,
        _ => 0.0,
    };
    let of = |number: fn(&StatusResponse) -> u64| now.map_or(0, number);
    NodeRow {
        node,
        up: now.is_some(),
        requests_per_s: per_second(|status| status.requests),
        cpu_percent: per_second(|status| status.cpu_ms) / 10.0,
        resident_bytes: of(|status| status.resident_bytes),
        leads: now.map_or(0, |status| status.groups.iter().filter(|group| group.role() == Role::Leader).count()),
        replicas: now.map_or(0, |status| status.groups.len()),
        log_syncs_per_s: per_second(|status| status.log_syncs),
        log_bytes: of(|status| status.log_bytes),
        data_bytes: of(|status| status.data_bytes),
    }
}

/// The replicas of every group.
fn replicas(round: &Round) -> BTreeMap<u32, Vec<(u64, &GroupStatus)>> {
    let mut groups: BTreeMap<u32, Vec<(u64, &GroupStatus)>> = BTreeMap::new();
    for (node, status) in round {
        for group in status.iter().flat_map(|status| &status.groups) {
            groups.entry(group.group_id).or_default().push((*node, group));
        }
    }
    groups
}

fn group_rows(before: &Round, now: &Round, seconds: f64) -> Vec<GroupRow> {
    let earlier = replicas(before);
    let committed = |replicas: &[(u64, &GroupStatus)]| replicas.iter().map(|(_, replica)| replica.committed_index).max().unwrap_or(0);
    let row = |(group, replicas): (u32, Vec<(u64, &GroupStatus)>)| {
        let leader = replicas.iter().filter(|(_, replica)| replica.role() == Role::Leader).max_by_key(|(_, replica)| replica.term);
        let was = earlier.get(&group).map_or(0, |replicas| committed(replicas));
        let slowest = replicas.iter().map(|(_, replica)| replica.last_log_index).min().unwrap_or(0);
        GroupRow {
            group,
            leader: leader.map(|(node, _)| *node),
            entries_per_s: if was == 0 { 0.0 } else { committed(&replicas).saturating_sub(was) as f64 / seconds },
            lag: leader.map_or(0, |(_, replica)| replica.last_log_index.saturating_sub(slowest)),
            unapplied: leader.map_or(0, |(_, replica)| replica.committed_index.saturating_sub(replica.applied_index)),
            shards: leader.map_or(0, |(_, replica)| replica.shards),
        }
    };
    replicas(now).into_iter().map(row).collect()
}

/// The busiest tenants of all nodes together.
fn tenant_rows(now: &Round, names: &BTreeMap<u64, String>, most: usize) -> Vec<TenantRow> {
    let mut loads: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
    for status in now.values().flatten() {
        let seconds = f64::from(status.busiest_window_ms.max(1)) / 1000.0;
        for load in &status.busiest_tenants {
            let sum = loads.entry(load.tenant_id).or_default();
            sum.0 += load.requests as f64 / seconds;
            sum.1 += load.bytes as f64 / seconds;
        }
    }
    let name = |id: u64| match id {
        metadb_proto::directory::DIRECTORY_TENANT => "(directory)".to_owned(),
        id => names.get(&id).cloned().unwrap_or_else(|| format!("#{id}")),
    };
    let row = |(tenant_id, (requests_per_s, bytes_per_s))| TenantRow { tenant: name(tenant_id), tenant_id, requests_per_s, bytes_per_s };
    let mut rows: Vec<TenantRow> = loads.into_iter().map(row).collect();
    rows.sort_by(|a, b| b.requests_per_s.total_cmp(&a.requests_per_s));
    rows.truncate(most);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use metadb_proto::v1::TenantLoad;

    fn status(requests: u64, committed: u64, role: Role) -> StatusResponse {
        let group = GroupStatus {
            group_id: 1,
            role: role.into(),
            term: 2,
            last_log_index: committed,
            committed_index: committed,
            applied_index: committed,
            shards: 3,
            ..Default::default()
        };
        let load = TenantLoad { tenant_id: 7, requests: 50, bytes: 5000, error: 0 };
        StatusResponse { requests, groups: vec![group], busiest_tenants: vec![load], busiest_window_ms: 5000, ..Default::default() }
    }

    #[test]
    fn rates_are_differences_and_tenants_are_summed_over_nodes() {
        let before = Round::from([(1, Some(status(100, 10, Role::Leader))), (2, Some(status(0, 10, Role::Follower)))]);
        let now = Round::from([(1, Some(status(300, 50, Role::Leader))), (2, Some(status(0, 48, Role::Follower))), (3, None)]);
        let frame = frame(&before, &now, Duration::from_secs(2), &BTreeMap::from([(7, "acme".to_owned())]), 10);
        assert!((frame.nodes[0].requests_per_s - 100.0).abs() < 1e-9 && !frame.nodes[2].up);
        let group = &frame.groups[0];
        assert_eq!((group.leader, group.lag, group.shards), (Some(1), 2, 3));
        assert!((group.entries_per_s - 20.0).abs() < 1e-9);
        assert_eq!((frame.tenants.len(), frame.tenants[0].tenant.as_str()), (1, "acme"));
        assert!((frame.tenants[0].requests_per_s - 20.0).abs() < 1e-9 && (frame.tenants[0].bytes_per_s - 2000.0).abs() < 1e-9);
        let text = frame.text();
        assert!(text.contains("node 1") && text.contains("acme") && text.contains("2.00 kB/s"), "{text}");
    }
}
