//! Clients that add to counters of their own and read them back, in tenants at random, and what they were told.

use crate::dev::DevCluster;
use crate::failure::Failure;
use metadb_proto::{Error, seam};
use shard_router::{Router, operation};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Most errors that are kept to be shown.
const ERRORS: usize = 100;

/// What clients were told.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) requests: u64,
    pub(super) slowest: Duration,
    pub(super) errors: Vec<String>,
    pub(super) lost: u64,
    pub(super) doubled: u64,
}

/// Clients at work.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    clients: JoinSet<(u64, Told, Counters)>,
    router: Router,
}

/// By tenant: additions that were acknowledged, and those of which nobody knows.
type Counters = BTreeMap<u64, (u64, u64)>;

impl Load {
    pub(super) fn begin(clients: u16, running: &DevCluster, tenants: &[metadb_proto::v1::TenantRecord]) -> Self {
        let (stop, mut set) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
        let tenants: Arc<[u64]> = tenants.iter().map(|tenant| tenant.tenant_id).collect();
        let router = running.router();
        for client in 0..clients {
            set.spawn(work(u64::from(client), router.clone(), Arc::clone(&tenants), Arc::clone(&stop)));
        }
        Load { stop, clients: set, router }
    }

    /// Stops the clients, and compares what they counted with what is there.
    pub(super) async fn end(mut self) -> Result<Told, Failure> {
        self.stop.store(true, Ordering::Relaxed);
        let mut told = Told::default();
        while let Some(ended) = self.clients.join_next().await {
            let (client, one, counters) = ended.map_err(|error| Failure::failed(format!("a client ended before its time: {error}")))?;
            told.requests += one.requests;
            told.slowest = told.slowest.max(one.slowest);
            told.errors.extend(one.errors);
            for (tenant_id, (acknowledged, open)) in counters {
                let found = read(&self.router, tenant_id, client).await?;
                told.lost += acknowledged.saturating_sub(found);
                told.doubled += found.saturating_sub(acknowledged + open);
            }
        }
        Ok(told)
    }
}

fn counter(client: u64) -> String {
    format!("counter/{client:05}")
}

async fn read(router: &Router, tenant_id: u64, client: u64) -> Result<u64, Error> {
    let row = router.tenant(tenant_id).get(counter(client)).await?;
    Ok(row.and_then(|row| <[u8; 8]>::try_from(&row.value[..]).ok()).map_or(0, u64::from_le_bytes))
}

/// One client: its number, what it was told, and what it counted.
async fn work(client: u64, router: Router, tenants: Arc<[u64]>, stop: Arc<AtomicBool>) -> (u64, Told, Counters) {
    let mut told = Told::default();
    let mut counters = Counters::new();
    while !stop.load(Ordering::Relaxed) {
        let any = seam::random_u64() % (tenants.len() as u64);
        let Some(tenant_id) = usize::try_from(any).ok().and_then(|any| tenants.get(any)).copied() else { break };
        let asked = Instant::now();
        let added = router.tenant(tenant_id).transact(Vec::new(), vec![operation::add(counter(client), 1)]).await;
        told.requests += 1;
        told.slowest = told.slowest.max(asked.elapsed());
        let known = counters.entry(tenant_id).or_default();
        match added {
            Ok(_) => known.0 += 1,
            Err(error) => {
                known.1 += u64::from(matches!(error, Error::UnknownOutcome { .. }));
                if told.errors.len() < ERRORS {
                    told.errors.push(format!("tenant {tenant_id}: {error}"));
                }
            }
        }
        let expected = *known;
        match read(&router, tenant_id, client).await {
            Ok(found) if found < expected.0 => {
                told.errors.push(format!("tenant {tenant_id}: {} were acknowledged, {found} are read", expected.0))
            }
            Ok(_) => {}
            Err(error) if told.errors.len() < ERRORS => told.errors.push(format!("tenant {tenant_id}: {error}")),
            Err(_) => {}
        }
        told.requests += 1;
    }
    (client, told, counters)
}
