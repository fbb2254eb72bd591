//! Finds own files that no row knows: a writer died before it named its content, or a copy came to be while its content went.
//!
//! Only a file that is old enough may be one: a young one may be on its way to a row. What says of itself to be another cluster's, or a
//! tenant's that the directory does not know, is left alone and told.
//!
//! On the way it finds contents whose rows name too few copies and for which nothing is owed here: a debt that could not be written, or
//! whose file rotted.

use super::limits::{COPIES, ORPHAN_BATCH};
use super::local::LocalError;
use super::{ContentPart, ContentStore, Error};
use metadb_proto::seam;
use std::time::Duration;
use tokio::time::sleep;

/// What a walk for orphans found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OrphanReport {
    /// Files that were looked at.
    pub files: u64,
    /// Orphans removed.
    pub removed: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Files of another cluster or of a tenant that is not known, left alone.
    pub foreign: u64,
    /// Contents with too few copies, for which copies are owed from now on.
    pub owed: u64,
}

impl ContentStore {
    /// Looks at every own file, slowly, and removes those without a row that are older than `age`.
    ///
    /// # Errors
    /// If the folder can't be listed or the database can't be asked. Nothing was removed that should not have been.
    pub async fn sweep_orphans(&self, age: Duration) -> Result<OrphanReport, Error> {
        let mut report = OrphanReport::default();
        // From anywhere, so that a node that starts again and again comes to each file too.
        let first = seam::random_id()[0];
        for shard in (0..=u8::MAX).map(|step| first.wrapping_add(step)) {
            let ids = self.0.local.ids(shard).await.map_err(|error| Error::internal(error.to_string()))?;
            for batch in ids.chunks(ORPHAN_BATCH.0) {
                for id in batch {
                    self.sweep_one(*id, age, &mut report).await?;
                }
                sleep(ORPHAN_BATCH.1).await;
            }
        }
        if report.foreign > 0 {
            tracing::warn!(files = report.foreign, "contents of another cluster or of an unknown tenant are left alone");
        }
        Ok(report)
    }

    /// Owes the copies that a row lacks, if nobody here does. Several nodes may do so at once: each looks what is there before it copies.
    async fn owe_missing(&self, tenant_id: u64, part: ContentPart, report: &mut OrphanReport) {
        if part.nodes.len() >= COPIES.min(self.0.links.cluster_size()) || self.0.debts.is_owed(&part.content_id) {
            return;
        }
        let content = hex::encode(part.content_id);
        tracing::warn!(content, tenant_id, nodes = ?part.nodes, "a content has too few copies and nothing was owed for it");
        report.owed += 1;
        self.0.counting.debts.add(1);
        if let Err(error) = self.0.debts.add(tenant_id, &part).await {
            tracing::error!(%error, content, "a debt could not be written down, it is kept in memory only");
        }
    }

    async fn sweep_one(&self, content_id: [u8; 16], age: Duration, report: &mut OrphanReport) -> Result<(), Error> {
        let content = hex::encode(content_id);
        let look = match self.0.local.look(content_id).await {
            Ok(look) => look,
            Err(LocalError::Missing) => return Ok(()),
            // A bad header is a scrub's business.
            Err(error @ (LocalError::Corrupt(_) | LocalError::Full(_) | LocalError::Io(_))) => {
                tracing::debug!(content, %error, "a copy does not say whose it is");
                return Ok(());
            }
        };
        report.files += 1;
        let tenant_id = look.header.tenant_id;
        if look.header != self.0.local.header(tenant_id, content_id) {
            report.foreign += 1;
            return Ok(());
        }
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        if seam::unix_ms().saturating_sub(look.changed_at_ms) < age_ms {
            return Ok(());
        }
        match self.0.ledger.content(tenant_id, content_id).await {
            Ok(Some(part)) => {
                self.owe_missing(tenant_id, part, report).await;
                Ok(())
            }
            Ok(None) => {
                self.0.debts.forget(&content_id);
                let removed = self.0.local.delete(tenant_id, content_id).await.map_err(|error| Error::internal(error.to_string()))?;
                if removed {
                    report.removed += 1;
                    report.bytes += look.file_bytes;
                    self.0.counting.orphans_removed.add(1);
                    tracing::info!(content, tenant_id, bytes = look.file_bytes, "a content that nothing names was removed");
                }
                Ok(())
            }
            Err(Error::NotFound { .. }) => {
                report.foreign += 1;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
