//! Changes of members and of the leader, each idempotent: it looks at what is and does what is missing.
//!
//! A change is made of steps that are each one entry of the log: learners come in, catch up, become voters through a joint membership, and
//! whoever is in excess goes. Invariants: one change of a group at a time; nobody becomes a voter who has not caught up and answers; a
//! leader that is to go hands over first; a caller waits no longer than its deadline, while a step that is in the log is followed to its
//! end. Whatever was reached stays, and the same call goes on from there, at this leader or another.

use crate::raft::Member;
use crate::raft::replica::{Observed, Replica};
use metadb_proto::{Error, v1};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

/// A learner that lacks no more entries than this has caught up: the rest takes less time than the change itself.
pub(super) const CAUGHT_UP_ENTRIES: u64 = 64;
/// One that lacks more entries than this is handed no leadership.
const HEIR_LACKS_ENTRIES: u64 = 1000;
/// How often progress of a learner is looked at.
const POLL: Duration = Duration::from_millis(20);
/// When a caller may ask again.
const RETRY: Duration = Duration::from_millis(200);
/// Longest address of a node, in bytes: a DNS name and a port.
const ADDRESS_BYTES: usize = 512;

/// What the members of a group shall be.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wanted {
    /// Exactly these vote.
    pub voters: Vec<v1::NodeRef>,
    /// Exactly these beside them only learn.
    pub learners: Vec<v1::NodeRef>,
    /// Only if the members now in force stand here in the log.
    pub if_membership_index: Option<u64>,
}

/// Members as Raft takes them.
pub(super) fn by_id(nodes: &[v1::NodeRef]) -> Result<BTreeMap<u64, Member>, Error> {
    let mut members = BTreeMap::new();
    for node in nodes {
        if node.node_id == 0 {
            return Err(Error::invalid("node_id", "at least 1", "0"));
        }
        let bytes = node.address.len();
        if bytes == 0 || bytes > ADDRESS_BYTES {
            return Err(Error::invalid("address", format!("1 to {ADDRESS_BYTES} bytes"), format!("{bytes} bytes")));
        }
        if members.insert(node.node_id, Member { address: node.address.clone() }).is_some() {
            return Err(Error::invalid("nodes", "distinct", format!("node {} twice", node.node_id)));
        }
    }
    Ok(members)
}

fn ids(nodes: &[v1::NodeRef]) -> BTreeSet<u64> {
    nodes.iter().map(|node| node.node_id).collect()
}

/// One change, and the right to make it.
struct Change {
    replica: Arc<Replica>,
    wanted: Wanted,
    members: BTreeMap<u64, Member>,
    deadline: Instant,
    _alone: OwnedMutexGuard<()>,
}

/// Brings the members to what is asked. `alone` is held until the last step that was begun has ended, although the caller may be told
/// before that its deadline has passed.
pub(super) async fn change(
    replica: &Arc<Replica>,
    wanted: Wanted,
    alone: &Arc<tokio::sync::Mutex<()>>,
    deadline: Instant,
) -> Result<(), Error> {
    if wanted.voters.is_empty() {
        return Err(Error::invalid("voters", "at least 1 node", "none"));
    }
    let members = by_id(&wanted.voters.iter().chain(&wanted.learners).cloned().collect::<Vec<_>>())?;
    let group_id = replica.group_id();
    let busy = |_| Error::unavailable(format!("another change of the members of group {group_id} is under way"), RETRY);
    let _alone = Arc::clone(alone).try_lock_owned().map_err(busy)?;
    let change = Change { replica: Arc::clone(replica), wanted, members, deadline, _alone };
    let working = tokio::spawn(async move { change.make().await });
    let late = || Error::unavailable(format!("the members of group {group_id} are still being changed"), RETRY);
    match tokio::time::timeout(deadline.saturating_duration_since(Instant::now()), working).await {
        Ok(Ok(result)) => result,
        Ok(Err(error)) => Err(Error::internal(format!("change of the members of group {group_id}: {error}"))),
        Err(_) => Err(late()),
    }
}

