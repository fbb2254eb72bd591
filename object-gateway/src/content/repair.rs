//! Mends this node's own copies, and removes copies of contents that were given up before they got a name.

use super::format::Chunk;
use super::local::LocalError;
use super::room::full;
use super::{ContentPart, ContentStore, content_v1, footer_of};
use metadb_proto::Error;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How long a node may take to remove a copy.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// An own copy that was found bad or missing.
pub(super) struct Job {
    pub(super) tenant_id: u64,
    pub(super) part: ContentPart,
}

/// A content that nobody will ever name.
pub(super) struct Discard {
    pub(super) tenant_id: u64,
    pub(super) content_id: [u8; 16],
    pub(super) nodes: Vec<u64>,
}

impl ContentStore {
    /// Has an own copy repaired in the background. A disk that only failed to answer is left alone: that mends nothing.
    pub(super) fn queue_repair(&self, job: Job, failure: &Error) {
        let counting = &self.0.counting;
        if matches!(failure, Error::Corrupt { .. }) {
            counting.corrupt_copies.add(1);
        } else if matches!(failure, Error::NotFound { .. }) {
            counting.missing_copies.add(1);
        } else {
            return;
        }
        tracing::error!(content = %hex::encode(job.part.content_id), %failure, "an own copy is bad and will be repaired");
        if self.0.repairs.try_send(job).is_err() {
            tracing::warn!("the repair queue is full, this copy will be found again");
        }
    }

    /// Verifies the own copy in full and replaces it if it is not good.
    async fn repair(&self, job: &Job) -> Result<(), Error> {
        let Job { tenant_id, part } = job;
        let content = hex::encode(part.content_id);
        match self.0.local.verify(part.content_id).await {
            Ok((tenant, footer)) if tenant == *tenant_id && footer == footer_of(part) => return Ok(()),
            Ok(_) | Err(LocalError::Corrupt(_) | LocalError::Missing) => {}
            Err(error @ (LocalError::Io(_) | LocalError::Full(_))) => return Err(Error::internal(error.to_string())),
        }
        self.copy_here(*tenant_id, part).await?;
        self.0.counting.repaired_copies.add(1);
        tracing::info!(content, "an own copy was repaired");
        Ok(())
    }

    /// Writes an own copy from the other nodes' and checks its BLAKE3 on the way. A bad one that it replaces is set aside; until then
    /// its good chunks can be read.
    pub(super) async fn copy_here(&self, tenant_id: u64, part: &ContentPart) -> Result<(), Error> {
        self.0.local.require_room().map_err(own_copy)?;
        let mut source = self.open_chunks(tenant_id, part, Some(self.node_id())).await?;
        let mut writer = self.0.local.writer(tenant_id, part.content_id);
        let mut hasher = blake3::Hasher::new();
        while let Some(chunk) = source.next().await? {
            hasher.update(&chunk.bytes);
            writer.push(Chunk { bytes: chunk.bytes, crc: chunk.crc }).await.map_err(own_copy)?;
        }
        if hasher.finalize().as_bytes() != &part.blake3 {
            return Err(Error::Corrupt { message: "the other copies' bytes do not have the content's BLAKE3".into() });
        }
        if self.0.local.set_aside(part.content_id).await.map_err(own_copy)? {
            self.0.counting.set_aside.add(1);
            tracing::warn!(content = %hex::encode(part.content_id), "a bad copy was set aside");
        }
        writer.finish(footer_of(part)).await.map_err(own_copy)
    }

    pub(super) async fn discard_copy(&self, node_id: u64, job: &Discard) -> Result<(), Error> {
        if node_id == self.node_id() {
            let deleted = self.0.local.delete(job.tenant_id, job.content_id).await;
            return deleted.map(|_| ()).map_err(|e| Error::internal(e.to_string()));
        }
        let request = content_v1::DeleteRequest { tenant_id: job.tenant_id, content_id: job.content_id.to_vec().into() };
        let mut client = self.0.links.client(node_id)?;
        match timeout(DISCARD_TIMEOUT, client.delete(self.0.links.request(request))).await {
            Ok(answer) => answer.map(|_| ()).map_err(|status| Error::from_status(&status, false)),
            Err(_) => Err(Error::unavailable(format!("node {node_id} does not answer"), Duration::from_secs(1))),
        }
    }
}

/// Why an own copy was not written.
pub(super) fn own_copy(error: LocalError) -> Error {
    match error {
        LocalError::Full(told) => full(told),
        error @ (LocalError::Missing | LocalError::Corrupt(_) | LocalError::Io(_)) => Error::internal(format!("the local copy: {error}")),
    }
}

/// Repairs one copy after the other.
pub(super) async fn run(store: ContentStore, mut jobs: mpsc::Receiver<Job>) {
    let mut batch = Vec::new();
    while jobs.recv_many(&mut batch, super::limits::REPAIR_QUEUE).await > 0 {
        let mut seen = BTreeSet::new();
        for job in batch.drain(..).filter(|job| seen.insert(job.part.content_id)) {
            if let Err(error) = Box::pin(store.repair(&job)).await {
                store.0.counting.repairs_failed.add(1);
                tracing::error!(content = %hex::encode(job.part.content_id), %error, "an own copy could not be repaired");
            }
        }
    }
}

/// Removes abandoned copies, one after the other.
pub(super) async fn run_discards(store: ContentStore, mut jobs: mpsc::Receiver<Discard>) {
    while let Some(job) = jobs.recv().await {
        for node_id in &job.nodes {
            if let Err(error) = store.discard_copy(*node_id, &job).await {
                tracing::debug!(node = node_id, %error, "an abandoned copy stays until it is collected");
            }
        }
    }
}
