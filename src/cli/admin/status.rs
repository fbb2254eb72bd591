//! `cairn admin status`: who answers, what the directory knows, what each node says of itself, and what is wrong.
//!
//! It never waits long: every endpoint is asked at once, with a short deadline, and a directory that does not answer is itself a finding.

mod doors;
mod gather;
mod problems;

use crate::cli::connection::Session;
use crate::failure::{Code, Failure};
use crate::output::{self, Format, Output, Show, size};
use clap::Args;
use doors::Waiting;
use gather::{Endpoint, Gathered};
use metadb_proto::v1::{Role, StatusResponse, node_record};
use problems::Problem;
use serde::Serialize;
use shard_router::operator::{ClusterStatus, NodeView};
use std::collections::BTreeMap;

const EXAMPLES: &str = "\
Examples:
  cairn admin status
  cairn admin status -o json | jq '.problems[] | .message'
  cairn admin status --exit-zero -o json | jq '.nodes[] | select(.up | not)'

Exit code: 0 when all is well, 8 when anything is listed under problems (0 with --exit-zero), 5 when no endpoint
answers, 7 when those that answer refuse the key.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Status {
    /// Exit with 0 also when there are problems.
    #[arg(long)]
    exit_zero: bool,
}

/// The cluster at a glance.
#[derive(Debug, Serialize)]
struct Overview {
    cluster_id: String,
    feature_level: u32,
    /// The endpoints that were given, and what each answered.
    endpoints: Vec<Endpoint>,
    nodes: Nodes,
    groups: usize,
    groups_without_leader: Vec<u32>,
    /// Absent when the directory does not answer.
    tenants: Option<usize>,
    problems: Vec<Problem>,
    /// Tenants that had to wait at a door, or were refused there.
    waiting: Vec<Waiting>,
    /// What operators have switched off.
    switched_off: Vec<String>,
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
    /// The newest feature level that its build knows.
    newest_level: u32,
    uptime_s: u64,
    replicas: usize,
    leads: usize,
    shards: u64,
    log_bytes: u64,
    data_bytes: u64,
    settings_revision: u64,
    labels: BTreeMap<String, String>,
    /// Whether it holds replicas, hands them over, or was removed.
    membership: &'static str,
    /// While it is drained: of leaders only.
    keeps_replicas: bool,
    /// Why it leaves or is drained.
    reason: String,
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
                match (node.membership, node.up) {
                    ("active", true) => "up".to_owned(),
                    ("active", false) => "down".to_owned(),
                    ("leaving", true) => "up, leaving".to_owned(),
                    ("leaving", false) => "down, leaving".to_owned(),
                    ("draining", true) => "up, drained".to_owned(),
                    ("draining", false) => "down, drained".to_owned(),
                    (other, _) => other.to_owned(),
                },
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
        let gathered = gather::gather(session).await?;
        let problems = problems::of(&gathered);
        let Gathered { endpoints, cluster, tenants, settings, .. } = gathered;
        let overview = Overview {
            cluster_id: cluster.cluster.cluster_id.clone(),
            feature_level: cluster.cluster.feature_level.max(1),
            endpoints,
            groups: cluster.groups.len(),
            groups_without_leader: cluster.groups.iter().filter(|g| g.leader.is_none()).map(|g| g.record.group_id).collect(),
            tenants,
            problems,
            waiting: doors::waiting(&cluster.nodes),
            switched_off: doors::switched_off(&settings),
            nodes: Nodes(cluster.nodes.iter().map(row).collect()),
        };
        output.show(&overview)?;
        if output.format == Format::Table {
            tell(&overview)?;
        }
        match overview.problems.len() {
            0 => Ok(()),
            _ if self.exit_zero => Ok(()),
            1 => Err(Failure::new(Code::Problems, "the cluster has a problem")),
            count => Err(Failure::new(Code::Problems, format!("the cluster has {count} problems"))),
        }
    }
}

