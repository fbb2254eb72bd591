//! A request's way through a node: limits, authorisation, what operators have switched off, the group that owns what it names, that
//! group's door, where tenants take turns, then the log or the read side.
//!
//! Writes go through the group's log, where ownership and conditions are judged; nothing judged here is believed there. Reads of the
//! latest go behind a read barrier at the leader; reads of a version, or of a bounded age, are answered by any replica that is far
//! enough.
//!
//! Not here: who the principal is (`doors` establish it, or the process itself), when to retry (`shard-router`).

use crate::command::Command;
use crate::group::Group;
use crate::host::Load;
use crate::machine::Outcome;
use crate::node::Node;
use crate::witness::{Course, ShardKey, Witness};
use bytes::Bytes;
use futures::future::BoxFuture;
use metadb_proto::directory::{DIRECTORY_GROUP, DIRECTORY_TENANT};
use metadb_proto::kv::{self, Kv, request, response};
use metadb_proto::planted::{self, Bug};
use metadb_proto::principal::Action;
use metadb_proto::settings::gate::Service;
use metadb_proto::v1::{self, operation};
use metadb_proto::{Error, Principal, Version, limits, seam};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tracing::Instrument as _;

/// When a caller may ask again who met bytes that do not read back: a healthy replica leads by then.
const CORRUPT_RETRY: Duration = Duration::from_millis(300);

impl Kv for Node {
    fn call<'a>(&'a self, principal: &'a Principal, body: request::Body) -> BoxFuture<'a, Result<response::Body, Error>> {
        Box::pin(witnessed(self, principal, body))
    }
}

/// Answers, and tells how long it took and where.
async fn witnessed(node: &Node, principal: &Principal, body: request::Body) -> Result<response::Body, Error> {
    let mut witness = Witness::begin(node.busiest(), &body);
    let lines = witness.log_span();
    let shard = if witness.is_counted() { shard_of(node, &body) } else { None };
    let result = answer(node, principal, body, &mut witness.course).instrument(lines).await;
    witness.end(node.busiest(), node.slow_log(), shard, &result);
    result
}

/// The shard that a request is for, if this node has it.
fn shard_of(node: &Node, body: &request::Body) -> Option<ShardKey> {
    let header = kv::header(body)?;
    let group = find_group(node, header, body).ok()?;
    let (tenant_id, view) = (header.tenant_id, group.view());
    let start = view.shard_start(tenant_id, &first_key(body))?;
    Some(ShardKey { tenant_id, group_id: view.group_id(), start })
}

async fn answer(node: &Node, principal: &Principal, body: request::Body, course: &mut Course) -> Result<response::Body, Error> {
    limits::check(&body)?;
    let header = kv::header(&body).ok_or_else(|| Error::invalid("header", "present", "absent"))?;
    let tenant_id = header.tenant_id;
    principal.authorize(Action::Data { tenant_id })?;
    let load = Load::of(&body);
    check_switches(node, principal, tenant_id, load)?;
    let deadline = Instant::now() + patience(header.deadline_ms);
    let group = find_group(node, header, &body)?;
    if header.lost_node != 0 {
        group.outlive(header.lost_node, deadline).await;
    }
    group.until_arrived(tenant_id, &first_key(&body), load.bytes, deadline).await?;
    let _permit = group.admission().enter(tenant_id, load, deadline).await?;
    let answer = match body {
        request::Body::Transact(request) => transact(&group, request, deadline, course).await.map(response::Body::Transact),
        body @ (request::Body::Get(_) | request::Body::MultiGet(_) | request::Body::Scan(_) | request::Body::Walk(_)) => {
            read(&group, &body, deadline, course).await
        }
    };
    answer.map_err(|error| with_leader(node, tenant_id, error))
}

