//! Load on a target, and what its clients saw.
//!
//! [`closed`]: clients that each wait for their answer before they ask again; this finds the peak. [`open`]: requests that arrive at a
//! fixed rate whatever the answers do; this finds the latency at a load. Both cost the machine as little as they can, as it is the
//! servers' machine too: no future is boxed, keys and values are shared, a latency is one number in a list.

mod closed;
mod open;

pub use closed::{Closed, closed};
pub use open::{Open, open};

use crate::plan::{KEYS, SCAN_KEYS, VALUE_BYTES, Verb};
use crate::procfs;
use crate::target::Target;
use bytes::Bytes;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// Longest latency told apart: a minute.
const LONGEST_US: u64 = 60_000_000;
/// Puts in flight while the keys are filled.
const FILLERS: usize = 64;
/// Latencies are kept in tenths of a microsecond: 4 bytes reach to seven minutes.
const TENTHS_PER_SECOND: f64 = 1e7;
/// Quantiles of the curve that is plotted.
const QUANTILES: [f64; 11] = [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9999];

/// What one cell measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Measured {
    /// Answers per second.
    pub per_second: f64,
    /// Latencies in microseconds.
    pub p50_us: f64,
    /// The slowest of a hundred.
    pub p99_us: f64,
    /// The slowest of a thousand.
    pub p999_us: f64,
    /// The slowest.
    pub max_us: f64,
    /// Requests that failed or were never answered.
    pub errors: u64,
    /// Processor time of this process per request, in microseconds.
    pub client_cpu_us: f64,
    /// Processor time of all servers per request, in microseconds.
    pub servers_cpu_us: f64,
    /// Latency in microseconds by quantile.
    pub curve: Vec<(f64, f64)>,
}

/// Latencies in tenths of a microsecond.
type Tenths = Vec<u32>;

fn tenths(latency: Duration) -> u32 {
    u32::try_from(latency.as_nanos() / 100).unwrap_or(u32::MAX).max(1)
}

/// Puts what clients saw together.
fn measured(latencies: impl Iterator<Item = u32>, seconds: f64, errors: u64, cpu: procfs::Spent) -> anyhow::Result<Measured> {
    let mut all = Histogram::<u64>::new_with_bounds(1, LONGEST_US * 10, 3)?;
    latencies.for_each(|latency| all.saturating_record(u64::from(latency)));
    let us = |quantile: f64| all.value_at_quantile(quantile) as f64 * 1e6 / TENTHS_PER_SECOND;
    let answers = all.len().max(1) as f64;
    Ok(Measured {
        per_second: all.len() as f64 / seconds,
        p50_us: us(0.5),
        p99_us: us(0.99),
        p999_us: us(0.999),
        max_us: us(1.0),
        errors,
        client_cpu_us: cpu.own.as_secs_f64() * 1e6 / answers,
        servers_cpu_us: cpu.others.as_secs_f64() * 1e6 / answers,
        curve: QUANTILES.iter().map(|quantile| (*quantile, us(*quantile))).collect(),
    })
}

/// One request on a key, or on the keys from there.
async fn ask<T: Target>(target: &T, verb: Verb, client: usize, chance: &mut Chance) -> anyhow::Result<()> {
    match verb {
        Verb::Put => target.put(client, key(chance.below(KEYS)), value()).await,
        Verb::Get => target.get(client, key(chance.below(KEYS))).await.map(|_| ()),
        Verb::Scan => {
            let (start, end) = (key(chance.below(KEYS - SCAN_KEYS)), key(KEYS - 1));
            let rows = target.scan(client, start, end, SCAN_KEYS).await?;
            anyhow::ensure!(rows == SCAN_KEYS as usize, "a scan brought {rows} rows");
            Ok(())
        }
    }
}

/// Writes every key once, and proves by a get that it is there.
///
/// # Errors
/// Whatever the target says, or a key that is missing.
pub async fn fill<T: Target>(target: &Arc<T>) -> anyhow::Result<()> {
    use futures::{StreamExt as _, TryStreamExt as _};
    let puts = (0..KEYS).map(|n| {
        let target = Arc::clone(target);
        async move { target.put(n as usize, key(n), value()).await }
    });
    futures::stream::iter(puts).buffer_unordered(FILLERS).try_collect::<()>().await?;
    anyhow::ensure!(target.get(0, key(KEYS - 1)).await?, "a key that was put is missing");
    Ok(())
}

static ALL_KEYS: LazyLock<Vec<Bytes>> = LazyLock::new(|| (0..KEYS).map(|n| Bytes::from(format!("bench/{n:08}"))).collect());

/// The n-th key.
#[must_use]
pub fn key(n: u32) -> Bytes {
    ALL_KEYS[n as usize % ALL_KEYS.len()].clone()
}

/// What is put.
#[must_use]
pub fn value() -> Bytes {
    Bytes::from_static(&[0x5a; VALUE_BYTES])
}

/// A small generator, the same for every system.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// One that goes its own way by its seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1))
    }

    /// A number below a limit.
    pub fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from((self.0 >> 33) % u64::from(limit.max(1))).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_microseconds() {
        let spent = procfs::Spent { own: Duration::from_millis(1), others: Duration::from_millis(2) };
        let latencies = (1..=1000).map(|n| tenths(Duration::from_micros(n)));
        let measured = measured(latencies, 2.0, 3, spent).expect("bounds are right");
        assert_eq!((measured.per_second, measured.errors), (500.0, 3));
        assert!((measured.p50_us - 500.0).abs() < 1.0 && (measured.p99_us - 990.0).abs() < 1.0, "{measured:?}");
        assert!((measured.client_cpu_us - 1.0).abs() < 1e-9 && (measured.servers_cpu_us - 2.0).abs() < 1e-9, "{measured:?}");
    }

    #[test]
    fn chance_reaches_everything() {
        let mut chance = Chance::new(7);
        let seen: std::collections::BTreeSet<u32> = (0..1000).map(|_| chance.below(10)).collect();
        assert_eq!(seen.len(), 10);
    }
}
