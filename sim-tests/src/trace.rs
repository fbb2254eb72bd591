//! The trace of a run: a hash over everything that was asked, answered and seen, each with its virtual time.
//!
//! Two runs of one seed must give the same hash; where they part, the list of recent events says what came first.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;

/// Events kept for a person to compare, beside the hash of all.
const RECENT_EVENTS: usize = 64;

/// The hash so far. Clones share it.
#[derive(Clone)]
pub struct Trace {
    state: Arc<Mutex<State>>,
}

struct State {
    hash: blake3::Hasher,
    events: u64,
    recent: VecDeque<String>,
    begin: tokio::time::Instant,
}

impl Trace {
    /// An empty trace that begins now.
    #[must_use]
    pub fn new() -> Self {
        let state = State { hash: blake3::Hasher::new(), events: 0, recent: VecDeque::new(), begin: tokio::time::Instant::now() };
        Trace { state: Arc::new(Mutex::new(state)) }
    }

    /// Nanoseconds of virtual time since the run began.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.state.lock().begin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Something happened.
    pub fn event(&self, what: std::fmt::Arguments<'_>) {
        let line = format!("{} {what}", self.now_ns());
        tracing::debug!(target: "sim", "{line}");
        let mut state = self.state.lock();
        state.hash.update(line.as_bytes());
        state.hash.update(b"\n");
        state.events += 1;
        if state.recent.len() == RECENT_EVENTS {
            state.recent.pop_front();
        }
        state.recent.push_back(line);
    }

    /// The hash of all events, in hex, and their number.
    #[must_use]
    pub fn digest(&self) -> (String, u64) {
        let state = self.state.lock();
        (state.hash.finalize().to_hex()[..16].to_owned(), state.events)
    }

    /// The last events.
    #[must_use]
    pub fn recent(&self) -> Vec<String> {
        self.state.lock().recent.iter().cloned().collect()
    }
}

impl Default for Trace {
    fn default() -> Self {
        Trace::new()
    }
}
