//! What the kernel tells of processes: processor time, memory, bytes that went to disk.

use anyhow::Context as _;
use std::time::Duration;

/// Length of a tick of `/proc/<pid>/stat` on Linux.
const TICK: Duration = Duration::from_millis(10);

/// Processor time of a process so far, children left out.
///
/// # Errors
/// If there is no such process.
pub fn cpu(pid: u32) -> anyhow::Result<Duration> {
    ticks(&read(pid, "stat")?).with_context(|| format!("can't understand /proc/{pid}/stat")).map(|ticks| TICK * ticks)
}

/// User and system ticks: the 14th and 15th field; the second, in brackets, may hold blanks.
fn ticks(stat: &str) -> Option<u32> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u32>().ok();
    Some(next()? + next()?)
}

/// Memory of a process that is in RAM, in bytes.
///
/// # Errors
/// If there is no such process.
pub fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    number(&read(pid, "status")?, "VmRSS:").map(|kib| kib * 1024).with_context(|| format!("no VmRSS of {pid}"))
}

/// Bytes that a process caused to be written to disk.
///
/// # Errors
/// If there is no such process, or it is another user's.
pub fn written_bytes(pid: u32) -> anyhow::Result<u64> {
    number(&read(pid, "io")?, "write_bytes:").with_context(|| format!("no write_bytes of {pid}"))
}

fn read(pid: u32, file: &str) -> anyhow::Result<String> {
    std::fs::read_to_string(format!("/proc/{pid}/{file}")).with_context(|| format!("process {pid} is gone"))
}

/// The number behind a name at the start of a line.
fn number(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)).and_then(|rest| rest.split_whitespace().next()?.parse().ok())
}

/// Processor time spent in a while.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// By this process.
    pub own: Duration,
    /// By the others that were metered.
    pub others: Duration,
}

/// Measures processor time from its start.
pub struct Meter {
    own: Duration,
    others: Vec<(u32, Duration)>,
}

impl Meter {
    /// Begins, for this process and others. One that is gone counts nothing.
    #[must_use]
    pub fn start(others: &[u32]) -> Self {
        let others = others.iter().filter_map(|pid| Some((*pid, cpu(*pid).ok()?))).collect();
        Meter { own: cpu(std::process::id()).unwrap_or_default(), others }
    }

    /// What was spent since.
    #[must_use]
    pub fn spent(&self) -> Spent {
        let since = |pid: u32, before: Duration| cpu(pid).unwrap_or(before).saturating_sub(before);
        Spent { own: since(std::process::id(), self.own), others: self.others.iter().map(|(pid, before)| since(*pid, *before)).sum() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "12 (a (b) c) S 1 12 12 0 -1 4194304 100 0 0 0 37 5 0 0 20 0 1 0 100 1000 10";
        assert_eq!(ticks(stat), Some(42));
    }

    #[test]
    fn this_process_is_there() {
        assert!(resident_bytes(std::process::id()).expect("it is") > 1 << 20);
        assert!(cpu(u32::MAX).is_err());
    }
}
