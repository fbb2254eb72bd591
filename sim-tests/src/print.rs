//! Seeds in, lines out. The last line is for scripts.

use clap::Parser;
use metadb_proto::v1::ErrorKind;
use metadb_proto::v1::shard_change_record::Kind;
use metadb_proto::v1::shard_history_record::Outcome;
use sim_tests::nemesis::{Bites, FAULTS};
use sim_tests::planted::Planted;
use sim_tests::run::{self, Plan, Report};
use std::collections::BTreeMap;
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

/// What all seeds came to.
#[derive(Default)]
struct Sums {
    simulated: Duration,
    violations: usize,
    bites: Bites,
    elections: usize,
    snapshots: u64,
    changes: BTreeMap<(Kind, Outcome), u64>,
    transfers: (u64, u64),
    operations: (usize, usize, usize),
    refusals: BTreeMap<ErrorKind, u64>,
}

impl Sums {
    fn add(&mut self, report: Report) {
        self.simulated += report.simulated;
        self.violations += report.violations.len();
        self.elections += report.elections;
        self.snapshots += report.snapshots;
        for (what, count) in report.changes {
            *self.changes.entry(what).or_default() += count;
        }
        self.transfers = (self.transfers.0 + report.transfers.0, self.transfers.1 + report.transfers.1);
        let ((ok, failed, unknown), more) = (self.operations, report.operations);
        self.operations = (ok + more.0, failed + more.1, unknown + more.2);
        for (fault, (done, bit)) in report.bites {
            let sum = self.bites.entry(fault).or_default();
            *sum = (sum.0 + done, sum.1 + bit);
        }
        for (kind, count) in report.refusals {
            *self.refusals.entry(kind).or_default() += count;
        }
    }

    fn tell(&self, out: &mut impl std::io::Write) -> std::io::Result<()> {
        let bites = FAULTS.iter().map(|fault| (fault, self.bites.get(fault).copied().unwrap_or_default()));
        let told: Vec<_> = bites.map(|(fault, (done, bit))| format!("{fault:?} {bit}/{done}")).collect();
        let Sums { elections, snapshots, operations: (ok, failed, unknown), .. } = self;
        writeln!(out, "faults that bit, of those made: {}; elections won: {elections}; snapshots installed: {snapshots}", told.join(", "))?;
        writeln!(out, "transfers of snapshots resumed: {}; parts of snapshots found rotten: {}", self.transfers.0, self.transfers.1)?;
        let changes: Vec<_> = self
            .changes
            .iter()
            .map(|((kind, outcome), count)| format!("{} {} {count}", kind.as_str_name(), outcome.as_str_name()))
            .collect();
        writeln!(out, "changes of shards: {}", changes.join(", "))?;
        let kinds: Vec<_> = self.refusals.iter().map(|(kind, count)| format!("{} {count}", kind.as_str_name())).collect();
        let per_s = *ok as f64 / self.simulated.as_secs_f64().max(f64::EPSILON);
        writeln!(
            out,
            "operations: {ok} ok ({per_s:.0} in a simulated second), {failed} failed, {unknown} unknown; clients were told {}",
            kinds.join(", ")
        )
    }

    /// What these seeds did not test.
    fn gaps(&self) -> Vec<String> {
        let toothless = FAULTS.iter().filter(|fault| self.bites.get(fault).is_none_or(|(_, bit)| *bit == 0));
        let mut gaps: Vec<_> = toothless.map(|fault| format!("{fault:?} never bit: these seeds tested nothing of it")).collect();
        if self.snapshots == 0 {
            gaps.push("no snapshot was installed: these seeds tested nothing of it".to_owned());
        }
        let ends =
            [(Kind::Split, Outcome::Done), (Kind::Merge, Outcome::Done), (Kind::Move, Outcome::Done), (Kind::Move, Outcome::Cancelled)];
        for (kind, outcome) in ends.into_iter().filter(|end| !self.changes.contains_key(end)) {
            gaps.push(format!("no {kind:?} came to {outcome:?}: these seeds tested nothing of it"));
        }
        if self.transfers.0 == 0 || self.transfers.1 == 0 {
            gaps.push("no transfer was resumed, or no rot was found: these seeds tested nothing of it".to_owned());
        }
        gaps
    }
}

fn run_all(args: &Args, plan: Plan) -> anyhow::Result<usize> {
    let mut out = std::io::stdout().lock();
    let seeds = seeds(args)?;
    let mut sums = Sums::default();
    for seed in &seeds {
        let report = run::seed(*seed, plan);
        tell(&mut out, &report, args)?;
        sums.add(report);
    }
    sums.tell(&mut out)?;
    let many = args.seeds >= SEEDS_FOR_EVERY_FAULT && args.seed.is_none();
    let gaps = if many { sums.gaps() } else { Vec::new() };
    gaps.iter().try_for_each(|gap| writeln!(out, "{gap}"))?;
    let violations = sums.violations + gaps.len();
    writeln!(out, "sim: seeds={} simulated_s={:.0} violations={violations}", seeds.len(), sums.simulated.as_secs_f64())?;
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
