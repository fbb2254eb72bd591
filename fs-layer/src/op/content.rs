//! Tells what is known of one content. Changes nothing.

use crate::model::ContentInfo;
use crate::record::{ContentRecord, Record as _};
use crate::{Namespace, keys};
use metadb_proto::Error;

impl Namespace {
    /// Where the copies of a content are now, and how many name it; none if no version or upload part does.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn content(&self, id: &[u8; 16]) -> Result<Option<ContentInfo>, Error> {
        let row = self.reading().db.get(keys::content(id)).await?;
        row.map(|row| ContentRecord::from_bytes(row.value)?.into_info()).transpose()
    }
}
