//! Consensus: the only module that names `openraft`.
//!
//! What it gives to the rest: [`replica::Replica`], one replica of one group, in words of this crate; [`link::Links`], the streams to the
//! other nodes; and the two files whose formats live as long as data does, [`codec`] (log records) and [`snapshot`] (manifests).
//!
//! * [`log_store`] puts a group's entries, vote and marks into the node's one log; [`applier`] feeds committed entries to the machine.
//! * [`messages`] encodes what nodes say to each other, [`network`] sends it over a [`link`], [`serve`] answers it; `send` and `receive`
//!   do so for snapshots.
//! * [`leading`] is what only a leader does: changes of members, and handing over.
//! * [`compare`] hashes slices of a replica's state, and asks the others for theirs.
//! * [`hearts`] carries the heartbeats of all groups to a node in one message.
//! * [`rt`] and [`watch`] are the runtime under openraft: the same in a process and in the simulator.
//!
//! openraft is an alpha: a change of its version is a change of this module alone, and the simulator is run before it is believed.

pub(crate) mod applier;
pub(crate) mod codec;
pub(crate) mod compare;
pub(crate) mod followed;
pub(crate) mod hearts;
pub(crate) mod leading;
pub(crate) mod link;
pub(crate) mod log_store;
pub(crate) mod messages;
pub(crate) mod network;
#[cfg(madsim)]
pub mod probe;
pub(crate) mod receive;
pub(crate) mod replica;
pub(crate) mod rt;
mod send;
pub(crate) mod serve;
pub(crate) mod snapshot;
pub(crate) mod watch;
pub(crate) mod wipe;

use crate::machine::Outcome;
use bytes::Bytes;
use openraft::impls::leader_id_std;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::time::Instant;

/// A proposal as it travels and lies in the log: encoded by [`crate::command`], opaque here.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Payload(pub(crate) Bytes);

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl std::fmt::Display for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What applying an entry gave, one outcome per command. Never leaves the process.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) outcomes: Vec<Outcome>,
    /// When the batch with the entry began to be applied, and when that was done.
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
}

impl Serialize for Answer {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("an answer never leaves the process"))
    }
}

impl<'de> Deserialize<'de> for Answer {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("an answer never leaves the process"))
    }
}

/// Where a member of a group is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// host:port of its gRPC door.
    pub(crate) address: String,
}

openraft::declare_raft_types!(
    /// The types of our Raft: at most one leader per term.
    pub(crate) Types:
        D = Payload,
        R = Answer,
        NodeId = u64,
        Node = Member,
        Term = u64,
        LeaderId = leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = rt::Runtime,
        ErrorSource = openraft::AnyError,
);

/// A position in a group's log.
pub(crate) type LogId = openraft::alias::LogIdOf<Types>;
/// A vote.
pub(crate) type Vote = openraft::alias::VoteOf<Types>;
/// An entry of the log.
pub(crate) type Entry = openraft::alias::EntryOf<Types>;
/// Voters and nodes.
pub(crate) type Membership = openraft::Membership<u64, Member>;
/// A membership and where in the log it stands.
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<Types>;
/// What a snapshot holds.
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<Types>;
