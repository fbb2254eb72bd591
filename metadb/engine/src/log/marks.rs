//! What the log knows of a group besides its entries, and the rules of which indexes may follow.
//!
//! Kept twice: in the index as submitted, in the writer as written. Both follow the same rules, which are here.

use bytes::Bytes;
use std::ops::Range;

/// The small facts of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) vote: Option<Bytes>,
    pub(super) committed: Option<Bytes>,
    pub(super) purge_mark: Option<Bytes>,
    /// The indexes held; an empty range says which index must come next; none: any may.
    pub(super) range: Option<Range<u64>>,
}

impl Marks {
    /// Takes the next entry, or says which index it must have.
    pub(super) fn append(&mut self, index: u64) -> Result<(), u64> {
        match &mut self.range {
            None => self.range = Some(index..index + 1),
            Some(range) if range.end == index => range.end += 1,
            Some(range) => return Err(range.end),
        }
        Ok(())
    }

    /// Drops the entries from an index on.
    pub(super) fn truncate(&mut self, from: u64) {
        if let Some(range) = &mut self.range {
            range.end = from.clamp(range.start, range.end);
        }
    }

    /// Drops the entries through an index. A purge that is behind an earlier one changes nothing.
    pub(super) fn purge(&mut self, through: u64, mark: &Bytes) {
        let start = through.saturating_add(1);
        match &mut self.range {
            None => self.range = Some(start..start),
            Some(range) if start > range.start || self.purge_mark.is_none() => {
                range.start = start.max(range.start);
                range.end = range.end.max(range.start);
            }
            Some(_) => return,
        }
        self.purge_mark = Some(mark.clone());
    }
}
