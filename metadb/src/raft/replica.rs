//! One replica of one group, in words that do not name openraft.

mod comparing;
mod observed;
mod transfers;
mod voice;

pub(crate) use observed::Observed;

use super::applier::{Applier, Point, Progress};
use super::compare::Slices;
use super::followed::Followed;
use super::link::Links;
use super::log_store::GroupLog;
use super::network::Network;
use super::snapshot::depot::Depot;
use super::snapshot::outgoing::Traffic;
use super::snapshot::{SnapshotError, state_hash};
use super::{Answer, Member, Payload, Types};
use crate::clock::Clocks;
use crate::machine::View;
use crate::metrics::HANDLES;
use crate::node::room::Gauge;
use bytes::Bytes;
use metadb_engine::log::Log;
use metadb_engine::{EngineError, Store};
use metadb_proto::planted::{self, Bug};
use metadb_proto::{Error, v1};
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{ClientWriteError, Fatal, ForwardReason, ForwardToLeader, InitializeError, LinearizableReadError, RaftError};
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;
use openraft::{Config, ConfigError, Instant as _, LinearizerOption, SnapshotPolicy, StepDownPolicy};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// Entries of one append to a follower; their bytes are bounded by the log.
const APPEND_ENTRIES: u64 = 512;
/// Requests to one replica's core that wait.
const CORE_QUEUE: u64 = 8192;
/// When a caller may try again that met a group between two leaders.
const LEADERLESS_RETRY: Duration = Duration::from_millis(50);

type Raft = openraft::Raft<Types, Applier>;

/// How fast a group notices that its leader is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    /// How often a leader shows that it lives.
    pub heartbeat: Duration,
    /// Shortest time without a leader before a replica stands for election.
    pub election_min: Duration,
    /// Longest such time, and the leader's lease: a killed leader is replaced after the lease and one election time.
    pub election_max: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Timings {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(200),
            election_max: Duration::from_millis(400),
        }
    }
}

impl Timings {
    /// How old the last acknowledgement of a quorum may be for a read to need no round trip: the lease less a quarter, which is the margin
    /// for clocks that run at different rates.
    fn lease(&self) -> Duration {
        self.election_max * 3 / 4
    }

    /// openraft's settings for it.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the times do not fit each other.
    pub(crate) fn config(&self, cluster_id: &str) -> Result<Arc<Config>, Error> {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let config = Config {
            cluster_name: cluster_id.to_owned(),
            heartbeat_interval: ms(self.heartbeat),
            election_timeout_min: ms(self.election_min),
            election_timeout_max: ms(self.election_max),
            max_payload_entries: APPEND_ENTRIES,
            // Only what was purged needs a snapshot, however far behind a follower is.
            replication_lag_threshold: u64::MAX,
            snapshot_policy: SnapshotPolicy::Never,
            // The node purges, behind what is durable; openraft never does by itself.
            max_in_snapshot_log_to_keep: u64::MAX,
            api_channel_size: Some(CORE_QUEUE),
            notification_channel_size: Some(CORE_QUEUE),
            removed_leader_step_down: StepDownPolicy::After(ms(self.heartbeat)),
            quorum_loss_probe_interval: Some(ms(self.election_max) * 3),
            enable_pre_vote: Some(true),
            // A restarted leader may know less than it acknowledged before: it must be elected again.
            enable_leader_restore: Some(false),
            allow_log_reversion: Some(false),
            ..Config::default()
        };
        let invalid = |error: ConfigError| Error::invalid("timings", "heartbeat < election_min < election_max", error.to_string());
        config.validate().map(Arc::new).map_err(invalid)
    }
}

/// What a replica is made of.
pub(crate) struct Parts {
    pub(crate) node_id: u64,
    pub(crate) group_id: u32,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) log: Log,
    pub(crate) depot: Arc<Depot>,
    pub(crate) links: Links,
    pub(crate) clocks: Arc<Clocks>,
    pub(crate) timings: Timings,
    pub(crate) config: Arc<Config>,
    pub(crate) room: Arc<Gauge>,
    /// It is silent before it has applied this index; 0: it is not.
    pub(crate) silent_through: u64,
}

