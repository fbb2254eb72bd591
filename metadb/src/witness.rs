//! A request and its witness: how long it took and where, for the counters, the slow-request log, the trace and the list of busy tenants.
//!
//! What is kept while a request runs is a few numbers and references; texts are made only for a request that is slow or sampled. Nothing
//! here tells a value, a secret or a whole key: a key is told by its shape, `a4/d8` for four letters, a slash and eight digits.

mod busiest;
mod slow;

pub(crate) use busiest::{Busiest, ShardKey};
pub(crate) use slow::SlowLog;

use crate::metrics::{HANDLES, VERBS, verb};
use bytes::Bytes;
use metadb_proto::kv::{request, response};
use metadb_proto::v1::{self, operation};
use metadb_proto::{Error, kv};
use metadb_telemetry::trace::{Context, Span};
use std::fmt::Write as _;
use std::time::Duration;
use tokio::time::Instant;

/// Longest part of a key that its shape tells of, in bytes.
const SHAPE_BYTES: usize = 48;

/// Where the time of a request went, as far as it got.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Course {
    /// The trace that it belongs to, if it is sampled.
    pub(crate) trace: Option<Context>,
    /// Waiting for a place in an entry.
    pub(crate) queue: Duration,
    /// From the proposal of its entry until that was committed.
    pub(crate) commit: Duration,
    /// Applying the batch with its entry.
    pub(crate) apply: Duration,
    /// Waiting for leadership to be confirmed, and for what that confirmed to be applied.
    pub(crate) barrier: Duration,
}

/// What a request is like, without what it says.
#[derive(Debug, Clone)]
struct Shape {
    verb: usize,
    tenant_id: u64,
    group_id: Option<u32>,
    request_id: Bytes,
    conditions: usize,
    operations: usize,
    key: Bytes,
}

/// A request that is being answered.
pub(crate) struct Witness {
    started: Instant,
    shape: Shape,
    span: Option<Span>,
    /// Whether the list of busy tenants counts this one, and for how many.
    weight: u64,
    bytes: usize,
    pub(crate) course: Course,
}

impl Witness {
    /// Begins to witness a request.
    pub(crate) fn begin(busiest: &Busiest, body: &request::Body) -> Self {
        let header = kv::header(body);
        let shape = Shape::of(body, header);
        let caller = header.filter(|header| !header.traceparent.is_empty()).and_then(|header| Context::parse(&header.traceparent));
        let mut span = caller.map(|caller| caller.child("node"));
        if let Some(span) = &mut span {
            span.note("verb", VERBS[shape.verb]);
            span.note("tenant", shape.tenant_id);
            span.note("request_id", hex::encode(&shape.request_id));
            if let Some(group_id) = shape.group_id {
                span.note("group", group_id);
            }
        }
        let course = Course { trace: span.as_ref().map(Span::context), ..Course::default() };
        let weight = busiest.weight();
        let bytes = if weight == 0 { 0 } else { busiest::request_bytes(body) };
        Witness { started: Instant::now(), shape, span, weight, bytes, course }
    }

    /// The span that log lines of this request are in. It costs a comparison unless such lines are asked for.
    pub(crate) fn log_span(&self) -> tracing::Span {
        tracing::debug_span!(
            "request",
            verb = VERBS[self.shape.verb],
            tenant = self.shape.tenant_id,
            request_id = %hex::encode(&self.shape.request_id)
        )
    }

    /// Whether the lists of who is busy count this one.
    pub(crate) fn is_counted(&self) -> bool {
        self.weight > 0
    }

    /// Tells how it ended. `shard`: the one that it was for, if it is counted and that was found.
    pub(crate) fn end(mut self, busiest: &Busiest, slow: &SlowLog, shard: Option<ShardKey>, result: &Result<response::Body, Error>) {
        let took = self.started.elapsed();
        HANDLES.answered(self.shape.verb, took, result);
        if self.weight > 0 {
            let answer = result.as_ref().map_or(0, busiest::response_bytes);
            // Who was sent elsewhere is counted there.
            let shard = shard.filter(|_| !matches!(result, Err(Error::Moved { .. })));
            busiest.count(self.shape.tenant_id, shard, self.weight, (self.bytes + answer) as u64);
        }
        if let (Some(span), Err(error)) = (&mut self.span, result) {
            span.fail(error);
        }
        if slow.is_slow(took) {
            HANDLES.slow.increment(1);
            slow.tell(&self.shape, &self.course, took, result);
        }
    }
}

