//! The live rows of a range as of a version: of each key the newest row not above the version, unless it is a deletion.

use crate::rows::data::{self, Stored};
use crate::rows::successor;
use bytes::Bytes;
use metadb_engine::{Cf, Cursor, EngineError, Row, StoreRead};
use metadb_proto::Version;

/// Rows of one key passed over before a new cursor is opened behind them: about what opening one costs.
const SKIPPED_ROWS: u32 = 8;

/// The newest row of a key at or below a version; a deletion is one too.
pub(crate) fn newest(store: &dyn StoreRead, stem: &[u8], at: Version) -> Result<Option<Stored>, EngineError> {
    let start = data::row_key(stem, at);
    let end = successor(stem);
    match store.first(Cf::Data, &start[..]..&end[..], stem.len())? {
        Some((key, row)) => Stored::read(data::split(&key)?.1, row).map(Some),
        None => Ok(None),
    }
}

/// Live rows in the order of their keys, or in reverse.
pub(crate) struct Live<'a> {
    store: &'a dyn StoreRead,
    cursor: Cursor<'a>,
    start: Bytes,
    end: Bytes,
    reverse: bool,
    at: Version,
    /// The key being passed: what it has at the version, as far as seen.
    current: Option<(Bytes, Option<Stored>)>,
    skipped: u32,
    done: bool,
}

/// A stem and what is stored for it.
pub(crate) type LiveRow = (Bytes, Stored);

impl<'a> Live<'a> {
    /// The rows between two stems, the second exclusive.
    pub(crate) fn new(store: &'a dyn StoreRead, range: (Bytes, Bytes), reverse: bool, at: Version) -> Self {
        let (start, end) = range;
        let cursor = store.cursor(Cf::Data, &start[..]..&end[..], reverse);
        Live { store, cursor, start, end, reverse, at, current: None, skipped: 0, done: false }
    }

    /// Takes one stored row in; gives the key before it, if that is complete now and live.
    fn take(&mut self, row: Row) -> Result<Option<LiveRow>, EngineError> {
        let (stem, version) = data::split(&row.0)?;
        let same = self.current.as_ref().is_some_and(|(current, _)| *current == stem);
        let finished = if same { None } else { self.current.replace((stem, None)) };
        if !same {
            self.skipped = 0;
        }
        if let Some((_, best)) = &mut self.current
            && version <= self.at
            && best.as_ref().is_none_or(|best| best.version < version)
        {
            *best = Some(Stored::read(version, row.1)?);
        }
        if same {
            self.skipped += 1;
            if self.skipped >= SKIPPED_ROWS {
                self.jump()?;
            }
        }
        Ok(finished.and_then(live))
    }

    /// Leaves the rest of the current key's rows behind.
    fn jump(&mut self) -> Result<(), EngineError> {
        let Some((stem, best)) = &mut self.current else { return Ok(()) };
        self.skipped = 0;
        // Forwards the newest comes first: what was found is what is looked for.
        if self.reverse || best.is_none() {
            *best = newest(self.store, stem, self.at)?;
        }
        if self.reverse {
            self.end = stem.clone();
        } else {
            self.start = successor(stem).into();
        }
        self.cursor = if !self.end.is_empty() && self.start >= self.end {
            Box::new(std::iter::empty())
        } else {
            self.store.cursor(Cf::Data, &self.start[..]..&self.end[..], self.reverse)
        };
        Ok(())
    }
}

fn live((stem, stored): (Bytes, Option<Stored>)) -> Option<LiveRow> {
    stored.filter(Stored::is_live).map(|stored| (stem, stored))
}

impl Iterator for Live<'_> {
    type Item = Result<LiveRow, EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.done {
            let Some(row) = self.cursor.next() else {
                self.done = true;
                return self.current.take().and_then(live).map(Ok);
            };
            match row.and_then(|row| self.take(row)) {
                Ok(Some(row)) => return Some(Ok(row)),
                Ok(None) => {}
                Err(error) => {
                    self.done = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}
