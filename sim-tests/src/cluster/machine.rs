//! One machine: its disk and store, which outlive the lives of its node, and what happens in such a life.

use super::identity::Identity;
use crate::planted::{LyingDisk, Planted};
use crate::trace::Trace;
use madsim::task::NodeId;
use metadb::clock::MAX_CLOCK_OFFSET;
use metadb::doors::Doors;
use metadb::node::{Node, NodeConfig, Parts, SnapshotLimits, Upkeep, quarantine};
use metadb_engine::disk::Disk;
use metadb_engine::log::LogOptions;
use metadb_engine::sim::{Kind, SimDisk, SimStore};
use metadb_proto::principal::ClusterSecret;
use metadb_proto::settings::{Labels, Settings};
use metadb_proto::{Principal, v1};
use parking_lot::Mutex;
use shard_router::balance::plan::Floors;
use shard_router::balance::{Balancer, Pace};
use shard_router::credentials::DirectoryAuthenticator;
use shard_router::mover::Mover;
use shard_router::operator::Operator;
use shard_router::reconcile::Reconciler;
use shard_router::settings::{Follower, Keep};
use shard_router::{Local, Router, RouterConfig};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Where balancing is on it plans every second or two, and hardly anything is too little to be moved.
const BALANCE: Pace = Pace {
    look: Duration::from_millis(500),
    round: Duration::from_millis(1500),
    looks: 2,
    rest: Duration::from_secs(3),
    floors: Floors { bytes: 4096.0, requests: 5.0, count: 1.0 },
};

/// Small, so that a run of seconds flushes, purges and replays often, and a follower that was away for seconds may need a snapshot.
const UPKEEP: Upkeep = Upkeep { flush_log_bytes: 64 << 10, flush_interval: Duration::from_secs(2), keep_log_bytes: 16 << 10 };
/// Nearly nothing is kept: whoever was away for a second needs a snapshot.
const BARE_UPKEEP: Upkeep = Upkeep { flush_log_bytes: 16 << 10, flush_interval: Duration::from_millis(500), keep_log_bytes: 1 << 10 };

/// Whatever the wall clock shows is believed.
const ANY_CLOCK: Duration = Duration::from_secs(365 * 86_400);

/// Small and slow, so that a snapshot is many chunks of many files, and can be met in the middle of its way.
const SNAPSHOTS: SnapshotLimits = SnapshotLimits {
    file_bytes: 1 << 10,
    chunk_bytes: 256,
    bytes_per_s: 96 << 10,
    at_a_time: 2,
    keep_idle: Duration::from_secs(20),
    stall: Duration::from_millis(500),
};

/// Longest time that it takes to write the identity durably, and from the open door to the first word to the directory.
const CLAIM: Duration = Duration::from_millis(50);

/// Settings kept as the binary keeps them in a file.
#[derive(Clone, Default)]
struct KeptSettings(Arc<Mutex<Option<v1::SettingsSnapshot>>>);

impl Keep for KeptSettings {
    fn kept(&self) -> Option<v1::SettingsSnapshot> {
        self.0.lock().clone()
    }

    fn keep(&self, snapshot: v1::SettingsSnapshot) -> futures::future::BoxFuture<'_, ()> {
        *self.0.lock() = Some(snapshot);
        Box::pin(std::future::ready(()))
    }
}

/// What all machines of a cluster are made from.
pub(super) struct Seeded<'a> {
    pub(super) seed: u64,
    pub(super) secret: &'a ClusterSecret,
    pub(super) planted: Option<Planted>,
    pub(super) trace: &'a Trace,
}

/// A machine.
pub struct Machine {
    makes_cluster: bool,
    /// What its data folder says, which no crash takes.
    identity: Mutex<Option<Identity>>,
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
    wants_restart: AtomicBool,
    renewals: AtomicU64,
    spoilt: AtomicBool,
    /// The last settings that its node knew, which no crash takes.
    kept_settings: KeptSettings,
    upkeep: Upkeep,
    max_clock_offset: Duration,
    planted: Option<Planted>,
    trace: Trace,
}

