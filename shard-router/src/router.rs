//! The router: what is shared by all clients of a process.

use crate::budget::Budget;
use crate::client::Client;
use crate::coalesce::Loads;
use crate::config::RouterConfig;
use crate::counters::{Counters, Counting};
use crate::routes::{RouteMap, TenantRoutes};
use crate::transport::{Dial, Nodes};
use crate::{admin, directory};
use metadb_proto::v1::{self, NodeRef};
use metadb_proto::{Error, directory as keys};
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tonic::metadata::{Ascii, MetadataValue};

/// Reaches every node and knows where things are. Cheap to clone; connects when first asked.
#[derive(Clone)]
pub struct Router {
    inner: Arc<Inner>,
}

struct Inner {
    config: Arc<RouterConfig>,
    map: RwLock<RouteMap>,
    tenant_loads: Loads<u64, Arc<TenantRoutes>>,
    voter_loads: Loads<u32, ()>,
    discoveries: Loads<(), Arc<NodeRef>>,
    generations: AtomicU64,
    nodes: Nodes,
    admins: admin::Channels,
    counting: Arc<Counting>,
    budget: Budget,
    directory_routes: Arc<TenantRoutes>,
}

impl Router {
    /// A router with these settings. They are not checked here: see [`RouterConfig::validate`].
    #[must_use]
    pub fn new(config: RouterConfig) -> Router {
        let counting = Arc::new(Counting::default());
        let authorization = format!("Bearer {}", config.token).parse::<MetadataValue<Ascii>>().ok().map(|mut value| {
            value.set_sensitive(true);
            value
        });
        let dial = Dial { authorization, connect_timeout: config.connect_timeout, counting: Arc::clone(&counting) };
        let mut map = RouteMap::new(config.cached_tenants);
        if let Some(local) = &config.local {
            // The nearest node that may know the directory's leader.
            map.learn_voters(keys::DIRECTORY_GROUP, vec![NodeRef { node_id: local.node_id, address: String::new() }]);
        }
        let config = Arc::new(config);
        let inner = Inner {
            nodes: Nodes::new(Arc::clone(&config), dial.clone()),
            admins: admin::Channels::new(dial),
            config,
            map: RwLock::new(map),
            tenant_loads: Loads::new(),
            voter_loads: Loads::new(),
            discoveries: Loads::new(),
            generations: AtomicU64::new(1),
            counting,
            budget: Budget::default(),
            directory_routes: Arc::new(TenantRoutes::directory()),
        };
        Router { inner: Arc::new(inner) }
    }

    /// A client for a tenant's keys. Whether there is such a tenant shows at its first request.
    #[must_use]
    pub fn tenant(&self, tenant_id: u64) -> Client {
        Client::new(self.clone(), tenant_id)
    }

    /// A client for the keys of the tenant with this name.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none; whatever reading the directory gives.
    pub async fn tenant_named(&self, name: &str) -> Result<Client, Error> {
        Ok(self.tenant(directory::tenant_id(self, name).await?))
    }

    /// What was counted since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.inner.counting.read()
    }

    /// The leaders that the router believes in, by group: for status displays and tests.
    #[must_use]
    pub fn believed_leader(&self, group_id: u32) -> Option<v1::NodeRef> {
        self.inner.map.read().leader(group_id).map(|leader| v1::NodeRef::clone(&leader))
    }

    pub(crate) fn config(&self) -> &RouterConfig {
        &self.inner.config
    }

    pub(crate) fn map(&self) -> &RwLock<RouteMap> {
        &self.inner.map
    }

    pub(crate) fn nodes(&self) -> &Nodes {
        &self.inner.nodes
    }

    pub(crate) fn admins(&self) -> &admin::Channels {
        &self.inner.admins
    }

    pub(crate) fn counting(&self) -> &Counting {
        &self.inner.counting
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.inner.budget
    }

    pub(crate) fn tenant_loads(&self) -> &Loads<u64, Arc<TenantRoutes>> {
        &self.inner.tenant_loads
    }

    pub(crate) fn voter_loads(&self) -> &Loads<u32, ()> {
        &self.inner.voter_loads
    }

    pub(crate) fn discoveries(&self) -> &Loads<(), Arc<NodeRef>> {
        &self.inner.discoveries
    }

    pub(crate) fn directory_routes(&self) -> Arc<TenantRoutes> {
        Arc::clone(&self.inner.directory_routes)
    }

    pub(crate) fn next_generation(&self) -> u64 {
        self.inner.generations.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    }
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router").field("config", &self.inner.config).finish_non_exhaustive()
    }
}
