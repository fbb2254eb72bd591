//! What the node's scrub reads beside log and store: the contents' files.

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use metadb::node::scrub::{AtRest, Checked};
use metadb_engine::Verified;
use metadb_proto::Error;
use object_gateway::content::ContentStore;

/// The node's own copies. A bad one is made anew from the other nodes'.
pub(super) struct Contents(pub(super) ContentStore);

impl AtRest for Contents {
    fn name(&self) -> &'static str {
        "contents"
    }

    fn verify(&self, from: Bytes, max_bytes: u64) -> BoxFuture<'_, Result<Checked, Error>> {
        async move {
            let step = self.0.scrub_step(&from, max_bytes).await?;
            let bad = step.corrupt.iter().map(|id| format!("the copy of content {}", hex::encode(id))).collect();
            Ok(Checked { read: Verified { bytes: step.bytes, next: step.next.map(Bytes::from) }, bad })
        }
        .boxed()
    }
}
