//! The model: a map of keys for each version, and transactions told as plainly as can be.

use super::{Command, Outcome};
use crate::read::View;
use bytes::Bytes;
use metadb_proto::v1::{self, condition, operation};
use metadb_proto::{Error, Version};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ops::Range;

pub(super) const TENANT: u64 = 7;

/// What a leader proposes: its clock, and commands.
pub(super) type Entry = (u64, Vec<Command>);
type Row = (u64, Bytes);
type Rows = BTreeMap<Bytes, Row>;

#[derive(Default)]
pub(super) struct Model {
    version: u64,
    tenants: BTreeMap<u64, Rows>,
    /// The state after each version.
    history: Vec<(u64, BTreeMap<u64, Rows>)>,
    requests: BTreeMap<(u64, Bytes), v1::TransactResponse>,
}

pub(super) fn with_first(first: &[(u64, Command)], entries: &[Entry]) -> Vec<Entry> {
    first.iter().map(|(proposed, command)| (*proposed, vec![command.clone()])).chain(entries.iter().cloned()).collect()
}

impl Model {
    pub(super) fn apply(&mut self, (proposed, commands): &Entry) -> Vec<Outcome> {
        commands.iter().map(|command| self.command(*proposed, command)).collect()
    }

    fn command(&mut self, proposed: u64, command: &Command) -> Outcome {
        self.version = (self.version + 1).max(proposed);
        let outcome = match command {
            Command::Transact(request) => Outcome::Transact(self.transact(request)),
            Command::Compare(_) => unreachable!("the model has no replicas to compare"),
            Command::AdoptShard(_) | Command::DropShard(_) | Command::ChangeShard(_) | Command::ImportRows(_) => {
                Outcome::Shard(Ok(Version(self.version)))
            }
        };
        self.history.push((self.version, self.tenants.clone()));
        outcome
    }

    fn transact(&mut self, request: &v1::TransactRequest) -> Result<v1::TransactResponse, Error> {
        let header = request.header.as_ref().expect("generated");
        let id = (header.tenant_id, header.request_id.clone());
        if let Some(first) = self.requests.get(&id) {
            return Ok(first.clone());
        }
        let mut rows = self.tenants.get(&header.tenant_id).cloned().unwrap_or_default();
        let failed = request.conditions.iter().position(|condition| !holds(&rows, condition));
        let mut outcome = v1::TransactResponse { committed: failed.is_none(), version: self.version, ..Default::default() };
        if let Some(index) = failed {
            outcome.failed_condition = u32::try_from(index).expect("few");
            outcome.actual = met(&rows, &request.conditions[index]);
        } else {
            let mut stamps = 0;
            for operation in &request.operations {
                outcome.results.push(perform(&mut rows, operation, self.version, &mut stamps)?);
            }
            self.tenants.insert(header.tenant_id, rows);
        }
        if !header.request_id.is_empty() {
            self.requests.insert(id, outcome.clone());
        }
        Ok(outcome)
    }

    /// Reads everything in every way, at every version.
    pub(super) fn check(&self, view: &View) {
        for (version, tenants) in &self.history {
            for tenant_id in [TENANT, TENANT + 1] {
                let empty = Rows::new();
                let rows = tenants.get(&tenant_id).unwrap_or(&empty);
                let expected: Vec<v1::KeyValue> = rows.iter().map(|(key, row)| key_value(key, row)).collect();
                for limit in [0, 1, 2] {
                    assert_eq!(scan(view, tenant_id, *version, limit, false), expected, "at {version}");
                    let reversed: Vec<v1::KeyValue> = expected.iter().rev().cloned().collect();
                    assert_eq!(scan(view, tenant_id, *version, limit, true), reversed, "at {version}, in reverse");
                }
                let read = Some(v1::ReadOptions { at_version: *version, max_staleness_ms: 0 });
                let request = v1::MultiGetRequest { header: header(tenant_id), keys: all_keys(), read };
                let found = view.multi_get(&request).expect("owned").rows;
                let expected: Vec<v1::KeyValue> =
                    all_keys().iter().filter_map(|key| rows.get(key).map(|row| key_value(key, row))).collect();
                assert_eq!(found, expected, "at {version}");
            }
        }
        self.check_history(view);
    }

