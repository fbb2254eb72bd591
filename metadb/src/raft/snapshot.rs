//! A replica's whole state, on its way from one node to another: never in memory, always in bounded chunks.
//!
//! The sender reads rows from a view of its store and streams them. The receiver appends them to a spool file, syncs it, and then
//! imports it: it marks the group as *installing*, drops what the group had, writes the rows, clears the mark and flushes. Because a
//! store keeps a prefix of what was written, a crash leaves either the old state, or the mark and with it the order to import again from
//! the spool, or the new state.
//!
//! | what | bytes |
//! | --- | --- |
//! | rows | each: column family u8, key length u32, key, value length u32, value |
//! | spool file | frames, each: length u32, CRC32C u32, rows |
//! | `installing` mark | `group u32, 0xff` → name of the spool file |
//! | `replica` mark | `group u32, 0xfe` → empty; says that this node has a replica of the group |

use super::codec::{CodecError, Reader, put_sized};
use crate::rows;
use bytes::{BufMut as _, Bytes, BytesMut};
use metadb_engine::disk::Disk;
use metadb_engine::{Cf, EngineError, Store, StoreRead, WriteBatch};
use metadb_proto::planted::{self, Bug};
use metadb_proto::seam;
use std::sync::Arc;

/// Bytes of rows in a chunk, more only if one row is larger.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;
/// Largest frame of a spool file that is believed: a chunk and one row of the largest size.
const FRAME_BYTES: u32 = 16 << 20;
/// What every spool file's name begins with.
pub(super) const SPOOL_PREFIX: &str = "snapshot-";
/// Kinds of `Cf::State` rows from here on belong to the node and do not travel.
const FIRST_LOCAL_KIND: u8 = 0xfe;
const REPLICA_KIND: u8 = 0xfe;
const INSTALLING_KIND: u8 = 0xff;

/// What travels.
pub(crate) enum SnapshotData {
    /// At the sender: a view of the store.
    View(Arc<dyn StoreRead>),
    /// At the receiver: a spooled, synced and verified file.
    Spool(String),
}

/// Why a snapshot could not be imported.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    /// Storage refused.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Rows that can't be read.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The spool file ends in the middle of a frame.
    #[error("spool file {name} is cut at byte {offset}")]
    Cut {
        /// The file.
        name: String,
        /// Where.
        offset: u64,
    },
    /// A frame that fails its checksum.
    #[error("spool file {name} is corrupt at byte {offset}")]
    Corrupt {
        /// The file.
        name: String,
        /// Where.
        offset: u64,
    },
}

fn group_key(group_id: u32, kind: Option<u8>) -> Bytes {
    let mut key = BytesMut::with_capacity(5);
    key.put_u32(group_id);
    if let Some(kind) = kind {
        key.put_u8(kind);
    }
    key.freeze()
}

/// The rows of a group that travel: all of them but the node's own marks.
fn travelling(cf: Cf, group_id: u32) -> (Bytes, Bytes) {
    let start = group_key(group_id, None);
    let end = match (cf, group_id.checked_add(1)) {
        (Cf::State, _) => group_key(group_id, Some(FIRST_LOCAL_KIND)),
        (Cf::Data | Cf::Changes, Some(next)) => group_key(next, None),
        (Cf::Data | Cf::Changes, None) => Bytes::new(),
    };
    (start, end)
}

/// Groups that have a `replica` mark in a store.
pub(crate) fn marked_replicas(store: &dyn StoreRead) -> Result<Vec<u32>, EngineError> {
    let mut found = Vec::new();
    let mut next = Some(0_u32);
    while let Some(group_id) = next {
        let start = group_key(group_id, None);
        let Some((key, _)) = store.first(Cf::State, &start[..]..&[], 0)? else { break };
        let Some(id) = key.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes)) else { break };
        if store.get(Cf::State, &group_key(id, Some(REPLICA_KIND)))?.is_some() {
            found.push(id);
        }
        next = id.checked_add(1);
    }
    Ok(found)
}

/// Marks that this node has a replica of a group. Durable after the next flush.
pub(crate) fn mark_replica(store: &dyn Store, group_id: u32) -> Result<(), EngineError> {
    let mut batch = WriteBatch::default();
    batch.put(Cf::State, group_key(group_id, Some(REPLICA_KIND)), Bytes::new());
    store.write(batch)
}

/// Where an export goes on.
pub(crate) struct Export {
    view: Arc<dyn StoreRead>,
    group_id: u32,
    /// Column families still to do, the current one first.
    families: Vec<Cf>,
    /// First key of the next chunk; none: the beginning of the family.
    next: Option<Bytes>,
    /// Rows given so far.
    pub(crate) rows: u64,
}

