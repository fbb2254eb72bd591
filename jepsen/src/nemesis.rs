//! The loop that hurts a cluster: kill the node that leads most groups, let the others go on without it, bring it back, again.

use crate::cluster::{Cluster, ClusterError};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a node that was started gets to answer again.
const BACK_WITHIN: Duration = Duration::from_secs(20);
/// How often is looked whether it does.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What one round of the loop did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kill {
    /// The number of the node.
    pub node: usize,
    /// How many groups it led when it was killed.
    pub groups: usize,
}

/// When things happen: by the clock, or by how far a workload is.
pub trait Pace {
    /// Waits for the moment of a kill, counted from 0; false: enough.
    fn next_kill(&mut self, round: usize) -> impl Future<Output = bool>;

    /// Waits as long as the node shall stay down.
    fn while_down(&mut self, kill: &Kill) -> impl Future<Output = ()>;

    /// Hears that the node answers again.
    fn is_back(&mut self, kill: &Kill, was_down: Duration) {
        tracing::info!(node = kill.node, ?was_down, "is back");
    }
}

/// A pace by the clock.
#[derive(Debug, Clone)]
pub struct Timed {
    /// How many kills.
    pub kills: usize,
    /// For how long a killed node stays down.
    pub down: Duration,
    /// For how long all are up before a kill.
    pub up: Duration,
}

impl Pace for Timed {
    async fn next_kill(&mut self, round: usize) -> bool {
        if round < self.kills {
            sleep(self.up).await;
        }
        round < self.kills
    }

    async fn while_down(&mut self, _: &Kill) {
        sleep(self.down).await;
    }
}

/// Kills the node that leads most groups, with SIGKILL. It stays down.
///
/// # Errors
/// [`ClusterError`] if no node leads any group.
pub async fn kill_leader(cluster: &Cluster) -> Result<Kill, ClusterError> {
    let leader = cluster.leads_most().await?;
    cluster.kill(leader.node).await?;
    Ok(Kill { node: leader.node, groups: leader.groups })
}

/// Kills and restarts until the pace says that it is enough. All nodes are up and answer at the end.
///
/// # Errors
/// [`ClusterError`] if a node could not be found, killed or started, or did not come back; it is left as it is then.
pub async fn run(cluster: &Cluster, pace: &mut impl Pace) -> Result<Vec<Kill>, ClusterError> {
    let mut kills = Vec::new();
    while pace.next_kill(kills.len()).await {
        let kill = kill_leader(cluster).await?;
        let killed = Instant::now();
        pace.while_down(&kill).await;
        cluster.start(kill.node).await?;
        wait_until_back(cluster, kill.node).await?;
        pace.is_back(&kill, killed.elapsed());
        kills.push(kill);
    }
    Ok(kills)
}

async fn wait_until_back(cluster: &Cluster, node: usize) -> Result<(), ClusterError> {
    let started = Instant::now();
    loop {
        match cluster.status(node).await {
            Ok(_) => return Ok(()),
            Err(error) if started.elapsed() > BACK_WITHIN => return Err(error),
            Err(_) => sleep(LOOK_EVERY).await,
        }
    }
}
