//! Reads the segments back when the log is opened.
//!
//! What can be torn is only the last batch of the last segment: every batch before it was synced before the next one was written. So a bad
//! batch there, with no intact batch header behind it, is a write that was never acknowledged, and is cut. Anything else that does not
//! read back is corruption, and is told. The very last batch is proved by an empty one behind it: always in a closed log, and in that of a
//! killed process. Where the power failed the proof may be lost, and rot in that one batch can't be told from a torn write.

use super::format::{self, BatchHeader, HeaderCheck, SegmentHeader, corrupt};
use super::index::Index;
use super::writer::Tail;
use crate::EngineError;
use crate::disk::Disk;
use bytes::Bytes;

struct Segment {
    header: SegmentHeader,
    bytes: Bytes,
}

/// Fills `index` from the segments of a disk; says where the log ends.
pub(super) fn recover(disk: &dyn Disk, index: &mut Index) -> Result<Tail, EngineError> {
    let mut numbers: Vec<u64> = disk.list()?.iter().filter_map(|name| format::segment_number(name)).collect();
    numbers.sort_unstable();
    if let Some(&last) = numbers.last()
        && !began(disk, last, numbers.len() > 1)?
    {
        tracing::warn!(segment = last, "the newest segment of the log was never completed: removed");
        disk.remove(&format::segment_name(last))?;
        numbers.pop();
    }
    let chain = chain(disk, &numbers)?;
    let mut tail = Tail { next_sequence: 1, ..Tail::default() };
    let mut expected = None;
    for (at, header) in chain.iter().enumerate() {
        let trusted = chain.get(at + 1).map(|next| usize::try_from(next.previous_trusted).unwrap_or(usize::MAX));
        let segment = load(disk, *header)?;
        tail = replay(&segment, trusted, expected, index)?;
        expected = Some(tail.next_sequence);
    }
    let mut lengths = Vec::new();
    for number in &numbers {
        lengths.push((*number, disk.len(&format::segment_name(*number))?.unwrap_or(0)));
    }
    index.recovered(&lengths).map_err(|(group, entry)| {
        corrupt(numbers.first().copied().unwrap_or(0), 0, &format!("entry {entry} of group {group} is missing from the log"))
    })?;
    Ok(tail)
}

/// The segments that count, oldest first: the newest, the one it names as the one before it, and so on. A segment that is not among them
/// was given up before anything in it was known to be durable; it goes when those before it go.
fn chain(disk: &dyn Disk, numbers: &[u64]) -> Result<Vec<SegmentHeader>, EngineError> {
    let mut chain = Vec::new();
    let mut next = numbers.last().copied();
    while let Some(number) = next {
        let header = header(disk, number)?;
        chain.push(header);
        let previous = header.previous;
        let held = numbers.contains(&previous);
        if previous >= number || (!held && numbers.iter().any(|older| *older < previous)) {
            return Err(corrupt(number, 0, &format!("segment {previous} is missing before it")));
        }
        next = held.then_some(previous);
    }
    chain.reverse();
    Ok(chain)
}

pub(super) fn header(disk: &dyn Disk, number: u64) -> Result<SegmentHeader, EngineError> {
    let name = format::segment_name(number);
    match SegmentHeader::check(&disk.read(&name, 0, format::SEGMENT_HEADER_BYTES)?) {
        HeaderCheck::Good(header) if header.number == number => Ok(header),
        HeaderCheck::Good(header) => Err(corrupt(number, 0, &format!("holds segment {}", header.number))),
        HeaderCheck::Newer(found) => Err(EngineError::Foreign {
            path: name,
            message: format!(
                "the log has format {found}, this version reads up to {}: run the version that wrote it, or give this node an empty data \
                 folder and let it copy from the others",
                format::FORMAT
            ),
        }),
        HeaderCheck::Bad => Err(corrupt(number, 0, "the header of the segment fails its checksum")),
    }
}

fn load(disk: &dyn Disk, header: SegmentHeader) -> Result<Segment, EngineError> {
    let name = format::segment_name(header.number);
    let length = disk.len(&name)?.unwrap_or(0);
    Ok(Segment { header, bytes: disk.read(&name, 0, usize::try_from(length).unwrap_or(usize::MAX))? })
}

