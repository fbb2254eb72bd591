//! A bucket of tokens: bytes that may pass now. It fills at a steady rate up to a second's worth; who wants more than there is waits.

use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// Bounds bytes a second, for all who share it.
#[derive(Debug)]
pub(crate) struct Throttle {
    bytes_per_s: u64,
    bucket: Mutex<Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Bytes that may pass; negative: promised to those who wait already.
    tokens: i128,
    filled: Instant,
}

impl Bucket {
    /// Takes bytes out; how long to wait for them.
    fn take(&mut self, bytes: u64, now: Instant, bytes_per_s: u64) -> Duration {
        let passed = now.saturating_duration_since(self.filled).as_nanos();
        let rate = i128::from(bytes_per_s.max(1));
        let gained = i128::try_from(passed).unwrap_or(i128::MAX / rate) * rate / 1_000_000_000;
        self.tokens = (self.tokens + gained).min(rate) - i128::from(bytes);
        self.filled = now;
        if self.tokens >= 0 {
            return Duration::ZERO;
        }
        Duration::from_nanos(u64::try_from(-self.tokens * 1_000_000_000 / rate).unwrap_or(u64::MAX))
    }
}

impl Throttle {
    /// So many bytes a second.
    pub(crate) fn new(bytes_per_s: u64) -> Self {
        let bucket = Bucket { tokens: i128::from(bytes_per_s / 8), filled: Instant::now() };
        Throttle { bytes_per_s, bucket: Mutex::new(bucket) }
    }

    /// Waits until so many bytes may pass. First come, first served.
    pub(crate) async fn take(&self, bytes: u64) {
        let pause = self.bucket.lock().take(bytes, Instant::now(), self.bytes_per_s);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}

#[cfg(all(test, not(madsim)))]
mod tests {
    use super::*;
    use proptest::prelude::{ProptestConfig, any, proptest};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever is asked when, what has passed by a moment is at most the rate times the time, and one second's worth.
        #[test]
        fn never_lets_more_pass_than_its_rate(rate in 1..1_000_000_u64, asked in proptest::collection::vec((0..100_000_u64, any::<u16>()), 1..50)) {
            let start = Instant::now();
            let mut bucket = Bucket { tokens: 0, filled: start };
            let mut now = start;
            let mut passed = 0_u128;
            for (bytes, pause) in asked {
                now += Duration::from_micros(pause.into());
                let wait = bucket.take(bytes, now, rate);
                now += wait;
                passed += u128::from(bytes);
                let most = (now - start).as_nanos() * u128::from(rate) / 1_000_000_000 + u128::from(rate) + 2;
                assert!(passed <= most, "{passed} of {most}");
            }
        }
    }
}
