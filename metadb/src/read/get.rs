//! One key.

use super::{View, header};
use metadb_proto::{Error, v1};

impl View {
    /// Reads a key.
    ///
    /// # Errors
    /// As [`View::answer`].
    pub fn get(&self, request: &v1::GetRequest) -> Result<v1::GetResponse, Error> {
        let header = header(request.header.as_ref())?;
        let at = self.read_version(request.read.as_ref())?;
        let row = self.guarded(
            |ownership| ownership.check_key(header.tenant_id, &request.key, header.epoch),
            || self.read_key(header.tenant_id, &request.key, at),
        )?;
        Ok(v1::GetResponse { row, read_version: at.0 })
    }
}
