//! What a replica knows of its group at a moment, in the words of this crate.

use super::Replica;
use crate::raft::rt::Moment;
use crate::raft::{LogId, Membership};
use metadb_proto::v1;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::metrics::SerdeInstant;
use openraft::{Instant as _, ServerState};
use std::collections::{BTreeMap, BTreeSet};

/// What a replica knows of its group now.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observed {
    pub(crate) role: v1::Role,
    pub(crate) leader: Option<v1::NodeRef>,
    pub(crate) term: u64,
    pub(crate) last_log_index: u64,
    pub(crate) committed_index: u64,
    pub(crate) applied_index: u64,
    pub(crate) purged_index: u64,
    pub(crate) voters: Vec<v1::NodeRef>,
    /// The voters but for a change that is under way.
    pub(crate) agreed_voters: Vec<v1::NodeRef>,
    pub(crate) learners: Vec<v1::NodeRef>,
    /// At the leader: up to which index each other replica is known to have the log.
    pub(crate) matched: BTreeMap<u64, u64>,
    /// At the leader: the members that answered it within an election time, itself among them.
    pub(crate) answering: BTreeSet<u64>,
    /// Where in the log the members stand.
    pub(crate) membership_index: u64,
    /// Whether the membership is between two.
    pub(crate) joint: bool,
}

impl Observed {
    /// What others are known to have of the log, if it leads.
    pub(crate) fn followers(&self) -> Option<&BTreeMap<u64, u64>> {
        (self.role == v1::Role::Leader).then_some(&self.matched)
    }
}

impl Replica {
    /// What it knows of its group.
    pub(crate) fn observe(&self) -> Observed {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let role = match metrics.state {
            _ if self.problem().is_some() || metrics.running_state.is_err() => v1::Role::Failed,
            ServerState::Leader => v1::Role::Leader,
            ServerState::Follower => v1::Role::Follower,
            ServerState::Candidate => v1::Role::Candidate,
            ServerState::Learner => v1::Role::Learner,
            ServerState::Shutdown => v1::Role::Unspecified,
        };
        let membership = metrics.membership_config.membership();
        let node = |id: u64| v1::NodeRef { node_id: id, address: membership.get_node(&id).map(|m| m.address.clone()).unwrap_or_default() };
        let index = |id: &Option<LogId>| id.map_or(0, |id| id.index);
        let matched = metrics.replication.iter().flatten();
        Observed {
            role,
            leader: metrics.current_leader.map(node),
            term: metrics.current_term,
            last_log_index: metrics.last_log_index.unwrap_or(0),
            committed_index: index(&metrics.local_committed),
            applied_index: self.progress.applied().position.map_or(0, |id| id.index),
            purged_index: index(&metrics.purged),
            voters: membership.voter_ids().map(node).collect(),
            agreed_voters: agreed_voters(membership).into_iter().map(node).collect(),
            learners: membership.learner_ids().map(node).collect(),
            matched: matched.filter_map(|(id, upto)| upto.map(|upto| (*id, upto.index))).collect(),
            answering: self.answering(metrics.heartbeat.as_ref()),
            membership_index: index(metrics.membership_config.log_id()),
            joint: membership.get_joint_config().len() > 1,
        }
    }

    /// Who answered a leader within an election time.
    fn answering(&self, heard: Option<&BTreeMap<u64, Option<SerdeInstant<Moment>>>>) -> BTreeSet<u64> {
        let Some(heard) = heard else { return BTreeSet::new() };
        let now = Moment::now();
        let recently = |at: &Option<SerdeInstant<Moment>>| at.is_some_and(|at| now - *at <= self.timings.election_max);
        heard.iter().filter(|(_, at)| recently(at)).map(|(id, _)| *id).chain([self.node_id]).collect()
    }
}

/// The voters; between two memberships, those before. Whoever compares them with what shall be sees that the change is not done: one that
/// died half-way needs a majority of both until it is asked for again.
fn agreed_voters(membership: &Membership) -> Vec<u64> {
    membership.get_joint_config().first().into_iter().flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::Member;

    #[test]
    fn a_change_of_voters_that_is_not_done_is_not_told_as_done() {
        let members: BTreeMap<_, _> = [1, 2, 3].map(|id| (id, Member { address: format!("node-{id}:1") })).into();
        let joint = vec![[1].into(), [1, 2, 3].into()];
        let joint = Membership::new(joint, members.clone()).expect("all voters are members");
        assert_eq!(agreed_voters(&joint), [1]);
        let done = Membership::new(vec![[1, 2, 3].into()], members).expect("all voters are members");
        assert_eq!(agreed_voters(&done), [1, 2, 3]);
    }
}
