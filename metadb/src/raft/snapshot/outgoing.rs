//! The sender's side: a view of the store becomes files with checksums, which are kept while a follower still wants them.
//!
//! Nothing is written before a follower is there to take it. The files outlive a broken connection, so that the same snapshot can go on;
//! meanwhile, and until the follower has caught up from there, the log behind their position is kept too, else it would need the next
//! snapshot as soon as it has this one.

use super::depot::Depot;
use super::manifest::{Chunk, Manifest, SnapshotFile};
use super::{OUT_PREFIX, SnapshotError, travelling};
use crate::raft::SnapshotMeta;
use crate::rows;
use bytes::Bytes;
use metadb_engine::{COLUMN_FAMILIES, Cf, Cursor, EngineError, FileExport, Row, Store, StoreRead};
use metadb_proto::planted::{self, Bug};
use metadb_proto::seam;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Bytes of a group's number at the start of its keys.
const GROUP_BYTES: usize = 4;

/// A snapshot that this replica gives.
pub(crate) struct Outgoing {
    pub(crate) group_id: u32,
    pub(crate) meta: SnapshotMeta,
    depot: Arc<Depot>,
    store: Arc<dyn Store>,
    /// Gone once the files are written: an old view keeps the store from forgetting.
    view: Mutex<Option<Arc<dyn StoreRead>>>,
    prefix: String,
    manifest: tokio::sync::Mutex<Option<Arc<Manifest>>>,
    written: AtomicBool,
    /// Whether a follower was there to take some of it.
    taken: AtomicBool,
    /// When bytes of it last moved.
    moved: Mutex<Instant>,
}

impl Outgoing {
    pub(crate) fn new(depot: &Arc<Depot>, store: &Arc<dyn Store>, group_id: u32, meta: SnapshotMeta) -> Arc<Self> {
        Arc::new(Outgoing {
            group_id,
            meta,
            depot: Arc::clone(depot),
            store: Arc::clone(store),
            view: Mutex::new(Some(Arc::new(Given(store.snapshot())))),
            prefix: format!("{OUT_PREFIX}{group_id:010}-{:016x}-", seam::random_u64()),
            manifest: tokio::sync::Mutex::new(None),
            written: AtomicBool::new(false),
            taken: AtomicBool::new(false),
            moved: Mutex::new(Instant::now()),
        })
    }

    /// The last entry that it holds.
    pub(crate) fn index(&self) -> u64 {
        self.meta.last_log_id.map_or(0, |id| id.index)
    }

    /// Whether its files are there.
    pub(crate) fn is_written(&self) -> bool {
        self.written.load(Ordering::SeqCst)
    }

    fn note_moved(&self) {
        *self.moved.lock() = Instant::now();
    }

    /// Whether it did not move for longer than it is worth waiting. What nobody has taken anything of can be written anew; `stall` is for
    /// such a one.
    fn is_idle(&self, keep_idle: Duration, stall: Duration) -> bool {
        let offered_in_vain = self.is_written() && !self.taken.load(Ordering::SeqCst);
        self.moved.lock().elapsed() > if offered_in_vain { stall.min(keep_idle) } else { keep_idle }
    }

    fn name(&self, file: usize) -> String {
        format!("{}{file:06}", self.prefix)
    }

    /// What it consists of; writes the files first, if nobody did.
    pub(crate) async fn manifest(&self) -> Result<Arc<Manifest>, SnapshotError> {
        let mut manifest = self.manifest.lock().await;
        if let Some(manifest) = &*manifest {
            return Ok(Arc::clone(manifest));
        }
        let Some(view) = self.view.lock().clone() else { return Err(SnapshotError::Gone) };
        let files = match self.write(view).await {
            Ok(files) => files,
            Err(error) => {
                self.depot.remove_all(&self.prefix)?;
                return Err(error);
            }
        };
        let chunk_bytes = self.depot.limits.chunk_bytes;
        let made = Arc::new(Manifest { group_id: self.group_id, meta: self.meta.clone(), chunk_bytes, files });
        *manifest = Some(Arc::clone(&made));
        self.written.store(true, Ordering::SeqCst);
        *self.view.lock() = None;
        self.note_moved();
        Ok(made)
    }

    async fn write(&self, view: Arc<dyn StoreRead>) -> Result<Vec<SnapshotFile>, SnapshotError> {
        let mut files = Vec::new();
        for cf in COLUMN_FAMILIES {
            let (start, end) = travelling(cf, self.group_id);
            let mut next = Some(start);
            while let Some(start) = next {
                let export = FileExport {
                    view: Arc::clone(&view),
                    cf,
                    range: start..end.clone(),
                    disk: Arc::clone(&self.depot.disk),
                    name: self.name(files.len()),
                    max_bytes: self.depot.limits.file_bytes,
                };
                let exported = self.store.export(export).await?;
                next = exported.next;
                if exported.rows > 0 {
                    let name = self.name(files.len());
                    let (hash, chunks, bytes) = self.sums(&name).await?;
                    files.push(SnapshotFile { cf, bytes, rows: exported.rows, hash, chunks });
                    self.depot.throttle.take(bytes).await;
                }
            }
        }
        Ok(files)
    }

