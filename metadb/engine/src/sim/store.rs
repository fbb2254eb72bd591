//! A store in memory. Every batch is visible at once and durable only after a flush; a crash keeps a random prefix of the batches since
//! the last completed flush, as RocksDB without a WAL does when it flushes a full memtable by itself.
//!
//! Rows are kept by version, so that cursors and snapshots stay at their moment while writes go on.

mod files;

use super::{Chance, Kind};
use crate::disk::Disk;
use crate::{
    BatchOp, COLUMN_FAMILIES, Cf, Cursor, EngineError, Exported, Extent, FileExport, Replacement, Row, Store, StoreRead, Verified,
    WriteBatch,
};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, Range};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A flush takes this long unless the test says otherwise.
const DEFAULT_FLUSH_LATENCY: Duration = Duration::from_millis(5);
/// Rows a cursor takes under one lock.
const CURSOR_CHUNK_ROWS: usize = 64;

type Rows = [BTreeMap<Bytes, Bytes>; COLUMN_FAMILIES.len()];
type Versions = Vec<(u64, Option<Bytes>)>;

/// A simulated store.
#[derive(Debug)]
pub struct SimStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    chance: Chance,
    /// Counts batches.
    now: u64,
    live: [BTreeMap<Bytes, Versions>; COLUMN_FAMILIES.len()],
    /// Rows with more than their newest value, to be tidied when no view needs them.
    superseded: BTreeSet<(Cf, Bytes)>,
    /// Moments that views look at, and how many do.
    views: BTreeMap<u64, usize>,
    durable: Rows,
    unflushed: Vec<(u64, WriteBatch)>,
    bad_rows: BTreeSet<(Cf, Bytes)>,
    /// Rows that were changed beneath the checksums, and to what.
    altered: BTreeMap<(Cf, Bytes), Bytes>,
    /// The first of them that was met in this life.
    found_bad: Mutex<Option<EngineError>>,
    latency: Duration,
    flushes_to_fail: u32,
    full: bool,
    stopped: Option<&'static str>,
    life: u64,
    flushes: u64,
}

