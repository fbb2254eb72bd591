//! What a request is expected to take, by what it says of itself: so that turns are fair by work and not by count.

use metadb_proto::kv::request;
use metadb_proto::v1::{condition, operation};

/// Operations and conditions that cost as much as one small write.
const OPERATIONS_PER_UNIT: usize = 8;
/// Bytes that cost as much as one small write.
const BYTES_PER_UNIT: usize = 8 << 10;
/// Rows that cost as much as one small read.
const ROWS_PER_UNIT: usize = 64;
/// Rows of a scan that names no limit: most pages are short.
const ROWS_OF_A_SCAN: usize = 256;
/// Keys that cost as much as one small read.
const KEYS_PER_UNIT: usize = 16;

/// What a request is expected to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) writes: bool,
    /// In units of a small request; at least 1.
    pub(crate) cost: u64,
    /// What it occupies while it waits.
    pub(crate) bytes: usize,
}

impl Load {
    /// Of a request.
    pub(crate) fn of(body: &request::Body) -> Self {
        let (writes, units, bytes) = match body {
            request::Body::Get(r) => (false, 0, r.key.len()),
            request::Body::MultiGet(r) => (false, r.keys.len() / KEYS_PER_UNIT, r.keys.iter().map(bytes::Bytes::len).sum()),
            request::Body::Scan(r) => {
                let rows = if r.limit == 0 { ROWS_OF_A_SCAN } else { r.limit as usize };
                (false, rows / ROWS_PER_UNIT, r.start.len() + r.end.len() + r.continuation.len())
            }
            request::Body::Walk(r) => {
                let bytes = r.prefix.len() + r.start.len() + r.segments.iter().map(bytes::Bytes::len).sum::<usize>();
                (false, r.segments.len() / KEYS_PER_UNIT, bytes)
            }
            request::Body::Transact(r) => {
                let conditions: usize = r.conditions.iter().map(condition_bytes).sum();
                let bytes = conditions + r.operations.iter().map(operation_bytes).sum::<usize>();
                (true, (r.conditions.len() + r.operations.len()) / OPERATIONS_PER_UNIT + bytes / BYTES_PER_UNIT, bytes)
            }
        };
        Load { writes, cost: 1 + units as u64, bytes }
    }
}

fn condition_bytes(condition: &metadb_proto::v1::Condition) -> usize {
    let test = match &condition.test {
        Some(condition::Test::ValueEquals(value)) => value.len(),
        Some(condition::Test::RangeEmpty(range)) => range.end.len(),
        Some(condition::Test::RangeUnchanged(range)) => range.end.len(),
        Some(condition::Test::VersionEquals(_) | condition::Test::Exists(_) | condition::Test::Absent(_)) | None => 0,
    };
    condition.key.len() + test
}

fn operation_bytes(operation: &metadb_proto::v1::Operation) -> usize {
    match &operation.op {
        None => 0,
        Some(operation::Op::Get(get)) => get.key.len(),
        Some(operation::Op::Put(put)) => put.key.len() + put.value.len(),
        Some(operation::Op::Delete(delete)) => delete.key.len(),
        Some(operation::Op::DeleteRange(range)) => range.start.len() + range.end.len(),
        Some(operation::Op::Add(add)) => add.key.len(),
        Some(operation::Op::PutVersionstamped(put)) => put.prefix.len() + put.suffix.len() + put.value.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metadb_proto::v1;

    #[test]
    fn large_requests_cost_more_than_small_ones() {
        let put =
            |bytes: usize| v1::Operation { op: Some(operation::Op::Put(operation::Put { key: "k".into(), value: vec![0; bytes].into() })) };
        let transact = |operations| Load::of(&request::Body::Transact(v1::TransactRequest { operations, ..Default::default() }));
        assert_eq!(transact(vec![put(256)]), Load { writes: true, cost: 1, bytes: 257 });
        assert_eq!(transact(vec![put(1 << 20)]).cost, 1 + 128);
        assert_eq!(transact(vec![put(0); 80]).cost, 11);
        let scan = |limit| Load::of(&request::Body::Scan(v1::ScanRequest { limit, ..Default::default() })).cost;
        assert_eq!((scan(1), scan(0), scan(10_000)), (1, 5, 157));
        assert_eq!(Load::of(&request::Body::Get(v1::GetRequest { key: "key".into(), ..Default::default() })).cost, 1);
    }
}
