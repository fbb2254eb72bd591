//! Feeds what is committed to the machine, and answers who proposed it.
//!
//! The store is its own snapshot: what was flushed is what may be purged from the log, so building a snapshot is telling how far the last
//! flush reached, and sending one is reading from a view of the store.

use super::codec::{decode_log_id, decode_stored_membership, encode_log_id, encode_stored_membership};
use super::compare::Slices;
use super::log_store::io_error;
#[cfg(madsim)]
use super::probe;
use super::snapshot::depot::Depot;
use super::snapshot::incoming::take_all;
use super::snapshot::outgoing::{Outgoing, Traffic};
use super::snapshot::{SnapshotData, SnapshotError, import};
use super::watch::{OrderedWatch, Receiver, Sender};
use super::{Answer, Entry, LogId, SnapshotMeta, StoredMembership, Types};
use crate::machine::{Input, InputBody, Machine, View};
use crate::metrics::HANDLES;
use futures::{Stream, StreamExt as _};
use metadb_engine::{EngineError, Store};
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot};
use openraft::{EntryPayload, OptionalSend};
use openraft_rt::watch::{Watch as _, WatchReceiver as _, WatchSender as _};
use parking_lot::{Mutex, RwLock};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// Most entries applied in one batch; more is split, so that answers do not wait for a long replay.
const APPLY_ENTRIES: usize = 256;
/// Most bytes of proposals applied in one batch.
const APPLY_BYTES: usize = 4 << 20;

/// How long what found no room in the store waits before it is tried again.
const ROOM_RETRY: Duration = Duration::from_millis(200);

/// How far a replica is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Point {
    /// The last entry applied.
    pub(crate) position: Option<LogId>,
    /// The membership that stood then.
    pub(crate) membership: StoredMembership,
}

impl Point {
    fn of(machine: &Machine) -> io::Result<Self> {
        let applied = machine.applied();
        let position = Some(applied.position.clone()).filter(|bytes| !bytes.is_empty()).map(decode_log_id).transpose()?;
        let membership = Some(applied.membership.clone()).filter(|bytes| !bytes.is_empty()).map(decode_stored_membership).transpose()?;
        Ok(Point { position, membership: membership.unwrap_or_default() })
    }

    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.position, last_membership: self.membership.clone() }
    }

    /// The index after the last applied.
    fn end(&self) -> u64 {
        self.position.map_or(0, |id| id.index + 1)
    }
}

/// What the applier shows to the rest of the replica.
pub(crate) struct Progress {
    view: RwLock<Arc<View>>,
    applied: Mutex<Point>,
    flushed: Mutex<Point>,
    /// Whether the node flushed since a snapshot was last built.
    flush_is_news: AtomicBool,
    /// Snapshots of the leader that took the place of the state since the replica was opened.
    installed: AtomicU64,
    end: Sender<u64>,
}

impl Progress {
    /// The read side of the state.
    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read())
    }

    /// How far entries were applied.
    pub(crate) fn applied(&self) -> Point {
        self.applied.lock().clone()
    }

    /// How far what was applied is durable.
    pub(crate) fn flushed(&self) -> Option<u64> {
        self.flushed.lock().position.map(|id| id.index)
    }

    /// Notes that everything up to a point is durable.
    pub(crate) fn note_flushed(&self, point: Point) {
        let mut flushed = self.flushed.lock();
        if point.position > flushed.position {
            *flushed = point;
        }
        self.flush_is_news.store(true, Ordering::SeqCst);
    }

    /// How many snapshots were installed since the replica was opened.
    pub(crate) fn snapshots_installed(&self) -> u64 {
        self.installed.load(Ordering::Relaxed)
    }

    /// Waits until an entry was applied.
    pub(crate) async fn applied_through(&self, index: u64) {
        let mut receiver: Receiver<u64> = self.end.subscribe();
        while *receiver.borrow_watched() <= index {
            if receiver.changed().await.is_err() {
                return;
            }
        }
    }

    fn note_applied(&self, point: Point) {
        let end = point.end();
        *self.applied.lock() = point;
        self.end.send_if_modified(|current| {
            let changed = *current != end;
            *current = end;
            changed
        });
    }
}

