//! The outcome of an operation that was asked for with a request id, written in the transaction that did it: a retry gets it again.

use super::{Record, record};
use bytes::Bytes;

/// Value of `(10, slot, request id)`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RequestRecord {
    /// 1.
    #[prost(uint32, tag = "1")]
    pub schema: u32,
    /// Which operation it was: an id serves one.
    #[prost(string, tag = "2")]
    pub operation: String,
    /// What it answered, as the operation encodes it.
    #[prost(bytes = "bytes", tag = "3")]
    pub answer: Bytes,
}

record!(RequestRecord, "request", 1);

impl RequestRecord {
    /// From an answer.
    #[must_use]
    pub fn of(operation: &str, answer: Bytes) -> Self {
        RequestRecord { schema: Self::SCHEMA, operation: operation.to_owned(), answer }
    }
}
