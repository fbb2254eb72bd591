//! What a router counted since its start.

use std::sync::atomic::{AtomicU64, Ordering};

/// A reading of all counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests of callers.
    pub requests: u64,
    /// Attempts after the first of a request.
    pub retries: u64,
    /// Answers that named another node.
    pub redirects: u64,
    /// Loads of a tenant's routes from the directory.
    pub refreshes: u64,
    /// Searches for the directory's leader among seeds.
    pub discoveries: u64,
    /// Requests that ended without an answer in time.
    pub timeouts: u64,
    /// Requests whose outcome stayed unknown.
    pub unknown_outcomes: u64,
    /// Frames sent.
    pub frames: u64,
    /// Requests in them.
    pub framed_requests: u64,
    /// Streams and channels that were opened.
    pub connects: u64,
    /// Transactions of `run` that lost and began again.
    pub conflicts: u64,
    /// Requests refused for overload that were not repeated, since too many were already.
    pub repetitions_denied: u64,
    /// Times that a node was not asked for a while, since it had not answered for long.
    pub breakers_opened: u64,
}

/// The counters themselves.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    pub(crate) requests: Counter,
    pub(crate) retries: Counter,
    pub(crate) redirects: Counter,
    pub(crate) refreshes: Counter,
    pub(crate) discoveries: Counter,
    pub(crate) timeouts: Counter,
    pub(crate) unknown_outcomes: Counter,
    pub(crate) frames: Counter,
    pub(crate) framed_requests: Counter,
    pub(crate) connects: Counter,
    pub(crate) conflicts: Counter,
    pub(crate) repetitions_denied: Counter,
    pub(crate) breakers_opened: Counter,
}

/// One counter: only rises, and orders nothing.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn one(&self) {
        self.more(1);
    }

    pub(crate) fn more(&self, by: usize) {
        self.0.fetch_add(by as u64, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counting {
    pub(crate) fn read(&self) -> Counters {
        Counters {
            requests: self.requests.read(),
            retries: self.retries.read(),
            redirects: self.redirects.read(),
            refreshes: self.refreshes.read(),
            discoveries: self.discoveries.read(),
            timeouts: self.timeouts.read(),
            unknown_outcomes: self.unknown_outcomes.read(),
            frames: self.frames.read(),
            framed_requests: self.framed_requests.read(),
            connects: self.connects.read(),
            conflicts: self.conflicts.read(),
            repetitions_denied: self.repetitions_denied.read(),
            breakers_opened: self.breakers_opened.read(),
        }
    }
}
