//! What `snapshot` promises, tested.

use super::depot::{Depot, SnapshotLimits};
use super::incoming::Incoming;
use super::manifest::{Manifest, SnapshotFile, id_of};
use super::outgoing::{Outgoing, Traffic};
use super::*;
use crate::raft::{LogId, Member, Membership, SnapshotMeta, StoredMembership};
use metadb_engine::disk::Disk;
use metadb_engine::sim::{Kind, SimDisk, SimStore};
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const GROUP: u32 = 5;
const LIMITS: SnapshotLimits = SnapshotLimits {
    file_bytes: 40 << 10,
    chunk_bytes: 8 << 10,
    bytes_per_s: 1 << 30,
    at_a_time: 2,
    keep_idle: Duration::from_secs(300),
    stall: Duration::from_secs(1),
};

fn key(group_id: u32, suffix: &[u8]) -> Bytes {
    let mut key = group_id.to_be_bytes().to_vec();
    key.extend_from_slice(suffix);
    key.into()
}

fn fill(store: &dyn Store, group_id: u32, rows: u32, value: &[u8]) {
    let mut batch = WriteBatch::default();
    for row in 0..rows {
        batch.put(Cf::Data, key(group_id, &[&row.to_be_bytes()[..], &[0xff; 8]].concat()), Bytes::copy_from_slice(value));
        batch.put(Cf::Changes, key(group_id, &row.to_be_bytes()), Bytes::copy_from_slice(&value[..1]));
    }
    batch.put(Cf::State, key(group_id, &[0]), Bytes::from_static(b"applied"));
    store.write(batch).expect("writes");
}

fn rows(store: &dyn StoreRead, group_id: u32) -> Vec<(Cf, Bytes, Bytes)> {
    let mut out = Vec::new();
    for cf in [Cf::Data, Cf::Changes, Cf::State] {
        let (start, end) = travelling(cf, group_id);
        out.extend(store.cursor(cf, &start[..]..&end[..], false).map(|row| row.expect("reads")).map(|(k, v)| (cf, k, v)));
    }
    out
}

fn meta(index: u64) -> SnapshotMeta {
    SnapshotMeta { last_log_id: Some(LogId::new_term_index(1, index)), ..Default::default() }
}

fn depot(disk: &Arc<SimDisk>) -> Arc<Depot> {
    Depot::new(disk.mount(), LIMITS, Arc::default())
}

fn outgoing(store: &Arc<dyn Store>, depot: &Arc<Depot>) -> Arc<Outgoing> {
    Outgoing::new(depot, store, GROUP, meta(7))
}

/// Brings up to so many chunks over; how many it brought.
async fn bring(from: &Outgoing, to: &mut Incoming, most: usize) -> usize {
    let manifest = from.manifest().await.expect("is written");
    let mut brought = 0;
    for (number, file) in manifest.files.iter().enumerate() {
        let mut offset = to.have()[number];
        while let Some(chunk) = file.chunk_at(offset, manifest.chunk_bytes) {
            if brought == most {
                return brought;
            }
            let bytes = from.read(number, chunk).expect("reads");
            to.append(number, offset, &bytes).await.expect("is taken");
            offset += chunk.bytes as u64;
            brought += 1;
        }
    }
    brought
}

/// A whole snapshot, brought to a depot; its id.
async fn deliver(from: &Outgoing, to: &Arc<Depot>) -> String {
    let manifest = from.manifest().await.expect("is written");
    let mut incoming = Incoming::open(to, manifest.encode()).await.expect("opens");
    bring(from, &mut incoming, usize::MAX).await;
    assert!(incoming.is_complete());
    incoming.id
}

