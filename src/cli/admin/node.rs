//! `cairn admin node`.

use super::status;
use crate::cli::connection::Session;
use crate::failure::{Code, Failure};
use crate::output::{Format, Output};
use clap::{Args, Subcommand};
use serde::Serialize;

const EXAMPLES: &str = "\
Examples:
  cairn admin node list
  cairn admin node list -o json
  cairn admin node safe-to-stop 2 && ssh node-2 systemctl stop cairn";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Node {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the nodes, with what each says of itself.
    #[command(after_help = EXAMPLES)]
    List,
    /// Ask whether a node can be taken down: whether every group keeps a majority of up-to-date voters without it. Fails, and says which
    /// groups need it, if not.
    #[command(after_help = "Examples:\n  cairn admin node safe-to-stop 2 && ssh node-2 systemctl stop cairn")]
    SafeToStop {
        /// The id of the node.
        node: u64,
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
