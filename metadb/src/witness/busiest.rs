//! Which tenants, and which shards, are asked most of this node: bounded lists that are right about the busy ones, by the space-saving
//! algorithm.
//!
//! Who is not in the full list takes the place of the one with the fewest requests and begins with its count, so a count is at most too
//! high, and by no more than `error`. Counts are of windows of some seconds; what is told is the last window that is over. One
//! request in [`WEIGHT`] is looked at and counts for as many.

use bytes::Bytes;
use metadb_proto::kv::{request, response};
use metadb_proto::v1::{ShardLoad, TenantLoad};
use parking_lot::Mutex;
use prost::Message as _;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Tenants in the list, and shards in theirs.
const LISTED: usize = 64;
/// How long a window is.
const WINDOW: Duration = Duration::from_secs(5);
/// How many requests one that is looked at stands for: a lock per request would cost more than it tells.
const WEIGHT: u64 = 8;

#[derive(Debug, Clone, Copy, Default)]
struct Load {
    requests: u64,
    bytes: u64,
    error: u64,
}

/// A shard: where it starts, and the group that was asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ShardKey {
    pub(crate) tenant_id: u64,
    pub(crate) group_id: u32,
    pub(crate) start: Bytes,
}

/// What was counted in a window.
#[derive(Debug, Default)]
struct Counted {
    tenants: BTreeMap<u64, Load>,
    shards: BTreeMap<ShardKey, Load>,
}

#[derive(Debug)]
struct Windows {
    began: Instant,
    now: Counted,
    last: Counted,
}

/// The lists.
#[derive(Debug)]
pub(crate) struct Busiest {
    requests: AtomicU64,
    windows: Mutex<Windows>,
}

/// The lists of the last window that is over, the busiest first.
pub(crate) struct Told {
    pub(crate) window: Duration,
    pub(crate) tenants: Vec<TenantLoad>,
    pub(crate) shards: Vec<ShardLoad>,
}

/// About as many bytes as a request brought.
pub(super) fn request_bytes(body: &request::Body) -> usize {
    match body {
        request::Body::Get(r) => r.encoded_len(),
        request::Body::MultiGet(r) => r.encoded_len(),
        request::Body::Scan(r) => r.encoded_len(),
        request::Body::Walk(r) => r.encoded_len(),
        request::Body::Transact(r) => r.encoded_len(),
    }
}

/// About as many bytes as an answer takes.
pub(super) fn response_bytes(body: &response::Body) -> usize {
    match body {
        response::Body::Get(r) => r.encoded_len(),
        response::Body::MultiGet(r) => r.encoded_len(),
        response::Body::Scan(r) => r.encoded_len(),
        response::Body::Walk(r) => r.encoded_len(),
        response::Body::Transact(r) => r.encoded_len(),
        response::Body::Error(_) => 0,
    }
}

impl Busiest {
    /// With nothing counted yet.
    pub(crate) fn new() -> Self {
        Busiest { requests: AtomicU64::new(0), windows: Mutex::new(Windows::begin(Instant::now())) }
    }

    /// For how many requests the next one stands; 0: it is not looked at.
    pub(crate) fn weight(&self) -> u64 {
        if self.requests.fetch_add(1, Ordering::Relaxed).is_multiple_of(WEIGHT) { WEIGHT } else { 0 }
    }

    /// Requests since the start.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Counts a request that stands for `weight` ones. `shard`: if it was one of this node's that answered.
    pub(crate) fn count(&self, tenant_id: u64, shard: Option<ShardKey>, weight: u64, bytes: u64) {
        let bytes = bytes.saturating_mul(weight);
        let mut windows = self.windows.lock();
        windows.turn(Instant::now());
        add(&mut windows.now.tenants, tenant_id, weight, bytes);
        if let Some(shard) = shard {
            add(&mut windows.now.shards, shard, weight, bytes);
        }
    }

