//! Seeds in, lines out. The last line is for scripts.

use clap::Parser;
use sim_tests::nemesis::{Bites, FAULTS};
use sim_tests::planted::Planted;
use sim_tests::run::{self, Plan, Report};
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

/// With so many seeds, a fault that never bit fails the run.
const SEEDS_FOR_EVERY_FAULT: u64 = 20;

/// Runs the whole cluster in the simulator.
#[derive(Debug, Parser)]
#[command(name = "sim")]
struct Args {
    /// Run this seed alone, and print what happened at its end.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Run so many seeds.
    #[arg(long, default_value_t = 10)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    start: u64,
    /// Run the seeds listed in this file too: one a line, and after a space what it once found.
    #[arg(long)]
    corpus: Option<std::path::PathBuf>,
    /// Nodes of the cluster.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Seconds of virtual time with faults.
    #[arg(long, default_value_t = Plan::default().chaos.as_secs())]
    chaos: u64,
    /// Plant a deliberate bug, to see that it is caught; a wrong name lists them all.
    #[arg(long)]
    planted: Option<Planted>,
    /// Print the kill matrix instead: each planted bug, and how many seeds it takes to catch it, up to --seeds of them.
    #[arg(long, conflicts_with_all = ["seed", "planted", "corpus"])]
    matrix: bool,
    /// What the libraries log goes to standard error, filtered so.
    #[arg(long)]
    log: Option<String>,
}

pub(crate) fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(filter) = &args.log {
        let filter = tracing_subscriber::EnvFilter::new(filter);
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().with_ansi(false).init();
    }
    let plan = Plan { nodes: args.nodes, chaos: Duration::from_secs(args.chaos), planted: args.planted, ..Plan::default() };
    let ended =
        if args.matrix { crate::matrix::run(&mut std::io::stdout().lock(), plan, args.start, args.seeds) } else { run_all(&args, plan) };
    match ended {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "sim: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// The seeds that were asked for, those of the corpus first.
fn seeds(args: &Args) -> anyhow::Result<Vec<u64>> {
    let mut seeds = Vec::new();
    if let Some(path) = &args.corpus {
        for line in std::fs::read_to_string(path)?.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
            seeds.push(line.split_whitespace().next().unwrap_or_default().parse()?);
        }
    }
    match args.seed {
        Some(seed) => seeds.push(seed),
        None => seeds.extend(args.start..args.start + args.seeds),
    }
    Ok(seeds)
}

fn run_all(args: &Args, plan: Plan) -> anyhow::Result<usize> {
    let mut out = std::io::stdout().lock();
    let seeds = seeds(args)?;
    let (mut simulated, mut violations, mut bites, mut elections, mut snapshots) = (Duration::ZERO, 0, Bites::new(), 0, 0);
    let mut transfers = (0, 0);
    for seed in &seeds {
        let report = run::seed(*seed, plan);
        tell(&mut out, &report, args)?;
        simulated += report.simulated;
        violations += report.violations.len();
        elections += report.elections;
        snapshots += report.snapshots;
        transfers = (transfers.0 + report.transfers.0, transfers.1 + report.transfers.1);
        for (fault, (done, bit)) in report.bites {
            let sum = bites.entry(fault).or_default();
            *sum = (sum.0 + done, sum.1 + bit);
        }
    }
    let told: Vec<_> =
        FAULTS.iter().map(|f| bites.get(f).map_or(format!("{f:?} 0/0"), |(done, bit)| format!("{f:?} {bit}/{done}"))).collect();
    writeln!(out, "faults that bit, of those made: {}; elections won: {elections}; snapshots installed: {snapshots}", told.join(", "))?;
    writeln!(out, "transfers of snapshots resumed: {}; parts of snapshots found rotten: {}", transfers.0, transfers.1)?;
    if args.seeds >= SEEDS_FOR_EVERY_FAULT && args.seed.is_none() {
        for fault in FAULTS.iter().filter(|fault| bites.get(fault).is_none_or(|(_, bit)| *bit == 0)) {
            writeln!(out, "{fault:?} never bit: these seeds tested nothing of it")?;
            violations += 1;
        }
        if transfers.0 == 0 || transfers.1 == 0 {
            writeln!(out, "no transfer was resumed, or no rot was found: these seeds tested nothing of it")?;
            violations += 1;
        }
        if snapshots == 0 {
            writeln!(out, "no snapshot was installed: these seeds tested nothing of it")?;
            violations += 1;
        }
    }
    writeln!(out, "sim: seeds={} simulated_s={:.0} violations={violations}", seeds.len(), simulated.as_secs_f64())?;
    Ok(violations)
}

fn tell(out: &mut impl std::io::Write, report: &Report, args: &Args) -> std::io::Result<()> {
    let (ok, failed, unknown) = report.operations;
    writeln!(
        out,
        "seed {} {}: {:.1} s simulated, operations {ok} ok {failed} failed {unknown} unknown, {} elections, {} snapshots, trace {} of {} events",
        report.seed,
        if report.violations.is_empty() { "passes" } else { "FAILS" },
        report.simulated.as_secs_f64(),
        report.elections,
        report.snapshots,
        report.trace,
        report.events,
    )?;
    if report.violations.is_empty() {
        return Ok(());
    }
    for violation in &report.violations {
        writeln!(out, "  {violation}")?;
    }
    if args.seed.is_some() {
        writeln!(out, "  the last events:")?;
        for line in &report.recent {
            writeln!(out, "    {line}")?;
        }
    }
    let shape = if args.nodes == 3 && args.chaos == Plan::default().chaos.as_secs() {
        String::new()
    } else {
        format!(" --nodes {} --chaos {}", args.nodes, args.chaos)
    };
    writeln!(out, "  replay: make sim SEED={0}  (or: sim --seed {0}{shape} --log sim=debug,metadb=info)", report.seed)
}