fn tell(overview: &Overview) -> Result<(), Failure> {
    let Overview { cluster_id, feature_level, groups, .. } = overview;
    let tenants = match overview.tenants {
        Some(1) => "1 tenant".to_owned(),
        Some(tenants) => format!("{tenants} tenants"),
        None => "tenants not known".to_owned(),
    };
    output::line(&format!("\ncluster {cluster_id}: {groups} groups, {tenants}, feature level {feature_level}"))?;
    for node in overview.nodes.0.iter().filter(|node| node.up && node.membership == "leaving") {
        let contents = "copies of file contents on it stay where they are";
        output::line(&format!("node {} leaves ({}): {} replicas on it; {contents}", node.id, node.reason, node.replicas))?;
    }
    for node in overview.nodes.0.iter().filter(|node| node.membership == "draining") {
        let because = if node.reason.is_empty() { String::new() } else { format!(" ({})", node.reason) };
        let left = match (node.keeps_replicas, node.leads, node.replicas) {
            (true, 0, held) => format!("leads nothing and keeps {held} replicas"),
            (true, leads, _) => format!("still leads {leads} groups"),
            (false, 0, 0) => "holds nothing".to_owned(),
            (false, leads, held) => format!("still leads {leads} groups and holds {held} replicas"),
        };
        let left = if node.up { left } else { "does not answer".to_owned() };
        let back = format!("`cairn admin node undrain {}` ends it", node.id);
        output::line(&format!("node {} is drained{because}: it {left}; {back}", node.id))?;
    }
    overview.switched_off.iter().try_for_each(|off| output::line(off))?;
    doors::lines(&overview.waiting).iter().try_for_each(|line| output::line(line))?;
    overview.problems.iter().try_for_each(|problem| output::line(&problem.message))
}

/// The nodes, as `cairn admin node list` prints them.
pub(super) async fn nodes(session: &Session) -> Result<Nodes, Failure> {
    Ok(Nodes(gathered(session).await?.nodes.iter().map(row).collect()))
}

/// The cluster, as far as it answers.
pub(super) async fn gathered(session: &Session) -> Result<ClusterStatus, Failure> {
    Ok(gather::gather(session).await?.cluster)
}

fn row(view: &NodeView) -> NodeRow {
    let (record, status) = (&view.record, view.status.as_ref().ok());
    let node = record.node.clone().unwrap_or_default();
    let of = |number: fn(&StatusResponse) -> u64| status.map_or(0, number);
    let led = || status.into_iter().flat_map(|status| &status.groups).filter(|group| group.role() == Role::Leader);
    NodeRow {
        id: node.node_id,
        address: node.address,
        s3: record.doors.get("s3").cloned().unwrap_or_default(),
        up: status.is_some(),
        build: status.map_or_else(|| record.build.clone(), |status| status.build.clone()),
        newest_level: status.map_or(record.newest_level, |status| status.newest_level).max(1),
        uptime_s: of(|status| status.uptime_ms / 1000),
        replicas: status.map_or(0, |status| status.groups.len()),
        leads: led().count(),
        shards: led().map(|group| group.shards).sum(),
        log_bytes: of(|status| status.log_bytes),
        data_bytes: of(|status| status.data_bytes),
        settings_revision: of(|status| status.settings_revision),
        labels: record.labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        problem: view.status.as_ref().err().map(ToString::to_string).unwrap_or_default(),
        membership: match record.state() {
            node_record::State::Active => "active",
            node_record::State::Leaving => "leaving",
            node_record::State::Draining => "draining",
            node_record::State::Removed => "removed",
        },
        keeps_replicas: record.keeps_replicas,
        reason: record.reason.clone(),
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

/// Every node of the directory, and its own answer or why there is none.
pub(super) async fn ask_all(session: &Session) -> Result<Vec<(metadb_proto::v1::NodeRecord, Result<StatusResponse, String>)>, Failure> {
    let nodes = gathered(session).await?.nodes;
    Ok(nodes.into_iter().map(|node| (node.record, node.status.map_err(|error| error.to_string()))).collect())
}
