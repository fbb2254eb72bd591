//! What a commit touched: `group u32, version u64` → format, tenant, keys. A commit that wrote nothing has no such row.

use super::{Fields, corrupt, put_sized};
use bytes::Bytes;
use metadb_engine::EngineError;
use metadb_proto::Version;

const FORMAT: u8 = 1;

/// Which keys a commit touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Whose keys.
    pub tenant_id: u64,
    /// Each key once, in the order first touched.
    pub keys: Vec<Bytes>,
}

/// The row's key.
#[must_use]
pub fn key(group_id: u32, version: Version) -> Bytes {
    let mut out = Vec::with_capacity(12);
    out.extend_from_slice(&group_id.to_be_bytes());
    out.extend_from_slice(&version.0.to_be_bytes());
    out.into()
}

impl Change {
    /// The row's value.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let keys: usize = self.keys.iter().map(|key| 4 + key.len()).sum();
        let mut out = Vec::with_capacity(13 + keys);
        out.push(FORMAT);
        out.extend_from_slice(&self.tenant_id.to_be_bytes());
        out.extend_from_slice(&u32::try_from(self.keys.len()).expect("bounded by the limits of a transaction").to_be_bytes());
        for key in &self.keys {
            put_sized(&mut out, key);
        }
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
            let tenant_id = fields.u64()?;
            let count = fields.u32()?;
            let mut keys = Vec::new();
            for _ in 0..count {
                keys.push(Bytes::copy_from_slice(fields.sized()?));
            }
            fields.end()?;
            Some(Change { tenant_id, keys })
        };
        decode().ok_or_else(|| corrupt("change row", bytes))
    }
}