impl SimStore {
    /// An empty store whose chance comes from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Arc<Self> {
        let state = State {
            chance: Chance::new(seed),
            now: 0,
            live: Default::default(),
            superseded: BTreeSet::new(),
            views: BTreeMap::new(),
            durable: Default::default(),
            unflushed: Vec::new(),
            bad_rows: BTreeSet::new(),
            altered: BTreeMap::new(),
            found_bad: Mutex::default(),
            latency: DEFAULT_FLUSH_LATENCY,
            flushes_to_fail: 0,
            full: false,
            stopped: None,
            life: 0,
            flushes: 0,
        };
        Arc::new(Self { shared: Arc::new(Shared { state: RwLock::new(state) }) })
    }

    /// Takes down the machine: what was flushed stays, and a random prefix of the batches written since.
    pub fn crash(&self, kind: Kind) {
        let mut state = self.shared.state.write();
        let unflushed = std::mem::take(&mut state.unflushed);
        let kept = match kind {
            Kind::Kill | Kind::PowerLoss => usize::try_from(state.chance.up_to(unflushed.len() as u64)).unwrap_or(0),
        };
        for (_, batch) in unflushed.iter().take(kept) {
            apply(&mut state.durable, batch);
        }
        state.life += 1;
        state.now += 1;
        let now = state.now;
        state.live = state.durable.clone().map(|rows| rows.into_iter().map(|(key, value)| (key, vec![(now, Some(value))])).collect());
        state.superseded.clear();
        state.stopped = None;
        *state.found_bad.lock() = None;
        state.flushes_to_fail = 0;
    }

    /// How long flushes take from now on.
    pub fn set_flush_latency(&self, latency: Duration) {
        self.shared.state.write().latency = latency;
    }

    /// The next flushes fail with EIO, this many. The store is stopped then, until the next crash.
    pub fn fail_flushes(&self, count: u32) {
        self.shared.state.write().flushes_to_fail = count;
    }

    /// While full, writes and flushes are refused with [`EngineError::Full`].
    pub fn set_full(&self, full: bool) {
        self.shared.state.write().full = full;
    }

    /// Spoils a random row of a column family for good: reading it says [`EngineError::Corrupt`]. Says which.
    pub fn rot(&self, cf: Cf) -> Option<Bytes> {
        let mut state = self.shared.state.write();
        let count = state.durable[slot(cf)].len();
        if count == 0 {
            return None;
        }
        let chosen = state.chance.index(count);
        let key = state.durable[slot(cf)].keys().nth(chosen).cloned()?;
        state.bad_rows.insert((cf, key.clone()));
        Some(key)
    }

    /// How many rows that are still there were spoiled.
    #[must_use]
    pub fn rotten(&self) -> usize {
        let state = self.shared.state.read();
        let is_there = |(cf, key): &&(Cf, Bytes)| {
            state.live[slot(*cf)].get(key).and_then(|versions| versions.last()).is_some_and(|(_, value)| value.is_some())
        };
        state.bad_rows.iter().filter(is_there).count()
    }

    /// Changes a random row of a column family beneath every checksum: it reads well, and is not what was written. Says which.
    pub fn alter(&self, cf: Cf) -> Option<Bytes> {
        let mut state = self.shared.state.write();
        let count = state.durable[slot(cf)].len();
        if count == 0 {
            return None;
        }
        let chosen = state.chance.index(count);
        let (key, value) = state.durable[slot(cf)].iter().nth(chosen).map(|(key, value)| (key.clone(), value.clone()))?;
        let newest = state.live[slot(cf)].get_mut(&key)?.last_mut()?;
        if newest.1.as_ref() != Some(&value) {
            return None;
        }
        let mut altered = value.to_vec();
        *altered.last_mut()? ^= 1;
        let altered = Bytes::from(altered);
        newest.1 = Some(altered.clone());
        state.durable[slot(cf)].insert(key.clone(), altered.clone());
        state.altered.insert((cf, key.clone()), altered);
        Some(key)
    }

    /// The rows that [`SimStore::alter`] changed and that are still so.
    #[must_use]
    pub fn altered(&self) -> Vec<(Cf, Bytes)> {
        let state = self.shared.state.read();
        let newest = |cf: Cf, key: &Bytes| state.live[slot(cf)].get(key).and_then(|versions| versions.last()?.1.clone());
        let still = state.altered.iter().filter(|((cf, key), altered)| newest(*cf, key).as_ref() == Some(*altered));
        still.map(|(row, _)| row.clone()).collect()
    }

    /// Mends what [`SimStore::rot`] spoiled, as a disk that was exchanged.
    pub fn mend(&self) {
        self.shared.state.write().bad_rows.clear();
    }

    /// Puts an empty store in its place, on a disk without faults.
    pub fn replace(&self) {
        let mut state = self.shared.state.write();
        state.life += 1;
        state.now += 1;
        state.live = Default::default();
        state.durable = Default::default();
        state.superseded.clear();
        state.unflushed.clear();
        state.bad_rows.clear();
        state.altered.clear();
        state.stopped = None;
        *state.found_bad.lock() = None;
    }

    /// Flushes completed since it was made.
    #[must_use]
    pub fn flushes(&self) -> u64 {
        self.shared.state.read().flushes
    }

    fn view(&self) -> View {
        View::new(&self.shared)
    }
}

fn slot(cf: Cf) -> usize {
    match cf {
        Cf::Data => 0,
        Cf::Changes => 1,
        Cf::State => 2,
    }
}

fn apply(rows: &mut Rows, batch: &WriteBatch) {
    for (cf, op) in batch.ops() {
        let rows = &mut rows[slot(*cf)];
        match op {
            BatchOp::Put(key, value) => {
                rows.insert(key.clone(), value.clone());
            }
            BatchOp::Delete(key) => {
                rows.remove(key);
            }
            BatchOp::DeleteRange(start, end) => {
                let doomed: Vec<_> = rows.range::<[u8], _>(bounds(start, end)).map(|(key, _)| key.clone()).collect();
                for key in doomed {
                    rows.remove(&key);
                }
            }
        }
    }
}

/// Bounds that are safe to hand to a map: an inverted range is empty.
fn bounds<'a>(start: &'a [u8], end: &'a [u8]) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
    (Bound::Included(start), Bound::Excluded(if end < start { start } else { end }))
}

