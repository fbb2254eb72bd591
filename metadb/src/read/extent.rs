//! How much a shard holds, about, and where its middle is by bytes: for operators, and for whoever decides what to split and to move.
//!
//! The middle is looked for from the outside: pieces of the keys' space are measured, the one in which the middle lies is cut into pieces
//! again, and as soon as few rows are left they are read. So its cost does not depend on the size of the shard.

use super::{View, storage_error};
use crate::machine::ownership::Range;
use crate::rows::{data, successor};
use bytes::Bytes;
use metadb_engine::{Cf, EngineError, Extent};
use metadb_proto::v1::shard_status::State;
use metadb_proto::{Error, v1};

/// Pieces that are measured at a time.
const PIECES: u64 = 64;
/// How often pieces are cut again: each time by six bits of the keys, behind what all of the piece have in common.
const ROUNDS: usize = 10;
/// So few rows are read, if they are not larger.
const READ_ROWS: usize = 8192;
const READ_BYTES: u64 = 4 << 20;
/// Shards whose middles are looked for by one call.
const MIDDLES_AT_ONCE: usize = 16;

/// A part of the rows, by stems or what lies between them.
#[derive(Debug, Clone)]
struct Piece {
    start: Bytes,
    end: Bytes,
}

/// Keys and the bytes of their rows.
type Keys = Vec<(Bytes, u64)>;

impl View {
    /// Adds to what the group says of shards how much of them is here, and their middles.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the middles of too many are asked for; as storage says.
    pub(crate) async fn measure(&self, shards: &mut [v1::ShardStatus], with_middles: bool) -> Result<(), Error> {
        if with_middles && shards.len() > MIDDLES_AT_ONCE {
            return Err(Error::invalid("with_middles", format!("of at most {MIDDLES_AT_ONCE} shards"), shards.len().to_string()));
        }
        let mut here: Vec<&mut v1::ShardStatus> = shards.iter_mut().filter(|shard| shard.state() != State::Dropped).collect();
        let ranges: Result<Vec<Range>, Error> = here.iter().map(|shard| Range::read(shard.range.clone())).collect();
        let ranges = ranges?;
        let pieces = ranges.iter().map(|range| piece_of(self.group_id, range)).collect();
        let extents = self.extents(pieces).await.map_err(|error| storage_error(&error))?;
        for ((shard, range), extent) in here.iter_mut().zip(&ranges).zip(extents) {
            (shard.bytes, shard.rows) = (extent.bytes, extent.rows);
            if with_middles {
                shard.middle = self.middle(range, extent.bytes).await.map_err(|error| storage_error(&error))?;
            }
        }
        Ok(())
    }

    async fn extents(&self, pieces: Vec<Piece>) -> Result<Vec<Extent>, EngineError> {
        self.store.extents(Cf::Data, pieces.into_iter().map(|piece| piece.start..piece.end).collect()).await
    }

    /// A key with about as much before as behind it, never the first; none if there are not two. `bytes`: of the whole, about.
    async fn middle(&self, range: &Range, bytes: u64) -> Result<Option<Bytes>, EngineError> {
        let whole = piece_of(self.group_id, range);
        let Some((first, _)) = self.ends(&whole)? else { return Ok(None) };
        let (mut piece, mut before, mut half) = (whole.clone(), 0, bytes / 2);
        let mut found = first.clone();
        for _ in 0..ROUNDS {
            let Some((start, last)) = self.ends(&piece)? else { break };
            found = start.clone();
            if start == last {
                break;
            }
            piece.start = start;
            if let Some(keys) = self.few(&piece)? {
                if piece.end == whole.end && before == 0 {
                    half = keys.iter().map(|(_, bytes)| bytes).sum::<u64>() / 2;
                }
                found = nearest(&keys, half.saturating_sub(before));
                break;
            }
            let pieces = cut(&piece, &last);
            let extents = self.extents(pieces.clone()).await?;
            let mut next = None;
            for (part, extent) in pieces.into_iter().zip(extents) {
                next = Some(part);
                if before + extent.bytes > half {
                    break;
                }
                before += extent.bytes;
            }
            piece = next.unwrap_or(piece);
        }
        if found == first {
            let behind = Piece { start: successor(&first).into(), end: whole.end };
            let Some((second, _)) = self.ends(&behind)? else { return Ok(None) };
            found = second;
        }
        data::key_of(&found).map(Some)
    }

    /// The stems of the first and the last row.
    fn ends(&self, piece: &Piece) -> Result<Option<(Bytes, Bytes)>, EngineError> {
        let Some((first, _)) = self.store.first(Cf::Data, &piece.start[..]..&piece.end[..], 0)? else { return Ok(None) };
        let last = self.store.cursor(Cf::Data, &piece.start[..]..&piece.end[..], true).next().transpose()?;
        let last = last.map_or_else(|| first.clone(), |(key, _)| key);
        Ok(Some((data::split(&first)?.0, data::split(&last)?.0)))
    }

    /// The keys of a piece with the bytes of all of their rows, if it is small.
    fn few(&self, piece: &Piece) -> Result<Option<Keys>, EngineError> {
        let (mut keys, mut total): (Keys, u64) = (Vec::new(), 0);
        for (read, row) in self.store.cursor(Cf::Data, &piece.start[..]..&piece.end[..], false).enumerate() {
            let (key, value) = row?;
            let bytes = (key.len() + value.len()) as u64;
            total += bytes;
            if read >= READ_ROWS || total > READ_BYTES {
                return Ok(None);
            }
            let (stem, _) = data::split(&key)?;
            match keys.last_mut().filter(|(last, _)| *last == stem) {
                Some((_, known)) => *known += bytes,
                None => keys.push((stem, bytes)),
            }
        }
        Ok(Some(keys))
    }
}

fn piece_of(group_id: u32, range: &Range) -> Piece {
    let (start, end) = data::range(group_id, range.tenant_id, &range.start, &range.end).unwrap_or_default();
    Piece { start, end }
}

/// Cuts the space of keys from the start of a piece to its last stem into equal parts.
fn cut(piece: &Piece, last: &Bytes) -> Vec<Piece> {
    let common = piece.start.iter().zip(last).take_while(|(a, b)| a == b).count();
    let number = |bytes: &[u8]| {
        let mut word = [0; 8];
        let part = &bytes[common.min(bytes.len())..];
        let taken = part.len().min(word.len());
        word[..taken].copy_from_slice(&part[..taken]);
        u64::from_be_bytes(word)
    };
    let (from, to) = (number(&piece.start), number(last));
    let step = (to.saturating_sub(from) / PIECES).max(1);
    let mut starts = vec![piece.start.clone()];
    for place in (1..PIECES).map(|place| from.saturating_add(step * place)).take_while(|place| *place < to) {
        starts.push([&piece.start[..common], &place.to_be_bytes()].concat().into());
    }
    // The last stem begins a piece of its own, so that there is always progress.
    starts.push(last.clone());
    let ends: Vec<Bytes> = starts.iter().skip(1).cloned().chain([piece.end.clone()]).collect();
    starts.into_iter().zip(ends).map(|(start, end)| Piece { start, end }).collect()
}

/// The key before which there are nearest to so many bytes.
fn nearest(keys: &Keys, wanted: u64) -> Bytes {
    let mut before = 0_u64;
    let places = keys.iter().map(|(stem, bytes)| {
        let here = before;
        before += bytes;
        (here.abs_diff(wanted), stem)
    });
    places.min_by_key(|(distance, _)| *distance).map(|(_, stem)| stem.clone()).unwrap_or_default()
}

#[cfg(test)]
#[path = "extent_tests.rs"]
mod tests;
