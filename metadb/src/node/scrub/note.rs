//! What is remembered of a scrub across restarts: a file `scrub` of the spool, `crc32c u32, since u64, ended u64, began u64, bytes u64,
//! part u8, number u8, place`, numbers big-endian, times in milliseconds. One that does not read back is as none: it holds no promise.

use bytes::{Buf as _, BufMut as _, Bytes};
use metadb_engine::disk::Disk;
use metadb_engine::log::LogPlace;
use metadb_engine::{COLUMN_FAMILIES, EngineError};
use std::time::Duration;

const NAME: &str = "scrub";
const DRAFT: &str = "scrub.draft";
/// Longest place that is believed: a key of the store and what its row adds.
const PLACE_BYTES: u64 = 16 << 10;

/// What is read, in this order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Part {
    #[default]
    Log,
    /// Of the store: its place in [`COLUMN_FAMILIES`].
    Family(u8),
    Marks,
    /// What the process gave.
    Other(u8),
}

impl Part {
    /// The one behind it, with so many others.
    pub(super) fn next(self, others: usize) -> Option<Part> {
        let other = |number: u8| (usize::from(number) < others).then_some(Part::Other(number));
        match self {
            Part::Log => Some(Part::Family(0)),
            Part::Family(number) if usize::from(number) + 1 < COLUMN_FAMILIES.len() => Some(Part::Family(number + 1)),
            Part::Family(_) => Some(Part::Marks),
            Part::Marks => other(0),
            Part::Other(number) => number.checked_add(1).and_then(other),
        }
    }
}

/// What is remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Note {
    /// From when on the interval to the next pass counts.
    pub(super) since_ms: u64,
    /// When a pass last ended; 0: none did.
    pub(super) ended_ms: u64,
    /// When the one under way began; 0: none is.
    pub(super) began_ms: u64,
    /// What that one has read.
    pub(super) bytes: u64,
    pub(super) part: Part,
    /// Where in the part; empty: at its beginning.
    pub(super) from: Bytes,
}

impl Note {
    /// Whether a pass is due. A clock that was set back makes it wait no longer than the interval.
    pub(super) fn is_due(&self, now_ms: u64, interval: Duration) -> bool {
        let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        now_ms.abs_diff(self.since_ms) >= interval_ms
    }

    fn encode(&self) -> Vec<u8> {
        let (part, number) = match self.part {
            Part::Log => (0, 0),
            Part::Family(number) => (1, number),
            Part::Marks => (2, 0),
            Part::Other(number) => (3, number),
        };
        let mut out = vec![0; 4];
        [self.since_ms, self.ended_ms, self.began_ms, self.bytes].into_iter().for_each(|number| out.put_u64(number));
        out.put_u8(part);
        out.put_u8(number);
        out.put_slice(&self.from);
        let crc = crc32c::crc32c(&out[4..]);
        out[..4].copy_from_slice(&crc.to_be_bytes());
        out
    }

    fn decode(mut bytes: &[u8]) -> Option<Note> {
        let crc = bytes.try_get_u32().ok()?;
        if crc32c::crc32c(bytes) != crc {
            return None;
        }
        let mut number = || bytes.try_get_u64().ok();
        let (since_ms, ended_ms, began_ms, read) = (number()?, number()?, number()?, number()?);
        let part = match (bytes.try_get_u8().ok()?, bytes.try_get_u8().ok()?) {
            (0, _) => Part::Log,
            (1, number) => Part::Family(number),
            (2, _) => Part::Marks,
            (3, number) => Part::Other(number),
            _ => return None,
        };
        Some(Note { since_ms, ended_ms, began_ms, bytes: read, part, from: Bytes::copy_from_slice(bytes) })
    }
}

/// What was kept, if it reads back.
pub(super) fn load(spool: &dyn Disk) -> Option<Note> {
    let length = spool.len(NAME).ok()??.min(PLACE_BYTES);
    let mut note = Note::decode(&spool.read(NAME, 0, usize::try_from(length).ok()?).ok()?)?;
    if note.part == Part::Log {
        // Of the log only the segment: it may be another log by now, whose batches begin elsewhere.
        note.from.truncate(size_of::<u64>());
    }
    Some(note)
}

/// Keeps it, durably, in place of the one before.
pub(super) fn keep(spool: &dyn Disk, note: &Note) -> Result<(), EngineError> {
    spool.remove(DRAFT)?;
    spool.append(DRAFT, &note.encode())?;
    spool.sync(DRAFT)?;
    spool.rename(DRAFT, NAME)
}

/// A place in the log, from its bytes.
pub(super) fn log_place(mut bytes: &[u8]) -> LogPlace {
    let segment = bytes.try_get_u64().unwrap_or(0);
    LogPlace { segment, offset: bytes.try_get_u64().unwrap_or(0) }
}

/// The bytes of a place in the log.
pub(super) fn log_bytes(place: LogPlace) -> Bytes {
    [place.segment.to_be_bytes(), place.offset.to_be_bytes()].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use metadb_engine::sim::{Kind, SimDisk};

    #[test]
    fn what_is_kept_outlives_a_crash_and_rot_is_as_nothing() {
        let disk = SimDisk::new(1);
        assert_eq!(load(&*disk), None);
        let place = log_bytes(LogPlace { segment: 7, offset: 1 << 20 });
        let note = Note { since_ms: 1, ended_ms: 2, began_ms: 3, bytes: 4, part: Part::Log, from: place };
        keep(&*disk, &Note { part: Part::Other(3), ..note.clone() }).expect("it keeps");
        keep(&*disk, &note).expect("it keeps");
        disk.crash(Kind::PowerLoss);
        assert_eq!(log_place(&note.from), LogPlace { segment: 7, offset: 1 << 20 });
        let loaded = load(&*disk).expect("it reads back");
        assert_eq!(log_place(&loaded.from), LogPlace { segment: 7, offset: 0 }, "a segment is begun anew");
        assert_eq!(Note { from: note.from.clone(), ..loaded }, note);
        for offset in 0..note.encode().len() as u64 {
            assert!(disk.flip(NAME, offset, 1));
            assert_eq!(load(&*disk), None, "at {offset}");
            assert!(disk.flip(NAME, offset, 1));
        }
    }

    #[test]
    fn parts_follow_each_other_and_end() {
        let all: Vec<Part> = std::iter::successors(Some(Part::Log), |part| part.next(2)).collect();
        assert_eq!(all, [Part::Log, Part::Family(0), Part::Family(1), Part::Family(2), Part::Marks, Part::Other(0), Part::Other(1)]);
        assert_eq!(Part::Marks.next(0), None);
    }

    #[test]
    fn a_pass_is_due_when_the_interval_is_over_also_by_a_clock_that_was_set_back() {
        let note = Note { since_ms: 1_000_000, ..Note::default() };
        assert!(!note.is_due(1_000_999, Duration::from_secs(1)));
        assert!(note.is_due(1_001_000, Duration::from_secs(1)));
        assert!(note.is_due(5, Duration::from_secs(1)), "the note is of the future");
    }
}
