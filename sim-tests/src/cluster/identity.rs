//! How a simulated node gets its identity and tells the directory of itself: in the steps of the binary's node, asked of the same
//! operator. What the binary keeps in a file of the data folder, the machine keeps here, and no crash takes it.
//!
//! Not here: the first node's question whether its cluster is there already. Its identity is never lost.

use metadb_proto::v1::{ClusterRecord, NodeRecord, NodeRef};
use metadb_proto::{Error, level};
use shard_router::operator::Operator;
use std::time::Duration;

/// The id of the node that makes the cluster.
pub(super) const FIRST_NODE: u64 = 1;
/// Pause between two attempts at what needs the rest of the cluster.
const RETRY: Duration = Duration::from_millis(100);

/// Whom a machine's disks belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Of which cluster the node is.
    pub cluster_id: String,
    /// Which node it is.
    pub node_id: u64,
}

impl Identity {
    /// That of the node that makes the cluster.
    pub(super) fn first() -> Self {
        Identity { cluster_id: hex::encode(metadb_proto::seam::random_id()), node_id: FIRST_NODE }
    }

    /// Asks the directory for an id until it answers.
    pub(super) async fn ask(operator: &Operator, address: &str) -> Self {
        let (cluster_id, node_id) = patiently("joins the cluster", || operator.join(record(address, 0))).await;
        Identity { cluster_id, node_id }
    }

    /// Tells the directory of this node, after the first one has made it.
    ///
    /// # Panics
    /// If the directory refuses what can't be waited out.
    pub(super) async fn announce(&self, address: &str, replicas: u32, operator: &Operator) {
        let node = record(address, self.node_id);
        if self.node_id == FIRST_NODE {
            let cluster = ClusterRecord {
                cluster_id: self.cluster_id.clone(),
                created_at_ms: metadb_proto::seam::unix_ms(),
                replicas,
                initial_groups: super::GROUPS,
                // Born at the oldest, so that each run raises it.
                feature_level: level::OLDEST.into(),
                ..ClusterRecord::default()
            };
            patiently("makes the cluster", || operator.bootstrap(cluster.clone(), node.clone())).await;
        }
        let told = patiently("tells the directory", || operator.join(node.clone())).await;
        assert_eq!(told, (self.cluster_id.clone(), self.node_id), "a node that is known keeps its id");
    }
}

fn record(address: &str, node_id: u64) -> NodeRecord {
    let node = Some(NodeRef { node_id, address: address.to_owned() });
    NodeRecord {
        node,
        build: env!("CARGO_PKG_VERSION").to_owned(),
        oldest_level: level::OLDEST.into(),
        newest_level: level::NEWEST.into(),
        labels: [("place".to_owned(), address.to_owned())].into(),
        ..NodeRecord::default()
    }
}

/// Does what needs the rest of the cluster again and again while it can't be had: what the binary waits out is waited out.
async fn patiently<T, F: Future<Output = Result<T, Error>>>(what: &str, mut work: impl FnMut() -> F) -> T {
    loop {
        match work().await {
            Ok(done) => return done,
            Err(error @ (Error::Denied { .. } | Error::Unauthenticated { .. } | Error::AlreadyExists { .. } | Error::Invalid { .. })) => {
                panic!("a node {what}: {error}")
            }
            Err(
                Error::NotFound { .. }
                | Error::Conflict { .. }
                | Error::Moved { .. }
                | Error::Unavailable { .. }
                | Error::Exhausted { .. }
                | Error::UnknownOutcome { .. }
                | Error::Suspended { .. }
                | Error::Corrupt { .. }
                | Error::Internal { .. },
            ) => tokio::time::sleep(RETRY).await,
        }
    }
}
