//! When a replica may vote and stand for election: not while a lease may count on what it has forgotten, and not before it knows who the
//! members are.

use super::{OpenError, Replica};
use crate::clock;
use crate::node::silence;
use metadb_proto::seam;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

impl Replica {
    /// After a restart: neither votes nor stands for election while a leader may count on what this replica acknowledged before.
    pub(super) async fn sit_out_lease(&mut self) -> Result<(), OpenError> {
        let node_id = self.node_id;
        let alone = self.raft.with_raft_state(move |state| state.membership_state.effective().voter_ids().eq([node_id])).await?;
        if alone {
            self.stand_for_election_after(Duration::ZERO);
            return Ok(());
        }
        let lease = self.timings.election_max;
        self.votes_from = Some(clock::now() + lease);
        let spread = u64::try_from((self.timings.election_max - self.timings.election_min).as_millis()).unwrap_or(1).max(1);
        self.stand_for_election_after(lease + Duration::from_millis(seam::random_u64() % spread));
        Ok(())
    }

    /// Stands for election after a pause, and once it knows who the members are.
    pub(super) fn stand_for_election_after(&self, pause: Duration) {
        let (raft, progress, silent) = (self.raft.clone(), Arc::clone(&self.progress), Arc::clone(&self.silent));
        let (spool, group_id) = (Arc::clone(&self.depot.disk), self.group_id);
        tokio::spawn(async move {
            clock::sleep(pause).await;
            let through = silent.load(Ordering::SeqCst);
            if through > 0 {
                progress.applied_through(through).await;
                if progress.applied().position.is_none_or(|id| id.index < through) {
                    return;
                }
                if let Err(error) = silence::end(&*spool, group_id) {
                    tracing::warn!(group_id, %error, "a replica that knows the members stays silent after a restart");
                }
                silent.store(0, Ordering::SeqCst);
                tracing::info!(group_id, through, "a replica that was made anew has caught up: it votes from now on");
            }
            raft.runtime_config().elect(true);
        });
    }

    /// Whether it may not vote yet, since it does not know who the members are.
    pub(crate) fn is_silent(&self) -> bool {
        self.silent.load(Ordering::SeqCst) > 0
    }

    /// Whether nothing can change its state any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.applying.strong_count() == 0
    }

    /// The members as they were applied here.
    pub(crate) fn applied_members(&self) -> (Vec<u64>, Vec<u64>) {
        let point = self.progress.applied();
        let membership = point.membership.membership();
        (membership.voter_ids().collect(), membership.learner_ids().collect())
    }
}