/// Refuses what an operator has switched off. Operators themselves are let in, to look and to mend.
fn check_switches(node: &Node, principal: &Principal, tenant_id: u64, load: Load) -> Result<(), Error> {
    let settings = &node.config().settings;
    match principal {
        Principal::Operator(_) => Ok(()),
        Principal::Node(_) => settings.check_tenant(tenant_id, load.writes),
        Principal::Tenant { .. } => {
            settings.check_service(Service::Kv, tenant_id)?;
            settings.check_tenant(tenant_id, load.writes)
        }
    }
}

/// For how long a request is worked on.
fn patience(deadline_ms: u32) -> Duration {
    match deadline_ms {
        0 => limits::DEFAULT_DEADLINE,
        ms => Duration::from_millis(ms.into()).min(limits::MAX_DEADLINE),
    }
}

async fn transact(
    group: &Group,
    mut request: v1::TransactRequest,
    deadline: Instant,
    course: &mut Course,
) -> Result<v1::TransactResponse, Error> {
    if let Some(header) = request.header.take() {
        let v1::RequestHeader { tenant_id, epoch, request_id, .. } = header;
        request.header = Some(v1::RequestHeader { tenant_id, epoch, request_id, ..Default::default() });
    }
    match group.propose_witnessed(Command::Transact(request), deadline, course).await? {
        Outcome::Transact(outcome) => outcome,
        Outcome::Shard(_) | Outcome::Compare(_) => Err(Error::internal("a transaction was answered like something else")),
    }
}

async fn read(group: &Group, body: &request::Body, deadline: Instant, course: &mut Course) -> Result<response::Body, Error> {
    let believed = group.clock_is_right().then(seam::unix_ms);
    if is_fresh_enough(group.view().version(), read_options(body), believed) {
        match group.view().answer(body) {
            // This replica may be behind in what it owns: the leader knows.
            Err(Error::NotFound { .. } | Error::Moved { .. } | Error::Unavailable { .. }) => {}
            answer => return answer.map_err(withheld),
        }
    }
    let asked = Instant::now();
    let view = group.read_barrier(deadline).await;
    let passed = Instant::now();
    course.barrier = passed - asked;
    let answer = view?.answer(body);
    if let Some(trace) = course.trace {
        trace.record("read barrier", asked, passed, Vec::new());
        trace.record("read", passed, Instant::now(), Vec::new());
    }
    answer.map_err(withheld)
}

/// Bytes that fail their checksum are this replica's trouble, not the caller's: another one has them, or this one when it is rebuilt.
fn withheld(error: Error) -> Error {
    let Error::Corrupt { message } = error else { return error };
    tracing::error!(message, "a read met bytes that fail their checksum; they are not served");
    Error::unavailable("what was asked for does not read back on this node; it is rebuilt from the others", CORRUPT_RETRY)
}

/// Whether a replica that has reached a version may answer by itself. A node without a clock to be believed can't judge an age.
fn is_fresh_enough(reached: Version, read: v1::ReadOptions, unix_ms: Option<u64>) -> bool {
    let is_reached = read.at_version != 0 && Version(read.at_version) <= reached;
    let is_within = |now_ms: u64| now_ms.saturating_sub(reached.unix_ms()) <= u64::from(read.max_staleness_ms);
    let is_young = read.at_version == 0 && read.max_staleness_ms != 0 && unix_ms.is_some_and(is_within);
    is_reached || is_young || (planted::is(Bug::StalenessIsNotBounded) && read.at_version == 0 && read.max_staleness_ms != 0)
}

fn read_options(body: &request::Body) -> v1::ReadOptions {
    match body {
        request::Body::Get(r) => r.read,
        request::Body::MultiGet(r) => r.read,
        request::Body::Scan(r) => r.read,
        request::Body::Walk(r) => r.read,
        request::Body::Transact(_) => None,
    }
    .unwrap_or_default()
}

