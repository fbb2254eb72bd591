//! Reading RocksDB: of the latest state or through a snapshot, by the same code.

use super::{Place, VERSION_BYTES, family};
use crate::{Cf, Cursor, EngineError, Row, StoreRead};
use bytes::Bytes;
use rocksdb::{DB, DBRawIterator, ReadOptions, SnapshotWithThreadMode};
use std::ops::Range;
use std::sync::Arc;

type Borrowed<'a> = SnapshotWithThreadMode<'a, DB>;

self_cell::self_cell!(
    struct Held {
        owner: Arc<DB>,

        #[covariant]
        dependent: Borrowed,
    }
);

/// A snapshot that keeps its store open.
pub(super) struct OwnedSnapshot {
    held: Held,
    place: Arc<Place>,
}

impl OwnedSnapshot {
    pub(super) fn of(db: Arc<DB>, place: Arc<Place>) -> Self {
        Self { held: Held::new(db, |db| db.snapshot()), place }
    }

    fn reader(&self) -> Reader<'_> {
        Reader { db: self.held.borrow_owner(), snapshot: Some(self.held.borrow_dependent()), place: &self.place }
    }
}

impl StoreRead for OwnedSnapshot {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.reader().get(cf, key)
    }

    fn first(&self, cf: Cf, range: Range<&[u8]>, prefix_bytes: usize) -> Result<Option<Row>, EngineError> {
        self.reader().first(cf, range, prefix_bytes)
    }

    fn cursor(&self, cf: Cf, range: Range<&[u8]>, reverse: bool) -> Cursor<'_> {
        self.reader().cursor(cf, range, reverse)
    }
}

/// What is read, as of when.
pub(super) struct Reader<'a> {
    db: &'a DB,
    snapshot: Option<&'a Borrowed<'a>>,
    place: &'a Place,
}

impl<'a> Reader<'a> {
    pub(super) fn latest(db: &'a DB, place: &'a Place) -> Self {
        Self { db, snapshot: None, place }
    }

    fn options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_verify_checksums(true);
        if let Some(snapshot) = self.snapshot {
            options.set_snapshot(snapshot);
        }
        options
    }

    pub(super) fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let found = self.db.get_pinned_cf_opt(family(self.db, cf), key, &self.options());
        found.map(|value| value.map(|value| Bytes::copy_from_slice(&value))).map_err(|error| self.place.failure("get", &error))
    }

    pub(super) fn first(&self, cf: Cf, range: Range<&[u8]>, prefix_bytes: usize) -> Result<Option<Row>, EngineError> {
        if !range.end.is_empty() && range.end <= range.start {
            return Ok(None);
        }
        let prefix = &range.start[..prefix_bytes.min(range.start.len())];
        let mut options = self.options();
        // The filters know rows of the data family by all but their version: only a start with exactly that prefix can use them.
        let filtered = cf == Cf::Data && !prefix.is_empty() && range.start.len() == prefix.len() + VERSION_BYTES;
        if filtered {
            options.set_prefix_same_as_start(true);
        } else {
            options.set_total_order_seek(true);
        }
        let mut rows = self.db.raw_iterator_cf_opt(family(self.db, cf), options);
        rows.seek(range.start);
        let found = match rows.item() {
            Some((key, value)) if (range.end.is_empty() || key < range.end) && key.starts_with(prefix) => {
                Some((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)))
            }
            Some(_) | None => None,
        };
        rows.status().map_err(|error| self.place.failure("seek", &error))?;
        Ok(found)
    }

    pub(super) fn cursor(&self, cf: Cf, range: Range<&[u8]>, reverse: bool) -> Cursor<'a> {
        if !range.end.is_empty() && range.end <= range.start {
            return Box::new(std::iter::empty());
        }
        let mut options = self.options();
        options.set_total_order_seek(true);
        options.set_auto_readahead_size(true);
        options.set_iterate_lower_bound(range.start);
        if !range.end.is_empty() {
            options.set_iterate_upper_bound(range.end);
        }
        let mut rows = self.db.raw_iterator_cf_opt(family(self.db, cf), options);
        if reverse {
            rows.seek_to_last();
        } else {
            rows.seek(range.start);
        }
        Box::new(Rows { rows, reverse, place: self.place, done: false })
    }
}

struct Rows<'a> {
    rows: DBRawIterator<'a>,
    reverse: bool,
    place: &'a Place,
    done: bool,
}

impl Iterator for Rows<'_> {
    type Item = Result<Row, EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let Some((key, value)) = self.rows.item() else {
            self.done = true;
            return self.rows.status().err().map(|error| Err(self.place.failure("scan", &error)));
        };
        let row = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        if self.reverse {
            self.rows.prev();
        } else {
            self.rows.next();
        }
        Some(Ok(row))
    }
}
