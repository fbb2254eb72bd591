//! Changes of members and of the leader, each idempotent: it looks at what is and does what is missing.

use crate::raft::Member;
use crate::raft::replica::{Observed, Replica};
use metadb_proto::{Error, v1};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// A learner that lacks no more entries than this has caught up: the rest takes less time than the change itself.
const CAUGHT_UP_ENTRIES: u64 = 64;
/// One that lacks more entries than this is handed no leadership.
const HEIR_LACKS_ENTRIES: u64 = 1000;
/// How often progress is looked at.
const POLL: Duration = Duration::from_millis(20);
/// When a caller may ask again.
const RETRY: Duration = Duration::from_millis(200);
/// Longest address of a node, in bytes: a DNS name and a port.
const ADDRESS_BYTES: usize = 512;

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

/// Brings the members to what is asked.
pub(super) async fn change(replica: &Replica, voters: &[v1::NodeRef], learners: &[v1::NodeRef], deadline: Instant) -> Result<(), Error> {
    if voters.is_empty() {
        return Err(Error::invalid("voters", "at least 1 node", "none"));
    }
    let all: Vec<v1::NodeRef> = voters.iter().chain(learners).cloned().collect();
    let wanted = by_id(&all)?;
    let seen = replica.observe();
    let known: BTreeMap<u64, &str> = seen.voters.iter().chain(&seen.learners).map(|n| (n.node_id, n.address.as_str())).collect();

    let moved = wanted.iter().filter(|(id, member)| known.get(id).is_some_and(|address| *address != member.address));
    let moved: BTreeMap<u64, Member> = moved.map(|(id, member)| (*id, member.clone())).collect();
    if !moved.is_empty() {
        replica.set_addresses(moved).await?;
    }
    for (id, member) in wanted.iter().filter(|(id, _)| !known.contains_key(id)) {
        replica.add_learner(*id, member.clone()).await?;
    }
    let newcomers: BTreeSet<u64> = ids(voters).difference(&ids(&seen.voters)).copied().collect();
    caught_up(replica, &newcomers, deadline).await?;
    let seen = replica.observe();
    if seen.joint || ids(&seen.voters) != ids(voters) {
        replica.set_voters(ids(voters)).await?;
    }
    let extra: BTreeSet<u64> = ids(&replica.observe().learners).into_iter().filter(|id| !wanted.contains_key(id)).collect();
    if !extra.is_empty() {
        replica.remove_learners(extra).await?;
    }
    Ok(())
}

fn lacks(seen: &Observed, id: u64) -> u64 {
    seen.matched.get(&id).map_or(u64::MAX, |matched| seen.last_log_index.saturating_sub(*matched))
}

async fn caught_up(replica: &Replica, newcomers: &BTreeSet<u64>, deadline: Instant) -> Result<(), Error> {
    loop {
        let seen = replica.observe();
        if seen.role != v1::Role::Leader {
            return Err(Error::unavailable("leadership was lost while a learner caught up", RETRY));
        }
        let Some(behind) = newcomers.iter().find(|id| lacks(&seen, **id) > CAUGHT_UP_ENTRIES) else { return Ok(()) };
        if Instant::now() >= deadline {
            return Err(Error::unavailable(format!("node {behind} has not caught up yet; it stays a learner"), RETRY));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Hands leadership to a voter and waits until it leads.
pub(super) async fn transfer(replica: &Replica, to: u64, deadline: Instant) -> Result<(), Error> {
    let seen = replica.observe();
    if !ids(&seen.voters).contains(&to) {
        return Err(Error::invalid("node_id", format!("a voter of group {}", replica.group_id()), to.to_string()));
    }
    let behind = lacks(&seen, to);
    if behind > HEIR_LACKS_ENTRIES || seen.matched.get(&to).is_some_and(|matched| *matched < seen.purged_index) {
        // The group would rest until it has caught up, or until another is elected.
        return Err(Error::unavailable(format!("node {to} lags too far in group {} to lead it", replica.group_id()), RETRY));
    }
    replica.begin_transfer(to).await?;
    while Instant::now() < deadline {
        if replica.leader().is_some_and(|leader| leader.node_id == to) {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
    Err(Error::unavailable(format!("node {to} has not taken over group {} yet", replica.group_id()), RETRY))
}
