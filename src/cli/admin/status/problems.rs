//! What is wrong with a cluster, as a person would say it: a pure function of what was gathered.

use super::gather::Gathered;
use metadb_proto::v1::{NodeRef, Role, Room, StatusResponse, node_record};
use serde::Serialize;
use shard_router::operator::{GroupView, NodeView};

/// A replica this many entries behind its leader is told: a healthy one is behind by what is in flight.
const LAG_ENTRIES: u64 = 10_000;

/// Something that an operator should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Problem {
    /// Which of the few things that are looked for.
    pub(super) kind: Kind,
    /// The node meant, if one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) node: Option<u64>,
    /// The group meant, if one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) group: Option<u32>,
    /// The whole of it, for people.
    pub(super) message: String,
}

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// An endpoint that was given does not answer.
    EndpointSilent,
    /// The directory does not answer.
    DirectoryUnavailable,
    /// A node does not answer.
    NodeDown,
    /// A node has too little room on a disk.
    DiskFull,
    /// A node's clock is wrong.
    Clock,
    /// Something else that a node says of itself.
    Node,
    /// Too few replicas of a group answer to agree on anything.
    NoQuorum,
    /// A group has no leader.
    NoLeader,
    /// A replica stopped.
    ReplicaFailed,
    /// A node that should have a replica does not have it.
    ReplicaMissing,
    /// Replicas differ, and no state is that of a majority.
    ReplicasDiffer,
    /// A replica is far behind.
    ReplicaLags,
}

/// What is wrong, the gravest of each kind in the order of [`Kind`].
pub(super) fn of(gathered: &Gathered) -> Vec<Problem> {
    let problem = |kind, node, group, message| Problem { kind, node, group, message };
    let mut problems = Vec::new();
    let known_down = |address: &str| {
        let nodes = gathered.cluster.nodes.iter();
        nodes.filter(|node| node.status.is_err()).filter_map(|node| node.record.node.as_ref()).any(|node| node.address == address)
    };
    for endpoint in gathered.endpoints.iter().filter(|endpoint| !endpoint.answers && !known_down(&endpoint.address)) {
        problems.push(problem(
            Kind::EndpointSilent,
            None,
            None,
            format!("endpoint {} does not answer: {}", endpoint.address, endpoint.problem),
        ));
    }
    if let Some(why) = &gathered.directory {
        let message = format!("the directory does not answer: {why}; what follows is what the nodes know of each other");
        problems.push(problem(Kind::DirectoryUnavailable, None, Some(0), message));
    }
    for node in gathered.cluster.nodes.iter().filter(|node| node.record.state() != node_record::State::Removed) {
        let this = node.record.node.clone().unwrap_or_default();
        match &node.status {
            Err(error) => {
                let message = format!("node {} at {} does not answer: {error}", this.node_id, this.address);
                problems.push(problem(Kind::NodeDown, Some(this.node_id), None, message));
            }
            Ok(status) => problems.extend(of_node(&this, status)),
        }
    }
    let answering: Vec<u64> = gathered.cluster.nodes.iter().filter(|node| node.status.is_ok()).map(node_id).collect();
    gathered.cluster.groups.iter().for_each(|group| problems.extend(of_group(group, &answering)));
    problems
}

/// What a node says of itself.
fn of_node(node: &NodeRef, status: &StatusResponse) -> Vec<Problem> {
    let is_full = status.disk.as_ref().is_some_and(|disk| matches!(disk.room(), Room::Low | Room::Out));
    let own = if is_full { Kind::DiskFull } else { Kind::Node };
    let clock = Some(&status.clock_problem).filter(|why| !why.is_empty()).map(|why| (Kind::Clock, why));
    let told = status.problems.iter().map(|why| (own, why)).chain(clock);
    let problem = |(kind, why)| Problem { kind, node: Some(node.node_id), group: None, message: format!("node {}: {why}", node.node_id) };
    told.map(problem).collect()
}

fn node_id(view: &NodeView) -> u64 {
    view.record.node.as_ref().map_or(0, |node| node.node_id)
}

