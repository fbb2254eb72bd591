//! Where the processors' time goes while 256 clients put through the router: `perf` on the nodes and on this process, told by crate and by
//! symbol. The time is a symbol's own, without what it calls.

use crate::load::{self, Closed, closed};
use crate::plan::{MANY, Plan, Verb};
use crate::report::{TextTable, cells};
use crate::sections::{fresh, say};
use crate::systems::cairn::Cairn;
use anyhow::Context as _;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Command;

/// Samples per second and processor: a prime, so that it keeps no step with timers.
const SAMPLES: u32 = 997;
/// How long perf may take to find the threads.
const SETTLE: Duration = Duration::from_secs(1);
/// Symbols that are shown of each kind of process.
const SYMBOLS: usize = 40;
/// Crates with less, in percent, are shown together.
const LEAST_PERCENT: f64 = 0.3;
/// Longest symbol shown.
const SYMBOL_CHARS: usize = 110;
/// Characters between fields that no symbol has.
const BETWEEN: char = '\u{1f}';

/// One line of perf's report.
#[derive(Debug, Clone, PartialEq)]
struct Line {
    percent: f64,
    /// The thread's id.
    tid: u32,
    kernel: bool,
    symbol: String,
}

/// Measures, and tells it as text. `perf.data` stays in the folder, for who wants to look deeper.
///
/// # Errors
/// If the cluster does not start, or perf does not work here.
pub async fn run(plan: &Plan, out: &Path) -> anyhow::Result<String> {
    let data = out.join("data");
    fresh(&data)?;
    say("profile: Cairn");
    let cairn = Cairn::start(&plan.cairn, &data, 3).await?;
    let target = Arc::new(cairn.routed());
    load::fill(&target).await?;
    let (client, nodes) = (std::process::id(), cairn.pids());
    let pids: Vec<String> = nodes.iter().chain([&client]).map(ToString::to_string).collect();
    let file = out.join("perf.data");
    let seconds = plan.paced.as_secs_f64();
    // Longer than the recording, which takes a moment to begin.
    let load = Closed { verb: Verb::Put, clients: MANY, warm_up: plan.warm_up, measure: plan.paced + SETTLE };
    let recording = Command::new("perf")
        .args(["record", "--quiet", "--freq", &SAMPLES.to_string(), "--pid", &pids.join(","), "--output"])
        .arg(&file)
        .args(["--", "sleep", &format!("{:.2}", seconds + plan.warm_up.as_secs_f64())])
        .kill_on_drop(true)
        .output();
    let (recorded, measured) = tokio::join!(recording, closed(&target, &load, &nodes));
    let (recorded, measured) = (recorded.context("can't run perf (Debian: apt-get install linux-perf)")?, measured?);
    anyhow::ensure!(recorded.status.success(), "perf record: {}", String::from_utf8_lossy(&recorded.stderr));
    let threads = [("the nodes", threads(&nodes)), ("the clients", threads(&[client]))];
    cairn.stop().await;
    let _ = std::fs::remove_dir_all(&data);
    say("profile: reading it");
    let lines = read(&file).await?;
    anyhow::ensure!(!lines.is_empty(), "perf took no sample");
    let mut text = format!(
        "puts of 256 clients through the router: {:.0}/s, p99 {:.0} µs; processor time per put: clients {:.1} µs, nodes {:.1} µs\n",
        measured.per_second, measured.p99_us, measured.client_cpu_us, measured.servers_cpu_us
    );
    for (name, threads) in &threads {
        let lines: Vec<&Line> = lines.iter().filter(|line| threads.contains(&line.tid)).collect();
        let _ = write!(text, "\n{}\n{}", by_crate(name, &lines), by_symbol(name, &lines));
    }
    let _ = writeln!(text, "\nlook deeper: perf report --input {} --no-children", file.display());
    Ok(text)
}

