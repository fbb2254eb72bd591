//! Lists the versions of a file, newest first. Changes nothing.

use crate::limits::LIST_DEFAULT;
use crate::model::FileVersion;
use crate::record::{Record as _, VersionRecord};
use crate::{Namespace, keys};
use metadb_proto::Error;

impl Namespace {
    /// At most `limit` (0: the default) versions of a file, newest first, older than `before` if that is given.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the file has no versions (any more); and those of the database.
    pub async fn list_versions(&self, id: u64, before: Option<u64>, limit: usize) -> Result<Vec<FileVersion>, Error> {
        let (mut start, end) = keys::versions(id);
        if let Some(before) = before {
            start = keys::after(&keys::version(id, before));
        }
        let limit = if limit == 0 { LIST_DEFAULT } else { limit };
        let page = self.reading().db.scan(start, end, limit).await?;
        if page.rows.is_empty() && before.is_none() {
            return Err(Error::not_found(format!("file {id}")));
        }
        page.rows.into_iter().map(|row| VersionRecord::from_bytes(row.value)?.into_version()).collect()
    }
}
