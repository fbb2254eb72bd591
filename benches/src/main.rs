//! `bench`: measures and prints. The last line is for scripts.

use anyhow::Context as _;
use cairn_benches::plan::{Length, MANY, Plan, Section};
use cairn_benches::report::{self, Figure, Report};
use cairn_benches::sections::{idle, limits, moves, neighbour, pause, restart, shards, throughput, writes};
use clap::{Parser, Subcommand};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  make bench                             everything, most of an hour
  make bench SHORT=1                     everything, some minutes
  make bench SECTION=put,scan SHORT=1    two sections
  make bench SECTION=half ROUNDS=3       one section, three rounds
  make bench-profile                     where the time goes while 256 clients put";

/// Measures Cairn beside etcd, MariaDB and the machine's own limits.
#[derive(Debug, Parser)]
#[command(name = "bench", after_help = EXAMPLES)]
struct Args {
    /// The binary to measure.
    #[arg(long, default_value = "target/release/cairn")]
    cairn: PathBuf,
    /// The etcd binary; empty: leave it out.
    #[arg(long, default_value = "etcd")]
    etcd: String,
    /// MariaDB's server; empty: leave it out.
    #[arg(long, default_value = "mariadbd")]
    mariadb: String,
    /// Where the report goes.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// What to measure; all if none is named.
    #[arg(long, value_delimiter = ',')]
    section: Vec<Section>,
    /// Some minutes: one round, short cells.
    #[arg(long, conflicts_with = "tiny")]
    short: bool,
    /// Seconds per section: proves that it works, its figures mean nothing.
    #[arg(long)]
    tiny: bool,
    /// Shards of the section `shards`: 12288 unless it is said.
    #[arg(long)]
    shards: Option<usize>,
    /// How often each system is started afresh and measured.
    #[arg(long)]
    rounds: Option<usize>,
    /// Threads of the clients.
    #[arg(long, default_value_t = 2)]
    client_threads: usize,
    /// Instead of measuring: where the time goes while 256 clients put, by crate and symbol.
    #[arg(long)]
    profile: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

/// Work of a process of its own.
#[derive(Debug, Subcommand)]
enum Part {
    /// Asks as another tenant; the section `neighbour` starts it.
    #[command(hide = true)]
    Flood(neighbour::Flood),
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(args.client_threads.max(1)).enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        // Whichever ends first: the other is dropped, and with it the processes that it started.
        tokio::select! {
            done = work(&args) => done,
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
            _ = terminate.recv() => anyhow::bail!("terminated"),
        }
    })
}

fn plan(args: &Args) -> Plan {
    let length = match (args.short, args.tiny) {
        (_, true) => Length::Tiny,
        (true, _) => Length::Short,
        _ => Length::Full,
    };
    let plan = Plan::new(length);
    let peer = |name: &str| (!name.is_empty()).then(|| PathBuf::from(name));
    Plan {
        cairn: args.cairn.clone(),
        etcd: peer(&args.etcd),
        mariadb: peer(&args.mariadb),
        sections: if args.section.is_empty() { plan.sections } else { args.section.clone() },
        rounds: args.rounds.unwrap_or(plan.rounds).max(1),
        shards: args.shards.unwrap_or(plan.shards).max(1),
        ..plan
    }
}

async fn work(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.part {
        Some(Part::Flood(flood)) => {
            let per_second = neighbour::flood(flood).await?;
            writeln!(std::io::stdout().lock(), "{per_second}")?;
            Ok(ExitCode::SUCCESS)
        }
        None if args.profile => {
            std::fs::create_dir_all(&args.out)?;
            let text = cairn_benches::profile::run(&plan(args), &args.out).await?;
            writeln!(std::io::stdout().lock(), "{text}")?;
            Ok(ExitCode::SUCCESS)
        }
        None => Box::pin(measure(args)).await,
    }
}

async fn measure(args: &Args) -> anyhow::Result<ExitCode> {
    let plan = plan(args);
    std::fs::create_dir_all(&args.out).with_context(|| format!("can't make {}", args.out.display()))?;
    let data = args.out.join("data");
    let mut run = Run { out: &args.out, reports: Vec::new(), failed: Vec::new() };
    let throughput = [Section::Put, Section::Get, Section::Scan, Section::Half];
    let mut echo = None;
    // The unary figures are told beside the echo's.
    if [Section::Limits, Section::Put, Section::Get].iter().any(|section| plan.has(*section)) {
        std::fs::create_dir_all(&data)?;
        let limits = limits::measure(&data, &plan).await?;
        echo = limits.echo_at(MANY);
        run.done("limits", limits.report())?;
    }
    if throughput.iter().any(|section| plan.has(*section)) {
        run.done("throughput", throughput::run(&plan, &data, echo).await)?;
    }
    for section in plan.sections.clone() {
        let (name, report) = match section {
            // Measured above, together.
            Section::Limits | Section::Put | Section::Get | Section::Scan | Section::Half => continue,
            Section::Kill => ("kill", pause::run(&plan, &data, pause::How::Kill).await),
            Section::Term => ("term", pause::run(&plan, &data, pause::How::Term).await),
            Section::Idle => ("idle", idle::run(&plan, &data).await),
            Section::Restart => ("restart", restart::run(&plan, &data).await),
            Section::Neighbour => ("neighbour", neighbour::run(&plan, &data).await),
            Section::Writes => ("writes", writes::run(&plan, &data).await),
            Section::Moves => ("moves", Box::pin(moves::run(&plan, &data)).await),
            Section::Shards => ("shards", shards::run(&plan, &data).await),
        };
        run.done(name, report)?;
    }
    let _ = std::fs::remove_dir_all(&data);
    run.end(&plan)
}

/// A run while it goes on.
struct Run<'a> {
    out: &'a Path,
    reports: Vec<Report>,
    failed: Vec<String>,
}

impl Run<'_> {
    /// Prints what a section found, at once; one that failed does not keep the others from being measured.
    fn done(&mut self, section: &str, report: anyhow::Result<Report>) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        match report {
            Ok(report) => {
                writeln!(out, "{}", report.text())?;
                for plot in &report.plots {
                    plot.draw(self.out)?;
                }
                self.reports.push(report);
            }
            Err(error) => {
                writeln!(out, "\n{section} FAILED: {error:#}\n")?;
                self.failed.push(format!("{section}: {error:#}"));
            }
        }
        Ok(())
    }

    /// All figures once more, and the last line.
    fn end(self, plan: &Plan) -> anyhow::Result<ExitCode> {
        let figures: Vec<Figure> = self.reports.iter().flat_map(|report| report.figures.iter().cloned()).collect();
        let path = self.out.join("bench.json");
        report::write_json(&serde_json::json!({ "plan": plan, "reports": self.reports, "failed": self.failed }), &path)?;
        let mut out = std::io::stdout().lock();
        if !figures.is_empty() {
            writeln!(out, "\n{}", report::figures_table("What it must reach", &figures))?;
        }
        for failed in &self.failed {
            writeln!(out, "FAILED {failed}")?;
        }
        writeln!(out, "report: {} and *.svg beside it", path.display())?;
        writeln!(out, "{}", report::last_line(&figures))?;
        Ok(if self.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
