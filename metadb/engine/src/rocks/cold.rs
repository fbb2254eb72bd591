//! Reading the store's files from the device, past the block cache, and past the system's where the file system allows it.
//!
//! Each step opens the folder a second time, to read only: it holds no memtable and no snapshot of the store in use, and lets go of files
//! that a compaction replaced as soon as it ends. What the store removes meanwhile is met as a missing file; the step then begins anew
//! from the list of files as it is by then. Rows that were not flushed yet are not at rest, and not read.

use super::{Shared, family, name, translate};
use crate::{COLUMN_FAMILIES, Cf, EngineError, Verified};
use bytes::Bytes;
use rocksdb::{BlockBasedOptions, ColumnFamilyDescriptor, DB, ErrorKind, Options, ReadOptions};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often a step is begun before its failure counts: files come and go under it.
const ATTEMPTS: u32 = 5;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(50);
/// Files held open by a step.
const OPEN_FILES: i32 = 32;
/// Read from the device at a time.
const READ_AHEAD_BYTES: usize = 1 << 20;

/// Why a step failed.
enum Failed {
    /// The folder could not be opened beside the store in use: this says nothing about rows.
    Opening(rocksdb::Error),
    Reading(rocksdb::Error),
}

impl Failed {
    /// Whether it may come from reading past the system's cache.
    fn refuses_direct(&self) -> bool {
        let (Failed::Opening(error) | Failed::Reading(error)) = self;
        let kinds = [ErrorKind::NotSupported, ErrorKind::InvalidArgument];
        kinds.contains(&error.kind()) || error.to_string().contains("Invalid argument")
    }
}

impl Shared {
    /// See [`crate::Store::verify`].
    #[expect(clippy::disallowed_methods, reason = "on a thread of the blocking pool, between attempts")]
    pub(super) fn verify(&self, cf: Cf, from: &[u8], max_bytes: u64) -> Result<Verified<Bytes>, EngineError> {
        let mut attempt = 1;
        loop {
            let direct = self.place.direct_reads.load(Ordering::Relaxed);
            let failed = match step(&self.place.path, cf, from, max_bytes, direct) {
                Ok(read) => return Ok(read),
                Err(failed) => failed,
            };
            if direct && failed.refuses_direct() {
                // Not every file system can be read past the system's cache.
                self.place.direct_reads.store(false, Ordering::Relaxed);
                continue;
            }
            if attempt == ATTEMPTS {
                return Err(match failed {
                    Failed::Reading(error) if counts(&error) => self.place.failure("verify", &error),
                    Failed::Reading(error) => translate("verify", &self.place.path, &error),
                    Failed::Opening(error) => EngineError::Io {
                        operation: "open for verifying",
                        path: self.place.path.display().to_string(),
                        message: error.to_string(),
                    },
                });
            }
            attempt += 1;
            std::thread::sleep(PAUSE);
        }
    }
}

/// Whether it says that the disk lost something, not that a file went or that there were too many open ones.
fn counts(error: &rocksdb::Error) -> bool {
    error.kind() == ErrorKind::Corruption || error.to_string().contains("Input/output error")
}

fn open(path: &Path, direct: bool) -> Result<DB, rocksdb::Error> {
    let mut database = Options::default();
    database.set_max_open_files(OPEN_FILES);
    database.set_paranoid_checks(false);
    database.set_skip_stats_update_on_db_open(true);
    database.set_use_direct_reads(direct);
    let families = COLUMN_FAMILIES.map(|cf| {
        let mut table = BlockBasedOptions::default();
        table.disable_cache();
        let mut family = Options::default();
        family.set_block_based_table_factory(&table);
        ColumnFamilyDescriptor::new(name(cf), family)
    });
    DB::open_cf_descriptors_read_only(&database, path, families, false)
}

fn step(path: &Path, cf: Cf, from: &[u8], max_bytes: u64, direct: bool) -> Result<Verified<Bytes>, Failed> {
    let db = open(path, direct).map_err(Failed::Opening)?;
    let mut options = ReadOptions::default();
    options.set_verify_checksums(true);
    options.fill_cache(false);
    options.set_total_order_seek(true);
    options.set_readahead_size(READ_AHEAD_BYTES);
    let mut rows = db.raw_iterator_cf_opt(family(&db, cf), options);
    rows.seek(from);
    let mut bytes = 0;
    while let Some((key, value)) = rows.item() {
        if bytes >= max_bytes {
            return Ok(Verified { bytes, next: Some(Bytes::copy_from_slice(key)) });
        }
        bytes += (key.len() + value.len()) as u64;
        rows.next();
    }
    rows.status().map_err(Failed::Reading)?;
    Ok(Verified { bytes, next: None })
}
