//! Who the nodes of the cluster are, for the content store: read from the directory, and kept in a file, so that a node that starts
//! alone does not take itself for the whole cluster.

use crate::failure::Failure;
use metadb_proto::v1::{NodeRecord, node_record};
use object_gateway::content::{Peer, Peers};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use shard_router::operator::Operator;
use std::path::PathBuf;
use std::time::Duration;

/// How often the directory is asked while nodes may be joining, and later.
const REFRESH_SOON: Duration = Duration::from_millis(200);
const REFRESH: Duration = Duration::from_secs(1);
/// How many refreshes are soon ones: the first minute.
const SOON: u32 = 300;
/// Pause after the directory did not answer.
const RETRY: Duration = Duration::from_millis(100);

/// The nodes, as the directory had them a moment ago.
pub(super) struct DirectoryPeers {
    file: PathBuf,
    nodes: RwLock<Vec<Peer>>,
}

#[derive(Default, Serialize, Deserialize)]
struct Kept {
    #[serde(default)]
    node: Vec<KeptNode>,
}

#[derive(Serialize, Deserialize)]
struct KeptNode {
    id: u64,
    address: String,
    #[serde(default)]
    leaves: bool,
}

impl DirectoryPeers {
    /// With what the file says; it is only a memory, and an unreadable one is no memory.
    pub(super) fn open(file: PathBuf) -> Self {
        let kept: Kept = std::fs::read_to_string(&file).ok().and_then(|text| toml::from_str(&text).ok()).unwrap_or_default();
        let nodes = kept.node.into_iter().map(|node| Peer { node_id: node.id, address: node.address, stays: !node.leaves }).collect();
        DirectoryPeers { file, nodes: RwLock::new(nodes) }
    }

    /// How many nodes there are.
    pub(super) fn count(&self) -> usize {
        self.nodes.read().len()
    }

    /// Asks the directory until it answers once.
    pub(super) async fn refresh_until_known(&self, operator: &Operator) {
        while let Err(error) = self.refresh_once(operator).await {
            tracing::debug!(%error, "the directory does not tell its nodes yet");
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Asks the directory again and again.
    pub(super) async fn refresh(&self, operator: &Operator) {
        for round in 0_u32.. {
            tokio::time::sleep(if round < SOON { REFRESH_SOON } else { REFRESH }).await;
            if let Err(error) = self.refresh_once(operator).await {
                tracing::debug!(%error, "the directory does not tell its nodes now");
            }
        }
    }

    async fn refresh_once(&self, operator: &Operator) -> Result<(), metadb_proto::Error> {
        let peer = |record: NodeRecord| {
            // One that is drained of leaders alone goes on to take file bytes.
            let drains = record.state() == node_record::State::Draining;
            let stays = record.state() == node_record::State::Active || drains && record.keeps_replicas;
            record.node.map(|node| Peer { node_id: node.node_id, address: node.address, stays })
        };
        let nodes: Vec<Peer> = operator.nodes().await?.into_iter().filter_map(peer).collect();
        if *self.nodes.read() != nodes {
            if let Err(failure) = self.keep(&nodes) {
                tracing::warn!(%failure, "the list of nodes is not kept");
            }
            *self.nodes.write() = nodes;
        }
        Ok(())
    }

    fn keep(&self, nodes: &[Peer]) -> Result<(), Failure> {
        let kept = Kept {
            node: nodes.iter().map(|peer| KeptNode { id: peer.node_id, address: peer.address.clone(), leaves: !peer.stays }).collect(),
        };
        let text = toml::to_string(&kept).map_err(|error| Failure::failed(error.to_string()))?;
        crate::datadir::write_durably(&self.file, text.as_bytes())
    }
}

impl Peers for DirectoryPeers {
    fn nodes(&self) -> Vec<Peer> {
        self.nodes.read().clone()
    }
}