    /// The checksums of a file that was just written.
    async fn sums(&self, name: &str) -> Result<([u8; 32], Vec<u32>, u64), SnapshotError> {
        let (mut hasher, mut chunks, mut offset) = (blake3::Hasher::new(), Vec::new(), 0);
        loop {
            let bytes = self.depot.disk.read(name, offset, self.depot.limits.chunk_bytes as usize)?;
            if bytes.is_empty() {
                return Ok((*hasher.finalize().as_bytes(), chunks, offset));
            }
            hasher.update(&bytes);
            chunks.push(crc32c::crc32c(&bytes));
            self.note_moved();
            offset += bytes.len() as u64;
            tokio::task::yield_now().await;
        }
    }

    /// The bytes of a chunk, which are what they were when the file was written.
    pub(crate) fn read(&self, file: usize, chunk: Chunk) -> Result<Bytes, SnapshotError> {
        let name = self.name(file);
        let bytes = self.depot.disk.read(&name, chunk.offset, chunk.bytes)?;
        if bytes.len() != chunk.bytes || crc32c::crc32c(&bytes) != chunk.crc32c {
            self.depot.tell_rotten(&name, chunk.offset);
            return Err(SnapshotError::Corrupt { name, offset: chunk.offset });
        }
        self.taken.store(true, Ordering::SeqCst);
        self.note_moved();
        Ok(bytes)
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        // A disk of an earlier life refuses; what is left there goes when the node starts.
        if let Err(error) = self.depot.remove_all(&self.prefix) {
            tracing::debug!(prefix = self.prefix, %error, "files of a snapshot were not removed");
        }
    }
}

/// A view of which planted bugs leave rows out.
struct Given(Arc<dyn StoreRead>);

impl StoreRead for Given {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.0.get(cf, key)
    }

    fn first(&self, cf: Cf, range: Range<&[u8]>, prefix_bytes: usize) -> Result<Option<Row>, EngineError> {
        self.0.first(cf, range, prefix_bytes)
    }

    fn cursor(&self, cf: Cf, range: Range<&[u8]>, reverse: bool) -> Cursor<'_> {
        // Only the first file of a family starts with the group's number alone.
        let begins = range.start.len() == GROUP_BYTES;
        let rows = self.0.cursor(cf, range, reverse);
        if cf == Cf::Data && begins && planted::is(Bug::SnapshotWithoutRow) {
            return Box::new(rows.skip(1));
        }
        if cf == Cf::State && planted::is(Bug::SnapshotWithoutRequests) {
            let is_request =
                |row: &Result<Row, EngineError>| row.as_ref().is_ok_and(|(key, _)| key.get(GROUP_BYTES) == Some(&rows::kind::REQUEST));
            return Box::new(rows.filter(move |row| !is_request(row)));
        }
        rows
    }
}

/// How far a transfer is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Transfer {
    pub(crate) total_bytes: u64,
    pub(crate) done_bytes: u64,
    /// Bytes of `done_bytes` that an earlier attempt had brought.
    pub(crate) reused_bytes: u64,
}

/// A follower that has a snapshot, and goes on from there with the log.
#[derive(Debug, Clone, Copy)]
struct Following {
    /// What it is known to have.
    index: u64,
    /// When it last got further.
    moved: Instant,
}

/// Keeps those that lack something below `end` and get on.
fn still_follow(following: &mut BTreeMap<u64, Following>, end: u64, matched: &BTreeMap<u64, u64>, patience: Duration) {
    following.retain(|node_id, follower| {
        let index = matched.get(node_id).map_or(follower.index, |index| follower.index.max(*index));
        if index > follower.index {
            *follower = Following { index, moved: Instant::now() };
        }
        index < end && follower.moved.elapsed() <= patience
    });
}

/// Whether the snapshot that is kept is written, or somebody is about to.
fn is_given(kept: &Arc<Outgoing>) -> bool {
    kept.is_written() || Arc::strong_count(kept) > 1
}

/// The snapshots of one replica that are on their way, as it shows them.
#[derive(Default)]
pub(crate) struct Traffic {
    outgoing: Mutex<Option<Arc<Outgoing>>>,
    following: Mutex<BTreeMap<u64, Following>>,
    sending: Mutex<BTreeMap<u64, Transfer>>,
    pub(crate) receiving: Mutex<Option<Transfer>>,
    /// Up to where the log was purged since the replica was opened.
    purged: AtomicU64,
}

