//! `cairn admin status`: what the directory knows, and what each node says of itself.

use crate::cli::connection::Session;
use crate::failure::Failure;
use crate::output::{self, Format, Output, Show, size};
use clap::Args;
use metadb_proto::settings::Scope;
use metadb_proto::settings::registry::TENANT_ACCESS;
use metadb_proto::v1::{NodeRecord, Role, SettingRecord, StatusResponse};
use serde::Serialize;
use std::collections::BTreeMap;

const EXAMPLES: &str = "\
Examples:
  cairn admin status
  cairn admin status -o json | jq '.nodes[] | select(.up | not)'";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Status {}

/// The cluster at a glance.
#[derive(Debug, Serialize)]
struct Overview {
    cluster_id: String,
    nodes: Nodes,
    groups: usize,
    groups_without_leader: Vec<u32>,
    tenants: usize,
    problems: Vec<String>,
    /// Tenants that had to wait at a door, or were refused there.
    waiting: Vec<Waiting>,
    /// What operators have switched off.
    switched_off: Vec<String>,
}

/// A tenant at a door.
#[derive(Debug, Serialize)]
struct Waiting {
    node: u64,
    group: u32,
    lane: &'static str,
    tenant_id: u64,
    requests: u64,
    bytes: u64,
    tripped: bool,
    waited_total: u64,
    refused_total: u64,
}

/// Nodes, as they are printed.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct Nodes(Vec<NodeRow>);

#[derive(Debug, Serialize)]
struct NodeRow {
    id: u64,
    address: String,
    s3: String,
    up: bool,
    build: String,
    uptime_s: u64,
    replicas: usize,
    leads: usize,
    shards: u64,
    log_bytes: u64,
    data_bytes: u64,
    settings_revision: u64,
    labels: BTreeMap<String, String>,
    /// Why it did not answer.
    problem: String,
}

impl Show for Nodes {
    fn columns(&self) -> Vec<&'static str> {
        vec!["NODE", "STATE", "GRPC", "S3", "REPLICAS", "LEADS", "LOG", "DATA", "UPTIME", "BUILD"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |node: &NodeRow| {
            let known = |text: String| if node.up { text } else { "-".to_owned() };
            vec![
                node.id.to_string(),
                if node.up { "up".into() } else { "down".to_owned() },
                node.address.clone(),
                node.s3.clone(),
                known(node.replicas.to_string()),
                known(node.leads.to_string()),
                known(size(node.log_bytes)),
                known(size(node.data_bytes)),
                known(duration(node.uptime_s)),
                node.build.clone(),
            ]
        };
        self.0.iter().map(row).collect()
    }
}

impl Show for Overview {
    fn columns(&self) -> Vec<&'static str> {
        self.nodes.columns()
    }

    fn rows(&self) -> Vec<Vec<String>> {
        self.nodes.rows()
    }
}

impl Status {
    pub(super) async fn run(self, session: &Session, output: Output) -> Result<(), Failure> {
        let operator = session.operator();
        let asked = ask_all(session).await?;
        let groups = operator.groups().await?;
        let led = |group: u32| asked.iter().any(|(_, answer)| answer.as_ref().is_ok_and(|status| leads(status, group)));
        let statuses = || asked.iter().filter_map(|(_, answer)| answer.as_ref().ok());
        let troubled = |status: &StatusResponse| {
            let node = status.node.as_ref().map_or(0, |node| node.node_id);
            let groups = status.groups.iter().filter(|group| !group.problem.is_empty());
            let groups = groups.map(move |group| format!("group {} on node {node}: {}", group.group_id, group.problem));
            let clock = Some(&status.clock_problem).filter(|problem| !problem.is_empty());
            let own = status.problems.iter().chain(clock).map(|problem| format!("node {node}: {problem}"));
            own.chain(groups).collect::<Vec<_>>()
        };
        let overview = Overview {
            cluster_id: statuses().next().map(|status| status.cluster_id.clone()).unwrap_or_default(),
            groups: groups.len(),
            groups_without_leader: groups.iter().map(|group| group.group_id).filter(|group| !led(*group)).collect(),
            tenants: operator.tenants().await?.len(),
            problems: statuses().flat_map(troubled).collect(),
            waiting: statuses().flat_map(waiting).collect(),
            switched_off: switched_off(&operator.settings().await?),
            nodes: Nodes(asked.iter().map(row).collect()),
        };
        output.show(&overview)?;
        if output.format == Format::Table {
            tell(&overview)?;
        }
        Ok(())
    }
}

