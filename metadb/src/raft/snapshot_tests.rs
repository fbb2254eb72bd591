//! What `snapshot` promises, tested.

use super::*;
use metadb_engine::sim::{Kind, SimDisk, SimStore};

const GROUP: u32 = 5;

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

#[tokio::test]
async fn a_snapshot_carries_exactly_the_rows_of_its_group() {
    let (from, to): (Arc<dyn Store>, Arc<dyn Store>) = (SimStore::new(1), SimStore::new(2));
    let value = vec![1; 20_000];
    fill(&*from, GROUP - 1, 3, &value);
    fill(&*from, GROUP, 200, &value);
    fill(&*from, GROUP + 1, 3, &value);
    mark_replica(&*from, GROUP).expect("marks");
    fill(&*to, GROUP, 300, b"stale");
    fill(&*to, GROUP + 1, 2, b"other");
    let others = rows(&*to, GROUP + 1);
    let disk: Arc<dyn Disk> = SimDisk::new(1).mount();
    let name = spool(from.snapshot(), &disk, GROUP).expect("spools");
    assert!(disk.len(&name).expect("reads") > Some(200 * 20_000));
    import(&to, &disk, GROUP, &name).await.expect("imports");
    assert_eq!(rows(&*to, GROUP), rows(&*from, GROUP));
    assert_eq!(rows(&*to, GROUP + 1), others);
    assert_eq!(disk.list().expect("lists"), Vec::<String>::new());
    assert_eq!(marked_replicas(&*to).expect("reads"), vec![GROUP]);
}

#[tokio::test]
async fn an_import_that_a_crash_interrupts_is_finished_when_opening() {
    let source: Arc<dyn Store> = SimStore::new(1);
    fill(&*source, GROUP, 500, &[7; 9000]);
    for seed in 0..20 {
        let store = SimStore::new(seed);
        fill(&*store, GROUP, 300, b"stale");
        store.flush().await.expect("flushes");
        let old = rows(&*store, GROUP);
        let spools = SimDisk::new(seed);
        let disk: Arc<dyn Disk> = spools.mount();
        let name = spool(source.snapshot(), &disk, GROUP).expect("spools");
        let target: Arc<dyn Store> = store.clone();
        // The flush at the end fails: a prefix of the import is all that a crash leaves.
        store.fail_flushes(1);
        import(&target, &disk, GROUP, &name).await.expect_err("the flush fails");
        store.crash(Kind::PowerLoss);
        spools.crash(Kind::PowerLoss);
        let disk: Arc<dyn Disk> = spools.mount();
        recover(&target, &disk, GROUP).await.expect("recovers");
        let now = rows(&*target, GROUP);
        assert!(now == rows(&*source, GROUP) || now == old, "seed {seed}: neither the old state nor the new");
        assert_eq!(disk.list().expect("lists"), Vec::<String>::new());
    }
}

#[test]
fn a_spool_file_whose_sender_went_away_is_removed() {
    let disk: Arc<dyn Disk> = SimDisk::new(1).mount();
    let spool = Spool::create(Arc::clone(&disk), GROUP, 7);
    spool.append(b"rows").expect("appends");
    assert_eq!(disk.list().expect("lists").len(), 1);
    drop(spool);
    assert_eq!(disk.list().expect("lists"), Vec::<String>::new());
}

#[tokio::test]
async fn a_spool_file_with_a_flipped_bit_is_refused() {
    let source: Arc<dyn Store> = SimStore::new(1);
    fill(&*source, GROUP, 10, b"value");
    let spools = SimDisk::new(3);
    let disk: Arc<dyn Disk> = spools.mount();
    let name = spool(source.snapshot(), &disk, GROUP).expect("spools");
    assert!(spools.flip(&name, 40, 3));
    let target: Arc<dyn Store> = SimStore::new(2);
    let error = import(&target, &disk, GROUP, &name).await.expect_err("corrupt");
    assert!(matches!(error, SnapshotError::Corrupt { .. }), "{error}");
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