#[tokio::test]
async fn a_snapshot_carries_exactly_the_rows_of_its_group() {
    let (from, to): (Arc<dyn Store>, Arc<dyn Store>) = (SimStore::new(1), SimStore::new(2));
    let value = vec![1; 2_000];
    fill(&*from, GROUP - 1, 3, &value);
    fill(&*from, GROUP, 200, &value);
    fill(&*from, GROUP + 1, 3, &value);
    mark_replica(&*from, GROUP).expect("marks");
    fill(&*to, GROUP, 300, b"stale");
    fill(&*to, GROUP + 1, 2, b"other");
    let others = rows(&*to, GROUP + 1);
    let (disk_from, disk_to) = (SimDisk::new(1), SimDisk::new(2));
    let (depot_from, depot_to) = (depot(&disk_from), depot(&disk_to));
    let out = outgoing(&from, &depot_from);
    let expected = rows(&*from, GROUP);
    // The view is of the moment when the snapshot was taken.
    let manifest = out.manifest().await.expect("is written");
    fill(&*from, GROUP, 1, b"later");
    assert!(manifest.files.len() > 10, "{} files", manifest.files.len());
    assert!(manifest.files.iter().all(|file| file.bytes < LIMITS.file_bytes + 4096), "files are bounded");
    assert_eq!(manifest.files.iter().map(|file| file.rows).sum::<u64>(), expected.len() as u64);
    let id = deliver(&out, &depot_to).await;
    import::verify(&depot_to, GROUP, &id).await.expect("is right");
    import::import(&to, &depot_to, GROUP, &id).await.expect("imports");
    assert_eq!(rows(&*to, GROUP), expected);
    assert_eq!(rows(&*to, GROUP + 1), others);
    assert_eq!(depot_to.disk.list().expect("lists"), Vec::<String>::new());
    assert_eq!(marked_replicas(&*to).expect("reads"), vec![GROUP]);
    drop(out);
    assert_eq!(depot_from.disk.list().expect("lists"), Vec::<String>::new(), "the sender's files go with the snapshot");
}

/// The import is stopped at forty moments, from its beginning to its end.
#[tokio::test]
async fn an_import_that_a_crash_interrupts_is_finished_when_opening() {
    let source: Arc<dyn Store> = SimStore::new(1);
    fill(&*source, GROUP, 60, &[7; 2000]);
    let depot_from = depot(&SimDisk::new(9));
    let out = outgoing(&source, &depot_from);
    let (mut old_kept, mut done_again) = (0, 0);
    for seed in 0..40_u32 {
        let store = SimStore::new(seed.into());
        fill(&*store, GROUP, 300, b"stale");
        store.flush().await.expect("flushes");
        store.set_flush_latency(Duration::from_millis(2));
        let old = rows(&*store, GROUP);
        let disk = SimDisk::new(seed.into());
        let depot_to = depot(&disk);
        let target: Arc<dyn Store> = store.clone();
        let id = deliver(&out, &depot_to).await;
        let stopped = tokio::time::timeout(Duration::from_micros(400) * seed, import::import(&target, &depot_to, GROUP, &id)).await;
        let kind = if seed % 2 == 0 { Kind::PowerLoss } else { Kind::Kill };
        store.crash(kind);
        disk.crash(kind);
        let marked = target.get(Cf::State, &group_key(GROUP, Some(INSTALLING_KIND))).expect("reads").is_some();
        let depot_to = depot(&disk);
        import::recover(&target, &depot_to, GROUP).await.expect("recovers");
        let now = rows(&*target, GROUP);
        if now == old {
            assert!(!marked && stopped.is_err(), "seed {seed}");
            old_kept += 1;
        } else {
            assert_eq!(now, rows(&*source, GROUP), "seed {seed}: neither the old state nor the new");
            done_again += u32::from(marked);
        }
    }
    assert!(old_kept > 0 && done_again > 5, "stopped before the mark {old_kept} times, after it {done_again} times");
}

