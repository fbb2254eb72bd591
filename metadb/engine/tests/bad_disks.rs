//! Hand-made damage: what must be told, what must be cut, and what must go on.
#![cfg(not(madsim))]

use bytes::Bytes;
use metadb_engine::disk::{Disk, FileDisk};
use metadb_engine::log::{Log, LogOp, LogOptions, Record};
use metadb_engine::rocks::{RocksOptions, RocksStore};
use metadb_engine::sim::{Kind, SimDisk, SimStore};
use metadb_engine::{Cf, EngineError, Store, StoreRead, WriteBatch};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::Duration;

const FIRST: &str = "log-00000000000000000001.seg";

fn disk() -> Arc<SimDisk> {
    let disk = SimDisk::new(7);
    disk.set_sync_latency(Duration::ZERO..Duration::ZERO);
    disk
}

async fn submit(log: &Log, ops: Vec<LogOp>) -> Result<(), EngineError> {
    let (sender, answer) = tokio::sync::oneshot::channel();
    log.submit(ops, Box::new(move |result| drop(sender.send(result))));
    answer.await.expect("every submission is answered")
}

fn append(group: u32, index: u64, size: usize) -> LogOp {
    let bytes = Bytes::from(vec![u8::try_from(index % 256).expect("below 256"); size]);
    LogOp::Append { group, entries: vec![Record { index, bytes }] }
}

async fn open(disk: &Arc<SimDisk>) -> Result<Log, EngineError> {
    Log::open(disk.mount(), LogOptions::default()).await
}

/// Opens a log and makes so many batches of one entry, each synced.
async fn written(disk: &Arc<SimDisk>, entries: u64) -> Log {
    let log = open(disk).await.expect("an empty disk opens");
    for index in 1..=entries {
        submit(&log, vec![append(1, index, 100)]).await.expect("a healthy disk writes");
    }
    log
}

fn indexes(log: &Log) -> Vec<u64> {
    log.read(1, 0..u64::MAX, usize::MAX).expect("what was recovered can be read").into_iter().map(|record| record.index).collect()
}

#[tokio::test]
async fn a_flipped_bit_before_the_end_is_told_wherever_it_is() {
    let origin = disk();
    drop(written(&origin, 12).await);
    let length = origin.len(FIRST).expect("it can be asked").expect("it is there");
    let all = origin.read(FIRST, 0, usize::MAX).expect("it can be read");
    // 100 bytes of payload, 24 of record, 32 of batch.
    let last_batch = length - 156;
    for offset in 0..length {
        let disk = disk();
        disk.append(FIRST, &all).expect("it fits");
        disk.sync(FIRST).expect("it syncs");
        assert!(disk.flip(FIRST, offset, 3));
        match open(&disk).await {
            Err(EngineError::Corrupt { path, .. }) => {
                assert_eq!(path, FIRST);
                assert!(offset < last_batch, "rot in the last batch can't be told from a torn write, at {offset}");
            }
            Ok(log) => {
                assert!(offset >= last_batch, "rot at {offset} was not noticed");
                assert_eq!(indexes(&log), (1..12).collect::<Vec<_>>());
            }
            Err(other) => panic!("at {offset}: {other}"),
        }
    }
}

#[tokio::test]
async fn after_a_clean_close_rot_in_the_last_entries_is_told_too() {
    let disk = disk();
    written(&disk, 5).await.close().await.expect("a healthy log closes");
    let length = disk.len(FIRST).expect("it can be asked").expect("it is there");
    assert!(disk.flip(FIRST, length - 32 - 10, 0));
    assert!(matches!(open(&disk).await, Err(EngineError::Corrupt { .. })));
}

