//! `bench`: measures and prints. The last line is for scripts.

use anyhow::Context as _;
use cairn_benches::{plan, report, rounds};
use clap::Parser;
use std::io::Write as _;
use std::path::PathBuf;

/// Measures Cairn beside etcd and beside the machine's own limits.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Args {
    /// The binary to measure.
    #[arg(long, default_value = "target/release/cairn")]
    cairn: PathBuf,
    /// The etcd binary.
    #[arg(long, default_value = "etcd")]
    etcd: PathBuf,
    /// Where the report goes.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// Under a minute: one round, short cells.
    #[arg(long, env = "SHORT", num_args = 0..=1, default_missing_value = "1", default_value = "0")]
    short: String,
    /// Leave etcd out.
    #[arg(long)]
    no_etcd: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let short = !["0", "", "false"].contains(&args.short.as_str());
    let plan = plan::Plan { cairn: args.cairn, etcd: (!args.no_etcd).then_some(args.etcd), ..plan::Plan::new(short) };
    std::fs::create_dir_all(&args.out).with_context(|| format!("can't make {}", args.out.display()))?;
    let results = rounds::run(&plan, &args.out).await?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", report::table(&results))?;
    report::write_json(&results, &args.out.join("bench.json"))?;
    report::plot(&results, &args.out.join("bench.svg"))?;
    writeln!(out, "{}", report::limits(&results))?;
    writeln!(out, "report: {0}/bench.json {0}/bench.svg", args.out.display())?;
    writeln!(out, "{}", report::last_line(&results))?;
    Ok(())
}
