//! Operations of a transaction, written briefly.

use bytes::Bytes;
use metadb_proto::v1::{Operation, operation};

fn of(op: operation::Op) -> Operation {
    Operation { op: Some(op) }
}

/// Reads a key within the transaction.
pub fn get(key: impl Into<Bytes>) -> Operation {
    of(operation::Op::Get(operation::Get { key: key.into() }))
}

/// Writes a key.
pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Operation {
    of(operation::Op::Put(operation::Put { key: key.into(), value: value.into() }))
}

/// Removes a key, if it is there.
pub fn delete(key: impl Into<Bytes>) -> Operation {
    of(operation::Op::Delete(operation::Delete { key: key.into() }))
}

/// Removes all keys from `start`, inclusive, to `end`, exclusive (empty: to the end of the tenant).
pub fn delete_range(start: impl Into<Bytes>, end: impl Into<Bytes>) -> Operation {
    of(operation::Op::DeleteRange(operation::DeleteRange { start: start.into(), end: end.into() }))
}

/// Adds to a 64-bit little-endian counter; an absent key counts as 0.
pub fn add(key: impl Into<Bytes>, delta: i64) -> Operation {
    of(operation::Op::Add(operation::Add { key: key.into(), delta }))
}

/// Writes the key `prefix + version of the commit + suffix`.
pub fn put_versionstamped(prefix: impl Into<Bytes>, suffix: impl Into<Bytes>, value: impl Into<Bytes>) -> Operation {
    of(operation::Op::PutVersionstamped(operation::PutVersionstamped { prefix: prefix.into(), suffix: suffix.into(), value: value.into() }))
}
