//! An answer that comes late, and seems to renew a lease that is over.
//!
//! A leader that sends a follower two appends which end at the same entry must not take the answer to the first for one to the second: the
//! second may never have arrived, and the follower may have voted for another meanwhile. For that the second must leave long after the
//! first, and nothing may be appended in between. So one follower's answers are held back, and the disk of the other is slow: its word
//! commits late, and that is what the second append tells. Meanwhile nobody hears the leader, and no client reaches it.

use super::{Felt, busiest};
use crate::cluster::Cluster;
use crate::workload::{Shared, below};
use std::ops::Range;
use std::time::Duration;
use tokio::time::Instant;

/// What the sync takes that commits: longer than a lease and an election, and shorter than the simulated network holds the answers back.
const LATE_SYNC: Range<Duration> = Duration::from_millis(800)..Duration::from_millis(900);
/// How long to wait until clients have made the leader append something.
const AT_WORK: Duration = Duration::from_millis(600);
/// What is on its way arrives within this: from clients, and at the followers.
const ARRIVED: Duration = Duration::from_millis(8);
/// How long to wait for the late word.
const COMMITTED_WITHIN: Duration = Duration::from_millis(1500);
/// How often is looked for it.
const LOOK: Duration = Duration::from_millis(2);

/// It bit if others lead in the end.
pub(super) async fn begin(cluster: &Cluster, shared: &Shared, proposed: usize) -> Felt {
    let leader = busiest(cluster, proposed);
    let led = cluster.led_by(leader);
    let step = 1 + usize::from(below(2) == 1);
    let [slow, held] = [step, 3 - step].map(|step| (leader + step) % cluster.size());
    cluster.cut(held, leader);
    cluster.set_sync_latency(slow, LATE_SYNC);
    until(AT_WORK, || !open(cluster, leader, &led).is_empty()).await;
    cluster.cut_clients(leader);
    tokio::time::sleep(ARRIVED).await;
    cluster.cut(leader, slow);
    cluster.cut(leader, held);
    // The sync that is under way goes on; what comes then, and a vote is among it, is as fast as ever.
    cluster.mend_syncs(slow);
    cluster.rival(leader, slow);
    let sent = open(cluster, leader, &led);
    let committed = || sent.iter().copied().filter(|group| !open(cluster, leader, &led).contains(group)).collect::<Vec<_>>();
    until(COMMITTED_WITHIN, || sent.is_empty() || !committed().is_empty()).await;
    // The words on other groups come with it.
    tokio::time::sleep(LOOK).await;
    let committed = committed();
    cluster.cut(slow, leader);
    cluster.join(held, leader);
    shared.trace.event(format_args!(
        "{leader} leads {led:?}, hears late of what {slow} has of {sent:?}, and commits {committed:?}; then from {held}"
    ));
    Felt::ByLoss { node: leader, led }
}

/// Of which of these groups a node has entries that it has not committed.
fn open(cluster: &Cluster, leader: usize, led: &[u32]) -> Vec<u32> {
    let node = cluster.machines()[leader].node();
    let status = |group: &u32| node.as_ref()?.group(*group).map(|group| group.status());
    led.iter().copied().filter(|group| status(group).is_some_and(|status| status.committed_index < status.last_log_index)).collect()
}

async fn until(within: Duration, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while began.elapsed() < within && !is_so() {
        tokio::time::sleep(LOOK).await;
    }
}
