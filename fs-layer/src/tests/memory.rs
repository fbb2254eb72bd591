//! A metadata database in memory: one map, one lock. Strictly serializable by being so simple. For tests only.

use bytes::Bytes;
use futures::future::BoxFuture;
use metadb_proto::kv::{Kv, request, response};
use metadb_proto::v1::{self, condition::Test, operation::Op};
use metadb_proto::{Error, Principal, directory, limits};
use parking_lot::Mutex;
use prost::Message as _;
use std::collections::BTreeMap;
use std::sync::Arc;

type Rows = BTreeMap<Bytes, (Bytes, u64)>;

/// The database.
#[derive(Default)]
pub(super) struct Memory {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tenants: BTreeMap<u64, Rows>,
    remembered: BTreeMap<(u64, Bytes), v1::TransactResponse>,
    version: u64,
    reads: u64,
    /// Commit so many transactions more, but lose their answers.
    lose: u32,
    /// Let others go first up to so many times.
    dawdle: u64,
}

impl Memory {
    /// With a directory that knows one node, one group and one tenant.
    pub(super) fn with_tenant(tenant_id: u64) -> Arc<Self> {
        let node = v1::NodeRef { node_id: 1, address: "127.0.0.1:1".into() };
        let group = v1::GroupRecord {
            group_id: 1,
            state: v1::group_record::State::Active.into(),
            voters: vec![node.clone()],
            created_at_ms: 1,
            ..Default::default()
        };
        let group0 = v1::GroupRecord { group_id: 0, ..group.clone() };
        let tenant = v1::TenantRecord {
            tenant_id,
            name: "t".into(),
            state: v1::tenant_record::State::Active.into(),
            created_at_ms: 1,
            ..Default::default()
        };
        let shard = v1::ShardRecord { tenant_id, group_id: 1, epoch: 1, ..Default::default() };
        let node_record = v1::NodeRecord { node: Some(node), ..Default::default() };
        let rows = [
            (directory::group_key(0), group0.encode_to_vec()),
            (directory::group_key(1), group.encode_to_vec()),
            (directory::node_key(1), node_record.encode_to_vec()),
            (directory::tenant_key(tenant_id), tenant.encode_to_vec()),
            (directory::tenant_name_key("t"), tenant_id.to_be_bytes().to_vec()),
            (directory::shard_key(tenant_id, b""), shard.encode_to_vec()),
        ];
        let rows: Rows = rows.into_iter().map(|(key, value)| (key.into(), (value.into(), 1))).collect();
        let state = State { tenants: BTreeMap::from([(directory::DIRECTORY_TENANT, rows)]), version: 1, ..State::default() };
        Arc::new(Memory { state: Mutex::new(state) })
    }

    /// All rows of a tenant.
    pub(super) fn rows(&self, tenant_id: u64) -> Vec<v1::KeyValue> {
        let mut state = self.state.lock();
        state.rows(tenant_id).iter().map(row).collect()
    }

    /// How many reads were asked so far.
    pub(super) fn reads(&self) -> u64 {
        self.state.lock().reads
    }

    /// Lets others go first up to so many times, at random, before each answer.
    pub(super) fn dawdle(&self, most: u64) {
        self.state.lock().dawdle = most;
    }

    /// Does so many transactions more without answering them.
    pub(super) fn lose_answers(&self, count: u32) {
        self.state.lock().lose = count;
    }
}

fn row((key, (value, version)): (&Bytes, &(Bytes, u64))) -> v1::KeyValue {
    v1::KeyValue { key: key.clone(), value: value.clone(), version: *version }
}

fn bounds(start: &Bytes, end: &Bytes) -> (std::ops::Bound<Bytes>, std::ops::Bound<Bytes>) {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    let end = if end.is_empty() { Unbounded } else { Excluded(end.clone().max(start.clone())) };
    (Included(start.clone()), end)
}

impl State {
    fn rows(&mut self, tenant_id: u64) -> &mut Rows {
        self.tenants.entry(tenant_id).or_default()
    }

    fn answer(&mut self, tenant: u64, body: request::Body) -> Result<response::Body, Error> {
        let read_version = self.version;
        if !matches!(body, request::Body::Transact(_)) {
            self.reads += 1;
        }
        Ok(match body {
            request::Body::Get(r) => {
                let row = self.rows(tenant).get_key_value(&r.key).map(row);
                response::Body::Get(v1::GetResponse { row, read_version })
            }
            request::Body::MultiGet(r) => {
                let rows = r.keys.iter().filter_map(|key| self.rows(tenant).get_key_value(key).map(row)).collect();
                response::Body::MultiGet(v1::MultiGetResponse { rows, read_version })
            }
            request::Body::Scan(r) => response::Body::Scan(self.scan(tenant, &r)),
            request::Body::Walk(r) => response::Body::Walk(self.walk(tenant, &r)),
            request::Body::Transact(r) => {
                let response = self.transact(tenant, &r)?;
                if self.lose > 0 && tenant != directory::DIRECTORY_TENANT {
                    self.lose -= 1;
                    return Err(Error::UnknownOutcome { message: "the answer was lost".into() });
                }
                response::Body::Transact(response)
            }
        })
    }