impl Change {
    async fn make(self) -> Result<(), Error> {
        let seen = self.replica.observe();
        if let Some(expected) = self.wanted.if_membership_index.filter(|expected| *expected != seen.membership_index) {
            let (group_id, is) = (self.replica.group_id(), seen.membership_index);
            return Err(Error::Conflict { message: format!("the members of group {group_id} are those of entry {is}, not of {expected}") });
        }
        self.move_addresses(&seen).await?;
        let known: BTreeSet<u64> = seen.voters.iter().chain(&seen.learners).map(|node| node.node_id).collect();
        for (id, member) in self.members.iter().filter(|(id, _)| !known.contains(id)) {
            self.in_time()?;
            self.replica.add_learner(*id, member.clone()).await?;
        }
        let voters = ids(&self.wanted.voters);
        let newcomers: BTreeSet<u64> = voters.difference(&ids(&seen.voters)).copied().collect();
        self.caught_up(&newcomers).await?;
        let seen = self.replica.observe();
        if seen.joint || ids(&seen.voters) != voters {
            self.keep_leader(&voters, &seen).await?;
            self.in_time()?;
            self.replica.set_voters(voters).await?;
        }
        let extra: BTreeSet<u64> = ids(&self.replica.observe().learners).into_iter().filter(|id| !self.members.contains_key(id)).collect();
        if !extra.is_empty() {
            self.in_time()?;
            self.replica.remove_learners(extra).await?;
        }
        Ok(())
    }

    async fn move_addresses(&self, seen: &Observed) -> Result<(), Error> {
        let known: BTreeMap<u64, &str> = seen.voters.iter().chain(&seen.learners).map(|n| (n.node_id, n.address.as_str())).collect();
        let moved = self.members.iter().filter(|(id, member)| known.get(id).is_some_and(|address| *address != member.address));
        let moved: BTreeMap<u64, Member> = moved.map(|(id, member)| (*id, member.clone())).collect();
        if moved.is_empty() { Ok(()) } else { self.replica.set_addresses(moved).await }
    }

    /// A step is begun only while its caller may still hear of it.
    fn in_time(&self) -> Result<(), Error> {
        if Instant::now() < self.deadline { Ok(()) } else { Err(Error::unavailable("the deadline passed between two steps", RETRY)) }
    }

