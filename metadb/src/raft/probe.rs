//! What replicas do, told as it happens to whoever checks Raft's invariants. Compiled for the simulator only, where all nodes share a
//! thread: so the order of the list is the order of the world.

use super::codec::encode_entry;
use super::{Entry, Vote};
use bytes::Bytes;
use metadb_proto::seam::simulated;
use openraft::EntryPayload;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

/// An entry, as far as invariants care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its place.
    pub index: u64,
    /// The term of its leader.
    pub term: u64,
    /// Stands for what it says.
    pub digest: u32,
    /// The sets of voters, each of which must agree, if it changes them.
    pub voters: Option<Vec<BTreeSet<u64>>>,
}

/// What a replica did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Did {
    /// It was made where there was none, or none any more.
    Made,
    /// It opened with this log, behind what was purged, and with this vote.
    Opened {
        /// Term, candidate, and whether that one leads.
        vote: Option<(u64, u64, bool)>,
        /// Up to where the log is gone.
        purged: u64,
        /// What is left of it.
        log: Vec<Written>,
        /// Up to where it has applied.
        applied: u64,
    },
    /// A vote of it is durable.
    Voted {
        /// In which term.
        term: u64,
        /// For whom.
        candidate: u64,
        /// Whether that one leads.
        leads: bool,
    },
    /// Entries can be read.
    Appended {
        /// Number of the append.
        append: u64,
        /// The entries.
        entries: Vec<Written>,
    },
    /// An append, and all before it, is durable.
    Durable {
        /// Its number.
        append: u64,
    },
    /// The log ends here now.
    Truncated {
        /// The first index that is gone.
        from: u64,
    },
    /// The log begins behind here now.
    Purged {
        /// The last index that is gone.
        through: u64,
    },
    /// What was applied is durable.
    Flushed {
        /// Up to here.
        through: u64,
    },
    /// Entries were applied.
    Applied {
        /// The entries.
        entries: Vec<Written>,
    },
    /// What the group owns changed.
    Owns {
        /// The version of the state that says so.
        version: u64,
        /// Tenant, start and end of every shard that the group reads and writes.
        shards: Vec<(u64, Bytes, Bytes)>,
    },
    /// Somebody asks for the index that a read must see.
    Asked {
        /// Number of the question.
        read: u64,
    },
    /// The answer.
    ReadAt {
        /// Number of the question.
        read: u64,
        /// The index.
        index: u64,
    },
    /// A read goes on to be answered.
    Served {
        /// The index that it must see.
        index: u64,
        /// Up to where the state that answers was applied.
        applied: u64,
    },
    /// A snapshot took the place of the state.
    Installed {
        /// Up to here.
        through: u64,
    },
}

/// What a replica did, and which it was.
#[derive(Debug, Clone)]
pub struct Event {
    /// The simulated machine.
    pub machine: simulated::Machine,
    /// The group.
    pub group_id: u32,
    /// What it did.
    pub did: Did,
}

thread_local! {
    static READS: Cell<u64> = const { Cell::new(0) };
    static EVENTS: RefCell<Option<Vec<Event>>> = const { RefCell::new(None) };
}

/// What happened since this was last asked. Nothing is kept before the first time.
#[must_use]
pub fn take() -> Vec<Event> {
    EVENTS.with_borrow_mut(|events| events.replace(Vec::new()).unwrap_or_default())
}

/// Something happened.
pub(crate) fn tell(group_id: u32, did: impl FnOnce() -> Did) {
    EVENTS.with_borrow_mut(|events| {
        if let Some(events) = events {
            events.push(Event { machine: simulated::machine(), group_id, did: did() });
        }
    });
}

/// Somebody asks for the index that a read must see; gives the question's number.
pub(crate) fn ask(group_id: u32) -> u64 {
    let read = READS.with(|reads| {
        reads.set(reads.get() + 1);
        reads.get()
    });
    tell(group_id, || Did::Asked { read });
    read
}

/// An entry, as far as invariants care.
pub(crate) fn written(entry: &Entry) -> Written {
    let voters = match &entry.payload {
        EntryPayload::Membership(membership) => Some(membership.get_joint_config().clone()),
        EntryPayload::Blank | EntryPayload::Normal(_) => None,
    };
    Written { index: entry.log_id.index, term: entry.log_id.leader_id.term, digest: crc32c::crc32c(&encode_entry(entry)), voters }
}

/// Term, candidate, and whether that one leads.
pub(crate) fn vote(vote: &Vote) -> (u64, u64, bool) {
    (vote.leader_id.term, vote.leader_id.voted_for, vote.committed)
}
