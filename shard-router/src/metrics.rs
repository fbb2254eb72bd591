//! What a router tells of itself.

use crate::counters::Counters;
use metadb_proto::Error;
use metadb_proto::kv::request;
use metadb_proto::v1::ErrorKind;
use metadb_proto::v1::shard_change_record::Kind;
use metadb_telemetry::{Counter, Gauge, Histogram, Metric, Samples, Unit};
use std::sync::LazyLock;
use std::time::Duration;

static REQUESTS: Metric = Metric::new_counter(
    "cairn_router_requests_total",
    Unit::Count,
    &["verb", "outcome"],
    "Requests of this process's callers, by how they ended after all attempts.",
);
static REQUEST_SECONDS: Metric = Metric::new_histogram(
    "cairn_router_request_seconds",
    Unit::Seconds,
    &["verb"],
    "Time from a caller's request to its answer, all attempts and pauses included.",
);
static RETRIES: Metric = Metric::new_counter("cairn_router_retries_total", Unit::Count, &[], "Attempts after the first of a request.");
static REDIRECTS: Metric = Metric::new_counter("cairn_router_redirects_total", Unit::Count, &[], "Answers that named another node.");
static REFRESHES: Metric =
    Metric::new_counter("cairn_router_refreshes_total", Unit::Count, &[], "Loads of a tenant's routes from the directory.");
static DISCOVERIES: Metric =
    Metric::new_counter("cairn_router_discoveries_total", Unit::Count, &[], "Searches for the leader of the directory.");
static TIMEOUTS: Metric =
    Metric::new_counter("cairn_router_timeouts_total", Unit::Count, &[], "Attempts that ended without an answer in time.");
static UNKNOWN: Metric =
    Metric::new_counter("cairn_router_unknown_outcomes_total", Unit::Count, &[], "Requests of which nobody knows whether they were done.");
static FRAMES: Metric = Metric::new_counter("cairn_router_frames_total", Unit::Count, &[], "Frames of requests sent to nodes.");
static FRAMED: Metric = Metric::new_counter("cairn_router_framed_requests_total", Unit::Count, &[], "Requests in those frames.");
static CONNECTS: Metric = Metric::new_counter("cairn_router_connects_total", Unit::Count, &[], "Connections to nodes that were opened.");
static CONFLICTS: Metric =
    Metric::new_counter("cairn_router_conflicts_total", Unit::Count, &[], "Transactions that lost against another one and began again.");

static SHARD_CHANGES: Metric = Metric::new_gauge(
    "cairn_shard_changes",
    Unit::Count,
    &["state"],
    "Splits, merges and moves of shards that are not done, as the node that leads the directory sees them: running, paused, and in_trouble, whose last attempt failed.",
);
static SHARD_CHANGES_ENDED: Metric = Metric::new_counter(
    "cairn_shard_changes_ended_total",
    Unit::Count,
    &["kind", "outcome"],
    "Changes of shards that this node's mover ended.",
);
static SHARD_MOVE_PAUSE: Metric = Metric::new_histogram(
    "cairn_shard_move_pause_seconds",
    Unit::Seconds,
    &[],
    "For how long a shard was neither read nor written while it moved.",
);
static SHARD_COPIED: Metric = Metric::new_counter(
    "cairn_shard_copied_bytes_total",
    Unit::Bytes,
    &[],
    "Bytes of rows that moves of shards brought from one group to another.",
);

/// Everything that this crate counts.
pub static ALL: &[&Metric] = &[
    &REQUESTS,
    &REQUEST_SECONDS,
    &RETRIES,
    &REDIRECTS,
    &REFRESHES,
    &DISCOVERIES,
    &TIMEOUTS,
    &UNKNOWN,
    &FRAMES,
    &FRAMED,
    &CONNECTS,
    &CONFLICTS,
    &SHARD_CHANGES,
    &SHARD_CHANGES_ENDED,
    &SHARD_MOVE_PAUSE,
    &SHARD_COPIED,
];

/// The kinds of requests, as labels have them.
pub(crate) const VERBS: [&str; 5] = ["get", "multi_get", "scan", "walk", "transact"];
/// How requests end: well, or with an error of this number.
const OUTCOMES: [&str; 14] = [
    "ok",
    "conflict",
    "moved",
    "unavailable",
    "exhausted",
    "unknown_outcome",
    "invalid",
    "not_found",
    "already_exists",
    "denied",
    "unauthenticated",
    "corrupt",
    "internal",
    "suspended",
];

