//! The kill matrix: every planted bug, the seed that catches it, and what said so. Printed as a table of Markdown.

use sim_tests::planted::Planted;
use sim_tests::run::{self, Plan};

/// Of what a checker says, so much names it.
const TOLD_CHARS: usize = 90;

/// Plants each bug in seed after seed, from `start` on, until one fails. Says how many bugs none of `seeds` seeds caught.
pub(crate) fn run(out: &mut impl std::io::Write, plan: Plan, start: u64, seeds: u64) -> anyhow::Result<usize> {
    let mut survivors = 0;
    writeln!(out, "| bug | seeds to find | caught by |\n|---|---|---|")?;
    for planted in Planted::all() {
        let plan = Plan { planted: Some(planted), ..plan };
        let reports = (start..start + seeds).map(|seed| run::seed(seed, plan));
        let found = reports.enumerate().find(|(_, report)| !report.violations.is_empty());
        match found {
            Some((n, report)) => {
                let told = report.violations[0].lines().next().unwrap_or_default().replace('|', "/");
                let told: String = told.chars().take(TOLD_CHARS).collect();
                writeln!(out, "| {} | {} | {told} |", planted.name(), n + 1)?;
            }
            None => {
                survivors += 1;
                writeln!(out, "| {} | more than {seeds} | |", planted.name())?;
            }
        }
        out.flush()?;
    }
    writeln!(out, "matrix: bugs={} survivors={survivors} start={start} seeds={seeds}", Planted::all().count())?;
    Ok(survivors)
}
