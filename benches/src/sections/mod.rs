//! The parts of the report. Each starts its systems with fresh data, measures, and stops them.

pub mod limits;
pub mod throughput;
pub mod verdicts;

use std::io::Write as _;
use std::path::Path;

/// Empties a folder.
pub(crate) fn fresh(folder: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    Ok(std::fs::create_dir_all(folder)?)
}

/// Progress goes to standard error; standard output is the report.
pub(crate) fn say(what: &str) {
    let _ = writeln!(std::io::stderr().lock(), "bench: {what}");
}
