//! How much lies in a range: exact in the simulated store, and in RocksDB near enough to plan by, in memory and in files.
#![cfg(not(madsim))]

use bytes::Bytes;
use metadb_engine::rocks::{RocksOptions, RocksStore};
use metadb_engine::sim::SimStore;
use metadb_engine::{Cf, Extent, Store, WriteBatch};
use std::ops::Range;
use std::sync::Arc;

const VALUE_BYTES: usize = 500;
const KEY_BYTES: usize = 16;

fn key(number: u32) -> Bytes {
    // As rows of the data family are: what is before the version is what filters know.
    [&format!("{number:08}").into_bytes()[..], &[0xff; 8]].concat().into()
}

/// A value that does not shrink by much when it is compressed.
fn value(number: u32) -> Bytes {
    let mut state = u64::from(number) | 1;
    let byte = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56).to_le_bytes()[0]
    };
    (0..VALUE_BYTES).map(byte).collect()
}

fn write(store: &dyn Store, numbers: Range<u32>) {
    let mut batch = WriteBatch::default();
    for number in numbers {
        batch.put(Cf::Data, key(number), value(number));
    }
    store.write(batch).expect("written");
}

fn exactly(rows: u64) -> Extent {
    Extent { bytes: rows * (KEY_BYTES + VALUE_BYTES) as u64, rows }
}

fn near(found: Extent, rows: u64) {
    let wanted = exactly(rows);
    let near = |found: u64, wanted: u64| found.abs_diff(wanted) * 10 <= wanted;
    assert!(near(found.bytes, wanted.bytes) && near(found.rows, wanted.rows), "{found:?} is not near {wanted:?}");
}

async fn extents(store: &dyn Store, ranges: &[(u32, u32)]) -> Vec<Extent> {
    store.extents(Cf::Data, ranges.iter().map(|(start, end)| key(*start)..key(*end)).collect()).await.expect("measured")
}

#[tokio::test]
async fn the_simulated_store_is_exact() {
    let store = SimStore::new(1) as Arc<dyn Store>;
    write(&*store, 0..100);
    assert_eq!(extents(&*store, &[(0, 10), (10, 100), (50, 50)]).await, [exactly(10), exactly(90), exactly(0)]);
    let all = store.extents(Cf::Data, vec![Bytes::new()..Bytes::new()]).await.expect("measured");
    assert_eq!(all, [exactly(100)]);
}

#[tokio::test]
async fn rocksdb_counts_what_is_in_memory_and_knows_about_what_is_in_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = RocksStore::open(folder.path(), &RocksOptions::default()).expect("opened") as Arc<dyn Store>;
    write(&*store, 0..10_000);
    assert_eq!(extents(&*store, &[(0, 1000), (1000, 1003), (20_000, 30_000)]).await, [exactly(1000), exactly(3), exactly(0)]);

    store.flush().await.expect("flushed");
    let found = extents(&*store, &[(0, 10_000), (0, 2500), (2500, 10_000), (20_000, 30_000)]).await;
    near(found[0], 10_000);
    near(found[1], 2500);
    near(found[2], 7500);
    assert_eq!(found[3], exactly(0));
    let all = store.extents(Cf::Data, vec![Bytes::new()..Bytes::new()]).await.expect("measured");
    near(all[0], 10_000);

    // Files and memory together; a range the wrong way round is empty.
    write(&*store, 10_000..15_000);
    let found = extents(&*store, &[(0, 15_000), (9000, 11_000), (11_000, 9000)]).await;
    near(found[0], 15_000);
    near(found[1], 2000);
    assert_eq!(found[2], exactly(0));
}