impl State {
    fn ready(&self) -> Result<(), EngineError> {
        if let Some(message) = self.stopped {
            return Err(EngineError::Stopped { message: message.to_owned() });
        }
        if self.full {
            return Err(EngineError::Full { path: "simulated store".to_owned() });
        }
        Ok(())
    }

    fn set(&mut self, cf: Cf, key: &Bytes, value: Option<Bytes>) {
        let (now, oldest_view) = (self.now, self.views.keys().next().copied());
        let rows = &mut self.live[slot(cf)];
        let versions = rows.entry(key.clone()).or_default();
        if versions.last().is_some_and(|(at, _)| *at == now) {
            versions.pop();
        }
        let gone = value.is_none();
        versions.push((now, value));
        match oldest_view {
            Some(_) => {
                self.superseded.insert((cf, key.clone()));
            }
            None if gone => {
                rows.remove(key);
            }
            None => {
                versions.drain(..versions.len() - 1);
            }
        }
    }

    fn write(&mut self, batch: WriteBatch) -> Result<(), EngineError> {
        self.ready()?;
        self.now += 1;
        for (cf, op) in batch.ops() {
            match op {
                BatchOp::Put(key, value) => self.set(*cf, key, Some(value.clone())),
                BatchOp::Delete(key) => self.set(*cf, key, None),
                BatchOp::DeleteRange(start, end) => {
                    let rows = self.live[slot(*cf)].range::<[u8], _>(bounds(start, end));
                    let doomed: Vec<_> = rows.map(|(key, _)| key.clone()).collect();
                    for key in doomed {
                        self.set(*cf, &key, None);
                    }
                }
            }
        }
        self.unflushed.push((self.now, batch));
        Ok(())
    }

    fn read(&self, cf: Cf, key: &Bytes, versions: &Versions, at: u64) -> Option<Result<Bytes, EngineError>> {
        let value = versions.iter().rev().find(|(version, _)| *version <= at)?.1.clone()?;
        if self.bad_rows.contains(&(cf, key.clone())) {
            let message = format!("injected: row {key:?} fails its checksum");
            let error = EngineError::Corrupt { path: "simulated store".to_owned(), offset: 0, message };
            self.found_bad.lock().get_or_insert_with(|| error.clone());
            return Some(Err(error));
        }
        Some(Ok(value))
    }

    fn complete_flush(&mut self, through: u64) {
        let later = self.unflushed.partition_point(|(at, _)| *at <= through);
        for (_, batch) in self.unflushed.drain(..later).collect::<Vec<_>>() {
            apply(&mut self.durable, &batch);
        }
        self.flushes += 1;
    }

    fn release_view(&mut self, at: u64) {
        if let Some(count) = self.views.get_mut(&at) {
            *count -= 1;
            if *count == 0 {
                self.views.remove(&at);
            }
        }
        if !self.views.is_empty() {
            return;
        }
        for (cf, key) in std::mem::take(&mut self.superseded) {
            let rows = &mut self.live[slot(cf)];
            let Some(versions) = rows.get_mut(&key) else { continue };
            match versions.pop() {
                Some((at, Some(value))) => *versions = vec![(at, Some(value))],
                Some((_, None)) | None => {
                    rows.remove(&key);
                }
            }
        }
    }
}

/// The rows as of a moment.
#[derive(Debug)]
struct View {
    shared: Arc<Shared>,
    at: u64,
    life: u64,
}

impl View {
    fn new(shared: &Arc<Shared>) -> Self {
        let mut state = shared.state.write();
        let (at, life) = (state.now, state.life);
        *state.views.entry(at).or_default() += 1;
        Self { shared: Arc::clone(shared), at, life }
    }

    fn check(&self, state: &State) -> Result<(), EngineError> {
        if state.life == self.life { Ok(()) } else { Err(EngineError::Stopped { message: "the machine went down".to_owned() }) }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.shared.state.write().release_view(self.at);
    }
}

/// Walks a view without holding its lock between chunks.
struct Walk<V> {
    view: V,
    cf: Cf,
    range: (Bytes, Option<Bytes>),
    reverse: bool,
    chunk: std::vec::IntoIter<Result<Row, EngineError>>,
    done: bool,
}

