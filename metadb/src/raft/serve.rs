//! Answers what another replica asks: the receiving side of [`super::network`].

use super::codec::{CodecError, decode_vote, encode_vote};
use super::messages::{
    decode_append, decode_snapshot_meta, decode_transfer, decode_vote_request, encode_append_response, encode_transfer_response,
    encode_vote_response,
};
use super::replica::Replica;
use super::snapshot::{SnapshotData, Spool, count_rows};
use super::{SnapshotMeta, Vote};
use crate::clock;
use crate::node::room::Room;
use bytes::Bytes;
use metadb_engine::EngineError;
use metadb_proto::v1::{PeerVerb, SnapshotChunk};
use metadb_proto::{Error, seam};
use openraft::EntryPayload;
use openraft::storage::Snapshot;
use std::time::Duration;

/// When a peer whose vote came too early may ask again.
const VOTE_RETRY: Duration = Duration::from_millis(100);
/// When a peer whose snapshot was refused may try again.
const SNAPSHOT_RETRY: Duration = Duration::from_millis(500);

fn malformed(error: CodecError) -> Error {
    Error::invalid("payload", "encoded by a build of this format", error.to_string())
}

fn stopped(error: impl std::fmt::Display) -> Error {
    Error::unavailable(format!("the replica is stopped: {error}"), SNAPSHOT_RETRY)
}

fn storage(error: EngineError) -> Error {
    Error::unavailable(format!("the snapshot can't be spooled: {error}"), SNAPSHOT_RETRY)
}

impl Replica {
    /// Answers a message of another replica of the group.
    pub(crate) async fn serve(&self, verb: PeerVerb, payload: Bytes) -> Result<Bytes, Error> {
        match verb {
            PeerVerb::Append => {
                let request = decode_append(payload).map_err(malformed)?;
                if request.entries.iter().any(|entry| matches!(entry.payload, EntryPayload::Normal(_))) {
                    // The last of the room is for votes and members.
                    self.room().require(Room::Low)?;
                }
                let response = self.raft().append_entries(request).await.map_err(stopped)?;
                Ok(encode_append_response(&response))
            }
            PeerVerb::Vote => {
                let request = decode_vote_request(payload).map_err(malformed)?;
                self.may_speak()?;
                if !request.leadership_transfer {
                    self.may_vote()?;
                }
                let response = self.raft().vote(request).await.map_err(stopped)?;
                Ok(encode_vote_response(&response))
            }
            PeerVerb::PreVote => {
                let request = decode_vote_request(payload).map_err(malformed)?;
                self.may_speak()?;
                self.may_vote()?;
                let response = self.raft().pre_vote(request).await.map_err(stopped)?;
                Ok(encode_vote_response(&response))
            }
            PeerVerb::TransferLeader => {
                let request = decode_transfer(payload).map_err(malformed)?;
                self.may_speak()?;
                let response = self.raft().handle_transfer_leader(request).await.map_err(stopped)?;
                Ok(encode_transfer_response(&response))
            }
            PeerVerb::Unspecified => Err(Error::invalid("verb", "known to this build", "unspecified")),
        }
    }

    /// One that was made anew does not vote before it knows who the members are.
    fn may_speak(&self) -> Result<(), Error> {
        if self.is_silent() {
            return Err(Error::unavailable("made anew a moment ago, and still catching up", VOTE_RETRY));
        }
        Ok(())
    }

    /// A replica that restarted has forgotten when it last heard the leader, whose lease may count on that: it votes for nobody until
    /// that lease is over.
    fn may_vote(&self) -> Result<(), Error> {
        if self.votes_from().is_some_and(|moment| clock::now() < moment) {
            return Err(Error::unavailable("restarted a moment ago; a leader's lease may still stand", VOTE_RETRY));
        }
        Ok(())
    }

    /// Spools a snapshot, checks it, and installs it.
    pub(crate) async fn receive_snapshot<S, F>(&self, first: SnapshotChunk, mut next: S) -> Result<Bytes, Error>
    where
        S: FnMut() -> F,
        F: Future<Output = Result<Option<SnapshotChunk>, Error>>,
    {
        let Ok(_alone) = self.receiving().try_lock() else {
            return Err(Error::unavailable("another snapshot of the group is being received", SNAPSHOT_RETRY));
        };
        self.room().require(Room::Plenty)?;
        let vote = decode_vote(first.vote.clone()).map_err(malformed)?;
        let meta = decode_snapshot_meta(first.meta.clone()).map_err(malformed)?;
        let spool = Spool::create(self.spool(), self.group_id(), seam::random_u64());
        let mut total = 0;
        let mut chunk = first;
        loop {
            let written = check_chunk(&chunk, self.group_id()).and_then(|rows| {
                total += rows;
                if chunk.rows.is_empty() { Ok(()) } else { spool.append(&chunk.rows).map_err(storage) }
            });
            let following = match (written, chunk.total_rows) {
                (Err(error), _) => Err(error),
                (Ok(()), Some(expected)) if expected == total => break,
                (Ok(()), Some(expected)) => Err(Error::invalid("total_rows", total.to_string(), expected.to_string())),
                (Ok(()), None) => next().await.and_then(|chunk| chunk.ok_or_else(|| Error::invalid("snapshot", "complete", "cut short"))),
            };
            chunk = following?;
        }
        let name = spool.finish().map_err(storage)?;
        self.install(vote, meta, name).await
    }

    async fn install(&self, vote: Vote, meta: SnapshotMeta, name: String) -> Result<Bytes, Error> {
        let snapshot = Snapshot { meta, snapshot: SnapshotData::Spool(name.clone()) };
        let response = self.raft().install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
        // Imported and removed already, unless openraft had no use for it.
        self.spool().remove(&name).map_err(storage)?;
        Ok(encode_vote(&response.vote))
    }
}

fn check_chunk(chunk: &SnapshotChunk, group_id: u32) -> Result<u64, Error> {
    if chunk.group_id != group_id {
        return Err(Error::invalid("group_id", group_id.to_string(), chunk.group_id.to_string()));
    }
    if !chunk.rows.is_empty() && crc32c::crc32c(&chunk.rows) != chunk.crc32c {
        return Err(Error::Corrupt { message: "a chunk of a snapshot fails its checksum".to_owned() });
    }
    count_rows(chunk.rows.clone(), group_id).map_err(malformed)
}
