//! What the system says of this process, and the runtime of itself; read at each scrape.

use super::metrics::{
    PROCESS_CPU, PROCESS_FDS, PROCESS_FDS_LIMIT, PROCESS_RSS, PROCESS_STARTED, PROCESS_THREADS, RUNTIME_BUSY, RUNTIME_QUEUE, RUNTIME_TASKS,
    RUNTIME_WORKERS,
};
use metadb_telemetry::Samples;
use std::fs;
use std::time::Duration;

/// In what the system counts CPU time for processes, on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// Tells of the process. What the system does not tell is left out.
pub(super) fn read(samples: &mut Samples) {
    runtime(samples);
    let text = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let stat = text("/proc/self/stat");
    if let Some((cpu, started)) = cpu_and_start(&stat) {
        samples.set(&PROCESS_CPU, cpu);
        if let Some(booted) = field(&text("/proc/stat"), "btime") {
            samples.set(&PROCESS_STARTED, booted as f64 + started);
        }
    }
    let status = text("/proc/self/status");
    if let Some(kib) = field(&status, "VmRSS:") {
        samples.set(&PROCESS_RSS, kib << 10);
    }
    if let Some(threads) = field(&status, "Threads:") {
        samples.set(&PROCESS_THREADS, threads);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // One of them is the folder that is being read.
        samples.set(&PROCESS_FDS, open.count().saturating_sub(1));
    }
    if let Some(most) = field(&text("/proc/self/limits"), "Max open files") {
        samples.set(&PROCESS_FDS_LIMIT, most);
    }
}

/// The two numbers that a status tells.
#[expect(clippy::cast_possible_truncation, reason = "milliseconds of CPU: casts of floats saturate")]
pub(super) fn usage() -> metadb::node::Usage {
    let text = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let cpu = cpu_and_start(&text("/proc/self/stat")).map_or(0.0, |(cpu, _)| cpu);
    let resident = field(&text("/proc/self/status"), "VmRSS:").unwrap_or(0);
    metadb::node::Usage { resident_bytes: resident << 10, cpu_ms: (cpu * 1000.0) as u64 }
}

/// Seconds of CPU used, and seconds from boot to start: fields 14, 15 and 22, counted behind the name, which may hold anything.
fn cpu_and_start(stat: &str) -> Option<(f64, f64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let ticks = |field: usize| rest.split_whitespace().nth(field - 3)?.parse::<u64>().ok();
    Some(((ticks(14)? + ticks(15)?) as f64 / TICKS_PER_SECOND, ticks(22)? as f64 / TICKS_PER_SECOND))
}

/// The first number behind a name at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn runtime(samples: &mut Samples) {
    let Ok(handle) = tokio::runtime::Handle::try_current() else { return };
    let metrics = handle.metrics();
    let busy: Duration = (0..metrics.num_workers()).map(|worker| metrics.worker_total_busy_duration(worker)).sum();
    samples.set(&RUNTIME_WORKERS, metrics.num_workers());
    samples.set(&RUNTIME_TASKS, metrics.num_alive_tasks());
    samples.set(&RUNTIME_QUEUE, metrics.global_queue_depth());
    samples.set(&RUNTIME_BUSY, busy);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_hides_no_field() {
        let stat = "42 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 9 0 1234 0 0";
        assert_eq!(cpu_and_start(stat), Some((3.0, 12.34)));
        assert_eq!(field("Max open files            1024                 4096 files", "Max open files"), Some(1024));
        assert_eq!((field("VmRSS:\t 12 kB", "VmRSS:"), field("", "VmRSS:")), (Some(12), None));
    }

    #[tokio::test]
    async fn a_process_has_memory_files_and_tasks() {
        let mut samples = Samples::default();
        read(&mut samples);
        let samples = samples.sorted();
        for metric in [&PROCESS_RSS, &PROCESS_FDS, &PROCESS_STARTED, &RUNTIME_WORKERS] {
            let found = samples.iter().find(|sample| sample.metric == metric);
            assert!(found.is_some_and(|sample| sample.value > 0.0), "{metric:?}: {found:?}");
        }
    }
}