const _: () = assert!(ErrorKind::Internal as usize + 2 == OUTCOMES.len(), "every kind of error has its word, the last that of Suspended");

/// The place of a scan among them.
pub(crate) const SCAN: usize = 2;

/// The place of a request among them.
pub(crate) fn verb(body: &request::Body) -> usize {
    match body {
        request::Body::Get(_) => 0,
        request::Body::MultiGet(_) => 1,
        request::Body::Scan(_) => SCAN,
        request::Body::Walk(_) => 3,
        request::Body::Transact(_) => 4,
    }
}

struct Handles {
    requests: [[Counter; OUTCOMES.len()]; VERBS.len()],
    seconds: [Histogram; VERBS.len()],
}

static HANDLES: LazyLock<Handles> = LazyLock::new(|| Handles {
    requests: VERBS.map(|verb| OUTCOMES.map(|outcome| REQUESTS.counter(&[verb, outcome]))),
    seconds: VERBS.map(|verb| REQUEST_SECONDS.histogram(&[verb])),
});

/// Changes of shards: their kinds and outcomes, as labels have them.
const KINDS: [&str; 3] = ["split", "merge", "move"];
const ENDS: [&str; 2] = ["done", "cancelled"];

/// What the mover counts with.
struct MoverHandles {
    running: Gauge,
    paused: Gauge,
    in_trouble: Gauge,
    ended: [[Counter; ENDS.len()]; KINDS.len()],
    pause: Histogram,
    copied: Counter,
}

static MOVER: LazyLock<MoverHandles> = LazyLock::new(|| MoverHandles {
    running: SHARD_CHANGES.gauge(&["running"]),
    paused: SHARD_CHANGES.gauge(&["paused"]),
    in_trouble: SHARD_CHANGES.gauge(&["in_trouble"]),
    ended: KINDS.map(|kind| ENDS.map(|end| SHARD_CHANGES_ENDED.counter(&[kind, end]))),
    pause: SHARD_MOVE_PAUSE.histogram(&[]),
    copied: SHARD_COPIED.counter(&[]),
});

/// Tells how many changes there are; also that there are none.
pub(crate) fn shard_changes(running: usize, paused: usize, in_trouble: usize) {
    MOVER.running.set(running as f64);
    MOVER.paused.set(paused as f64);
    MOVER.in_trouble.set(in_trouble as f64);
}

/// Counts bytes that were brought.
pub(crate) fn shard_copied(bytes: u64) {
    MOVER.copied.increment(bytes);
}

/// Counts a change that ended; `pause`: of a move that stood still.
pub(crate) fn shard_change_ended(kind: Kind, is_done: bool, pause: Option<Duration>) {
    let kind = match kind {
        Kind::Split => 0,
        Kind::Merge => 1,
        Kind::Move | Kind::Unspecified => 2,
    };
    MOVER.ended[kind][usize::from(!is_done)].increment(1);
    if let Some(pause) = pause {
        MOVER.pause.record(pause);
    }
}

/// Counts a request that is over.
pub(crate) fn answered<T>(verb: usize, took: Duration, result: &Result<T, Error>) {
    let outcome = result.as_ref().err().map_or(0, |error| (error.kind() as usize).min(OUTCOMES.len() - 1));
    HANDLES.requests[verb][outcome].increment(1);
    HANDLES.seconds[verb].record(took);
}

impl Counters {
    /// Tells whoever scrapes.
    pub fn observe(&self, samples: &mut Samples) {
        samples.set(&RETRIES, self.retries);
        samples.set(&REDIRECTS, self.redirects);
        samples.set(&REFRESHES, self.refreshes);
        samples.set(&DISCOVERIES, self.discoveries);
        samples.set(&TIMEOUTS, self.timeouts);
        samples.set(&UNKNOWN, self.unknown_outcomes);
        samples.set(&FRAMES, self.frames);
        samples.set(&FRAMED, self.framed_requests);
        samples.set(&CONNECTS, self.connects);
        samples.set(&CONFLICTS, self.conflicts);
    }
}
