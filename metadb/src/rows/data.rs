//! A version of a key: `group u32, tenant u64, escaped key, !version u64` → 1 and the value, or 0 for a deletion.
//!
//! All versions of a key are neighbours, newest first. What they share is the key's *stem*; stems sort as keys do.

use super::{corrupt, escape, successor};
use bytes::Bytes;
use metadb_engine::EngineError;
use metadb_proto::Version;

const TENANT_PREFIX_BYTES: usize = 4 + 8;
const VERSION_BYTES: usize = 8;
const TAG_DELETED: u8 = 0;
const TAG_PUT: u8 = 1;

/// The stem of a key: its row keys without the version.
#[must_use]
pub fn stem(group_id: u32, tenant_id: u64, key: &[u8]) -> Bytes {
    let mut out = tenant_prefix(group_id, tenant_id, key.len() + escape::END_BYTES);
    escape::push(&mut out, key);
    out.into()
}

fn tenant_prefix(group_id: u32, tenant_id: u64, room: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(TENANT_PREFIX_BYTES + room);
    out.extend_from_slice(&group_id.to_be_bytes());
    out.extend_from_slice(&tenant_id.to_be_bytes());
    out
}

/// The stems, and row keys, of a tenant's keys from `start`, inclusive, to `end`, exclusive; an empty `end` means all from `start` on.
/// `None` if no key can lie between them.
#[must_use]
pub fn range(group_id: u32, tenant_id: u64, start: &[u8], end: &[u8]) -> Option<(Bytes, Bytes)> {
    if !end.is_empty() && start >= end {
        return None;
    }
    let upper = if end.is_empty() { successor(&tenant_prefix(group_id, tenant_id, 0)).into() } else { stem(group_id, tenant_id, end) };
    Some((stem(group_id, tenant_id, start), upper))
}

/// The key that a stem stands for.
///
/// # Errors
/// [`EngineError::Corrupt`].
pub fn key_of(stem: &[u8]) -> Result<Bytes, EngineError> {
    stem.get(TENANT_PREFIX_BYTES..).and_then(escape::read).map(Bytes::from).ok_or_else(|| corrupt("data row key", stem))
}

/// The key of the row that holds a version.
#[must_use]
pub fn row_key(stem: &[u8], version: Version) -> Bytes {
    let mut out = Vec::with_capacity(stem.len() + VERSION_BYTES);
    out.extend_from_slice(stem);
    out.extend_from_slice(&(!version.0).to_be_bytes());
    out.into()
}

/// Takes a row's key apart into stem and version.
///
/// # Errors
/// [`EngineError::Corrupt`].
pub fn split(row_key: &Bytes) -> Result<(Bytes, Version), EngineError> {
    let stem_bytes = row_key.len().saturating_sub(VERSION_BYTES);
    match row_key.last_chunk::<VERSION_BYTES>() {
        Some(inverted) if stem_bytes >= TENANT_PREFIX_BYTES + escape::END_BYTES => {
            Ok((row_key.slice(..stem_bytes), Version(!u64::from_be_bytes(*inverted))))
        }
        _ => Err(corrupt("data row key", row_key)),
    }
}

/// One version of a key, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The version of the commit that wrote it.
    pub version: Version,
    row: Bytes,
}

impl Stored {
    /// A value.
    #[must_use]
    pub fn put(version: Version, value: &[u8]) -> Self {
        let mut row = Vec::with_capacity(1 + value.len());
        row.push(TAG_PUT);
        row.extend_from_slice(value);
        Stored { version, row: row.into() }
    }

    /// A deletion.
    #[must_use]
    pub fn deleted(version: Version) -> Self {
        Stored { version, row: Bytes::from_static(&[TAG_DELETED]) }
    }

    /// From a row's value.
    ///
    /// # Errors
    /// [`EngineError::Corrupt`].
    pub fn read(version: Version, row: Bytes) -> Result<Self, EngineError> {
        match row.first() {
            Some(&TAG_PUT) => Ok(Stored { version, row }),
            Some(&TAG_DELETED) if row.len() == 1 => Ok(Stored { version, row }),
            _ => Err(corrupt("data row", &row)),
        }
    }

    /// The row's value.
    #[must_use]
    pub fn row(&self) -> &Bytes {
        &self.row
    }

    /// Whether it is a value, not a deletion.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.row.first() == Some(&TAG_PUT)
    }

    /// The value; none if this is a deletion.
    #[must_use]
    pub fn value(&self) -> Option<Bytes> {
        self.is_live().then(|| self.row.slice(1..))
    }
}
