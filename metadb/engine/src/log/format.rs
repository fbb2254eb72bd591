//! The bytes of a log segment: one header, then batches of records. Everything is little-endian.
//!
//! ```text
//! segment  magic 8 | format u32 | header bytes u32 | number u64 | previous number u64 | previous trusted bytes u64 | first batch u64
//!          | zeros to 60 | crc32c u32                                                                                     (64 bytes)
//! batch    magic u32 | crc32c u32 | sequence u64 | bytes of its records u32 | records u32 | zeros 8                       (32 bytes)
//! record   crc32c u32 | payload bytes u32 | kind u8 | zeros 3 | group u32 | index u64                                    (24 bytes)
//!          | payload
//! ```
//!
//! * A batch is what one sync made durable. Batch n+1 is written only after batch n was synced: so whatever is behind an intact batch
//!   header was durable once, and if it does not read back, it is corrupt, not torn.
//! * A new segment says how far the one before it is to be believed. Opening a log starts a new segment, which repeats what is alive of
//!   the last batch: a torn or doubtful tail is never written upon and never read again.
//! * Checksums are seeded with the segment's number and the offset: bytes in the wrong place do not pass.
//! * Anything but the next batch where a batch could start is the end of the segment: files are extended ahead of time by zeros, or
//!   written over retired ones, whose bytes fail the checksums here.

use super::marks::Marks;
use crate::EngineError;
use bytes::{Buf, BufMut, Bytes};
use std::collections::BTreeMap;

/// The format this code writes, and the newest it reads.
pub(super) const FORMAT: u32 = 1;
pub(super) const SEGMENT_HEADER_BYTES: usize = 64;
pub(super) const BATCH_HEADER_BYTES: usize = 32;
pub(super) const RECORD_HEADER_BYTES: usize = 24;
const SEGMENT_MAGIC: [u8; 8] = *b"CAIRNLOG";
const BATCH_MAGIC: [u8; 4] = [0xC5, b'B', b'a', 0x9E];
const HEADER_CRC_AT: usize = SEGMENT_HEADER_BYTES - 4;

/// What a record says. The numbers are frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A log entry behind the last one of its group.
    Entry = 1,
    /// A live entry of an older segment, repeated.
    Copied = 2,
    /// The entries from `index` on are gone.
    Truncate = 3,
    /// The vote.
    Vote = 4,
    /// The committed position.
    Committed = 5,
    /// The entries through `index` are gone; the payload is the mark.
    Purge = 6,
    /// Everything of the group is gone.
    Forget = 7,
    /// The marks of all groups at this point: what older segments say besides entries is settled by it.
    Checkpoint = 8,
}

impl Kind {
    fn from_number(number: u8) -> Option<Self> {
        [Self::Entry, Self::Copied, Self::Truncate, Self::Vote, Self::Committed, Self::Purge, Self::Forget, Self::Checkpoint]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }
}

/// The name of a segment.
pub(super) fn segment_name(number: u64) -> String {
    format!("log-{number:020}.seg")
}

/// The number in the name of a segment.
pub(super) fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("log-")?.strip_suffix(".seg")?;
    (digits.len() == 20).then(|| digits.parse().ok()).flatten()
}

/// A file offset as the log keeps it. Segments are far below 4 GiB.
pub(super) fn offset32(offset: usize) -> u32 {
    u32::try_from(offset).expect("a segment is at most its size limit and one batch, far below 4 GiB")
}

fn seed(segment: u64, offset: usize) -> u32 {
    let folded = (segment ^ (segment >> 32)).wrapping_mul(0x9E37_79B1) ^ (offset as u64).wrapping_mul(0x85EB_CA6B);
    u32::try_from(folded & 0xFFFF_FFFF).unwrap_or(0)
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u32::from_le_bytes(*chunk))
}

fn read_u64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

/// The first bytes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) number: u64,
    /// The segment before; 0: none.
    pub(super) previous: u64,
    /// How many bytes of it count.
    pub(super) previous_trusted: u64,
    pub(super) first_batch: u64,
}

/// What the start of a file turned out to be.
pub(super) enum HeaderCheck {
    Good(SegmentHeader),
    /// Written by a newer version.
    Newer(u32),
    Bad,
}

