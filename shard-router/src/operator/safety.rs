//! Whether a node can be taken down: who would miss it.
//!
//! A group can spare a node if a majority of its voters is up to date without it. Only the voters themselves say how far they are; the
//! mark to reach is what their leader had committed *before* they were asked.

use super::{NodeView, Operator};
use metadb_proto::Error;
use metadb_proto::v1::{GroupStatus, NodeRef, Role, StatusResponse};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How often a cluster that seems to need the node is looked at again: a healthy follower is behind for a moment only.
const LOOKS: u32 = 5;
/// The pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Why a node can't be spared now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// The group that needs it.
    pub group_id: u32,
    /// What is wrong with the others, for a person.
    pub reason: String,
}

/// What the nodes said, by node.
type Answers = BTreeMap<u64, Result<StatusResponse, Error>>;

impl Operator {
    /// The groups that would lose their majority of up-to-date voters without a node; none: it can be taken down.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the directory has no such node; as [`Operator::nodes`].
    pub async fn obstacles_to_stop(&self, node_id: u64) -> Result<Vec<Obstacle>, Error> {
        let records = self.nodes().await?;
        if !records.iter().filter_map(|record| record.node.as_ref()).any(|node| node.node_id == node_id) {
            return Err(Error::not_found(format!("node {node_id}")));
        }
        let mut before = answers(self.ask_nodes(records.clone()).await);
        for look in 1.. {
            let now = answers(self.ask_nodes(records.clone()).await);
            let obstacles = obstacles(node_id, &before, &now);
            if obstacles.is_empty() || look == LOOKS {
                return Ok(obstacles);
            }
            before = now;
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(Vec::new())
    }
}

fn answers(nodes: Vec<NodeView>) -> Answers {
    nodes.into_iter().filter_map(|node| Some((node.record.node?.node_id, node.status))).collect()
}

fn obstacles(node_id: u64, before: &Answers, now: &Answers) -> Vec<Obstacle> {
    let replicas = now.values().filter_map(|answer| answer.as_ref().ok()).flat_map(|status| &status.groups);
    let groups: BTreeSet<u32> = replicas.map(|replica| replica.group_id).collect();
    groups.into_iter().filter_map(|group_id| obstacle(node_id, group_id, before, now)).collect()
}

fn obstacle(node_id: u64, group_id: u32, before: &Answers, now: &Answers) -> Option<Obstacle> {
    let because = |reason: String| Some(Obstacle { group_id, reason });
    let Some(leader) = leader(group_id, now) else {
        let here = replica(group_id, now.get(&node_id)?).is_ok();
        return here.then(|| "it has no leader, so nobody says who is up to date".to_owned()).and_then(because);
    };
    if !leader.voters.iter().any(|voter| voter.node_id == node_id) {
        return None;
    }
    let committed = self::leader(group_id, before).map_or(0, |leader| leader.committed_index);
    let others = leader.voters.iter().filter(|voter| voter.node_id != node_id);
    let wrong: Vec<String> = others.filter_map(|voter| complaint(voter, leader, committed, now)).collect();
    let (voters, needed) = (leader.voters.len(), leader.voters.len() / 2 + 1);
    let left = voters - 1 - wrong.len();
    if left >= needed {
        return None;
    }
    let detail = if wrong.is_empty() { String::new() } else { format!(": {}", wrong.join("; ")) };
    because(format!("without node {node_id} it has {left} of {voters} voters that are up to date and needs {needed}{detail}"))
}

/// What the leader of a group says; the one with the highest term, if several take themselves for it.
fn leader(group_id: u32, answers: &Answers) -> Option<&GroupStatus> {
    let replicas = answers.values().filter_map(|answer| replica(group_id, answer).ok());
    replicas.filter(|replica| replica.role() == Role::Leader).max_by_key(|replica| replica.term)
}

fn replica(group_id: u32, answer: &Result<StatusResponse, Error>) -> Result<&GroupStatus, String> {
    let status = answer.as_ref().map_err(|error| format!("does not answer ({error})"))?;
    status.groups.iter().find(|group| group.group_id == group_id).ok_or_else(|| "has no replica".to_owned())
}

/// Why a voter can't be counted on.
fn complaint(voter: &NodeRef, leader: &GroupStatus, committed: u64, now: &Answers) -> Option<String> {
    let id = voter.node_id;
    let seen = match now.get(&id).map(|answer| replica(leader.group_id, answer)) {
        None => return Some(format!("node {id} is not in the directory")),
        Some(Err(why)) => return Some(format!("node {id} {why}")),
        Some(Ok(seen)) => seen,
    };
    if !seen.problem.is_empty() || seen.role() == Role::Failed {
        return Some(format!("node {id} failed ({})", seen.problem));
    }
    if seen.term != leader.term {
        return Some(format!("node {id} is in term {}, the leader in {}", seen.term, leader.term));
    }
    let lacks = committed.saturating_sub(seen.last_log_index);
    (lacks > 0).then(|| format!("node {id} lacks {lacks} entries"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voter(node_id: u64) -> NodeRef {
        NodeRef { node_id, address: format!("node-{node_id}:1") }
    }

    /// A cluster of `nodes` whose group 1 is led by node 1.
    fn cluster(nodes: u64) -> Answers {
        let status = |id: u64| {
            let role = if id == 1 { Role::Leader } else { Role::Follower };
            let voters = (1..=nodes).map(voter).collect();
            let group = GroupStatus {
                group_id: 1,
                role: role.into(),
                term: 4,
                last_log_index: 100,
                committed_index: 100,
                voters,
                ..Default::default()
            };
            StatusResponse { node: Some(voter(id)), groups: vec![group], ..Default::default() }
        };
        (1..=nodes).map(|id| (id, Ok(status(id)))).collect()
    }

    fn with(mut answers: Answers, node_id: u64, change: fn(&mut GroupStatus)) -> Answers {
        if let Some(Ok(status)) = answers.get_mut(&node_id) {
            change(&mut status.groups[0]);
        }
        answers
    }

    fn without(mut answers: Answers, node_id: u64) -> Answers {
        answers.insert(node_id, Err(Error::unavailable("down", Duration::ZERO)));
        answers
    }

    #[test]
    fn any_one_of_three_healthy_nodes_can_go() {
        let all = cluster(3);
        for node in 1..=3 {
            assert_eq!(obstacles(node, &all, &all), []);
        }
    }

    #[test]
    fn none_can_go_when_another_is_missing_behind_or_broken() {
        let before = cluster(3);
        let troubles = [
            (without(cluster(3), 3), "node 3 does not answer"),
            (with(cluster(3), 3, |replica| replica.last_log_index = 58), "node 3 lacks 42 entries"),
            (with(cluster(3), 3, |replica| replica.problem = "a bad disk".into()), "node 3 failed (a bad disk)"),
            (with(cluster(3), 3, |replica| replica.term = 3), "node 3 is in term 3"),
        ];
        for (now, told) in troubles {
            let found = obstacles(2, &before, &now);
            assert!(found.len() == 1 && found[0].reason.contains(told), "{told}: {found:?}");
            assert_eq!(obstacles(3, &before, &now), [], "whoever is gone already can stay away");
        }
    }

    #[test]
    fn a_group_without_a_leader_or_with_one_voter_spares_nobody() {
        let leaderless = with(cluster(3), 1, |replica| replica.role = Role::Candidate.into());
        assert!(obstacles(2, &leaderless, &leaderless)[0].reason.contains("no leader"));
        let alone = cluster(1);
        assert!(obstacles(1, &alone, &alone)[0].reason.contains("needs 1"));
    }

    #[test]
    fn a_node_that_votes_nowhere_can_go() {
        let mut all = cluster(3);
        all.insert(4, Ok(StatusResponse { node: Some(voter(4)), ..Default::default() }));
        let all = without(all, 3);
        assert_eq!(obstacles(4, &all, &all), []);
    }
}
