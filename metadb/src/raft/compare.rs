//! Replicas compare their states: each hashes the same slice of its rows, as they are right behind the same entry, and the leader asks
//! for the hashes. What checksums can't tell shows so: a replica that applied an entry otherwise, or whose row was altered before it was
//! checksummed.
//!
//! **What is compared**: every row of the group, byte for byte, in each column family from the slice's key on, but for the node's own marks
//! ([`super::snapshot`]). All of them follow from the log alone: superseded versions, change rows, remembered requests, shards, the applied
//! position. A row that a compaction may drop on one replica and not yet on another would have to be left out here first; there is none.
//! What a node keeps in memory (hot rows, filters) is not compared.
//!
//! A slice ends with the row that makes it large enough, so that no comparison costs more than a slice, and one after the other goes through
//! all rows. The view is taken when the entry is applied and let go when the slice was read: meanwhile the group goes on.
//!
//! Not here: when a slice is asked for, and what is done about a difference ([`crate::node`]).

pub(crate) mod verdict;

use super::codec::decode_log_id;
use super::link::Links;
use super::snapshot::{hash_sized, travelling};
use crate::machine::Slice;
use crate::metrics::HANDLES;
use bytes::Bytes;
use metadb_engine::{COLUMN_FAMILIES, Cf, EngineError};
use metadb_proto::v1::{NodeRef, PeerVerb, SliceHash};
use metadb_proto::{Error, v1};
use parking_lot::Mutex;
use prost::Message as _;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use verdict::Hash;

/// Bytes of rows that are read before others get their turn.
const TURN_BYTES: u64 = 256 << 10;
/// Most that a slice may ask for, whatever an entry says.
const SLICE_BYTES_MAX: u64 = 64 << 20;
/// How long a replica waits until it has hashed a slice that it is asked for.
const HASHED_WITHIN: Duration = Duration::from_millis(1500);
/// How long the leader waits for its answer: longer by what messages take.
const ANSWER_WITHIN: Duration = Duration::from_millis(2000);
/// When a replica may be asked again.
const RETRY: Duration = Duration::from_millis(500);

/// A place in the rows of a group: a column family's number, and a key of it; empty: its first row.
pub(crate) type Place = (u8, Bytes);

/// What a replica found in a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hashed {
    /// Of the entry that asked for it.
    pub(crate) position: Bytes,
    pub(crate) hash: Hash,
    pub(crate) bytes: u64,
    /// Where the next slice begins; none: these were the last rows.
    pub(crate) next: Option<Place>,
}

#[derive(Default)]
struct State {
    /// Rises when what is under way is not wanted any more.
    generation: u64,
    last: Option<Hashed>,
}

/// The slices of one replica: one is hashed at a time, and the last is remembered.
pub(crate) struct Slices {
    group_id: u32,
    state: Mutex<State>,
    ended: tokio::sync::Notify,
}

impl Slices {
    pub(super) fn new(group_id: u32) -> Arc<Self> {
        Arc::new(Slices { group_id, state: Mutex::default(), ended: tokio::sync::Notify::new() })
    }

    /// Begins to hash a slice. One that is under way is given up: a replica that catches up meets many.
    pub(super) fn hash(self: &Arc<Self>, slice: Slice) {
        let generation = self.forget();
        let slices = Arc::clone(self);
        tokio::spawn(async move {
            match slices.read(slice, generation).await {
                Ok(Some(hashed)) => slices.note(hashed, generation),
                Ok(None) => {}
                Err(error) => tracing::warn!(group_id = slices.group_id, %error, "a slice of the state could not be read"),
            }
        });
    }

    /// Gives up what is under way: the rows below its view are about to go.
    pub(super) fn forget(&self) -> u64 {
        let mut state = self.state.lock();
        state.generation += 1;
        state.generation
    }

    fn is_wanted(&self, generation: u64) -> bool {
        self.state.lock().generation == generation
    }

    fn note(&self, hashed: Hashed, generation: u64) {
        let mut state = self.state.lock();
        if state.generation != generation {
            return;
        }
        HANDLES.compared_bytes.increment(hashed.bytes);
        state.last = Some(hashed);
        drop(state);
        self.ended.notify_waiters();
    }

    async fn read(&self, slice: Slice, generation: u64) -> Result<Option<Hashed>, EngineError> {
        let Slice { position, family, from, max_bytes, view } = slice;
        let (start, end) = travelling(family, self.group_id);
        let mut hasher = blake3::Hasher::new();
        let mut from = from.max(start);
        let (mut bytes, max_bytes) = (0, max_bytes.clamp(1, SLICE_BYTES_MAX));
        let next = loop {
            if !self.is_wanted(generation) {
                return Ok(None);
            }
            let (mut turn, mut next) = (0, None);
            // An end that is none is behind every key; so is a place that is behind the end.
            if !end.is_empty() && from >= end {
                break None;
            }
            for row in view.cursor(family, &from[..]..&end[..], false) {
                let (key, value) = row?;
                if turn >= TURN_BYTES || bytes >= max_bytes {
                    next = Some(key);
                    break;
                }
                turn += (key.len() + value.len()) as u64;
                bytes += (key.len() + value.len()) as u64;
                hash_sized(&mut hasher, &key);
                hash_sized(&mut hasher, &value);
            }
            match next {
                Some(key) if bytes < max_bytes => from = key,
                next => break next,
            }
            tokio::task::yield_now().await;
        };
        // Where it ended is part of what must be the same: a row that one replica lacks there is a difference.
        hash_sized(&mut hasher, next.as_deref().unwrap_or_default());
        let next = next.map(|key| (number(family), key)).or_else(|| following(family).map(|family| (family, Bytes::new())));
        Ok(Some(Hashed { position, hash: *hasher.finalize().as_bytes(), bytes, next }))
    }

