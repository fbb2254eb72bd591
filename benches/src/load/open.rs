//! Requests that arrive at a fixed rate, whatever the answers do. A latency is counted from the moment at which the request was meant to
//! be sent, so a server that stalls pays for everyone who would have asked meanwhile.
//!
//! A thread of its own keeps the beat, as the timers of the runtime tell no less than a millisecond: at every beat as many requests start
//! as are due by then.

use super::{Chance, Measured, ask, measured, tenths};
use crate::plan::Verb;
use crate::procfs::Meter;
use crate::target::Target;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

/// Between two beats.
const BEAT: Duration = Duration::from_micros(250);
/// Most requests without an answer; one more is not sent and counts as failed.
const MOST_WAITING: u32 = 20_000;
/// How long the last answers may take.
const DRAIN: Duration = Duration::from_secs(15);
/// Connections are chosen among so many clients.
const CLIENTS: usize = 256;
/// Beats that may wait for the runtime.
const BEATS_AHEAD: usize = 4096;

/// What arrives.
#[derive(Debug, Clone)]
pub struct Open {
    /// What is asked.
    pub verb: Verb,
    /// How often a second.
    pub rate: f64,
    /// How long before it counts.
    pub warm_up: Duration,
    /// How long it counts.
    pub measure: Duration,
}

/// Loads a target at a rate.
///
/// # Errors
/// If nothing at all was answered.
pub async fn open<T: Target>(target: &Arc<T>, load: &Open, servers: &[u32]) -> anyhow::Result<Measured> {
    let whole = load.warm_up + load.measure;
    let first_counted = due(load.rate, load.warm_up);
    let slots: Arc<[AtomicU32]> = (0..due(load.rate, whole)).map(|_| AtomicU32::new(0)).collect();
    let waiting = Arc::new(Semaphore::new(MOST_WAITING as usize));
    let failed = Arc::new(AtomicU64::new(0));
    let last_error = Arc::new(parking_lot::Mutex::new(None));
    let (beat, mut beats) = mpsc::channel(BEATS_AHEAD);
    let start = Instant::now() + BEAT;
    let keeper = tokio::task::spawn_blocking(move || keep_time(start, whole, &beat));
    let (mut sent, mut meter) = (0, None);
    while let Some(at) = beats.recv().await {
        if meter.is_none() && at >= start + load.warm_up {
            meter = Some(Meter::start(servers));
        }
        let up_to = due(load.rate, at - start).min(slots.len());
        for n in sent..up_to {
            let Ok(permit) = Arc::clone(&waiting).try_acquire_owned() else { continue };
            let (target, slots, failed, last_error) =
                (Arc::clone(target), Arc::clone(&slots), Arc::clone(&failed), Arc::clone(&last_error));
            let verb = load.verb;
            tokio::spawn(async move {
                match ask(&*target, verb, n % CLIENTS, &mut Chance::new(n as u64)).await {
                    Ok(()) => slots[n].store(tenths(at.elapsed()), Ordering::Relaxed),
                    Err(error) => {
                        failed.fetch_add(1, Ordering::Relaxed);
                        *last_error.lock() = Some(error);
                    }
                }
                drop(permit);
            });
        }
        sent = sent.max(up_to);
    }
    keeper.await?;
    let _ = tokio::time::timeout(DRAIN, waiting.acquire_many(MOST_WAITING)).await;
    let spent = meter.unwrap_or_else(|| Meter::start(servers)).spent();
    let counted = &slots[first_counted.min(slots.len())..];
    let latencies: Vec<u32> = counted.iter().map(|slot| slot.load(Ordering::Relaxed)).filter(|latency| *latency > 0).collect();
    if latencies.is_empty() {
        return Err(last_error.lock().take().unwrap_or_else(|| anyhow::anyhow!("no error either")).context("nothing was answered"));
    }
    let missing = (counted.len() - latencies.len()) as u64;
    measured(latencies.into_iter(), load.measure.as_secs_f64(), missing, spent)
}

/// How many requests are due so long after the start.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates and times are positive and small")]
fn due(rate: f64, after: Duration) -> usize {
    (rate * after.as_secs_f64()) as usize
}

/// Sends a beat whenever one is due; a late one keeps the time at which it was due.
#[expect(
    clippy::disallowed_methods,
    reason = "the runtime's sleep is too coarse for the beat, and this thread is the runtime's blocking one"
)]
fn keep_time(start: Instant, whole: Duration, beat: &mpsc::Sender<Instant>) {
    let mut at = start;
    while at <= start + whole {
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        if beat.blocking_send(at).is_err() {
            return;
        }
        at += BEAT;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    /// Answers at once, but for one stall.
    struct Stalls {
        until: Instant,
        from: Instant,
    }

    impl Target for Stalls {
        async fn put(&self, _: usize, _: Bytes, _: Bytes) -> anyhow::Result<()> {
            if Instant::now() >= self.from {
                tokio::time::sleep_until(self.until).await;
            }
            Ok(())
        }

        async fn get(&self, _: usize, _: Bytes) -> anyhow::Result<bool> {
            anyhow::bail!("down")
        }

        async fn scan(&self, _: usize, _: Bytes, _: Bytes, _: u32) -> anyhow::Result<usize> {
            Ok(0)
        }
    }

    fn load(verb: Verb) -> Open {
        Open { verb, rate: 2000.0, warm_up: Duration::from_millis(50), measure: Duration::from_millis(400) }
    }

    #[tokio::test]
    async fn a_stall_is_paid_for_by_all_who_would_have_asked() {
        let now = Instant::now();
        let stall = Stalls { from: now + Duration::from_millis(250), until: now + Duration::from_millis(350) };
        let measured = open(&Arc::new(stall), &load(Verb::Put), &[]).await.expect("answers");
        // A quarter of the window is in the stall, and half of those wait for more than half of it.
        let quantile = |q: f64| measured.curve.iter().find(|(at, _)| *at >= q).expect("in the curve").1;
        assert!(measured.max_us > 90_000.0 && quantile(0.9) > 40_000.0, "{measured:?}");
        assert!((measured.per_second - 2000.0).abs() < 50.0, "{measured:?}");
    }

    #[tokio::test]
    async fn nothing_answered_is_an_error_with_its_reason() {
        let now = Instant::now();
        let error = open(&Arc::new(Stalls { from: now, until: now }), &load(Verb::Get), &[]).await.expect_err("no get is answered");
        assert!(format!("{error:#}").contains("down"), "{error:#}");
    }
}
