//! One machine: its disk and store, which outlive the lives of its node, and what happens in such a life.

use crate::planted::{LyingDisk, Planted};
use crate::trace::Trace;
use madsim::task::NodeId;
use metadb::doors::Doors;
use metadb::node::{Node, NodeConfig, Parts, Upkeep};
use metadb_engine::disk::Disk;
use metadb_engine::log::{Log, LogOptions};
use metadb_engine::sim::{Kind, SimDisk, SimStore};
use metadb_proto::principal::ClusterSecret;
use metadb_proto::{Principal, v1};
use parking_lot::Mutex;
use shard_router::credentials::DirectoryAuthenticator;
use shard_router::{Local, Router, RouterConfig};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The cluster's id.
pub(super) const CLUSTER_ID: &str = "00000000000000000000000000c0ffee";
/// Small, so that a run of seconds flushes, purges and replays often, and a follower that was away needs a snapshot.
const UPKEEP: Upkeep = Upkeep { flush_log_bytes: 64 << 10, flush_interval: Duration::from_secs(2), keep_log_bytes: 16 << 10 };

/// When a replica that could not be made is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// What all machines of a cluster are made from.
pub(super) struct Seeded<'a> {
    pub(super) seed: u64,
    pub(super) secret: &'a ClusterSecret,
    pub(super) planted: Option<Planted>,
    pub(super) trace: &'a Trace,
}

/// A machine.
pub struct Machine {
    node_id: u64,
    address: String,
    ip: IpAddr,
    /// Addresses of all nodes, as in a settings file.
    seeds: Vec<String>,
    secret: ClusterSecret,
    disk: Arc<SimDisk>,
    spool: Arc<SimDisk>,
    store: Arc<SimStore>,
    placed: Mutex<Option<NodeId>>,
    node: Mutex<Option<Arc<Node>>>,
    lives: AtomicU64,
    planted: Option<Planted>,
    trace: Trace,
}

impl Machine {
    pub(super) fn new(number: usize, addresses: &[String], plan: &Seeded<'_>) -> Arc<Self> {
        let Seeded { seed, secret, planted, trace } = *plan;
        let own = seed.wrapping_mul(1_000_003).wrapping_add(number as u64 * 17);
        Arc::new(Machine {
            node_id: number as u64 + 1,
            address: addresses[number].clone(),
            ip: super::ip(0, number),
            seeds: addresses.to_vec(),
            secret: secret.clone(),
            disk: SimDisk::new(own),
            spool: SimDisk::new(own + 1),
            store: SimStore::new(own + 2),
            placed: Mutex::default(),
            node: Mutex::default(),
            lives: AtomicU64::new(0),
            planted,
            trace: trace.clone(),
        })
    }

    /// The id of its node.
    #[must_use]
    pub fn node_id(&self) -> u64 {
        self.node_id
    }

    /// host:port of its node's door.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn ip(&self) -> IpAddr {
        self.ip
    }

    pub(super) fn placed(&self, at: NodeId) {
        *self.placed.lock() = Some(at);
    }

    pub(super) fn placed_at(&self) -> NodeId {
        self.placed.lock().expect("set when the cluster is made")
    }

    /// Its disk with the log.
    #[must_use]
    pub fn disk(&self) -> &Arc<SimDisk> {
        &self.disk
    }

    /// Its node, if it is up.
    #[must_use]
    pub fn node(&self) -> Option<Arc<Node>> {
        self.node.lock().clone()
    }

    /// How often its node was started.
    #[must_use]
    pub fn lives(&self) -> u64 {
        self.lives.load(Ordering::Relaxed)
    }

    /// After its node was killed: what its disks keep; how many bytes of the log were lost.
    pub(super) fn crash(&self, kind: Kind) -> u64 {
        *self.node.lock() = None;
        let before = self.disk.used_bytes();
        self.disk.crash(kind);
        self.spool.crash(kind);
        self.store.crash(kind);
        before.saturating_sub(self.disk.used_bytes())
    }

    /// One life of the node: from its disks to its doors. Ends only by being killed.
    pub(super) async fn live(self: Arc<Self>) {
        let life = self.lives.fetch_add(1, Ordering::Relaxed) + 1;
        self.trace.event(format_args!("node {} begins life {life}", self.node_id));
        let mount: Arc<dyn Disk> = match self.planted {
            Some(Planted::SyncsAreLies) => Arc::new(LyingDisk(self.disk.mount())),
            Some(Planted::RepeatsWithoutId | Planted::StaleReads) | None => self.disk.mount(),
        };
        let log = Log::open(mount, LogOptions::default()).await.expect("a log that was only cut short opens");
        let config = NodeConfig { upkeep: UPKEEP, ..NodeConfig::new(self.node_id, CLUSTER_ID, self.address.clone()) };
        let parts = Parts { store: self.store.clone(), log, spool: self.spool.mount(), secret: self.secret.clone() };
        let node = Node::start(config, parts).await.expect("a node starts from what its disks kept");
        *self.node.lock() = Some(Arc::clone(&node));
        let router = self.router(&node);
        let authenticator = DirectoryAuthenticator::new(router.clone(), self.secret.clone());
        let doors = Doors::new(Arc::clone(&node), Arc::new(authenticator));
        let mut server = tonic::transport::Server::builder();
        let serving = server.add_service(doors.kv()).add_service(doors.node_admin()).add_service(doors.peer());
        let address = self.address.parse().expect("an address of ours");
        tokio::spawn(Arc::clone(&self).make_replicas(node));
        serving.serve(address).await.expect("the simulated port is free");
    }

    /// The replicas that the plan gives to every node. Asked again in each life, it does nothing.
    async fn make_replicas(self: Arc<Self>, node: Arc<Node>) {
        let voters: Vec<_> =
            self.seeds.iter().zip(1..).map(|(address, node_id)| v1::NodeRef { node_id, address: address.clone() }).collect();
        for group_id in 0..=super::GROUPS {
            while let Err(error) = node.create_replica(group_id, voters.clone()).await {
                self.trace.event(format_args!("node {} makes no replica of {group_id} yet: {error}", self.node_id));
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    fn router(&self, node: &Arc<Node>) -> Router {
        let kv = Arc::clone(node);
        let local = Local { node_id: self.node_id, kv, principal: Principal::Node(self.node_id) };
        Router::new(RouterConfig {
            seeds: self.seeds.clone(),
            token: self.secret.node_token(self.node_id),
            local: Some(local),
            ..RouterConfig::default()
        })
    }
}
