//! Clients that each wait for their answer before they ask again, and what they saw.

use crate::plan::{KEYS, VALUE_BYTES, Verb};
use crate::target::Target;
use bytes::Bytes;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Longest latency told apart: a minute, in nanoseconds.
const LONGEST_NS: u64 = 60_000_000_000;
/// Puts in flight while the keys are filled.
const FILLERS: usize = 64;
/// A client whose request failed waits this long.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(10);

/// What one cell measured.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// Answers per second.
    pub per_second: f64,
    /// Latencies in microseconds.
    pub p50_us: f64,
    /// The slowest of a hundred.
    pub p99_us: f64,
    /// The slowest of a thousand.
    pub p999_us: f64,
    /// Requests that failed.
    pub errors: u64,
}

/// Loads a target for a while.
///
/// # Errors
/// If a client panicked, or nothing at all was answered.
pub async fn run(target: &Arc<dyn Target>, verb: Verb, clients: usize, warm_up: Duration, measure: Duration) -> anyhow::Result<Measured> {
    let begin = Instant::now() + warm_up;
    let end = begin + measure;
    let tasks: Vec<_> = (0..clients).map(|client| tokio::spawn(one_client(Arc::clone(target), verb, client, begin, end))).collect();
    let mut all = Histogram::<u64>::new_with_bounds(1, LONGEST_NS, 3)?;
    let mut errors = 0;
    let mut last_error = None;
    for task in tasks {
        let (latencies, failed, error) = task.await??;
        all.add(&latencies)?;
        errors += failed;
        last_error = error.or(last_error);
    }
    if all.is_empty() {
        let why = last_error.unwrap_or_else(|| anyhow::anyhow!("no error either"));
        return Err(why.context(format!("{verb} with {clients} clients: nothing was answered")));
    }
    let us = |quantile: f64| all.value_at_quantile(quantile) as f64 / 1e3;
    let per_second = all.len() as f64 / measure.as_secs_f64();
    Ok(Measured { per_second, p50_us: us(0.5), p99_us: us(0.99), p999_us: us(0.999), errors })
}

type Seen = (Histogram<u64>, u64, Option<anyhow::Error>);

async fn one_client(target: Arc<dyn Target>, verb: Verb, client: usize, begin: Instant, end: Instant) -> anyhow::Result<Seen> {
    let mut latencies = Histogram::<u64>::new_with_bounds(1, LONGEST_NS, 3)?;
    let (mut errors, mut last) = (0, None);
    let mut chance = Chance(client as u64 + 1);
    loop {
        let asked = Instant::now();
        if asked >= end {
            return Ok((latencies, errors, last));
        }
        let key = key(chance.below(KEYS));
        let outcome = match verb {
            Verb::Put => target.put(client, key, value()).await,
            Verb::Get => target.get(client, key).await.map(|_| ()),
        };
        match outcome {
            Ok(()) if asked >= begin => latencies.saturating_record(u64::try_from(asked.elapsed().as_nanos()).unwrap_or(LONGEST_NS)),
            Ok(()) => {}
            Err(error) => {
                errors += u64::from(asked >= begin);
                last = Some(error);
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
            }
        }
    }
}

/// Writes every key once, and proves by a get that it is there.
///
/// # Errors
/// Whatever the target says, or a key that is missing.
pub async fn fill(target: &Arc<dyn Target>) -> anyhow::Result<()> {
    use futures::{StreamExt as _, TryStreamExt as _};
    let puts = futures::stream::iter(0..KEYS).map(|n| target.put(n as usize, key(n), value()));
    puts.buffer_unordered(FILLERS).try_collect::<()>().await?;
    anyhow::ensure!(target.get(0, key(KEYS - 1)).await?, "a key that was put is missing");
    Ok(())
}

fn key(n: u32) -> Bytes {
    Bytes::from(format!("bench/{n:08}"))
}

fn value() -> Bytes {
    Bytes::from_static(&[0x5a; VALUE_BYTES])
}

/// A small generator, the same for every system.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from((self.0 >> 33) % u64::from(limit)).unwrap_or(0)
    }
}
