//! A node over simulated disks that reads what it has at rest.

use super::*;
use crate::node::{NodeConfig, Parts};
use metadb_engine::log::{Log, LogOp, LogOptions, Record};
use metadb_engine::sim::{Kind, SimDisk, SimStore};
use metadb_engine::{Store as _, WriteBatch};
use metadb_proto::principal::ClusterSecret;
use std::sync::atomic::{AtomicU64, Ordering};

const PATIENCE: Duration = Duration::from_secs(20);

struct Machine {
    store: Arc<SimStore>,
    log: Arc<SimDisk>,
    spool: Arc<SimDisk>,
}

impl Machine {
    /// With rows in every family and sealed segments in the log.
    async fn filled() -> Machine {
        let machine = Machine { store: SimStore::new(1), log: SimDisk::new(1), spool: SimDisk::new(2) };
        for cf in COLUMN_FAMILIES {
            let mut batch = WriteBatch::default();
            // Rows of no group: nothing but a scrub ever reads them.
            (0..100_u32).for_each(|number| batch.put(cf, [&[0xff; 4][..], &number.to_be_bytes(), &[0; 8]].concat(), vec![1; 5_000]));
            machine.store.write(batch).expect("it writes");
        }
        machine.store.flush().await.expect("it flushes");
        let log = Log::open(machine.log.mount(), LogOptions { segment_bytes: 64 << 10, ..LogOptions::default() }).await.expect("it opens");
        for index in 1..=30 {
            let (sender, answer) = tokio::sync::oneshot::channel();
            let entries = vec![Record { index, bytes: vec![7; 10_000].into() }];
            log.submit(vec![LogOp::Append { group: u32::MAX, entries }], Box::new(move |result| drop(sender.send(result))));
            answer.await.expect("it answers").expect("it writes");
        }
        log.submit(vec![LogOp::Forget { group: u32::MAX }], Box::new(|_| {}));
        log.close().await.expect("it closes");
        machine
    }

    async fn start(&self) -> Arc<Node> {
        let log = Log::open(self.log.mount(), LogOptions::default()).await.expect("it opens");
        let secret = ClusterSecret::new(vec![7; 32]).expect("long enough");
        let parts = Parts { store: self.store.clone(), log, spool: self.spool.mount(), secret };
        Node::start(NodeConfig::new(1, "00", "127.0.0.1:1"), parts).await.expect("it starts")
    }
}

async fn until(node: &Arc<Node>, what: &str, is_so: impl Fn(&v1::ScrubStatus) -> bool) -> v1::ScrubStatus {
    let end = Instant::now() + PATIENCE;
    loop {
        let status = node.scrub_status();
        if is_so(&status) {
            return status;
        }
        assert!(Instant::now() < end, "{what}: {status:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_pass_reads_everything_once_and_is_remembered() {
    let machine = Machine::filled().await;
    let node = machine.start().await;
    assert_eq!(node.scrub_status().ended_ms, 0, "none is due yet");
    let begun = node.begin_scrub(1 << 30);
    assert!(begun.running && begun.bytes_per_s == 1 << 30, "{begun:?}");
    let ended = until(&node, "it ends", |status| status.passes == 1).await;
    assert!(!ended.running && ended.ended_ms >= begun.began_ms && ended.rot == 0 && ended.problems.is_empty(), "{ended:?}");
    assert!(ended.ended_bytes >= 3 * 100 * 5_000, "all rows: {ended:?}");
    drop(node);
    machine.spool.crash(Kind::PowerLoss);
    let again = machine.start().await.scrub_status();
    assert_eq!((again.running, again.ended_ms), (false, ended.ended_ms), "the next is due in a week");
}

#[tokio::test]
async fn a_pass_goes_on_where_a_restart_cut_it_and_keeps_to_its_rate() {
    let machine = Machine::filled().await;
    let node = machine.start().await;
    let began = Instant::now();
    let begun = node.begin_scrub(1 << 20);
    // The first part is through, and that is written down.
    let cut = until(&node, "it reads the store", |status| status.part == "changes").await;
    let took = began.elapsed();
    assert!(took >= Duration::from_secs_f64((cut.bytes - (1 << 18)) as f64 / f64::from(1 << 20)), "{cut:?} in {took:?}");
    drop(node);
    machine.spool.crash(Kind::PowerLoss);
    let node = machine.start().await;
    let ended = until(&node, "it goes on by itself, and ends", |status| status.passes == 1).await;
    let since = node.scrub.state.lock().bytes;
    assert!(ended.ended_bytes >= 3 * 100 * 5_000 && ended.ended_ms >= begun.began_ms, "{ended:?}");
    assert!((2 * 100 * 5_000..2 * 110 * 5_000).contains(&since), "{since} bytes since the restart: two families of three");
}

#[tokio::test]
async fn rot_that_nothing_else_would_meet_is_found_in_each_family() {
    for cf in COLUMN_FAMILIES {
        let machine = Machine::filled().await;
        let node = machine.start().await;
        assert!(machine.store.rot(cf).is_some());
        node.begin_scrub(1 << 30);
        let found = until(&node, "it ends", |status| status.passes == 1).await;
        assert_eq!((found.rot, found.problems.len()), (1, 1), "{cf:?}: {found:?}");
        assert!(node.problems().iter().any(|problem| problem.contains("rebuilt from its peers")), "{:?}", node.problems());
    }
}

/// Counts what is read of it, and has one bad piece.
#[derive(Default)]
struct Pieces(AtomicU64);

impl AtRest for Pieces {
    fn name(&self) -> &'static str {
        "pieces"
    }

    fn verify(&self, from: Bytes, _: u64) -> BoxFuture<'_, Result<Checked, Error>> {
        let piece = from.first().copied().unwrap_or(0);
        self.0.fetch_add(1, Ordering::Relaxed);
        let bad = if piece == 2 { vec!["piece 2".to_owned()] } else { Vec::new() };
        let next = (piece < 4).then(|| Bytes::from(vec![piece + 1]));
        Box::pin(std::future::ready(Ok(Checked { read: Verified { bytes: 10, next }, bad })))
    }
}

#[tokio::test]
async fn what_else_is_at_rest_is_read_too() {
    let machine = Machine::filled().await;
    let node = machine.start().await;
    let pieces = Arc::new(Pieces::default());
    node.also_scrub(vec![Arc::clone(&pieces) as _]);
    node.begin_scrub(1 << 30);
    let ended = until(&node, "it ends", |status| status.passes == 1).await;
    assert_eq!((pieces.0.load(Ordering::Relaxed), ended.rot, ended.problems), (5, 1, vec!["piece 2".to_owned()]));
    assert_eq!(node.problems(), Vec::<String>::new(), "whoever has it mends it");
}
