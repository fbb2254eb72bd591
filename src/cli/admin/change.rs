//! What all changes of members have in common: they are shown before, written as a wish into the directory, and watched while the cluster
//! grants it. The cluster goes on by itself when nobody watches.

use crate::cli::connection::Session;
use crate::failure::Failure;
use crate::output::{self, Output, Show};
use clap::Args;
use metadb_proto::v1::node_record;
use serde::Serialize;
use shard_router::operator::{Membership, Operator, Wish};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

/// How often is looked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// How long the cluster may give no answer while it is watched.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a change is made.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct How {
    /// Show what would move, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not wait: the cluster goes on by itself; `cairn admin group list` shows how far it is.
    #[arg(long)]
    no_wait: bool,
}

/// A group whose voters change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Move {
    group: u32,
    from: BTreeSet<u64>,
    to: BTreeSet<u64>,
}

/// A change, as it is printed.
#[derive(Debug, Serialize)]
struct Change {
    dry_run: bool,
    done: bool,
    moves: Vec<Move>,
}

impl Show for Change {
    fn columns(&self) -> Vec<&'static str> {
        vec!["GROUP", "VOTERS NOW", if self.done { "VOTERS" } else { "VOTERS THEN" }]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        self.moves.iter().map(|m| vec![m.group.to_string(), list(&m.from), list(&m.to)]).collect()
    }

    fn empty(&self) -> &'static str {
        "no replica moves"
    }
}

pub(super) fn list(ids: &BTreeSet<u64>) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn moves(members: &Membership) -> Vec<Move> {
    let moving = members.placements().into_iter().filter(|p| p.target != p.voters);
    moving.map(|p| Move { group: p.group_id, from: p.voters, to: p.target }).collect()
}

/// Shows a wish, or writes it down and watches until it is granted.
pub(super) async fn carry_out(session: &Session, output: Output, wish: &Wish, how: How) -> Result<(), Failure> {
    let operator = session.operator();
    let planned = moves(&operator.membership().await?.with(wish)?);
    if how.dry_run {
        return output.show(&Change { dry_run: true, done: false, moves: planned });
    }
    operator.wish(wish).await?;
    if how.no_wait {
        output::note("the cluster goes on by itself; `cairn admin group list` and `cairn admin node list` show how far it is");
    } else {
        output::note("the cluster does it by itself: Ctrl-C ends the watching, not the work");
        watch(&operator, wish).await?;
    }
    output.show(&Change { dry_run: false, done: !how.no_wait, moves: planned })
}

/// Tells what is left to do, whenever that changes, until nothing is.
async fn watch(operator: &Operator, wish: &Wish) -> Result<(), Failure> {
    let (mut told, mut heard) = (String::new(), Instant::now());
    loop {
        match operator.membership().await {
            Ok(members) => {
                heard = Instant::now();
                let left = left(&members, wish);
                let text = left.join("; ");
                if left.is_empty() {
                    return Ok(());
                }
                if text != told {
                    output::note(&format!("{} to do: {text}", left.len()));
                    told = text;
                }
            }
            Err(error) if heard.elapsed() > PATIENCE => return Err(Failure::from(error).during("watching the change, which goes on")),
            Err(_) => {}
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn left(members: &Membership, wish: &Wish) -> Vec<String> {
    let placements = members.placements();
    let mut left = Vec::new();
    for group in &members.records.groups {
        let Some(p) = placements.iter().find(|p| p.group_id == group.group_id) else {
            left.push(format!("group {} has no leader", group.group_id));
            continue;
        };
        let recorded: BTreeSet<u64> = group.voters.iter().map(|node| node.node_id).collect();
        if p.target != p.voters {
            let learning: BTreeSet<u64> = p.learners.intersection(&p.target).copied().collect();
            let learning = if learning.is_empty() { String::new() } else { format!(" ({} learns)", list(&learning)) };
            left.push(format!("group {}: {} to {}{learning}", p.group_id, list(&p.voters), list(&p.target)));
        } else if p.learners != p.target_learners || recorded != p.voters {
            left.push(format!("group {}: tidying up", p.group_id));
        }
    }
    let leaving = wish.leave.map(|(node, _)| node);
    let record = members.records.nodes.iter().find(|record| record.node.as_ref().is_some_and(|node| Some(node.node_id) == leaving));
    if let (Some(id), Some(record)) = (leaving, record)
        && record.state() == node_record::State::Leaving
    {
        left.push(format!("node {id} leaves"));
    }
    left
}