/// The group that the caller names, or the one on this node that owns the first key of the request.
fn find_group(node: &Node, header: &v1::RequestHeader, body: &request::Body) -> Result<Arc<Group>, Error> {
    if let Some(group_id) = header.group_id {
        return node.group(group_id).ok_or_else(|| elsewhere(group_id));
    }
    if header.tenant_id == DIRECTORY_TENANT {
        return node.group(DIRECTORY_GROUP).ok_or_else(|| elsewhere(DIRECTORY_GROUP));
    }
    let key = first_key(body);
    let mut refusal = None;
    for group in node.groups() {
        match group.view().owns_key(header.tenant_id, &key, 0) {
            Ok(()) => return Ok(group),
            Err(error @ Error::Moved { .. }) => refusal = Some(error),
            Err(_) => {}
        }
    }
    let unknown = || Error::not_found(format!("no group on this node owns anything of tenant {}", header.tenant_id));
    Err(refusal.map_or_else(unknown, |error| with_leader(node, header.tenant_id, error)))
}

fn elsewhere(group_id: u32) -> Error {
    let redirect = v1::Redirect { group_id, leader: None, epoch: 0, ..Default::default() };
    Error::Moved { message: format!("this node has no replica of group {group_id}"), redirect }
}

/// Adds the leader to a redirect, if this node has a replica of the group meant.
fn with_leader(node: &Node, tenant_id: u64, error: Error) -> Error {
    let Error::Moved { message, mut redirect } = error else { return error };
    // For a tenant's data the directory's group means: look it up there.
    let is_group = redirect.group_id != DIRECTORY_GROUP || tenant_id == DIRECTORY_TENANT;
    if redirect.leader.is_none() && is_group {
        redirect.leader = node.group(redirect.group_id).and_then(|group| group.leader());
    }
    Error::Moved { message, redirect }
}

fn first_key(body: &request::Body) -> Bytes {
    match body {
        request::Body::Get(r) => r.key.clone(),
        request::Body::MultiGet(r) => r.keys.first().cloned().unwrap_or_default(),
        request::Body::Scan(r) => r.start.clone(),
        request::Body::Walk(r) => [&r.prefix[..], &r.start[..], r.segments.first().map_or(&[][..], |segment| &segment[..])].concat().into(),
        request::Body::Transact(r) => {
            let condition = r.conditions.first().map(|condition| condition.key.clone());
            condition.or_else(|| r.operations.first().and_then(|operation| operation.op.as_ref()).map(operation_key)).unwrap_or_default()
        }
    }
}

fn operation_key(op: &operation::Op) -> Bytes {
    match op {
        operation::Op::Get(get) => get.key.clone(),
        operation::Op::Put(put) => put.key.clone(),
        operation::Op::Delete(delete) => delete.key.clone(),
        operation::Op::DeleteRange(range) => range.start.clone(),
        operation::Op::Add(add) => add.key.clone(),
        operation::Op::PutVersionstamped(put) => put.prefix.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_bounded_and_has_a_default() {
        assert_eq!(patience(0), limits::DEFAULT_DEADLINE);
        assert_eq!(patience(5), Duration::from_millis(5));
        assert_eq!(patience(u32::MAX), limits::MAX_DEADLINE);
    }

    #[test]
    fn a_replica_answers_alone_only_what_it_has_reached() {
        let read = |at_version, max_staleness_ms| v1::ReadOptions { at_version, max_staleness_ms };
        let unix_ms = seam::unix_ms();
        let now = Version::from_unix_ms(unix_ms);
        let is_fresh_enough = |reached, read| is_fresh_enough(reached, read, Some(unix_ms));
        assert!(!is_fresh_enough(now, read(0, 0)), "the latest asks the leader");
        assert!(is_fresh_enough(now, read(now.0, 0)));
        assert!(!is_fresh_enough(now, read(now.0 + 1, 0)));
        assert!(!is_fresh_enough(now, read(now.0 + 1, 60_000)), "a version asked for is a version asked for");
        assert!(is_fresh_enough(now, read(0, 60_000)));
        assert!(!is_fresh_enough(Version::from_unix_ms(1), read(0, 60_000)));
        assert!(!super::is_fresh_enough(now, read(0, 60_000), None), "without a clock no age is known");
        assert!(super::is_fresh_enough(now, read(now.0, 0), None));
    }
}
