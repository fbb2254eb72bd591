//! Has nodes read what they have at rest.

use super::{Operator, PATIENCE};
use crate::admin;
use metadb_proto::{Error, v1};
use tokio::time::Instant;

impl Operator {
    /// Has a node begin to read everything that it has at rest, at most at this rate (0: as its setting says), unless it does already.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a node that the directory does not know; [`Error::Unavailable`] if it does not answer.
    pub async fn scrub(&self, node_id: u64, bytes_per_s: u64) -> Result<v1::ScrubStatus, Error> {
        let nodes = self.nodes().await?.into_iter().filter_map(|record| record.node);
        let node = nodes.into_iter().find(|node| node.node_id == node_id).ok_or_else(|| Error::not_found(format!("node {node_id}")))?;
        let call = admin::scrub(v1::ScrubRequest { bytes_per_s });
        let answer = self.router().at_node(&node, Instant::now() + PATIENCE, &call).await?;
        answer.scrub.ok_or_else(|| Error::unavailable(format!("node {node_id} is of an older build"), PATIENCE))
    }
}