impl SegmentHeader {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_slice(&SEGMENT_MAGIC);
        out.put_u32_le(FORMAT);
        out.put_u32_le(offset32(SEGMENT_HEADER_BYTES));
        out.put_u64_le(self.number);
        out.put_u64_le(self.previous);
        out.put_u64_le(self.previous_trusted);
        out.put_u64_le(self.first_batch);
        out.resize(start + HEADER_CRC_AT, 0);
        let crc = crc32c::crc32c(&out[start..]);
        out.put_u32_le(crc);
    }

    pub(super) fn check(bytes: &[u8]) -> HeaderCheck {
        if bytes.len() < SEGMENT_HEADER_BYTES || bytes[..8] != SEGMENT_MAGIC {
            return HeaderCheck::Bad;
        }
        if crc32c::crc32c(&bytes[..HEADER_CRC_AT]) != read_u32(bytes, HEADER_CRC_AT) {
            return HeaderCheck::Bad;
        }
        let format = read_u32(bytes, 8);
        if format > FORMAT {
            return HeaderCheck::Newer(format);
        }
        HeaderCheck::Good(Self {
            number: read_u64(bytes, 16),
            previous: read_u64(bytes, 24),
            previous_trusted: read_u64(bytes, 32),
            first_batch: read_u64(bytes, 40),
        })
    }
}

/// Where a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) offset: u32,
    /// With its header.
    pub(super) bytes: u32,
}

/// Encodes one append to a segment: at most one segment header, then one batch.
#[derive(Debug)]
pub(super) struct BatchEncoder {
    buffer: Vec<u8>,
    segment: u64,
    /// The file offset of the buffer's first byte.
    base: usize,
    batch_at: usize,
    sequence: u64,
    records: u32,
}

impl BatchEncoder {
    /// Starts a batch at `base` of a segment; `header`: the segment is new.
    pub(super) fn new(mut buffer: Vec<u8>, segment: u64, base: usize, sequence: u64, header: Option<SegmentHeader>) -> Self {
        buffer.clear();
        if let Some(header) = header {
            header.encode(&mut buffer);
        }
        let batch_at = buffer.len();
        buffer.resize(batch_at + BATCH_HEADER_BYTES, 0);
        Self { buffer, segment, base, batch_at, sequence, records: 0 }
    }

    pub(super) fn record(&mut self, kind: Kind, group: u32, index: u64, payload: &[u8]) -> Place {
        let at = self.buffer.len();
        let offset = self.base + at;
        self.buffer.reserve(RECORD_HEADER_BYTES + payload.len());
        self.buffer.put_u32_le(0);
        self.buffer.put_u32_le(offset32(payload.len()));
        self.buffer.put_slice(&[kind as u8, 0, 0, 0]);
        self.buffer.put_u32_le(group);
        self.buffer.put_u64_le(index);
        self.buffer.put_slice(payload);
        let crc = crc32c::crc32c_append(seed(self.segment, offset), &self.buffer[at + 4..]);
        self.buffer[at..at + 4].copy_from_slice(&crc.to_le_bytes());
        self.records += 1;
        Place { segment: self.segment, offset: offset32(offset), bytes: offset32(self.buffer.len() - at) }
    }

    /// The bytes to append, and the buffer to use again.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let length = offset32(self.buffer.len() - self.batch_at - BATCH_HEADER_BYTES);
        let offset = self.base + self.batch_at;
        let header = &mut self.buffer[self.batch_at..self.batch_at + BATCH_HEADER_BYTES];
        header[..4].copy_from_slice(&BATCH_MAGIC);
        header[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        header[16..20].copy_from_slice(&length.to_le_bytes());
        header[20..24].copy_from_slice(&self.records.to_le_bytes());
        let crc = crc32c::crc32c_append(seed(self.segment, offset), &header[8..]);
        header[4..8].copy_from_slice(&crc.to_le_bytes());
        self.buffer
    }
}

/// The header of a batch that was found intact.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchHeader {
    pub(super) sequence: u64,
    /// Bytes of its records.
    pub(super) bytes: usize,
    pub(super) records: u32,
}

impl BatchHeader {
    /// Reads the header of a batch at `offset` of a segment whose bytes are given.
    pub(super) fn check(segment: u64, bytes: &[u8], offset: usize) -> Option<Self> {
        Self::read(segment, bytes.get(offset..)?, offset)
    }

    /// Reads the header of the batch that starts `bytes`, which lie at `offset` of a segment.
    pub(super) fn read(segment: u64, bytes: &[u8], offset: usize) -> Option<Self> {
        let header = bytes.get(..BATCH_HEADER_BYTES)?;
        if header[..4] != BATCH_MAGIC || crc32c::crc32c_append(seed(segment, offset), &header[8..]) != read_u32(header, 4) {
            return None;
        }
        Some(Self { sequence: read_u64(header, 8), bytes: read_u32(header, 16) as usize, records: read_u32(header, 20) })
    }
}

