//! What the process as a whole tells, and the list of everything that a node serves.

use metadb_telemetry::{Metric, Unit};

/// The binary.
pub(super) static BUILD: Metric =
    Metric::new_gauge("cairn_build_info", Unit::Flag, &["version", "node"], "Which build runs as which node; always 1.");
/// Since when.
pub(super) static PROCESS_STARTED: Metric =
    Metric::new_gauge("cairn_process_start_time_seconds", Unit::Seconds, &[], "When the process started, since the Unix epoch.");
pub(super) static PROCESS_CPU: Metric =
    Metric::new_counter("cairn_process_cpu_seconds_total", Unit::Seconds, &[], "CPU time that the process used, in user and system mode.");
pub(super) static PROCESS_RSS: Metric =
    Metric::new_gauge("cairn_process_resident_memory_bytes", Unit::Bytes, &[], "Memory of the process that is in RAM.");
pub(super) static PROCESS_THREADS: Metric = Metric::new_gauge("cairn_process_threads", Unit::Count, &[], "Threads of the process.");
pub(super) static PROCESS_FDS: Metric =
    Metric::new_gauge("cairn_process_open_fds", Unit::Count, &[], "Files and sockets that the process has open.");
pub(super) static PROCESS_FDS_LIMIT: Metric =
    Metric::new_gauge("cairn_process_max_fds", Unit::Count, &[], "Files and sockets that the process may have open.");
pub(super) static RUNTIME_WORKERS: Metric =
    Metric::new_gauge("cairn_runtime_workers", Unit::Count, &[], "Threads that run the tasks of the process.");
pub(super) static RUNTIME_TASKS: Metric = Metric::new_gauge("cairn_runtime_tasks", Unit::Count, &[], "Tasks that are alive.");
pub(super) static RUNTIME_QUEUE: Metric =
    Metric::new_gauge("cairn_runtime_queue_depth", Unit::Count, &[], "Tasks that are ready and wait in the shared queue for a thread.");
pub(super) static RUNTIME_BUSY: Metric =
    Metric::new_counter("cairn_runtime_busy_seconds_total", Unit::Seconds, &[], "Time that the threads spent in tasks, of all together.");
pub(super) static SPANS_SENT: Metric =
    Metric::new_counter("cairn_trace_spans_sent_total", Unit::Count, &[], "Spans of sampled requests that the collector took.");
pub(super) static SPANS_DROPPED: Metric = Metric::new_counter(
    "cairn_trace_spans_dropped_total",
    Unit::Count,
    &[],
    "Spans of sampled requests that were lost: the collector did not answer, or too many waited for it.",
);

static PROCESS: &[&Metric] = &[
    &BUILD,
    &PROCESS_STARTED,
    &PROCESS_CPU,
    &PROCESS_RSS,
    &PROCESS_THREADS,
    &PROCESS_FDS,
    &PROCESS_FDS_LIMIT,
    &RUNTIME_WORKERS,
    &RUNTIME_TASKS,
    &RUNTIME_QUEUE,
    &RUNTIME_BUSY,
    &SPANS_SENT,
    &SPANS_DROPPED,
];

/// The list of each part.
static PARTS: &[(&str, &[&Metric])] = &[
    ("process", PROCESS),
    ("storage", metadb_engine::metrics::ALL),
    ("groups and requests", metadb::metrics::ALL),
    ("router", shard_router::metrics::ALL),
    ("namespaces", fs_layer::metrics::ALL),
    ("contents and S3", object_gateway::metrics::ALL),
];

/// Everything that a node may serve, part by part.
pub(crate) fn all() -> impl Iterator<Item = (&'static str, &'static Metric)> {
    PARTS.iter().flat_map(|(part, metrics)| metrics.iter().map(move |metric| (*part, *metric)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use metadb_telemetry::Kind;
    use std::collections::BTreeSet;

    #[test]
    fn every_metric_is_declared_once_and_by_the_rules() {
        let mut names = BTreeSet::new();
        for (part, metric) in all() {
            metric.check().unwrap_or_else(|problem| panic!("{part}: {problem}"));
            assert!(names.insert(metric.name), "{} is declared twice", metric.name);
        }
    }

    fn kind(metric: &Metric) -> &'static str {
        match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }

    #[test]
    fn the_operators_page_lists_every_metric_as_it_is_declared() {
        let row = |(part, metric): (&str, &Metric)| {
            let unit = format!("{:?}", metric.unit).to_lowercase();
            format!("| `{}` | {part} | {} | {unit} | {} | {} |\n", metric.name, kind(metric), metric.labels.join(", "), metric.help)
        };
        let rows: String = all().map(row).collect();
        let table = format!("| metric | of | kind | unit | labels | tells |\n| --- | --- | --- | --- | --- | --- |\n{rows}");
        let page = include_str!("../../docs/operations.md");
        let told = page.split("<!-- metrics: held to the code by a test -->\n").nth(1).and_then(|rest| rest.split("<!-- end").next());
        assert!(told == Some(&*table), "put this table between the marks of docs/operations.md:\n{table}");
    }
}
