//! Rot in what nobody reads: a step-by-step reading of log and store finds every flipped bit, and nothing else.
#![cfg(not(madsim))]

use bytes::Bytes;
use metadb_engine::disk::{Disk, FileDisk};
use metadb_engine::log::{Log, LogOp, LogOptions, LogPlace, Record};
use metadb_engine::rocks::{RocksOptions, RocksStore};
use metadb_engine::sim::{SimDisk, SimStore};
use metadb_engine::{COLUMN_FAMILIES, Cf, EngineError, Store, StoreRead, WriteBatch};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Small enough that a test has several sealed segments.
const SEGMENT_BYTES: u64 = 2 << 10;
const SEGMENT_HEADER: u64 = 64;

async fn submit(log: &Log, index: u64, bytes: usize) {
    let (sender, answer) = tokio::sync::oneshot::channel();
    let entries = vec![Record { index, bytes: vec![u8::try_from(index % 256).expect("below 256"); bytes].into() }];
    log.submit(vec![LogOp::Append { group: 1, entries }], Box::new(move |result| drop(sender.send(result))));
    answer.await.expect("every submission is answered").expect("a healthy disk writes");
}

async fn open(disk: Arc<dyn Disk>) -> Log {
    Log::open(disk, LogOptions { segment_bytes: SEGMENT_BYTES, cache_bytes: 0, ..LogOptions::default() }).await.expect("it opens")
}

/// Reads all of a log in steps; how many bytes there were.
async fn read_log(log: &Log, step: u64) -> Result<u64, EngineError> {
    let (mut from, mut bytes) = (Some(LogPlace::default()), 0);
    while let Some(place) = from {
        let read = log.verify(place, step).await?;
        assert!(read.next.is_none_or(|next| next > place), "{place:?} is followed by {read:?}");
        (from, bytes) = (read.next, bytes + read.bytes);
    }
    Ok(bytes)
}

#[tokio::test]
async fn every_flipped_bit_of_a_sealed_segment_is_found() {
    let disk = SimDisk::new(7);
    disk.set_sync_latency(Duration::ZERO..Duration::ZERO);
    // The first life ends in a doubtful tail: what is behind it is not to be believed, and is not judged.
    let log = open(disk.mount()).await;
    for index in 1..=9 {
        submit(&log, index, 300).await;
    }
    disk.crash(metadb_engine::sim::Kind::Kill);
    let log = open(disk.mount()).await;
    for index in 10..=30 {
        submit(&log, index, 300).await;
    }
    let whole = read_log(&log, 1).await.expect("nothing is rotten");
    assert_eq!(read_log(&log, u64::MAX).await.expect("nothing is rotten"), whole, "steps miss nothing");
    let mut names: Vec<String> = disk.list().expect("it can be listed");
    let newest = names.pop().expect("there are segments");
    assert!(names.len() >= 4, "{names:?}");
    let mut bytes = 0;
    for name in &names {
        for offset in 0..disk.len(name).expect("it can be asked").expect("it is there") {
            if !disk.flip(name, offset, 3) {
                // From here on the file is room for more, with nothing in it.
                break;
            }
            let found = read_log(&log, 700).await;
            assert!(disk.flip(name, offset, 3));
            match found {
                Err(EngineError::Corrupt { path, .. }) => assert_eq!(path, *name, "at {offset}"),
                // Only a tail that a later life gave up.
                Ok(_) => assert_eq!(name, &names[names.len().min(2) - 1], "rot at {offset} of {name} was not noticed"),
                Err(other) => panic!("at {offset}: {other}"),
            }
            bytes += u64::from(offset >= SEGMENT_HEADER);
        }
    }
    assert!(whole <= bytes && whole > bytes * 3 / 4, "{whole} of {bytes} bytes were read");
    assert!(disk.flip(&newest, SEGMENT_HEADER + 40, 0));
    read_log(&log, 700).await.expect("the newest segment is not at rest");
    assert!(matches!(log.trouble(), Some(EngineError::Corrupt { .. })), "what was found once is told");
}

#[tokio::test]
async fn segments_that_go_while_they_are_read_are_no_rot() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = open(FileDisk::open(folder.path()).expect("it opens")).await;
    let writing = log.clone();
    let writer = tokio::spawn(async move {
        for index in 1..=1500 {
            submit(&writing, index, 400).await;
            let purge = LogOp::Purge { group: 1, through_index: index.saturating_sub(12), mark: Bytes::from_static(b"m") };
            writing.submit(vec![purge], Box::new(|_| {}));
        }
    });
    while !writer.is_finished() {
        read_log(&log, 5000).await.expect("nothing is rotten");
    }
    writer.await.expect("it writes");
    assert_eq!(log.trouble().map(|error| error.to_string()), None);
}