fn tell(overview: &Overview) -> Result<(), Failure> {
    let Overview { cluster_id, groups, tenants, .. } = overview;
    output::line(&format!("\ncluster {cluster_id}: {groups} groups, {tenants} {}", if *tenants == 1 { "tenant" } else { "tenants" }))?;
    for node in overview.nodes.0.iter().filter(|node| !node.up) {
        output::line(&format!("node {} does not answer: {}", node.id, node.problem))?;
    }
    for group in &overview.groups_without_leader {
        output::line(&format!("group {group} has no leader: what it holds can't be used now"))?;
    }
    for off in &overview.switched_off {
        output::line(off)?;
    }
    for at in overview.waiting.iter().filter(|at| at.requests > 0 || at.tripped) {
        let Waiting { node, group, lane, tenant_id, requests, refused_total, .. } = at;
        let tripped = if at.tripped { ", and more are refused" } else { "" };
        output::line(&format!(
            "tenant {tenant_id}: {requests} {lane} wait for group {group} on node {node}{tripped} ({refused_total} refused so far)"
        ))?;
    }
    overview.problems.iter().try_for_each(|problem| output::line(problem))
}

fn waiting(status: &StatusResponse) -> Vec<Waiting> {
    let node = status.node.as_ref().map_or(0, |node| node.node_id);
    let lanes =
        status.groups.iter().flat_map(|group| [("reads", &group.reads), ("writes", &group.writes)].map(|lane| (group.group_id, lane)));
    let lines = lanes.flat_map(|(group, (lane, at))| at.iter().flat_map(|at| &at.tenants).map(move |line| (group, lane, line)));
    let told = lines.map(|(group, lane, line)| Waiting {
        node,
        group,
        lane,
        tenant_id: line.tenant_id,
        requests: line.waiting_requests,
        bytes: line.waiting_bytes,
        tripped: line.tripped,
        waited_total: line.waited_total,
        refused_total: line.refused_total,
    });
    told.collect()
}

fn switched_off(settings: &[SettingRecord]) -> Vec<String> {
    let is_off = |record: &&SettingRecord| {
        (record.name == TENANT_ACCESS.definition.name && record.value != "on")
            || (record.name.starts_with("service.") && record.value == "false")
    };
    let told = |record: &SettingRecord| {
        let scope = record.scope.as_ref().and_then(Scope::from_proto).map_or_else(|| "unknown".to_owned(), |scope| scope.to_string());
        format!("{} is {} for {scope}, set by {}: {}", record.name, record.value, record.set_by, record.reason)
    };
    settings.iter().filter(is_off).map(told).collect()
}

/// What the directory knows of each node, and its own answer.
type Asked = Vec<(NodeRecord, Result<StatusResponse, String>)>;

/// Asks every node of the directory for its status.
pub(super) async fn ask_all(session: &Session) -> Result<Asked, Failure> {
    let nodes = session.operator().nodes().await?;
    let asked = nodes.into_iter().map(|node| async move {
        let address = node.node.as_ref().map(|node| node.address.clone()).unwrap_or_default();
        let answer = jepsen::status::ask(&address, &session.token).await.map_err(|error| error.to_string());
        (node, answer)
    });
    Ok(futures::future::join_all(asked).await)
}

/// The nodes, as `cairn admin node list` prints them.
pub(super) async fn nodes(session: &Session) -> Result<Nodes, Failure> {
    Ok(Nodes(ask_all(session).await?.iter().map(row).collect()))
}

fn leads(status: &StatusResponse, group: u32) -> bool {
    status.groups.iter().any(|g| g.group_id == group && g.role() == Role::Leader)
}

fn row((record, answer): &(NodeRecord, Result<StatusResponse, String>)) -> NodeRow {
    let node = record.node.clone().unwrap_or_default();
    let status = answer.as_ref().ok();
    let of = |number: fn(&StatusResponse) -> u64| status.map_or(0, number);
    NodeRow {
        id: node.node_id,
        address: node.address,
        s3: record.doors.get("s3").cloned().unwrap_or_default(),
        up: status.is_some(),
        build: status.map_or_else(|| record.build.clone(), |status| status.build.clone()),
        uptime_s: of(|status| status.uptime_ms / 1000),
        replicas: status.map_or(0, |status| status.groups.len()),
        leads: status.map_or(0, |status| status.groups.iter().filter(|group| group.role() == Role::Leader).count()),
        shards: of(|status| status.groups.iter().filter(|group| group.role() == Role::Leader).map(|group| group.shards).sum()),
        log_bytes: of(|status| status.log_bytes),
        data_bytes: of(|status| status.data_bytes),
        settings_revision: of(|status| status.settings_revision),
        labels: record.labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        problem: answer.as_ref().err().cloned().unwrap_or_default(),
    }
}

/// Seconds for people: 3h 12m.
fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3600 % 24),
    }
}