#[tokio::test]
async fn a_transfer_goes_on_where_it_was_cut() {
    let source: Arc<dyn Store> = SimStore::new(1);
    fill(&*source, GROUP, 150, &[7; 2000]);
    let depot_from = depot(&SimDisk::new(9));
    let out = outgoing(&source, &depot_from);
    let manifest = out.manifest().await.expect("is written");
    let all: usize = manifest.files.iter().map(|file| file.chunks.len()).sum();
    let mut reused = 0;
    for seed in 0..21 {
        let disk = SimDisk::new(seed);
        let mut left = all;
        for (attempt, cut) in [5, 9, 11, usize::MAX].into_iter().enumerate() {
            let depot_to = depot(&disk);
            assert_eq!(import::recover(&source, &depot_to, GROUP).await.expect("opens"), attempt > 0);
            let mut incoming = Incoming::open(&depot_to, manifest.encode()).await.expect("opens");
            reused += incoming.done_bytes();
            let brought = bring(&out, &mut incoming, cut).await;
            // Between two attempts: nothing but a broken connection, a killed process, a power failure.
            match seed % 3 {
                0 => {
                    assert!(brought == left.min(cut), "brought {brought} although {left} were left");
                    left -= brought;
                }
                1 => disk.crash(Kind::Kill),
                _ => disk.crash(Kind::PowerLoss),
            }
        }
        let depot_to = depot(&disk);
        let mut incoming = Incoming::open(&depot_to, manifest.encode()).await.expect("opens");
        bring(&out, &mut incoming, usize::MAX).await;
        import::verify(&depot_to, GROUP, &incoming.id).await.expect("is right");
        let target: Arc<dyn Store> = SimStore::new(seed);
        import::import(&target, &depot_to, GROUP, &incoming.id).await.expect("imports");
        assert_eq!(rows(&*target, GROUP), rows(&*source, GROUP));
    }
    assert!(reused > 20 * LIMITS.file_bytes, "only {reused} bytes were not sent again");
}

#[tokio::test]
async fn another_snapshot_takes_the_place_of_what_was_received() {
    let source: Arc<dyn Store> = SimStore::new(1);
    fill(&*source, GROUP, 60, &[7; 2000]);
    let (depot_from, depot_to) = (depot(&SimDisk::new(9)), depot(&SimDisk::new(8)));
    let first = deliver(&outgoing(&source, &depot_from), &depot_to).await;
    fill(&*source, GROUP, 60, &[8; 2000]);
    let second = deliver(&outgoing(&source, &depot_from), &depot_to).await;
    assert_ne!(first, second);
    let names = depot_to.disk.list().expect("lists");
    assert!(names.iter().all(|name| name.contains(&second)), "{names:?}");
}

#[tokio::test]
async fn rot_in_a_received_file_is_found_and_only_that_file_is_brought_again() {
    let source: Arc<dyn Store> = SimStore::new(1);
    fill(&*source, GROUP, 150, &[7; 2000]);
    let (depot_from, disk) = (depot(&SimDisk::new(9)), SimDisk::new(3));
    let (depot_to, out) = (depot(&disk), outgoing(&source, &depot_from));
    let id = deliver(&out, &depot_to).await;
    let file = incoming::file_name(GROUP, &id, 2);
    assert!(disk.flip(&file, 20_000, 3));
    let error = import::verify(&depot_to, GROUP, &id).await.expect_err("rotten");
    assert!(matches!(&error, SnapshotError::Corrupt { name, offset: 16_384 } if *name == file), "{error}");
    assert_eq!(depot_to.counts.totals().rotten_parts, 1);
    let manifest = out.manifest().await.expect("is written");
    let mut incoming = Incoming::open(&depot_to, manifest.encode()).await.expect("opens");
    let left = manifest.files[2].chunks.len() - 2;
    assert_eq!(bring(&out, &mut incoming, usize::MAX).await, left);
    import::verify(&depot_to, GROUP, &id).await.expect("is right");
}

