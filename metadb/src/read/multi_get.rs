//! Several keys, all at one version.

use super::{View, header};
use metadb_proto::{Error, limits, v1};

impl View {
    /// Reads keys; those that don't exist are left out.
    ///
    /// # Errors
    /// As [`View::answer`]; [`Error::Invalid`] if the rows found are larger than a page.
    pub fn multi_get(&self, request: &v1::MultiGetRequest) -> Result<v1::MultiGetResponse, Error> {
        let header = header(request.header.as_ref())?;
        let at = self.read_version(request.read.as_ref())?;
        let rows = self.guarded(
            // The epoch is that of the first key's shard.
            |ownership| {
                let epochs = std::iter::once(header.epoch).chain(std::iter::repeat(0));
                request.keys.iter().zip(epochs).try_for_each(|(key, epoch)| ownership.check_key(header.tenant_id, key, epoch))
            },
            || {
                let (mut rows, mut bytes) = (Vec::new(), 0);
                for key in &request.keys {
                    if let Some(row) = self.read_key(header.tenant_id, key, at)? {
                        bytes += row.key.len() + row.value.len();
                        fits_a_page("keys", bytes)?;
                        rows.push(row);
                    }
                }
                Ok(rows)
            },
        )?;
        Ok(v1::MultiGetResponse { rows, read_version: at.0 })
    }
}

/// Refuses an answer larger than a page.
pub(super) fn fits_a_page(field: &str, bytes: usize) -> Result<(), Error> {
    if bytes > limits::PAGE_BYTES {
        return Err(Error::invalid(
            field,
            format!("rows of at most {} bytes together", limits::PAGE_BYTES),
            format!("at least {bytes} bytes"),
        ));
    }
    Ok(())
}
