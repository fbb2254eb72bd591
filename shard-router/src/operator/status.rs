//! The state of a cluster, put together from the directory and from what each node says.

use super::Operator;
use futures::StreamExt as _;
use metadb_proto::Error;
use metadb_proto::v1::{ClusterRecord, GroupRecord, GroupStatus, NodeRecord, NodeRef, Role, StatusResponse, node_record};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// How long a node may take to tell its state: a status display does not wait for the dead.
const NODE_TIMEOUT: Duration = Duration::from_secs(1);
/// Nodes asked at the same time.
const NODES_AT_ONCE: usize = 64;

/// A cluster at a moment.
#[derive(Debug, Clone)]
pub struct ClusterStatus {
    /// Its own record.
    pub cluster: ClusterRecord,
    /// Every node of the directory.
    pub nodes: Vec<NodeView>,
    /// Every group of the directory.
    pub groups: Vec<GroupView>,
}

/// A node and what it says of itself.
#[derive(Debug, Clone)]
pub struct NodeView {
    /// As the directory has it.
    pub record: NodeRecord,
    /// Its answer, or why there is none.
    pub status: Result<StatusResponse, Error>,
}

/// A group as its replicas see it.
#[derive(Debug, Clone)]
pub struct GroupView {
    /// As the directory has it.
    pub record: GroupRecord,
    /// The leader, if one says so; the one with the highest term, if several do.
    pub leader: Option<NodeRef>,
    /// Every replica that answered.
    pub replicas: Vec<ReplicaView>,
}

/// One replica of a group.
#[derive(Debug, Clone)]
pub struct ReplicaView {
    /// Where it is.
    pub node: NodeRef,
    /// What it says.
    pub status: GroupStatus,
}

impl Operator {
    /// Asks the directory, then every node at once.
    ///
    /// # Errors
    /// As [`crate::Client::scan`] on the directory; a node that does not answer is no error.
    pub async fn status(&self) -> Result<ClusterStatus, Error> {
        let (cluster, records, groups) = (self.cluster().await?, self.nodes().await?, self.groups().await?);
        let nodes = self.ask_nodes(records).await;
        let groups = group_views(groups, &nodes);
        Ok(ClusterStatus { cluster, nodes, groups })
    }

    /// What the nodes say that were not removed, by node id. Who does not answer in time is missing.
    pub(crate) async fn ask_members(&self, nodes: &[NodeRecord]) -> BTreeMap<u64, StatusResponse> {
        let answers = self.ask_nodes(nodes.to_vec()).await.into_iter().filter_map(|view| view.status.ok());
        answers.filter_map(|status| Some((status.node.as_ref()?.node_id, status))).collect()
    }

    pub(crate) async fn ask_nodes(&self, records: Vec<NodeRecord>) -> Vec<NodeView> {
        let asked = records.into_iter().map(|record| async move {
            let NodeRef { node_id, address } = record.node.clone().unwrap_or_default();
            if record.state() == node_record::State::Removed {
                // Whoever is at its address now is another node.
                return NodeView { record, status: Err(Error::not_found(format!("node {node_id}: it was removed"))) };
            }
            let status = self.router().status_of(&address, Instant::now() + NODE_TIMEOUT).await;
            NodeView { record, status }
        });
        futures::stream::iter(asked).buffered(NODES_AT_ONCE).collect().await
    }
}

/// Groups as their replicas on these nodes see them.
#[must_use]
pub fn group_views(records: Vec<GroupRecord>, nodes: &[NodeView]) -> Vec<GroupView> {
    records.into_iter().map(|record| group_view(record, nodes)).collect()
}

fn group_view(record: GroupRecord, nodes: &[NodeView]) -> GroupView {
    let answers = nodes.iter().filter_map(|node| node.status.as_ref().ok());
    let replicas: Vec<ReplicaView> = answers
        .flat_map(|answer| answer.groups.iter().map(move |status| (answer.node.clone().unwrap_or_default(), status)))
        .filter(|(_, status)| status.group_id == record.group_id)
        .map(|(node, status)| ReplicaView { node, status: status.clone() })
        .collect();
    let leaders = replicas.iter().filter(|replica| replica.status.role() == Role::Leader);
    let leader = leaders.max_by_key(|replica| replica.status.term).map(|replica| replica.node.clone());
    GroupView { record, leader, replicas }
}