    /// The loads of the last window.
    pub(crate) fn last(&self) -> Told {
        let mut windows = self.windows.lock();
        windows.turn(Instant::now());
        let tenant = |(tenant_id, load): (&u64, &Load)| {
            let Load { requests, bytes, error } = *load;
            TenantLoad { tenant_id: *tenant_id, requests, bytes, error }
        };
        let shard = |(shard, load): (&ShardKey, &Load)| {
            let Load { requests, bytes, error } = *load;
            ShardLoad { tenant_id: shard.tenant_id, start: shard.start.clone(), group_id: shard.group_id, requests, bytes, error }
        };
        let mut tenants: Vec<TenantLoad> = windows.last.tenants.iter().map(tenant).collect();
        tenants.sort_by_key(|load| std::cmp::Reverse(load.requests));
        let mut shards: Vec<ShardLoad> = windows.last.shards.iter().map(shard).collect();
        shards.sort_by_key(|load| std::cmp::Reverse(load.requests));
        Told { window: WINDOW, tenants, shards }
    }
}

impl Windows {
    fn begin(began: Instant) -> Self {
        Windows { began, now: Counted::default(), last: Counted::default() }
    }

    /// Begins a new window if the one that runs is over.
    fn turn(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.began);
        if age < WINDOW {
            return;
        }
        let over = std::mem::take(&mut self.now);
        // Nothing happened for a whole window: the last one is empty.
        self.last = if age < 2 * WINDOW { over } else { Counted::default() };
        self.began = now;
    }
}

fn add<K: Ord + Clone>(loads: &mut BTreeMap<K, Load>, key: K, requests: u64, bytes: u64) {
    let mut begin = Load::default();
    if loads.len() >= LISTED && !loads.contains_key(&key) {
        let least = loads.iter().min_by_key(|(_, load)| load.requests).map(|(key, load)| (key.clone(), load.requests));
        if let Some((least, count)) = least {
            loads.remove(&least);
            begin = Load { requests: count, bytes: 0, error: count };
        }
    }
    let load = loads.entry(key).or_insert(begin);
    load.requests += requests;
    load.bytes += bytes;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busy_ones_are_found_among_thousands_in_bounded_memory() {
        let mut loads = BTreeMap::new();
        // One request in four is of a busy tenant; the rest is spread over ten thousand.
        for round in 0..100_000_u64 {
            let tenant = if round % 4 == 0 { round % 3 } else { 1000 + round.wrapping_mul(2_654_435_761) % 10_000 };
            add(&mut loads, tenant, 1, 10);
        }
        assert_eq!(loads.len(), LISTED);
        for busy in 0..3 {
            let load = loads.get(&busy).expect("it is in the list");
            assert!((8_333..=8_334 + load.error).contains(&load.requests), "{load:?}");
        }
        let total: u64 = loads.values().map(|load| load.requests).sum();
        assert_eq!(total, 100_000, "counts are moved, never lost");
    }

    #[test]
    fn a_window_that_is_over_is_told_until_the_next_is() {
        let start = Instant::now();
        let mut windows = Windows::begin(start);
        let shard = |start: &'static [u8]| ShardKey { tenant_id: 5, group_id: 1, start: Bytes::from_static(start) };
        add(&mut windows.now.tenants, 5, 8, 80);
        add(&mut windows.now.shards, shard(b"m"), 8, 80);
        windows.turn(start + WINDOW / 2);
        assert!(windows.last.tenants.is_empty());
        windows.turn(start + WINDOW);
        assert_eq!(windows.last.tenants.get(&5).map(|load| load.requests), Some(8));
        assert_eq!(windows.last.shards.get(&shard(b"m")).map(|load| load.bytes), Some(80));
        windows.turn(start + 4 * WINDOW);
        assert!(windows.last.tenants.is_empty() && windows.last.shards.is_empty(), "an idle window is empty");
    }
}