/// The state machine of one replica.
pub(crate) struct Applier {
    group_id: u32,
    machine: Machine,
    store: Arc<dyn Store>,
    depot: Arc<Depot>,
    traffic: Arc<Traffic>,
    progress: Arc<Progress>,
    slices: Arc<Slices>,
    alive: Arc<()>,
    /// What was told last of what the group owns.
    #[cfg(madsim)]
    told_ownership: Option<Arc<crate::machine::ownership::Ownership>>,
}

impl Applier {
    /// Opens the state of a group, finishing an interrupted import first.
    pub(crate) async fn open(group_id: u32, store: Arc<dyn Store>, depot: Arc<Depot>) -> Result<Self, SnapshotError> {
        import::recover(&store, &depot, group_id).await?;
        let machine = Machine::open(Arc::clone(&store), group_id)?;
        let point = Point::of(&machine).map_err(|error| EngineError::Corrupt {
            path: format!("applied position of group {group_id}"),
            offset: 0,
            message: error.to_string(),
        })?;
        let (end, _) = OrderedWatch::channel(point.end());
        // What is found when opening is durable: whatever was not is gone.
        let progress = Progress {
            view: RwLock::new(machine.view()),
            applied: Mutex::new(point.clone()),
            flushed: Mutex::new(point),
            flush_is_news: AtomicBool::new(false),
            installed: AtomicU64::new(0),
            end,
        };
        let slices = Slices::new(group_id);
        Ok(Applier {
            group_id,
            machine,
            store,
            depot,
            traffic: Arc::default(),
            progress: Arc::new(progress),
            slices,
            alive: Arc::default(),
            #[cfg(madsim)]
            told_ownership: None,
        })
    }

    /// What it shows.
    pub(crate) fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// The slices of its state that are hashed to be compared.
    pub(crate) fn slices(&self) -> Arc<Slices> {
        Arc::clone(&self.slices)
    }

    /// Dead when it is.
    pub(crate) fn alive(&self) -> Weak<()> {
        Arc::downgrade(&self.alive)
    }

    /// The snapshots on their way from and to it.
    pub(crate) fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }

    async fn apply_batch(&mut self, batch: Vec<EntryResponder<Types>>) -> io::Result<()> {
        #[cfg(madsim)]
        if let Some(pause) = metadb_proto::seam::simulated::apply_pause() {
            tokio::time::sleep(pause).await;
        }
        let mut point = self.progress.applied();
        let mut inputs = Vec::with_capacity(batch.len());
        let mut responders: Vec<Option<ApplyResponder<Types>>> = Vec::with_capacity(batch.len());
        #[cfg(madsim)]
        let entries: Vec<_> = batch.iter().map(|(entry, _)| probe::written(entry)).collect();
        for (entry, responder) in batch {
            point.position = Some(entry.log_id);
            if let EntryPayload::Membership(membership) = &entry.payload {
                point.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
            }
            inputs.push(input(entry, responder.is_some()));
            responders.push(responder);
        }
        let began = Instant::now();
        HANDLES.apply_entries.record(inputs.len() as f64);
        let mut outcomes = Vec::with_capacity(inputs.len());
        // What is committed is applied sooner or later: without room, the replica waits with what was not written yet, and lives.
        while let Err(error) = self.machine.apply_onto(inputs[outcomes.len()..].to_vec(), &mut outcomes) {
            if !matches!(error, EngineError::Full { .. }) {
                return Err(io_error(error));
            }
            tokio::time::sleep(ROOM_RETRY).await;
        }
        if let Some(slice) = self.machine.take_slice() {
            self.slices.hash(slice);
        }
        assert_eq!(outcomes.len(), responders.len(), "the machine answers every entry");
        self.progress.note_applied(point);
        #[cfg(madsim)]
        {
            probe::tell(self.group_id, || probe::Did::Applied { entries });
            let view = self.machine.view();
            if let Some(shards) = view.owned_since(&mut self.told_ownership) {
                probe::tell(self.group_id, || probe::Did::Owns { version: view.version().0, shards });
            }
        }
        let ended = Instant::now();
        HANDLES.apply.record(ended - began);
        for (responder, outcome) in responders.into_iter().zip(outcomes) {
            if let Some(responder) = responder {
                responder.send(Answer { outcomes: outcome, began, ended });
            }
        }
        Ok(())
    }
}

