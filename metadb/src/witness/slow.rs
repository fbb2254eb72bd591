//! The slow-request log: one line for a request that took longer than a threshold, at a bounded rate.

use super::{Course, Shape};
use metadb_proto::Error;
use metadb_proto::kv::response;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Most lines in a second: a node in trouble is slow for everybody, and a log that floods the disk makes it worse.
const LINES_PER_SECOND: u64 = 10;

/// Which requests are told of.
pub(crate) struct SlowLog {
    threshold: Duration,
    born: Instant,
    /// The second that lines are counted in, since `born`, and how many it had; and how many were not told since the last line.
    second: AtomicU64,
    lines: AtomicU64,
    untold: AtomicU64,
}

impl SlowLog {
    /// Tells of requests that take longer; of none, if that is zero.
    pub(crate) fn new(threshold: Duration) -> Self {
        SlowLog { threshold, born: Instant::now(), second: AtomicU64::new(0), lines: AtomicU64::new(0), untold: AtomicU64::new(0) }
    }

    /// Whether a request that took so long is one.
    pub(crate) fn is_slow(&self, took: Duration) -> bool {
        !self.threshold.is_zero() && took > self.threshold
    }

    /// How many lines were left out before this one; none: it is left out too.
    fn admit(&self, second: u64) -> Option<u64> {
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.lines.store(0, Ordering::Relaxed);
        }
        if self.lines.fetch_add(1, Ordering::Relaxed) < LINES_PER_SECOND {
            return Some(self.untold.swap(0, Ordering::Relaxed));
        }
        self.untold.fetch_add(1, Ordering::Relaxed);
        None
    }

    pub(super) fn tell(&self, shape: &Shape, course: &Course, took: Duration, result: &Result<response::Body, Error>) {
        let Some(untold) = self.admit(self.born.elapsed().as_secs()) else { return };
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let outcome = result.as_ref().err().map_or("ok", |error| error.kind().as_str_name());
        tracing::warn!(
            target: "metadb::slow",
            tenant = shape.tenant_id,
            request_id = %hex::encode(&shape.request_id),
            group = shape.group_id,
            fingerprint = %shape.fingerprint(),
            outcome,
            took_ms = ms(took),
            queue_ms = ms(course.queue),
            commit_ms = ms(course.commit),
            apply_ms = ms(course.apply),
            barrier_ms = ms(course.barrier),
            untold,
            "slow request"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_what_was_left_out_is_counted() {
        let log = SlowLog::new(Duration::from_millis(500));
        assert!(log.is_slow(Duration::from_millis(501)) && !log.is_slow(Duration::from_millis(500)));
        assert!(!SlowLog::new(Duration::ZERO).is_slow(Duration::from_secs(60)), "zero is off");
        let told = (0..100).filter(|_| log.admit(7).is_some()).count();
        assert_eq!(told as u64, LINES_PER_SECOND);
        assert_eq!(log.admit(8), Some(100 - LINES_PER_SECOND));
        assert_eq!(log.admit(8), Some(0));
    }
}