    /// The history of each key tells every state that it was in.
    fn check_history(&self, view: &View) {
        for key in all_keys() {
            let kept = view.history(TENANT, &key, Version::MAX, usize::MAX).expect("owned");
            assert!(kept.is_sorted_by(|a, b| a.version > b.version), "newest first");
            for (version, tenants) in &self.history {
                let expected = tenants.get(&TENANT).and_then(|rows| rows.get(&key)).map(|(version, value)| (*version, value.clone()));
                let found = kept.iter().find(|stored| stored.version.0 <= *version);
                assert_eq!(found.and_then(|stored| stored.value().map(|value| (stored.version.0, value))), expected);
            }
        }
    }
}

fn header(tenant_id: u64) -> Option<v1::RequestHeader> {
    Some(v1::RequestHeader { tenant_id, ..Default::default() })
}

fn scan(view: &View, tenant_id: u64, at_version: u64, limit: u32, reverse: bool) -> Vec<v1::KeyValue> {
    let read = Some(v1::ReadOptions { at_version, max_staleness_ms: 0 });
    let mut request = v1::ScanRequest { header: header(tenant_id), limit, reverse, read, ..Default::default() };
    let mut rows = Vec::new();
    loop {
        let page = view.scan(&request).expect("owned");
        assert!(limit == 0 || page.rows.len() <= limit as usize);
        rows.extend(page.rows);
        if page.continuation.is_empty() {
            return rows;
        }
        request.continuation = page.continuation;
    }
}

fn key_value(key: &Bytes, (version, value): &Row) -> v1::KeyValue {
    v1::KeyValue { key: key.clone(), value: value.clone(), version: *version }
}

fn between<'a>(rows: &'a Rows, start: &'a Bytes, end: &'a Bytes) -> impl Iterator<Item = (&'a Bytes, &'a Row)> {
    rows.iter().filter(move |(key, _)| *key >= start && (end.is_empty() || *key < end))
}

fn holds(rows: &Rows, condition: &v1::Condition) -> bool {
    use condition::Test;
    let row = rows.get(&condition.key);
    match condition.test.as_ref().expect("generated") {
        Test::VersionEquals(version) => row.map_or(0, |row| row.0) == *version,
        Test::Exists(_) => row.is_some(),
        Test::Absent(_) => row.is_none(),
        Test::ValueEquals(value) => row.is_some_and(|row| row.1 == value),
        Test::RangeEmpty(range) => between(rows, &condition.key, &range.end).next().is_none(),
        Test::RangeUnchanged(range) => {
            let versions: Vec<u64> = between(rows, &condition.key, &range.end).map(|(_, row)| row.0).collect();
            versions.len() as u64 == range.count && versions.into_iter().max().unwrap_or(0) == range.highest_version
        }
    }
}

fn met(rows: &Rows, condition: &v1::Condition) -> Option<v1::KeyValue> {
    use condition::Test;
    let row = match condition.test.as_ref().expect("generated") {
        Test::RangeEmpty(range) => between(rows, &condition.key, &range.end).next(),
        // Of several at the highest version, the first.
        Test::RangeUnchanged(range) => between(rows, &condition.key, &range.end).min_by_key(|(_, row)| std::cmp::Reverse(row.0)),
        Test::VersionEquals(_) | Test::Exists(_) | Test::Absent(_) | Test::ValueEquals(_) => rows.get_key_value(&condition.key),
    };
    row.map(|(key, row)| key_value(key, row))
}

fn perform(rows: &mut Rows, operation: &v1::Operation, version: u64, stamps: &mut u16) -> Result<v1::OperationResult, Error> {
    use operation::Op;
    let mut result = v1::OperationResult::default();
    match operation.op.as_ref().expect("generated") {
        Op::Get(get) => result.row = rows.get(&get.key).map(|row| key_value(&get.key, row)),
        Op::Put(put) => {
            rows.insert(put.key.clone(), (version, put.value.clone()));
        }
        Op::Delete(delete) => result.deleted = u64::from(rows.remove(&delete.key).is_some()),
        Op::DeleteRange(range) => {
            let keys: Vec<Bytes> = between(rows, &range.start, &range.end).map(|(key, _)| key.clone()).collect();
            result.deleted = keys.len() as u64;
            rows.retain(|key, _| !keys.contains(key));
        }
        Op::Add(add) => {
            let before = match rows.get(&add.key) {
                None => 0,
                Some((_, value)) => {
                    let wrong = |_| Error::invalid("operations.add", "a key whose value has 8 bytes", format!("{} bytes", value.len()));
                    i64::from_le_bytes(value[..].try_into().map_err(wrong)?)
                }
            };
            let overflow = || {
                let value = format!("{before} plus {}", add.delta);
                Error::invalid("operations.add.delta", "a sum that fits 64 bits with sign", value)
            };
            let after = before.checked_add(add.delta).ok_or_else(overflow)?;
            let row = (version, Bytes::copy_from_slice(&after.to_le_bytes()));
            result.row = Some(key_value(&add.key, &row));
            rows.insert(add.key.clone(), row);
        }
        Op::PutVersionstamped(put) => {
            let key = Bytes::from([&put.prefix[..], &version.to_be_bytes(), &stamps.to_be_bytes(), &put.suffix[..]].concat());
            *stamps += 1;
            result.row = Some(v1::KeyValue { key: key.clone(), value: Bytes::new(), version });
            rows.insert(key, (version, put.value.clone()));
        }
    }
    Ok(result)
}

