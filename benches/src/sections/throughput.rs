//! Puts, gets and scans, and the latency at half of the peak: rounds in which each system is started with fresh data, filled, loaded and
//! stopped, one after the other, so that whatever else happens on the machine meets all of them.

use super::{fresh, say};
use crate::load::{self, Closed, Measured, Open, closed, open};
use crate::plan::{CLIENTS, MANY, MARIADB_CLIENTS, Plan, SCAN_CLIENTS, Section, Verb, Way};
use crate::report::Report;
use crate::systems::cairn::Cairn;
use crate::systems::etcd::Etcd;
use crate::systems::mariadb::Installed;
use crate::target::Target;
use serde::Serialize;
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
    /// How many clients; 0: at a fixed rate.
    pub clients: usize,
    /// What it measured.
    pub measured: Measured,
}

/// All that was measured.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Results {
    /// Every cell of every round.
    pub cells: Vec<Cell>,
    /// Peers that did not work, and why.
    pub problems: Vec<String>,
}

/// A system's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Etcd,
    Mariadb,
    Cairn,
}

/// Measures what the plan has of it. `echo`: unary calls per second that do nothing, at most clients.
///
/// # Errors
/// If Cairn can't be started or asked. A peer that can't is left out, and the report says why.
pub async fn run(plan: &Plan, data: &Path, echo: Option<f64>) -> anyhow::Result<Report> {
    let mut results = Results::default();
    let peers = data.with_file_name("peers");
    fresh(&peers)?;
    let mariadb = match &plan.mariadb {
        Some(program) if plan.has(Section::Put) => {
            say("making MariaDB's data folder");
            let installed = Installed::new(program, &peers).await;
            installed.map_err(|error| results.problems.push(format!("{error:#}"))).ok()
        }
        _ => None,
    };
    let mut turns = [Turn::Etcd, Turn::Mariadb, Turn::Cairn];
    for round in 0..plan.rounds {
        for turn in turns {
            fresh(data)?;
            let mut bench = Bench { plan, round, results: &mut results };
            let done = match (turn, &plan.etcd, &mariadb) {
                (Turn::Etcd, Some(program), _) => bench.etcd(program, data).await,
                (Turn::Mariadb, _, Some(installed)) => bench.mariadb(installed).await,
                (Turn::Cairn, ..) => {
                    bench.cairn(data).await?;
                    Ok(())
                }
                _ => Ok(()),
            };
            if let Err(error) = done {
                say(&format!("left out: {error:#}"));
                results.problems.push(format!("{error:#}"));
            }
        }
        // Who comes first changes from round to round.
        turns.rotate_left(1);
    }
    fresh(&peers)?;
    super::verdicts::report(plan, &results, echo)
}

/// What a turn works with.
struct Bench<'a> {
    plan: &'a Plan,
    round: usize,
    results: &'a mut Results,
}

impl Bench<'_> {
    fn say(&self, who: &str) {
        say(&format!("round {} of {}: {who}", self.round + 1, self.plan.rounds));
    }

    async fn etcd(&mut self, program: &Path, data: &Path) -> anyhow::Result<()> {
        self.say("etcd");
        let etcd = Etcd::start(program, data).await?;
        let target = Arc::new(etcd.connect().await?);
        let pids = etcd.pids();
        load::fill(&target).await?;
        for (verb, clients) in self.cells() {
            self.cell(Way::Etcd, &target, verb, clients, &pids).await?;
        }
        self.half(Way::Etcd, &target, &pids).await?;
        etcd.stop().await;
        Ok(())
    }

    async fn mariadb(&mut self, installed: &Installed) -> anyhow::Result<()> {
        self.say("MariaDB");
        let mariadb = installed.start().await?;
        let pids = mariadb.pids();
        for clients in MARIADB_CLIENTS {
            mariadb.empty().await?;
            let target = Arc::new(mariadb.connect(clients).await?);
            self.cell(Way::Mariadb, &target, Verb::Put, clients, &pids).await?;
        }
        mariadb.stop().await;
        Ok(())
    }

    async fn cairn(&mut self, data: &Path) -> anyhow::Result<()> {
        self.say("Cairn");
        let cairn = Cairn::start(&self.plan.cairn, data, 3).await?;
        let (router, unary) = (Arc::new(cairn.routed()), Arc::new(cairn.unary().await?));
        let pids = cairn.pids();
        load::fill(&router).await?;
        for (verb, clients) in self.cells() {
            self.cell(Way::CairnUnary, &unary, verb, clients, &pids).await?;
            self.cell(Way::CairnRouter, &router, verb, clients, &pids).await?;
        }
        self.half(Way::CairnUnary, &unary, &pids).await?;
        self.half(Way::CairnRouter, &router, &pids).await?;
        cairn.stop().await;
        Ok(())
    }

    /// What is measured, in order.
    fn cells(&self) -> Vec<(Verb, usize)> {
        let each = |section, verb, clients: &[usize]| {
            let clients = if self.plan.has(section) { clients.to_vec() } else { Vec::new() };
            clients.into_iter().map(move |clients| (verb, clients))
        };
        let puts = each(Section::Put, Verb::Put, &CLIENTS);
        puts.chain(each(Section::Get, Verb::Get, &CLIENTS)).chain(each(Section::Scan, Verb::Scan, &SCAN_CLIENTS)).collect()
    }

    async fn cell<T: Target>(&mut self, way: Way, target: &Arc<T>, verb: Verb, clients: usize, pids: &[u32]) -> anyhow::Result<()> {
        let load = Closed { verb, clients, warm_up: self.plan.warm_up, measure: self.plan.measure };
        let measured = closed(target, &load, pids).await?;
        self.results.cells.push(Cell { round: self.round, way, verb, clients, measured });
        Ok(())
    }

    /// Half of the most that this system did in this round; found now, if puts are not measured.
    async fn half<T: Target>(&mut self, way: Way, target: &Arc<T>, pids: &[u32]) -> anyhow::Result<()> {
        if !self.plan.has(Section::Half) {
            return Ok(());
        }
        let round = self.round;
        let puts = |cell: &&Cell| cell.way == way && cell.verb == Verb::Put && cell.round == round && cell.clients > 0;
        if !self.results.cells.iter().any(|cell| puts(&cell)) {
            self.cell(way, target, Verb::Put, MANY, pids).await?;
        }
        let peak = self.results.cells.iter().filter(puts).map(|cell| cell.measured.per_second).fold(0.0, f64::max);
        let load = Open { verb: Verb::Put, rate: peak / 2.0, warm_up: self.plan.warm_up, measure: self.plan.paced };
        let measured = open(target, &load, pids).await?;
        self.results.cells.push(Cell { round: self.round, way, verb: Verb::Put, clients: 0, measured });
        Ok(())
    }
}
