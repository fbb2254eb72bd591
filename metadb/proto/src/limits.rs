//! Every limit of the API, in one place, and the checks that tell it.
//!
//! The server checks each request before it proposes or reads anything; the router checks too, to fail without a round trip.

use crate::Error;
use crate::v1::{self, condition, operation, request};
use std::time::Duration;

/// Longest key of a tenant, in bytes.
pub const KEY_BYTES: usize = 4 << 10;
/// Longest value, in bytes.
pub const VALUE_BYTES: usize = 1 << 20;
/// Largest transaction, in bytes of keys and values of its conditions and operations.
pub const TRANSACTION_BYTES: usize = 4 << 20;
/// Most conditions and operations of a transaction together.
pub const TRANSACTION_OPERATIONS: usize = 10_000;
/// Largest page of a scan or a multi-get, in bytes of keys and values.
pub const PAGE_BYTES: usize = 4 << 20;
/// Most rows of a page, of a multi-get or of a walk.
pub const PAGE_ROWS: usize = 10_000;
/// Most segments of a walk.
pub const WALK_SEGMENTS: usize = 256;
/// Most keys that one delete-range removes; a longer range is deleted in several transactions.
pub const DELETE_RANGE_KEYS: usize = 10_000;
/// Most keys in the ranges of a transaction's range-unchanged conditions together: all are read, in the one place where a group's commits
/// queue.
pub const RANGE_CONDITION_KEYS: u64 = 10_000;
/// Most bytes of rows that a transaction's conditions and operations read together, for the same reason.
pub const TRANSACTION_READ_BYTES: u64 = 64 << 20;
/// The length of a request id.
pub const REQUEST_ID_BYTES: usize = 16;
/// For how long a request id is remembered: a retry within it gets the first answer.
pub const REQUEST_ID_RETENTION: Duration = Duration::from_secs(300);
/// Deadline of a request that names none.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);
/// Longest deadline that is honoured.
pub const MAX_DEADLINE: Duration = Duration::from_secs(60);
/// Largest gRPC message: a page or a transaction, with room for its framing.
pub const MESSAGE_BYTES: usize = PAGE_BYTES + (1 << 20);
/// Most requests in one frame of the stream.
pub const FRAME_REQUESTS: usize = 1024;
/// Most ranges that one call has a group adopt: they wait in the group's queue at the same time.
pub const ADOPTED_AT_ONCE: usize = 1024;
/// Most changes of shards that one call has a group make, for the same reason.
pub const CHANGED_AT_ONCE: usize = 1024;

const _: () = assert!(KEY_BYTES + VALUE_BYTES <= TRANSACTION_BYTES, "a row of the largest size must fit a transaction");
const _: () = assert!(KEY_BYTES + VALUE_BYTES <= PAGE_BYTES, "a row of the largest size must fit a page");

/// Checks a request against every limit.
///
/// # Errors
/// [`Error::Invalid`], naming the field, the limit and the value.
pub fn check(body: &request::Body) -> Result<(), Error> {
    match body {
        request::Body::Get(r) => check_header(r.header.as_ref()).and_then(|()| check_key("key", &r.key)),
        request::Body::MultiGet(r) => check_multi_get(r),
        request::Body::Scan(r) => check_scan(r),
        request::Body::Walk(r) => check_walk(r),
        request::Body::Transact(r) => check_transact(r),
    }
}

fn check_header(header: Option<&v1::RequestHeader>) -> Result<(), Error> {
    let header = header.ok_or_else(|| Error::invalid("header", "present", "absent"))?;
    let id = header.request_id.len();
    if id != 0 && id != REQUEST_ID_BYTES {
        return Err(Error::invalid("header.request_id", format!("{REQUEST_ID_BYTES} bytes, or none"), format!("{id} bytes")));
    }
    Ok(())
}

fn check_key(field: &str, key: &[u8]) -> Result<(), Error> {
    at_most(field, key.len(), KEY_BYTES, "bytes")?;
    if key.is_empty() { Err(Error::invalid(field, "at least 1 byte", "0 bytes")) } else { Ok(()) }
}

fn at_most(field: &str, value: usize, limit: usize, unit: &str) -> Result<(), Error> {
    if value > limit {
        return Err(Error::invalid(field, format!("at most {limit} {unit}"), format!("{value} {unit}")));
    }
    Ok(())
}

