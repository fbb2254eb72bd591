//! A metadb of one process, in memory, that obeys a script: for tests of the client.

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use metadb_proto::kv::{self, Kv, request, response};
use metadb_proto::v1::{self, KeyValue, condition, operation};
use metadb_proto::{Error, Principal, directory};
use parking_lot::Mutex;
use prost::Message as _;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What happens to the next data request.
pub(crate) enum Scripted {
    /// It is refused, nothing done.
    Refuse(Error),
    /// It is done, and answered with an error.
    DoThenFail(Error),
    /// It is never answered.
    Hang,
}

#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) rows: BTreeMap<(u64, Bytes), KeyValue>,
    pub(crate) version: u64,
    pub(crate) script: VecDeque<Scripted>,
    /// Headers of all requests that were not for the directory.
    pub(crate) headers: Vec<v1::RequestHeader>,
    pub(crate) executed: usize,
    pub(crate) directory_scans: usize,
    outcomes: BTreeMap<Bytes, v1::TransactResponse>,
    /// Most rows in a page; 0: no limit.
    pub(crate) page_rows: usize,
}

impl Memory {
    pub(crate) fn new() -> Arc<Memory> {
        Arc::new(Memory::default())
    }

    pub(crate) fn script(&self, next: impl IntoIterator<Item = Scripted>) {
        self.state.lock().script.extend(next);
    }

    pub(crate) fn put(&self, tenant_id: u64, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        let mut state = self.state.lock();
        state.version += 1;
        let row = KeyValue { key: key.into(), value: value.into(), version: state.version };
        state.rows.insert((tenant_id, row.key.clone()), row);
    }

    /// A tenant with shards that start at these keys, each in a group.
    pub(crate) fn add_tenant(&self, tenant_id: u64, shards: &[(&str, u32)], voter: &v1::NodeRef) {
        let starts: Vec<Bytes> = shards.iter().map(|(start, _)| Bytes::copy_from_slice(start.as_bytes())).collect();
        for (n, (_, group_id)) in shards.iter().enumerate() {
            let end = starts.get(n + 1).cloned().unwrap_or_default();
            let shard = v1::ShardRecord { tenant_id, start: starts[n].clone(), end, group_id: *group_id, epoch: 1 };
            self.put(0, directory::shard_key(tenant_id, &starts[n]), shard.encode_to_vec());
            let group = v1::GroupRecord { group_id: *group_id, voters: vec![voter.clone()], ..Default::default() };
            self.put(0, directory::group_key(*group_id), group.encode_to_vec());
        }
    }

    async fn answer(&self, mut body: request::Body) -> Result<response::Body, Error> {
        let header = kv::header_mut(&mut body).clone();
        let scripted = {
            let mut state = self.state.lock();
            if header.tenant_id == 0 {
                state.directory_scans += usize::from(matches!(body, request::Body::Scan(_)));
                None
            } else {
                state.headers.push(header.clone());
                state.script.pop_front()
            }
        };
        match scripted {
            Some(Scripted::Refuse(error)) => Err(error),
            Some(Scripted::Hang) => std::future::pending().await,
            Some(Scripted::DoThenFail(error)) => {
                self.state.lock().execute(&header, body)?;
                Err(error)
            }
            None => {
                // Lets others in, as a real node would.
                tokio::task::yield_now().await;
                self.state.lock().execute(&header, body)
            }
        }
    }
}

impl Kv for Memory {
    fn call<'a>(&'a self, _: &'a Principal, body: request::Body) -> BoxFuture<'a, Result<response::Body, Error>> {
        self.answer(body).boxed()
    }
}

impl State {
    fn get(&self, tenant: u64, key: &Bytes) -> Option<KeyValue> {
        self.rows.get(&(tenant, key.clone())).cloned()
    }

    fn range(&self, tenant: u64, start: &Bytes, end: &Bytes) -> Vec<KeyValue> {
        let rows = self.rows.range((tenant, start.clone())..).take_while(|((t, key), _)| *t == tenant && (end.is_empty() || key < end));
        rows.map(|(_, row)| row.clone()).collect()
    }

