//! `cairn admin scrub`: everything at rest is read, and what does not read back is told and mended.

use crate::cli::connection::Session;
use crate::cli::time::time;
use crate::failure::{Code, Failure};
use crate::output::{Output, Progress, Show, size};
use clap::{Args, Subcommand};
use metadb_proto::v1::ScrubStatus;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

const EXAMPLES: &str = "\
Examples:
  cairn admin scrub                              every node begins, in the background
  cairn admin scrub --node 2 --wait              with a bar, until node 2 is through
  cairn admin scrub --node 2 --rate 200m         faster than scrub.bytes_per_s, this once
  cairn admin scrub status
  cairn admin scrub --wait -o json | jq '.[] | select(.rot > 0)'

Each node reads its log, its store and its file contents, and checks what they were written with. It does so by itself
too: see `cairn admin setting explain scrub.interval_s`. What does not read back is rebuilt from the other replicas.

Exit code: 0 when nothing was found, 8 when something did not read back or could not be read, 5 when a node that is
waited for does not answer for a minute.";

/// How often a node that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How long a node that is waited for may be silent: one that found rot starts again.
const SILENT: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(super) struct Scrub {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Only this node; may be given more than once. Without, all of them.
    #[arg(long, value_name = "ID")]
    node: Vec<u64>,
    /// Wait until it is done.
    #[arg(long)]
    wait: bool,
    /// Read at most so many bytes a second in this pass: 50000000, 200m.
    #[arg(long, value_name = "BYTES", value_parser = rate)]
    rate: Option<u64>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// How far each node is, and what the last pass found.
    #[command(after_help = "Examples:\n  cairn admin scrub status\n  cairn admin scrub status -o json")]
    Status,
}

#[derive(Debug, Serialize)]
struct Row {
    node: u64,
    running: bool,
    part: String,
    bytes: u64,
    total_bytes: u64,
    bytes_per_s: u64,
    ended_ms: u64,
    rot: u64,
    problems: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Rows(Vec<Row>);

impl Show for Rows {
    fn columns(&self) -> Vec<&'static str> {
        vec!["NODE", "NOW", "READ", "OF", "AT MOST", "LAST ENDED", "ROT", "FOUND"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |row: &Row| {
            vec![
                row.node.to_string(),
                if row.running { row.part.clone() } else { "at rest".to_owned() },
                if row.running { size(row.bytes) } else { String::new() },
                if row.running { size(row.total_bytes) } else { String::new() },
                format!("{}/s", size(row.bytes_per_s)),
                if row.ended_ms == 0 { "never".to_owned() } else { time(row.ended_ms) },
                row.rot.to_string(),
                row.problems.join("; "),
            ]
        };
        self.0.iter().map(row).collect()
    }

    fn empty(&self) -> &'static str {
        "no node answers"
    }
}

fn rate(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let (digits, unit) = match lower.strip_suffix(['k', 'm', 'g']) {
        Some(digits) => (digits, lower.chars().last()),
        None => (lower.as_str(), None),
    };
    let shift = match unit {
        Some('k') => 10,
        Some('m') => 20,
        Some('g') => 30,
        _ => 0,
    };
    let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift)).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| format!("{text:?} is no number of bytes: 50000000, 512k, 200m, 1g"))
}

impl Scrub {
    pub(super) async fn run(self, session: &Session, output: Output) -> Result<(), Failure> {
        let operator = session.operator();
        if matches!(self.verb, Some(Verb::Status)) {
            return output.show(&Rows(look(session).await?.into_iter().map(|(node, status)| row(node, status, 0)).collect()));
        }
        let nodes = match self.node.as_slice() {
            [] => operator.nodes().await?.into_iter().filter_map(|record| record.node).map(|node| node.node_id).collect(),
            asked => asked.to_vec(),
        };
        let mut begun = BTreeMap::new();
        for node in nodes {
            begun.insert(node, operator.scrub(node, self.rate.unwrap_or(0)).await?);
        }
        let rot_before = begun.iter().map(|(node, status)| (*node, status.rot)).collect();
        let ended = if self.wait { wait(session, &begun).await? } else { begun };
        let rows: Vec<Row> = ended.into_iter().map(|(node, status)| row(node, status, found_before(&rot_before, node))).collect();
        let found = rows.iter().any(|row| row.rot > 0 || !row.problems.is_empty());
        output.show(&Rows(rows))?;
        if self.wait && found {
            let told = "something did not read back, or could not be read";
            return Err(
                Failure::new(Code::Problems, told).hint("`cairn admin status` shows what is rebuilt; look at the disk: dmesg, smartctl -a")
            );
        }
        Ok(())
    }
}