#[tokio::test]
async fn after_a_kill_rot_in_the_last_entries_is_told_too() {
    let disk = disk();
    drop(written(&disk, 5).await);
    let length = disk.len(FIRST).expect("it can be asked").expect("it is there");
    disk.crash(Kind::Kill);
    assert!(disk.flip(FIRST, length - 10, 0));
    assert!(matches!(open(&disk).await, Err(EngineError::Corrupt { .. })));
    assert!(disk.flip(FIRST, length - 10, 0));
    assert_eq!(indexes(&open(&disk).await.expect("what is whole is no error")), [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn a_log_that_goes_round_writes_over_what_it_retired() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let options = LogOptions { segment_bytes: 16 << 10, cache_bytes: 0, ..LogOptions::default() };
    let log = Log::open(FileDisk::open(folder.path()).expect("it opens"), options.clone()).await.expect("it opens");
    let mut files = BTreeSet::new();
    for index in 1..=400 {
        let purge = LogOp::Purge { group: 1, through_index: index - 1, mark: Bytes::from_static(b"m") };
        submit(&log, vec![append(1, index, 1000), purge]).await.expect("a healthy disk writes");
        let entries = std::fs::read_dir(folder.path()).expect("it can be listed").filter_map(Result::ok);
        files.extend(entries.filter_map(|entry| Some(entry.metadata().ok()?.ino())));
    }
    assert!(files.len() <= 6, "{} files were made for a log of at most six segments and two spares", files.len());
    drop(log);
    let log = Log::open(FileDisk::open(folder.path()).expect("it opens"), options).await.expect("it opens over what was retired");
    assert_eq!(indexes(&log), [400]);
}

#[tokio::test]
async fn a_torn_tail_is_cut_at_every_length() {
    let origin = disk();
    drop(written(&origin, 3).await);
    let all = origin.read(FIRST, 0, usize::MAX).expect("it can be read");
    for cut in 0..all.len() {
        let disk = disk();
        disk.append(FIRST, &all[..cut]).expect("it fits");
        let log = open(&disk).await.expect("a torn tail is no error");
        let whole = u64::try_from(all.len() - cut).expect("small").div_ceil(156);
        assert_eq!(indexes(&log), (1..=3_u64.saturating_sub(whole)).collect::<Vec<_>>(), "cut at {cut}");
        submit(&log, vec![append(1, indexes(&log).last().map_or(1, |last| last + 1), 10)]).await.expect("it goes on");
    }
}

#[tokio::test]
async fn zeros_behind_the_end_are_the_end() {
    let disk = disk();
    drop(written(&disk, 3).await);
    disk.append(FIRST, &[0; 5000]).expect("it fits");
    assert_eq!(indexes(&open(&disk).await.expect("a file extended ahead of time is no error")), [1, 2, 3]);
}

#[tokio::test]
async fn a_newer_format_is_refused_with_what_to_do() {
    let disk = disk();
    drop(written(&disk, 1).await);
    let mut bytes = disk.read(FIRST, 0, usize::MAX).expect("it can be read").to_vec();
    bytes[8..12].copy_from_slice(&9_u32.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    disk.remove(FIRST).expect("it can be removed");
    disk.append(FIRST, &bytes).expect("it fits");
    match open(&disk).await {
        Err(EngineError::Foreign { message, .. }) => {
            assert!(message.contains("format 9") && message.contains("run the version"), "{message}")
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(disk.read(FIRST, 0, usize::MAX).expect("it can be read"), bytes, "refusing must not change anything");
}

#[tokio::test]
async fn a_missing_segment_is_told() {
    let disk = disk();
    for entries in [1..3_u64, 3..5, 5..7] {
        let log = open(&disk).await.expect("it opens");
        for index in entries {
            submit(&log, vec![append(1, index, 100)]).await.expect("a healthy disk writes");
        }
        log.close().await.expect("a healthy log closes");
    }
    disk.remove("log-00000000000000000002.seg").expect("it can be removed");
    assert!(matches!(open(&disk).await, Err(EngineError::Corrupt { .. })));
    disk.remove(FIRST).expect("it can be removed");
    assert!(matches!(open(&disk).await, Err(EngineError::Corrupt { .. })), "its entries are missing though no older segment is left");
}

#[tokio::test]
async fn rot_while_running_is_never_served() {
    let disk = disk();
    let log = Log::open(disk.mount(), LogOptions { cache_bytes: 0, ..LogOptions::default() }).await.expect("an empty disk opens");
    for index in 1..=3 {
        submit(&log, vec![append(1, index, 100)]).await.expect("a healthy disk writes");
    }
    submit(&log, vec![LogOp::Vote { group: 1, bytes: Bytes::from_static(b"v") }]).await.expect("a healthy disk writes");
    let length = disk.len(FIRST).expect("it can be asked").expect("it is there");
    assert!(disk.flip(FIRST, length - 57 - 156 - 50, 1));
    assert!(log.read(1, 1..2, 1000).is_ok());
    assert!(matches!(log.read(1, 1..4, 1000), Err(EngineError::Corrupt { .. })));
}

/// Submits, and gives the answer when there is one.
fn begin(log: &Log, ops: Vec<LogOp>) -> tokio::sync::oneshot::Receiver<Result<(), EngineError>> {
    let (sender, answer) = tokio::sync::oneshot::channel();
    log.submit(ops, Box::new(move |result| drop(sender.send(result))));
    answer
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect(what);
}

#[tokio::test]
async fn a_full_disk_keeps_the_log_waiting_and_loses_nothing() {
    let disk = disk();
    let log = written(&disk, 2).await;
    disk.set_capacity(Some(disk.used_bytes() + 50));
    let mut third = begin(&log, vec![append(1, 3, 100)]);
    until("the log tells that the disk is full", || matches!(log.trouble(), Some(EngineError::Full { .. }))).await;
    let fourth = begin(&log, vec![append(1, 4, 1)]);
    submit(&log, vec![LogOp::Committed { group: 1, bytes: Bytes::from_static(b"c") }])
        .await
        .expect("a mark that may be lost waits for nothing");
    assert!(third.try_recv().is_err(), "nothing is promised while there is no room");
    disk.set_capacity(None);
    third.await.expect("it is answered").expect("there is room");
    fourth.await.expect("it is answered").expect("there is room");
    assert!(log.trouble().is_none(), "{:?}", log.trouble());
    disk.crash(Kind::PowerLoss);
    assert_eq!(indexes(&open(&disk).await.expect("it opens")), [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_segment_that_finds_no_room_is_begun_when_there_is_some() {
    let disk = disk();
    let options = LogOptions { segment_bytes: 1 << 10, ..LogOptions::default() };
    let log = Log::open(disk.mount(), options.clone()).await.expect("an empty disk opens");
    for index in 1..=9 {
        submit(&log, vec![append(1, index, 100)]).await.expect("a healthy disk writes");
    }
    disk.set_capacity(Some(disk.used_bytes()));
    let waiting = begin(&log, vec![append(1, 10, 900), LogOp::Vote { group: 1, bytes: Bytes::from_static(b"v") }]);
    until("the log tells that the disk is full", || log.trouble().is_some()).await;
    disk.set_capacity(None);
    waiting.await.expect("it is answered").expect("there is room");
    disk.crash(Kind::PowerLoss);
    let log = Log::open(disk.mount(), options).await.expect("it opens");
    assert_eq!(indexes(&log), (1..=10).collect::<Vec<_>>());
    assert_eq!(log.group(1).expect("it is known").vote.as_deref(), Some(&b"v"[..]));
}

#[tokio::test]
async fn a_log_that_waits_for_room_can_be_closed() {
    let disk = disk();
    let log = written(&disk, 2).await;
    disk.set_capacity(Some(disk.used_bytes()));
    let third = begin(&log, vec![append(1, 3, 100)]);
    until("the log tells that the disk is full", || log.trouble().is_some()).await;
    assert!(log.close().await.is_err(), "what it was given is not durable");
    assert!(third.await.expect("it is answered").is_err());
    disk.set_capacity(None);
    assert_eq!(indexes(&open(&disk).await.expect("it opens")), [1, 2]);
}

#[tokio::test]
async fn entries_that_do_not_follow_are_refused_alone() {
    let disk = disk();
    let log = written(&disk, 2).await;
    let both = vec![LogOp::Vote { group: 1, bytes: Bytes::from_static(b"v") }, append(1, 5, 10)];
    match submit(&log, both).await {
        Err(EngineError::Io { message, .. }) => assert!(message.contains("index 3"), "{message}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(log.group(1).expect("it is known").vote, None, "nothing of a refused submission is taken");
    submit(&log, vec![append(1, 3, 10)]).await.expect("the log goes on");
}

#[tokio::test]
async fn an_idle_group_does_not_keep_old_segments() {
    let disk = disk();
    let options = LogOptions { segment_bytes: 16 << 10, cache_bytes: 0, ..LogOptions::default() };
    let log = Log::open(disk.mount(), options.clone()).await.expect("an empty disk opens");
    submit(&log, vec![append(1, 1, 100), append(1, 2, 100)]).await.expect("a healthy disk writes");
    for index in 1..400 {
        let purge = LogOp::Purge { group: 2, through_index: index - 1, mark: Bytes::from_static(b"m") };
        submit(&log, vec![append(2, index, 1000), purge]).await.expect("a healthy disk writes");
    }
    let stats = log.stats();
    assert!(stats.segments <= 6 && stats.bytes < 110 << 10, "{stats:?}");
    assert_eq!(indexes(&log), [1, 2]);
    disk.crash(Kind::PowerLoss);
    let log = Log::open(disk.mount(), options).await.expect("it opens");
    assert_eq!(indexes(&log), [1, 2]);
    assert_eq!(log.group(2).expect("it is known").last_index, Some(399));
}

#[tokio::test]
async fn committed_and_purge_cost_no_sync() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let disk: Arc<dyn Disk> = FileDisk::open(folder.path()).expect("it opens");
    let log = Log::open(Arc::clone(&disk), LogOptions::default()).await.expect("it opens");
    submit(&log, vec![append(1, 1, 10)]).await.expect("a healthy disk writes");
    let before = log.stats().syncs;
    for index in 0..100_u64 {
        let bytes = Bytes::copy_from_slice(&index.to_be_bytes());
        submit(&log, vec![LogOp::Committed { group: 1, bytes }]).await.expect("it is taken");
    }
    assert_eq!(log.stats().syncs, before);
    log.close().await.expect("a healthy log closes");
    let log = Log::open(disk, LogOptions::default()).await.expect("it opens");
    let state = log.group(1).expect("it is known");
    assert_eq!(state.committed.as_deref(), Some(&99_u64.to_be_bytes()[..]));
    assert_eq!(state.last_index, Some(1));
}

#[tokio::test]
async fn many_submitters_share_syncs_in_order() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let log = Log::open(FileDisk::open(folder.path()).expect("it opens"), LogOptions::default()).await.expect("it opens");
    let (sender, mut answers) = tokio::sync::mpsc::channel(5000);
    for index in 1..=5000_u64 {
        let sender = sender.clone();
        log.submit(vec![append(1, index, 256)], Box::new(move |result| _ = sender.try_send((index, result.is_ok()))));
    }
    for index in 1..=5000 {
        assert_eq!(answers.recv().await, Some((index, true)));
    }
    assert!(log.stats().syncs < 2500, "{:?}", log.stats());
}

#[test]
fn file_names_are_one_path_element() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let disk = FileDisk::open(folder.path()).expect("it opens");
    for name in ["", ".", "..", "a/b", "../x", "a\0b"] {
        assert!(matches!(disk.append(name, b"x"), Err(EngineError::Io { .. })), "{name:?}");
    }
}

#[test]
fn a_store_of_a_newer_format_is_refused() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    drop(RocksStore::open(folder.path(), &RocksOptions::default()).expect("it opens"));
    std::fs::write(folder.path().join("FORMAT"), "2").expect("it can be written");
    let refused = RocksStore::open(folder.path(), &RocksOptions::default());
    assert!(matches!(refused, Err(EngineError::Foreign { message, .. }) if message.contains("run the version")));
}

#[tokio::test]
async fn a_rotten_block_is_never_served() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let store = RocksStore::open(folder.path(), &RocksOptions::default()).expect("it opens");
    let mut batch = WriteBatch::default();
    for number in 0..2000_u32 {
        let value: Vec<u8> = (0..50_u8)
            .map(|at| u8::try_from(crc32c::crc32c(&[number.to_be_bytes().as_slice(), &[at]].concat()) % 256).expect("below 256"))
            .collect();
        batch.put(Cf::State, number.to_be_bytes().to_vec(), value);
    }
    store.write(batch).expect("it writes");
    store.flush().await.expect("it flushes");
    drop(store);
    let table = std::fs::read_dir(folder.path()).expect("it can be listed").filter_map(Result::ok).map(|entry| entry.path());
    let table = table
        .filter(|path| path.extension().is_some_and(|kind| kind == "sst"))
        .max_by_key(|path| path.metadata().map_or(0, |data| data.len()));
    let table = table.expect("a flush makes a file");
    let mut bytes = std::fs::read(&table).expect("it can be read");
    bytes[5000] ^= 4;
    std::fs::write(&table, bytes).expect("it can be written");
    let store = RocksStore::open(folder.path(), &RocksOptions::default()).expect("it opens");
    let scanned: Result<Vec<_>, _> = store.cursor(Cf::State, &[]..&[], false).collect();
    assert!(matches!(scanned, Err(EngineError::Corrupt { .. })), "{:?}", scanned.map(|rows| rows.len()));
}

#[tokio::test]
async fn the_simulated_store_fails_on_demand() {
    let store = SimStore::new(1);
    let put = |value: &'static [u8]| {
        let mut batch = WriteBatch::default();
        batch.put(Cf::State, &b"k"[..], value);
        batch
    };
    store.write(put(b"1")).expect("it writes");
    store.flush().await.expect("it flushes");
    store.set_full(true);
    assert!(matches!(store.write(put(b"2")), Err(EngineError::Full { .. })));
    store.set_full(false);
    store.write(put(b"3")).expect("it writes");
    store.fail_flushes(1);
    assert!(matches!(store.flush().await, Err(EngineError::Io { .. })));
    assert!(matches!(store.write(put(b"4")), Err(EngineError::Stopped { .. })));
    let stale = store.snapshot();
    store.crash(Kind::PowerLoss);
    assert!(matches!(stale.get(Cf::State, b"k"), Err(EngineError::Stopped { .. })));
    store.write(put(b"5")).expect("it lives again");
    store.flush().await.expect("it flushes");
    assert_eq!(store.rot(Cf::State).as_deref(), Some(&b"k"[..]));
    assert!(matches!(store.get(Cf::State, b"k"), Err(EngineError::Corrupt { .. })));
}