/// Why a replica did not open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// Its state could not be opened.
    #[error("state of the group: {0}")]
    State(#[from] SnapshotError),
    /// Its log could not be opened.
    #[error("log of the group: {0}")]
    Log(#[from] Fatal<Types>),
}

impl OpenError {
    /// Whether another attempt meets the same: what is on disk is wrong, not the disk.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            OpenError::State(SnapshotError::Engine(error)) => matches!(error, EngineError::Corrupt { .. }),
            OpenError::State(
                SnapshotError::Codec(_) | SnapshotError::Gone | SnapshotError::Corrupt { .. } | SnapshotError::OutOfOrder { .. },
            ) => true,
            OpenError::Log(_) => false,
        }
    }
}

/// One replica of one group.
pub(crate) struct Replica {
    node_id: u64,
    group_id: u32,
    raft: Raft,
    log: GroupLog,
    store: Arc<dyn Store>,
    depot: Arc<Depot>,
    traffic: Arc<Traffic>,
    progress: Arc<Progress>,
    clocks: Arc<Clocks>,
    timings: Timings,
    votes_from: Option<Instant>,
    receiving: tokio::sync::Mutex<()>,
    later_offer: tokio::sync::Notify,
    received_at: Mutex<Instant>,
    replayed_entries: u64,
    problem: Arc<Mutex<Option<String>>>,
    room: Arc<Gauge>,
    /// Dead when nothing can apply entries any more.
    applying: Weak<()>,
    links: Links,
    slices: Arc<Slices>,
    /// Why its state is not to be trusted.
    distrusted: Mutex<Option<String>>,
    /// The index up to which it is silent; 0: it is not.
    silent: Arc<AtomicU64>,
    /// The term in which this replica began to hand its leadership over; 0: none.
    hands_over_in: AtomicU64,
    /// The last term in which a quorum confirmed this replica as the leader.
    confirmed_in: AtomicU64,
}

/// A proposal in the leader's hands.
pub(crate) struct Submitted {
    group_id: u32,
    answer: openraft::alias::OneshotReceiverOf<Types, ClientWriteResult<Types>>,
}

impl Submitted {
    /// What it did.
    pub(crate) async fn outcomes(self) -> Result<Answer, Error> {
        match self.answer.await {
            Ok(Ok(response)) => Ok(response.data),
            Ok(Err(error)) => Err(write_error(self.group_id, error)),
            Err(_) => Err(Error::UnknownOutcome { message: format!("group {} stopped before it answered", self.group_id) }),
        }
    }
}

impl Replica {
    /// Opens a replica, with whatever state and log it has.
    pub(crate) async fn open(parts: Parts) -> Result<Self, OpenError> {
        let Parts { node_id, group_id, store, log, depot, links, clocks, timings, config, room, silent_through } = parts;
        let log = GroupLog::new(log, group_id);
        let restarted = log.has_history();
        let applier = Applier::open(group_id, Arc::clone(&store), Arc::clone(&depot)).await?;
        let (progress, traffic, applying, slices) = (applier.progress(), applier.traffic(), applier.alive(), applier.slices());
        let applied_index = progress.applied().position.map_or(0, |id| id.index);
        let replayed_entries = log.committed_behind(applied_index).await.map_err(|error| log_error(&error))?;
        if replayed_entries > 0 {
            tracing::info!(group_id, replayed_entries, "entries are applied again that were not flushed before the stop");
        }
        #[cfg(madsim)]
        log.tell_opened(applied_index).await.map_err(|error| log_error(&error))?;
        let network = Network { links: links.clone(), node_id, group_id, depot: Arc::clone(&depot), traffic: Arc::clone(&traffic) };
        let raft = Raft::build(node_id, config, network, log.clone(), applier).await?;
        raft.runtime_config().elect(!restarted && silent_through == 0);
        // The node beats for all its groups at once.
        raft.runtime_config().heartbeat(false);
        raft.run();
        let problem = Arc::default();
        tokio::spawn(supervise(raft.clone(), group_id, Arc::clone(&problem)));
        let mut replica = Replica {
            node_id,
            group_id,
            raft,
            log,
            store,
            depot,
            traffic,
            progress,
            clocks,
            timings,
            votes_from: None,
            receiving: tokio::sync::Mutex::new(()),
            later_offer: tokio::sync::Notify::new(),
            received_at: Mutex::new(Instant::now()),
            replayed_entries,
            problem,
            room,
            applying,
            links,
            slices,
            distrusted: Mutex::default(),
            silent: Arc::new(AtomicU64::new(silent_through)),
            hands_over_in: AtomicU64::new(0),
            confirmed_in: AtomicU64::new(0),
        };
        if restarted && planted::is(Bug::RestartVotesAtOnce) {
            replica.raft.runtime_config().elect(true);
        } else if restarted {
            replica.sit_out_lease().await?;
        } else if silent_through > 0 {
            replica.stand_for_election_after(Duration::ZERO);
        }
        Ok(replica)
    }