fn check_multi_get(r: &v1::MultiGetRequest) -> Result<(), Error> {
    check_header(r.header.as_ref())?;
    at_most("keys", r.keys.len(), PAGE_ROWS, "keys")?;
    r.keys.iter().try_for_each(|key| check_key("keys", key))
}

fn check_scan(r: &v1::ScanRequest) -> Result<(), Error> {
    check_header(r.header.as_ref())?;
    at_most("start", r.start.len(), KEY_BYTES, "bytes")?;
    at_most("end", r.end.len(), KEY_BYTES, "bytes")?;
    at_most("limit", r.limit as usize, PAGE_ROWS, "rows")?;
    at_most("continuation", r.continuation.len(), KEY_BYTES + 16, "bytes")
}

fn check_walk(r: &v1::WalkRequest) -> Result<(), Error> {
    check_header(r.header.as_ref())?;
    at_most("segments", r.segments.len(), WALK_SEGMENTS, "segments")?;
    if r.segments.is_empty() {
        return Err(Error::invalid("segments", "at least 1 segment", "0 segments"));
    }
    // A link has at most 255 bytes, so a key built on the way is bounded by this.
    let longest = r.segments.iter().map(bytes::Bytes::len).max().unwrap_or(0);
    at_most("prefix, start or link, and segment together", r.prefix.len() + r.start.len().max(255) + longest, KEY_BYTES, "bytes")
}

fn check_transact(r: &v1::TransactRequest) -> Result<(), Error> {
    check_header(r.header.as_ref())?;
    at_most("conditions and operations together", r.conditions.len() + r.operations.len(), TRANSACTION_OPERATIONS, "")?;
    let mut bytes = 0;
    for c in &r.conditions {
        bytes += check_condition(c)?;
    }
    for o in &r.operations {
        bytes += check_operation(o)?;
    }
    at_most("transaction", bytes, TRANSACTION_BYTES, "bytes of keys and values")
}

fn check_condition(c: &v1::Condition) -> Result<usize, Error> {
    use condition::Test;
    let mut bytes = c.key.len();
    match c.test.as_ref().ok_or_else(|| Error::invalid("conditions.test", "present", "absent"))? {
        Test::RangeEmpty(condition::RangeEmpty { end }) | Test::RangeUnchanged(condition::RangeUnchanged { end, .. }) => {
            at_most("conditions.key", c.key.len(), KEY_BYTES, "bytes")?;
            at_most("conditions.end", end.len(), KEY_BYTES, "bytes")?;
            bytes += end.len();
        }
        Test::ValueEquals(value) => {
            check_key("conditions.key", &c.key)?;
            at_most("conditions.value_equals", value.len(), VALUE_BYTES, "bytes")?;
            bytes += value.len();
        }
        Test::VersionEquals(_) | Test::Exists(_) | Test::Absent(_) => check_key("conditions.key", &c.key)?,
    }
    Ok(bytes)
}

fn check_operation(o: &v1::Operation) -> Result<usize, Error> {
    use operation::Op;
    match o.op.as_ref().ok_or_else(|| Error::invalid("operations.op", "present", "absent"))? {
        Op::Get(operation::Get { key }) | Op::Delete(operation::Delete { key }) | Op::Add(operation::Add { key, .. }) => {
            check_key("operations.key", key)?;
            Ok(key.len())
        }
        Op::Put(put) => {
            check_key("operations.put.key", &put.key)?;
            at_most("operations.put.value", put.value.len(), VALUE_BYTES, "bytes")?;
            Ok(put.key.len() + put.value.len())
        }
        Op::DeleteRange(range) => {
            at_most("operations.delete_range.start", range.start.len(), KEY_BYTES, "bytes")?;
            at_most("operations.delete_range.end", range.end.len(), KEY_BYTES, "bytes")?;
            Ok(range.start.len() + range.end.len())
        }
        Op::PutVersionstamped(put) => {
            at_most("operations.put_versionstamped.prefix and suffix", put.prefix.len() + put.suffix.len() + 10, KEY_BYTES, "bytes")?;
            at_most("operations.put_versionstamped.value", put.value.len(), VALUE_BYTES, "bytes")?;
            Ok(put.prefix.len() + put.suffix.len() + 10 + put.value.len())
        }
    }
}

#[cfg(test)]
mod tests;
