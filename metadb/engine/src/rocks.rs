//! The real store: RocksDB without a WAL. The Raft log is the write-ahead log, so a write is durable when a flush has carried it out, all
//! column families at once (`atomic_flush`), and after a crash the log is replayed from the position found in the store.
//!
//! * Checksums are verified on every read; a bad block is [`EngineError::Corrupt`], never a value.
//! * `Cf::Data` rows end with an 8-byte version. Filters know a row by what is before it, so that the newest version of a key is found by
//!   one seek that skips the files without the key.
//! * Threads: RocksDB's own, bounded by [`RocksOptions::background_jobs`], and tokio's blocking pool for flushes.
//!
//! Not here: to which cluster the folder belongs, which the binary checks; and what a row means.

mod cold;
mod extents;
mod files;
mod observe;
mod view;

use crate::disk::{Disk, Space};
use crate::{
    BatchOp, COLUMN_FAMILIES, Cf, Cursor, EngineError, Exported, Extent, FileExport, Replacement, Row, Store, StoreRead, Verified,
    WriteBatch,
};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, FlushOptions, Options, SliceTransform,
    WriteOptions,
};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use view::{OwnedSnapshot, Reader};

/// The newest layout of column families this code reads. Written to the folder when it is made.
const FORMAT: &str = "1";
const FORMAT_FILE: &str = "FORMAT";
/// The version at the end of a row of `Cf::Data`.
const VERSION_BYTES: usize = 8;
const FILTER_BITS_PER_KEY: f64 = 10.0;
/// Part of a memtable spent on its filter.
const MEMTABLE_FILTER_PART: f64 = 0.1;
const BLOCK_BYTES: usize = 16 << 10;
/// RocksDB's own log files: small, few.
const INFO_LOG_BYTES: usize = 8 << 20;
const INFO_LOG_FILES: usize = 4;
/// RocksDB syncs files it writes in the background in steps of this size, so that a flush does not stall the log's syncs.
const BYTES_PER_SYNC: u64 = 1 << 20;

/// Settings of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RocksOptions {
    /// Blocks of files kept in memory, with their indexes and filters.
    pub block_cache_bytes: usize,
    /// One memtable of one column family; full, it is flushed, with those of the others.
    pub memtable_bytes: usize,
    /// Memtables of one column family, the one written and those being flushed.
    pub memtables: i32,
    /// Flushes and compactions at a time.
    pub background_jobs: i32,
    /// Files kept open.
    pub open_files: i32,
}

impl Default for RocksOptions {
    fn default() -> Self {
        Self { block_cache_bytes: 256 << 20, memtable_bytes: 64 << 20, memtables: 4, background_jobs: 2, open_files: 1024 }
    }
}

/// The store of a node.
pub struct RocksStore {
    shared: Arc<Shared>,
}

struct Shared {
    db: Arc<DB>,
    place: Arc<Place>,
    /// Kept, because what RocksDB counts is read through them.
    options: Options,
    /// Sorted files are written with them too.
    settings: RocksOptions,
}

/// Where the store is, and what was found to be wrong with it.
struct Place {
    path: PathBuf,
    /// The first thing that did not read back, or else the first that the device refused. It stays.
    broken: Mutex<Option<EngineError>>,
    /// Whether the last write or flush found no room.
    full: AtomicBool,
    /// Whether its files can be read past the system's cache, as far as is known.
    direct_reads: AtomicBool,
}

impl std::fmt::Debug for RocksStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RocksStore").field("path", &self.shared.place.path).finish_non_exhaustive()
    }
}

impl RocksStore {
    /// Opens the store in a folder, or makes it. Blocks while it reads.
    ///
    /// # Errors
    /// [`EngineError::Corrupt`], [`EngineError::Foreign`] for a newer format, [`EngineError::Io`], also when another process has it open.
    pub fn open(path: &Path, options: &RocksOptions) -> Result<Arc<Self>, EngineError> {
        check_format(path)?;
        let cache = Cache::new_lru_cache(options.block_cache_bytes);
        let families = COLUMN_FAMILIES.map(|cf| ColumnFamilyDescriptor::new(name(cf), family_options(cf, &cache, options)));
        let mut database = database_options(options);
        observe::count(&mut database);
        let place = Arc::new(Place {
            path: path.to_path_buf(),
            broken: Mutex::default(),
            full: AtomicBool::new(false),
            direct_reads: AtomicBool::new(true),
        });
        let db = DB::open_cf_descriptors(&database, path, families).map_err(|error| place.failure("open", &error))?;
        let shared = Shared { db: Arc::new(db), place, options: database, settings: options.clone() };
        shared.tidy();
        Ok(Arc::new(Self { shared: Arc::new(shared) }))
    }

    fn reader(&self) -> Reader<'_> {
        Reader::latest(&self.shared.db, &self.shared.place)
    }
}

