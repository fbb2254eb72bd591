//! One page of a range that may go across shards: each shard is asked for its part, and the continuation remembers both where the
//! range stands and what the shard said.

use crate::ask::Ask;
use crate::call::expect_answer;
use crate::client::Scan;
use crate::metrics;
use crate::router::Router;
use crate::routes::{Place, TenantRoutes};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use metadb_proto::kv::request;
use metadb_proto::{Error, limits, v1};
use tokio::time::Instant;

/// First byte of a continuation: its format.
const FORMAT: u8 = 1;

/// Where a scan stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Cursor {
    /// The range that is still to be read.
    start: Bytes,
    end: Bytes,
    /// The part of it that the shard was asked for, and what the shard said to go on with. Both empty: ask it anew.
    part_start: Bytes,
    part_end: Bytes,
    continuation: Bytes,
}

impl Cursor {
    fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(FORMAT);
        for field in [&self.start, &self.end, &self.part_start, &self.part_end] {
            out.put_u16(u16::try_from(field.len()).expect("a key is at most KEY_BYTES long, and one byte more when it is a bound"));
            out.put_slice(field);
        }
        out.put_slice(&self.continuation);
        out.freeze()
    }

    fn decode(token: &Bytes) -> Result<Cursor, Error> {
        let bad = || Error::invalid("continuation", "one from the page before", format!("{} bytes of something else", token.len()));
        let mut rest = token.clone();
        if rest.try_get_u8().map_err(|_| bad())? != FORMAT {
            return Err(bad());
        }
        let mut field = || {
            let length = usize::from(rest.try_get_u16().map_err(|_| bad())?);
            if length > limits::KEY_BYTES + 1 || length > rest.len() {
                return Err(bad());
            }
            Ok(rest.split_to(length))
        };
        let (start, end, part_start, part_end) = (field()?, field()?, field()?, field()?);
        Ok(Cursor { start, end, part_start, part_end, continuation: rest })
    }

    /// Goes past what a page of this part brought.
    fn advance(&mut self, reverse: bool, part: (Bytes, Bytes), page: &v1::ScanResponse) {
        if let Some(last) = page.rows.last() {
            if reverse {
                self.end = last.key.clone();
            } else {
                self.start = [last.key.as_ref(), &[0]].concat().into();
            }
        }
        self.continuation = page.continuation.clone();
        (self.part_start, self.part_end) = if page.continuation.is_empty() { <_>::default() } else { part };
    }
}

/// One page, as an [`Ask`].
struct Part<'a> {
    scan: &'a Scan,
    cursor: &'a Cursor,
    limit: u32,
    /// The group that gave the first part of the page, and the version that it was read at: the page's other parts in that group are of the
    /// same moment. Another group may not have reached it.
    first: Option<(Option<u32>, u64)>,
}

impl Part<'_> {
    /// What to ask a shard for: what is left of the range, as far as it is the shard's; and how to go on there.
    fn of(&self, place: &Place) -> (Bytes, Bytes, Bytes) {
        let cursor = self.cursor;
        let within = |start: &Bytes, end: &Bytes| *start >= place.start && (place.end.is_empty() || (!end.is_empty() && *end <= place.end));
        if !cursor.continuation.is_empty() && within(&cursor.part_start, &cursor.part_end) {
            return (cursor.part_start.clone(), cursor.part_end.clone(), cursor.continuation.clone());
        }
        // A shard that was split since does not understand what it said before: ask for the rest anew.
        let start = cursor.start.clone().max(place.start.clone());
        let end = match (cursor.end.is_empty(), place.end.is_empty()) {
            (true, _) => place.end.clone(),
            (false, true) => cursor.end.clone(),
            (false, false) => cursor.end.clone().min(place.end.clone()),
        };
        (start, end, Bytes::new())
    }
}

impl Ask for Part<'_> {
    fn place(&self, routes: &TenantRoutes) -> Result<Place, Error> {
        if self.scan.reverse { routes.below(&self.cursor.end).cloned() } else { routes.at(&self.cursor.start).cloned() }
    }

    fn verb(&self) -> usize {
        metrics::SCAN
    }

    fn body(&self, place: &Place) -> request::Body {
        let (start, end, continuation) = self.of(place);
        let read = match self.first {
            Some((group_id, at_version)) if group_id == place.group_id => v1::ReadOptions { at_version, max_staleness_ms: 0 },
            Some(_) | None => self.scan.read,
        };
        request::Body::Scan(v1::ScanRequest {
            header: None,
            start,
            end,
            limit: self.limit,
            reverse: self.scan.reverse,
            keys_only: self.scan.keys_only,
            read: Some(read),
            continuation,
        })
    }
}

/// Reads one page.
pub(crate) async fn run(router: &Router, tenant_id: u64, scan: Scan, until: Instant) -> Result<v1::ScanResponse, Error> {
    check(&scan)?;
    let mut cursor = match scan.continuation.is_empty() {
        true => Cursor { start: scan.start.clone(), end: scan.end.clone(), ..Cursor::default() },
        false => Cursor::decode(&scan.continuation)?,
    };
    let (mut page, mut first) = (v1::ScanResponse::default(), None);
    let (most_rows, mut bytes) = (if scan.limit == 0 { limits::PAGE_ROWS } else { scan.limit as usize }, 0);
    loop {
        if !cursor.end.is_empty() && cursor.start >= cursor.end {
            page.continuation = Bytes::new();
            return Ok(page);
        }
        let limit =
            if scan.limit == 0 && page.rows.is_empty() { 0 } else { u32::try_from(most_rows - page.rows.len()).unwrap_or(u32::MAX) };
        let asked = Part { scan: &scan, cursor: &cursor, limit, first };
        let (answer, place) = router.call(tenant_id, &asked, until).await?;
        let answer = expect_answer!(answer, Scan)?;
        let (start, end, _) = asked.of(&place);
        first = first.or(Some((place.group_id, answer.read_version)));
        cursor.advance(scan.reverse, (start, end), &answer);
        page.read_version = if page.read_version == 0 { answer.read_version } else { page.read_version.min(answer.read_version) };
        bytes += answer.rows.iter().map(|row| row.key.len() + row.value.len()).sum::<usize>();
        let shard_has_more = !answer.continuation.is_empty();
        page.rows.extend(answer.rows);
        if !shard_has_more && !next_shard(&mut cursor, scan.reverse, &place) {
            page.continuation = Bytes::new();
            return Ok(page);
        }
        if shard_has_more || page.rows.len() >= most_rows || bytes >= limits::PAGE_BYTES / 2 {
            page.continuation = cursor.encode();
            return Ok(page);
        }
    }
}

/// Goes on behind a shard that has nothing more; false if that is the end of the range.
fn next_shard(cursor: &mut Cursor, reverse: bool, place: &Place) -> bool {
    if reverse {
        if place.start.is_empty() || place.start <= cursor.start {
            return false;
        }
        cursor.end = place.start.clone();
    } else {
        if place.end.is_empty() || (!cursor.end.is_empty() && place.end >= cursor.end) {
            return false;
        }
        cursor.start = place.end.clone();
    }
    true
}

/// The limits that the parts asked for would not show.
fn check(scan: &Scan) -> Result<(), Error> {
    let body = v1::ScanRequest {
        header: Some(v1::RequestHeader::default()),
        start: scan.start.clone(),
        end: scan.end.clone(),
        limit: scan.limit,
        ..v1::ScanRequest::default()
    };
    limits::check(&request::Body::Scan(body))
}

#[cfg(test)]
mod tests;