impl Shape {
    fn of(body: &request::Body, header: Option<&v1::RequestHeader>) -> Self {
        let (conditions, operations, key) = match body {
            request::Body::Get(r) => (0, 1, r.key.clone()),
            request::Body::MultiGet(r) => (0, r.keys.len(), r.keys.first().cloned().unwrap_or_default()),
            request::Body::Scan(r) => (0, 1, r.start.clone()),
            request::Body::Walk(r) => (0, r.segments.len(), r.prefix.clone()),
            request::Body::Transact(r) => (r.conditions.len(), r.operations.len(), written_key(r)),
        };
        Shape {
            verb: verb(body),
            tenant_id: header.map_or(0, |header| header.tenant_id),
            group_id: header.and_then(|header| header.group_id),
            request_id: header.map(|header| header.request_id.clone()).unwrap_or_default(),
            conditions,
            operations,
            key,
        }
    }

    /// Requests with the same fingerprint do the same kind of thing: `transact c2 o3 a4/d8`.
    fn fingerprint(&self) -> String {
        format!("{} c{} o{} {}", VERBS[self.verb], self.conditions, self.operations, key_shape(&self.key))
    }
}

fn written_key(request: &v1::TransactRequest) -> Bytes {
    let first = request.operations.first().and_then(|operation| operation.op.as_ref());
    let written = first.map(|op| match op {
        operation::Op::Get(get) => get.key.clone(),
        operation::Op::Put(put) => put.key.clone(),
        operation::Op::Delete(delete) => delete.key.clone(),
        operation::Op::DeleteRange(range) => range.start.clone(),
        operation::Op::Add(add) => add.key.clone(),
        operation::Op::PutVersionstamped(put) => put.prefix.clone(),
    });
    written.or_else(|| request.conditions.first().map(|condition| condition.key.clone())).unwrap_or_default()
}

/// A key by the classes of its bytes and how many of each follow one another: letters `a`, digits `d`, other bytes `x`; what separates words
/// stands for itself.
fn key_shape(key: &[u8]) -> String {
    let class = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' => 'a',
        b'0'..=b'9' => 'd',
        b'/' | b'.' | b'-' | b'_' | b':' => char::from(byte),
        _ => 'x',
    };
    let mut shape = String::new();
    for run in key[..key.len().min(SHAPE_BYTES)].chunk_by(|a, b| class(*a) == class(*b)) {
        let class = class(run[0]);
        // Writing to a string can't fail.
        let _ = if class.is_ascii_alphabetic() { write!(shape, "{class}{}", run.len()) } else { write!(shape, "{class}") };
    }
    if key.len() > SHAPE_BYTES {
        shape.push('…');
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_tells_what_kind_of_key_it_is_and_nothing_of_what_it_says() {
        assert_eq!(key_shape(b"user/00012345"), "a4/d8");
        assert_eq!(key_shape(b"\x15\x01\x02secret\x00"), "x3a6x1");
        assert_eq!(key_shape(b""), "");
        assert_eq!(key_shape(&[b'k'; 4096]), "a48…");
    }

    #[test]
    fn requests_that_do_the_same_have_the_same_fingerprint() {
        let put = |key: &str, value: &str| {
            let put = operation::Put { key: key.to_owned().into(), value: value.to_owned().into() };
            let request = v1::TransactRequest {
                header: None,
                conditions: vec![],
                operations: vec![v1::Operation { op: Some(operation::Op::Put(put)) }],
            };
            Shape::of(&request::Body::Transact(request), None).fingerprint()
        };
        assert_eq!(put("anna/1", "hunter2"), "transact c0 o1 a4/d1");
        assert_eq!(put("anna/1", "hunter2"), put("otto/7", "other"));
    }
}