/// Whatever bit of whatever file flips once the snapshot is here whole, nothing of it comes into the store.
#[tokio::test]
async fn no_flipped_bit_is_ever_taken_in() {
    let source: Arc<dyn Store> = SimStore::new(1);
    fill(&*source, GROUP, 30, &[7; 2000]);
    let (depot_from, disk) = (depot(&SimDisk::new(9)), SimDisk::new(3));
    let out = outgoing(&source, &depot_from);
    let manifest = out.manifest().await.expect("is written");
    let target: Arc<dyn Store> = SimStore::new(2);
    fill(&*target, GROUP, 4, b"old");
    target.flush().await.expect("flushes");
    let old = rows(&*target, GROUP);
    let mut flipped = 0;
    for (number, file) in manifest.files.iter().enumerate() {
        for offset in (0..file.bytes).step_by(997).chain([file.bytes - 1]) {
            let depot_to = depot(&disk);
            let id = deliver(&out, &depot_to).await;
            let name = incoming::file_name(GROUP, &id, number);
            assert!(disk.flip(&name, offset, u8::try_from(offset % 8).expect("below eight")));
            let found = import::verify(&depot_to, GROUP, &id).await.expect_err("it is found");
            assert!(matches!(&found, SnapshotError::Corrupt { name: told, .. } if *told == name), "{found}");
            assert_eq!(depot_to.counts.totals().rotten_parts, 1, "and told");
            // What a node that opens makes of it: files for a transfer that may go on, and nothing for the store.
            assert!(import::recover(&target, &depot_to, GROUP).await.expect("opens"));
            assert_eq!(rows(&*target, GROUP), old);
            flipped += 1;
        }
    }
    assert!(flipped > 60, "{flipped}");
    // Nor when an import was under way already: then there is no old state to go back to, and the replica must not open.
    let depot_to = depot(&disk);
    let id = deliver(&out, &depot_to).await;
    let mut batch = WriteBatch::default();
    batch.put(Cf::State, group_key(GROUP, Some(INSTALLING_KIND)), Bytes::copy_from_slice(id.as_bytes()));
    target.write(batch).expect("writes");
    assert!(disk.flip(&incoming::file_name(GROUP, &id, 0), 5000, 1));
    let refused = import::recover(&target, &depot_to, GROUP).await.expect_err("it is found");
    assert!(matches!(refused, SnapshotError::Corrupt { .. }), "{refused}");
    assert_eq!(rows(&*target, GROUP), old);
}