impl Machine {
    pub(super) fn new(number: usize, addresses: &[String], plan: &Seeded<'_>) -> Arc<Self> {
        let Seeded { seed, secret, planted, trace } = *plan;
        let own = seed.wrapping_mul(1_000_003).wrapping_add(number as u64 * 17);
        Arc::new(Machine {
            makes_cluster: number == 0,
            identity: Mutex::default(),
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
            wants_restart: AtomicBool::new(false),
            renewals: AtomicU64::new(0),
            spoilt: AtomicBool::new(false),
            kept_settings: KeptSettings::default(),
            upkeep: if super::purges_early(seed) { BARE_UPKEEP } else { UPKEEP },
            max_clock_offset: if super::is_wild(seed) { ANY_CLOCK } else { MAX_CLOCK_OFFSET },
            planted,
            trace: trace.clone(),
        })
    }

    /// Which node of which cluster it is, once it knows.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        self.identity.lock().clone()
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

    /// Its number in the simulator.
    pub(crate) fn placed_at(&self) -> NodeId {
        self.placed.lock().expect("set when the cluster is made")
    }

    /// Its disk with the log.
    #[must_use]
    pub fn disk(&self) -> &Arc<SimDisk> {
        &self.disk
    }

    /// The newest segment of its log.
    fn newest_segment(&self) -> Option<String> {
        self.disk.mount().list().ok()?.into_iter().max()
    }