fn input(entry: Entry, asked: bool) -> Input {
    let position = encode_log_id(&entry.log_id);
    let body = match entry.payload {
        EntryPayload::Blank => InputBody::Blank,
        EntryPayload::Normal(payload) => InputBody::Proposal(payload.0),
        EntryPayload::Membership(membership) => {
            InputBody::Membership(encode_stored_membership(&StoredMembership::new(Some(entry.log_id), membership)))
        }
    };
    Input { position, body, asked }
}

fn body_bytes(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(payload) => payload.0.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    }
}

/// "Builds" a snapshot: tells how far the last flush reached. If the node did not flush since it was last asked, it flushes.
pub(crate) struct FlushedPoint {
    group_id: u32,
    progress: Arc<Progress>,
    store: Arc<dyn Store>,
    depot: Arc<Depot>,
}

impl RaftSnapshotBuilder<Types> for FlushedPoint {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(
        &mut self,
    ) -> Result<Snapshot<openraft::alias::CommittedLeaderIdOf<Types>, u64, super::Member, SnapshotData>, io::Error> {
        if !self.progress.flush_is_news.swap(false, Ordering::SeqCst) {
            let point = self.progress.applied();
            match self.store.flush().await {
                Ok(()) => {
                    self.progress.note_flushed(point);
                    self.progress.flush_is_news.store(false, Ordering::SeqCst);
                }
                // Then it reaches as far as it did before.
                Err(EngineError::Full { .. }) => {}
                Err(error) => return Err(io_error(error)),
            }
        }
        let meta = self.progress.flushed.lock().meta();
        let outgoing = Outgoing::new(&self.depot, &self.store, self.group_id, meta.clone());
        Ok(Snapshot { meta, snapshot: SnapshotData::Outgoing(outgoing) })
    }
}

impl RaftStateMachine<Types> for Applier {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = FlushedPoint;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let point = self.progress.applied();
        Ok((point.position, point.membership))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(item) = entries.next().await {
            let item = item?;
            bytes += body_bytes(&item.0);
            batch.push(item);
            if batch.len() >= APPLY_ENTRIES || bytes >= APPLY_BYTES {
                self.apply_batch(std::mem::take(&mut batch)).await?;
                bytes = 0;
                tokio::task::yield_now().await;
            }
        }
        if batch.is_empty() { Ok(()) } else { self.apply_batch(batch).await }
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        FlushedPoint {
            group_id: self.group_id,
            progress: Arc::clone(&self.progress),
            store: Arc::clone(&self.store),
            depot: Arc::clone(&self.depot),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> Result<(), io::Error> {
        let id = match snapshot {
            SnapshotData::Received(id) => id,
            SnapshotData::Outgoing(given) => take_all(&self.depot, &given).await.map_err(io::Error::other)?,
        };
        // Readers that hold the view must not meet half of the new rows.
        self.progress.view().retire();
        self.slices.forget();
        self.traffic.clear();
        // An import that found no room is done again from its files.
        while let Err(error) = import::import(&self.store, &self.depot, self.group_id, &id).await {
            if !matches!(error, SnapshotError::Engine(EngineError::Full { .. })) {
                return Err(io::Error::other(error));
            }
            tokio::time::sleep(ROOM_RETRY).await;
        }
        self.machine = Machine::open(Arc::clone(&self.store), self.group_id).map_err(io_error)?;
        let point = Point::of(&self.machine)?;
        if point.position != meta.last_log_id {
            return Err(io::Error::other(format!("the snapshot holds {:?} and says that it holds {:?}", point.position, meta.last_log_id)));
        }
        *self.progress.view.write() = self.machine.view();
        #[cfg(madsim)]
        probe::tell(self.group_id, || probe::Did::Installed { through: point.position.map_or(0, |id| id.index) });
        self.progress.note_flushed(point.clone());
        self.progress.note_applied(point);
        self.progress.installed.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<Snapshot<openraft::alias::CommittedLeaderIdOf<Types>, u64, super::Member, SnapshotData>>, io::Error> {
        let meta = self.progress.applied().meta();
        if meta.last_log_id.is_none() {
            return Ok(None);
        }
        // Nothing is applied while this runs, so the view is exactly at that position.
        let outgoing = self.traffic.outgoing(|| Outgoing::new(&self.depot, &self.store, self.group_id, meta));
        Ok(Some(Snapshot { meta: outgoing.meta.clone(), snapshot: SnapshotData::Outgoing(outgoing) }))
    }
}
