//! Newest rows of the keys that are asked for, in memory, kept true at apply.
//!
//! Each shelf has two generations: a row found in the old one moves to the young one; when the young one is full it becomes the old one
//! and the old one is forgotten. So what is asked for stays, at the cost of a hash lookup.
//!
//! Rules that keep it true: apply calls [`HotRows::note`] after its batch is in the store and before the new version is told; a reader that
//! fills it takes a [`Ticket`] before it reads the store, and its row is turned away if the shelf was noted meanwhile.

use crate::rows::data::Stored;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::HashMap;

/// Memory for hot rows in one group, in bytes. Few, fat groups: 8 of them keep 256 MiB.
const BUDGET_BYTES: usize = 32 << 20;
/// Locks, so that readers seldom meet.
const SHELVES: usize = 16;
/// What a row costs besides its own bytes: map slots, counters.
const ROW_OVERHEAD_BYTES: usize = 128;
/// Rows above this, in bytes, are left to the store's own cache: one would push out hundreds.
const LARGEST_ROW_BYTES: usize = 16 << 10;
/// Bytes of a generation of a shelf.
const GENERATION_BYTES: usize = BUDGET_BYTES / SHELVES / 2;

const _: () = assert!(GENERATION_BYTES > LARGEST_ROW_BYTES + 4096 + ROW_OVERHEAD_BYTES, "a generation must hold the largest row");

/// The cache.
#[derive(Debug, Default)]
pub(crate) struct HotRows {
    shelves: [Mutex<Shelf>; SHELVES],
}

#[derive(Debug, Default)]
struct Shelf {
    young: HashMap<Bytes, Stored>,
    old: HashMap<Bytes, Stored>,
    young_bytes: usize,
    /// Counts notes.
    notes: u64,
    hits: u64,
    misses: u64,
}

/// What a shelf had seen when its owner began to read the store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket {
    notes: u64,
}

impl Shelf {
    fn get(&mut self, stem: &[u8]) -> Option<Stored> {
        if let Some(found) = self.young.get(stem) {
            return Some(found.clone());
        }
        let (stem, found) = self.old.remove_entry(stem)?;
        self.insert(stem, found.clone());
        Some(found)
    }

    fn insert(&mut self, stem: Bytes, stored: Stored) {
        self.old.remove(&stem);
        let bytes = stem.len() + stored.row().len() + ROW_OVERHEAD_BYTES;
        if stored.row().len() > LARGEST_ROW_BYTES {
            self.young.remove(&stem);
            return;
        }
        if self.young_bytes + bytes > GENERATION_BYTES {
            self.old = std::mem::take(&mut self.young);
            self.old.remove(&stem);
            self.young_bytes = 0;
        }
        // A row that is replaced is counted again: the generation only ends a little early.
        self.young_bytes += bytes;
        self.young.insert(stem, stored);
    }
}

impl HotRows {
    fn shelf(&self, stem: &[u8]) -> &Mutex<Shelf> {
        &self.shelves[crc32c::crc32c(stem) as usize % SHELVES]
    }

    /// The newest row of a key, if it is here; else a ticket to bring it.
    pub(crate) fn get(&self, stem: &[u8]) -> Result<Stored, Ticket> {
        let mut shelf = self.shelf(stem).lock();
        match shelf.get(stem) {
            Some(found) => {
                shelf.hits += 1;
                Ok(found)
            }
            None => {
                shelf.misses += 1;
                Err(Ticket { notes: shelf.notes })
            }
        }
    }

    /// How many lookups found their row here, and how many did not.
    pub(crate) fn looked_up(&self) -> (u64, u64) {
        self.shelves.iter().map(Mutex::lock).fold((0, 0), |(hits, misses), shelf| (hits + shelf.hits, misses + shelf.misses))
    }

    /// Brings the newest row of a key, read from the store after the ticket was taken.
    pub(crate) fn fill(&self, ticket: Ticket, stem: Bytes, stored: Stored) {
        let mut shelf = self.shelf(&stem).lock();
        if shelf.notes == ticket.notes {
            shelf.insert(stem, stored);
        }
    }

    /// Notes a row that was just written. It takes the place of the one that is here; what nobody asked for is not brought in.
    pub(crate) fn note(&self, stem: &Bytes, stored: Stored) {
        let mut shelf = self.shelf(stem).lock();
        shelf.notes += 1;
        if shelf.young.contains_key(stem) || shelf.old.contains_key(stem) {
            shelf.insert(stem.clone(), stored);
        }
    }

    /// Lets nobody bring a row who began to read the store before this.
    pub(crate) fn turn_away(&self) {
        self.shelves.iter().for_each(|shelf| shelf.lock().notes += 1);
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        for shelf in &self.shelves {
            let mut shelf = shelf.lock();
            *shelf = Shelf { notes: shelf.notes + 1, hits: shelf.hits, misses: shelf.misses, ..Shelf::default() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metadb_proto::Version;

    fn stem(n: usize) -> Bytes {
        Bytes::from(format!("stem-{n}"))
    }

    #[test]
    fn a_row_read_before_rows_arrived_is_not_kept() {
        let hot = HotRows::default();
        let ticket = hot.get(&stem(1)).expect_err("empty");
        hot.turn_away();
        hot.fill(ticket, stem(1), Stored::put(Version(1), b"old"));
        let ticket = hot.get(&stem(1)).expect_err("what was read before the rows arrived");
        hot.fill(ticket, stem(1), Stored::put(Version(2), b"new"));
        assert_eq!(hot.get(&stem(1)).expect("read after they did").version, Version(2));
    }

    #[test]
    fn a_row_read_before_a_write_is_not_kept_after_it() {
        let hot = HotRows::default();
        let ticket = hot.get(&stem(1)).expect_err("empty");
        hot.note(&stem(1), Stored::put(Version(2), b"new"));
        hot.fill(ticket, stem(1), Stored::put(Version(1), b"old"));
        let ticket = hot.get(&stem(1)).expect_err("neither the one written, as nobody asks for it, nor the one read before");
        hot.fill(ticket, stem(1), Stored::put(Version(2), b"new"));
        hot.note(&stem(1), Stored::put(Version(3), b"newer"));
        assert_eq!(hot.get(&stem(1)).expect("brought and kept true").version, Version(3));
    }

    #[test]
    fn memory_is_bounded_and_what_is_asked_for_stays() {
        let hot = HotRows::default();
        let value = vec![7; 8 << 10];
        let bring = |n: usize| {
            let ticket = hot.get(&stem(n)).expect_err("not here yet");
            hot.fill(ticket, stem(n), Stored::put(Version(1), &value));
        };
        bring(0);
        for n in 1..3 * BUDGET_BYTES / value.len() {
            bring(n);
            assert!(hot.get(&stem(0)).is_ok(), "asked for each time, lost at {n}");
        }
        let kept: usize = hot
            .shelves
            .iter()
            .map(|shelf| {
                let shelf = shelf.lock();
                shelf.young.len() + shelf.old.len()
            })
            .sum();
        assert!(kept * value.len() <= BUDGET_BYTES, "{kept} rows kept");
    }

    #[test]
    fn a_large_row_is_not_kept_and_pushes_its_older_self_out() {
        let hot = HotRows::default();
        let ticket = hot.get(&stem(1)).expect_err("empty");
        hot.fill(ticket, stem(1), Stored::put(Version(1), b"small"));
        hot.note(&stem(1), Stored::put(Version(2), &vec![0; LARGEST_ROW_BYTES + 1]));
        assert!(hot.get(&stem(1)).is_err());
    }
}