impl<V: AsRef<View>> Walk<V> {
    fn new(view: V, cf: Cf, range: Range<&[u8]>, reverse: bool) -> Self {
        let end = if range.end.is_empty() { None } else { Some(Bytes::copy_from_slice(range.end.max(range.start))) };
        Self { view, cf, range: (Bytes::copy_from_slice(range.start), end), reverse, chunk: Vec::new().into_iter(), done: false }
    }

    fn fill(&mut self) {
        let view = self.view.as_ref();
        let state = view.shared.state.read();
        if let Err(error) = view.check(&state) {
            self.chunk = vec![Err(error)].into_iter();
            self.done = true;
            return;
        }
        let (start, end) = &self.range;
        let upper = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let rows = state.live[slot(self.cf)].range::<[u8], _>((Bound::Included(&start[..]), upper));
        let read = |(key, versions): (&Bytes, &Versions)| state.read(self.cf, key, versions, view.at).map(|value| (key.clone(), value));
        let found: Vec<_> = if self.reverse {
            rows.rev().filter_map(read).take(CURSOR_CHUNK_ROWS).collect()
        } else {
            rows.filter_map(read).take(CURSOR_CHUNK_ROWS).collect()
        };
        drop(state);
        self.done = found.len() < CURSOR_CHUNK_ROWS;
        if let Some((key, _)) = found.last() {
            if self.reverse {
                self.range.1 = Some(key.clone());
            } else {
                let mut next = key.to_vec();
                next.push(0);
                self.range.0 = next.into();
                // Stays a range even when the last row was the last key below the end.
                if self.range.1.as_ref().is_some_and(|end| *end < self.range.0) {
                    self.done = true;
                }
            }
        }
        self.chunk = found.into_iter().map(|(key, value)| value.map(|value| (key, value))).collect::<Vec<_>>().into_iter();
    }
}

impl<V: AsRef<View>> Iterator for Walk<V> {
    type Item = Result<Row, EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.chunk.next() {
                return Some(row);
            }
            if self.done {
                return None;
            }
            self.fill();
        }
    }
}

impl AsRef<View> for View {
    fn as_ref(&self) -> &View {
        self
    }
}

impl StoreRead for View {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let state = self.shared.state.read();
        self.check(&state)?;
        let Some((key, versions)) = state.live[slot(cf)].get_key_value(key) else { return Ok(None) };
        state.read(cf, key, versions, self.at).transpose()
    }

    fn first(&self, cf: Cf, range: Range<&[u8]>, prefix_bytes: usize) -> Result<Option<Row>, EngineError> {
        let prefix = &range.start[..prefix_bytes.min(range.start.len())];
        let found = self.cursor(cf, range.clone(), false).next().transpose()?;
        // A real store stops at the prefix as well: an answer outside of it must not be relied upon.
        Ok(found.filter(|(key, _)| key.starts_with(prefix)))
    }

    fn cursor(&self, cf: Cf, range: Range<&[u8]>, reverse: bool) -> Cursor<'_> {
        Box::new(Walk::new(self, cf, range, reverse))
    }
}

impl StoreRead for SimStore {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let state = self.shared.state.read();
        let Some((key, versions)) = state.live[slot(cf)].get_key_value(key) else { return Ok(None) };
        state.read(cf, key, versions, state.now).transpose()
    }

    fn first(&self, cf: Cf, range: Range<&[u8]>, prefix_bytes: usize) -> Result<Option<Row>, EngineError> {
        let state = self.shared.state.read();
        let prefix = &range.start[..prefix_bytes.min(range.start.len())];
        let upper = if range.end.is_empty() { Bound::Unbounded } else { Bound::Excluded(range.end.max(range.start)) };
        for (key, versions) in state.live[slot(cf)].range::<[u8], _>((Bound::Included(range.start), upper)) {
            if !key.starts_with(prefix) {
                return Ok(None);
            }
            if let Some(value) = state.read(cf, key, versions, state.now) {
                return value.map(|value| Some((key.clone(), value)));
            }
        }
        Ok(None)
    }

    fn cursor(&self, cf: Cf, range: Range<&[u8]>, reverse: bool) -> Cursor<'_> {
        Box::new(Walk::new(self.view(), cf, range, reverse))
    }
}

