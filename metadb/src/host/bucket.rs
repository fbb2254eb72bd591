//! A ceiling on a rate: a token bucket, without a clock of its own.
//!
//! It may be overdrawn: who comes when it is empty is told how long to wait for its turn, and its turn is kept. So requests that wait go
//! in the order in which they came, and the rate holds however large single requests are.

use std::time::Duration;

/// How much of a rate may be taken at once after a quiet time.
const BURST: Duration = Duration::from_millis(250);

/// A bucket. Time is counted from any fixed moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Bucket {
    /// When everything that was taken so far is paid for.
    paid_at: Duration,
}

impl Bucket {
    /// Takes an amount at a rate per second; gives how long to wait for it. If that were longer than `patience`, nothing is taken.
    ///
    /// # Errors
    /// How long to wait before asking again.
    pub(crate) fn take(&mut self, now: Duration, amount: u64, per_second: u64, patience: Duration) -> Result<Duration, Duration> {
        let paid_at = self.paid_at.max(now.saturating_sub(BURST));
        let wait = paid_at.saturating_sub(now);
        if wait > patience {
            return Err(wait - patience);
        }
        let nanos = u128::from(amount) * 1_000_000_000 / u128::from(per_second.max(1));
        self.paid_at = paid_at + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX / 4));
        Ok(wait)
    }

    /// Gives back what was taken and not used.
    pub(crate) fn give_back(&mut self, amount: u64, per_second: u64) {
        let nanos = u128::from(amount) * 1_000_000_000 / u128::from(per_second.max(1));
        self.paid_at = self.paid_at.saturating_sub(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX / 4)));
    }

    /// Whether it is as if nothing had ever been taken.
    pub(crate) fn is_full(&self, now: Duration) -> bool {
        self.paid_at + BURST <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_quiet_bucket_gives_a_burst_and_then_its_rate() {
        let mut bucket = Bucket::default();
        let now = Duration::from_secs(10);
        assert!(bucket.is_full(now));
        // 100 per second: 25 at once, then one each 10 ms.
        let waits: Vec<_> = (0..30).map(|_| bucket.take(now, 1, 100, Duration::from_secs(1)).expect("patient")).collect();
        assert!(waits[..26].iter().all(Duration::is_zero) && !bucket.is_full(now), "{waits:?}");
        assert_eq!(waits[29], Duration::from_millis(40));
        assert_eq!(bucket.take(now, 1, 100, Duration::from_millis(20)), Err(Duration::from_millis(30)));
        bucket.give_back(1, 100);
        assert_eq!(bucket.take(now, 1, 100, Duration::from_secs(1)), Ok(Duration::from_millis(40)));
    }

    proptest! {
        /// However it is asked, what may go in any time is the rate times that time, and one burst and one request more.
        #[test]
        fn a_rate_holds(asks in proptest::collection::vec((0_u64..50, 1_u64..200), 1..200), rate in 1_u64..1000) {
            let mut bucket = Bucket::default();
            let mut now = Duration::from_secs(100);
            let mut went: Vec<(Duration, u64)> = Vec::new();
            for (pause_ms, amount) in asks {
                now += Duration::from_millis(pause_ms);
                if let Ok(wait) = bucket.take(now, amount, rate, Duration::from_millis(300)) {
                    prop_assert!(wait <= Duration::from_millis(300));
                    went.push((now + wait, amount));
                }
            }
            prop_assert!(went.windows(2).all(|pair| pair[0].0 <= pair[1].0), "in order");
            for (from, (begin, _)) in went.iter().enumerate() {
                for (end, _) in &went[from..] {
                    let sum: u64 = went.iter().filter(|(at, _)| at >= begin && at <= end).map(|(_, amount)| amount).sum();
                    let last = went.iter().filter(|(at, _)| at == end).map(|(_, amount)| *amount).max().unwrap_or(0);
                    let most = (*end - *begin + BURST).as_secs_f64() * rate as f64 + last as f64 + 1.0;
                    prop_assert!(sum as f64 <= most + last as f64, "{sum} within {:?}, at most {most}", *end - *begin);
                }
            }
        }
    }
}
