//! Takes a snapshot from another node: the receiving side of [`super::send`].
//!
//! One snapshot of a group is received at a time; who offers later ends the earlier transfer, because its sender may be gone without
//! anyone having noticed. What was received stays, and an offer of the same snapshot goes on from there.

use super::codec::{CodecError, decode_vote, encode_vote};
use super::replica::Replica;
use super::snapshot::depot::Counts;
use super::snapshot::incoming::Incoming;
use super::snapshot::outgoing::Transfer;
use super::snapshot::{SnapshotData, SnapshotError, import};
use super::{SnapshotMeta, Vote};
use crate::node::room::Room;
use bytes::Bytes;
use metadb_engine::EngineError;
use metadb_proto::Error;
use metadb_proto::v1::{SnapshotChunk, SnapshotOffer};
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::storage::Snapshot;
use std::time::Duration;
use tokio::time::Instant;

/// When a peer whose snapshot was refused may try again.
const SNAPSHOT_RETRY: Duration = Duration::from_millis(500);
/// How long an earlier transfer may take to end once a later one is offered; one that imports already takes longer.
const GIVE_WAY: Duration = Duration::from_secs(1);

/// What a transfer brings and wants, as the door has it.
pub(crate) trait Session: Send {
    /// The next chunk; none: the sender is gone.
    fn next(&mut self) -> impl Future<Output = Result<Option<SnapshotChunk>, Error>> + Send;
    /// Says what is here already.
    fn have(&mut self, bytes: Vec<u64>) -> impl Future<Output = Result<(), Error>> + Send;
}

fn malformed(error: CodecError) -> Error {
    Error::invalid("snapshot", "encoded by a build of this format", error.to_string())
}

fn failed(error: SnapshotError) -> Error {
    match error {
        SnapshotError::Corrupt { .. } => Error::Corrupt { message: error.to_string() },
        SnapshotError::Codec(error) => malformed(error),
        SnapshotError::OutOfOrder { .. } => Error::invalid("chunk", "the next one of its file", error.to_string()),
        SnapshotError::Engine(EngineError::Full { path }) => {
            Error::Exhausted { message: format!("no room for the snapshot: {path}"), retry_after: SNAPSHOT_RETRY }
        }
        SnapshotError::Engine(_) | SnapshotError::Gone => {
            Error::unavailable(format!("the snapshot can't be taken: {error}"), SNAPSHOT_RETRY)
        }
    }
}

impl Replica {
    /// Removes the files of transfers, from and to it, that have not gone on for as long as such files are kept; whether one was
    /// let go that held the log.
    pub(crate) fn expire_snapshots(&self) -> bool {
        let keep_idle = self.depot().keep_idle();
        let mut let_go = self.traffic().expire(keep_idle, self.depot().limits.stall);
        if self.traffic().is_followed() {
            let seen = self.observe();
            let_go |= self.traffic().let_go(seen.last_log_index, seen.followers(), self.depot().limits.stall);
        }
        let Ok(_alone) = self.receiving().try_lock() else { return let_go };
        if self.received_at().lock().elapsed() > keep_idle {
            *self.received_at().lock() = Instant::now();
            if let Err(error) = import::discard_all(self.depot(), self.group_id()) {
                tracing::warn!(group_id = self.group_id(), %error, "files of a transfer that does not go on were not removed");
            }
        }
        let_go
    }

    /// Receives a snapshot, or the rest of it, and installs it. The answer is this replica's vote.
    pub(crate) async fn receive_snapshot(&self, offer: SnapshotOffer, session: &mut impl Session) -> Result<Bytes, Error> {
        self.room().require(Room::Plenty)?;
        let vote = decode_vote(offer.vote).map_err(malformed)?;
        let newest = self.raft().metrics().borrow_watched().vote;
        if vote < newest {
            // A leader of the past, which does not know it yet: it must not push aside what the present one brings.
            return Ok(encode_vote(&newest));
        }
        self.later_offer().notify_waiters();
        let Ok(_alone) = tokio::time::timeout(GIVE_WAY, self.receiving().lock()).await else {
            return Err(Error::unavailable("another snapshot of the group is being imported", SNAPSHOT_RETRY));
        };
        let depot = self.depot();
        let Ok(_permit) = depot.receiving.try_acquire() else {
            return Err(Error::unavailable("this node is receiving as many snapshots as it may", SNAPSHOT_RETRY));
        };
        let mut incoming = Incoming::open(depot, offer.manifest).await.map_err(failed)?;
        if incoming.manifest.group_id != self.group_id() {
            import::discard(depot, incoming.manifest.group_id, &incoming.id).map_err(|error| failed(error.into()))?;
            return Err(Error::invalid("group_id", self.group_id().to_string(), incoming.manifest.group_id.to_string()));
        }
        let reused_bytes = incoming.done_bytes();
        if reused_bytes > 0 {
            Counts::add(&depot.counts.resumed, 1);
            Counts::add(&depot.counts.reused, reused_bytes);
            tracing::info!(group_id = self.group_id(), reused_bytes, "a snapshot goes on where an earlier transfer stopped");
        }
        let show = |incoming: &Incoming| {
            let transfer = Transfer { total_bytes: incoming.manifest.total_bytes(), done_bytes: incoming.done_bytes(), reused_bytes };
            *self.traffic().receiving.lock() = Some(transfer);
        };
        show(&incoming);
        let received = self.receive(&mut incoming, session, show).await;
        *self.traffic().receiving.lock() = None;
        *self.received_at().lock() = Instant::now();
        if let Err(Error::Exhausted { .. }) = &received {
            // The disk is full: what is here of the snapshot is the first that can go.
            import::discard(depot, self.group_id(), &incoming.id).map_err(|error| failed(error.into()))?;
        }
        received?;
        import::verify(depot, self.group_id(), &incoming.id).await.map_err(failed)?;
        Counts::add(&depot.counts.received_whole, 1);
        self.install(vote, incoming.manifest.meta.clone(), incoming.id).await
    }

    async fn receive(&self, incoming: &mut Incoming, session: &mut impl Session, show: impl Fn(&Incoming)) -> Result<(), Error> {
        let stall = self.depot().limits.stall;
        session.have(incoming.have().to_vec()).await?;
        while !incoming.is_complete() {
            let next = tokio::select! {
                biased;
                () = self.later_offer().notified() => return Err(Error::unavailable("a later transfer takes over", SNAPSHOT_RETRY)),
                next = tokio::time::timeout(stall, session.next()) => next,
            };
            let Ok(next) = next else { return Err(Error::unavailable(format!("no chunk for {stall:?}"), SNAPSHOT_RETRY)) };
            let Some(chunk) = next? else { return Err(Error::unavailable("the transfer was cut short", SNAPSHOT_RETRY)) };
            incoming.append(chunk.file as usize, chunk.offset, &chunk.bytes).await.map_err(failed)?;
            show(incoming);
        }
        Ok(())
    }

    async fn install(&self, vote: Vote, meta: SnapshotMeta, id: String) -> Result<Bytes, Error> {
        let snapshot = Snapshot { meta, snapshot: SnapshotData::Received(id.clone()) };
        let response = self.raft().install_full_snapshot(vote, snapshot).await;
        let response = response.map_err(|error| Error::unavailable(format!("the replica is stopped: {error}"), SNAPSHOT_RETRY))?;
        // Imported and removed already, unless openraft had no use for it.
        import::discard(self.depot(), self.group_id(), &id).map_err(|error| failed(error.into()))?;
        Ok(encode_vote(&response.vote))
    }
}