/// Sequence numbers of all intact batch headers from `offset` on, wherever they start.
pub(super) fn batches_behind(segment: u64, bytes: &[u8], offset: usize) -> impl Iterator<Item = u64> {
    let rest = bytes.get(offset..).unwrap_or_default();
    rest.windows(BATCH_MAGIC.len())
        .enumerate()
        .filter(|(_, window)| *window == BATCH_MAGIC)
        .filter_map(move |(at, _)| BatchHeader::check(segment, bytes, offset + at).map(|header| header.sequence))
}

/// A record that was found intact.
#[derive(Debug)]
pub(super) struct RecordView<'a> {
    pub(super) kind: Kind,
    pub(super) group: u32,
    pub(super) index: u64,
    pub(super) payload: &'a [u8],
    pub(super) place: Place,
}

impl<'a> RecordView<'a> {
    /// Reads the record that starts `bytes`, which lie at `offset` of a segment.
    pub(super) fn check(segment: u64, bytes: &'a [u8], offset: usize) -> Result<Self, &'static str> {
        let header = bytes.get(..RECORD_HEADER_BYTES).ok_or("ends inside the header of a record")?;
        let end = RECORD_HEADER_BYTES + read_u32(header, 4) as usize;
        let record = bytes.get(..end).ok_or("ends inside a record")?;
        if crc32c::crc32c_append(seed(segment, offset), &record[4..]) != read_u32(header, 0) {
            return Err("a record fails its checksum");
        }
        let kind = Kind::from_number(header[8]).ok_or("a record of an unknown kind")?;
        Ok(Self {
            kind,
            group: read_u32(header, 12),
            index: read_u64(header, 16),
            payload: &record[RECORD_HEADER_BYTES..],
            place: Place { segment, offset: offset32(offset), bytes: offset32(end) },
        })
    }
}

/// The records of an intact batch that starts `bytes`, which lie at `offset` of a segment.
pub(super) fn batch_records<'a>(
    segment: u64,
    bytes: &'a [u8],
    offset: usize,
    header: &BatchHeader,
) -> Result<Vec<RecordView<'a>>, (usize, &'static str)> {
    let mut at = BATCH_HEADER_BYTES;
    let end = at + header.bytes;
    let content = bytes.get(..end).ok_or((offset, "ends inside a batch"))?;
    let mut records = Vec::new();
    while at < end {
        let record = RecordView::check(segment, &content[at..], offset + at).map_err(|message| (offset + at, message))?;
        at += record.place.bytes as usize;
        records.push(record);
    }
    if records.len() != header.records as usize {
        return Err((offset, "a batch with another number of records than it says"));
    }
    Ok(records)
}

/// Encodes the marks of all groups.
pub(super) fn encode_checkpoint(groups: &BTreeMap<u32, Marks>) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_u32_le(offset32(groups.len()));
    for (group, marks) in groups {
        out.put_u32_le(*group);
        for mark in [&marks.vote, &marks.committed, &marks.purge_mark] {
            match mark {
                Some(bytes) => {
                    out.put_u8(1);
                    out.put_u32_le(offset32(bytes.len()));
                    out.put_slice(bytes);
                }
                None => out.put_u8(0),
            }
        }
        match &marks.range {
            Some(range) => {
                out.put_u8(1);
                out.put_u64_le(range.start);
                out.put_u64_le(range.end);
            }
            None => out.put_u8(0),
        }
    }
    out
}

/// Decodes what [`encode_checkpoint`] made; none: it is not that.
pub(super) fn decode_checkpoint(mut bytes: &[u8]) -> Option<BTreeMap<u32, Marks>> {
    let count = bytes.try_get_u32_le().ok()?;
    let mut groups = BTreeMap::new();
    for _ in 0..count {
        let group = bytes.try_get_u32_le().ok()?;
        let mut mark = || -> Option<Option<Bytes>> {
            if bytes.try_get_u8().ok()? == 0 {
                return Some(None);
            }
            let length = bytes.try_get_u32_le().ok()? as usize;
            let (mark, rest) = bytes.split_at_checked(length)?;
            bytes = rest;
            Some(Some(Bytes::copy_from_slice(mark)))
        };
        let (vote, committed, purge_mark) = (mark()?, mark()?, mark()?);
        let range = match bytes.try_get_u8().ok()? {
            0 => None,
            _ => Some(bytes.try_get_u64_le().ok()?..bytes.try_get_u64_le().ok()?),
        };
        groups.insert(group, Marks { vote, committed, purge_mark, range });
    }
    bytes.is_empty().then_some(groups)
}

/// The error for bytes of a segment that do not read back.
pub(super) fn corrupt(segment: u64, offset: usize, message: &str) -> EngineError {
    EngineError::Corrupt { path: segment_name(segment), offset: offset as u64, message: message.to_owned() }
}