    fn execute(&mut self, header: &v1::RequestHeader, body: request::Body) -> Result<response::Body, Error> {
        let (tenant, read_version) = (header.tenant_id, self.version);
        Ok(match body {
            request::Body::Get(r) => response::Body::Get(v1::GetResponse { row: self.get(tenant, &r.key), read_version }),
            request::Body::MultiGet(r) => {
                let rows = r.keys.iter().filter_map(|key| self.get(tenant, key)).collect();
                response::Body::MultiGet(v1::MultiGetResponse { rows, read_version })
            }
            request::Body::Scan(r) => response::Body::Scan(self.scan(tenant, &r)),
            request::Body::Walk(_) => return Err(Error::internal("not in memory")),
            request::Body::Transact(r) => {
                let known = self.outcomes.get(&header.request_id).cloned();
                let outcome = known.unwrap_or_else(|| self.transact(tenant, r));
                self.outcomes.insert(header.request_id.clone(), outcome.clone());
                response::Body::Transact(outcome)
            }
        })
    }

    /// Its continuation is the last key of the page.
    fn scan(&self, tenant: u64, r: &v1::ScanRequest) -> v1::ScanResponse {
        let mut rows = self.range(tenant, &r.start, &r.end);
        if r.reverse {
            rows.reverse();
        }
        if !r.continuation.is_empty() {
            rows.retain(|row| if r.reverse { row.key < r.continuation } else { row.key > r.continuation });
        }
        let limits = [r.limit as usize, self.page_rows].into_iter().filter(|limit| *limit != 0);
        let most = limits.min().unwrap_or(usize::MAX);
        let more = rows.len() > most;
        rows.truncate(most);
        let continuation = if more { rows.last().map(|row| row.key.clone()).unwrap_or_default() } else { Bytes::new() };
        v1::ScanResponse { rows, continuation, read_version: self.version }
    }

    fn holds(&self, tenant: u64, c: &v1::Condition) -> bool {
        let row = self.get(tenant, &c.key);
        match c.test.as_ref().expect("a test") {
            condition::Test::VersionEquals(version) => row.is_some_and(|row| row.version == *version),
            condition::Test::Exists(_) => row.is_some(),
            condition::Test::Absent(_) => row.is_none(),
            condition::Test::ValueEquals(value) => row.is_some_and(|row| row.value == *value),
            condition::Test::RangeEmpty(range) => self.range(tenant, &c.key, &range.end).is_empty(),
            condition::Test::RangeUnchanged(range) => {
                let rows = self.range(tenant, &c.key, &range.end);
                rows.len() as u64 == range.count && rows.iter().map(|row| row.version).max().unwrap_or(0) == range.highest_version
            }
        }
    }

    fn transact(&mut self, tenant: u64, r: v1::TransactRequest) -> v1::TransactResponse {
        self.executed += 1;
        self.version += 1;
        let version = self.version;
        if let Some(failed) = r.conditions.iter().position(|c| !self.holds(tenant, c)) {
            let failed_condition = u32::try_from(failed).expect("few");
            return v1::TransactResponse { committed: false, version, failed_condition, ..Default::default() };
        }
        for o in r.operations {
            let put = |rows: &mut BTreeMap<_, _>, key: Bytes, value: Bytes| {
                rows.insert((tenant, key.clone()), KeyValue { key, value, version });
            };
            match o.op.expect("an operation") {
                operation::Op::Get(_) | operation::Op::PutVersionstamped(_) => {}
                operation::Op::Put(p) => put(&mut self.rows, p.key, p.value),
                operation::Op::Delete(d) => {
                    self.rows.remove(&(tenant, d.key));
                }
                operation::Op::DeleteRange(d) => {
                    for row in self.range(tenant, &d.start, &d.end) {
                        self.rows.remove(&(tenant, row.key));
                    }
                }
                operation::Op::Add(add) => {
                    let old =
                        self.get(tenant, &add.key).map_or(0, |row| i64::from_le_bytes(row.value.as_ref().try_into().expect("8 bytes")));
                    put(&mut self.rows, add.key, Bytes::copy_from_slice(&(old + add.delta).to_le_bytes()));
                }
            }
        }
        v1::TransactResponse { committed: true, version, ..Default::default() }
    }
}
