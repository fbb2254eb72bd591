//! openraft's own conformance suite over the engine's log, on a simulated disk and on real files.

use super::super::snapshot::depot::{Depot, SnapshotLimits};
use super::*;
use crate::raft::applier::Applier;
use metadb_engine::disk::{Disk, FileDisk};
use metadb_engine::log::LogOptions;
use metadb_engine::sim::{SimDisk, SimStore};
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use std::sync::atomic::{AtomicU64, Ordering};

const GROUP: u32 = 3;

async fn stores(disk: Arc<dyn Disk>, seed: u64) -> (GroupLog, Applier) {
    let log = Log::open(Arc::clone(&disk), LogOptions::default()).await.expect("opens");
    let applier =
        Applier::open(GROUP, SimStore::new(seed), Depot::new(SimDisk::new(seed).mount(), SnapshotLimits::default(), Arc::default()))
            .await
            .expect("opens");
    (GroupLog::new(log, GROUP), applier)
}

struct OnSimulatedDisk(AtomicU64);

impl StoreBuilder<Types, GroupLog, Applier, ()> for OnSimulatedDisk {
    async fn build(&self) -> Result<((), GroupLog, Applier), StorageError<Types>> {
        let seed = self.0.fetch_add(1, Ordering::Relaxed);
        let (log, applier) = stores(SimDisk::new(seed).mount(), seed).await;
        Ok(((), log, applier))
    }
}

struct OnFiles;

impl StoreBuilder<Types, GroupLog, Applier, tempfile::TempDir> for OnFiles {
    async fn build(&self) -> Result<(tempfile::TempDir, GroupLog, Applier), StorageError<Types>> {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let (log, applier) = stores(FileDisk::open(folder.path()).expect("opens"), 1).await;
        Ok((folder, log, applier))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_passes_on_a_simulated_disk() {
    Suite::test_all(OnSimulatedDisk(AtomicU64::new(1))).await.expect("conforms");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_passes_on_files() {
    Suite::test_all(OnFiles).await.expect("conforms");
}

#[test]
fn what_may_be_purged_leaves_the_budget_behind() {
    let mut sizes = Sizes::default();
    for index in 1..=100 {
        sizes.append(index, SAMPLE_BYTES);
    }
    assert_eq!(sizes.index_before(200 * SAMPLE_BYTES), None);
    assert_eq!(sizes.index_before(10 * SAMPLE_BYTES), Some(90));
    assert_eq!(sizes.index_before(10 * SAMPLE_BYTES), Some(90));
    sizes.truncate(95);
    sizes.append(95, SAMPLE_BYTES);
    assert!(sizes.index_before(0).is_some_and(|index| index == 95));
}
