//! What a move reads of a shard: all of it, page by page, or what was committed above a version, told by the change log.
//!
//! Pages are not of one moment. Rows never change, so what is read later is only more; and all that was committed above `through_version`,
//! which is the version reached when the first page was read, is told again by the change log.
//!
//! A continuation is `format u8 = 1, through u64, phase u8`, then the last key read; of the change log, the version and the number of the
//! last thing read.

use super::{View, storage_error};
use crate::machine::ownership::{Ownership, Range};
use crate::rows::change::{self, Change};
use crate::rows::data::{self, Stored};
use crate::rows::{request, shard};
use bytes::{BufMut as _, Bytes, BytesMut};
use metadb_engine::{Cf, EngineError};
use metadb_proto::{Error, Version, limits, v1};

const FORMAT: u8 = 1;
const PHASE_ROWS: u8 = 1;
const PHASE_OUTCOMES: u8 = 2;
const PHASE_CHANGES: u8 = 3;
/// Bytes of a page, if the caller does not say: little, for a page is an entry of another group's log.
const DEFAULT_PAGE_BYTES: usize = 256 << 10;
/// Most shards of one list, and its ranges.
const LISTED_AT_ONCE: usize = 10_000;
const RANGES_AT_ONCE: usize = 1024;
/// What a shard takes in a list besides its keys, at most.
const STATUS_BYTES: usize = 128;

/// A page that is being filled.
struct Page {
    response: v1::ReadShardResponse,
    bytes: usize,
    most: usize,
    through: Version,
}

/// Whether a page took something in, or is full.
#[derive(PartialEq, Eq)]
enum Took {
    Yes,
    Full,
}

impl Page {
    /// Makes room; a page takes at least one thing.
    fn take(&mut self, bytes: usize) -> Took {
        let is_empty = self.response.rows.is_empty() && self.response.outcomes.is_empty();
        if !is_empty && self.bytes + bytes > self.most {
            return Took::Full;
        }
        self.bytes += bytes;
        Took::Yes
    }

    fn row(&mut self, key: Bytes, stored: &Stored) -> Took {
        if self.take(key.len() + stored.row().len()) == Took::Full {
            return Took::Full;
        }
        self.response.rows.push(v1::ShardRow { key, version: stored.version.0, value: stored.value() });
        Took::Yes
    }

    fn outcome(&mut self, request_id: Bytes, row: &Bytes) -> Result<Took, EngineError> {
        if self.take(request_id.len() + row.len()) == Took::Full {
            return Ok(Took::Full);
        }
        self.response.outcomes.push(v1::ShardOutcome { request_id, outcome: Some(request::decode(row)?) });
        Ok(Took::Yes)
    }

    fn more(&mut self, phase: u8, position: &[u8]) {
        let mut out = BytesMut::with_capacity(10 + position.len());
        out.put_u8(FORMAT);
        out.put_u64(self.through.0);
        out.put_u8(phase);
        out.put_slice(position);
        self.response.continuation = out.freeze();
    }
}

impl View {
    /// A page of a shard that is here, fenced or not; for the latest, after the read barrier of the group.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the shard is not here; [`Error::Invalid`] for a continuation that is none; [`Error::Corrupt`].
    pub(crate) fn read_shard(&self, request: &v1::ReadShardRequest) -> Result<v1::ReadShardResponse, Error> {
        let range = Range::read(request.range.clone())?;
        let most = if request.max_bytes == 0 { DEFAULT_PAGE_BYTES } else { request.max_bytes as usize };
        if most > limits::PAGE_BYTES {
            return Err(Error::invalid("max_bytes", format!("at most {}", limits::PAGE_BYTES), most.to_string()));
        }
        let first = if request.after_version == 0 { PHASE_ROWS } else { PHASE_CHANGES };
        let (through, phase, position) = match request.continuation.is_empty() {
            true => (self.version(), first, Bytes::new()),
            false => continued(&request.continuation)?,
        };
        let page = Page { response: v1::ReadShardResponse::default(), bytes: 0, most, through };
        let read = || match phase {
            PHASE_CHANGES => self.page_of_changes(page, &range, Version(request.after_version), &position),
            phase => self.page_of_all(page, &range, phase, position),
        };
        let is_here = |ownership: &Ownership| if ownership.holds(&range) { Ok(()) } else { Err(not_here(self.group_id, &range)) };
        self.guarded(is_here, || read().map_err(|error| storage_error(&error)))
    }

