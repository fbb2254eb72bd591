//! Verifies every byte that this node holds and has bad copies repaired: step by step, for whoever bounds the rate, or all at once, at half
//! of the disk's speed at most.

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

/// What a step of a scrub found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScrubStep {
    /// Bytes that were read.
    pub bytes: u64,
    /// Where the next step begins; none: all was read.
    pub next: Option<Vec<u8>>,
    /// Contents whose copy is bad.
    pub corrupt: Vec<[u8; 16]>,
}

/// Where a scrub is: at a chunk of the first content from this one on.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    content_id: [u8; 16],
    chunk: u64,
}

impl Place {
    fn decode(bytes: &[u8]) -> Self {
        let content_id = bytes.first_chunk().copied().unwrap_or_default();
        Place { content_id, chunk: bytes.get(16..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u64::from_be_bytes(*chunk)) }
    }

    fn encode(self) -> Vec<u8> {
        [&self.content_id[..], &self.chunk.to_be_bytes()].concat()
    }
}

impl ContentStore {
    /// Verifies own copies from a place on (empty: from the first), until about so many bytes were read. Bad ones are repaired in the
    /// background.
    ///
    /// # Errors
    /// If the folder can't be listed.
    pub async fn scrub_step(&self, from: &[u8], max_bytes: u64) -> Result<ScrubStep, Error> {
        let mut place = Place::decode(from);
        let mut step = ScrubStep::default();
        for shard in place.content_id[0]..=u8::MAX {
            let mut ids = self.0.local.ids(shard).await.map_err(|e| Error::internal(e.to_string()))?;
            ids.sort_unstable();
            for content_id in ids.into_iter().filter(|id| *id >= place.content_id) {
                let mut chunk = Some(if content_id == place.content_id { place.chunk } else { 0 });
                while let Some(from) = chunk {
                    if step.bytes >= max_bytes {
                        place = Place { content_id, chunk: from };
                        return Ok(ScrubStep { next: Some(place.encode()), ..step });
                    }
                    let read = self.0.local.verify_part(content_id, from, max_bytes - step.bytes).await;
                    // An empty file costs something too.
                    step.bytes += read.as_ref().map_or(0, |(bytes, _)| *bytes).max(1);
                    chunk = read.as_ref().ok().and_then(|(_, next)| *next);
                    if self.judge(content_id, read.err()).await {
                        step.corrupt.push(content_id);
                    }
                }
            }
        }
        Ok(step)
    }

    /// Has a bad copy repaired; says whether it is one.
    async fn judge(&self, content_id: [u8; 16], error: Option<LocalError>) -> bool {
        let content = hex::encode(content_id);
        match error {
            // Or removed since it was listed.
            None | Some(LocalError::Missing) => false,
            Some(error @ (LocalError::Io(_) | LocalError::Full(_))) => {
                tracing::error!(content, %error, "a copy could not be read");
                false
            }
            Some(LocalError::Corrupt(why)) => {
                let failure = Error::Corrupt { message: why.to_string() };
                match self.find(content_id).await {
                    Some((tenant_id, part)) => self.queue_repair(repair::Job { tenant_id, part }, &failure),
                    None => tracing::error!(content, %why, "a copy is corrupt and no row tells where others are; the next read repairs it"),
                }
                true
            }
        }
    }

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
        let verified = self.0.local.verify(content_id).await;
        if let Ok((_, footer)) = &verified {
            report.contents += 1;
            report.bytes += footer.size_bytes;
        }
        if self.judge(content_id, verified.err()).await {
            report.contents += 1;
            report.corrupt += 1;
        }
    }

    /// Whose content it is (by the header, as far as that is good) and where its copies are (by the ledger).
    async fn find(&self, content_id: [u8; 16]) -> Option<(u64, super::ContentPart)> {
        let tenant_id = self.0.local.tenant_of(content_id).await.ok()?;
        let part = self.0.ledger.content(tenant_id, content_id).await.ok()??;
        Some((tenant_id, part))
    }
}
