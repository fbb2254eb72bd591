//! `cairn admin group members`, `replicas` and `transfer-leader`: who holds a group, and who leads it.

use super::change::{How, carry_out};
use super::status;
use crate::cli::connection::Session;
use crate::failure::{Code, Failure};
use crate::output::{Output, Show};
use clap::Subcommand;
use metadb_proto::v1::{GroupRecord, GroupStatus, NodeRef, Role};
use serde::Serialize;
use shard_router::operator::Wish;

/// What can be done with the members of one group.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Have a node learn the group without a vote.
    #[command(after_help = "Examples:\n  cairn admin group members 3 add-learner 4")]
    AddLearner {
        /// The node's id.
        node: u64,
        #[command(flatten)]
        how: How,
    },
    /// Give a node a vote, as soon as it has caught up.
    #[command(after_help = "Examples:\n  cairn admin group members 3 promote 4")]
    Promote {
        /// The node's id.
        node: u64,
        #[command(flatten)]
        how: How,
    },
    /// Take a node out of the group.
    #[command(after_help = "Examples:\n  cairn admin group members 3 remove 2 --dry-run")]
    Remove {
        /// The node's id.
        node: u64,
        #[command(flatten)]
        how: How,
    },
    /// Forget what was chosen for this group: it gets as many voters as the cluster has replicas.
    #[command(after_help = "Examples:\n  cairn admin group members 3 automatic")]
    Automatic {
        #[command(flatten)]
        how: How,
    },
}

