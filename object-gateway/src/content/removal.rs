//! Removes every copy of a content that nothing names any more.

use super::repair::Discard;
use super::{ContentPart, ContentStore};
use metadb_proto::Error;

/// From which nodes a content is gone, and where a copy may be left.
#[derive(Debug, Default)]
pub(crate) struct Removal {
    pub(crate) gone: Vec<u64>,
    pub(crate) left: Vec<u64>,
}

impl ContentStore {
    /// Whether this node comes first of all nodes for this key: who has the turn where several could work.
    pub(crate) fn is_first_for(&self, key: &[u8; 16]) -> bool {
        self.0.links.is_first_for(key)
    }

    /// Removes the copies that are known of. A node that does not answer is not asked again for a moment.
    pub(crate) async fn remove_copies(&self, tenant_id: u64, part: &ContentPart) -> Removal {
        self.0.debts.forget(&part.content_id);
        let job = Discard { tenant_id, content_id: part.content_id, nodes: part.nodes.clone() };
        let mut removal = Removal::default();
        for node_id in &job.nodes {
            if self.0.links.is_suspect(*node_id) {
                removal.left.push(*node_id);
                continue;
            }
            match self.discard_copy(*node_id, &job).await {
                Ok(()) => {
                    self.0.links.trust(*node_id);
                    self.0.counting.copies_removed.add(1);
                    removal.gone.push(*node_id);
                }
                // Not a node of the cluster any more: its copy left with it.
                Err(Error::NotFound { .. }) => removal.gone.push(*node_id),
                Err(error) => {
                    tracing::debug!(node = node_id, content = %hex::encode(part.content_id), %error, "a copy could not be removed yet");
                    if matches!(error, Error::Unavailable { .. }) {
                        self.0.links.suspect(*node_id);
                    }
                    self.0.counting.removals_failed.add(1);
                    removal.left.push(*node_id);
                }
            }
        }
        removal
    }

    /// Counts a content whose copies are all gone.
    pub(crate) fn note_collected(&self, size_bytes: u64) {
        self.0.counting.collected.add(1);
        self.0.counting.bytes_collected.add(size_bytes);
    }
}