    /// The last one that was hashed.
    pub(crate) fn last(&self) -> Option<Hashed> {
        self.state.lock().last.clone()
    }

    /// What was found behind an entry, as soon as it is.
    pub(crate) async fn at(&self, position: &[u8]) -> Option<Hashed> {
        let found = async {
            loop {
                let mut ended = std::pin::pin!(self.ended.notified());
                ended.as_mut().enable();
                if let Some(last) = self.last().filter(|last| last.position == position) {
                    return last;
                }
                ended.await;
            }
        };
        tokio::time::timeout(HASHED_WITHIN, found).await.ok()
    }

    /// As the status tells it; what only a leader knows is left open.
    pub(crate) fn status(&self) -> Option<v1::ComparisonStatus> {
        let last = self.last()?;
        let index = decode_log_id(last.position).map_or(0, |id| id.index);
        Some(v1::ComparisonStatus { index, hash: hex::encode(last.hash), ..Default::default() })
    }
}

fn number(family: Cf) -> u8 {
    let number = COLUMN_FAMILIES.iter().position(|other| *other == family).and_then(|at| u8::try_from(at).ok());
    number.expect("every family is in the list, which is short")
}

/// The family whose rows come next.
fn following(family: Cf) -> Option<u8> {
    let next = number(family) + 1;
    (usize::from(next) < COLUMN_FAMILIES.len()).then_some(next)
}

/// At which entry of the log a slice was asked for.
pub(crate) fn index_of(position: &Bytes) -> u64 {
    decode_log_id(position.clone()).map_or(0, |id| id.index)
}

/// Asks replicas what they found behind an entry. Who does not answer in time is missing.
pub(crate) async fn ask(links: &Links, group_id: u32, nodes: &[NodeRef], position: &Bytes) -> BTreeMap<u64, Hash> {
    let asked = nodes.iter().map(|node| async move {
        let payload = SliceHash { position: position.clone(), hash: Bytes::new() }.encode_to_vec();
        let link = links.to(node.node_id, &node.address);
        let answer = link.call(group_id, PeerVerb::Compare, payload.into(), ANSWER_WITHIN).await.ok()?;
        let SliceHash { position: of, hash } = SliceHash::decode(answer).ok()?;
        (of == *position).then_some(())?;
        Some((node.node_id, Hash::try_from(&hash[..]).ok()?))
    });
    futures::future::join_all(asked).await.into_iter().flatten().collect()
}

/// Tells a replica that most others found something else behind an entry. Whether it took note.
pub(crate) async fn distrust(links: &Links, group_id: u32, node: &NodeRef, position: &Bytes, right: &Hash) -> bool {
    let payload = SliceHash { position: position.clone(), hash: Bytes::copy_from_slice(right) }.encode_to_vec();
    let told = links.to(node.node_id, &node.address).call(group_id, PeerVerb::Distrust, payload.into(), ANSWER_WITHIN).await;
    told.inspect_err(|error| tracing::warn!(group_id, node = node.node_id, %error, "a replica that differs could not be told")).is_ok()
}

/// Answers what the leader asks.
pub(super) async fn serve(slices: &Slices, payload: Bytes) -> Result<Bytes, Error> {
    let asked = read(payload)?;
    let found = slices.at(&asked.position).await;
    let found = found.ok_or_else(|| Error::unavailable("this replica has not hashed that slice", RETRY))?;
    Ok(SliceHash { position: found.position, hash: Bytes::copy_from_slice(&found.hash) }.encode_to_vec().into())
}

/// Takes note that most others found something else behind an entry. Why this replica is not to be trusted; none, if it did find that.
pub(super) fn differs(slices: &Slices, payload: Bytes) -> Result<Option<String>, Error> {
    let told = read(payload)?;
    let found = slices.last().filter(|last| last.position == told.position);
    let found = found.ok_or_else(|| Error::unavailable("this replica has not hashed that slice", RETRY))?;
    Ok((found.hash[..] != told.hash[..]).then(|| reason(&told.position)))
}

/// Why a replica is not to be trusted.
pub(crate) fn reason(position: &Bytes) -> String {
    format!("its state behind entry {} is not the one that most replicas of the group have", index_of(position))
}

fn read(payload: Bytes) -> Result<SliceHash, Error> {
    SliceHash::decode(payload).map_err(|error| Error::invalid("payload", "the hash of a slice", error.to_string()))
}

#[cfg(all(test, not(madsim)))]
mod tests;
