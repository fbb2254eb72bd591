//! How often a process may repeat what was refused for overload: a share of what it asks, so that repeating never becomes the load.
//!
//! Only answers that say "slow down" draw on it. Leaders that change and connections that break must be repeated whatever they cost; their
//! repetitions wait longer each time, and one request has only one attempt in flight.

use std::sync::atomic::{AtomicU64, Ordering};

/// One repetition, in the units that are kept.
const REPETITION: u64 = 10;
/// What a request earns: one repetition for five requests.
const PER_REQUEST: u64 = 2;
/// The most that is saved, and what there is at the start: a burst of a thousand repetitions.
const MOST: u64 = 1000 * REPETITION;

/// The budget of a process.
#[derive(Debug)]
pub(crate) struct Budget(AtomicU64);

impl Default for Budget {
    fn default() -> Self {
        Budget(AtomicU64::new(MOST))
    }
}

impl Budget {
    /// A request is asked: it earns a part of a repetition.
    pub(crate) fn earn(&self) {
        // A full budget, which is the rule, is only read.
        if self.0.load(Ordering::Relaxed) < MOST {
            let more = |saved: u64| (saved < MOST).then(|| (saved + PER_REQUEST).min(MOST));
            let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        }
    }

    /// Takes one repetition, if there is one.
    pub(crate) fn spend(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| saved.checked_sub(REPETITION)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_a_burst_and_then_a_fifth_of_the_requests() {
        let budget = Budget::default();
        let spend_all = || std::iter::repeat_with(|| budget.spend()).take_while(|spent| *spent).count();
        assert_eq!(spend_all(), 1000);
        (0..500).for_each(|_| budget.earn());
        assert_eq!(spend_all(), 100);
        (0..1_000_000).for_each(|_| budget.earn());
        assert_eq!(spend_all(), 1000, "no more is saved than a burst");
    }
}
