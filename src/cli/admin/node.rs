//! `cairn admin node`.

use super::change::{How, carry_out};
use super::status;
use crate::cli::connection::Session;
use crate::failure::{Code, Failure};
use crate::output::{self, Format, Output};
use clap::{Args, Subcommand};
use serde::Serialize;
use shard_router::operator::{Drain, Wish};
use std::time::Duration;
use tokio::time::Instant;

/// How often is looked whether a node has joined.
const LOOK_EVERY: Duration = Duration::from_millis(300);

const EXAMPLES: &str = "\
Examples:
  cairn admin node list
  cairn admin node safe-to-stop 2 && ssh node-2 systemctl stop cairn
  cairn admin node add 10.0.0.4:7401
  cairn admin node remove 2 --dry-run
  cairn admin node drain 2 --dry-run
  cairn admin node undrain 2
  cairn admin node replace 2 4
  cairn admin node auto-replace --after-seconds 300";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Node {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the nodes, with what each says of itself.
    #[command(after_help = "Examples:\n  cairn admin node list\n  cairn admin node list -o json")]
    List,
    /// Ask whether a node can be taken down: whether every group keeps a majority of up-to-date voters without it. Fails, and says which
    /// groups need it, if not.
    #[command(after_help = "Examples:\n  cairn admin node safe-to-stop 2 && ssh node-2 systemctl stop cairn")]
    SafeToStop {
        /// The id of the node.
        node: u64,
    },
    /// Have a node hold replicas: wait until one that was started with --join is there, or take back that one leaves.
    #[command(
        after_help = "Examples:\n  cairn admin node add 10.0.0.4:7401         started there with `cairn node --join …`\n  cairn admin node add 2                     takes `node remove 2` back, while it is not done\n\nGroups get more replicas by `cairn admin group replicas 5`."
    )]
    Add {
        /// Its id, or host:port of its gRPC door.
        node: String,
        /// How long to wait until it has joined, in seconds.
        #[arg(long, default_value_t = 60)]
        wait_seconds: u64,
        #[command(flatten)]
        how: How,
    },
    /// Drain a node: its leaders hand over, its replicas are made anew elsewhere, then it is removed for good.
    #[command(
        after_help = "Examples:\n  cairn admin node remove 2 --dry-run        what would move where\n  cairn admin node remove 2                  watches until it is done; goes on without being watched\n  cairn admin node remove 3 --replicas 1     the last nodes of a cluster that shrinks\n\nCopies of file contents on the node are not moved: let it run until `cairn admin node list` shows it removed, and keep its disk until the other copies are known to be whole."
    )]
    Remove {
        /// Its id.
        node: u64,
        /// How many replicas each group shall have from now on: fewer, if too few nodes stay.
        #[arg(long, value_name = "N")]
        replicas: Option<u32>,
        #[command(flatten)]
        how: How,
    },
    /// Empty a node: its leaders hand over within seconds, then other nodes learn its groups and vote in its place. It stays a node, gets
    /// nothing new, and may be taken down, until `undrain`.
    #[command(
        after_help = "Examples:\n  cairn admin node drain 2 --dry-run                        what would move where, how much, how long\n  cairn admin node drain 2 --reason 'a new disk'             watches until it is empty; goes on without being watched\n  cairn admin node drain 2 --leaders-only && ssh node-2 reboot   for a restart: its replicas stay\n\nCopies of file contents on the node are not moved."
    )]
    Drain {
        /// Its id.
        node: u64,
        /// Only of what it leads: its replicas stay, for a short time of work on it.
        #[arg(long)]
        leaders_only: bool,
        /// Why: shown as long as it is drained.
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
        #[command(flatten)]
        how: How,
    },
    /// End that a node is drained: it may lead and hold again.
    #[command(
        after_help = "Examples:\n  cairn admin node undrain 2\n\nLeaders come back to it by themselves. Replicas do when a group lacks one."
    )]
    Undrain {
        /// Its id.
        node: u64,
        #[command(flatten)]
        how: How,
    },
    /// Have a node take over all replicas of another, which may be dead. A disk that was lost comes back under a new id: name that.
    #[command(after_help = "Examples:\n  cairn admin node replace 2 4 --dry-run\n  cairn admin node replace 2 4")]
    Replace {
        /// The node that goes, by id.
        dead: u64,
        /// The node that gets its replicas, by id.
        new: u64,
        #[command(flatten)]
        how: How,
    },
    /// Have nodes drained that do not answer for so long, without being asked. Off unless it is set here.
    #[command(
        name = "auto-replace",
        after_help = "Examples:\n  cairn admin node auto-replace                        what is set\n  cairn admin node auto-replace --after-seconds 300\n  cairn admin node auto-replace --never"
    )]
    AutoReplace {
        /// After how many seconds of silence; at least 5.
        #[arg(long, value_name = "N", conflicts_with = "never")]
        after_seconds: Option<u64>,
        /// Only when an operator asks.
        #[arg(long)]
        never: bool,
    },
}

