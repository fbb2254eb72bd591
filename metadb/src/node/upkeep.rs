//! What a node does by itself: it flushes its store now and then, so that a replay after a crash is short and the log can be purged.

use super::Node;
use crate::clock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// How often it looks whether something is due.
const POLL: Duration = Duration::from_millis(500);

/// How long it rests after a flush that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(2);

/// Set once the node stops.
#[derive(Default)]
pub(super) struct Stopping(AtomicBool);

impl Stopping {
    pub(super) fn begin(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub(super) fn begun(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Starts the task. It ends with the node.
pub(super) fn start(node: &Arc<Node>) {
    tokio::spawn(run(Arc::downgrade(node)));
    tokio::spawn(beat(Arc::downgrade(node)));
}

/// Has all groups that are led here show at the same moment that their leader lives, so that it travels in one message to each node.
async fn beat(node: Weak<Node>) {
    loop {
        let Some(interval) = node.upgrade().map(|node| node.config.timings.heartbeat) else { return };
        clock::sleep(interval).await;
        let Some(node) = node.upgrade() else { return };
        let groups = node.groups();
        let led = groups.iter().filter(|group| group.is_leader());
        let beating = futures::future::join_all(led.map(|group| group.beat()));
        if tokio::time::timeout(interval, beating).await.is_err() {
            tracing::debug!("a group was too busy to show that its leader lives");
        }
    }
}

async fn run(node: Weak<Node>) {
    let mut flushed_at = Instant::now();
    let mut flushed_bytes = 0;
    // Something was let go that held the log: nothing else may come that would have that purged.
    let mut let_go = false;
    loop {
        tokio::time::sleep(POLL).await;
        let Some(node) = node.upgrade().filter(|node| !node.stopping.begun()) else { return };
        if let Some(problem) = node.clocks.problem() {
            tracing::error!(problem, "this node takes no writes and hands leadership over");
            node.step_aside().await;
        }
        for group in node.groups() {
            let_go |= group.expire_snapshots();
        }
        let upkeep = node.config.upkeep;
        let grown = node.log.stats().appended_bytes.saturating_sub(flushed_bytes);
        let due = let_go || grown >= upkeep.flush_log_bytes || (grown > 0 && flushed_at.elapsed() >= upkeep.flush_interval);
        if !due {
            continue;
        }
        let appended = node.log.stats().appended_bytes;
        match node.flush().await {
            Ok(()) => {
                let_go = false;
                flushed_bytes = appended;
                flushed_at = Instant::now();
            }
            Err(error) => {
                tracing::warn!(%error, "the store was not flushed; it will be tried again");
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
    }
}