fn found_before(rot: &BTreeMap<u64, u64>, node: u64) -> u64 {
    rot.get(&node).copied().unwrap_or(0)
}

/// `rot_before`: what was found before the pass that this is about.
fn row(node: u64, status: ScrubStatus, rot_before: u64) -> Row {
    Row {
        node,
        running: status.running,
        part: status.part,
        bytes: if status.running { status.bytes } else { status.ended_bytes },
        total_bytes: status.total_bytes,
        bytes_per_s: status.bytes_per_s,
        ended_ms: status.ended_ms,
        // The node may have started again since.
        rot: status.rot.saturating_sub(rot_before),
        problems: status.problems,
    }
}

async fn look(session: &Session) -> Result<BTreeMap<u64, ScrubStatus>, Failure> {
    let nodes = session.operator().status().await?.nodes.into_iter();
    Ok(nodes.filter_map(|view| Some((view.record.node?.node_id, view.status.ok()?.scrub?))).collect())
}

/// Waits until each node has ended a pass that began no earlier than the one that it told of. What was found on the way is kept, also if
/// the node was put in place anew meanwhile.
async fn wait(session: &Session, begun: &BTreeMap<u64, ScrubStatus>) -> Result<BTreeMap<u64, ScrubStatus>, Failure> {
    let total: u64 = begun.values().map(|status| status.total_bytes).sum();
    let progress = Progress::bytes("scrub", total);
    let mut told = 0;
    let mut waiting: BTreeMap<u64, (Instant, ScrubStatus)> =
        begun.iter().map(|(id, status)| (*id, (Instant::now(), status.clone()))).collect();
    let mut ended = BTreeMap::new();
    while !waiting.is_empty() {
        tokio::time::sleep(LOOK).await;
        // A directory that has no leader at the moment is silence too.
        for (node, status) in look(session).await.unwrap_or_default() {
            let Some((seen, last)) = waiting.get_mut(&node) else { continue };
            let began_ms = begun.get(&node).map_or(0, |begun| begun.began_ms);
            let worse = |mut status: ScrubStatus, last: &ScrubStatus| {
                status.rot = status.rot.max(last.rot);
                status.problems.extend(last.problems.iter().filter(|known| !status.problems.contains(known)).cloned().collect::<Vec<_>>());
                status
            };
            let is_over = !status.running && status.ended_ms >= began_ms;
            (*seen, *last) = (Instant::now(), worse(status, last));
            if is_over && let Some((_, last)) = waiting.remove(&node) {
                progress.note(&format!("node {node} is through: {} read", size(last.ended_bytes)));
                ended.insert(node, last);
            }
        }
        let read: u64 =
            ended.values().map(|status| status.ended_bytes).sum::<u64>() + waiting.values().map(|(_, status)| status.bytes).sum::<u64>();
        progress.advance(read.saturating_sub(told));
        told = told.max(read);
        progress.message(waiting.iter().map(|(node, (_, status))| format!("node {node}: {}", status.part)).collect::<Vec<_>>().join(", "));
        if let Some((node, _)) = waiting.iter().find(|(_, (seen, _))| seen.elapsed() > SILENT) {
            progress.finish();
            return Err(Failure::new(
                Code::Unavailable,
                format!("node {node} does not answer any more; its scrub goes on when it runs again"),
            ));
        }
    }
    progress.finish();
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use super::rate;

    #[test]
    fn a_rate_is_a_number_of_bytes_with_a_unit_or_without() {
        assert_eq!(rate("1500"), Ok(1500));
        assert_eq!(rate("2k"), Ok(2 << 10));
        assert_eq!(rate("200M"), Ok(200 << 20));
        assert_eq!(rate("1g"), Ok(1 << 30));
        for wrong in ["", "k", "0", "-1", "1.5m", "99999999999g"] {
            rate(wrong).expect_err(wrong);
        }
    }
}