    /// How many bytes of the newest segment of its log are not synced. Older ones may end in what a life before did not sync: each life
    /// begins a new one and repeats there what it goes on with.
    pub(super) fn unsynced_bytes(&self) -> usize {
        self.newest_segment().map_or(0, |name| self.disk.unsynced_bytes(&name))
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

    /// One life of the node: from its disks to its doors, in the order of the binary. Ends only by being killed.
    pub(super) async fn live(self: Arc<Self>) {
        let life = self.lives.fetch_add(1, Ordering::Relaxed) + 1;
        self.trace.event(format_args!("{} begins life {life}", self.address));
        let identity = self.establish().await;
        self.trace.event(format_args!("{} is node {} of cluster {}", self.address, identity.node_id, identity.cluster_id));
        let node = self.start(&identity).await;
        *self.node.lock() = Some(Arc::clone(&node));
        let local = Local { node_id: identity.node_id, kv: Arc::clone(&node) as _, principal: Principal::Node(identity.node_id) };
        let router = self.router(identity.node_id, Some(local));
        let authenticator = DirectoryAuthenticator::new(router.clone(), self.secret.clone());
        let doors = Doors::new(Arc::clone(&node), Arc::new(authenticator));
        let mut server = tonic::transport::Server::builder();
        let serving = server.add_service(doors.kv()).add_service(doors.node_admin()).add_service(doors.peer());
        let address = self.address.parse().expect("an address of ours");
        tokio::task::spawn_local(Arc::clone(&self).await_condemnation(Arc::clone(&node)));
        let settings = node.config().settings.clone();
        tokio::task::spawn_local(Follower::new(router.clone(), settings.clone(), self.kept_settings.clone()).run());
        tokio::task::spawn_local(Arc::clone(&self).work(identity, Operator::new(router), node.node_ref(), settings));
        serving.serve(address).await.expect("the simulated port is free");
    }

    /// What the machine remembers; else the first one makes a cluster, and the others join it.
    async fn establish(&self) -> Identity {
        if let Some(identity) = self.identity() {
            return identity;
        }
        let identity =
            if self.makes_cluster { Identity::first() } else { Identity::ask(&Operator::new(self.router(0, None)), &self.address).await };
        // A node that dies here was given an id that it will never know.
        crate::workload::think(CLAIM).await;
        *self.identity.lock() = Some(identity.clone());
        identity
    }

    async fn start(&self, identity: &Identity) -> Arc<Node> {
        let mount: Arc<dyn Disk> = match self.planted {
            Some(Planted::SyncsAreLies) => Arc::new(LyingDisk(self.disk.mount())),
            Some(Planted::RepeatsWithoutId | Planted::StaleReads | Planted::Server(_)) | None => self.disk.mount(),
        };
        let spool: Arc<dyn Disk> = self.spool.mount();
        if quarantine::is_condemned(&*spool).expect("a spool without faults reads") {
            self.trace.event(format_args!("{} begins anew with empty disks", self.address));
            self.store.replace();
            self.disk.replace();
            quarantine::begin_anew(&*spool).expect("a spool without faults writes");
        }
        let log = quarantine::open_log(mount, LogOptions::default(), &*self.store, &*spool).await.expect("a log opens, or is set aside");
        let config = NodeConfig {
            upkeep: self.upkeep,
            max_clock_offset: self.max_clock_offset,
            snapshots: SNAPSHOTS,
            settings: Settings::new(Labels::default()),
            ..NodeConfig::new(identity.node_id, identity.cluster_id.clone(), self.address.clone())
        };
        let parts = Parts { store: self.store.clone(), log, spool, secret: self.secret.clone() };
        let node = Node::start(config, parts).await.expect("a node starts from what its disks kept");
        if self.makes_cluster {
            node.found().await.expect("a disk without faults takes a replica");
        }
        node
    }

    /// The binary puts a new process in its place then; here [`super::Cluster::tend`] does.
    async fn await_condemnation(self: Arc<Self>, node: Arc<Node>) {
        node.condemned().await;
        self.trace.event(format_args!("node {} is to begin anew", node.node_id()));
        self.renewals.fetch_add(1, Ordering::Relaxed);
        self.wants_restart.store(true, Ordering::Relaxed);
    }

    /// How often its node was to begin anew with empty disks.
    #[must_use]
    pub fn renewals(&self) -> u64 {
        self.renewals.load(Ordering::Relaxed)
    }

    /// Whether its node waits for a restart with empty disks; asked again, it does not.
    pub(super) fn take_restart(&self) -> bool {
        self.wants_restart.swap(false, Ordering::Relaxed)
    }

    /// Says that its disks are being spoilt: whatever its replicas tell of themselves is expected.
    pub(crate) fn spoil(&self) {
        self.spoilt.store(true, Ordering::Relaxed);
    }

    /// Whether its disks were spoilt.
    #[must_use]
    pub fn is_spoilt(&self) -> bool {
        self.spoilt.load(Ordering::Relaxed)
    }

    /// Flips a bit somewhere in its log, but not near the end of the newest segment: its last batch can't be told from a write that a
    /// crash tore. Says where.
    pub(crate) fn rot_log(&self) -> Option<(String, u64)> {
        let newest = self.newest_segment()?;
        let older = self.disk.rot_where(|name| name.starts_with("log-") && *name < *newest);
        older.or_else(|| self.disk.rot_first_half(&newest))
    }

    /// Flips a bit somewhere in a synced file of what was received of a snapshot of a group; says where.
    pub(crate) fn rot_received(&self, group_id: u32) -> Option<(String, u64)> {
        let prefix = format!("snapshot-in-{group_id:010}-");
        self.spool.rot_where(|name| name.starts_with(&prefix) && !name.ends_with("manifest"))
    }

    /// Its store.
    #[must_use]
    pub fn store(&self) -> &Arc<SimStore> {
        &self.store
    }

    /// Brings the node into the cluster, then reconciles for as long as it lives.
    async fn work(self: Arc<Self>, identity: Identity, operator: Operator, node: v1::NodeRef, settings: Settings) {
        let replicas = u32::try_from(self.seeds.len()).expect("few machines");
        // The door is open already: an operator may come before the cluster is made.
        crate::workload::think(CLAIM).await;
        identity.announce(&self.address, replicas, &operator).await;
        self.trace.event(format_args!("node {} is announced", identity.node_id));
        let mover = Mover::new(operator.clone(), node.clone(), settings.clone());
        let balancer = Balancer::new(operator.clone(), node.clone(), settings.clone(), BALANCE);
        let reconciler = Reconciler::new(operator, node);
        Box::pin(async { tokio::join!(reconciler.run(), mover.run(), balancer.run()) }).await;
    }

    fn router(&self, node_id: u64, local: Option<Local>) -> Router {
        let token = self.secret.node_token(node_id);
        Router::new(RouterConfig { seeds: self.seeds.clone(), token, local, ..RouterConfig::default() })
    }
}
