//! A shard: `group u32, kind, tenant u64, escaped start` → format, state, epoch, version, where it went, end.

use super::{Fields, corrupt, escape, kind, state_prefix, successor};
use bytes::Bytes;
use metadb_engine::EngineError;
use metadb_proto::Version;

const FORMAT: u8 = 1;
const STATE_OWNED: u8 = 1;
const STATE_DROPPED: u8 = 2;
const STATE_DROPPED_TO: u8 = 3;

/// Whether the group owns a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It does.
    Owned,
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
        let (state, to) = match self.state {
            State::Owned => (STATE_OWNED, 0),
            State::Dropped { to: None } => (STATE_DROPPED, 0),
            State::Dropped { to: Some(to) } => (STATE_DROPPED_TO, to),
        };
        let mut out = Vec::with_capacity(22 + self.end.len());
        out.extend_from_slice(&[FORMAT, state]);
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&self.version.0.to_be_bytes());
        out.extend_from_slice(&to.to_be_bytes());
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
            let to = fields.u32()?;
            let state = match state {
                STATE_OWNED => State::Owned,
                STATE_DROPPED => State::Dropped { to: None },
                STATE_DROPPED_TO => State::Dropped { to: Some(to) },
                _ => return None,
            };
            Some(Shard { end: Bytes::copy_from_slice(fields.rest()), epoch, version, state })
        };
        decode().ok_or_else(|| corrupt("shard row", bytes))
    }
}
