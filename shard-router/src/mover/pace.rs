//! A bound on the bytes that moves copy in a second, shared by all that run at a time: never above what the operator allows, and below it
//! as soon as a page takes long to be written, because then the disk or the processors are busy and clients wait as well.
//!
//! Additive increase, multiplicative decrease (Chiu, Jain: "Analysis of the Increase and Decrease Algorithms for Congestion Avoidance in
//! Computer Networks", 1989), once in a window.

use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// A page that takes longer to be written meets others that wait.
const SLOW: Duration = Duration::from_millis(25);
/// How often the rate changes, at most.
const WINDOW: Duration = Duration::from_millis(100);
/// Where it begins, by how much it grows, and below what it does not fall, in bytes a second: even a busy cluster gets on.
const FIRST: u64 = 8 << 20;
const GROWS: u64 = 512 << 10;
const LEAST: u64 = 4 << 20;

/// Hands out time.
#[derive(Debug)]
pub(super) struct Pace {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When the next bytes may go.
    next: Option<Instant>,
    bytes_per_s: u64,
    /// When the rate changed last.
    changed: Option<Instant>,
}

impl Pace {
    pub(super) fn new() -> Self {
        Pace { state: Mutex::new(State { next: None, bytes_per_s: FIRST, changed: None }) }
    }

    /// Waits for the turn of so many bytes; `allowed` is 0: nothing bounds them.
    pub(super) async fn turn(&self, bytes: u64, allowed: u64) {
        if allowed == 0 {
            return;
        }
        let at = self.state.lock().turn(Instant::now(), bytes, allowed);
        tokio::time::sleep_until(at).await;
    }

    /// Learns how long a page took to be written.
    pub(super) fn took(&self, time: Duration, allowed: u64) {
        if allowed != 0 {
            self.state.lock().took(Instant::now(), time, allowed);
        }
    }
}

impl State {
    fn turn(&mut self, now: Instant, bytes: u64, allowed: u64) -> Instant {
        let at = self.next.map_or(now, |next| next.max(now));
        self.next = Some(at + Duration::from_secs_f64(bytes as f64 / self.bytes_per_s.min(allowed).max(1) as f64));
        at
    }

    fn took(&mut self, now: Instant, time: Duration, allowed: u64) {
        if self.changed.is_some_and(|changed| now < changed + WINDOW) {
            return;
        }
        self.changed = Some(now);
        let next = if time > SLOW { self.bytes_per_s - self.bytes_per_s / 8 } else { self.bytes_per_s + GROWS };
        self.bytes_per_s = next.min(allowed.max(LEAST)).max(LEAST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn state() -> State {
        State { next: None, bytes_per_s: FIRST, changed: None }
    }

    /// The rate after so many windows in which pages took so long.
    fn after(windows: u32, time: Duration, allowed: u64) -> u64 {
        let (mut state, begin) = (state(), Instant::now());
        (0..windows).for_each(|n| state.took(begin + WINDOW * n, time, allowed));
        state.bytes_per_s
    }

    #[test]
    fn it_grows_to_what_is_allowed_and_gives_way_to_who_waits() {
        assert_eq!(after(1000, Duration::from_millis(3), 64 * MIB), 64 * MIB);
        assert_eq!(after(1000, SLOW * 2, 64 * MIB), LEAST);
        assert_eq!(after(1, Duration::from_millis(3), 64 * MIB), FIRST + GROWS);
    }

    #[test]
    fn within_a_window_only_the_first_page_counts() {
        let (mut state, now) = (state(), Instant::now());
        (0..50).for_each(|_| state.took(now, SLOW * 2, 64 * MIB));
        assert_eq!(state.bytes_per_s, FIRST - FIRST / 8);
    }

    proptest! {
        #[test]
        fn bytes_go_no_faster_than_allowed(pages in proptest::collection::vec((1_u64..300_000, 0_u64..60, 0_u64..200), 1..200), allowed in 1_u64..64) {
            let allowed = allowed * MIB;
            let (mut state, begin) = (state(), Instant::now());
            let (mut now, mut sent, mut last) = (begin, 0, begin);
            for (bytes, took_ms, rest_ms) in pages {
                let at = state.turn(now, bytes, allowed);
                // What went before this page had its time.
                prop_assert!(sent as f64 <= (at - begin).as_secs_f64() * allowed as f64 * 1.001 + 1.0);
                prop_assert!(at >= last);
                (sent, last) = (sent + bytes, at);
                state.took(at, Duration::from_millis(took_ms), allowed);
                prop_assert!(state.bytes_per_s >= LEAST && state.bytes_per_s <= allowed.max(LEAST));
                now += Duration::from_millis(rest_ms);
            }
        }
    }
}
