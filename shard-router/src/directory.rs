//! What the router reads in the directory: a tenant's shards and a group's voters; and how it finds the directory itself.
//!
//! Each load is shared by all who wait for it. A load of a tenant that someone finished in the meantime is not repeated.

use crate::client::Scan;
use crate::router::Router;
use crate::routes::{Place, TenantRoutes};
use bytes::Bytes;
use futures::future::BoxFuture;
use metadb_proto::v1::{self, NodeRef};
use metadb_proto::{Error, directory, seam};
use prost::Message;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long finding the directory's leader may take at one node.
const STATUS_TIMEOUT: Duration = Duration::from_secs(1);
/// Most nodes asked at once for the directory's leader.
const STATUS_NODES: usize = 32;
/// Longest random wait before a load, so that processes that learned of a change together do not ask together.
const LOAD_JITTER_MICROS: u64 = 2_000;

/// Decodes a record of the directory.
pub(crate) fn record<R: Message + Default>(row: &v1::KeyValue) -> Result<R, Error> {
    R::decode(row.value.clone())
        .map_err(|error| Error::Corrupt { message: format!("directory record at {}: {error}", row.key.escape_ascii()) })
}

/// All records of a kind.
pub(crate) async fn records<R: Message + Default>(router: &Router, range: (Vec<u8>, Vec<u8>), until: Instant) -> Result<Vec<R>, Error> {
    let client = router.tenant(directory::DIRECTORY_TENANT).until(until);
    let mut scan = Scan { start: range.0.into(), end: range.1.into(), ..Scan::default() };
    let mut records = Vec::new();
    loop {
        let page = client.scan(scan.clone()).await?;
        for row in &page.rows {
            records.push(record(row)?);
        }
        if page.continuation.is_empty() {
            return Ok(records);
        }
        scan.continuation = page.continuation;
    }
}

/// The id of the tenant with this name.
pub(crate) async fn tenant_id(router: &Router, name: &str) -> Result<u64, Error> {
    let row = router.tenant(directory::DIRECTORY_TENANT).get(directory::tenant_name_key(name)).await?;
    let row = row.ok_or_else(|| Error::not_found(format!("tenant {name:?}")))?;
    number(&row.value).ok_or_else(|| Error::Corrupt { message: format!("id of tenant {name:?} has {} bytes", row.value.len()) })
}

/// A counter or an id as the directory writes it.
pub(crate) fn number(value: &[u8]) -> Option<u64> {
    value.try_into().ok().map(u64::from_be_bytes)
}

impl Router {
    /// A tenant's shards, loaded if they are not known.
    pub(crate) async fn tenant_routes(&self, tenant_id: u64, until: Instant) -> Result<Arc<TenantRoutes>, Error> {
        if tenant_id == directory::DIRECTORY_TENANT {
            return Ok(self.directory_routes());
        }
        let known = self.map().read().tenant(tenant_id);
        match known {
            Some(routes) => Ok(routes),
            None => self.load_tenant(tenant_id, until).await,
        }
    }

    /// Newer routes than those of `generation`.
    pub(crate) async fn refresh(&self, tenant_id: u64, generation: u64, until: Instant) -> Result<Arc<TenantRoutes>, Error> {
        if tenant_id == directory::DIRECTORY_TENANT {
            self.discover(until).await?;
            return Ok(self.directory_routes());
        }
        let known = self.map().read().tenant(tenant_id);
        match known {
            Some(routes) if routes.generation > generation => Ok(routes),
            _ => self.load_tenant(tenant_id, until).await,
        }
    }

    async fn load_tenant(&self, tenant_id: u64, until: Instant) -> Result<Arc<TenantRoutes>, Error> {
        let router = self.clone();
        let load = self.tenant_loads().join(tenant_id, move || tenant_load(router, tenant_id));
        bounded(until, load).await
    }

    /// Learns who the voters of a group are.
    pub(crate) async fn load_voters(&self, group_id: u32, until: Instant) -> Result<(), Error> {
        let router = self.clone();
        let load = self.voter_loads().join(group_id, move || voter_load(router, group_id));
        bounded(until, load).await
    }

    /// Finds the leader of the directory by asking the seeds and all nodes known.
    pub(crate) async fn discover(&self, until: Instant) -> Result<Arc<NodeRef>, Error> {
        let router = self.clone();
        bounded(until, self.discoveries().join((), move || discovery(router))).await
    }
}

// Loads call the driver, which calls loads: these name the type of the future, so that it ends somewhere.

fn tenant_load(router: Router, tenant_id: u64) -> BoxFuture<'static, Result<Arc<TenantRoutes>, Error>> {
    Box::pin(load_tenant(router, tenant_id))
}

