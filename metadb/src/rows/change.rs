//! What an entry of the log touched: `group u32, version u64` → format, then for each of its commits its version, tenant and keys.
//!
//! The version in the key is that of the last commit in the row, so that whoever wants all commits since a version seeks to it and meets
//! them in order, none missed. One row for the many commits of an entry costs a fraction of a row for each. A commit that wrote nothing is
//! not in it. An entry that touched very much (ranges deleted) has several rows.

use super::{Fields, corrupt, put_sized};
use bytes::Bytes;
use metadb_engine::EngineError;
use metadb_proto::Version;

const FORMAT: u8 = 2;
/// A row takes no further commit past so many bytes, as rows travel whole in messages of snapshots; a larger commit has a row of its own.
pub const ROW_BYTES: usize = 1 << 20;

/// What a commit takes besides its keys: version, tenant, count.
const COMMIT_BYTES: usize = 8 + 8 + 4;

/// Which keys a commit touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The commit.
    pub version: Version,
    /// Whose keys.
    pub tenant_id: u64,
    /// Each key once, in the order first touched.
    pub keys: Vec<Bytes>,
}

/// The row's key.
#[must_use]
pub fn key(group_id: u32, last: Version) -> Bytes {
    let mut out = Vec::with_capacity(12);
    out.extend_from_slice(&group_id.to_be_bytes());
    out.extend_from_slice(&last.0.to_be_bytes());
    out.into()
}

/// A row that is being written.
#[derive(Debug, Default)]
pub struct Changes {
    last: Version,
    row: Vec<u8>,
}

impl Changes {
    /// Adds a commit; versions rise.
    pub fn add(&mut self, version: Version, tenant_id: u64, keys: &[Bytes]) {
        if self.row.is_empty() {
            self.row.push(FORMAT);
        }
        self.last = version;
        self.row.extend_from_slice(&version.0.to_be_bytes());
        self.row.extend_from_slice(&tenant_id.to_be_bytes());
        self.row.extend_from_slice(&u32::try_from(keys.len()).expect("bounded by the limits of a transaction").to_be_bytes());
        for key in keys {
            put_sized(&mut self.row, key);
        }
    }

    /// Whether a commit of these keys has a place in the row.
    #[must_use]
    pub fn has_room(&self, keys: &[Bytes]) -> bool {
        let bytes: usize = keys.iter().map(|key| 4 + key.len()).sum();
        self.row.is_empty() || self.row.len() + COMMIT_BYTES + bytes <= ROW_BYTES
    }

    /// The row's key and value, if there was any commit; then it is empty again.
    pub fn take(&mut self, group_id: u32) -> Option<(Bytes, Bytes)> {
        if self.row.is_empty() {
            return None;
        }
        Some((key(group_id, self.last), std::mem::take(&mut self.row).into()))
    }
}

/// The commits in a row's value.
///
/// # Errors
/// [`EngineError::Corrupt`].
pub fn decode(bytes: &Bytes) -> Result<Vec<Change>, EngineError> {
    let decode = || {
        let mut fields = Fields(bytes);
        if fields.u8()? != FORMAT {
            return None;
        }
        let mut changes = Vec::new();
        while changes.is_empty() || !fields.0.is_empty() {
            let (version, tenant_id, count) = (Version(fields.u64()?), fields.u64()?, fields.u32()?);
            let mut keys = Vec::new();
            for _ in 0..count {
                keys.push(bytes.slice_ref(fields.sized()?));
            }
            changes.push(Change { version, tenant_id, keys });
        }
        Some(changes)
    };
    decode().ok_or_else(|| corrupt("change row", bytes))
}
