//! A chained lookup: each row says where the next step begins.

use super::multi_get::fits_a_page;
use super::{View, header};
use bytes::Bytes;
use metadb_proto::{Error, v1};

impl View {
    /// Follows links, one row a step, up to the first row that is missing or has no link.
    ///
    /// # Errors
    /// As [`View::answer`]; [`Error::Invalid`] if the rows found are larger than a page.
    pub fn walk(&self, request: &v1::WalkRequest) -> Result<v1::WalkResponse, Error> {
        let header = header(request.header.as_ref())?;
        let at = self.read_version(request.read.as_ref())?;
        let (mut rows, mut bytes) = (Vec::with_capacity(request.segments.len()), 0);
        let mut link = request.start.clone();
        for segment in &request.segments {
            let key = Bytes::from([&request.prefix[..], &link[..], &segment[..]].concat());
            let row = self.guarded(
                |ownership| ownership.check_key(header.tenant_id, &key, header.epoch),
                || self.read_key(header.tenant_id, &key, at),
            )?;
            let Some(row) = row else { break };
            bytes += row.key.len() + row.value.len();
            fits_a_page("segments", bytes)?;
            let next = link_of(&row.value);
            rows.push(row);
            match next {
                Some(next) => link = next,
                None => break,
            }
        }
        Ok(v1::WalkResponse { rows, read_version: at.0 })
    }
}

/// The byte string that a value starts with, one length byte ahead.
fn link_of(value: &Bytes) -> Option<Bytes> {
    let length = usize::from(*value.first()?);
    (length > 0 && value.len() > length).then(|| value.slice(1..=length))
}
