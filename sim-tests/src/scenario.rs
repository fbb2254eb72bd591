//! A course of events that is laid down, where chance would need too many seeds or too much time: a cluster is born, and what happens then
//! is written out. Nothing but what the seed decides is left to chance.

use crate::cluster::Cluster;
use crate::nemesis::Bites;
use crate::planted::Planted;
use crate::run;
use crate::trace::Trace;
use crate::workload::{Client, Shared};
use metadb_proto::seam;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long the cluster may take for what a step waits for.
pub(crate) const WITHIN: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);
/// Virtual time after which a scenario is taken for stuck.
const LIMIT: Duration = Duration::from_secs(3600);
const STACK_BYTES: usize = 16 << 20;

/// Plays a scenario from a seed, with a client of two tenants; what is wrong.
pub(crate) fn play<F>(seed: u64, planted: Option<Planted>, scenario: fn(Arc<Cluster>, Client) -> F) -> Vec<String>
where
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let thread = std::thread::Builder::new().name(format!("scenario {seed}")).stack_size(STACK_BYTES);
    let spawned = thread.spawn(move || {
        let mut runtime = madsim::runtime::Runtime::with_seed_and_config(seed, madsim::Config::default());
        runtime.set_time_limit(LIMIT);
        runtime.block_on(course(seed, planted, scenario))
    });
    spawned.ok().and_then(|thread| thread.join().ok()).unwrap_or_else(|| vec!["panic".to_owned()])
}

async fn course<F>(seed: u64, planted: Option<Planted>, scenario: fn(Arc<Cluster>, Client) -> F) -> Vec<String>
where
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    seam::simulated::plant(planted.and_then(Planted::server));
    let trace = Trace::new();
    let shared = Shared::new(trace.clone(), planted, false);
    let cluster = Arc::new(Cluster::new(3, seed, planted, &trace));
    let tenants = match cluster.born(2, &mut Bites::new(), &trace).await {
        Ok(tenants) => tenants,
        Err(missing) => return missing,
    };
    let (client, at) = run::client(&cluster, &shared, &tenants, 1);
    let ended = at.spawn(async move { Box::pin(scenario(cluster, client)).await }).await;
    ended.map_or_else(|_| vec!["it died".to_owned()], |ended| ended.err().into_iter().collect())
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) -> Result<(), String> {
    let end = Instant::now() + WITHIN;
    while !is_so() {
        if Instant::now() > end {
            return Err(format!("{what} did not come about"));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}
