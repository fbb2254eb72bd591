//! A node: all replicas of one process, over one store, one log and one stream per peer.
//!
//! It opens what it finds, makes what it is told to make, keeps the store flushed and the log short, and leaves in good order. It
//! decides nothing: which groups exist and who their members are is told to it.

mod compare;
mod found;
pub mod quarantine;
mod rebuild;
pub mod room;
pub mod scrub;
pub(crate) mod silence;
mod upkeep;
mod watchdog;

use crate::clock::{Clocks, MAX_CLOCK_OFFSET};
use crate::group::{Group, LevelInForce};
use crate::host::Host;
use crate::metrics;
use crate::raft::link::Links;
use crate::raft::replica::{self, Replica};
use crate::raft::snapshot;
use crate::raft::snapshot::depot::Depot;
use crate::witness::{Busiest, SlowLog};
use metadb_engine::disk::Disk;
use metadb_engine::log::Log;
use metadb_engine::{EngineError, Store};
use metadb_proto::directory::DIRECTORY_GROUP;
use metadb_proto::planted::{self, Bug};
use metadb_proto::principal::ClusterSecret;
use metadb_proto::settings::Settings;
use metadb_proto::{Error, level, v1};
use metadb_telemetry::Samples;
use parking_lot::{Mutex, RwLock};
use quarantine::{Mark, Scope};
use room::Gauge;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::time::Instant;

pub use crate::raft::replica::Timings;
pub use crate::raft::snapshot::depot::{SnapshotLimits, SnapshotTotals};

/// How long a stopping node waits for other nodes to take over.
const STEP_ASIDE_TIMEOUT: Duration = Duration::from_secs(2);
/// When a caller may ask again whose replica did not open.
const OPEN_RETRY: Duration = Duration::from_millis(500);

/// A request that takes longer than this is worth a line in the log, unless the settings say otherwise.
const SLOW_REQUEST: Duration = Duration::from_millis(500);

/// When the store is flushed and how much log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upkeep {
    /// The store is flushed when the log grew by so many bytes since the last flush: it bounds the replay after a crash. About what fills
    /// a memtable, so that it makes no flush that would not come by itself.
    pub flush_log_bytes: u64,
    /// The store is flushed at least so often, if anything changed.
    pub flush_interval: Duration,
    /// Bytes of log kept behind what is flushed, of all groups together, so that a follower that lags needs no snapshot.
    pub keep_log_bytes: u64,
}

impl Default for Upkeep {
    fn default() -> Self {
        Upkeep { flush_log_bytes: 64 << 20, flush_interval: Duration::from_secs(300), keep_log_bytes: 256 << 20 }
    }
}

/// What a process uses of its machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Memory in RAM.
    pub resident_bytes: u64,
    /// CPU time since it started, in milliseconds.
    pub cpu_ms: u64,
}

/// Settings of a node.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Its id, never used for another node.
    pub node_id: u64,
    /// The cluster's id: 32 hex digits.
    pub cluster_id: String,
    /// host:port of its gRPC door, as other nodes reach it.
    pub address: String,
    /// The version of the binary.
    pub build: String,
    /// How fast a dead leader is replaced.
    pub timings: Timings,
    /// Flushing and purging.
    pub upkeep: Upkeep,
    /// Requests that take longer are told in the log; zero: none.
    pub slow_request: Duration,
    /// What the process uses, for the status: who knows it is outside of this crate.
    pub usage: fn() -> Usage,
    /// How far the wall clock may be from those of the other nodes before this one stops proposing.
    pub max_clock_offset: Duration,
    /// How snapshots travel.
    pub snapshots: SnapshotLimits,
    /// So much of each disk is kept in reserve, and never more than a twentieth of it: when it is touched, the node is read-only.
    pub disk_reserve_bytes: u64,
    /// What may change while it runs. Whoever starts the node keeps them fresh.
    pub settings: Settings,
}

/// What a disk keeps in reserve unless the settings say otherwise: memtables of all families, a segment, and compactions fit in.
const DISK_RESERVE_BYTES: u64 = 1 << 30;