    /// Every version of every key, then every outcome of the tenant.
    fn page_of_all(&self, mut page: Page, range: &Range, phase: u8, last: Bytes) -> Result<v1::ReadShardResponse, EngineError> {
        let Some((mut start, end)) = data::range(self.group_id, range.tenant_id, &range.start, &range.end) else {
            return Ok(page.response);
        };
        let mut last_outcome = Bytes::new();
        if phase == PHASE_ROWS {
            if !last.is_empty() {
                start = behind(&last).max(start);
            }
            let mut read: Option<Bytes> = None;
            for row in self.store.cursor(Cf::Data, &start[..]..&end[..], false) {
                let (row_key, value) = row?;
                let (stem, version) = data::split(&row_key)?;
                if page.row(data::key_of(&stem)?, &Stored::read(version, value)?) == Took::Full {
                    page.more(PHASE_ROWS, &read.unwrap_or(last));
                    return Ok(page.response);
                }
                read = Some(row_key);
            }
        } else {
            last_outcome = last;
        }
        self.add_outcomes(&mut page, range.tenant_id, last_outcome)?;
        Ok(page.response)
    }

    fn add_outcomes(&self, page: &mut Page, tenant_id: u64, mut last: Bytes) -> Result<(), EngineError> {
        let mut generation = if last.is_empty() { 0 } else { request::generation_of(&last)? };
        loop {
            let (from, to) = request::from(self.group_id, generation);
            let Some((first, _)) = self.store.first(Cf::State, &from[..]..&to[..], 0)? else { break };
            generation = request::generation_of(&first)?;
            let (mut start, end) = request::of_tenant(self.group_id, generation, tenant_id);
            if !last.is_empty() {
                start = behind(&last).max(start);
            }
            for row in self.store.cursor(Cf::State, &start[..]..&end[..], false) {
                let (key, value) = row?;
                if page.outcome(request::id_of(&key)?, &value)? == Took::Full {
                    page.more(PHASE_OUTCOMES, &last);
                    return Ok(());
                }
                last = key;
            }
            let Some(next) = generation.checked_add(1) else { break };
            generation = next;
        }
        page.response.through_version = page.through.0;
        Ok(())
    }

    /// What was committed above a version.
    fn page_of_changes(
        &self,
        mut page: Page,
        range: &Range,
        after: Version,
        position: &Bytes,
    ) -> Result<v1::ReadShardResponse, EngineError> {
        let (mut reached, mut done) = match position.split_first_chunk::<8>() {
            Some((version, number)) => (Version(u64::from_be_bytes(*version)), number_of(number)),
            None => (after, usize::MAX),
        };
        let (start, end) = change::since(self.group_id, reached);
        for row in self.store.cursor(Cf::Changes, &start[..]..&end[..], false) {
            let changes = change::decode(&row?.1)?;
            if changes.first().is_some_and(|first| first.version > page.through) {
                break;
            }
            for change in changes {
                if change.version < reached || change.version > page.through || change.tenant_id != range.tenant_id {
                    continue;
                }
                let skipped = if change.version == reached { done } else { 0 };
                if let Some(number) = self.add_change(&mut page, range, &change, skipped)? {
                    let number = u64::try_from(number).expect("bounded by the limits of a transaction");
                    page.more(PHASE_CHANGES, &[change.version.0.to_be_bytes(), number.to_be_bytes()].concat());
                    return Ok(page.response);
                }
                (reached, done) = (change.version, usize::MAX);
            }
        }
        page.response.through_version = page.through.0;
        Ok(page.response)
    }