fn voter_load(router: Router, group_id: u32) -> BoxFuture<'static, Result<(), Error>> {
    Box::pin(async move {
        let until = Instant::now() + router.config().deadline;
        load_groups(&router, [group_id].into(), until).await
    })
}

fn discovery(router: Router) -> BoxFuture<'static, Result<Arc<NodeRef>, Error>> {
    Box::pin(discover(router))
}

async fn bounded<T>(until: Instant, load: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let late = || Error::unavailable("the directory did not answer in time", Duration::from_millis(100));
    tokio::time::timeout(until.saturating_duration_since(Instant::now()), load).await.unwrap_or_else(|_| Err(late()))
}

async fn load_tenant(router: Router, tenant_id: u64) -> Result<Arc<TenantRoutes>, Error> {
    router.counting().refreshes.one();
    tokio::time::sleep(Duration::from_micros(seam::random_u64() % LOAD_JITTER_MICROS)).await;
    let until = Instant::now() + router.config().deadline;
    let places = match records::<v1::ShardRecord>(&router, directory::range_of(&("shard", tenant_id)), until).await {
        Ok(shards) => shards.into_iter().map(Place::from).collect::<Vec<_>>(),
        // A tenant's own key does not open the directory: any node tells where to go.
        Err(Error::Denied { .. }) => vec![Place::whole(None, 0)],
        Err(error) => return Err(error),
    };
    if places.is_empty() {
        return Err(why_no_shard(&router, tenant_id, until).await);
    }
    let routes = Arc::new(TenantRoutes::new(places, router.next_generation()));
    load_groups(&router, routes.groups().collect(), until).await?;
    router.map().write().learn_tenant(tenant_id, Arc::clone(&routes), seam::random_u64());
    Ok(routes)
}

async fn why_no_shard(router: &Router, tenant_id: u64, until: Instant) -> Error {
    let client = router.tenant(directory::DIRECTORY_TENANT).until(until);
    let record = match client.get(directory::tenant_key(tenant_id)).await {
        Ok(row) => row.map(|row| record::<v1::TenantRecord>(&row)).transpose(),
        Err(error) => Err(error),
    };
    match record {
        Err(error) => error,
        Ok(Some(record)) if record.state() == v1::tenant_record::State::Creating => {
            Error::unavailable(format!("tenant {tenant_id} is being created"), Duration::from_millis(50))
        }
        Ok(_) => Error::not_found(format!("tenant {tenant_id}")),
    }
}

async fn load_groups(router: &Router, groups: BTreeSet<u32>, until: Instant) -> Result<(), Error> {
    let keys: Vec<Bytes> = groups.into_iter().map(|group_id| directory::group_key(group_id).into()).collect();
    if keys.is_empty() {
        return Ok(());
    }
    let rows = router.tenant(directory::DIRECTORY_TENANT).until(until).multi_get(keys).await?;
    for row in rows {
        let group: v1::GroupRecord = record(&row)?;
        router.map().write().learn_voters(group.group_id, group.voters);
    }
    Ok(())
}

async fn discover(router: Router) -> Result<Arc<NodeRef>, Error> {
    router.counting().discoveries.one();
    let mut addresses = router.config().seeds.clone();
    addresses.extend(router.map().read().addresses());
    addresses.retain(|address| !address.is_empty());
    addresses.sort();
    addresses.dedup();
    addresses.truncate(STATUS_NODES);
    let until = Instant::now() + STATUS_TIMEOUT;
    let statuses = futures::future::join_all(addresses.iter().map(|address| router.status_of(address, until))).await;
    let mut refused = None;
    let mut best: Option<v1::GroupStatus> = None;
    for status in statuses {
        match status {
            Ok(status) => {
                let directory =
                    status.groups.into_iter().find(|group| group.group_id == directory::DIRECTORY_GROUP && group.leader.is_some());
                if directory.as_ref().is_some_and(|found| best.as_ref().is_none_or(|best| found.term > best.term)) {
                    best = directory;
                }
            }
            Err(error @ (Error::Unauthenticated { .. } | Error::Denied { .. })) => refused = Some(error),
            Err(_) => {}
        }
    }
    if let Some((leader, voters)) = best.and_then(|best| best.leader.map(|leader| (Arc::new(leader), best.voters))) {
        let mut map = router.map().write();
        if !voters.is_empty() {
            map.learn_voters(directory::DIRECTORY_GROUP, voters);
        }
        map.learn_leader(directory::DIRECTORY_GROUP, Arc::clone(&leader));
        return Ok(leader);
    }
    let why = || {
        Error::unavailable(
            format!("none of the {} nodes known knows a leader of the directory", addresses.len()),
            Duration::from_millis(100),
        )
    };
    Err(refused.unwrap_or_else(why))
}
