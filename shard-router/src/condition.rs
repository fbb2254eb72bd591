//! Conditions of a transaction, written briefly.

use bytes::Bytes;
use metadb_proto::v1::{Condition, condition};

fn of(key: impl Into<Bytes>, test: condition::Test) -> Condition {
    Condition { key: key.into(), test: Some(test) }
}

/// There is no such key.
pub fn absent(key: impl Into<Bytes>) -> Condition {
    of(key, condition::Test::Absent(condition::Absent {}))
}

/// There is such a key.
pub fn exists(key: impl Into<Bytes>) -> Condition {
    of(key, condition::Test::Exists(condition::Exists {}))
}

/// The key was last written by the commit of this version.
pub fn version_is(key: impl Into<Bytes>, version: u64) -> Condition {
    of(key, condition::Test::VersionEquals(version))
}

/// The key has this value.
pub fn value_is(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Condition {
    of(key, condition::Test::ValueEquals(value.into()))
}

/// No key lies from `start`, inclusive, to `end`, exclusive (empty: to the end of the tenant).
pub fn range_empty(start: impl Into<Bytes>, end: impl Into<Bytes>) -> Condition {
    of(start, condition::Test::RangeEmpty(condition::RangeEmpty { end: end.into() }))
}

/// The range holds as many keys as when it was read, and none has a higher version.
pub fn range_unchanged(start: impl Into<Bytes>, end: impl Into<Bytes>, count: u64, highest_version: u64) -> Condition {
    of(start, condition::Test::RangeUnchanged(condition::RangeUnchanged { end: end.into(), count, highest_version }))
}
