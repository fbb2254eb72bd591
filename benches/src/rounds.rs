//! The measurement itself: rounds in which each system is started with fresh data, filled, loaded and stopped, one after the other, so
//! that whatever else happens on the machine meets both.

use crate::cairn::Cairn;
use crate::etcd::Etcd;
use crate::limits::{self, Limits};
use crate::load::{self, Measured};
use crate::plan::{CLIENTS, Plan, Verb, Way};
use crate::target::Target;
use serde::Serialize;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

/// One cell of one round.
#[derive(Debug, Clone, Serialize)]
pub struct Cell {
    /// Which round, from 0.
    pub round: usize,
    /// To whom, and how.
    pub way: Way,
    /// What.
    pub verb: Verb,
    /// How many clients.
    pub clients: usize,
    /// What it measured.
    pub measured: Measured,
}

/// All that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Results {
    /// The machine's limits.
    pub limits: Limits,
    /// Every cell of every round.
    pub cells: Vec<Cell>,
}

/// Measures everything.
///
/// # Errors
/// If a system can't be started or asked.
pub async fn run(plan: &Plan, out: &Path) -> anyhow::Result<Results> {
    let folder = out.join("data");
    fresh(&folder)?;
    say("the machine's limits")?;
    let limits = limits::measure(&folder, plan.limit).await?;
    let mut cells = Vec::new();
    for round in 0..plan.rounds {
        // Who comes first changes from round to round.
        let mut turns = [true, false];
        if round % 2 == 1 {
            turns.reverse();
        }
        for etcd in turns {
            fresh(&folder)?;
            match (&plan.etcd, etcd) {
                (Some(program), true) => etcd_turn(plan, program, &folder, round, &mut cells).await?,
                (None, true) => {}
                (_, false) => cairn_turn(plan, &folder, round, &mut cells).await?,
            }
        }
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(Results { limits, cells })
}

fn fresh(folder: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    Ok(std::fs::create_dir_all(folder)?)
}

async fn etcd_turn(plan: &Plan, program: &Path, folder: &Path, round: usize, cells: &mut Vec<Cell>) -> anyhow::Result<()> {
    say(&format!("round {} of {}: etcd", round + 1, plan.rounds))?;
    let etcd = Etcd::start(program, folder).await?;
    let target: Arc<dyn Target> = Arc::new(etcd.connect().await?);
    load_all(plan, round, &[(Way::Etcd, target)], cells).await?;
    etcd.stop().await;
    Ok(())
}

async fn cairn_turn(plan: &Plan, folder: &Path, round: usize, cells: &mut Vec<Cell>) -> anyhow::Result<()> {
    say(&format!("round {} of {}: cairn", round + 1, plan.rounds))?;
    let cairn = Cairn::start(&plan.cairn, folder).await?;
    let routed: Arc<dyn Target> = Arc::new(cairn.routed());
    let unary: Arc<dyn Target> = Arc::new(cairn.unary().await?);
    load_all(plan, round, &[(Way::CairnUnary, unary), (Way::CairnRouter, routed)], cells).await?;
    cairn.stop().await;
    Ok(())
}

async fn load_all(plan: &Plan, round: usize, targets: &[(Way, Arc<dyn Target>)], cells: &mut Vec<Cell>) -> anyhow::Result<()> {
    for (_, target) in targets.iter().take(1) {
        load::fill(target).await?;
    }
    for clients in CLIENTS {
        for verb in [Verb::Put, Verb::Get] {
            for (way, target) in targets {
                let measured = load::run(target, verb, clients, plan.warm_up, plan.measure).await?;
                cells.push(Cell { round, way: *way, verb, clients, measured });
            }
        }
    }
    Ok(())
}

/// Progress goes to standard error; standard output is the report.
fn say(what: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stderr(), "bench: {what}")?)
}
