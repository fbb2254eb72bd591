//! Whether a node is worth asking now: a circuit breaker, without a clock or a socket of its own.
//!
//! It opens when so many requests in a row got no answer (an error that the node told is an answer), and then refuses for a short time,
//! so that callers try another replica at once instead of waiting for one that is dead or stopped. After that time one request is let
//! through as a probe; its answer closes the breaker, its failure opens it for twice as long. Times are jittered, so that processes that
//! lost a node together do not come back together.

use std::time::Duration;

/// Requests in a row without an answer that open it.
const OPENS_AFTER: u32 = 5;
/// How long it stays open at first.
const OPEN_FIRST: Duration = Duration::from_millis(100);
/// How long it stays open at most: a node that is back is asked again within this.
const OPEN_LONGEST: Duration = Duration::from_secs(1);
/// A probe that is not heard of for so long is taken for lost, and another one goes.
const PROBE_WITHIN: Duration = Duration::from_secs(2);

/// The state of one breaker. Time is counted from any fixed moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Breaker {
    /// Requests go; so many in a row failed.
    Closed { failures: u32 },
    /// None goes before this time.
    Open { until: Duration, openings: u32 },
    /// One went at this time, to see.
    Probing { since: Duration, openings: u32 },
}

impl Default for Breaker {
    fn default() -> Self {
        Breaker::Closed { failures: 0 }
    }
}

impl Breaker {
    /// Whether a request may go now.
    ///
    /// # Errors
    /// How long to wait before asking again.
    pub(crate) fn admit(&mut self, now: Duration) -> Result<(), Duration> {
        match *self {
            Breaker::Closed { .. } => Ok(()),
            Breaker::Open { until, .. } if now < until => Err(until - now),
            Breaker::Probing { since, .. } if now < since + PROBE_WITHIN => Err(OPEN_FIRST),
            Breaker::Open { openings, .. } | Breaker::Probing { openings, .. } => {
                *self = Breaker::Probing { since: now, openings };
                Ok(())
            }
        }
    }

    /// The node answered.
    pub(crate) fn answered(&mut self) {
        *self = Breaker::default();
    }

    /// The node did not answer. Gives whether the breaker opened by it.
    pub(crate) fn failed(&mut self, now: Duration, random: u64) -> bool {
        let openings = match *self {
            Breaker::Closed { failures } if failures + 1 < OPENS_AFTER => {
                *self = Breaker::Closed { failures: failures + 1 };
                return false;
            }
            // Requests that went before it opened: they say nothing new.
            Breaker::Open { until, .. } if now < until => return false,
            Breaker::Closed { .. } => 0,
            Breaker::Open { openings, .. } | Breaker::Probing { openings, .. } => openings + 1,
        };
        let most = OPEN_FIRST.saturating_mul(1 << openings.min(16)).min(OPEN_LONGEST);
        let half = most / 2;
        let jitter = Duration::from_micros(random % u64::try_from(half.as_micros()).unwrap_or(u64::MAX).max(1));
        *self = Breaker::Open { until: now + half + jitter, openings };
        true
    }

    /// Whether it is open or probing.
    pub(crate) fn is_open(&self) -> bool {
        !matches!(self, Breaker::Closed { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn opened(random: u64) -> (Breaker, Duration) {
        let mut breaker = Breaker::default();
        let opened: Vec<bool> = (0..OPENS_AFTER).map(|_| breaker.failed(SECOND, random)).collect();
        assert_eq!(opened, [false, false, false, false, true]);
        let wait = breaker.admit(SECOND).expect_err("open");
        (breaker, SECOND + wait)
    }

    #[test]
    fn an_answer_in_between_keeps_it_closed() {
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            (1..OPENS_AFTER).for_each(|_| assert!(!breaker.failed(SECOND, 7)));
            breaker.answered();
        }
        assert_eq!(breaker.admit(SECOND), Ok(()));
    }

    #[test]
    fn one_probe_at_a_time_and_its_answer_closes() {
        let (mut breaker, later) = opened(3);
        assert!(breaker.is_open() && breaker.admit(later - Duration::from_micros(1)).is_err());
        assert_eq!(breaker.admit(later), Ok(()), "the probe");
        assert!(breaker.admit(later).is_err(), "one at a time");
        assert_eq!(breaker.admit(later + PROBE_WITHIN), Ok(()), "a probe that is lost does not close the door for ever");
        breaker.answered();
        assert!(!breaker.is_open() && breaker.admit(later).is_ok());
    }

    #[test]
    fn it_stays_open_longer_each_time_but_never_too_long() {
        for random in [0, 12_345, u64::MAX] {
            let (mut breaker, mut now) = opened(random);
            let mut last = Duration::ZERO;
            for _ in 0..40 {
                assert_eq!(breaker.admit(now), Ok(()));
                assert!(breaker.failed(now, random));
                let wait = breaker.admit(now).expect_err("open again");
                assert!(wait >= last.min(OPEN_LONGEST / 2) && wait <= OPEN_LONGEST, "{wait:?} after {last:?}");
                (last, now) = (wait, now + wait);
            }
        }
    }

    #[test]
    fn stragglers_do_not_prolong_it() {
        let (mut breaker, later) = opened(9);
        (0..1000).for_each(|_| assert!(!breaker.failed(SECOND, 9)));
        assert_eq!(breaker.admit(later), Ok(()));
    }
}
