//! What the log and the store tell of themselves.

use crate::log::LogStats;
use metadb_telemetry::{Histogram, Metric, Samples, Unit};
use std::sync::LazyLock;

static LOG_SYNC: Metric =
    Metric::new_histogram("cairn_log_sync_seconds", Unit::Seconds, &[], "Time of one sync of the Raft log: one batch.");
static LOG_BATCH_BYTES: Metric =
    Metric::new_histogram("cairn_log_batch_bytes", Unit::Bytes, &[], "Bytes written to the Raft log by one sync.");
static LOG_BATCH_SUBMISSIONS: Metric = Metric::new_histogram(
    "cairn_log_batch_submissions",
    Unit::Count,
    &[],
    "Appends and votes of all groups that share one sync of the Raft log.",
);
static LOG_BYTES: Metric = Metric::new_gauge("cairn_log_segments_bytes", Unit::Bytes, &[], "Bytes in the segments of the Raft log.");
static LOG_LIVE_BYTES: Metric =
    Metric::new_gauge("cairn_log_live_bytes", Unit::Bytes, &[], "Bytes of entries in the Raft log that were not purged.");
static LOG_CACHED_BYTES: Metric =
    Metric::new_gauge("cairn_log_cached_bytes", Unit::Bytes, &[], "Bytes of entries of the Raft log kept in memory.");
static LOG_SEGMENTS: Metric = Metric::new_gauge("cairn_log_segments", Unit::Count, &[], "Segments of the Raft log.");
static LOG_APPENDED: Metric = Metric::new_counter("cairn_log_appended_bytes_total", Unit::Bytes, &[], "Bytes appended to the Raft log.");
static LOG_RECORDS: Metric = Metric::new_counter("cairn_log_records_total", Unit::Count, &[], "Records appended to the Raft log.");
static LOG_SUBMISSIONS: Metric =
    Metric::new_counter("cairn_log_submissions_total", Unit::Count, &[], "Appends and votes handed to the Raft log.");
static LOG_SYNCS: Metric = Metric::new_counter("cairn_log_syncs_total", Unit::Count, &[], "Syncs of the Raft log.");

pub(crate) static STORE_MEMTABLE_BYTES: Metric =
    Metric::new_gauge("cairn_store_memtable_bytes", Unit::Bytes, &["family"], "Bytes of applied rows in memory, not yet in sorted files.");
pub(crate) static STORE_SST_BYTES: Metric =
    Metric::new_gauge("cairn_store_files_bytes", Unit::Bytes, &["family"], "Bytes in the sorted files of the store.");
pub(crate) static STORE_PENDING_BYTES: Metric = Metric::new_gauge(
    "cairn_store_pending_compaction_bytes",
    Unit::Bytes,
    &["family"],
    "Bytes that compaction has yet to rewrite, estimated.",
);
pub(crate) static STORE_LEVEL0_FILES: Metric = Metric::new_gauge(
    "cairn_store_level0_files",
    Unit::Count,
    &["family"],
    "Sorted files not yet merged into a level; many slow down writes.",
);
pub(crate) static STORE_KEYS: Metric = Metric::new_gauge("cairn_store_rows", Unit::Count, &["family"], "Rows in the store, estimated.");
pub(crate) static STORE_FLUSHES: Metric = Metric::new_gauge("cairn_store_running_flushes", Unit::Count, &[], "Flushes that run now.");
pub(crate) static STORE_COMPACTIONS: Metric =
    Metric::new_gauge("cairn_store_running_compactions", Unit::Count, &[], "Compactions that run now.");
pub(crate) static STORE_STOPPED: Metric =
    Metric::new_gauge("cairn_store_writes_stopped", Unit::Flag, &[], "Whether the store takes no writes until compaction has caught up.");
pub(crate) static STORE_DELAYED_RATE: Metric = Metric::new_gauge(
    "cairn_store_delayed_write_rate",
    Unit::Count,
    &[],
    "Bytes a second to which the store holds writes back; 0: they are not held back.",
);
pub(crate) static STORE_ERRORS: Metric =
    Metric::new_counter("cairn_store_background_errors_total", Unit::Count, &[], "Flushes and compactions that failed.");
pub(crate) static STORE_STALLED: Metric =
    Metric::new_counter("cairn_store_stalled_seconds_total", Unit::Seconds, &[], "Time that writes were held back by the store.");
pub(crate) static STORE_CACHE_BYTES: Metric =
    Metric::new_gauge("cairn_store_block_cache_bytes", Unit::Bytes, &[], "Bytes in the cache of blocks read from files.");
pub(crate) static STORE_CACHE_HITS: Metric =
    Metric::new_counter("cairn_store_block_cache_hits_total", Unit::Count, &[], "Blocks found in the cache.");
pub(crate) static STORE_CACHE_MISSES: Metric =
    Metric::new_counter("cairn_store_block_cache_misses_total", Unit::Count, &[], "Blocks that had to be read from a file.");

/// Everything that this crate counts.
pub static ALL: &[&Metric] = &[
    &LOG_SYNC,
    &LOG_BATCH_BYTES,
    &LOG_BATCH_SUBMISSIONS,
    &LOG_BYTES,
    &LOG_LIVE_BYTES,
    &LOG_CACHED_BYTES,
    &LOG_SEGMENTS,
    &LOG_APPENDED,
    &LOG_RECORDS,
    &LOG_SUBMISSIONS,
    &LOG_SYNCS,
    &STORE_MEMTABLE_BYTES,
    &STORE_SST_BYTES,
    &STORE_PENDING_BYTES,
    &STORE_LEVEL0_FILES,
    &STORE_KEYS,
    &STORE_FLUSHES,
    &STORE_COMPACTIONS,
    &STORE_STOPPED,
    &STORE_DELAYED_RATE,
    &STORE_ERRORS,
    &STORE_STALLED,
    &STORE_CACHE_BYTES,
    &STORE_CACHE_HITS,
    &STORE_CACHE_MISSES,
];

/// What the log's writer observes at each batch.
pub(crate) struct Batches {
    pub(crate) sync: Histogram,
    pub(crate) bytes: Histogram,
    pub(crate) submissions: Histogram,
}

/// The handles of the log's writer.
pub(crate) static BATCHES: LazyLock<Batches> = LazyLock::new(|| Batches {
    sync: LOG_SYNC.histogram(&[]),
    bytes: LOG_BATCH_BYTES.histogram(&[]),
    submissions: LOG_BATCH_SUBMISSIONS.histogram(&[]),
});

impl LogStats {
    /// Tells the numbers of a log.
    pub fn observe(&self, samples: &mut Samples) {
        samples.set(&LOG_BYTES, self.bytes);
        samples.set(&LOG_LIVE_BYTES, self.live_bytes);
        samples.set(&LOG_CACHED_BYTES, self.cached_bytes);
        samples.set(&LOG_SEGMENTS, self.segments);
        samples.set(&LOG_APPENDED, self.appended_bytes);
        samples.set(&LOG_RECORDS, self.records);
        samples.set(&LOG_SUBMISSIONS, self.submissions);
        samples.set(&LOG_SYNCS, self.syncs);
    }
}