/// `answering`: the nodes that do.
fn of_group(group: &GroupView, answering: &[u64]) -> Vec<Problem> {
    let id = group.record.group_id;
    let problem = |kind, node, message| Problem { kind, node, group: Some(id), message };
    let well = |node: &NodeRef| group.replicas.iter().any(|r| r.node.node_id == node.node_id && r.status.role() != Role::Failed);
    let leader = group.leader.as_ref().and_then(|leader| group.replicas.iter().find(|replica| replica.node.node_id == leader.node_id));
    // Its leader knows the voters best; a directory may lag.
    let voters = leader.map_or(&group.record.voters, |leader| &leader.status.voters);
    let alive = voters.iter().filter(|voter| well(voter)).count();
    let mut problems = Vec::new();
    if !voters.is_empty() && alive <= voters.len() / 2 {
        let message = format!("group {id} has no quorum: {alive} of {} voters answer; what it holds can't be used now", voters.len());
        problems.push(problem(Kind::NoQuorum, None, message));
    } else if leader.is_none() {
        problems.push(problem(Kind::NoLeader, None, format!("group {id} has no leader: what it holds can't be used now")));
    }
    let undecided = leader.and_then(|leader| leader.status.comparison.as_ref()).map(|comparison| &comparison.undecided);
    if let Some(why) = undecided.filter(|why| !why.is_empty()) {
        problems.push(problem(Kind::ReplicasDiffer, None, format!("group {id}: {why}; nothing is rebuilt by itself")));
    }
    let has = |id: u64| group.replicas.iter().any(|replica| replica.node.node_id == id);
    for voter in voters.iter().map(|voter| voter.node_id).filter(|id| answering.contains(id) && !has(*id)) {
        let message = format!("group {id} has no replica on node {voter}, which votes in it: did the node lose its data folder?");
        problems.push(problem(Kind::ReplicaMissing, Some(voter), message));
    }
    for replica in &group.replicas {
        let node = replica.node.node_id;
        let status = &replica.status;
        if !status.problem.is_empty() || status.role() == Role::Failed {
            let why = if status.problem.is_empty() { "it does not say why" } else { &status.problem };
            problems.push(problem(Kind::ReplicaFailed, Some(node), format!("group {id} on node {node} failed: {why}")));
        } else if let Some(leader) = leader
            && let Some(behind) = leader.status.applied_index.checked_sub(status.applied_index)
            && behind > LAG_ENTRIES
        {
            problems.push(problem(
                Kind::ReplicaLags,
                Some(node),
                format!("group {id} on node {node} is {behind} entries behind its leader"),
            ));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::admin::status::gather::Endpoint;
    use metadb_proto::Error;
    use metadb_proto::v1::{ClusterRecord, ComparisonStatus, GroupRecord, GroupStatus, NodeRecord};
    use shard_router::operator::{ClusterStatus, group_views};
    use std::time::Duration;

    fn node(node_id: u64) -> NodeRef {
        NodeRef { node_id, address: format!("n{node_id}:1") }
    }

    /// Three nodes with one group that node 1 leads; each replica as `change` leaves it, `None` for a node that is down.
    fn cluster(change: impl Fn(u64, &mut GroupStatus) -> bool) -> Gathered {
        let voters: Vec<NodeRef> = (1..=3).map(node).collect();
        let view = |id: u64| {
            let role = if id == 1 { Role::Leader } else { Role::Follower };
            let mut status = GroupStatus {
                group_id: 5,
                role: role.into(),
                term: 2,
                applied_index: 50_000,
                voters: voters.clone(),
                ..Default::default()
            };
            let answers = change(id, &mut status);
            let status = StatusResponse { node: Some(node(id)), groups: vec![status], ..Default::default() };
            let record = NodeRecord { node: Some(node(id)), ..Default::default() };
            NodeView { record, status: if answers { Ok(status) } else { Err(Error::unavailable("refused", Duration::ZERO)) } }
        };
        let nodes: Vec<NodeView> = (1..=3).map(view).collect();
        let record = GroupRecord { group_id: 5, voters: voters.clone(), ..Default::default() };
        let groups = group_views(vec![record], &nodes);
        let cluster = ClusterStatus { cluster: ClusterRecord::default(), nodes, groups };
        Gathered { endpoints: vec![], cluster, tenants: Some(0), settings: vec![], directory: None }
    }

    fn kinds(gathered: &Gathered) -> Vec<(Kind, Option<u64>)> {
        of(gathered).into_iter().map(|problem| (problem.kind, problem.node)).collect()
    }

    #[test]
    fn a_healthy_cluster_has_none() {
        assert_eq!(of(&cluster(|_, _| true)), vec![]);
    }

    #[test]
    fn each_kind_is_found_and_names_whom() {
        assert_eq!(kinds(&cluster(|id, _| id != 3)), [(Kind::NodeDown, Some(3))], "two of three is a quorum");
        let leaderless = cluster(|id, _| id != 1);
        assert_eq!(kinds(&leaderless), [(Kind::NodeDown, Some(1)), (Kind::NoLeader, None)]);
        let lost = cluster(|id, _| id == 2);
        assert_eq!(kinds(&lost), [(Kind::NodeDown, Some(1)), (Kind::NodeDown, Some(3)), (Kind::NoQuorum, None)]);
        assert!(of(&lost)[2].message.contains("1 of 3 voters"), "{:?}", of(&lost));
        let failed = cluster(|id, status| {
            if id == 2 {
                status.set_role(Role::Failed);
                status.problem = "no space left".into();
            }
            true
        });
        assert_eq!(kinds(&failed), [(Kind::ReplicaFailed, Some(2))]);
        assert!(of(&failed)[0].message.contains("no space left"));
        let missing = cluster(|id, status| {
            status.group_id += u32::from(id == 3);
            true
        });
        assert_eq!(kinds(&missing), [(Kind::ReplicaMissing, Some(3))]);
        let differ = cluster(|_, status| {
            let undecided = "nodes 1 / 2 have different states".into();
            status.comparison = Some(ComparisonStatus { undecided, ..Default::default() });
            true
        });
        assert_eq!(kinds(&differ), [(Kind::ReplicasDiffer, None)], "only its leader is believed");
        let lags = cluster(|id, status| {
            status.applied_index -= if id == 3 { 20_000 } else { 0 };
            true
        });
        assert_eq!(kinds(&lags), [(Kind::ReplicaLags, Some(3))]);
    }

    #[test]
    fn an_endpoint_is_told_unless_its_node_is() {
        let mut gathered = cluster(|id, _| id != 3);
        let silent = |address: &str| Endpoint { address: address.into(), answers: false, problem: "refused".into() };
        gathered.endpoints = vec![silent("n3:1"), silent("elsewhere:1")];
        gathered.directory = Some("no leader".into());
        let expected = [(Kind::EndpointSilent, None), (Kind::DirectoryUnavailable, None), (Kind::NodeDown, Some(3))];
        assert_eq!(kinds(&gathered), expected);
    }
}
