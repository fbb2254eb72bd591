//! Bytes of what the log holds: positions, votes, memberships, entries. Big-endian; frozen per format number.
//!
//! | what | bytes |
//! | --- | --- |
//! | position | term u64, index u64 |
//! | optional position | 0, or 1 and the position |
//! | vote | format 1, term u64, node u64, committed u8 |
//! | membership | configs u32, each: voters u32, each u64; nodes u32, each: id u64, address length u16, address |
//! | stored membership | format 1, optional position, membership |
//! | entry | format 1, position, kind u8 (0 blank, 1 proposal, 2 membership), body |
//!
//! Decoding takes slices of what it is given and copies no proposal.

use super::{Entry, LogId, Member, Membership, Payload, StoredMembership, Vote};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use openraft::EntryPayload;
use std::collections::{BTreeMap, BTreeSet};

/// The format of every record written by this build.
const FORMAT: u8 = 1;
/// Bytes of a position.
pub(crate) const LOG_ID_BYTES: usize = 16;
/// Bytes of an entry before its body.
const ENTRY_HEADER_BYTES: usize = 1 + LOG_ID_BYTES + 1;

const KIND_BLANK: u8 = 0;
const KIND_PROPOSAL: u8 = 1;
const KIND_MEMBERSHIP: u8 = 2;

/// Bytes that this build can't read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    /// They end too early.
    #[error("{what}: {missing} bytes are missing")]
    Short {
        /// What was being read.
        what: &'static str,
        /// How many bytes more were needed.
        missing: usize,
    },
    /// A number that has no meaning here.
    #[error("{what}: unknown value {value}")]
    Unknown {
        /// What was being read.
        what: &'static str,
        /// Its value.
        value: u64,
    },
    /// There are bytes after the end.
    #[error("{what}: {count} bytes too many")]
    Trailing {
        /// What was read.
        what: &'static str,
        /// How many bytes follow it.
        count: usize,
    },
}

impl From<CodecError> for std::io::Error {
    fn from(error: CodecError) -> Self {
        std::io::Error::new(std::io::ErrorKind::InvalidData, error)
    }
}

/// Takes values off the front of bytes.
pub(crate) struct Reader {
    bytes: Bytes,
    what: &'static str,
}

impl Reader {
    /// Begins to read; `what` is named in errors.
    pub(crate) fn new(bytes: Bytes, what: &'static str) -> Self {
        Reader { bytes, what }
    }

    fn need(&self, count: usize) -> Result<(), CodecError> {
        match count.checked_sub(self.bytes.len()) {
            None | Some(0) => Ok(()),
            Some(missing) => Err(CodecError::Short { what: self.what, missing }),
        }
    }

    pub(crate) fn u8(&mut self) -> Result<u8, CodecError> {
        self.need(1)?;
        Ok(self.bytes.get_u8())
    }

    pub(crate) fn u16(&mut self) -> Result<u16, CodecError> {
        self.need(2)?;
        Ok(self.bytes.get_u16())
    }

    pub(crate) fn u32(&mut self) -> Result<u32, CodecError> {
        self.need(4)?;
        Ok(self.bytes.get_u32())
    }

    pub(crate) fn u64(&mut self) -> Result<u64, CodecError> {
        self.need(8)?;
        Ok(self.bytes.get_u64())
    }

    /// The next `count` bytes, shared and not copied.
    pub(crate) fn take(&mut self, count: usize) -> Result<Bytes, CodecError> {
        self.need(count)?;
        Ok(self.bytes.split_to(count))
    }

    /// Bytes behind a u32 length.
    pub(crate) fn sized(&mut self) -> Result<Bytes, CodecError> {
        let count = self.u32()? as usize;
        self.take(count)
    }

    pub(crate) fn flag(&mut self) -> Result<bool, CodecError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.unknown(other.into())),
        }
    }

    pub(crate) fn format(&mut self) -> Result<(), CodecError> {
        match self.u8()? {
            FORMAT => Ok(()),
            other => Err(self.unknown(other.into())),
        }
    }

    pub(crate) fn unknown(&self, value: u64) -> CodecError {
        CodecError::Unknown { what: self.what, value }
    }

    /// Whatever is left.
    pub(crate) fn rest(self) -> Bytes {
        self.bytes
    }

    /// Holds that nothing is left.
    pub(crate) fn end(self) -> Result<(), CodecError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(CodecError::Trailing { what: self.what, count: self.bytes.len() }) }
    }

    pub(crate) fn log_id(&mut self) -> Result<LogId, CodecError> {
        let term = self.u64()?;
        Ok(LogId::new_term_index(term, self.u64()?))
    }

    pub(crate) fn optional_log_id(&mut self) -> Result<Option<LogId>, CodecError> {
        if self.flag()? { self.log_id().map(Some) } else { Ok(None) }
    }

    pub(crate) fn vote(&mut self) -> Result<Vote, CodecError> {
        self.format()?;
        let (term, node) = (self.u64()?, self.u64()?);
        Ok(if self.flag()? { Vote::new_committed(term, node) } else { Vote::new(term, node) })
    }

    fn membership(&mut self) -> Result<Membership, CodecError> {
        let mut configs = Vec::new();
        for _ in 0..self.u32()? {
            let mut voters = BTreeSet::new();
            for _ in 0..self.u32()? {
                voters.insert(self.u64()?);
            }
            configs.push(voters);
        }
        let mut nodes = BTreeMap::new();
        for _ in 0..self.u32()? {
            let id = self.u64()?;
            let length = self.u16()?;
            let address = self.take(length.into())?;
            let address = String::from_utf8(address.to_vec()).map_err(|_| self.unknown(length.into()))?;
            nodes.insert(id, Member { address });
        }
        // A membership without nodes is what a group has before it is initialised; openraft's constructor takes it too.
        let configs_count = configs.len() as u64;
        Membership::new(configs, nodes).map_err(|_| self.unknown(configs_count))
    }

    pub(crate) fn stored_membership(&mut self) -> Result<StoredMembership, CodecError> {
        self.format()?;
        let position = self.optional_log_id()?;
        Ok(StoredMembership::new(position, self.membership()?))
    }
}