    async fn caught_up(&self, newcomers: &BTreeSet<u64>) -> Result<(), Error> {
        loop {
            let seen = self.replica.observe();
            if seen.role != v1::Role::Leader {
                return Err(Error::unavailable("leadership was lost while a learner caught up", RETRY));
            }
            let Some(behind) = newcomers.iter().find(|id| !is_ready(&seen, **id)) else { return Ok(()) };
            if Instant::now() >= self.deadline {
                return Err(Error::unavailable(format!("node {behind} has not caught up yet; it stays a learner"), RETRY));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// A leader that shall not vote any more hands over to one who stays, if there is one: clients are then told where to go, while one
    /// that removes itself leaves them to an election.
    async fn keep_leader(&self, voters: &BTreeSet<u64>, seen: &Observed) -> Result<(), Error> {
        let this = self.replica.node_id();
        if voters.contains(&this) {
            return Ok(());
        }
        let Some(heir) = heirs(seen, this).into_iter().find(|id| voters.contains(id)) else { return Ok(()) };
        transfer(&self.replica, heir, self.deadline).await?;
        let leader = seen.voters.iter().find(|voter| voter.node_id == heir).cloned();
        let redirect = v1::Redirect { group_id: self.replica.group_id(), leader, epoch: 0, ..Default::default() };
        Err(Error::Moved { message: format!("node {heir} leads now, and ends the change"), redirect })
    }
}

fn lacks(seen: &Observed, id: u64) -> u64 {
    seen.matched.get(&id).map_or(u64::MAX, |matched| seen.last_log_index.saturating_sub(*matched))
}

/// Whether a node may become a voter: it has nearly all of the log and answers now.
fn is_ready(seen: &Observed, id: u64) -> bool {
    lacks(seen, id) <= CAUGHT_UP_ENTRIES && seen.answering.contains(&id)
}

/// Whether a voter has so much of the log that the group would not rest if it led.
pub(super) fn can_lead(seen: &Observed, id: u64) -> bool {
    lacks(seen, id) <= HEIR_LACKS_ENTRIES && seen.matched.get(&id).is_some_and(|matched| *matched >= seen.purged_index)
}

/// The voters who could take over from a leader, the best first: who answers, then who has most of the log.
pub(super) fn heirs(seen: &Observed, leader: u64) -> Vec<u64> {
    let mut heirs: Vec<u64> = ids(&seen.voters).into_iter().filter(|id| *id != leader).collect();
    heirs.sort_by_key(|id| std::cmp::Reverse((seen.answering.contains(id), seen.matched.get(id).copied())));
    heirs
}

/// Hands leadership to a voter and waits until it leads.
pub(super) async fn transfer(replica: &Replica, to: u64, deadline: Instant) -> Result<(), Error> {
    let group_id = replica.group_id();
    let seen = replica.observe();
    if !ids(&seen.voters).contains(&to) {
        return Err(Error::invalid("node_id", format!("a voter of group {group_id}"), to.to_string()));
    }
    if seen.role == v1::Role::Leader && to != replica.node_id() {
        if !seen.answering.contains(&to) {
            return Err(Error::unavailable(format!("node {to} does not answer the leader of group {group_id} now"), RETRY));
        }
        if !can_lead(&seen, to) {
            // The group would rest until it has caught up, or until another is elected.
            return Err(Error::unavailable(format!("node {to} lags too far in group {group_id} to lead it"), RETRY));
        }
    }
    replica.begin_transfer(to).await?;
    // One that has failed by then is an election like any other: who leads is not known before it ends.
    let patience = deadline.saturating_duration_since(Instant::now()).min(replica.election_time());
    let taken_over = replica.until_leader(|leader| leader.is_some_and(|leader| leader.node_id == to));
    match tokio::time::timeout(patience, taken_over).await {
        Ok(()) if replica.leader().is_some_and(|leader| leader.node_id == to) => Ok(()),
        Ok(()) | Err(_) => Err(Error::unavailable(format!("node {to} has not taken over group {group_id} yet"), RETRY)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(voters: &[u64], matched: &[(u64, u64)], answering: &[u64]) -> Observed {
        let node = |id: &u64| v1::NodeRef { node_id: *id, address: format!("n{id}:1") };
        Observed {
            voters: voters.iter().map(node).collect(),
            matched: matched.iter().copied().collect(),
            answering: answering.iter().copied().collect(),
            last_log_index: 1000,
            ..Observed::default()
        }
    }

    #[test]
    fn a_learner_becomes_a_voter_only_when_it_has_caught_up_and_answers() {
        let near = 1000 - CAUGHT_UP_ENTRIES;
        assert!(is_ready(&seen(&[1], &[(2, near)], &[1, 2]), 2));
        assert!(!is_ready(&seen(&[1], &[(2, near - 1)], &[1, 2]), 2), "it lacks too much");
        assert!(!is_ready(&seen(&[1], &[(2, 1000)], &[1]), 2), "it has everything and is dead");
        assert!(!is_ready(&seen(&[1], &[], &[1, 2]), 2), "nothing is known of its log");
    }

    #[test]
    fn the_best_heir_answers_and_then_has_most_of_the_log() {
        let seen = seen(&[1, 2, 3, 4], &[(1, 1000), (2, 900), (3, 950), (4, 1000)], &[1, 2, 3]);
        assert_eq!(heirs(&seen, 1), [3, 2, 4]);
        let compacted = Observed { purged_index: 920, ..seen };
        assert!(can_lead(&compacted, 3) && !can_lead(&compacted, 2), "it lacks what is purged");
    }
}