/// A member, as it is printed.
#[derive(Debug, Serialize)]
struct Member {
    node: u64,
    address: String,
    role: &'static str,
    leads: bool,
    answers: bool,
    matched_index: Option<u64>,
    lag_entries: Option<u64>,
    chosen: bool,
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Members(Vec<Member>);

impl Show for Members {
    fn columns(&self) -> Vec<&'static str> {
        vec!["NODE", "GRPC", "ROLE", "LEADS", "ANSWERS", "MATCHED", "LAG", "CHOSEN"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
        let number = |number: Option<u64>| number.map_or_else(|| "?".to_owned(), |number| number.to_string());
        let row = |m: &Member| {
            let (matched, lag) = (number(m.matched_index), number(m.lag_entries));
            vec![m.node.to_string(), m.address.clone(), m.role.to_owned(), yes(m.leads), yes(m.answers), matched, lag, yes(m.chosen)]
        };
        self.0.iter().map(row).collect()
    }
}

/// The group as the directory has it, and as its leader sees it.
async fn look(session: &Session, group: u32) -> Result<(GroupRecord, u64, GroupStatus), Failure> {
    let missing = || Failure::new(Code::NotFound, format!("no group {group}")).hint("`cairn admin group list` shows the groups");
    let record = session.operator().groups().await?.into_iter().find(|record| record.group_id == group).ok_or_else(missing)?;
    let asked = status::ask_all(session).await?;
    let answers = asked.into_iter().filter_map(|(_, answer)| answer.ok());
    let replicas = answers.flat_map(|status| {
        let node = status.node.map_or(0, |node| node.node_id);
        status.groups.into_iter().map(move |group| (node, group))
    });
    let leaders = replicas.filter(|(_, status)| status.group_id == group && status.role() == Role::Leader);
    let leaderless = || {
        Failure::new(Code::Unavailable, format!("group {group} has no leader now"))
            .hint("`cairn admin group show` tells what its replicas see; a majority of them must run")
    };
    let (leader, seen) = leaders.max_by_key(|(_, status)| status.term).ok_or_else(leaderless)?;
    Ok((record, leader, seen))
}

/// Lists the members of a group, or changes them.
pub(super) async fn run(session: &Session, output: Output, group: u32, verb: Option<Verb>) -> Result<(), Failure> {
    let (record, leader, seen) = look(session, group).await?;
    let ids = |nodes: &[NodeRef]| nodes.iter().map(|node| node.node_id).collect::<Vec<_>>();
    let with = |mut ids: Vec<u64>, id: u64| {
        ids.retain(|known| *known != id);
        ids.push(id);
        ids
    };
    let without = |mut ids: Vec<u64>, id: u64| {
        ids.retain(|known| *known != id);
        ids
    };
    let chosen = if record.wanted_voters.is_empty() { ids(&seen.voters) } else { record.wanted_voters.clone() };
    let learners = record.wanted_learners.clone();
    let (voters, learners, how) = match verb {
        None => return output.show(&members(&record, leader, &seen)),
        Some(Verb::AddLearner { node, how }) if ids(&seen.voters).contains(&node) => {
            let _ = how;
            return Err(Failure::new(Code::Conflict, format!("node {node} votes in group {group} already")));
        }
        Some(Verb::AddLearner { node, how }) => (record.wanted_voters.clone(), with(learners, node), how),
        Some(Verb::Promote { node, how }) => (with(chosen, node), without(learners, node), how),
        Some(Verb::Remove { node, how }) if chosen == [node] => {
            let _ = how;
            return Err(Failure::usage(format!("node {node} is the only voter of group {group}")).hint("promote another one first"));
        }
        Some(Verb::Remove { node, how }) if !chosen.contains(&node) => (record.wanted_voters.clone(), without(learners, node), how),
        Some(Verb::Remove { node, how }) => (without(chosen, node), without(learners, node), how),
        Some(Verb::Automatic { how }) => (Vec::new(), Vec::new(), how),
    };
    let wish = Wish { voters: Some((group, voters)), learners: Some((group, learners)), ..Wish::default() };
    carry_out(session, output, &wish, how).await
}

fn members(record: &GroupRecord, leader: u64, seen: &GroupStatus) -> Members {
    let all = seen.voters.iter().map(|node| (node, "voter")).chain(seen.learners.iter().map(|node| (node, "learner")));
    let row = |(node, role): (&NodeRef, &'static str)| {
        let matched = seen.matched.get(&node.node_id).copied();
        Member {
            node: node.node_id,
            address: node.address.clone(),
            role,
            leads: node.node_id == leader,
            answers: seen.answering.contains(&node.node_id),
            matched_index: matched,
            lag_entries: matched.map(|matched| seen.last_log_index.saturating_sub(matched)),
            chosen: record.wanted_voters.contains(&node.node_id) || record.wanted_learners.contains(&node.node_id),
        }
    };
    Members(all.map(row).collect())
}

/// Shows how many replicas each group shall have, or changes it.
pub(super) async fn replicas(session: &Session, output: Output, replicas: Option<u32>, how: How) -> Result<(), Failure> {
    if replicas.is_some() {
        return carry_out(session, output, &Wish { replicas, ..Wish::default() }, how).await;
    }
    let replicas = session.operator().cluster().await?.replicas;
    output.done(&format!("each group has {replicas} replicas, where there are enough nodes"), &serde_json::json!({ "replicas": replicas }))
}

/// Hands the leadership of a group over.
pub(super) async fn transfer_leader(session: &Session, output: Output, group: u32, to: u64, dry_run: bool) -> Result<(), Failure> {
    let (_, from, seen) = look(session, group).await?;
    if !seen.voters.iter().any(|voter| voter.node_id == to) {
        let hint = format!("`cairn admin group members {group}` shows who votes");
        return Err(Failure::usage(format!("node {to} does not vote in group {group}")).hint(hint));
    }
    let told = serde_json::json!({ "group": group, "from": from, "to": to, "dry_run": dry_run });
    if dry_run {
        return output.done(&format!("node {from} leads group {group} and would hand over to node {to}"), &told);
    }
    session.operator().transfer_leader(group, to).await?;
    output.done(&format!("node {to} leads group {group}; before, node {from} did"), &told)
}