/// Appends a position.
pub(crate) fn put_log_id(out: &mut BytesMut, id: &LogId) {
    out.put_u64(id.leader_id.term);
    out.put_u64(id.index);
}

/// Appends an optional position.
pub(crate) fn put_optional_log_id(out: &mut BytesMut, id: Option<&LogId>) {
    out.put_u8(id.is_some().into());
    if let Some(id) = id {
        put_log_id(out, id);
    }
}

/// Appends a vote.
pub(crate) fn put_vote(out: &mut BytesMut, vote: &Vote) {
    out.put_u8(FORMAT);
    out.put_u64(vote.leader_id.term);
    out.put_u64(vote.leader_id.voted_for);
    out.put_u8(vote.committed.into());
}

/// Appends a format number and a stored membership.
pub(crate) fn put_stored_membership(out: &mut BytesMut, stored: &StoredMembership) {
    out.put_u8(FORMAT);
    put_optional_log_id(out, stored.log_id().as_ref());
    put_membership(out, stored.membership());
}

/// Appends the number of things that follow.
pub(crate) fn put_count(out: &mut BytesMut, count: usize) {
    out.put_u32(u32::try_from(count).expect("what is encoded is bounded far below 4 G"));
}

/// Appends bytes behind their length.
pub(crate) fn put_sized(out: &mut BytesMut, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.put_slice(bytes);
}

fn put_membership(out: &mut BytesMut, membership: &Membership) {
    put_count(out, membership.get_joint_config().len());
    for config in membership.get_joint_config() {
        put_count(out, config.len());
        config.iter().for_each(|id| out.put_u64(*id));
    }
    put_count(out, membership.nodes().count());
    for (id, member) in membership.nodes() {
        out.put_u64(*id);
        out.put_u16(u16::try_from(member.address.len()).expect("addresses are checked when a member is named"));
        out.put_slice(member.address.as_bytes());
    }
}

/// A position alone.
pub(crate) fn encode_log_id(id: &LogId) -> Bytes {
    let mut out = BytesMut::with_capacity(LOG_ID_BYTES);
    put_log_id(&mut out, id);
    out.freeze()
}

/// A position alone.
pub(crate) fn decode_log_id(bytes: Bytes) -> Result<LogId, CodecError> {
    let mut reader = Reader::new(bytes, "position");
    let id = reader.log_id()?;
    reader.end().map(|()| id)
}

/// A vote alone.
pub(crate) fn encode_vote(vote: &Vote) -> Bytes {
    let mut out = BytesMut::new();
    put_vote(&mut out, vote);
    out.freeze()
}

/// A vote alone.
pub(crate) fn decode_vote(bytes: Bytes) -> Result<Vote, CodecError> {
    let mut reader = Reader::new(bytes, "vote");
    let vote = reader.vote()?;
    reader.end().map(|()| vote)
}

/// A stored membership alone.
pub(crate) fn encode_stored_membership(stored: &StoredMembership) -> Bytes {
    let mut out = BytesMut::new();
    put_stored_membership(&mut out, stored);
    out.freeze()
}

/// A stored membership alone.
pub(crate) fn decode_stored_membership(bytes: Bytes) -> Result<StoredMembership, CodecError> {
    let mut reader = Reader::new(bytes, "stored membership");
    let stored = reader.stored_membership()?;
    reader.end().map(|()| stored)
}

/// Bytes that an entry takes.
pub(crate) fn entry_bytes(entry: &Entry) -> usize {
    let body = match &entry.payload {
        EntryPayload::Blank => 0,
        EntryPayload::Normal(payload) => payload.0.len(),
        EntryPayload::Membership(membership) => membership.nodes().count() * 64,
    };
    ENTRY_HEADER_BYTES + body
}

/// Appends an entry.
pub(crate) fn put_entry(out: &mut BytesMut, entry: &Entry) {
    out.put_u8(FORMAT);
    put_log_id(out, &entry.log_id);
    match &entry.payload {
        EntryPayload::Blank => out.put_u8(KIND_BLANK),
        EntryPayload::Normal(payload) => {
            out.put_u8(KIND_PROPOSAL);
            out.put_slice(&payload.0);
        }
        EntryPayload::Membership(membership) => {
            out.put_u8(KIND_MEMBERSHIP);
            put_membership(out, membership);
        }
    }
}

/// An entry as it lies in the log.
pub(crate) fn encode_entry(entry: &Entry) -> Bytes {
    let mut out = BytesMut::with_capacity(entry_bytes(entry));
    put_entry(&mut out, entry);
    out.freeze()
}

/// An entry; its proposal is a slice of `bytes`.
pub(crate) fn decode_entry(bytes: Bytes) -> Result<Entry, CodecError> {
    let mut reader = Reader::new(bytes, "log entry");
    reader.format()?;
    let log_id = reader.log_id()?;
    let payload = match reader.u8()? {
        KIND_BLANK => {
            reader.end()?;
            EntryPayload::Blank
        }
        KIND_PROPOSAL => EntryPayload::Normal(Payload(reader.rest())),
        KIND_MEMBERSHIP => {
            let membership = reader.membership()?;
            reader.end()?;
            EntryPayload::Membership(membership)
        }
        other => return Err(reader.unknown(other.into())),
    };
    Ok(Entry { log_id, payload })
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
