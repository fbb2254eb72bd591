//! What RocksDB tells of itself: sizes, what is behind, what is held back, and how often a block was in memory.

use super::{COLUMN_FAMILIES, DB, family, name};
use crate::metrics::{
    STORE_CACHE_BYTES, STORE_CACHE_HITS, STORE_CACHE_MISSES, STORE_COMPACTIONS, STORE_DELAYED_RATE, STORE_ERRORS, STORE_FLUSHES,
    STORE_KEYS, STORE_LEVEL0_FILES, STORE_MEMTABLE_BYTES, STORE_PENDING_BYTES, STORE_SST_BYTES, STORE_STALLED, STORE_STOPPED,
};
use metadb_telemetry::{Metric, Samples};
use rocksdb::Options;
use rocksdb::statistics::{StatsLevel, Ticker};
use std::time::Duration;

/// Properties of each column family.
static OF_FAMILIES: [(&Metric, &str); 5] = [
    (&STORE_MEMTABLE_BYTES, "rocksdb.cur-size-all-mem-tables"),
    (&STORE_SST_BYTES, "rocksdb.total-sst-files-size"),
    (&STORE_PENDING_BYTES, "rocksdb.estimate-pending-compaction-bytes"),
    (&STORE_LEVEL0_FILES, "rocksdb.num-files-at-level0"),
    (&STORE_KEYS, "rocksdb.estimate-num-keys"),
];
/// Properties of the whole.
static OF_ALL: [(&Metric, &str); 6] = [
    (&STORE_FLUSHES, "rocksdb.num-running-flushes"),
    (&STORE_COMPACTIONS, "rocksdb.num-running-compactions"),
    (&STORE_STOPPED, "rocksdb.is-write-stopped"),
    (&STORE_DELAYED_RATE, "rocksdb.actual-delayed-write-rate"),
    (&STORE_ERRORS, "rocksdb.background-errors"),
    (&STORE_CACHE_BYTES, "rocksdb.block-cache-usage"),
];

/// Has RocksDB count, but take no times: those cost a look at the clock per read.
pub(super) fn count(options: &mut Options) {
    options.enable_statistics();
    options.set_statistics_level(StatsLevel::ExceptHistogramOrTimers);
}

/// Tells everything; a property that this build of RocksDB does not know is left out.
pub(super) fn observe(db: &DB, options: &Options, samples: &mut Samples) {
    for (metric, property) in OF_FAMILIES {
        for cf in COLUMN_FAMILIES {
            if let Ok(Some(value)) = db.property_int_value_cf(family(db, cf), property) {
                samples.with(metric, &[&name(cf)], value);
            }
        }
    }
    for (metric, property) in OF_ALL {
        if let Ok(Some(value)) = db.property_int_value_cf(family(db, COLUMN_FAMILIES[0]), property) {
            samples.set(metric, value);
        }
    }
    samples.set(&STORE_STALLED, Duration::from_micros(options.get_ticker_count(Ticker::StallMicros)));
    samples.set(&STORE_CACHE_HITS, options.get_ticker_count(Ticker::BlockCacheHit));
    samples.set(&STORE_CACHE_MISSES, options.get_ticker_count(Ticker::BlockCacheMiss));
}