impl Export {
    /// All rows of a group in a view.
    pub(crate) fn new(view: Arc<dyn StoreRead>, group_id: u32) -> Self {
        // The applied position comes last, so that a receiver that stops early never looks finished.
        Export { view, group_id, families: vec![Cf::Data, Cf::Changes, Cf::State], next: None, rows: 0 }
    }

    /// The next rows; none when all were given.
    pub(crate) fn chunk(&mut self) -> Result<Option<Bytes>, EngineError> {
        let mut out = BytesMut::new();
        while let Some(cf) = self.families.first().copied() {
            let (start, end) = travelling(cf, self.group_id);
            let begins = self.next.is_none();
            let from = self.next.take().unwrap_or(start);
            let mut last = None;
            for (n, row) in self.view.cursor(cf, &from[..]..&end[..], false).enumerate() {
                let (key, value) = row?;
                if out.len() >= CHUNK_BYTES {
                    last = Some(key);
                    break;
                }
                if is_forgotten(cf, &key, begins && n == 0) {
                    continue;
                }
                put_row(&mut out, cf, &key, &value);
                self.rows += 1;
            }
            if last.is_some() {
                self.next = last;
                break;
            }
            self.families.remove(0);
        }
        Ok(if out.is_empty() { None } else { Some(out.freeze()) })
    }
}

/// Rows that a planted bug leaves out.
fn is_forgotten(cf: Cf, key: &[u8], first: bool) -> bool {
    let request = cf == Cf::State && key.get(4) == Some(&rows::kind::REQUEST);
    planted::is(Bug::SnapshotWithoutRequests) && request || planted::is(Bug::SnapshotWithoutRow) && cf == Cf::Data && first
}

fn put_row(out: &mut BytesMut, cf: Cf, key: &[u8], value: &[u8]) {
    out.put_u8(match cf {
        Cf::Data => 0,
        Cf::Changes => 1,
        Cf::State => 2,
    });
    put_sized(out, key);
    put_sized(out, value);
}

/// Takes rows apart again.
fn read_rows(rows: Bytes, mut each: impl FnMut(Cf, Bytes, Bytes)) -> Result<u64, CodecError> {
    let mut reader = Reader::new(rows, "snapshot rows");
    let mut count = 0;
    while !reader.is_empty() {
        let cf = match reader.u8()? {
            0 => Cf::Data,
            1 => Cf::Changes,
            2 => Cf::State,
            other => return Err(reader.unknown(other.into())),
        };
        let key = reader.sized()?;
        each(cf, key, reader.sized()?);
        count += 1;
    }
    Ok(count)
}

/// How many rows a chunk holds, and that all of them belong to the group.
pub(crate) fn count_rows(rows: Bytes, group_id: u32) -> Result<u64, CodecError> {
    let prefix = group_key(group_id, None);
    let mut foreign = false;
    let count = read_rows(rows, |_, key, _| foreign |= !key.starts_with(&prefix))?;
    if foreign { Err(CodecError::Unknown { what: "snapshot row of another group", value: group_id.into() }) } else { Ok(count) }
}

/// A spool file being written. Dropped before it is finished, as when the sender goes away, it is removed.
pub(crate) struct Spool {
    disk: Arc<dyn Disk>,
    name: String,
    finished: bool,
}

impl Spool {
    /// A new file; `nonce` makes its name.
    pub(crate) fn create(disk: Arc<dyn Disk>, group_id: u32, nonce: u64) -> Self {
        Spool { disk, name: format!("{SPOOL_PREFIX}{group_id:010}-{nonce:016x}"), finished: false }
    }

    /// Appends a chunk.
    pub(crate) fn append(&self, rows: &[u8]) -> Result<(), EngineError> {
        let mut frame = BytesMut::with_capacity(rows.len() + 8);
        frame.put_u32(u32::try_from(rows.len()).expect("a chunk was bounded by the size of a message"));
        frame.put_u32(crc32c::crc32c(rows));
        frame.put_slice(rows);
        self.disk.append(&self.name, &frame)
    }

    /// Makes it durable; its name is what a snapshot then is.
    pub(crate) fn finish(mut self) -> Result<String, EngineError> {
        self.disk.sync(&self.name)?;
        self.finished = true;
        Ok(self.name.clone())
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if !self.finished
            && let Err(error) = self.disk.remove(&self.name)
        {
            tracing::warn!(name = self.name, %error, "a spool file could not be removed");
        }
    }
}

/// Spools a view without a network between: what [`super::network`] and [`super::serve`] do together.
pub(crate) fn spool(view: Arc<dyn StoreRead>, disk: &Arc<dyn Disk>, group_id: u32) -> Result<String, EngineError> {
    let spool = Spool::create(Arc::clone(disk), group_id, seam::random_u64());
    let mut export = Export::new(view, group_id);
    while let Some(rows) = export.chunk()? {
        spool.append(&rows)?;
    }
    spool.finish()
}

