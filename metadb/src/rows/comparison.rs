//! How far the comparison of the replicas' states is: `group u32, kind` → format, when it began, family, the row key it is at.
//!
//! Written by the entry that has a slice compared, so that a later leader goes on there, whatever restarted in between.

use super::{Fields, corrupt, kind, state_prefix};
use bytes::Bytes;
use metadb_engine::EngineError;

const FORMAT: u8 = 1;

/// Where a comparison was when its last slice was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// When it began, by the leader's wall clock, in ms since the Unix epoch.
    pub began_ms: u64,
    /// Which rows: the number of their column family.
    pub family: u8,
    /// Where the slice begins; empty: at the first row.
    pub from: Bytes,
}

/// The row's key.
#[must_use]
pub fn key(group_id: u32) -> Bytes {
    state_prefix(group_id, kind::COMPARISON, 0).into()
}

impl Comparison {
    /// The row's value.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(10 + self.from.len());
        out.push(FORMAT);
        out.extend_from_slice(&self.began_ms.to_be_bytes());
        out.push(self.family);
        out.extend_from_slice(&self.from);
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
            let (began_ms, family) = (fields.u64()?, fields.u8()?);
            Some(Comparison { began_ms, family, from: Bytes::copy_from_slice(fields.rest()) })
        };
        decode().ok_or_else(|| corrupt("comparison row", bytes))
    }
}
