//! What an entry of the log touched: `group u32, version u64` → format, then for each of its requests the version, tenant, request id and keys.
//!
//! The version in the key is that of the last commit in the row, so that whoever wants all commits since a version seeks to it and meets
//! them in order, none missed. One row for the many commits of an entry costs a fraction of a row for each. A request that wrote nothing is
//! in it only if its outcome is remembered, without keys: a move brings the new rows and the new outcomes. An entry that touched very much
//! (ranges deleted) has several rows.

use super::{Fields, corrupt, put_sized, successor};
use bytes::Bytes;
use metadb_engine::EngineError;
use metadb_proto::Version;

const FORMAT: u8 = 3;
/// A row takes no further commit past so many bytes, as rows travel whole in messages of snapshots; a larger commit has a row of its own.
pub const ROW_BYTES: usize = 1 << 20;

/// What a request takes besides its id and its keys: version, tenant, length of the id, count.
const COMMIT_BYTES: usize = 8 + 8 + 1 + 4;

/// Which keys a request touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The commit.
    pub version: Version,
    /// Whose keys.
    pub tenant_id: u64,
    /// Under which its outcome is remembered; empty: it is not.
    pub request_id: Bytes,
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

/// The keys of all rows that may tell of requests at a version or above.
#[must_use]
pub fn since(group_id: u32, version: Version) -> (Bytes, Bytes) {
    (key(group_id, version), successor(&group_id.to_be_bytes()).into())
}

/// The version in a row's key.
///
/// # Errors
/// [`EngineError::Corrupt`].
pub fn version_of(key: &[u8]) -> Result<Version, EngineError> {
    let version = <[u8; 12]>::try_from(key).ok().and_then(|key| key.last_chunk::<8>().copied());
    version.map(|version| Version(u64::from_be_bytes(version))).ok_or_else(|| corrupt("change row key", key))
}

/// A row that is being written.
#[derive(Debug, Default)]
pub struct Changes {
    last: Version,
    row: Vec<u8>,
}

impl Changes {
    /// Adds a request; versions rise.
    pub fn add(&mut self, change: &Change) {
        if self.row.is_empty() {
            self.row.push(FORMAT);
        }
        self.last = change.version;
        self.row.extend_from_slice(&change.version.0.to_be_bytes());
        self.row.extend_from_slice(&change.tenant_id.to_be_bytes());
        self.row.push(u8::try_from(change.request_id.len()).expect("bounded by the limits of a request"));
        self.row.extend_from_slice(&change.request_id);
        self.row.extend_from_slice(&u32::try_from(change.keys.len()).expect("bounded by the limits of a transaction").to_be_bytes());
        for key in &change.keys {
            put_sized(&mut self.row, key);
        }
    }

    /// Whether a request has a place in the row.
    #[must_use]
    pub fn has_room(&self, change: &Change) -> bool {
        let bytes: usize = change.keys.iter().map(|key| 4 + key.len()).sum();
        self.row.is_empty() || self.row.len() + COMMIT_BYTES + change.request_id.len() + bytes <= ROW_BYTES
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
            let (version, tenant_id, id_bytes) = (Version(fields.u64()?), fields.u64()?, fields.u8()?);
            let (request_id, count) = (bytes.slice_ref(fields.take(id_bytes.into())?), fields.u32()?);
            let mut keys = Vec::new();
            for _ in 0..count {
                keys.push(bytes.slice_ref(fields.sized()?));
            }
            changes.push(Change { version, tenant_id, request_id, keys });
        }
        Some(changes)
    };
    decode().ok_or_else(|| corrupt("change row", bytes))
}
