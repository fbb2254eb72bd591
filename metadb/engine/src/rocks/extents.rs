//! About how much lies in a range: what files say of themselves, and what is in memory, counted.
//!
//! A file knows by its index how many of its bytes lie between two keys. Those are compressed; all files together tell how many rows they
//! hold and how large these were, and so does a part of them, about. Rows that a later deletion hides are counted until a compaction drops
//! them. The index is of blocks of 16 KiB, and so is the error.

use super::{Shared, family};
use crate::store::COUNTED_ROWS;
use crate::{Cf, EngineError, Extent};
use bytes::Bytes;
use rocksdb::{ReadOptions, ReadTier, properties};
use std::ops::Range;

/// What RocksDB appends to each key of a file.
const TRAILER_BYTES: u64 = 8;

/// What the files of a column family hold together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Whole {
    file_bytes: u64,
    rows: u64,
    row_bytes: u64,
}

impl Whole {
    /// `told`: the properties of all files together, as RocksDB writes them.
    fn new(file_bytes: u64, told: &str) -> Self {
        let number = |name: &str| {
            let mut pairs = told.split("; ").filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).and_then(|(_, value)| value.parse::<u64>().ok()).unwrap_or(0)
        };
        let rows = number("# entries");
        let row_bytes = (number("raw key size") + number("raw value size")).saturating_sub(rows * TRAILER_BYTES);
        Whole { file_bytes, rows, row_bytes }
    }

    /// About what so many bytes of the files hold.
    fn part(&self, file_bytes: u64) -> Extent {
        let part = |whole: u64| u128::from(whole) * u128::from(file_bytes) / u128::from(self.file_bytes.max(1));
        let part = |whole: u64| u64::try_from(part(whole)).unwrap_or(u64::MAX);
        Extent { bytes: part(self.row_bytes), rows: part(self.rows) }
    }
}

impl Shared {
    pub(super) fn extents(&self, cf: Cf, ranges: &[Range<Bytes>]) -> Result<Vec<Extent>, EngineError> {
        let ends: Vec<&[u8]> = ranges.iter().map(end_of).collect();
        let asked: Vec<_> = ranges.iter().zip(&ends).map(|(range, end)| rocksdb::Range::new(&range.start, end)).collect();
        let mut extents = vec![Extent::default(); ranges.len()];
        if let Some(whole) = self.whole(cf)? {
            let on_disk = self.db.get_approximate_sizes_cf(family(&self.db, cf), &asked);
            extents = on_disk.into_iter().map(|file_bytes| whole.part(file_bytes)).collect();
        }
        self.count_in_memory(cf, ranges, &mut extents)?;
        Ok(extents)
    }

    /// What all files of a column family hold; none if there are none.
    fn whole(&self, cf: Cf) -> Result<Option<Whole>, EngineError> {
        let family = family(&self.db, cf);
        let failed = |error: rocksdb::Error| self.place.failure("measure", &error);
        let file_bytes = self.db.property_int_value_cf(family, properties::LIVE_SST_FILES_SIZE).map_err(failed)?;
        let Some(file_bytes) = file_bytes.filter(|bytes| *bytes > 0) else { return Ok(None) };
        let told = self.db.property_value_cf(family, properties::AGGREGATED_TABLE_PROPERTIES).map_err(failed)?;
        Ok(told.map(|told| Whole::new(file_bytes, &told)))
    }

    fn count_in_memory(&self, cf: Cf, ranges: &[Range<Bytes>], extents: &mut [Extent]) -> Result<(), EngineError> {
        let mut options = ReadOptions::default();
        options.set_read_tier(ReadTier::Memtable);
        options.set_total_order_seek(true);
        let mut rows = self.db.raw_iterator_cf_opt(family(&self.db, cf), options);
        let mut left = COUNTED_ROWS;
        for (range, extent) in ranges.iter().zip(extents) {
            rows.seek(&range.start);
            while let Some((key, value)) = rows.item() {
                if left == 0 || (!range.end.is_empty() && key >= &range.end[..]) {
                    break;
                }
                left -= 1;
                extent.bytes += (key.len() + value.len()) as u64;
                extent.rows += 1;
                rows.next();
            }
            rows.status().map_err(|error| self.place.failure("measure", &error))?;
        }
        Ok(())
    }
}

/// Behind all keys that there are: no row's key begins so.
const LAST: [u8; 64] = [u8::MAX; 64];

/// An end that is never before the start.
fn end_of(range: &Range<Bytes>) -> &[u8] {
    if range.end.is_empty() { &LAST } else { std::cmp::max(&range.start, &range.end) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_files_holds_that_part_of_their_rows() {
        let whole = Whole::new(
            1000,
            "# data blocks=3; # entries=40; # deletions=1; raw key size=820; raw average key size=20.5; raw value size=3500; ",
        );
        assert_eq!(whole, Whole { file_bytes: 1000, rows: 40, row_bytes: 4000 });
        assert_eq!(whole.part(250), Extent { bytes: 1000, rows: 10 });
        assert_eq!(Whole::new(1000, "nothing that it knows").part(250), Extent::default());
    }
}