    pub(super) fn raft(&self) -> &Raft {
        &self.raft
    }

    pub(super) fn hands_over_in(&self) -> &AtomicU64 {
        &self.hands_over_in
    }

    pub(super) fn confirmed_in(&self) -> &AtomicU64 {
        &self.confirmed_in
    }

    pub(super) fn votes_from(&self) -> Option<Instant> {
        self.votes_from
    }

    pub(super) fn receiving(&self) -> &tokio::sync::Mutex<()> {
        &self.receiving
    }

    pub(crate) fn room(&self) -> &Arc<Gauge> {
        &self.room
    }

    /// The clocks of its node.
    pub(crate) fn clocks(&self) -> &Clocks {
        &self.clocks
    }

    /// The entries of sampled requests.
    pub(crate) fn followed(&self) -> &Arc<Followed> {
        self.log.followed()
    }

    /// Whether leadership was confirmed so lately that a read needs no message.
    pub(crate) fn lease_is_fresh(&self) -> bool {
        let metrics = self.raft.data_metrics();
        let metrics = metrics.borrow_watched();
        metrics.last_quorum_acked.as_ref().is_some_and(|at| at.elapsed() < self.timings.lease())
    }

    /// Which group.
    pub(crate) fn group_id(&self) -> u32 {
        self.group_id
    }

    /// Which node it is on.
    pub(crate) fn node_id(&self) -> u64 {
        self.node_id
    }

    /// The read side of its state.
    pub(crate) fn view(&self) -> Arc<View> {
        self.progress.view()
    }

    /// How far it has applied.
    pub(crate) fn applied(&self) -> Point {
        self.progress.applied()
    }

    /// How far what it applied is durable.
    pub(crate) fn flushed_index(&self) -> u64 {
        self.progress.flushed().unwrap_or(0)
    }

    /// How many snapshots it installed since it was opened.
    pub(crate) fn snapshots_installed(&self) -> u64 {
        self.progress.snapshots_installed()
    }

    /// Why it stopped, if it did.
    pub(crate) fn problem(&self) -> Option<String> {
        self.problem.lock().clone()
    }

