//! A page of a range.
//!
//! A continuation is `format u8 = 1, key`: the last key of the page before. Each page is read at its own version; who wants all pages of one
//! moment asks for the first page's `read_version`.

use super::{Live, View, header, key_value, storage_error};
use crate::rows::data;
use bytes::Bytes;
use metadb_proto::planted::{self, Bug};
use metadb_proto::{Error, Version, limits, v1};

const CONTINUATION_FORMAT: u8 = 1;

impl View {
    /// Reads a page.
    ///
    /// # Errors
    /// As [`View::answer`].
    pub fn scan(&self, request: &v1::ScanRequest) -> Result<v1::ScanResponse, Error> {
        let header = header(request.header.as_ref())?;
        let at = self.read_version(request.read.as_ref())?;
        let at = if planted::is(Bug::PageOfAnotherMoment) { self.version() } else { at };
        let (start, end) = bounds(request)?;
        let (rows, continuation) = self.guarded(
            |ownership| ownership.check_range(header.tenant_id, &request.start, &request.end, header.epoch),
            || match data::range(self.group_id, header.tenant_id, &start, &end) {
                Some(range) => self.page(request, range, at),
                None => Ok((Vec::new(), Bytes::new())),
            },
        )?;
        Ok(v1::ScanResponse { rows, continuation, read_version: at.0 })
    }

    fn page(&self, request: &v1::ScanRequest, range: (Bytes, Bytes), at: Version) -> Result<(Vec<v1::KeyValue>, Bytes), Error> {
        let limit = if request.limit == 0 { limits::PAGE_ROWS } else { (request.limit as usize).min(limits::PAGE_ROWS) };
        let (mut rows, mut bytes) = (Vec::<v1::KeyValue>::new(), 0);
        for row in Live::new(&*self.store, range, request.reverse, at) {
            let (stem, stored) = row.map_err(|error| storage_error(&error))?;
            let key = data::key_of(&stem).map_err(|error| storage_error(&error))?;
            let Some(mut row) = key_value(key, &stored) else { continue };
            if request.keys_only {
                row.value = Bytes::new();
            }
            bytes += row.key.len() + row.value.len();
            if let Some(last) = rows.last()
                && (rows.len() >= limit || bytes > limits::PAGE_BYTES)
            {
                let continuation = continue_after(&last.key);
                if planted::is(Bug::PageDropsLastRow) {
                    rows.pop();
                }
                return Ok((rows, continuation));
            }
            rows.push(row);
        }
        Ok((rows, Bytes::new()))
    }
}

fn continue_after(key: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(1 + key.len());
    out.push(CONTINUATION_FORMAT);
    out.extend_from_slice(key);
    out.into()
}

/// The range that is still to read.
fn bounds(request: &v1::ScanRequest) -> Result<(Bytes, Bytes), Error> {
    let (start, end) = (request.start.clone(), request.end.clone());
    if request.continuation.is_empty() {
        return Ok((start, end));
    }
    let bad = || {
        Error::invalid(
            "continuation",
            "as the page before gave it, with the same start, end and reverse",
            hex::encode(&request.continuation),
        )
    };
    let last = match request.continuation.split_first() {
        Some((&CONTINUATION_FORMAT, key)) if !key.is_empty() => key,
        _ => return Err(bad()),
    };
    if last < &start[..] || (!end.is_empty() && last >= &end[..]) {
        return Err(bad());
    }
    if request.reverse {
        Ok((start, Bytes::copy_from_slice(last)))
    } else {
        let mut next = last.to_vec();
        next.push(0);
        Ok((next.into(), end))
    }
}
