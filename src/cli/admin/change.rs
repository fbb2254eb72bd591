//! What all changes of members have in common: they are shown before, written as a wish into the directory, and watched while the cluster
//! grants it. The cluster goes on by itself when nobody watches.

use crate::cli::connection::Session;
use crate::failure::Failure;
use crate::output::{self, Output, Show, duration, size};
use clap::Args;
use metadb_proto::v1::{Role, group_record, node_record};
use serde::Serialize;
use shard_router::operator::{Forecast, Membership, Operator, Relocation, Wish};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

/// How often is looked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// How long the cluster may give no answer while it is watched.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long is waited for groups without a leader before it is said what a change comes to.
const LEADERS_WITHIN: Duration = Duration::from_secs(3);

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

/// A group whose voters change, or its leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Move {
    group: u32,
    from: BTreeSet<u64>,
    to: BTreeSet<u64>,
    /// Who leads and hands over.
    leader_goes: Option<u64>,
    /// About how much is copied to each new replica.
    bytes: Option<u64>,
}

/// What it may be expected to cost.
#[derive(Debug, Clone, Copy, Serialize)]
struct Expected {
    bytes: u64,
    total_ms: u64,
}

/// A change, as it is printed.
#[derive(Debug, Serialize)]
struct Change {
    dry_run: bool,
    done: bool,
    moves: Vec<Move>,
    expected: Expected,
}

impl Show for Change {
    fn columns(&self) -> Vec<&'static str> {
        vec!["GROUP", "VOTERS NOW", if self.done { "VOTERS" } else { "VOTERS THEN" }, "HANDS OVER", "COPIES"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |m: &Move| {
            let leader = m.leader_goes.map_or_else(|| "-".to_owned(), |node| format!("node {node}"));
            let copies = match m.bytes {
                Some(bytes) => size(bytes),
                None if m.to.is_subset(&m.from) => "-".to_owned(),
                None => "?".to_owned(),
            };
            vec![m.group.to_string(), list(&m.from), list(&m.to), leader, copies]
        };
        self.moves.iter().map(row).collect()
    }

    fn empty(&self) -> &'static str {
        "no replica moves, and no leader"
    }
}

pub(super) fn list(ids: &BTreeSet<u64>) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

impl Change {
    fn of(forecast: Forecast, dry_run: bool, done: bool) -> Self {
        let total_ms = u64::try_from(forecast.total.as_millis()).unwrap_or(u64::MAX);
        let moved = |m: Relocation| Move { group: m.group_id, from: m.from, to: m.to, leader_goes: m.leader_goes, bytes: m.bytes };
        let expected = Expected { bytes: forecast.bytes, total_ms };
        Change { dry_run, done, moves: forecast.relocations.into_iter().map(moved).collect(), expected }
    }
}

/// Shows a wish, or writes it down and watches until it is granted.
pub(super) async fn carry_out(session: &Session, output: Output, wish: &Wish, how: How) -> Result<(), Failure> {
    let operator = session.operator();
    let planned = operator.forecast(&wished(&operator, wish).await?).await;
    if !planned.relocations.is_empty() {
        output::note(&format!(
            "to expect: {} copied, in about {}",
            size(planned.bytes),
            duration(u64::try_from(planned.total.as_millis()).unwrap_or(u64::MAX))
        ));
    }
    if how.dry_run {
        return output.show(&Change::of(planned, true, false));
    }
    operator.wish(wish).await?;
    if how.no_wait {
        output::note("the cluster goes on by itself; `cairn admin group list` and `cairn admin node list` show how far it is");
    } else {
        output::note("the cluster does it by itself: Ctrl-C ends the watching, not the work");
        watch(&operator, wish).await?;
    }
    output.show(&Change::of(planned, false, !how.no_wait))
}

/// The cluster as a wish would have it. Waits a moment for groups that have no leader now: nothing could be said of them.
async fn wished(operator: &Operator, wish: &Wish) -> Result<Membership, Failure> {
    let until = Instant::now() + LEADERS_WITHIN;
    loop {
        let wished = operator.membership().await?.with(wish)?;
        let active = wished.records.groups.iter().filter(|group| group.state() == group_record::State::Active).count();
        if wished.placements().len() >= active || Instant::now() >= until {
            return Ok(wished);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
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
            let learning = match (learning.is_empty(), received(members, p.group_id, &learning)) {
                (true, _) => String::new(),
                (false, None) => format!(" ({} learns)", list(&learning)),
                (false, Some(percent)) => format!(" ({} learns, {percent} % received)", list(&learning)),
            };
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
    left.extend(wish.drain.as_ref().and_then(|drain| undrained(members, drain.node_id)));
    left
}

/// How much of a snapshot the nodes have that learn a group, in percent.
fn received(members: &Membership, group_id: u32, learning: &BTreeSet<u64>) -> Option<u64> {
    let replicas = members.statuses.iter().filter(|(id, _)| learning.contains(id)).flat_map(|(_, status)| &status.groups);
    let receiving = replicas.filter(|replica| replica.group_id == group_id).filter_map(|replica| replica.receiving_snapshot.as_ref());
    receiving.filter_map(|snapshot| snapshot.done_bytes.saturating_mul(100).checked_div(snapshot.total_bytes)).min()
}

/// What a node that is drained still has; nothing, if it does not answer.
fn undrained(members: &Membership, node_id: u64) -> Option<String> {
    let record = members.records.nodes.iter().find(|record| record.node.as_ref().is_some_and(|node| node.node_id == node_id))?;
    let groups = &members.statuses.get(&node_id)?.groups;
    let leads = groups.iter().filter(|group| group.role() == Role::Leader).count();
    // A replica that can't be used does not go before its node is mended.
    let held = groups.iter().filter(|group| group.role() != Role::Failed && !record.keeps_replicas).count();
    match (record.state() == node_record::State::Draining, leads, held) {
        (false, ..) | (true, 0, 0) => None,
        (true, leads, held) => Some(format!("node {node_id} leads {leads} groups and has {held} replicas to give away")),
    }
}