impl Store for SimStore {
    fn write(&self, batch: WriteBatch) -> Result<(), EngineError> {
        self.shared.state.write().write(batch)
    }

    fn flush(&self) -> BoxFuture<'static, Result<(), EngineError>> {
        let shared: Weak<Shared> = Arc::downgrade(&self.shared);
        let (through, life, latency) = {
            let state = self.shared.state.read();
            (state.now, state.life, state.latency)
        };
        async move {
            if !latency.is_zero() {
                tokio::time::sleep(latency).await;
            }
            let Some(shared) = shared.upgrade() else { return Err(EngineError::Stopped { message: "closed".to_owned() }) };
            let mut state = shared.state.write();
            if state.life != life {
                return Err(EngineError::Stopped { message: "the machine went down".to_owned() });
            }
            state.ready()?;
            if state.flushes_to_fail > 0 {
                state.flushes_to_fail -= 1;
                state.stopped = Some("an earlier flush failed");
                return Err(EngineError::Io {
                    operation: "flush",
                    path: "simulated store".to_owned(),
                    message: "injected: input/output error".to_owned(),
                });
            }
            state.complete_flush(through);
            Ok(())
        }
        .boxed()
    }

    fn snapshot(&self) -> Arc<dyn StoreRead> {
        Arc::new(self.view())
    }

    fn trouble(&self) -> Option<EngineError> {
        let state = self.shared.state.read();
        let full = || state.full.then(|| EngineError::Full { path: "simulated store".to_owned() });
        let stopped = || state.stopped.map(|message| EngineError::Stopped { message: message.to_owned() });
        state.found_bad.lock().clone().or_else(stopped).or_else(full)
    }

    fn export(&self, export: FileExport) -> BoxFuture<'static, Result<Exported, EngineError>> {
        files::export(export).boxed()
    }

    fn replace(&self, disk: Arc<dyn Disk>, parts: Vec<Replacement>) -> BoxFuture<'static, Result<(), EngineError>> {
        let emptied = {
            let mut state = self.shared.state.write();
            let batch = files::emptying(&parts, &state);
            if batch.is_empty() { Ok(state.life) } else { state.write(batch).map(|()| state.life) }
        };
        let (flush, shared) = (self.flush(), Arc::downgrade(&self.shared));
        async move {
            let life = emptied?;
            flush.await?;
            for part in parts {
                let Some(shared) = shared.upgrade() else { return Err(EngineError::Stopped { message: "closed".to_owned() }) };
                let latency = shared.state.read().latency;
                if !latency.is_zero() {
                    tokio::time::sleep(latency).await;
                }
                files::take_in(&shared, life, &*disk, &part)?;
            }
            Ok(())
        }
        .boxed()
    }

    fn verify(&self, cf: Cf, from: Bytes, max_bytes: u64) -> BoxFuture<'static, Result<Verified<Bytes>, EngineError>> {
        let state = self.shared.state.read();
        let step = || {
            let mut bytes = 0;
            for (key, versions) in state.live[slot(cf)].range::<[u8], _>((Bound::Included(&from[..]), Bound::Unbounded)) {
                if bytes >= max_bytes {
                    return Ok(Verified { bytes, next: Some(key.clone()) });
                }
                let value = state.read(cf, key, versions, state.now).transpose()?;
                bytes += (key.len() + value.map_or(0, |value| value.len())) as u64;
            }
            Ok(Verified { bytes, next: None })
        };
        std::future::ready(step()).boxed()
    }

    fn extents(&self, cf: Cf, ranges: Vec<Range<Bytes>>) -> BoxFuture<'static, Result<Vec<Extent>, EngineError>> {
        let extent = |range: &Range<Bytes>| {
            let mut extent = Extent::default();
            for row in self.cursor(cf, &range.start[..]..&range.end[..], false) {
                let (key, value) = row?;
                extent.bytes += (key.len() + value.len()) as u64;
                extent.rows += 1;
            }
            Ok(extent)
        };
        std::future::ready(ranges.iter().map(extent).collect()).boxed()
    }

    fn size_bytes(&self) -> u64 {
        let state = self.shared.state.read();
        let rows = state.durable.iter().flatten().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        (rows + state.unflushed.iter().map(|(_, batch)| batch.bytes()).sum::<usize>()) as u64
    }
}
