//! Verifies every byte that this node holds, at half of the disk's speed at most, and has bad copies repaired.

use super::limits::SCRUB_BATCH;
use super::local::LocalError;
use super::{ContentStore, Error, repair};
use tokio::time::{Instant, sleep};

/// What a scrub found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// Contents that were read.
    pub contents: u64,
    /// Bytes of the good ones.
    pub bytes: u64,
    /// Copies that were bad: set aside, and repaired where the ledger still knows the content.
    pub corrupt: u64,
}

impl ContentStore {
    /// Verifies all own copies. Bad ones are set aside at once and repaired in the background.
    ///
    /// # Errors
    /// If the folder can't be listed.
    pub async fn scrub(&self) -> Result<ScrubReport, Error> {
        let mut report = ScrubReport::default();
        for shard in 0..=u8::MAX {
            let ids = self.0.local.ids(shard).await.map_err(|e| Error::internal(e.to_string()))?;
            for batch in ids.chunks(SCRUB_BATCH) {
                let started = Instant::now();
                for id in batch {
                    self.scrub_one(*id, &mut report).await;
                }
                sleep(started.elapsed()).await;
            }
        }
        tracing::info!(?report, "scrubbed");
        Ok(report)
    }

    async fn scrub_one(&self, content_id: [u8; 16], report: &mut ScrubReport) {
        let content = hex::encode(content_id);
        match self.0.local.verify(content_id).await {
            Ok((_, footer)) => {
                report.contents += 1;
                report.bytes += footer.size_bytes;
            }
            // Removed since it was listed.
            Err(LocalError::Missing) => {}
            Err(LocalError::Io(error)) => tracing::error!(content, %error, "a copy could not be read"),
            Err(LocalError::Corrupt(why)) => {
                report.contents += 1;
                report.corrupt += 1;
                let failure = Error::Corrupt { message: why.to_string() };
                match self.find(content_id).await {
                    Some((tenant_id, part)) => self.queue_repair(repair::Job { tenant_id, part }, &failure),
                    None => tracing::error!(content, %why, "a copy is corrupt and no row tells where others are; the next read repairs it"),
                }
            }
        }
    }

    /// Whose content it is (by the header, as far as that is good) and where its copies are (by the ledger).
    async fn find(&self, content_id: [u8; 16]) -> Option<(u64, super::ContentPart)> {
        let tenant_id = self.0.local.tenant_of(content_id).await.ok()?;
        let part = self.0.ledger.content(tenant_id, content_id).await.ok()??;
        Some((tenant_id, part))
    }
}
