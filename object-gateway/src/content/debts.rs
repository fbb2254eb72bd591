//! Copies that are owed: a content was acknowledged with fewer copies than it should have.
//!
//! A debt is a file in `todo`, durable before the acknowledgement, removed when the copies exist and the ledger knows. So neither a node
//! that was down for a day nor a crash of this one leaves a content with two copies for good.

use super::content_v1::{self, HasRequest};
use super::limits::{COPIES, DEBT_BACKOFF, DEBT_WORKERS, NAMELESS_DEBT_AGE, STALL_TIMEOUT};
use super::local::{self, LocalError};
use super::{ContentPart, ContentStore, footer_of, part_of, ref_of};
use futures::StreamExt as _;
use metadb_proto::{Error, seam};
use parking_lot::Mutex;
use prost::Message as _;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How often debts are looked through.
const TICK: Duration = Duration::from_millis(250);

/// What the name of a debt that can't be read ends in.
const BAD: &str = "bad";

#[derive(Debug, Clone)]
struct Debt {
    tenant_id: u64,
    part: ContentPart,
    created_at_ms: u64,
    attempts: u32,
    due: Instant,
}

/// All debts of this node.
pub(super) struct Debts {
    folder: PathBuf,
    open: Mutex<BTreeMap<[u8; 16], Debt>>,
}

impl Debts {
    /// Reads what an earlier process owed. A file that can't be read was torn before it was acknowledged, or it rotted since: it is kept
    /// beside, and told; what it stood for is found again from the rows of the contents ([`super::orphans`]).
    pub(super) fn open(folder: PathBuf) -> Result<Self, Error> {
        let mut open = BTreeMap::new();
        let io_error = |e: std::io::Error| Error::internal(format!("{}: {e}", folder.display()));
        for entry in std::fs::read_dir(&folder).map_err(io_error)? {
            let path = entry.map_err(io_error)?.path();
            if path.extension().is_some_and(|extension| extension == BAD) {
                continue;
            }
            match read_debt(&path).map_err(io_error)? {
                Some(debt) => drop(open.insert(debt.part.content_id, debt)),
                None => {
                    tracing::error!(file = %path.display(), "a debt can't be read and is set aside: its content is looked at again by the walk for orphans");
                    std::fs::rename(&path, path.with_extension(BAD)).map_err(io_error)?;
                }
            }
        }
        Ok(Debts { folder, open: Mutex::new(open) })
    }

    pub(super) fn len(&self) -> usize {
        self.open.lock().len()
    }

    /// Writes a debt down durably.
    pub(super) async fn add(&self, tenant_id: u64, part: &ContentPart) -> Result<(), Error> {
        let debt =
            Debt { tenant_id, part: part.clone(), created_at_ms: seam::unix_ms(), attempts: 0, due: Instant::now() + DEBT_BACKOFF.0 };
        let (path, bytes) = (self.path(&part.content_id), encode(&debt));
        self.open.lock().insert(part.content_id, debt);
        let written = local::blocking(move || Ok(local::write_durably(&path, &bytes)?)).await;
        written.map_err(|e| Error::internal(e.to_string()))
    }

    /// Whether something is owed for a content.
    pub(super) fn is_owed(&self, content_id: &[u8; 16]) -> bool {
        self.open.lock().contains_key(content_id)
    }

    /// A copy that was late exists now.
    pub(super) fn note_copy(&self, content_id: &[u8; 16], node_id: u64) {
        if let Some(debt) = self.open.lock().get_mut(content_id)
            && !debt.part.nodes.contains(&node_id)
        {
            debt.part.nodes.push(node_id);
            debt.due = Instant::now();
        }
    }

    /// Nothing is owed for this content any more.
    pub(super) fn forget(&self, content_id: &[u8; 16]) {
        if self.open.lock().remove(content_id).is_some() {
            // A file that reappears after a crash is a debt that is found paid.
            let _ = std::fs::remove_file(self.path(content_id));
        }
    }

    fn path(&self, content_id: &[u8; 16]) -> PathBuf {
        self.folder.join(hex::encode(content_id))
    }

    fn due(&self) -> Vec<Debt> {
        let now = Instant::now();
        self.open.lock().values().filter(|debt| debt.due <= now).cloned().collect()
    }

    fn postpone(&self, content_id: &[u8; 16], nodes: Vec<u64>) {
        if let Some(debt) = self.open.lock().get_mut(content_id) {
            debt.part.nodes = nodes;
            debt.attempts += 1;
            let pause = DEBT_BACKOFF.0.saturating_mul(1 << debt.attempts.min(10)).min(DEBT_BACKOFF.1);
            let jitter = Duration::from_millis(seam::random_u64() % 250);
            debt.due = Instant::now() + pause + jitter;
        }
    }
}