    /// Adds what a request left in the range, but for the first `done` things; says how many were done if the page is full.
    fn add_change(&self, page: &mut Page, range: &Range, change: &Change, done: usize) -> Result<Option<usize>, EngineError> {
        let inside: Vec<&Bytes> = change.keys.iter().filter(|key| range.holds(key)).collect();
        // A row names what was written, not what was asked: of which shards a request was is not told, so its outcome goes with any.
        let things = inside.len() + usize::from(!change.request_id.is_empty());
        for number in done.min(things)..things {
            let took = match inside.get(number) {
                Some(key) => {
                    let row_key = data::row_key(&data::stem(self.group_id, change.tenant_id, key), change.version);
                    let Some(row) = self.store.get(Cf::Data, &row_key)? else { continue };
                    page.row((*key).clone(), &Stored::read(change.version, row)?)
                }
                None => {
                    let key = request::key(self.group_id, request::generation(change.version), change.tenant_id, &change.request_id);
                    let Some(row) = self.store.get(Cf::State, &key)? else { continue };
                    page.outcome(change.request_id.clone(), &row)?
                }
            };
            if took == Took::Full {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// What the group owns, expects and gave away, by tenant and start.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what asks for too much at once.
    pub(crate) fn list_shards(&self, request: v1::ListShardsRequest) -> Result<v1::ListShardsResponse, Error> {
        let limit = if request.limit == 0 { LISTED_AT_ONCE } else { request.limit as usize };
        if limit > LISTED_AT_ONCE || request.ranges.len() > RANGES_AT_ONCE {
            let value = format!("{limit} shards of {} ranges", request.ranges.len());
            return Err(Error::invalid("limit", format!("at most {LISTED_AT_ONCE} shards of {RANGES_AT_ONCE} ranges"), value));
        }
        let version = self.version().0;
        let ownership = self.ownership();
        let mut shards = Vec::new();
        if request.ranges.is_empty() {
            let after = request.after.map(|after| (after.tenant_id, after.start));
            shards.extend(ownership.after(after).take(limit + 1).map(|(tenant_id, start, shard)| status(tenant_id, start, shard)));
        } else {
            for range in request.ranges {
                let range = Range::read(Some(range))?;
                shards.extend(ownership.overlapping(&range).iter().map(|(start, shard)| status(range.tenant_id, start, shard)));
            }
        }
        let fits = bounded(&shards).min(limit);
        let more = shards.len() > fits;
        shards.truncate(fits);
        Ok(v1::ListShardsResponse { shards, more, version })
    }
}

/// How many of the first shards a message has room for: their keys may be long.
fn bounded(shards: &[v1::ShardStatus]) -> usize {
    let mut bytes = 0;
    let fits = |shard: &&v1::ShardStatus| {
        bytes += shard.range.as_ref().map_or(0, |range| range.start.len() + range.end.len()) + STATUS_BYTES;
        bytes <= limits::PAGE_BYTES
    };
    shards.iter().take_while(fits).count().max(1)
}

fn status(tenant_id: u64, start: &Bytes, found: &shard::Shard) -> v1::ShardStatus {
    use v1::shard_status::State;
    let (state, other, move_epoch, through) = match found.state {
        shard::State::Owned => (State::Owned, 0, 0, 0),
        shard::State::Fenced { to, epoch } => (State::Fenced, to, epoch, 0),
        shard::State::Expected { from, through } => (State::Expected, from, 0, through.0),
        shard::State::Dropped { to } => (State::Dropped, to.unwrap_or(0), 0, 0),
    };
    v1::ShardStatus {
        range: Some(v1::ShardRange { tenant_id, start: start.clone(), end: found.end.clone() }),
        state: state.into(),
        epoch: found.epoch,
        version: found.version.0,
        other_group_id: other,
        move_epoch,
        through_version: through,
        ..Default::default()
    }
}

/// The first key behind one.
fn behind(key: &[u8]) -> Bytes {
    [key, &[0]].concat().into()
}

fn number_of(bytes: &[u8]) -> usize {
    bytes.first_chunk::<8>().and_then(|bytes| usize::try_from(u64::from_be_bytes(*bytes)).ok()).unwrap_or(usize::MAX)
}

fn continued(continuation: &Bytes) -> Result<(Version, u8, Bytes), Error> {
    let bad = || Error::invalid("continuation", "as the page before gave it", hex::encode(continuation));
    let (head, position) = continuation.split_first_chunk::<10>().ok_or_else(bad)?;
    let [FORMAT, through @ .., phase @ (PHASE_ROWS | PHASE_OUTCOMES | PHASE_CHANGES)] = head else { return Err(bad()) };
    Ok((Version(u64::from_be_bytes(*through)), *phase, continuation.slice_ref(position)))
}

fn not_here(group_id: u32, range: &Range) -> Error {
    let message = format!("group {group_id} does not hold the shard from {} of tenant {}", hex::encode(&range.start), range.tenant_id);
    Error::Conflict { message }
}

#[cfg(test)]
#[path = "shard_tests.rs"]
mod tests;
