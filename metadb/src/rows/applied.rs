//! How far a group was applied: `group u32, kind` → format, version, position, membership. Written in every batch.

use super::{Fields, corrupt, kind, put_sized, state_prefix};
use bytes::Bytes;
use metadb_engine::EngineError;
use metadb_proto::Version;

const FORMAT: u8 = 1;

/// How far a group was applied. The default: nothing yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// The log position of the last entry applied, opaque here; empty: none.
    pub position: Bytes,
    /// The last membership applied, opaque here; empty: none.
    pub membership: Bytes,
    /// The last version given to a command.
    pub version: Version,
}

/// The row's key.
#[must_use]
pub fn key(group_id: u32) -> Bytes {
    state_prefix(group_id, kind::APPLIED, 0).into()
}

impl Applied {
    /// The row's value.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(17 + self.position.len() + self.membership.len());
        out.push(FORMAT);
        out.extend_from_slice(&self.version.0.to_be_bytes());
        put_sized(&mut out, &self.position);
        put_sized(&mut out, &self.membership);
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
            let version = Version(fields.u64()?);
            let position = Bytes::copy_from_slice(fields.sized()?);
            let membership = Bytes::copy_from_slice(fields.sized()?);
            fields.end()?;
            Some(Applied { position, membership, version })
        };
        decode().ok_or_else(|| corrupt("applied row", bytes))
    }
}