/// Few keys, so that they meet; with bytes that escaping must get right.
fn all_keys() -> Vec<Bytes> {
    [&b"a"[..], b"a\0", b"a\0\x01", b"a\0\xff", b"a\x01", b"b", b"\xff"].map(Bytes::from_static).to_vec()
}

fn key() -> impl Strategy<Value = Bytes> {
    prop::sample::select(all_keys())
}

fn edge() -> impl Strategy<Value = Bytes> {
    prop_oneof![4 => key(), 1 => Just(Bytes::new())]
}

fn value() -> impl Strategy<Value = Bytes> {
    prop::sample::select([&b""[..], b"x", b"\x01\0\0\0\0\0\0\0", b"\xff\xff\xff\xff\xff\xff\xff\x7f"].map(Bytes::from_static).to_vec())
}

fn condition() -> impl Strategy<Value = v1::Condition> {
    use condition::Test;
    let test = prop_oneof![
        (0..12_u64).prop_map(Test::VersionEquals),
        Just(Test::Exists(condition::Exists {})),
        Just(Test::Absent(condition::Absent {})),
        value().prop_map(Test::ValueEquals),
        edge().prop_map(|end| Test::RangeEmpty(condition::RangeEmpty { end })),
        (edge(), 0..3_u64, 0..12_u64).prop_map(|(end, count, highest_version)| Test::RangeUnchanged(condition::RangeUnchanged {
            end,
            count,
            highest_version
        })),
    ];
    (key(), test).prop_map(|(key, test)| v1::Condition { key, test: Some(test) })
}

fn operation() -> impl Strategy<Value = v1::Operation> {
    use operation::{Add, Delete, DeleteRange, Get, Op, Put, PutVersionstamped};
    let op = prop_oneof![
        4 => (key(), value()).prop_map(|(key, value)| Op::Put(Put { key, value })),
        2 => key().prop_map(|key| Op::Get(Get { key })),
        2 => key().prop_map(|key| Op::Delete(Delete { key })),
        1 => (edge(), edge()).prop_map(|(start, end)| Op::DeleteRange(DeleteRange { start, end })),
        2 => (key(), prop_oneof![-2..3_i64, Just(i64::MAX)]).prop_map(|(key, delta)| Op::Add(Add { key, delta })),
        1 => (edge(), edge(), value()).prop_map(|(prefix, suffix, value)| Op::PutVersionstamped(PutVersionstamped { prefix, suffix, value })),
    ];
    op.prop_map(|op| v1::Operation { op: Some(op) })
}

fn transaction() -> impl Strategy<Value = Command> {
    let id = prop_oneof![2 => Just(Bytes::new()), 1 => (0..3_u8).prop_map(|n| Bytes::from(vec![n; 16]))];
    let parts = (TENANT..TENANT + 2, id, prop::collection::vec(condition(), 0..2), prop::collection::vec(operation(), 0..5));
    parts.prop_map(|(tenant_id, request_id, conditions, operations)| {
        let header = v1::RequestHeader { tenant_id, request_id, epoch: 1, ..Default::default() };
        Command::Transact(v1::TransactRequest { header: Some(header), conditions, operations })
    })
}

/// Entries as a leader proposes them.
pub(super) fn entries(count: Range<usize>) -> impl Strategy<Value = Vec<Entry>> {
    prop::collection::vec((0..30_u64, prop::collection::vec(transaction(), 0..4)), count)
}
