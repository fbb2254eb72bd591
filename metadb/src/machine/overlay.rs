//! The newest row of each key as the commands of one apply call see it: what they wrote so far over what the store has.
//!
//! A transaction's own writes go in as it makes them, and come out again if it fails half-way.

use super::Refusal;
use super::rules::Meter;
use crate::read::{Live, View};
use crate::rows::data::{self, Stored};
use bytes::Bytes;
use metadb_engine::{Cf, EngineError, Store, WriteBatch};
use metadb_proto::Version;
use std::collections::BTreeMap;
use std::iter::Peekable;

pub(super) struct Overlay<'a> {
    store: &'a dyn Store,
    view: &'a View,
    written: BTreeMap<Bytes, Stored>,
    /// Ranges of stems whose rows in the store are going.
    dropped: Vec<(Bytes, Bytes)>,
    /// What the current transaction replaced.
    undo: Vec<(Bytes, Option<Stored>)>,
    pub(super) meter: Meter,
}

impl<'a> Overlay<'a> {
    pub(super) fn new(store: &'a dyn Store, view: &'a View) -> Self {
        Overlay { store, view, written: BTreeMap::new(), dropped: Vec::new(), undo: Vec::new(), meter: Meter::new() }
    }

    /// The newest row of a key.
    pub(super) fn newest(&self, stem: &Bytes) -> Result<Option<Stored>, Refusal> {
        let found = match self.written.get(stem) {
            Some(stored) => Some(stored.clone()),
            None if self.is_dropped(stem) => None,
            None => self.view.newest_for_apply(stem)?,
        };
        self.meter.read(stem.len() + found.as_ref().map_or(0, |stored| stored.row().len()))?;
        Ok(found)
    }

    /// Writes a row. Whether it is the transaction's first write of that key.
    pub(super) fn write(&mut self, stem: Bytes, stored: Stored) -> bool {
        let version = stored.version;
        self.meter.made(stem.len() + stored.row().len());
        let before = self.written.insert(stem.clone(), stored);
        let first = before.as_ref().is_none_or(|before| before.version != version);
        self.undo.push((stem, before));
        first
    }

    /// Puts the transaction's rows into the batch.
    pub(super) fn commit(&mut self, version: Version, batch: &mut WriteBatch) {
        for (stem, before) in self.undo.drain(..) {
            if before.is_some_and(|before| before.version == version) {
                continue;
            }
            let stored = self.written.get(&stem).expect("what was written stays until it is undone");
            batch.put(Cf::Data, data::row_key(&stem, version), stored.row().clone());
        }
    }

    /// Takes the transaction's writes back.
    pub(super) fn roll_back(&mut self) {
        for (stem, before) in self.undo.drain(..).rev() {
            match before {
                Some(before) => self.written.insert(stem, before),
                None => self.written.remove(&stem),
            };
        }
    }

    /// Forgets a range, written or stored.
    pub(super) fn drop_range(&mut self, start: Bytes, end: Bytes) {
        self.written.retain(|stem, _| !within(stem, &start, &end));
        self.dropped.push((start, end));
    }

    /// The live rows of a range of stems, in order.
    pub(super) fn live(&self, range: (Bytes, Bytes)) -> Merged<'_> {
        let written: WrittenRows<'_> = if range.1.is_empty() {
            Box::new(self.written.range(range.0.clone()..))
        } else {
            Box::new(self.written.range(range.0.clone()..range.1.clone()))
        };
        Merged { overlay: self, written: written.peekable(), stored: Live::new(self.store, range, false, Version::MAX).peekable() }
    }

    /// What was written, for the cache of hot rows.
    pub(super) fn into_rows(self) -> BTreeMap<Bytes, Stored> {
        self.written
    }

    fn is_dropped(&self, stem: &[u8]) -> bool {
        self.dropped.iter().any(|(start, end)| within(stem, start, end))
    }
}

fn within(stem: &[u8], start: &[u8], end: &[u8]) -> bool {
    stem >= start && (end.is_empty() || stem < end)
}

type WrittenRows<'a> = Box<dyn Iterator<Item = (&'a Bytes, &'a Stored)> + 'a>;

/// Written rows and stored rows in one order; the written one wins.
pub(super) struct Merged<'a> {
    overlay: &'a Overlay<'a>,
    written: Peekable<WrittenRows<'a>>,
    stored: Peekable<Live<'a>>,
}

impl Iterator for Merged<'_> {
    type Item = Result<(Bytes, Stored), Refusal>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.next_row()?.map_err(Refusal::from);
        Some(row.and_then(|(stem, stored)| self.overlay.meter.read(stem.len() + stored.row().len()).map(|()| (stem, stored))))
    }
}

impl Merged<'_> {
    fn next_row(&mut self) -> Option<Result<(Bytes, Stored), EngineError>> {
        loop {
            let written_first = match (self.written.peek(), self.stored.peek()) {
                (None, None) => return None,
                (_, Some(Err(_))) => return self.stored.next(),
                (Some(_), None) => true,
                (None, Some(Ok(_))) => false,
                (Some((written, _)), Some(Ok((stored, _)))) => *written <= stored,
            };
            if !written_first {
                match self.stored.next() {
                    Some(Ok((stem, _))) if self.overlay.is_dropped(&stem) => continue,
                    row => return row,
                }
            }
            let Some((stem, row)) = self.written.next() else { continue };
            if matches!(self.stored.peek(), Some(Ok((stored, _))) if stored == stem) {
                self.stored.next();
            }
            if row.is_live() {
                return Some(Ok((stem.clone(), row.clone())));
            }
        }
    }
}