fn encode(debt: &Debt) -> Vec<u8> {
    let record = content_v1::Debt { content: Some(ref_of(debt.tenant_id, &debt.part)), created_at_ms: debt.created_at_ms };
    let mut bytes = record.encode_to_vec();
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

fn read_debt(path: &Path) -> std::io::Result<Option<Debt>> {
    let bytes = std::fs::read(path)?;
    let Some((record, crc)) = bytes.split_last_chunk::<4>() else { return Ok(None) };
    if crc32c::crc32c(record) != u32::from_le_bytes(*crc) {
        return Ok(None);
    }
    let decoded = content_v1::Debt::decode(record).ok();
    Ok(decoded.and_then(|record| {
        let content = record.content?;
        let part = part_of(&content).ok()?;
        Some(Debt { tenant_id: content.tenant_id, part, created_at_ms: record.created_at_ms, attempts: 0, due: Instant::now() })
    }))
}

/// Pays debts until it is stopped.
pub(super) async fn run(store: ContentStore) {
    loop {
        sleep(TICK).await;
        let due = store.0.debts.due();
        futures::stream::iter(due).for_each_concurrent(DEBT_WORKERS, |debt| Box::pin(store.pay(debt))).await;
    }
}

impl ContentStore {
    async fn pay(&self, debt: Debt) {
        let (tenant_id, mut part) = (debt.tenant_id, debt.part);
        self.add_copies(tenant_id, &mut part).await;
        let content = hex::encode(part.content_id);
        if part.nodes.len() < COPIES.min(self.0.links.cluster_size()) {
            return self.0.debts.postpone(&part.content_id, part.nodes);
        }
        match self.0.ledger.record_copies(tenant_id, part.content_id, part.nodes.clone()).await {
            Ok(()) => {
                self.0.counting.debts_paid.add(1);
                tracing::info!(content, nodes = ?part.nodes, "a copy that was owed exists now");
                self.0.debts.forget(&part.content_id);
            }
            Err(Error::NotFound { .. }) if seam::unix_ms().saturating_sub(debt.created_at_ms) > as_ms(NAMELESS_DEBT_AGE) => {
                tracing::info!(content, "nothing names this content, its debt is forgotten");
                self.0.debts.forget(&part.content_id);
            }
            Err(error) => {
                tracing::debug!(content, %error, "copies exist but are not written down yet");
                self.0.debts.postpone(&part.content_id, part.nodes);
            }
        }
    }

    /// Gives the content the copies that it lacks, as far as nodes can be reached.
    async fn add_copies(&self, tenant_id: u64, part: &mut ContentPart) {
        let mut candidates = vec![self.node_id()];
        candidates.extend(self.0.links.candidates(&part.content_id));
        for node_id in candidates {
            if part.nodes.len() >= COPIES {
                return;
            }
            if part.nodes.contains(&node_id) {
                continue;
            }
            match self.ensure_copy(node_id, tenant_id, part).await {
                Ok(()) => part.nodes.push(node_id),
                Err(error) => tracing::debug!(node = node_id, content = %hex::encode(part.content_id), %error, "a copy is still owed"),
            }
        }
    }

    async fn ensure_copy(&self, node_id: u64, tenant_id: u64, part: &ContentPart) -> Result<(), Error> {
        if node_id == self.node_id() {
            return match self.0.local.reader(tenant_id, part.content_id, footer_of(part)).await {
                Ok(_) => Ok(()),
                Err(LocalError::Missing) => self.copy_here(tenant_id, part).await,
                Err(error) => Err(Error::internal(error.to_string())),
            };
        }
        let request = HasRequest { content: Some(ref_of(tenant_id, part)) };
        let mut client = self.0.links.client(node_id)?;
        let answer = timeout(STALL_TIMEOUT, client.has(self.0.links.request(request))).await;
        match answer {
            Ok(Ok(reply)) if reply.get_ref().held => Ok(()),
            Ok(Ok(_)) => self.copy_to(node_id, tenant_id, part).await,
            Ok(Err(status)) => {
                self.0.links.suspect(node_id);
                Err(Error::from_status(&status, false))
            }
            Err(_) => {
                self.0.links.suspect(node_id);
                Err(Error::unavailable(format!("node {node_id} does not answer"), Duration::from_secs(1)))
            }
        }
    }
}

fn as_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_debt_survives_its_file_and_a_rotten_one_is_kept_beside() {
        let folder = tempfile::tempdir().expect("a folder");
        let part = |id: u8| ContentPart { content_id: [id; 16], size_bytes: 5, blake3: [7; 32], nodes: vec![1, 2] };
        let debts = Debts::open(folder.path().to_owned()).expect("empty");
        debts.add(9, &part(1)).await.expect("written");
        debts.add(9, &part(2)).await.expect("written");
        let file = folder.path().join(hex::encode([1; 16]));
        let whole = std::fs::read(&file).expect("there");
        for at in 0..whole.len() {
            let mut rotten = whole.clone();
            rotten[at] ^= 4;
            std::fs::write(&file, rotten).expect("written");
            let debts = Debts::open(folder.path().to_owned()).expect("opens");
            assert!(!debts.is_owed(&[1; 16]) && debts.is_owed(&[2; 16]) && debts.len() == 1, "byte {at}");
            assert!(!file.exists() && file.with_extension(BAD).exists(), "byte {at}");
        }
        std::fs::write(&file, &whole).expect("written");
        assert_eq!(Debts::open(folder.path().to_owned()).expect("opens").len(), 2);
    }
}