fn noise(number: u32) -> Vec<u8> {
    (0..60_u8).map(|at| u8::try_from(crc32c::crc32c(&[&number.to_be_bytes()[..], &[at]].concat()) % 256).expect("below 256")).collect()
}

fn write(store: &dyn Store, cf: Cf, numbers: std::ops::Range<u32>) {
    let mut batch = WriteBatch::default();
    for number in numbers {
        // A key of the data family ends in eight bytes of version.
        batch.put(cf, [&number.to_be_bytes()[..], &[0; 8]].concat(), noise(number));
    }
    store.write(batch).expect("it writes");
}

/// Reads all of a family in steps; how many bytes there were.
async fn read_family(store: &dyn Store, cf: Cf, step: u64) -> Result<u64, EngineError> {
    let (mut from, mut bytes) = (Some(Bytes::new()), 0);
    while let Some(key) = from {
        let read = store.verify(cf, key.clone(), step).await?;
        assert!(read.next.as_ref().is_none_or(|next| *next > key), "{key:?} is followed by {read:?}");
        (from, bytes) = (read.next, bytes + read.bytes);
    }
    Ok(bytes)
}

fn tables(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).expect("it can be listed").filter_map(Result::ok).map(|entry| entry.path());
    files.filter(|path| path.extension().is_some_and(|kind| kind == "sst")).collect()
}

#[tokio::test]
async fn a_rotten_block_is_found_in_each_family_even_where_memory_has_it() {
    for rotten in COLUMN_FAMILIES {
        let folder = tempfile::tempdir().expect("a folder");
        let store = RocksStore::open(folder.path(), &RocksOptions::default()).expect("it opens");
        write(&*store, rotten, 0..3000);
        store.flush().await.expect("it flushes");
        let table = tables(folder.path()).pop().expect("a flush makes a file");
        for cf in COLUMN_FAMILIES {
            write(&*store, cf, 5000..5100);
        }
        store.flush().await.expect("it flushes");
        let whole = read_family(&*store, rotten, 10 << 10).await.expect("nothing is rotten");
        assert_eq!(whole, 3100 * 72);
        // Each block is in memory now, whole.
        assert_eq!(store.cursor(rotten, &[][..]..&[], false).filter(Result::is_ok).count(), 3100);
        let mut bytes = std::fs::read(&table).expect("it can be read");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&table, bytes).expect("it can be written");
        assert_eq!(store.cursor(rotten, &[][..]..&[], false).filter(Result::is_ok).count(), 3100, "memory has it");
        for cf in COLUMN_FAMILIES {
            let read = read_family(&*store, cf, 10 << 10).await;
            assert_eq!(matches!(read, Err(EngineError::Corrupt { .. })), cf == rotten, "{cf:?} of {rotten:?}: {read:?}");
        }
        assert!(matches!(store.trouble(), Some(EngineError::Corrupt { .. })));
    }
}

#[tokio::test]
async fn a_store_is_read_while_files_come_and_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = RocksOptions { memtable_bytes: 64 << 10, ..RocksOptions::default() };
    let store = RocksStore::open(folder.path(), &options).expect("it opens");
    let writing = Arc::clone(&store);
    let writer = tokio::task::spawn_blocking(move || {
        for round in 0..60 {
            for cf in COLUMN_FAMILIES {
                write(&*writing, cf, round * 500..round * 500 + 1500);
            }
        }
    });
    let mut passes = 0;
    while !writer.is_finished() || passes == 0 {
        for cf in COLUMN_FAMILIES {
            read_family(&*store, cf, 100 << 10).await.expect("nothing is rotten");
        }
        passes += 1;
    }
    writer.await.expect("it writes");
    assert_eq!(store.trouble().map(|error| error.to_string()), None);
    let logs = std::fs::read_dir(folder.path()).expect("it can be listed").filter_map(Result::ok);
    assert_eq!(logs.filter(|entry| entry.file_name().to_string_lossy().starts_with("LOG")).count(), 1, "reading leaves nothing behind");
}

#[tokio::test]
async fn a_simulated_store_finds_its_rot_too() {
    let store = SimStore::new(3);
    for cf in COLUMN_FAMILIES {
        write(&*store, cf, 0..50);
    }
    store.flush().await.expect("it flushes");
    assert_eq!(read_family(&*store, Cf::Changes, 100).await.expect("nothing is rotten"), 50 * 72);
    store.rot(Cf::Changes).expect("there are rows");
    read_family(&*store, Cf::Data, 100).await.expect("this family is whole");
    assert!(matches!(read_family(&*store, Cf::Changes, 100).await, Err(EngineError::Corrupt { .. })));
    assert!(matches!(store.trouble(), Some(EngineError::Corrupt { .. })));
}