    fn scan(&mut self, tenant: u64, r: &v1::ScanRequest) -> v1::ScanResponse {
        assert!(!r.reverse, "nobody reads backwards here");
        let start = if r.continuation.is_empty() { r.start.clone() } else { r.continuation.clone() };
        let limit = if r.limit == 0 { limits::PAGE_ROWS } else { r.limit as usize };
        let mut rows: Vec<_> = self.rows(tenant).range(bounds(&start, &r.end)).take(limit + 1).map(row).collect();
        let continuation = if rows.len() > limit { rows.pop().map(|row| row.key).unwrap_or_default() } else { Bytes::new() };
        v1::ScanResponse { rows, continuation, read_version: self.version }
    }

    fn walk(&mut self, tenant: u64, r: &v1::WalkRequest) -> v1::WalkResponse {
        let mut link = r.start.clone();
        let mut rows = Vec::new();
        for segment in &r.segments {
            let key = Bytes::from([&r.prefix, &link, segment].map(Bytes::as_ref).concat());
            let Some(found) = self.rows(tenant).get_key_value(&key).map(row) else { break };
            let length = found.value.first().map_or(0, |length| usize::from(*length));
            link = found.value.slice(1..1 + length);
            rows.push(found);
            if length == 0 {
                break;
            }
        }
        v1::WalkResponse { rows, read_version: self.version }
    }

    fn transact(&mut self, tenant: u64, r: &v1::TransactRequest) -> Result<v1::TransactResponse, Error> {
        let id = r.header.as_ref().map(|header| header.request_id.clone()).unwrap_or_default();
        if let Some(response) = self.remembered.get(&(tenant, id.clone())) {
            return Ok(response.clone());
        }
        self.version += 1;
        let version = self.version;
        let failed = r.conditions.iter().position(|condition| !holds(self.rows(tenant), condition));
        let response = if let Some(failed) = failed {
            v1::TransactResponse { version, failed_condition: u32::try_from(failed).expect("few"), ..Default::default() }
        } else {
            let mut stamps = 0;
            let results = r.operations.iter().map(|op| apply(self.rows(tenant), version, &mut stamps, op)).collect::<Result<_, _>>()?;
            v1::TransactResponse { committed: true, version, results, ..Default::default() }
        };
        if !id.is_empty() {
            self.remembered.insert((tenant, id), response.clone());
        }
        Ok(response)
    }
}

fn holds(rows: &Rows, condition: &v1::Condition) -> bool {
    let row = rows.get(&condition.key);
    match condition.test.as_ref().expect("checked") {
        Test::VersionEquals(version) => row.is_some_and(|(_, v)| v == version),
        Test::Exists(_) => row.is_some(),
        Test::Absent(_) => row.is_none(),
        Test::ValueEquals(value) => row.is_some_and(|(v, _)| v == value),
        Test::RangeEmpty(r) => rows.range(bounds(&condition.key, &r.end)).next().is_none(),
        Test::RangeUnchanged(r) => {
            let range = rows.range(bounds(&condition.key, &r.end));
            let (count, highest) = range.fold((0, 0), |(count, highest), (_, (_, version))| (count + 1, highest.max(*version)));
            (count, highest) == (r.count, r.highest_version)
        }
    }
}

fn apply(rows: &mut Rows, version: u64, stamps: &mut u16, operation: &v1::Operation) -> Result<v1::OperationResult, Error> {
    let mut result = v1::OperationResult::default();
    match operation.op.as_ref().expect("checked") {
        Op::Get(get) => result.row = rows.get_key_value(&get.key).map(row),
        Op::Put(put) => {
            rows.insert(put.key.clone(), (put.value.clone(), version));
        }
        Op::Delete(delete) => result.deleted = u64::from(rows.remove(&delete.key).is_some()),
        Op::DeleteRange(range) => {
            let keys: Vec<Bytes> = rows.range(bounds(&range.start, &range.end)).map(|(key, _)| key.clone()).collect();
            result.deleted = keys.len() as u64;
            for key in keys {
                rows.remove(&key);
            }
        }
        Op::Add(add) => {
            let old = rows.get(&add.key).map_or(0, |(value, _)| i64::from_le_bytes(value.as_ref().try_into().expect("a counter")));
            let value = Bytes::copy_from_slice(&(old + add.delta).to_le_bytes());
            rows.insert(add.key.clone(), (value.clone(), version));
            result.row = Some(v1::KeyValue { key: add.key.clone(), value, version });
        }
        Op::PutVersionstamped(put) => {
            let key = Bytes::from([&put.prefix, version.to_be_bytes().as_slice(), &stamps.to_be_bytes(), &put.suffix].concat());
            *stamps += 1;
            rows.insert(key.clone(), (put.value.clone(), version));
            result.row = Some(v1::KeyValue { key, value: put.value.clone(), version });
        }
    }
    Ok(result)
}

impl Kv for Memory {
    fn call<'a>(&'a self, _: &'a Principal, body: request::Body) -> BoxFuture<'a, Result<response::Body, Error>> {
        Box::pin(async move {
            limits::check(&body)?;
            // Others may come between, as they would over a network.
            let dawdle = self.state.lock().dawdle;
            for _ in 0..=metadb_proto::seam::random_u64() % (dawdle + 1) {
                tokio::task::yield_now().await;
            }
            let tenant = metadb_proto::kv::header(&body).map_or(0, |header| header.tenant_id);
            self.state.lock().answer(tenant, body)
        })
    }
}
