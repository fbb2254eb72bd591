//! A bound on the bytes that moves copy in a second, shared by all that run at a time.

use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// Hands out time.
#[derive(Debug)]
pub(super) struct Pace {
    /// When the next bytes may go.
    next: Mutex<Option<Instant>>,
}

impl Pace {
    pub(super) fn new() -> Self {
        Pace { next: Mutex::new(None) }
    }

    /// Waits for the turn of so many bytes; 0 bytes in a second: no bound.
    pub(super) async fn turn(&self, bytes: u64, bytes_per_s: u64) {
        if bytes_per_s == 0 {
            return;
        }
        let at = {
            let mut next = self.next.lock();
            let now = Instant::now();
            let at = next.map_or(now, |next| next.max(now));
            *next = Some(at + Duration::from_secs_f64(bytes as f64 / bytes_per_s as f64));
            at
        };
        tokio::time::sleep_until(at).await;
    }
}