/// Replaces all rows of a group by those of a spool file, durably, and removes the file.
pub(crate) async fn import(store: &Arc<dyn Store>, disk: &Arc<dyn Disk>, group_id: u32, name: &str) -> Result<(), SnapshotError> {
    let mark = group_key(group_id, Some(INSTALLING_KIND));
    let mut batch = WriteBatch::default();
    batch.put(Cf::State, mark.clone(), Bytes::copy_from_slice(name.as_bytes()));
    batch.put(Cf::State, group_key(group_id, Some(REPLICA_KIND)), Bytes::new());
    for cf in [Cf::Data, Cf::Changes, Cf::State] {
        let (start, end) = travelling(cf, group_id);
        batch.delete_range(cf, start, end);
    }
    store.write(batch)?;
    let mut offset = 0;
    while let Some((rows, next)) = read_frame(disk, name, offset)? {
        let mut batch = WriteBatch::default();
        read_rows(rows, |cf, key, value| batch.put(cf, key, value))?;
        store.write(batch)?;
        offset = next;
        tokio::task::yield_now().await;
    }
    let mut batch = WriteBatch::default();
    batch.delete(Cf::State, mark);
    store.write(batch)?;
    store.flush().await?;
    disk.remove(name)?;
    Ok(())
}

fn read_frame(disk: &Arc<dyn Disk>, name: &str, offset: u64) -> Result<Option<(Bytes, u64)>, SnapshotError> {
    let header = disk.read(name, offset, 8)?;
    if header.is_empty() {
        return Ok(None);
    }
    let cut = || SnapshotError::Cut { name: name.to_owned(), offset };
    let mut reader = Reader::new(header, "spool frame");
    let (length, crc) = (reader.u32().map_err(|_| cut())?, reader.u32().map_err(|_| cut())?);
    if length > FRAME_BYTES {
        return Err(SnapshotError::Corrupt { name: name.to_owned(), offset });
    }
    let rows = disk.read(name, offset + 8, length as usize)?;
    if rows.len() < length as usize {
        return Err(cut());
    }
    if crc32c::crc32c(&rows) != crc {
        return Err(SnapshotError::Corrupt { name: name.to_owned(), offset });
    }
    Ok(Some((rows, offset + 8 + u64::from(length))))
}

/// Finishes an import that a crash interrupted, and removes the group's other spool files.
pub(crate) async fn recover(store: &Arc<dyn Store>, disk: &Arc<dyn Disk>, group_id: u32) -> Result<(), SnapshotError> {
    if let Some(name) = store.get(Cf::State, &group_key(group_id, Some(INSTALLING_KIND)))? {
        let name = String::from_utf8_lossy(&name).into_owned();
        tracing::info!(group_id, name, "a snapshot was being imported when the node stopped; importing it again");
        if disk.len(&name)?.is_none() {
            return Err(SnapshotError::Cut { name, offset: 0 });
        }
        import(store, disk, group_id, &name).await?;
    }
    let prefix = format!("{SPOOL_PREFIX}{group_id:010}-");
    for name in disk.list()?.iter().filter(|name| name.starts_with(&prefix)) {
        disk.remove(name)?;
    }
    Ok(())
}

/// BLAKE3, in hex, over the newest version of every key of a group and the index up to which it was applied. Replicas that applied the
/// same entries have the same one, whatever history each has dropped.
pub(crate) async fn state_hash(view: Arc<dyn StoreRead>, group_id: u32, applied_index: u64) -> Result<String, EngineError> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&applied_index.to_be_bytes());
    let (start, end) = travelling(Cf::Data, group_id);
    let mut from = start;
    let mut newest = Bytes::new();
    loop {
        let mut bytes = 0;
        let mut next = None;
        for row in view.cursor(Cf::Data, &from[..]..&end[..], false) {
            let (key, value) = row?;
            if bytes >= CHUNK_BYTES {
                next = Some(key);
                break;
            }
            bytes += key.len() + value.len();
            // A row's key ends in its version, inverted: the first of a key is the newest.
            let name = key.slice(..key.len().saturating_sub(8));
            if name == newest {
                continue;
            }
            newest = name;
            let tombstone = value.first() == Some(&0);
            if !tombstone {
                hash_sized(&mut hasher, &key);
                hash_sized(&mut hasher, &value);
            }
        }
        let Some(next) = next else { break };
        from = next;
        tokio::task::yield_now().await;
    }
    Ok(hasher.finalize().to_hex().to_string())
}

fn hash_sized(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_be_bytes());
    hasher.update(bytes);
}

#[cfg(all(test, not(madsim)))]
#[path = "snapshot_tests.rs"]
mod tests;