/// Refuses a folder of a newer format; marks a new one.
fn check_format(path: &Path) -> Result<(), EngineError> {
    let file = path.join(FORMAT_FILE);
    let io = |operation, error: std::io::Error| EngineError::Io { operation, path: file.display().to_string(), message: error.to_string() };
    match std::fs::read_to_string(&file) {
        Ok(found) if found.trim() == FORMAT => Ok(()),
        Ok(found) => Err(EngineError::Foreign {
            path: path.display().to_string(),
            message: format!(
                "the store has format {:?}, this version reads {FORMAT}: run the version that wrote it, or give this node an empty data \
                 folder and let it copy from the others",
                found.trim()
            ),
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let disk = crate::disk::FileDisk::open(path)?;
            let part = format!("{FORMAT_FILE}.part");
            crate::disk::Disk::remove(&*disk, &part)?;
            crate::disk::Disk::append(&*disk, &part, FORMAT.as_bytes())?;
            crate::disk::Disk::sync(&*disk, &part)?;
            crate::disk::Disk::rename(&*disk, &part, FORMAT_FILE)
        }
        Err(error) => Err(io("read", error)),
    }
}

fn database_options(options: &RocksOptions) -> Options {
    let mut database = Options::default();
    database.create_if_missing(true);
    database.create_missing_column_families(true);
    database.set_atomic_flush(true);
    database.set_paranoid_checks(true);
    database.set_max_background_jobs(options.background_jobs);
    database.set_max_open_files(options.open_files);
    database.set_bytes_per_sync(BYTES_PER_SYNC);
    database.set_max_log_file_size(INFO_LOG_BYTES);
    database.set_keep_log_file_num(INFO_LOG_FILES);
    database
}

fn family_options(cf: Cf, cache: &Cache, options: &RocksOptions) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_block_size(BLOCK_BYTES);
    table.set_bloom_filter(FILTER_BITS_PER_KEY, false);
    table.set_format_version(5);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut family = Options::default();
    family.set_write_buffer_size(options.memtable_bytes);
    family.set_max_write_buffer_number(options.memtables);
    family.set_compression_type(DBCompressionType::Lz4);
    family.set_bottommost_compression_type(DBCompressionType::Zstd);
    family.set_level_compaction_dynamic_level_bytes(true);
    match cf {
        Cf::Data => {
            table.set_whole_key_filtering(false);
            family.set_prefix_extractor(SliceTransform::create("cairn.without-version.1", without_version, Some(has_version)));
            family.set_memtable_prefix_bloom_ratio(MEMTABLE_FILTER_PART);
        }
        Cf::State => {
            // Most lookups are for request ids that are not there.
            table.set_whole_key_filtering(true);
            family.set_memtable_whole_key_filtering(true);
            family.set_memtable_prefix_bloom_ratio(MEMTABLE_FILTER_PART);
        }
        Cf::Changes => table.set_whole_key_filtering(true),
    }
    family.set_block_based_table_factory(&table);
    family
}

fn without_version(key: &[u8]) -> &[u8] {
    &key[..key.len().saturating_sub(VERSION_BYTES)]
}

fn has_version(key: &[u8]) -> bool {
    key.len() > VERSION_BYTES
}

fn name(cf: Cf) -> &'static str {
    match cf {
        Cf::Data => "data",
        Cf::Changes => "changes",
        Cf::State => "state",
    }
}

fn family(db: &DB, cf: Cf) -> &ColumnFamily {
    db.cf_handle(name(cf)).expect("all column families are opened with the store")
}

impl Place {
    /// Translates an error, and remembers what does not pass by itself.
    fn failure(&self, operation: &'static str, error: &rocksdb::Error) -> EngineError {
        let refused = error.kind() == rocksdb::ErrorKind::IOError;
        let error = translate(operation, &self.path, error);
        let mut broken = self.broken.lock();
        match error {
            EngineError::Corrupt { .. } if !matches!(*broken, Some(EngineError::Corrupt { .. })) => *broken = Some(error.clone()),
            EngineError::Io { .. } if refused && broken.is_none() => *broken = Some(error.clone()),
            EngineError::Corrupt { .. }
            | EngineError::Io { .. }
            | EngineError::Full { .. }
            | EngineError::Foreign { .. }
            | EngineError::Stopped { .. } => {}
        }
        error
    }

    /// Notes whether there was room.
    fn note<T>(&self, result: Result<T, EngineError>) -> Result<T, EngineError> {
        let full = matches!(result, Err(EngineError::Full { .. }));
        if self.full.load(Ordering::Relaxed) != full {
            self.full.store(full, Ordering::Relaxed);
        }
        result
    }
}

