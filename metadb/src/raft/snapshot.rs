//! A replica's whole state, on its way from one node to another as sorted files: never in memory, always in bounded chunks.
//!
//! * [`outgoing`]: the sender writes the group's rows, as they are in a view, into files; [`manifest`] says what they are.
//! * [`incoming`]: the receiver takes chunks into files of its own, and goes on where an earlier transfer of the same snapshot stopped.
//! * [`import`]: the files take the place of what the group had. The *installing* mark makes that safe against a crash at every point.
//! * [`depot`]: what the snapshots of a node share: the folder, the rate, the counts.
//!
//! | what | is |
//! | --- | --- |
//! | files at the sender | `snapshot-out-<group>-<nonce>-<number>`: removed when the node starts |
//! | files at the receiver | `snapshot-in-<group>-<id>-<number>`, and `…-manifest`, which is there before them |
//! | `installing` mark | `group u32, 0xff` → the snapshot's id |
//! | `replica` mark | `group u32, 0xfe` → empty; says that this node has a replica of the group |

pub(crate) mod depot;
pub(crate) mod import;
pub(crate) mod incoming;
pub(crate) mod manifest;
pub(crate) mod outgoing;
mod throttle;

use super::codec::CodecError;
use bytes::{BufMut as _, Bytes, BytesMut};
use metadb_engine::{Cf, EngineError, Store, StoreRead, WriteBatch};
use outgoing::Outgoing;
use std::sync::Arc;

pub(crate) use manifest::CHUNK_BYTES_MAX;

/// Bytes of rows that a hash reads before others get their turn.
const HASH_TURN_BYTES: usize = 1 << 20;
/// What the name of every file being sent begins with.
const OUT_PREFIX: &str = "snapshot-out-";
/// What the name of every file being received begins with.
const IN_PREFIX: &str = "snapshot-in-";
/// Kinds of `Cf::State` rows from here on belong to the node and do not travel.
const FIRST_LOCAL_KIND: u8 = 0xfe;
const REPLICA_KIND: u8 = 0xfe;
const INSTALLING_KIND: u8 = 0xff;

/// What travels.
pub(crate) enum SnapshotData {
    /// At the sender: a view of the store, or files made of it.
    Outgoing(Arc<Outgoing>),
    /// At the receiver: the id of a snapshot that is here whole.
    Received(String),
}

/// Why a snapshot could not be taken further.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    /// Storage refused.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A manifest that can't be read.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The snapshot, or its manifest, is not here any more.
    #[error("the snapshot is gone")]
    Gone,
    /// A file that is not what the manifest says.
    #[error("snapshot file {name} is corrupt at byte {offset}")]
    Corrupt {
        /// The file.
        name: String,
        /// Where.
        offset: u64,
    },
    /// A chunk that does not follow what is there.
    #[error("a chunk at byte {offset} of file {file}, which does not go on there")]
    OutOfOrder {
        /// Number of the file.
        file: usize,
        /// Where the chunk claims to begin.
        offset: u64,
    },
}

/// What the names of all files of snapshots of a group begin with.
pub(super) fn file_prefixes(group_id: u32) -> [String; 2] {
    [incoming_prefix(group_id), format!("{OUT_PREFIX}{group_id:010}-")]
}

/// What the names of all files received for a group begin with.
fn incoming_prefix(group_id: u32) -> String {
    format!("{IN_PREFIX}{group_id:010}-")
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
pub(super) fn travelling(cf: Cf, group_id: u32) -> (Bytes, Bytes) {
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
            if bytes >= HASH_TURN_BYTES {
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

pub(super) fn hash_sized(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_be_bytes());
    hasher.update(bytes);
}

#[cfg(all(test, not(madsim)))]
#[path = "snapshot_tests.rs"]
mod tests;
