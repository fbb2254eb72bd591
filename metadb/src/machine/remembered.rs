//! Outcomes by request id, so that a retry gets the first one and changes nothing.

use super::seen::Seen;
use crate::rows::{request, successor};
use bytes::Bytes;
use metadb_engine::{Cf, EngineError, StoreRead, WriteBatch};
use metadb_proto::{Version, v1};
use std::collections::HashMap;

/// What was remembered in the current apply call, over what the store remembers.
pub(super) struct Remembered {
    group_id: u32,
    /// The generation that was in use before the current one.
    older: Option<u64>,
    /// Spares looking for what was never here.
    seen: Seen,
    /// By row key; looked up, never listed.
    fresh: HashMap<Bytes, Bytes>,
}

impl Remembered {
    pub(super) fn new(group_id: u32, older: Option<u64>, seen: Seen) -> Self {
        Remembered { group_id, older, seen, fresh: HashMap::new() }
    }

    /// The generation before the one of a version, as the store has it.
    pub(super) fn find_older(store: &dyn StoreRead, group_id: u32, version: Version) -> Result<Option<u64>, EngineError> {
        let (start, end) = request::before(group_id, request::generation(version));
        let first = store.first(Cf::State, &start[..]..&end[..], 0)?;
        first.map(|(key, _)| request::generation_of(&key)).transpose()
    }

    /// What can be told without the store, which was not watched before: all, if it remembers nothing; else what comes after this
    /// version's generation.
    pub(super) fn seen(store: &dyn StoreRead, group_id: u32, version: Version) -> Result<Seen, EngineError> {
        let (start, _) = request::before(group_id, 0);
        let end = successor(&start);
        let is_empty = store.first(Cf::State, &start[..]..&end[..], 0)?.is_none();
        Ok(Seen::since(if is_empty { 0 } else { request::generation(version) + 1 }))
    }

    /// The generation that was in use before the current one, and what was seen.
    pub(super) fn into_parts(self) -> (Option<u64>, Seen) {
        (self.older, self.seen)
    }

    /// The outcome of a request that was here before.
    pub(super) fn find(
        &self,
        store: &dyn StoreRead,
        now: Version,
        tenant_id: u64,
        request_id: &[u8],
    ) -> Result<Option<v1::TransactResponse>, EngineError> {
        for generation in [Some(request::generation(now)), self.older].into_iter().flatten() {
            if !self.seen.may_have(generation, tenant_id, request_id) {
                continue;
            }
            let key = request::key(self.group_id, generation, tenant_id, request_id);
            let row = match self.fresh.get(&key) {
                Some(row) => Some(row.clone()),
                None => store.get(Cf::State, &key)?,
            };
            if let Some(row) = row {
                return request::decode(&row).map(Some);
            }
        }
        Ok(None)
    }

    /// Remembers an outcome.
    pub(super) fn keep(&mut self, now: Version, tenant_id: u64, request_id: &[u8], outcome: &v1::TransactResponse, batch: &mut WriteBatch) {
        let generation = request::generation(now);
        let key = request::key(self.group_id, generation, tenant_id, request_id);
        let row = request::encode(outcome);
        self.seen.note(generation, tenant_id, request_id);
        batch.put(Cf::State, key.clone(), row.clone());
        self.fresh.insert(key, row);
    }

    /// Lets go of the generations that nobody asks for any more, when a new one begins.
    pub(super) fn forget_old(&mut self, last: Version, next: Version, batch: &mut WriteBatch) {
        let kept = request::generation(last);
        if kept == request::generation(next) {
            return;
        }
        // What is fresh needs no care: it is looked up by its generation.
        let (start, end) = request::before(self.group_id, kept);
        batch.delete_range(Cf::State, start, end);
        self.seen.forget_before(kept);
        self.older = Some(kept);
    }
}