impl NodeConfig {
    /// Settings with the defaults of everything that has one.
    pub fn new(node_id: u64, cluster_id: impl Into<String>, address: impl Into<String>) -> Self {
        NodeConfig {
            node_id,
            cluster_id: cluster_id.into(),
            address: address.into(),
            build: env!("CARGO_PKG_VERSION").to_owned(),
            timings: Timings::default(),
            upkeep: Upkeep::default(),
            slow_request: SLOW_REQUEST,
            usage: Usage::default,
            max_clock_offset: MAX_CLOCK_OFFSET,
            snapshots: SnapshotLimits::default(),
            disk_reserve_bytes: DISK_RESERVE_BYTES,
            settings: Settings::default(),
        }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Invalid`], naming the field.
    pub fn validate(&self) -> Result<(), Error> {
        if self.node_id == 0 {
            return Err(Error::invalid("node_id", "at least 1", "0"));
        }
        if self.address.is_empty() {
            return Err(Error::invalid("address", "host:port", "empty"));
        }
        if self.cluster_id.is_empty() || !self.cluster_id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(Error::invalid("cluster_id", "letters and digits", self.cluster_id.clone()));
        }
        self.snapshots.validate()?;
        self.timings.config(&self.cluster_id).map(|_| ())
    }
}

/// What a node works with.
pub struct Parts {
    /// The applied state.
    pub store: Arc<dyn Store>,
    /// The Raft log.
    pub log: Log,
    /// Where snapshots are spooled.
    pub spool: Arc<dyn Disk>,
    /// What proves nodes to each other.
    pub secret: ClusterSecret,
}

/// All replicas of one process.
pub struct Node {
    config: NodeConfig,
    store: Arc<dyn Store>,
    log: Log,
    spool: Arc<dyn Disk>,
    depot: Arc<Depot>,
    links: Links,
    clocks: Arc<Clocks>,
    level: LevelInForce,
    host: Arc<Host>,
    groups: RwLock<BTreeMap<u32, Arc<Group>>>,
    /// Replicas that could not be opened, and why.
    failed: Mutex<BTreeMap<u32, String>>,
    /// Replicas that can't be trusted or stopped by themselves.
    quarantined: Mutex<BTreeMap<u32, Mark>>,
    /// Those of them that ran in this process and may not have wound down yet.
    leaving: Mutex<BTreeMap<u32, Arc<Group>>>,
    room: Arc<Gauge>,
    /// Told when store and log are to be replaced by empty ones.
    condemned: tokio::sync::Notify,
    /// Held while a replica is made, so that it is made once.
    making: tokio::sync::Mutex<()>,
    /// Held while the store is flushed.
    flushing: tokio::sync::Mutex<()>,
    started: Instant,
    stopping: upkeep::Stopping,
    busiest: Busiest,
    slow_log: SlowLog,
    scrub: Arc<scrub::Scrub>,
    /// Replicas that were put in quarantine because their state differed from the others'.
    differed: AtomicU64,
}

impl Node {
    /// Opens every replica found on disk and starts the upkeep. A replica that does not open is told in the status; the others serve.
    ///
    /// # Errors
    /// [`Error::Invalid`] for impossible settings; [`Error::Internal`] if the store can't be read.
    pub async fn start(config: NodeConfig, parts: Parts) -> Result<Arc<Self>, Error> {
        config.validate()?;
        let Parts { store, log, spool, secret } = parts;
        let clocks = Arc::new(Clocks::new(config.max_clock_offset));
        let level = LevelInForce::default();
        let links = Links::new(config.node_id, &config.cluster_id, &secret, Arc::clone(&clocks), level.clone());
        let marked = match snapshot::marked_replicas(&*store) {
            // The store says so from now on, and the watchdog takes all of it out of service. The log names whom that concerns.
            Err(error @ EngineError::Corrupt { .. }) => {
                tracing::error!(%error, "the marks of this node's replicas do not read back");
                Vec::new()
            }
            read => read.map_err(|error| Error::internal(format!("store: {error}")))?,
        };
        let quarantined = quarantine::load(&*spool).map_err(|error| Error::internal(format!("quarantine: {error}")))?;
        let known = marked.into_iter().chain(log.groups());
        let found: BTreeSet<u32> = known.filter(|group_id| !quarantined.contains_key(group_id)).collect();
        let slow_log = SlowLog::new(config.slow_request);
        let room = Arc::<Gauge>::default();
        let depot = Depot::new(Arc::clone(&spool), config.snapshots, Arc::clone(&room));
        depot.tidy(&found).map_err(|error| Error::internal(format!("spool: {error}")))?;
        let host = Host::new(config.settings.clone());
        let node = Arc::new(Node {
            config,
            host,
            store,
            log,
            spool,
            depot,
            links,
            clocks,
            level,
            groups: RwLock::default(),
            failed: Mutex::default(),
            quarantined: Mutex::new(quarantined),
            leaving: Mutex::default(),
            room,
            condemned: tokio::sync::Notify::new(),
            making: tokio::sync::Mutex::new(()),
            flushing: tokio::sync::Mutex::new(()),
            started: Instant::now(),
            stopping: upkeep::Stopping::default(),
            busiest: Busiest::new(),
            slow_log,
            scrub: Arc::default(),
            differed: AtomicU64::new(0),
        });
        for group_id in found {
            if let Err(error) = node.open(group_id).await {
                tracing::error!(group_id, %error, "a replica did not open");
            }
        }
        node.finish_wiping().await;
        upkeep::start(&node);
        watchdog::start(&node);
        scrub::start(&node);
        compare::start(&node);
        Ok(node)
    }

    /// Goes on with what a crash interrupted.
    async fn finish_wiping(&self) {
        let marks = self.quarantined.lock().clone();
        for (group_id, mark) in marks {
            tracing::error!(group_id, reason = mark.reason, released = mark.released, "a replica is in quarantine");
            if mark.released
                && mark.scope == Scope::Replica
                && let Err(error) = self.wipe_released(group_id).await
            {
                tracing::warn!(group_id, %error, "a replica was not wiped");
            }
        }
    }

    async fn open(&self, group_id: u32) -> Result<Arc<Group>, Error> {
        let parts = replica::Parts {
            node_id: self.config.node_id,
            group_id,
            store: Arc::clone(&self.store),
            log: self.log.clone(),
            depot: Arc::clone(&self.depot),
            links: self.links.clone(),
            clocks: Arc::clone(&self.clocks),
            timings: self.config.timings,
            config: self.config.timings.config(&self.config.cluster_id)?,
            room: Arc::clone(&self.room),
            silent_through: silence::load(&*self.spool, group_id).unwrap_or(u64::MAX),
        };
        match Box::pin(Replica::open(parts)).await {
            Ok(replica) => {
                let group = Group::start(self.config.node_id, replica, self.level.clone(), &self.host);
                self.failed.lock().remove(&group_id);
                self.groups.write().insert(group_id, Arc::clone(&group));
                Ok(group)
            }
            Err(error) => {
                let message = error.to_string();
                if error.is_final() {
                    self.quarantined.lock().insert(group_id, Mark::new(Scope::Replica, message.clone()));
                } else {
                    self.failed.lock().insert(group_id, message.clone());
                }
                Err(Error::unavailable(format!("the replica of group {group_id} did not open: {message}"), OPEN_RETRY))
            }
        }
    }

    /// What it knows of its peers' clocks.
    pub(crate) fn clocks(&self) -> &Clocks {
        &self.clocks
    }

    /// Its settings.
    #[must_use]
    pub fn config(&self) -> &NodeConfig {
        &self.config
    }

    /// Its id.
    #[must_use]
    pub fn node_id(&self) -> u64 {
        self.config.node_id
    }

    /// How others reach it.
    #[must_use]
    pub fn node_ref(&self) -> v1::NodeRef {
        v1::NodeRef { node_id: self.config.node_id, address: self.config.address.clone() }
    }

    /// The tenants that ask most.
    pub(crate) fn busiest(&self) -> &Busiest {
        &self.busiest
    }

    /// Where slow requests are told of.
    pub(crate) fn slow_log(&self) -> &SlowLog {
        &self.slow_log
    }

    /// Tells whoever scrapes how the node is: log, store, peers and every replica.
    pub fn observe(&self, samples: &mut Samples) {
        self.log.stats().observe(samples);
        self.store.observe(samples);
        self.links.numbers().iter().for_each(|peer| metrics::observe_peer(peer, samples));
        let groups = self.groups();
        groups.iter().for_each(|group| group.observe(samples));
        let led = groups.iter().filter(|group| group.is_leader()).count();
        let roles = [("leader", led), ("other", groups.len() - led), ("failed", self.failed.lock().len())];
        metrics::observe_node(self.started.elapsed(), &roles, samples);
        let is_full = self.room.room() != room::Room::Plenty;
        metrics::observe_disks(self.room.status().as_ref(), is_full, self.quarantined(), samples);
        metrics::observe_snapshots(&self.snapshots(), samples);
        self.observe_scrub(samples);
        metrics::observe_differed(self.differed(), samples);
    }

    /// What snapshots from and to this node came to since it started.
    #[must_use]
    pub fn snapshots(&self) -> SnapshotTotals {
        self.depot.counts.totals()
    }

    /// The group of that id, if this node has a replica of it.
    #[must_use]
    pub fn group(&self, group_id: u32) -> Option<Arc<Group>> {
        self.groups.read().get(&group_id).cloned()
    }

    /// All groups of which this node has a replica, by id.
    #[must_use]
    pub fn groups(&self) -> Vec<Arc<Group>> {
        self.groups.read().values().cloned().collect()
    }

    /// The group of that id.
    ///
    /// # Errors
    /// [`Error::NotFound`] if this node has no replica of it.
    pub fn require_group(&self, group_id: u32) -> Result<Arc<Group>, Error> {
        self.group(group_id).ok_or_else(|| Error::not_found(format!("node {} has no replica of group {group_id}", self.config.node_id)))
    }

    /// Makes a replica of a group. With voters, the one among them with the lowest id gives the group its first members; without, the
    /// replica waits to be added by the group's leader. Asked again, it answers the same.
    ///
    /// # Errors
    /// [`Error::Invalid`] for impossible voters; [`Error::Unavailable`] if it could not be made.
    pub async fn create_replica(&self, group_id: u32, voters: Vec<v1::NodeRef>) -> Result<(), Error> {
        self.create_first_replica(group_id, voters, 0).await
    }

    /// As [`Node::create_replica`]; `first`, if it is not 0, gives the group its first members instead of the lowest id. Several may do so
    /// with the same voters: they begin the same log.
    ///
    /// # Errors
    /// As [`Node::create_replica`].
    pub async fn create_first_replica(&self, group_id: u32, voters: Vec<v1::NodeRef>, first: u64) -> Result<(), Error> {
        let making = self.making.lock().await;
        let group = match self.group(group_id) {
            Some(group) => group,
            None => {
                if group_id == DIRECTORY_GROUP && !voters.is_empty() && self.has_founded()? {
                    // It was made once, and lost since: whoever has it adds this node. A second one would be a second cluster.
                    return Ok(());
                }
                self.check_trusted(group_id)?;
                let failed = |error| Error::unavailable(format!("group {group_id}: {error}"), OPEN_RETRY);
                #[cfg(madsim)]
                crate::raft::probe::tell(group_id, || crate::raft::probe::Did::Made);
                snapshot::mark_replica(&*self.store, group_id).map_err(failed)?;
                self.store.flush().await.map_err(failed)?;
                self.open(group_id).await?
            }
        };
        drop(making);
        let first = if first == 0 { voters.iter().map(|voter| voter.node_id).min() } else { Some(first) };
        if first == Some(self.config.node_id) && !voters.is_empty() {
            group.initialise(&voters).await?;
        }
        Ok(())
    }

    /// Makes a replica that waits to be added by the group's leader, and that neither votes nor stands for election before it has applied
    /// this index: this node may have been a member before, and have forgotten what it promised.
    ///
    /// # Errors
    /// As [`Node::create_replica`].
    pub async fn create_silent_replica(&self, group_id: u32, through: u64) -> Result<(), Error> {
        if self.group(group_id).is_none() && through > 0 {
            let _making = self.making.lock().await;
            self.check_trusted(group_id)?;
            let kept = silence::keep(&*self.spool, group_id, through);
            kept.map_err(|error| Error::unavailable(format!("group {group_id}: {error}"), OPEN_RETRY))?;
        }
        self.create_replica(group_id, Vec::new()).await
    }

    /// Refuses to make what is in quarantine, or to make anything in a store that is not believed.
    fn check_trusted(&self, group_id: u32) -> Result<(), Error> {
        let quarantined = self.quarantined.lock();
        let doubted = quarantined.get(&group_id).or_else(|| quarantined.values().find(|mark| mark.scope == Scope::Node));
        match doubted {
            Some(mark) => Err(Error::unavailable(format!("in quarantine on node {}: {}", self.config.node_id, mark.reason), OPEN_RETRY)),
            None => Ok(()),
        }
    }

    /// Replicas that do not serve, and why.
    fn unserved(&self) -> Vec<v1::GroupStatus> {
        let status = |group_id: &u32, problem: &str, rebuild_ticket| v1::GroupStatus {
            group_id: *group_id,
            role: v1::Role::Failed.into(),
            problem: problem.to_owned(),
            rebuild_ticket,
            ..Default::default()
        };
        let failed = self.failed.lock();
        let quarantined = self.quarantined.lock();
        let failed = failed.iter().map(|(group_id, problem)| status(group_id, problem, 0));
        let marked = quarantined.iter().map(|(group_id, mark)| {
            let kept = "in quarantine; kept as it is until its group has a majority without it, then rebuilt from there";
            status(group_id, &format!("{}: {kept}", mark.reason), mark.ticket)
        });
        failed.chain(marked).collect()
    }

    /// The state of the node and of the groups asked for, these with hashes; of all groups without hashes, if none is asked for.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a group of which this node has no replica; [`Error::Internal`] if a state can't be read.
    pub async fn status(&self, group_ids: &[u32]) -> Result<v1::StatusResponse, Error> {
        let mut groups = Vec::new();
        for group_id in group_ids {
            groups.push(self.require_group(*group_id)?.status_with_hash().await?);
        }
        if group_ids.is_empty() {
            groups = self.groups().iter().map(|group| group.status()).collect();
            groups.extend(self.unserved());
        }
        let (log, snapshots) = (self.log.stats(), self.snapshots());
        let busiest = self.busiest.last();
        let usage = (self.config.usage)();
        Ok(v1::StatusResponse {
            node: Some(self.node_ref()),
            cluster_id: self.config.cluster_id.clone(),
            build: self.config.build.clone(),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            groups,
            log_bytes: log.bytes,
            log_syncs: log.syncs,
            data_bytes: self.store.size_bytes(),
            busiest_tenants: busiest.tenants,
            busiest_shards: busiest.shards,
            busiest_window_ms: u32::try_from(busiest.window.as_millis()).unwrap_or(u32::MAX),
            requests: self.busiest.requests(),
            resident_bytes: usage.resident_bytes,
            cpu_ms: usage.cpu_ms,
            heartbeats: self.links.heartbeats().0,
            heartbeat_messages: self.links.heartbeats().1,
            clock_ahead_ms: self.clocks.ahead_ms(),
            clock_problem: self.clocks.problem().unwrap_or_default(),
            feature_level: self.level.get().into(),
            oldest_level: level::OLDEST.into(),
            newest_level: level::NEWEST.into(),
            snapshot_bytes_sent: snapshots.sent_bytes,
            snapshot_bytes_received: snapshots.received_bytes,
            snapshots_resumed: snapshots.resumed,
            snapshot_parts_rotten: snapshots.rotten_parts,
            snapshot_bytes_per_s: snapshots.bytes_per_s,
            snapshot_limit_bytes_per_s: self.config.snapshots.bytes_per_s,
            disk: self.room.status(),
            problems: self.problems(),
            settings_revision: self.config.settings.revision(),
            scrub: Some(self.scrub_status()),
        })
    }

    /// Proposes by the rules of this feature level from now on, in all groups. A lower one than now changes nothing.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a level that this build does not know.
    pub fn raise_level(&self, request: v1::RaiseLevelRequest) -> Result<u16, Error> {
        self.level.raise(&request)
    }

    /// Makes everything that was applied durable and purges the log behind it, but for what is kept for followers that lag.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the store can't be flushed.
    pub async fn flush(&self) -> Result<(), Error> {
        self.flush_keeping(self.config.upkeep.keep_log_bytes).await
    }

    /// The same, keeping about so many bytes of log: a follower that lacks more gets a snapshot.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the store can't be flushed.
    pub async fn flush_keeping(&self, log_bytes: u64) -> Result<(), Error> {
        let _alone = self.flushing.lock().await;
        // Read before the flush: it covers at least this.
        let groups: Vec<_> = self.groups().into_iter().map(|group| (group.applied(), group)).collect();
        if !planted::is(Bug::FlushIsSkipped) {
            self.store.flush().await.map_err(|error| Error::unavailable(format!("flush: {error}"), OPEN_RETRY))?;
        }
        let budget = log_bytes / u64::try_from(groups.len().max(1)).unwrap_or(u64::MAX);
        for (point, group) in groups {
            group.note_flushed(point, budget).await;
        }
        Ok(())
    }

    /// Hands over the leadership of all groups that it leads, as far as somebody takes it.
    async fn step_aside(&self) {
        let deadline = Instant::now() + STEP_ASIDE_TIMEOUT;
        futures::future::join_all(self.groups().iter().map(|group| group.step_aside(deadline))).await;
    }

    /// Leaves in good order: hands leadership over, stops the replicas, flushes, and closes the log.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if what was acknowledged stays in the log but could not be flushed too.
    pub async fn stop(&self) -> Result<(), Error> {
        self.stopping.begin();
        let groups = self.groups();
        self.step_aside().await;
        futures::future::join_all(groups.iter().map(|group| group.shutdown())).await;
        let _alone = self.flushing.lock().await;
        let failed = |error| Error::unavailable(format!("stop: {error}"), OPEN_RETRY);
        self.store.flush().await.map_err(failed)?;
        self.log.close().await.map_err(failed)
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("node_id", &self.config.node_id).field("address", &self.config.address).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(madsim)))]
mod tests;
