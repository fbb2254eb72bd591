//! What the doors to file bytes and the content store tell of themselves.

use crate::content::{ContentStore, Counters};
use http::{Method, StatusCode};
use metadb_telemetry::{Counter, Histogram, Metric, Samples, Unit};
use std::sync::LazyLock;
use std::time::Duration;

static S3_REQUESTS: Metric = Metric::new_counter(
    "cairn_s3_requests_total",
    Unit::Count,
    &["method", "class"],
    "S3 requests by method and class of status: 2xx to 5xx.",
);
static S3_SECONDS: Metric = Metric::new_histogram(
    "cairn_s3_request_seconds",
    Unit::Seconds,
    &["method"],
    "Time from the head of an S3 request to the head of its answer; with the body of a put, without that of a get.",
);
static WRITTEN: Metric =
    Metric::new_counter("cairn_content_written_total", Unit::Count, &[], "Contents acknowledged to their writers by this node.");
static WRITTEN_BYTES: Metric = Metric::new_counter("cairn_content_written_bytes_total", Unit::Bytes, &[], "Bytes of those contents.");
static WRITES_FAILED: Metric = Metric::new_counter(
    "cairn_content_writes_failed_total",
    Unit::Count,
    &[],
    "Contents that did not reach enough durable copies, or whose writer gave up.",
);
static READS: Metric = Metric::new_counter("cairn_content_reads_total", Unit::Count, &[], "Contents opened for reading.");
static FAILOVERS: Metric =
    Metric::new_counter("cairn_content_failovers_total", Unit::Count, &[], "Copies given up in favour of another one while being read.");
static CORRUPT: Metric =
    Metric::new_counter("cairn_content_corrupt_copies_total", Unit::Count, &[], "Own copies that did not match their checksums.");
static MISSING: Metric =
    Metric::new_counter("cairn_content_missing_copies_total", Unit::Count, &[], "Own copies that should have been there and were not.");
static REPAIRED: Metric =
    Metric::new_counter("cairn_content_repaired_copies_total", Unit::Count, &[], "Own copies written again from another node's.");
static REPAIRS_FAILED: Metric =
    Metric::new_counter("cairn_content_repairs_failed_total", Unit::Count, &[], "Repairs that failed, to be tried again when next found.");
static DEBTS: Metric =
    Metric::new_gauge("cairn_content_debts", Unit::Count, &[], "Contents with fewer copies than they should have, known to this node.");
static DEBTS_MADE: Metric =
    Metric::new_counter("cairn_content_debts_made_total", Unit::Count, &[], "Contents acknowledged with a copy owed.");
static DEBTS_PAID: Metric = Metric::new_counter("cairn_content_debts_paid_total", Unit::Count, &[], "Owed copies that were made.");
static SET_ASIDE: Metric = Metric::new_counter("cairn_content_set_aside_total", Unit::Count, &[], "Bad files moved to the folder `aside`.");
static COLLECTED: Metric =
    Metric::new_counter("cairn_content_collected_total", Unit::Count, &[], "Contents without a name whose copies are all gone.");
static COLLECTED_BYTES: Metric = Metric::new_counter("cairn_content_collected_bytes_total", Unit::Bytes, &[], "Bytes of those.");
static REMOVED: Metric =
    Metric::new_counter("cairn_content_copies_removed_total", Unit::Count, &[], "Copies removed because nothing names their content.");
static REMOVALS_FAILED: Metric = Metric::new_counter(
    "cairn_content_removals_failed_total",
    Unit::Count,
    &[],
    "Copies that could not be removed then, to be tried again.",
);
static ORPHANS: Metric =
    Metric::new_counter("cairn_content_orphans_removed_total", Unit::Count, &[], "Own files removed that no row knew.");

/// Everything that this crate counts.
pub static ALL: &[&Metric] = &[
    &S3_REQUESTS,
    &S3_SECONDS,
    &WRITTEN,
    &WRITTEN_BYTES,
    &WRITES_FAILED,
    &READS,
    &FAILOVERS,
    &CORRUPT,
    &MISSING,
    &REPAIRED,
    &REPAIRS_FAILED,
    &DEBTS,
    &DEBTS_MADE,
    &DEBTS_PAID,
    &SET_ASIDE,
    &COLLECTED,
    &COLLECTED_BYTES,
    &REMOVED,
    &REMOVALS_FAILED,
    &ORPHANS,
];

/// The methods that S3 knows, as labels have them; the last stands for all others.
const METHODS: [&str; 6] = ["GET", "HEAD", "PUT", "POST", "DELETE", "other"];
/// The classes of status.
const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

struct Handles {
    requests: [[Counter; CLASSES.len()]; METHODS.len()],
    seconds: [Histogram; METHODS.len()],
}

static HANDLES: LazyLock<Handles> = LazyLock::new(|| Handles {
    requests: METHODS.map(|method| CLASSES.map(|class| S3_REQUESTS.counter(&[method, class]))),
    seconds: METHODS.map(|method| S3_SECONDS.histogram(&[method])),
});

/// Counts an S3 request that was answered.
pub(crate) fn answered_s3(method: &Method, status: StatusCode, took: Duration) {
    let method = METHODS.iter().position(|known| *known == method.as_str()).unwrap_or(METHODS.len() - 1);
    let class = usize::from(status.as_u16() / 100).clamp(2, 5) - 2;
    HANDLES.requests[method][class].increment(1);
    HANDLES.seconds[method].record(took);
}

impl ContentStore {
    /// Tells whoever scrapes what it did and what it owes.
    pub fn observe(&self, samples: &mut Samples) {
        let Counters {
            contents_written,
            bytes_written,
            writes_failed,
            reads,
            failovers,
            corrupt_copies,
            missing_copies,
            repaired_copies,
            repairs_failed,
            debts,
            debts_paid,
            set_aside,
            collected,
            bytes_collected,
            copies_removed,
            removals_failed,
            orphans_removed,
        } = self.counters();
        samples.set(&WRITTEN, contents_written);
        samples.set(&WRITTEN_BYTES, bytes_written);
        samples.set(&WRITES_FAILED, writes_failed);
        samples.set(&READS, reads);
        samples.set(&FAILOVERS, failovers);
        samples.set(&CORRUPT, corrupt_copies);
        samples.set(&MISSING, missing_copies);
        samples.set(&REPAIRED, repaired_copies);
        samples.set(&REPAIRS_FAILED, repairs_failed);
        samples.set(&DEBTS, self.debts());
        samples.set(&DEBTS_MADE, debts);
        samples.set(&DEBTS_PAID, debts_paid);
        samples.set(&SET_ASIDE, set_aside);
        samples.set(&COLLECTED, collected);
        samples.set(&COLLECTED_BYTES, bytes_collected);
        samples.set(&REMOVED, copies_removed);
        samples.set(&REMOVALS_FAILED, removals_failed);
        samples.set(&ORPHANS, orphans_removed);
    }
}
