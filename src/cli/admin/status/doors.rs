//! What waits at the nodes' doors, and what operators have switched off there.

use metadb_proto::settings::Scope;
use metadb_proto::settings::registry::TENANT_ACCESS;
use metadb_proto::v1::{SettingRecord, StatusResponse};
use serde::Serialize;
use shard_router::operator::NodeView;

/// A tenant at a door.
#[derive(Debug, Serialize)]
pub(super) struct Waiting {
    pub(super) node: u64,
    pub(super) group: u32,
    pub(super) lane: &'static str,
    pub(super) tenant_id: u64,
    pub(super) requests: u64,
    pub(super) bytes: u64,
    pub(super) tripped: bool,
    pub(super) waited_total: u64,
    pub(super) refused_total: u64,
}

/// All of them, of the nodes that answer.
pub(super) fn waiting(nodes: &[NodeView]) -> Vec<Waiting> {
    nodes.iter().filter_map(|node| node.status.as_ref().ok()).flat_map(of_node).collect()
}

/// Those that wait now, for people.
pub(super) fn lines(waiting: &[Waiting]) -> Vec<String> {
    let line = |at: &Waiting| {
        let Waiting { node, group, lane, tenant_id, requests, refused_total, .. } = at;
        let tripped = if at.tripped { ", and more are refused" } else { "" };
        format!("tenant {tenant_id}: {requests} {lane} wait for group {group} on node {node}{tripped} ({refused_total} refused so far)")
    };
    waiting.iter().filter(|at| at.requests > 0 || at.tripped).map(line).collect()
}

fn of_node(status: &StatusResponse) -> Vec<Waiting> {
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

/// What operators have switched off, with their reasons.
pub(super) fn switched_off(settings: &[SettingRecord]) -> Vec<String> {
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