    /// The leader, if one is known now.
    pub(crate) fn leader(&self) -> Option<v1::NodeRef> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let node_id = metrics.current_leader?;
        let address = metrics.membership_config.get_node(&node_id)?.address.clone();
        Some(v1::NodeRef { node_id, address })
    }

    /// Whether it believes to be the leader.
    pub(crate) fn is_leader(&self) -> bool {
        self.raft.server_metrics().borrow_watched().current_leader == Some(self.node_id)
    }

    /// How long a group is without a leader at most, if enough of it live: a lease, an election, and its votes.
    pub(crate) fn election_time(&self) -> Duration {
        self.timings.election_max * 3
    }

    /// Whether the group has members.
    pub(crate) async fn is_initialised(&self) -> Result<bool, Error> {
        self.raft.is_initialized().await.map_err(|error| stopped(self.group_id, &error))
    }

    /// Gives the group its first voters. Asked again, it does nothing.
    pub(crate) async fn initialise(&self, voters: BTreeMap<u64, Member>) -> Result<(), Error> {
        match self.raft.initialize(voters).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotInMembers(error))) => {
                Err(Error::invalid("voters", "this node among them", error.to_string()))
            }
            Err(RaftError::Fatal(error)) => Err(stopped(self.group_id, &error)),
        }
    }

    /// Hands a proposal to the core. An error means that nothing was done.
    pub(crate) async fn submit(&self, proposal: Bytes) -> Result<Submitted, Error> {
        let (responder, answer) = ProgressResponder::complete_only();
        let sent = self.raft.client_write_ff(Payload(proposal), Some(responder)).await;
        sent.map_err(|error| stopped(self.group_id, &error))?;
        Ok(Submitted { group_id: self.group_id, answer })
    }

    /// The index that must be applied for a read that began before this call to see every write that was answered before it.
    pub(crate) async fn read_index(&self) -> Result<u64, Error> {
        #[cfg(madsim)]
        let read = super::probe::ask(self.group_id);
        let index = self.confirmed_index().await?;
        #[cfg(madsim)]
        super::probe::tell(self.group_id, || super::probe::Did::ReadAt { read, index });
        Ok(index)
    }

    /// Tells that a read which must see an index goes on to be answered.
    #[cfg(madsim)]
    pub(crate) fn tell_served(&self, index: u64) {
        let applied = self.applied().position.map_or(0, |id| id.index);
        super::probe::tell(self.group_id, || super::probe::Did::Served { index, applied });
    }

    async fn confirmed_index(&self) -> Result<u64, Error> {
        if planted::is(Bug::ReadWithoutLease) {
            return Ok(self.progress.applied().position.map_or(0, |id| id.index));
        }
        let option = LinearizerOption::new(Some(self.timings.lease()), true);
        match self.raft.get_read_linearizer(option).await {
            Ok(linearizer) => Ok(linearizer.read_log_id().index()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => Err(forwarded(self.group_id, forward)),
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(error))) => {
                Err(Error::unavailable(format!("group {}: {error}", self.group_id), LEADERLESS_RETRY))
            }
            Err(RaftError::Fatal(error)) => Err(stopped(self.group_id, &error)),
        }
    }

    /// Waits until an entry was applied here.
    pub(crate) async fn applied_through(&self, index: u64) {
        if planted::is(Bug::ReadBeforeApplied) {
            return;
        }
        self.progress.applied_through(index).await;
    }

    /// Notes that everything up to a point is durable, and purges the log behind it but for about `budget` bytes.
    pub(crate) async fn note_flushed(&self, point: Point, budget: u64) -> Result<(), Error> {
        #[cfg(madsim)]
        super::probe::tell(self.group_id, || super::probe::Did::Flushed { through: point.position.map_or(0, |id| id.index) });
        self.progress.note_flushed(point);
        let Some(flushed) = self.progress.flushed() else { return Ok(()) };
        let Some(upto) = self.log.purgeable(budget).map(|index| index.min(flushed)) else { return Ok(()) };
        let seen = self.observe();
        let upto = self.hold_log(upto, &seen);
        if upto <= seen.purged_index {
            return Ok(());
        }
        let error = |error: Fatal<Types>| stopped(self.group_id, &error);
        self.raft.trigger().snapshot().await.map_err(error)?;
        // openraft purges no further than the snapshot that it knows, so the purge must come after it has heard of it.
        let mut metrics = self.raft.metrics();
        let heard = async {
            while metrics.borrow_watched().snapshot.is_none_or(|id| id.index < upto) {
                if metrics.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(Duration::from_secs(2), heard).await.is_ok() {
            self.traffic.note_purged(upto);
            self.raft.trigger().purge_log(upto).await.map_err(error)?;
        }
        Ok(())
    }

    /// BLAKE3 over its state, in hex, and the index it was computed at.
    pub(crate) async fn state_hash(&self) -> Result<(u64, String), Error> {
        let failed = |error: &dyn std::fmt::Display| Error::internal(format!("hash of group {}: {error}", self.group_id));
        // The view and the position belong together only while the applier rests.
        let store = Arc::clone(&self.store);
        let progress = Arc::clone(&self.progress);
        let taken = self.raft.with_state_machine(move |_| Box::pin(async move { (store.snapshot(), progress.applied()) })).await;
        let (view, point) = taken.map_err(|error| failed(&error))?;
        let index = point.position.map_or(0, |id| id.index);
        let hash = state_hash(view, self.group_id, index).await.map_err(|error| failed(&error))?;
        Ok((index, hash))
    }

    /// Stops it. What it acknowledged stays in the log.
    pub(crate) async fn shutdown(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(group_id = self.group_id, %error, "a replica did not stop cleanly");
        }
    }
}

