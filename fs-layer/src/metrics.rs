//! What the namespace tells of itself: every operation that changes something, by how it ended.

use metadb_proto::Error;
use metadb_telemetry::{Counter, Histogram, Metric, Unit};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::Duration;

static OPERATIONS: Metric = Metric::new_counter(
    "cairn_fs_operations_total",
    Unit::Count,
    &["operation", "outcome"],
    "Changes of namespaces by this process, by how they ended: ok, refused (the caller's doing) or failed (ours).",
);
static OPERATION_SECONDS: Metric = Metric::new_histogram(
    "cairn_fs_operation_seconds",
    Unit::Seconds,
    &["operation"],
    "Time of a change of a namespace, all attempts included.",
);
static ATTEMPTS: Metric = Metric::new_counter(
    "cairn_fs_attempts_total",
    Unit::Count,
    &["operation"],
    "Attempts of those changes; more than the changes themselves when they lose against each other.",
);

/// Everything that this crate counts.
pub static ALL: &[&Metric] = &[&OPERATIONS, &OPERATION_SECONDS, &ATTEMPTS];

#[derive(Clone)]
struct Handles {
    ok: Counter,
    refused: Counter,
    failed: Counter,
    seconds: Histogram,
    attempts: Counter,
}

/// By operation: few, and far slower than the look-up.
static HANDLES: Mutex<BTreeMap<&'static str, Handles>> = Mutex::new(BTreeMap::new());

fn handles(operation: &'static str) -> Handles {
    let make = || Handles {
        ok: OPERATIONS.counter(&[operation, "ok"]),
        refused: OPERATIONS.counter(&[operation, "refused"]),
        failed: OPERATIONS.counter(&[operation, "failed"]),
        seconds: OPERATION_SECONDS.histogram(&[operation]),
        attempts: ATTEMPTS.counter(&[operation]),
    };
    HANDLES.lock().entry(operation).or_insert_with(make).clone()
}

/// Counts an attempt.
pub(crate) fn attempted(operation: &'static str) {
    handles(operation).attempts.increment(1);
}

/// Counts an operation that is over.
pub(crate) fn ended<T>(operation: &'static str, took: Duration, result: &Result<T, Error>) {
    let handles = handles(operation);
    let counter = match result {
        Ok(_) => &handles.ok,
        Err(
            Error::Conflict { .. }
            | Error::Invalid { .. }
            | Error::NotFound { .. }
            | Error::AlreadyExists { .. }
            | Error::Denied { .. }
            | Error::Unauthenticated { .. }
            | Error::Suspended { .. },
        ) => &handles.refused,
        Err(
            Error::Moved { .. }
            | Error::Unavailable { .. }
            | Error::Exhausted { .. }
            | Error::UnknownOutcome { .. }
            | Error::Corrupt { .. }
            | Error::Internal { .. },
        ) => &handles.failed,
    };
    counter.increment(1);
    handles.seconds.record(took);
}
