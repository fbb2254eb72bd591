//! Clients that each wait for their answer before they ask again.

use super::{Chance, Measured, Tenths, ask, measured, tenths};
use crate::plan::Verb;
use crate::procfs::Meter;
use crate::target::Target;
use anyhow::Context as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A client whose request failed waits this long.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(10);

/// What the clients do.
#[derive(Debug, Clone)]
pub struct Closed {
    /// What each asks.
    pub verb: Verb,
    /// How many there are.
    pub clients: usize,
    /// How long they ask before it counts.
    pub warm_up: Duration,
    /// How long it counts.
    pub measure: Duration,
}

/// Loads a target for a while. `servers` are the processes whose processor time is told.
///
/// # Errors
/// If a client panicked, or nothing at all was answered.
pub async fn closed<T: Target>(target: &Arc<T>, load: &Closed, servers: &[u32]) -> anyhow::Result<Measured> {
    let begin = Instant::now() + load.warm_up;
    let end = begin + load.measure;
    let tasks: Vec<_> =
        (0..load.clients).map(|client| tokio::spawn(one_client(Arc::clone(target), load.verb, client, begin, end))).collect();
    tokio::time::sleep_until(begin).await;
    let meter = Meter::start(servers);
    tokio::time::sleep_until(end).await;
    let spent = meter.spent();
    let mut all = Vec::with_capacity(tasks.len());
    let (mut errors, mut last_error) = (0, None);
    for task in tasks {
        let seen = task.await?;
        all.push(seen.latencies);
        errors += seen.errors;
        last_error = seen.last_error.or(last_error);
    }
    if all.iter().all(Vec::is_empty) {
        let why = last_error.unwrap_or_else(|| anyhow::anyhow!("no error either"));
        return Err(why).with_context(|| format!("{} with {} clients: nothing was answered", load.verb, load.clients));
    }
    measured(all.into_iter().flatten(), load.measure.as_secs_f64(), errors, spent)
}

struct Seen {
    latencies: Tenths,
    errors: u64,
    last_error: Option<anyhow::Error>,
}

async fn one_client<T: Target>(target: Arc<T>, verb: Verb, client: usize, begin: Instant, end: Instant) -> Seen {
    let mut seen = Seen { latencies: Tenths::new(), errors: 0, last_error: None };
    let mut chance = Chance::new(client as u64);
    let mut asked = Instant::now();
    while asked < end {
        let outcome = ask(&*target, verb, client, &mut chance).await;
        let answered = Instant::now();
        match outcome {
            Ok(()) if asked >= begin => seen.latencies.push(tenths(answered - asked)),
            Ok(()) => {}
            Err(error) => {
                seen.errors += u64::from(asked >= begin);
                seen.last_error = Some(error);
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
            }
        }
        asked = answered;
    }
    seen
}