/// Whether the first batch of the newest segment was ever completed. If not, nothing in it was acknowledged.
fn began(disk: &dyn Disk, number: u64, has_older: bool) -> Result<bool, EngineError> {
    let name = format::segment_name(number);
    let length = usize::try_from(disk.len(&name)?.unwrap_or(0)).unwrap_or(usize::MAX);
    let bytes = disk.read(&name, 0, length)?;
    let first = BatchHeader::check(number, &bytes, format::SEGMENT_HEADER_BYTES);
    match SegmentHeader::check(&bytes) {
        HeaderCheck::Newer(_) => return Ok(true),
        HeaderCheck::Good(_) => {
            let whole = first.is_some_and(|header| {
                format::batch_records(number, &bytes[format::SEGMENT_HEADER_BYTES..], format::SEGMENT_HEADER_BYTES, &header).is_ok()
            });
            if whole {
                return Ok(true);
            }
        }
        HeaderCheck::Bad => {}
    }
    // The first batch does not read back. A second one behind it would prove that it once did.
    let found: Vec<u64> = format::batches_behind(number, &bytes, 0).take(2).collect();
    let proven = match (first, found.as_slice()) {
        (_, []) => false,
        (Some(header), found) => found.iter().any(|sequence| *sequence > header.sequence),
        (None, [_]) => matches!(SegmentHeader::check(&bytes), HeaderCheck::Good(header) if found[0] > header.first_batch),
        (None, _) => true,
    };
    if proven {
        return Err(corrupt(number, 0, "the start of the segment does not read back, though batches behind it do"));
    }
    if !has_older && number > 1 {
        return Err(corrupt(number, 0, "the only segment of the log does not read back, and segments before it are gone"));
    }
    Ok(false)
}

/// Replays a segment, up to `trusted` bytes of it, or, for the last one, as far as it goes.
fn replay(segment: &Segment, trusted: Option<usize>, expected: Option<u64>, index: &mut Index) -> Result<Tail, EngineError> {
    let number = segment.header.number;
    let ended = |trusted: usize, next_sequence| Tail { header: Some(segment.header), trusted: trusted as u64, next_sequence };
    if trusted.is_some_and(|trusted| trusted > segment.bytes.len()) {
        return Err(corrupt(number, segment.bytes.len(), "ends before its last batch"));
    }
    let bytes = &segment.bytes[..trusted.unwrap_or(segment.bytes.len())];
    // The last batch before an untrusted tail is repeated in the next segment, under a number that goes on.
    let mut sequence = segment.header.first_batch;
    if expected.is_some_and(|expected| sequence < expected) {
        return Err(corrupt(number, 0, "its batches do not follow those of the segment before it"));
    }
    let mut at = format::SEGMENT_HEADER_BYTES;
    let mut last_batch = at;
    while at < bytes.len() {
        let batch = BatchHeader::check(number, bytes, at).filter(|header| header.sequence == sequence);
        let records = match &batch {
            Some(header) => format::batch_records(number, &bytes[at..], at, header),
            None => Err((at, "the header of a batch fails its checksum")),
        };
        let (header, records) = match (batch, records) {
            (Some(header), Ok(records)) => (header, records),
            (_, Err((offset, message))) if trusted.is_some() => return Err(corrupt(number, offset, message)),
            (_, Err((offset, message))) => {
                if format::batches_behind(number, bytes, at + 1).any(|later| later > sequence) {
                    return Err(corrupt(number, offset, message));
                }
                // Without a header of its own: zeros written ahead, bytes of a retired file, or a write of which nothing had arrived.
                if BatchHeader::check(number, bytes, at).is_some_and(|header| header.sequence == sequence) {
                    tracing::warn!(segment = number, offset, message, "cut a torn write at the end of the log");
                }
                return Ok(ended(last_batch, sequence + 1));
            }
            (None, Ok(_)) => return Err(corrupt(number, at, "a batch without a header")),
        };
        for record in records {
            index
                .replay(record.kind, record.group, record.index, record.payload, record.place)
                .map_err(|message| corrupt(number, record.place.offset as usize, message))?;
        }
        last_batch = at;
        at += format::BATCH_HEADER_BYTES + header.bytes;
        sequence += 1;
    }
    Ok(ended(last_batch, sequence))
}