/// The threads of processes.
fn threads(pids: &[u32]) -> BTreeSet<u32> {
    let of_one = |pid: &u32| std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    pids.iter().flat_map(of_one).filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

async fn read(file: &Path) -> anyhow::Result<Vec<Line>> {
    let told = Command::new("perf")
        .args(["report", "--stdio", "--no-children", "--call-graph", "none", "--percent-limit", "0", "--fields", "overhead,pid,sym"])
        .args(["--field-separator", &BETWEEN.to_string(), "--input"])
        .arg(file)
        .kill_on_drop(true)
        .output()
        .await?;
    anyhow::ensure!(told.status.success(), "perf report: {}", String::from_utf8_lossy(&told.stderr));
    Ok(String::from_utf8_lossy(&told.stdout).lines().filter_map(parse).collect())
}

/// `1.20%␟ 1234:cairn␟[.] symbol`
fn parse(line: &str) -> Option<Line> {
    let mut fields = line.splitn(3, BETWEEN);
    let percent = fields.next()?.trim().trim_end_matches('%').parse().ok()?;
    // What perf calls a pid here is a thread's.
    let tid = fields.next()?.trim().split(':').next()?.parse().ok()?;
    let (kind, symbol) = fields.next()?.trim().split_once(' ')?;
    Some(Line { percent, tid, kernel: kind == "[k]", symbol: symbol.trim().to_owned() })
}

/// Whose code a symbol is: a crate's name, or what it is if it is not Rust.
fn owner(line: &Line) -> String {
    if line.kernel {
        return "kernel".to_owned();
    }
    let mut rest = line.symbol.as_str();
    // `<&mut T as Trait>::method` belongs to who has T.
    while let Some(inner) = ["<", "&", "mut ", "dyn ", "*const ", "*mut ", "[", "("].iter().find_map(|prefix| rest.strip_prefix(prefix)) {
        rest = inner;
    }
    let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    match (name.as_str(), rest[name.len()..].starts_with("::")) {
        ("core" | "alloc" | "std" | "hashbrown", true) => "std".to_owned(),
        (name, true) if !name.is_empty() => name.to_owned(),
        _ => "C and others".to_owned(),
    }
}

fn by_crate(name: &str, lines: &[&Line]) -> TextTable {
    let whole: f64 = lines.iter().map(|line| line.percent).sum();
    let mut crates = BTreeMap::<String, f64>::new();
    for line in lines {
        *crates.entry(owner(line)).or_default() += line.percent;
    }
    let mut crates: Vec<_> = crates.into_iter().collect();
    crates.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let mut table = TextTable::new(&format!("{name}: {whole:.1} % of all samples, by crate"), &["crate", "% of all", "% of these"]);
    let share = |percent: f64| [cells::number(percent, 2), cells::number(100.0 * percent / whole.max(0.01), 1)];
    let rest: f64 = crates.iter().map(|(_, percent)| *percent).filter(|percent| *percent < LEAST_PERCENT).sum();
    for (owner, percent) in crates.into_iter().filter(|(_, percent)| *percent >= LEAST_PERCENT) {
        table.row([owner].into_iter().chain(share(percent)));
    }
    table.row(["all others".to_owned()].into_iter().chain(share(rest)));
    table
}

fn by_symbol(name: &str, lines: &[&Line]) -> TextTable {
    // The nodes are three processes: a symbol is one line all the same.
    let mut symbols = BTreeMap::<(String, &str), f64>::new();
    for line in lines {
        *symbols.entry((owner(line), &line.symbol)).or_default() += line.percent;
    }
    let mut symbols: Vec<_> = symbols.into_iter().collect();
    symbols.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let mut table = TextTable::new(&format!("{name}: the {SYMBOLS} symbols with most time of their own"), &["% of all", "crate", "symbol"]);
    for ((owner, symbol), percent) in symbols.into_iter().take(SYMBOLS) {
        let short: String = symbol.chars().take(SYMBOL_CHARS).collect();
        table.row([cells::number(percent, 2), owner, short]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(kind: &str, symbol: &str) -> Line {
        parse(&format!("  1.25%{BETWEEN} 12:cairn{BETWEEN}{kind} {symbol}  ")).expect("a line")
    }

    #[test]
    fn lines_are_understood_and_headers_left_out() {
        let expected = Line { percent: 1.25, tid: 12, kernel: false, symbol: "metadb::x".into() };
        assert_eq!(line("[.]", "metadb::x"), expected);
        assert_eq!(parse("# Overhead"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn symbols_have_owners() {
        let owners = [
            ("[k]", "copy_user_generic", "kernel"),
            ("[.]", "openraft::core::raft_core::RaftCore<C>::run", "openraft"),
            ("[.]", "<&mut metadb::group::Group as core::fmt::Debug>::fmt", "metadb"),
            ("[.]", "<alloc::vec::Vec<T> as core::clone::Clone>::clone", "std"),
            ("[.]", "rocksdb::DBImpl::Write(int)", "rocksdb"),
            ("[.]", "malloc", "C and others"),
        ];
        for (kind, symbol, expected) in owners {
            assert_eq!(owner(&line(kind, symbol)), expected, "{symbol}");
        }
    }
}
