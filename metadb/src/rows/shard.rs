//! A shard: `group u32, kind, tenant u64, escaped start` → format, state, epoch, version, the other group, end. A fenced shard has the epoch
//! of its move before the end, an expected one the version that its rows reach.

use super::{Fields, corrupt, escape, kind, state_prefix, successor};
use bytes::Bytes;
use metadb_engine::EngineError;
use metadb_proto::Version;

const FORMAT: u8 = 1;
const STATE_OWNED: u8 = 1;
const STATE_DROPPED: u8 = 2;
const STATE_DROPPED_TO: u8 = 3;
const STATE_FENCED: u8 = 4;
const STATE_EXPECTED: u8 = 5;

/// Whether the group owns a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It does.
    Owned,
    /// It does, but the shard is neither read nor written: a move to another group is at its end.
    Fenced {
        /// The group that takes it over.
        to: u32,
        /// The epoch that the shard has there.
        epoch: u64,
    },
    /// Not yet: its rows arrive.
    Expected {
        /// The group that owns it meanwhile.
        from: u32,
        /// Up to this version all rows are here.
        through: Version,
    },
    /// No longer: a forwarding mark.
    Dropped {
        /// The group that has it now, if that is known.
        to: Option<u32>,
    },
}

/// A shard that the group owns or owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Exclusive; empty: to the end of the tenant.
    pub end: Bytes,
    /// The epoch of the request that made it so.
    pub epoch: u64,
    /// The version of the command that made it so.
    pub version: Version,
    /// Owned or not.
    pub state: State,
}

/// The row's key.
#[must_use]
pub fn key(group_id: u32, tenant_id: u64, start: &[u8]) -> Bytes {
    let mut out = state_prefix(group_id, kind::SHARD, 8 + start.len() + escape::END_BYTES);
    out.extend_from_slice(&tenant_id.to_be_bytes());
    escape::push(&mut out, start);
    out.into()
}

/// The keys of all shards of a group.
#[must_use]
pub fn range(group_id: u32) -> (Bytes, Bytes) {
    let start = state_prefix(group_id, kind::SHARD, 0);
    let end = successor(&start);
    (start.into(), end.into())
}

/// The tenant and the start in a row's key.
///
/// # Errors
/// [`EngineError::Corrupt`].
pub fn read_key(key: &[u8]) -> Result<(u64, Bytes), EngineError> {
    let read = || {
        let mut fields = Fields(key);
        fields.take(5)?;
        let tenant_id = fields.u64()?;
        Some((tenant_id, Bytes::from(escape::read(fields.rest())?)))
    };
    read().ok_or_else(|| corrupt("shard row key", key))
}

impl Shard {
    /// The row's value.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let (state, other, more) = match self.state {
            State::Owned => (STATE_OWNED, 0, None),
            State::Dropped { to: None } => (STATE_DROPPED, 0, None),
            State::Dropped { to: Some(to) } => (STATE_DROPPED_TO, to, None),
            State::Fenced { to, epoch } => (STATE_FENCED, to, Some(epoch)),
            State::Expected { from, through } => (STATE_EXPECTED, from, Some(through.0)),
        };
        let mut out = Vec::with_capacity(30 + self.end.len());
        out.extend_from_slice(&[FORMAT, state]);
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&self.version.0.to_be_bytes());
        out.extend_from_slice(&other.to_be_bytes());
        out.extend(more.map(u64::to_be_bytes).into_iter().flatten());
        out.extend_from_slice(&self.end);
        out.into()
    }

    /// From the row's value.
    ///
    /// # Errors
    /// [`EngineError::Corrupt`].
    pub fn decode(bytes: &[u8]) -> Result<Self, EngineError> {
        let decode = || {
            let mut fields = Fields(bytes);
            if fields.u8()? != FORMAT {
                return None;
            }
            let state = fields.u8()?;
            let epoch = fields.u64()?;
            let version = Version(fields.u64()?);
            let other = fields.u32()?;
            let state = match state {
                STATE_OWNED => State::Owned,
                STATE_DROPPED => State::Dropped { to: None },
                STATE_DROPPED_TO => State::Dropped { to: Some(other) },
                STATE_FENCED => State::Fenced { to: other, epoch: fields.u64()? },
                STATE_EXPECTED => State::Expected { from: other, through: Version(fields.u64()?) },
                _ => return None,
            };
            Some(Shard { end: Bytes::copy_from_slice(fields.rest()), epoch, version, state })
        };
        decode().ok_or_else(|| corrupt("shard row", bytes))
    }
}
