//! Answers what another replica asks: the receiving side of [`super::network`].

use super::codec::CodecError;
use super::compare;
use super::messages::{
    decode_append, decode_transfer, decode_vote_request, encode_append_response, encode_transfer_response, encode_vote_response,
};
use super::replica::Replica;
use crate::clock;
use crate::node::room::Room;
use bytes::Bytes;
use metadb_proto::Error;
use metadb_proto::v1::PeerVerb;
use openraft::EntryPayload;
use std::time::Duration;

/// When a peer whose vote came too early may ask again.
const VOTE_RETRY: Duration = Duration::from_millis(100);
/// When a peer may ask a replica again that is stopped.
const STOPPED_RETRY: Duration = Duration::from_millis(500);

fn malformed(error: CodecError) -> Error {
    Error::invalid("payload", "encoded by a build of this format", error.to_string())
}

fn stopped(error: impl std::fmt::Display) -> Error {
    Error::unavailable(format!("the replica is stopped: {error}"), STOPPED_RETRY)
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
            PeerVerb::Compare => compare::serve(self.slices(), payload).await,
            PeerVerb::Distrust => {
                if let Some(reason) = compare::differs(self.slices(), payload)? {
                    self.distrust(reason);
                }
                Ok(Bytes::new())
            }
            // Heartbeats of many groups are not for one of them: the node takes them apart.
            PeerVerb::Heartbeats | PeerVerb::Unspecified => Err(Error::invalid("verb", "known to this build", "unspecified")),
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
}
