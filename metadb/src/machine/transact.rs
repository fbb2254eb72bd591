//! A transaction: remembered? owned? conditions, then operations, then all of it or nothing.

use super::operation::{Transaction, stamped_key};
use super::{Refusal, Run};
use crate::rows::change::Change;
use bytes::Bytes;
use metadb_proto::planted::{self, Bug};
use metadb_proto::v1::{self, condition, operation};
use metadb_proto::{Error, Version};

impl Run<'_> {
    pub(super) fn transact(&mut self, request: &v1::TransactRequest, version: Version) -> Result<v1::TransactResponse, Refusal> {
        let header = request.header.as_ref().ok_or_else(|| Error::invalid("header", "present", "absent"))?;
        if !header.request_id.is_empty()
            && !planted::is(Bug::RememberedIsNotChecked)
            && let Some(outcome) = self.remembered.find(self.store, version, header.tenant_id, &header.request_id)?
        {
            return Ok(outcome);
        }
        self.check_ownership(header, request, version)?;
        self.check_arrivals(header.tenant_id)?;
        let (outcome, keys) = match self.failed_condition(header.tenant_id, &request.conditions)? {
            Some((index, actual)) if !planted::is(Bug::ConditionIsNotChecked) => {
                let failed_condition = u32::try_from(index).unwrap_or(u32::MAX);
                (v1::TransactResponse { committed: false, version: version.0, results: Vec::new(), failed_condition, actual }, Vec::new())
            }
            Some(_) | None => self.commit(header.tenant_id, &request.operations, version)?,
        };
        let request_id = header.request_id.clone();
        if !request_id.is_empty() {
            self.remembered.keep(version, header.tenant_id, &request_id, &outcome, &mut self.batch);
        }
        if !keys.is_empty() || !request_id.is_empty() {
            self.note_change(&Change { version, tenant_id: header.tenant_id, request_id, keys });
        }
        Ok(outcome)
    }

    fn note_change(&mut self, change: &Change) {
        if !self.changes.has_room(change) {
            self.close_changes();
        }
        self.changes.add(change);
    }

    /// The outcome, and the keys that were touched.
    fn commit(
        &mut self,
        tenant_id: u64,
        operations: &[v1::Operation],
        version: Version,
    ) -> Result<(v1::TransactResponse, Vec<Bytes>), Refusal> {
        let mut writes = Transaction::new(self.group_id, tenant_id, version, &mut self.overlay);
        let lost = usize::from(planted::is(Bug::TransactionIsTorn) && operations.len() > 1 && version.unix_ms().is_multiple_of(5));
        let done = operations[..operations.len() - lost].iter().map(|operation| writes.perform(operation));
        let results = done.chain((0..lost).map(|_| Ok(v1::OperationResult::default()))).collect::<Result<Vec<_>, _>>();
        let keys = writes.into_keys();
        let results = match results {
            Ok(results) => results,
            Err(refusal) => {
                self.overlay.roll_back();
                return Err(refusal);
            }
        };
        self.overlay.commit(version, &mut self.batch);
        Ok((v1::TransactResponse { committed: true, version: version.0, results, failed_condition: 0, actual: None }, keys))
    }

    /// Whether the group owns all that a transaction reads or writes. The header's epoch is that of the first shard named.
    fn check_ownership(&self, header: &v1::RequestHeader, request: &v1::TransactRequest, version: Version) -> Result<(), Error> {
        let conditions = request.conditions.iter().map(condition_span);
        let spans = conditions.chain(request.operations.iter().map(operation_span));
        let mut epoch = header.epoch;
        let (mut empty, mut stamped) = (true, 0_u16);
        for span in spans {
            match span? {
                Span::Key(key) => self.ownership.check_key(header.tenant_id, key, epoch)?,
                Span::Stamped(put) => {
                    let key = stamped_key(put, version, stamped);
                    stamped = stamped.saturating_add(1);
                    self.ownership.check_key(header.tenant_id, &key, epoch)?;
                }
                Span::Range(start, end) => self.ownership.check_range(header.tenant_id, start, end, epoch)?,
            }
            epoch = 0;
            empty = false;
        }
        if empty { self.ownership.check_key(header.tenant_id, &[], 0) } else { Ok(()) }
    }
}

/// What one condition or operation touches.
enum Span<'a> {
    Key(&'a Bytes),
    Range(&'a Bytes, &'a Bytes),
    /// The key is made of the version.
    Stamped(&'a operation::PutVersionstamped),
}

fn condition_span(condition: &v1::Condition) -> Result<Span<'_>, Error> {
    use condition::Test;
    match condition.test.as_ref().ok_or_else(|| Error::invalid("conditions.test", "present", "absent"))? {
        Test::RangeEmpty(range) => Ok(Span::Range(&condition.key, &range.end)),
        Test::RangeUnchanged(range) => Ok(Span::Range(&condition.key, &range.end)),
        Test::VersionEquals(_) | Test::Exists(_) | Test::Absent(_) | Test::ValueEquals(_) => Ok(Span::Key(&condition.key)),
    }
}

fn operation_span(operation: &v1::Operation) -> Result<Span<'_>, Error> {
    use operation::Op;
    Ok(match operation.op.as_ref().ok_or_else(|| Error::invalid("operations.op", "present", "absent"))? {
        Op::Get(get) => Span::Key(&get.key),
        Op::Put(put) => Span::Key(&put.key),
        Op::Delete(delete) => Span::Key(&delete.key),
        Op::Add(add) => Span::Key(&add.key),
        Op::DeleteRange(range) => Span::Range(&range.start, &range.end),
        Op::PutVersionstamped(put) => Span::Stamped(put),
    })
}