/// The answer, for programs.
#[derive(Debug, Serialize)]
struct Safety {
    node: u64,
    safe: bool,
    reasons: Vec<String>,
}

impl Node {
    pub(super) async fn run(self, session: &Session, output: Output) -> Result<(), Failure> {
        match self.verb {
            Verb::List => output.show(&status::nodes(session).await?),
            Verb::SafeToStop { node } => safe_to_stop(session, node, output).await,
            Verb::Add { node, wait_seconds, how } => {
                let stay = Some(joined(session, &node, Duration::from_secs(wait_seconds)).await?);
                carry_out(session, output, &Wish { stay, ..Wish::default() }, how).await
            }
            Verb::Remove { node, replicas, how } => {
                carry_out(session, output, &Wish { leave: Some((node, None)), replicas, ..Wish::default() }, how).await
            }
            Verb::Replace { dead, new, how } => {
                carry_out(session, output, &Wish { leave: Some((dead, Some(new))), ..Wish::default() }, how).await
            }
            Verb::Drain { node, leaders_only, reason, how } => {
                let drain = Some(Drain { node_id: node, leaders_only, reason });
                carry_out(session, output, &Wish { drain, ..Wish::default() }, how).await
            }
            Verb::Undrain { node, how } => carry_out(session, output, &Wish { undrain: Some(node), ..Wish::default() }, how).await,
            Verb::AutoReplace { after_seconds, never } => auto_replace(session, output, if never { Some(0) } else { after_seconds }).await,
        }
    }
}

async fn safe_to_stop(session: &Session, node: u64, output: Output) -> Result<(), Failure> {
    let obstacles = session.operator().obstacles_to_stop(node).await?;
    let reasons: Vec<String> = obstacles.iter().map(|obstacle| format!("group {}: {}", obstacle.group_id, obstacle.reason)).collect();
    let answer = Safety { node, safe: reasons.is_empty(), reasons };
    if answer.safe || output.format != Format::Table {
        output.done(&format!("node {node} can be taken down: every group keeps a majority of up-to-date voters without it"), &answer)?;
    }
    if answer.safe {
        return Ok(());
    }
    let told = format!("node {node} is needed:\n  {}", answer.reasons.join("\n  "));
    Err(Failure::new(Code::Unavailable, told).hint("bring the other nodes back first; `cairn admin status` shows them"))
}

/// The id of a node that is named by its id or its address, once it has joined.
async fn joined(session: &Session, named: &str, patience: Duration) -> Result<u64, Failure> {
    if let Ok(id) = named.parse() {
        return Ok(id);
    }
    let (operator, began, mut told) = (session.operator(), Instant::now(), false);
    loop {
        let nodes = operator.nodes().await?.into_iter().filter_map(|record| record.node);
        // The newest: an address may have been another node's before.
        if let Some(node) = nodes.filter(|node| node.address == named).max_by_key(|node| node.node_id) {
            return Ok(node.node_id);
        }
        let start = format!("start it there: `cairn node --advertise {named} --join {} …`", session.endpoints.join(","));
        if began.elapsed() > patience {
            let failure = Failure::new(Code::NotFound, format!("no node at {named} has joined within {} s", patience.as_secs()));
            return Err(failure.hint(start));
        }
        if !told {
            output::note(&format!("waiting for a node at {named} to join; {start}"));
            told = true;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn auto_replace(session: &Session, output: Output, seconds: Option<u64>) -> Result<(), Failure> {
    let operator = session.operator();
    if let Some(seconds) = seconds {
        let give_up_after = Some(Duration::from_secs(seconds));
        operator.wish(&Wish { give_up_after, ..Wish::default() }).await?;
    }
    let after = operator.cluster().await?.replace_dead_after_ms / 1000;
    let sentence = match after {
        0 => "dead nodes are replaced only when an operator asks: `cairn admin node replace`".to_owned(),
        after => format!("a node that does not answer for {after} s is drained, if enough others answer"),
    };
    output.done(&sentence, &serde_json::json!({ "after_seconds": after }))
}