impl Traffic {
    /// The snapshot to give: the one that is kept, if it is written or being written and the log goes on from it; else a new one.
    pub(crate) fn outgoing(&self, make: impl FnOnce() -> Arc<Outgoing>) -> Arc<Outgoing> {
        let mut kept = self.outgoing.lock();
        match &*kept {
            Some(outgoing) if !self.is_outdated(outgoing) && is_given(outgoing) => Arc::clone(outgoing),
            Some(_) | None => {
                let made = make();
                *kept = Some(Arc::clone(&made));
                made
            }
        }
    }

    /// Notes that the log is purged up to an entry. The snapshot that is kept is forgotten if it ends before: whoever took it in would need
    /// the next one at once, and two followers in turn would keep it for ever.
    pub(crate) fn note_purged(&self, upto: u64) {
        self.purged.fetch_max(upto, Ordering::SeqCst);
        let mut kept = self.outgoing.lock();
        if kept.as_ref().is_some_and(|kept| self.is_outdated(kept)) {
            *kept = None;
        }
    }

    /// Whether the log does not go on from where a snapshot ends.
    pub(crate) fn is_outdated(&self, outgoing: &Outgoing) -> bool {
        outgoing.index() < self.purged.load(Ordering::SeqCst)
    }

    /// Forgets a snapshot. Its files go with the last who uses it.
    pub(crate) fn forget(&self, outgoing: &Arc<Outgoing>) {
        let mut kept = self.outgoing.lock();
        if kept.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, outgoing)) {
            *kept = None;
        }
    }

    /// A follower has it all: forgets it, unless another follower is at it.
    pub(crate) fn delivered(&self, outgoing: &Arc<Outgoing>, to: u64) {
        self.following.lock().insert(to, Following { index: outgoing.index(), moved: Instant::now() });
        // Counted here: the slot, and the one who asks.
        if Arc::strong_count(outgoing) <= 2 {
            self.forget(outgoing);
        }
    }

    /// Forgets the snapshot that is kept, because the state it was of is replaced.
    pub(crate) fn clear(&self) {
        *self.outgoing.lock() = None;
    }

    /// Forgets the snapshot that is kept if nothing of it moved for a while, or for `stall` if nobody was ever there to take it; whether it
    /// did.
    pub(crate) fn expire(&self, keep_idle: Duration, stall: Duration) -> bool {
        let mut kept = self.outgoing.lock();
        let expired = kept.as_ref().is_some_and(|kept| kept.is_idle(keep_idle, stall));
        if expired {
            *kept = None;
        }
        expired
    }

    /// Forgets the followers that have caught up with `last`, the end of the log, and those that do not get on; whether one was forgotten.
    /// `matched`: as for [`Traffic::hold_log`].
    pub(crate) fn let_go(&self, last: u64, matched: Option<&BTreeMap<u64, u64>>, patience: Duration) -> bool {
        let mut following = self.following.lock();
        let before = following.len();
        match matched {
            None => following.clear(),
            Some(matched) => still_follow(&mut following, last, matched, patience),
        }
        following.len() < before
    }

    /// Whether followers are waited for.
    pub(crate) fn is_followed(&self) -> bool {
        !self.following.lock().is_empty()
    }

    /// Up to where the log may be purged, if up to `upto` it is not needed otherwise: what follows a snapshot that is being given stays, and
    /// then what its follower still lacks, while that one gets on. `matched`: what followers are known to have, if this replica leads.
    pub(crate) fn hold_log(&self, upto: u64, matched: Option<&BTreeMap<u64, u64>>, patience: Duration) -> u64 {
        let given = {
            let kept = self.outgoing.lock();
            kept.as_ref().filter(|kept| is_given(kept)).map_or(upto, |kept| kept.index())
        };
        let mut upto = upto.min(given);
        let mut following = self.following.lock();
        let Some(matched) = matched else {
            following.clear();
            return upto;
        };
        still_follow(&mut following, upto, matched, patience);
        for follower in following.values() {
            upto = upto.min(follower.index);
        }
        upto
    }

    pub(crate) fn note_sending(&self, to: u64, transfer: Option<Transfer>) {
        let mut sending = self.sending.lock();
        match transfer {
            Some(transfer) => drop(sending.insert(to, transfer)),
            None => drop(sending.remove(&to)),
        }
    }

    /// To whom snapshots are being sent, and how far.
    pub(crate) fn sending(&self) -> Vec<(u64, Transfer)> {
        self.sending.lock().iter().map(|(to, transfer)| (*to, *transfer)).collect()
    }
}
