//! What only a leader does: it changes members and hands its leadership over.

use super::replica::{Replica, stopped, write_error};
use super::{Member, Types};
use metadb_proto::{Error, v1};
use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{ClientWriteError, RaftError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a request waits for a new leader to be confirmed: a round trip, if there is a quorum.
const CONFIRMED_WITHIN: Duration = Duration::from_millis(200);
/// When to ask again, here or elsewhere, who was to hand over and does not lead.
const NOT_LEADING_RETRY: Duration = Duration::from_millis(50);

impl Replica {
    /// Adds a learner; it catches up in the background.
    pub(crate) async fn add_learner(&self, node_id: u64, member: Member) -> Result<(), Error> {
        let added = self.raft().add_learner(node_id, member, false).await;
        added.map(|_| ()).map_err(|error| self.change_error(error))
    }

    /// Makes exactly these the voters; who is one no longer stays as a learner.
    pub(crate) async fn set_voters(&self, voters: BTreeSet<u64>) -> Result<(), Error> {
        let changed = self.raft().change_membership(voters, true).await;
        changed.map(|_| ()).map_err(|error| self.change_error(error))
    }

    /// Gives members other addresses.
    pub(crate) async fn set_addresses(&self, members: BTreeMap<u64, Member>) -> Result<(), Error> {
        let changed = self.raft().change_membership(ChangeMembers::SetNodes(members), true).await;
        changed.map(|_| ()).map_err(|error| self.change_error(error))
    }

    /// Removes learners.
    pub(crate) async fn remove_learners(&self, learners: BTreeSet<u64>) -> Result<(), Error> {
        let changed = self.raft().change_membership(ChangeMembers::RemoveNodes(learners), true).await;
        changed.map(|_| ()).map_err(|error| self.change_error(error))
    }

    fn change_error(&self, error: RaftError<Types, ClientWriteError<Types>>) -> Error {
        match error {
            RaftError::APIError(error) => write_error(self.group_id(), error),
            RaftError::Fatal(error) => stopped(self.group_id(), &error),
        }
    }

    /// Asks the core to hand leadership over. From now on it takes no proposals; whether another took over shows in [`Replica::leader`].
    ///
    /// Only a leader has something to hand over: a candidate that noted it would, once elected in the same term, be taken for one that is
    /// leaving, and everybody would wait for its successor.
    pub(crate) async fn begin_transfer(&self, to: u64) -> Result<(), Error> {
        let led = {
            let metrics = self.raft().server_metrics();
            let seen = metrics.borrow_watched();
            (seen.current_leader == Some(self.node_id())).then_some(seen.vote.leader_id.term)
        };
        let Some(term) = led else {
            let message = format!("node {} does not lead group {} now", self.node_id(), self.group_id());
            return Err(Error::unavailable(message, NOT_LEADING_RETRY));
        };
        self.hands_over_in().store(term, Ordering::SeqCst);
        self.raft().trigger().transfer_leader(to).await.map_err(|error| stopped(self.group_id(), &error))
    }

    /// Shows the others at once that their leader lives.
    pub(crate) async fn beat(&self) {
        if let Err(error) = self.raft().trigger().heartbeat().await {
            tracing::debug!(group_id = self.group_id(), %error, "no heartbeat");
        }
    }

    /// Waits until a quorum has confirmed the leader of a new term, while it leads: before that the core refuses everything.
    pub(crate) async fn until_confirmed(&self) {
        let term = self.term();
        if self.confirmed_in().load(Ordering::Relaxed) == term || !self.is_leader() {
            return;
        }
        let mut metrics = self.raft().metrics();
        let confirmed = async {
            loop {
                {
                    let seen = metrics.borrow_and_update();
                    if seen.last_quorum_acked.is_some() || seen.current_leader != Some(self.node_id()) {
                        return;
                    }
                }
                if metrics.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(CONFIRMED_WITHIN, confirmed).await.is_ok() && self.is_leader() {
            self.confirmed_in().store(term, Ordering::Relaxed);
        }
    }

    /// Whether it leads and has begun to hand that over.
    pub(crate) fn is_handing_over(&self) -> bool {
        let begun_in = self.hands_over_in().load(Ordering::SeqCst);
        begun_in != 0 && self.is_leader() && begun_in == self.term()
    }

    fn term(&self) -> u64 {
        self.raft().server_metrics().borrow_watched().vote.leader_id.term
    }

    /// Waits until what it knows of its leader passes a test. Ends early when the replica stops.
    pub(crate) async fn until_leader(&self, fits: impl Fn(Option<&v1::NodeRef>) -> bool + Send) {
        let mut metrics = self.raft().server_metrics();
        loop {
            // Marks this state as seen before it is looked at: what changes after the look wakes the wait.
            drop(metrics.borrow_and_update());
            if fits(self.leader().as_ref()) || metrics.changed().await.is_err() {
                return;
            }
        }
    }
}
