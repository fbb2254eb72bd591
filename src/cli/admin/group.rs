//! `cairn admin group`.

mod create;

pub(super) use create::until_ready;

use super::change::{How, carry_out};
use super::{members, pod, status};
use crate::cli::connection::Session;
use crate::failure::{Code, Failure};
use crate::output::{Output, Show};
use clap::{Args, Subcommand};
use metadb_proto::v1::{GroupRecord, GroupStatus, NodeRef, Role, SnapshotTransfer, group_record};
use serde::Serialize;
use shard_router::operator::{Replace, Wish};

const EXAMPLES: &str = "\
Examples:
  cairn admin group list
  cairn admin group show 3
  cairn admin group show 0 -o yaml       the directory
  cairn admin group members 3
  cairn admin group create --pod eu
  cairn admin group replace-replica 3 2 4 --dry-run
  cairn admin group replicas 5
  cairn admin group transfer-leader 3 2";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Group {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the groups: who leads, who votes.
    #[command(after_help = "Examples:\n  cairn admin group list\n  cairn admin group list -o json")]
    List,
    /// Show the replicas of a group as they see themselves.
    #[command(after_help = "Examples:\n  cairn admin group show 3")]
    Show {
        /// Its number; 0 is the directory.
        group: u32,
    },
    /// Show who holds a group, with role and lag; or add a learner, promote it, remove a member.
    #[command(
        args_conflicts_with_subcommands = false,
        after_help = "Examples:\n  cairn admin group members 3\n  cairn admin group members 3 add-learner 4\n  cairn admin group members 3 promote 4\n  cairn admin group members 3 remove 2 --dry-run\n  cairn admin group members 3 automatic"
    )]
    Members {
        /// Its number; 0 is the directory.
        group: u32,
        #[command(subcommand)]
        verb: Option<members::Verb>,
    },
    /// Make a group, or several, and wait until they can take shards.
    #[command(
        after_help = "Examples:\n  cairn admin group create                        on the nodes that hold fewest replicas\n  cairn admin group create --pod eu --count 4     on nodes of a pod, for tenants that are pinned to it\n  cairn admin group create --on 1,2,3 --dry-run"
    )]
    Create(create::Create),
    /// Have one replica of a group be on another node: that one learns the group first. Also when the old node is dead.
    #[command(
        name = "replace-replica",
        after_help = "Examples:\n  cairn admin group replace-replica 3 2 4 --dry-run    how much is copied, and how long it takes\n  cairn admin group replace-replica 3 2 4"
    )]
    ReplaceReplica {
        /// Its number; 0 is the directory.
        group: u32,
        /// The node that has the replica, by id.
        old: u64,
        /// The node that shall have it, by id.
        new: u64,
        #[command(flatten)]
        how: How,
    },
    /// Have a group belong to a pod: its replicas move to nodes of it, and tenants that are pinned to it may be there.
    #[command(
        name = "set-pod",
        after_help = "Examples:\n  cairn admin group set-pod 3 eu\n  cairn admin group set-pod 3 --none      its replicas may be anywhere"
    )]
    SetPod {
        /// Its number.
        group: u32,
        /// The pod.
        #[arg(required_unless_present = "none", conflicts_with = "none")]
        pod: Option<String>,
        /// To no pod.
        #[arg(long)]
        none: bool,
    },
    /// Show how many replicas each group has, or change it: groups grow and shrink while they work.
    #[command(
        after_help = "Examples:\n  cairn admin group replicas\n  cairn admin group replicas 5 --dry-run\n  cairn admin group replicas 3"
    )]
    Replicas {
        /// How many: 1, 3, 5 or 7.
        replicas: Option<u32>,
        #[command(flatten)]
        how: How,
    },
    /// Hand the leadership of a group to another of its voters.
    #[command(
        name = "transfer-leader",
        after_help = "Examples:\n  cairn admin group transfer-leader 3 2\n  cairn admin group transfer-leader 0 2 --dry-run"
    )]
    TransferLeader {
        /// Its number; 0 is the directory.
        group: u32,
        /// The node that shall lead.
        node: u64,
        /// Show what would be done, and change nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Serialize)]
struct Row {
    id: u32,
    state: &'static str,
    leader: Option<u64>,
    term: u64,
    voters: Vec<u64>,
    learners: Vec<u64>,
    shards: u64,
    applied_index: u64,
    /// The pod that it belongs to, if it does.
    pod: Option<String>,
    /// The only tenant that it is for, if there is one.
    own_of_tenant: Option<u64>,
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Rows(Vec<Row>);

#[derive(Debug, Serialize)]
struct Replica {
    node: u64,
    role: &'static str,
    term: u64,
    last_log_index: u64,
    committed_index: u64,
    applied_index: u64,
    flushed_index: u64,
    purged_index: u64,
    applied_version: u64,
    shards: u64,
    /// Snapshots on their way from and to it.
    snapshots: Vec<Transfer>,
    problem: String,
}

#[derive(Debug, Serialize)]
struct Transfer {
    /// To which node; none: to this one.
    to: Option<u64>,
    done_bytes: u64,
    total_bytes: u64,
    reused_bytes: u64,
}

impl Transfer {
    fn of(to: Option<u64>, transfer: &SnapshotTransfer) -> Self {
        let SnapshotTransfer { done_bytes, total_bytes, reused_bytes, .. } = *transfer;
        Transfer { to, done_bytes, total_bytes, reused_bytes }
    }

    fn told(&self) -> String {
        let percent = self.done_bytes.saturating_mul(100).checked_div(self.total_bytes).unwrap_or(0);
        match self.to {
            Some(node) => format!("{percent} % sent to {node}"),
            None => format!("{percent} % received"),
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Replicas(Vec<Replica>);

impl Show for Rows {
    fn columns(&self) -> Vec<&'static str> {
        vec!["GROUP", "STATE", "LEADER", "TERM", "VOTERS", "LEARNERS", "SHARDS", "APPLIED", "FOR"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |group: &Row| {
            vec![
                if group.id == 0 { "0 (directory)".to_owned() } else { group.id.to_string() },
                group.state.to_owned(),
                group.leader.map_or_else(|| "none".to_owned(), |node| node.to_string()),
                group.term.to_string(),
                list(&group.voters),
                list(&group.learners),
                group.shards.to_string(),
                group.applied_index.to_string(),
                match (&group.pod, group.own_of_tenant) {
                    (None, None) => String::new(),
                    (Some(pod), None) => format!("pod {pod}"),
                    (None, Some(tenant)) => format!("tenant {tenant}"),
                    (Some(pod), Some(tenant)) => format!("pod {pod}, tenant {tenant}"),
                },
            ]
        };
        self.0.iter().map(row).collect()
    }

    fn empty(&self) -> &'static str {
        "no groups"
    }
}

impl Show for Replicas {
    fn columns(&self) -> Vec<&'static str> {
        vec!["NODE", "ROLE", "TERM", "LAST", "COMMITTED", "APPLIED", "FLUSHED", "PURGED", "VERSION", "SHARDS", "SNAPSHOT", "PROBLEM"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |r: &Replica| {
            let numbers = [
                r.term,
                r.last_log_index,
                r.committed_index,
                r.applied_index,
                r.flushed_index,
                r.purged_index,
                r.applied_version,
                r.shards,
            ];
            let mut cells = vec![r.node.to_string(), r.role.to_owned()];
            cells.extend(numbers.map(|number| number.to_string()));
            cells.push(r.snapshots.iter().map(Transfer::told).collect::<Vec<_>>().join(", "));
            cells.push(r.problem.clone());
            cells
        };
        self.0.iter().map(row).collect()
    }
}

impl Group {
    pub(super) async fn run(self, session: &Session, output: Output) -> Result<(), Failure> {
        let verb = match self.verb {
            Verb::Members { group, verb } => return members::run(session, output, group, verb).await,
            Verb::Replicas { replicas, how } => return members::replicas(session, output, replicas, how).await,
            Verb::TransferLeader { group, node, dry_run } => {
                return members::transfer_leader(session, output, group, node, dry_run).await;
            }
            Verb::Create(create) => return create.run(session, output).await,
            Verb::ReplaceReplica { group, old, new, how } => {
                let replace = Some(Replace { group_id: group, old, new, is_of_a_plan: false });
                return carry_out(session, output, &Wish { replace, ..Wish::default() }, how).await;
            }
            Verb::SetPod { group, pod, .. } => return pod::set_group(session, output, group, pod.as_deref().unwrap_or_default()).await,
            verb @ (Verb::List | Verb::Show { .. }) => verb,
        };
        let cluster = status::gathered(session).await?;
        let answers = cluster.nodes.iter().filter_map(|node| node.status.as_ref().ok());
        let replicas: Vec<(u64, &GroupStatus)> = answers
            .flat_map(|status| status.groups.iter().map(move |group| (status.node.as_ref().map_or(0, |node| node.node_id), group)))
            .collect();
        match verb {
            Verb::Members { .. }
            | Verb::Replicas { .. }
            | Verb::TransferLeader { .. }
            | Verb::Create(_)
            | Verb::ReplaceReplica { .. }
            | Verb::SetPod { .. } => Ok(()),
            Verb::List => output.show(&Rows(cluster.groups.iter().map(|group| row(&group.record, &replicas)).collect())),
            Verb::Show { group } => {
                let of_group = replicas.iter().filter(|(_, status)| status.group_id == group);
                let shown: Vec<Replica> = of_group.map(|(node, status)| replica(*node, status)).collect();
                if shown.is_empty() {
                    let failure = Failure::new(Code::NotFound, format!("no node that answers has a replica of group {group}"));
                    return Err(failure.hint("`cairn admin group list` shows the groups, `cairn admin status` who answers"));
                }
                output.show(&Replicas(shown))
            }
        }
    }
}

fn row(group: &GroupRecord, replicas: &[(u64, &GroupStatus)]) -> Row {
    // Two replicas may take themselves for the leader for a moment: the higher term is right.
    let leaders = replicas.iter().filter(|(_, status)| status.group_id == group.group_id && status.role() == Role::Leader);
    let leader = leaders.max_by_key(|(_, status)| status.term);
    let voters = leader.map_or(&group.voters, |(_, status)| &status.voters);
    Row {
        id: group.group_id,
        state: match group.state() {
            group_record::State::Unspecified => "unknown",
            group_record::State::Creating => "creating",
            group_record::State::Active => "active",
        },
        leader: leader.map(|(node, _)| *node),
        term: leader.map_or(0, |(_, status)| status.term),
        voters: ids(voters),
        learners: leader.map(|(_, status)| ids(&status.learners)).unwrap_or_default(),
        shards: leader.map_or(0, |(_, status)| status.shards),
        applied_index: leader.map_or(0, |(_, status)| status.applied_index),
        pod: Some(&group.pod).filter(|pod| !pod.is_empty()).cloned(),
        own_of_tenant: Some(group.own_of_tenant).filter(|id| *id != 0),
    }
}

fn replica(node: u64, status: &GroupStatus) -> Replica {
    Replica {
        node,
        role: match status.role() {
            Role::Unspecified => "unknown",
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::Candidate => "candidate",
            Role::Learner => "learner",
            Role::Failed => "failed",
        },
        term: status.term,
        last_log_index: status.last_log_index,
        committed_index: status.committed_index,
        applied_index: status.applied_index,
        flushed_index: status.flushed_index,
        purged_index: status.purged_index,
        applied_version: status.applied_version,
        shards: status.shards,
        snapshots: {
            let sent = status.sending_snapshots.iter().map(|transfer| Transfer::of(Some(transfer.node_id), transfer));
            sent.chain(status.receiving_snapshot.iter().map(|transfer| Transfer::of(None, transfer))).collect()
        },
        problem: status.problem.clone(),
    }
}

fn ids(nodes: &[NodeRef]) -> Vec<u64> {
    nodes.iter().map(|node| node.node_id).collect()
}

fn list(ids: &[u64]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