#[tokio::test]
async fn rot_on_the_way_and_at_the_sender_is_found() {
    let source: Arc<dyn Store> = SimStore::new(1);
    fill(&*source, GROUP, 60, &[7; 2000]);
    let disk = SimDisk::new(9);
    let (depot_from, depot_to) = (depot(&disk), depot(&SimDisk::new(8)));
    let out = outgoing(&source, &depot_from);
    let manifest = out.manifest().await.expect("is written");
    let mut incoming = Incoming::open(&depot_to, manifest.encode()).await.expect("opens");
    let chunk = manifest.files[0].chunk_at(0, manifest.chunk_bytes).expect("has a first chunk");
    let mut bytes = out.read(0, chunk).expect("reads").to_vec();
    bytes[77] ^= 1;
    let error = incoming.append(0, 0, &bytes).await.expect_err("a flipped bit");
    assert!(matches!(error, SnapshotError::Corrupt { .. }), "{error}");
    bytes[77] ^= 1;
    let error = incoming.append(0, 8192, &bytes).await.expect_err("does not follow");
    assert!(matches!(error, SnapshotError::OutOfOrder { .. }), "{error}");
    let error = incoming.append(99, 0, &bytes).await.expect_err("no such file");
    assert!(matches!(error, SnapshotError::OutOfOrder { .. }), "{error}");
    incoming.append(0, 0, &bytes).await.expect("is right");
    let name = disk.mount().list().expect("lists").into_iter().next().expect("files are written");
    assert!(disk.flip(&name, 30, 3));
    let error = out.read(0, chunk).expect_err("rotten");
    assert!(matches!(error, SnapshotError::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn leftovers_are_removed_when_the_node_starts() {
    let source: Arc<dyn Store> = SimStore::new(1);
    fill(&*source, GROUP, 60, &[7; 2000]);
    let (disk, mine) = (SimDisk::new(9), SimDisk::new(8));
    let depot_to = depot(&mine);
    deliver(&outgoing(&source, &depot(&disk)), &depot_to).await;
    let received = depot_to.disk.list().expect("lists");
    // A sender that was killed had no time to remove its files.
    let out = outgoing(&source, &depot_to);
    out.manifest().await.expect("is written");
    mine.crash(Kind::Kill);
    drop(out);
    let depot_to = depot(&mine);
    assert!(depot_to.disk.list().expect("lists").len() > received.len());
    depot_to.tidy(&BTreeSet::from([GROUP])).expect("tidies");
    assert_eq!(depot_to.disk.list().expect("lists"), received);
    assert!(import::recover(&source, &depot_to, GROUP).await.expect("opens"));
    assert_eq!(depot_to.disk.list().expect("lists"), received, "a transfer may go on");
    // Without its manifest nothing of it is worth anything.
    depot_to.disk.remove(received.last().expect("the manifest is the last by name")).expect("removes");
    assert!(!import::recover(&source, &depot_to, GROUP).await.expect("opens"));
    assert_eq!(depot_to.disk.list().expect("lists"), Vec::<String>::new());
    depot_to.tidy(&BTreeSet::new()).expect("tidies");
}

#[tokio::test]
async fn a_snapshot_is_shared_by_those_who_want_it_and_holds_the_log_while_it_is_given() {
    let source: Arc<dyn Store> = SimStore::new(1);
    fill(&*source, GROUP, 10, &[7; 2000]);
    let from = depot(&SimDisk::new(9));
    let traffic = Traffic::default();
    let make = || outgoing(&source, &from);
    // Up to where the log may go that is not needed up to 50: the snapshot is at 7.
    let held = || traffic.hold_log(50, None, Duration::from_secs(60));
    assert_eq!(held(), 50);
    let first = traffic.outgoing(make);
    let second = traffic.outgoing(make);
    assert!(Arc::ptr_eq(&first, &second), "two followers at a time");
    assert_eq!(held(), 7, "it is about to be written");
    drop((first, second));
    assert_eq!(held(), 50, "nobody wants it");
    let third = traffic.outgoing(make);
    assert!(!third.is_written(), "nobody had begun: it is of now");
    third.manifest().await.expect("is written");
    assert_eq!(held(), 7);
    let weak = Arc::downgrade(&third);
    drop(third);
    let again = traffic.outgoing(make);
    assert!(weak.upgrade().is_some_and(|held| Arc::ptr_eq(&held, &again)), "a transfer that was cut finds the same snapshot");
    let other = traffic.outgoing(make);
    traffic.delivered(&again, 2);
    assert_eq!(held(), 7, "another follower is at it");
    drop(again);
    traffic.delivered(&other, 3);
    assert_eq!(held(), 50);
    drop(other);
    assert_eq!(from.disk.list().expect("lists"), Vec::<String>::new());
    let last = traffic.outgoing(make);
    last.manifest().await.expect("is written");
    drop(last);
    let (long, short) = (Duration::from_secs(60), Duration::from_millis(1));
    assert!(!traffic.expire(long, long));
    assert_eq!(held(), 7);
    tokio::time::sleep(short * 2).await;
    assert!(traffic.expire(long, short));
    assert_eq!(held(), 50, "it was offered, and nobody was there");
    let last = traffic.outgoing(make);
    let manifest = last.manifest().await.expect("is written");
    last.read(0, manifest.files[0].chunk_at(0, manifest.chunk_bytes).expect("a chunk")).expect("reads");
    drop(last);
    tokio::time::sleep(short * 2).await;
    assert!(!traffic.expire(long, short), "who took some of it may come back");
    assert_eq!(held(), 7);
    assert!(traffic.expire(short, long));
    assert_eq!(held(), 50, "nobody came back");
}

/// A full disk has the log purged that a snapshot on its way would need behind it. Two followers who take it in turn, and find each time
/// that it does not help them, must not keep it alive between them.
#[tokio::test]
async fn a_snapshot_from_which_the_log_does_not_go_on_is_given_to_nobody() {
    let source: Arc<dyn Store> = SimStore::new(1);
    fill(&*source, GROUP, 10, &[7; 2000]);
    let from = depot(&SimDisk::new(9));
    let traffic = Traffic::default();
    let first = traffic.outgoing(|| outgoing(&source, &from));
    first.manifest().await.expect("is written");
    traffic.note_purged(7);
    let second = traffic.outgoing(|| outgoing(&source, &from));
    assert!(Arc::ptr_eq(&first, &second) && !traffic.is_outdated(&first), "the log goes on right behind it");
    traffic.note_purged(8);
    assert!(traffic.is_outdated(&first));
    traffic.delivered(&first, 2);
    let later = traffic.outgoing(|| Outgoing::new(&from, &source, GROUP, meta(9)));
    assert_eq!(later.index(), 9, "though the other follower still takes the old one");
    assert!(!traffic.is_outdated(&later));
    later.manifest().await.expect("is written");
    let files = from.disk.list().expect("lists").len();
    drop((first, second));
    assert_eq!(from.disk.list().expect("lists").len() * 2, files, "the files of the old one went with its last user");
    assert!(Arc::ptr_eq(&later, &traffic.outgoing(|| outgoing(&source, &from))), "the later one is kept");
}

#[tokio::test]
async fn the_log_stays_for_a_follower_that_goes_on_from_a_snapshot_until_it_has_caught_up() {
    let source: Arc<dyn Store> = SimStore::new(1);
    fill(&*source, GROUP, 10, &[7; 2000]);
    let from = depot(&SimDisk::new(9));
    let traffic = Traffic::default();
    let deliver = |to| traffic.delivered(&traffic.outgoing(|| outgoing(&source, &from)), to);
    let (long, none) = (Duration::from_secs(60), Duration::ZERO);
    let hold = |matched: &[(u64, u64)], patience| traffic.hold_log(50, Some(&matched.iter().copied().collect()), patience);
    deliver(2);
    deliver(3);
    assert_eq!(hold(&[(1, 99)], long), 7, "nothing is known of them yet");
    assert_eq!(hold(&[(2, 20), (3, 9)], long), 9);
    assert_eq!(hold(&[(2, 20), (3, 30)], long), 20);
    assert_eq!(hold(&[(2, 60), (3, 30)], long), 30, "the one has caught up");
    assert_eq!(hold(&[(2, 1), (3, 30)], long), 30, "and is not waited for again");
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!(hold(&[(3, 30)], none), 50, "the other does not get on");
    deliver(2);
    assert_eq!(traffic.hold_log(50, None, long), 50, "who leads no more knows of nobody");
    let let_go = |matched: u64, patience| traffic.let_go(20, Some(&[(2, matched)].into()), patience);
    deliver(2);
    assert!(!let_go(19, long), "it is still behind");
    assert!(let_go(20, long), "it has all there is, whatever comes next");
    assert_eq!(hold(&[(2, 20)], long), 50, "so it is waited for no more, though more came");
    deliver(2);
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert!(let_go(7, none), "it does not get on");
    deliver(2);
    assert!(traffic.let_go(20, None, long), "who leads no more knows of nobody");

    assert_eq!(hold(&[], long), 50);
}

fn file() -> impl Strategy<Value = (Cf, u64, u64, [u8; 32], u32)> {
    let cf = prop_oneof![Just(Cf::Data), Just(Cf::Changes), Just(Cf::State)];
    (cf, 1..100_000_u64, any::<u64>(), any::<[u8; 32]>(), any::<u32>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn a_manifest_reads_back_and_no_other_bytes_do(
        group_id in any::<u32>(),
        index in any::<u64>(),
        chunk_bytes in 1..CHUNK_BYTES_MAX,
        files in proptest::collection::vec(file(), 0..8),
        wrong in (any::<proptest::sample::Index>(), 1..=255_u8),
        noise in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut files: Vec<SnapshotFile> = files.into_iter().map(|(cf, bytes, rows, hash, crc)| {
            let chunks = (0..bytes.div_ceil(chunk_bytes.into())).map(|n| crc ^ u32::try_from(n).unwrap_or(0)).collect();
            SnapshotFile { cf, bytes, rows, hash, chunks }
        }).collect();
        files.sort_by_key(|file| file.cf);
        let manifest = Manifest { group_id, meta: meta(index), chunk_bytes, files };
        let encoded = manifest.encode();
        assert_eq!(Manifest::decode(encoded.clone()).expect("reads back"), manifest);
        let covered: u64 = manifest.files.iter().map(|file| {
            let mut offset = 0;
            while let Some(chunk) = file.chunk_at(offset, chunk_bytes) {
                offset += chunk.bytes as u64;
            }
            offset
        }).sum();
        assert_eq!(covered, manifest.total_bytes());
        let mut other = encoded.to_vec();
        let at = wrong.0.index(other.len());
        other[at] ^= wrong.1;
        assert!(Manifest::decode(other.into()).is_err());
        assert_eq!(id_of(&encoded).len(), 32);
        assert!(Manifest::decode(noise.into()).is_err());
    }
}

/// Bytes as a file of `golden` has them: hex digits, and behind `#` what they are.
fn golden(text: &str) -> Bytes {
    let digits: String = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()).collect();
    hex::decode(digits).expect("hex digits").into()
}

#[test]
fn a_manifest_is_written_and_read_as_ever() {
    let members = [(1, "a:1"), (2, "b:1"), (3, "c:1")].map(|(id, address)| (id, Member { address: address.to_owned() }));
    let membership = Membership::new(vec![[1, 2].into()], BTreeMap::from(members)).expect("voters are members");
    let meta = SnapshotMeta {
        last_log_id: Some(LogId::new_term_index(2, 7)),
        last_membership: StoredMembership::new(Some(LogId::new_term_index(1, 3)), membership),
    };
    let file = |cf, bytes, rows, hash, chunks: &[u32]| SnapshotFile { cf, bytes, rows, hash: [hash; 32], chunks: chunks.to_vec() };
    let files = vec![file(Cf::Data, 300, 2, 0x11, &[0x0102_0304, 0x0506_0708]), file(Cf::State, 10, 1, 0x22, &[0x0a0b_0c0d])];
    let manifest = Manifest { group_id: 5, meta, chunk_bytes: 256, files };
    let golden = golden(include_str!("snapshot/golden/manifest-1.hex"));
    assert_eq!(hex::encode(manifest.encode()), hex::encode(&golden));
    assert_eq!(Manifest::decode(golden).expect("it reads"), manifest);
}

#[tokio::test]
async fn the_hash_sees_the_newest_versions_and_nothing_else() {
    let (a, b): (Arc<dyn Store>, Arc<dyn Store>) = (SimStore::new(1), SimStore::new(2));
    let data = |name: &[u8], version: u64| key(GROUP, &[name, &(!version).to_be_bytes()[..]].concat());
    let mut batch = WriteBatch::default();
    batch.put(Cf::Data, data(b"k", 9), Bytes::from_static(b"\x01new"));
    batch.put(Cf::Data, data(b"gone", 8), Bytes::from_static(b"\x00"));
    b.write(batch.clone()).expect("writes");
    batch.put(Cf::Data, data(b"k", 5), Bytes::from_static(b"\x01old"));
    batch.put(Cf::Data, data(b"gone", 4), Bytes::from_static(b"\x01old"));
    a.write(batch).expect("writes");
    let hash = async |store: &Arc<dyn Store>, index| state_hash(store.snapshot(), GROUP, index).await.expect("reads");
    assert_eq!(hash(&a, 3).await, hash(&b, 3).await);
    assert_ne!(hash(&a, 3).await, hash(&b, 4).await);
}