fn translate(operation: &'static str, path: &Path, error: &rocksdb::Error) -> EngineError {
    let (path, message) = (path.display().to_string(), error.to_string());
    if message.contains("No space left") || message.contains("NoSpace") || message.contains("Space limit") {
        return EngineError::Full { path };
    }
    match error.kind() {
        rocksdb::ErrorKind::Corruption => EngineError::Corrupt { path, offset: 0, message },
        rocksdb::ErrorKind::ShutdownInProgress => EngineError::Stopped { message },
        rocksdb::ErrorKind::NotFound
        | rocksdb::ErrorKind::NotSupported
        | rocksdb::ErrorKind::InvalidArgument
        | rocksdb::ErrorKind::IOError
        | rocksdb::ErrorKind::MergeInProgress
        | rocksdb::ErrorKind::Incomplete
        | rocksdb::ErrorKind::TimedOut
        | rocksdb::ErrorKind::Aborted
        | rocksdb::ErrorKind::Busy
        | rocksdb::ErrorKind::Expired
        | rocksdb::ErrorKind::TryAgain
        | rocksdb::ErrorKind::CompactionTooLarge
        | rocksdb::ErrorKind::ColumnFamilyDropped
        | rocksdb::ErrorKind::Unknown => EngineError::Io { operation, path, message },
    }
}

impl Shared {
    fn flush(&self) -> Result<(), EngineError> {
        let families = COLUMN_FAMILIES.map(|cf| family(&self.db, cf));
        let mut options = FlushOptions::default();
        options.set_wait(true);
        let flushed = self.db.flush_cfs_opt(&families.each_ref().map(|family| *family), &options);
        self.place.note(flushed.map_err(|error| self.place.failure("flush", &error)))
    }
}

/// Does what may wait for the disk off the async threads.
async fn off_thread<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panic| Err(EngineError::Stopped { message: format!("{what}: {panic}") }))
}

impl StoreRead for RocksStore {
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

impl Store for RocksStore {
    fn write(&self, batch: WriteBatch) -> Result<(), EngineError> {
        let db = &*self.shared.db;
        let families = COLUMN_FAMILIES.map(|cf| (cf, family(db, cf)));
        let family = |wanted: Cf| families.iter().find(|(cf, _)| *cf == wanted).map_or(families[0].1, |(_, family)| family);
        let mut writes = rocksdb::WriteBatch::default();
        for (cf, op) in batch.ops() {
            match op {
                BatchOp::Put(key, value) => writes.put_cf(family(*cf), key, value),
                BatchOp::Delete(key) => writes.delete_cf(family(*cf), key),
                BatchOp::DeleteRange(start, end) if start < end => writes.delete_range_cf(family(*cf), start, end),
                BatchOp::DeleteRange(..) => {}
            }
        }
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        let place = &self.shared.place;
        place.note(db.write_opt(writes, &options).map_err(|error| place.failure("write", &error)))
    }

    fn flush(&self) -> BoxFuture<'static, Result<(), EngineError>> {
        let shared = Arc::clone(&self.shared);
        off_thread("flush", move || shared.flush()).boxed()
    }

    fn export(&self, export: FileExport) -> BoxFuture<'static, Result<Exported, EngineError>> {
        let shared = Arc::clone(&self.shared);
        off_thread("export", move || shared.export(&export)).boxed()
    }

    fn replace(&self, disk: Arc<dyn Disk>, parts: Vec<Replacement>) -> BoxFuture<'static, Result<(), EngineError>> {
        let shared = Arc::clone(&self.shared);
        off_thread("replace", move || shared.replace(&*disk, &parts)).boxed()
    }

    fn verify(&self, cf: Cf, from: Bytes, max_bytes: u64) -> BoxFuture<'static, Result<Verified<Bytes>, EngineError>> {
        let shared = Arc::clone(&self.shared);
        off_thread("verify", move || shared.verify(cf, &from, max_bytes)).boxed()
    }

    fn snapshot(&self) -> Arc<dyn StoreRead> {
        Arc::new(OwnedSnapshot::of(Arc::clone(&self.shared.db), Arc::clone(&self.shared.place)))
    }

    fn size_bytes(&self) -> u64 {
        let count = |cf, property| self.shared.db.property_int_value_cf(family(&self.shared.db, cf), property).ok().flatten();
        COLUMN_FAMILIES
            .iter()
            .flat_map(|cf| [count(*cf, "rocksdb.total-sst-files-size"), count(*cf, "rocksdb.cur-size-all-mem-tables")])
            .map(Option::unwrap_or_default)
            .sum()
    }

    fn extents(&self, cf: Cf, ranges: Vec<Range<Bytes>>) -> BoxFuture<'static, Result<Vec<Extent>, EngineError>> {
        let shared = Arc::clone(&self.shared);
        off_thread("extents", move || shared.extents(cf, &ranges)).boxed()
    }

    fn observe(&self, samples: &mut metadb_telemetry::Samples) {
        observe::observe(&self.shared.db, &self.shared.options, samples);
    }

    fn trouble(&self) -> Option<EngineError> {
        let place = &self.shared.place;
        let full = || place.full.load(Ordering::Relaxed).then(|| EngineError::Full { path: place.path.display().to_string() });
        place.broken.lock().clone().or_else(full)
    }

    fn space(&self) -> Option<Space> {
        crate::disk::space_of(&self.shared.place.path)
    }
}