fn log_error(error: &std::io::Error) -> OpenError {
    OpenError::Log(Fatal::StorageError(openraft::StorageError::read(openraft::AnyError::new(error))))
}

/// Notices when the core dies: a panic changes no state that could be looked at, it only drops the sender of the metrics.
async fn supervise(raft: Raft, group_id: u32, problem: Arc<Mutex<Option<String>>>) {
    let mut metrics = raft.metrics();
    let mut led = None;
    while metrics.borrow_watched().running_state.is_ok() {
        let leader = {
            let seen = metrics.borrow_watched();
            seen.current_leader.map(|leader| (leader, seen.current_term))
        };
        if leader.is_some() && leader != led {
            HANDLES.leader_changes.increment(1);
            led = leader;
        }
        if metrics.changed().await.is_err() {
            break;
        }
    }
    let state = metrics.borrow_watched().running_state.clone();
    let cause = match state {
        Err(cause) => cause,
        Ok(()) => match raft.with_raft_state(|_| ()).await {
            Err(cause) => cause,
            Ok(()) => return,
        },
    };
    if matches!(cause, Fatal::Stopped) {
        return;
    }
    tracing::error!(group_id, %cause, "a replica failed");
    *problem.lock() = Some(cause.to_string());
}

pub(super) fn stopped(group_id: u32, error: &Fatal<Types>) -> Error {
    Error::unavailable(format!("the replica of group {group_id} on this node is stopped: {error}"), Duration::from_millis(500))
}

fn forwarded(group_id: u32, forward: ForwardToLeader<Types>) -> Error {
    let retry = |why: &str| Error::unavailable(format!("group {group_id}: {why}"), LEADERLESS_RETRY);
    match (forward.reason, forward.leader_id, forward.leader_node) {
        (ForwardReason::LeaseExpired, _, _) => retry("the leader has not heard from a quorum for its lease"),
        (ForwardReason::LeadershipTransfer, _, _) => retry("leadership is being handed over"),
        (ForwardReason::NotLeader, Some(node_id), Some(member)) => {
            let leader = v1::NodeRef { node_id, address: member.address };
            let redirect = v1::Redirect { group_id, leader: Some(leader), epoch: 0, ..Default::default() };
            Error::Moved { message: format!("node {node_id} leads group {group_id}"), redirect }
        }
        (ForwardReason::NotLeader, _, _) => retry("no leader is known"),
    }
}

pub(super) fn write_error(group_id: u32, error: ClientWriteError<Types>) -> Error {
    match error {
        ClientWriteError::ForwardToLeader(forward) => forwarded(group_id, forward),
        ClientWriteError::LogEntryDiscarded(_) => {
            Error::UnknownOutcome { message: format!("group {group_id} changed its leader before the entry was committed") }
        }
        ClientWriteError::ChangeMembershipError(error) => Error::unavailable(format!("group {group_id}: {error}"), LEADERLESS_RETRY),
        ClientWriteError::PreconditionFailed(error) => Error::Conflict { message: format!("group {group_id}: {error}") },
    }
}
