//! What lost its name in a transaction: the list that collection works off. Rows stay small however much was released: a deleted file is
//! told by its id, and its version rows say the rest.

use super::{Record, record};
use crate::error::bad_row;
use crate::model::Released;
use bytes::Bytes;
use metadb_proto::Error;

/// Value of `(9, versionstamp)`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ReleasedRecord {
    /// 1.
    #[prost(uint32, tag = "1")]
    pub schema: u32,
    /// Files all of whose versions are released.
    #[prost(uint64, repeated, tag = "2")]
    pub node_ids: Vec<u64>,
    /// Contents that lost one name each. 16 bytes each.
    #[prost(bytes = "bytes", repeated, tag = "3")]
    pub content_ids: Vec<Bytes>,
    /// Deleted folders, whose unfinished uploads are released.
    #[prost(uint64, repeated, tag = "4")]
    pub folder_ids: Vec<u64>,
}

record!(ReleasedRecord, "released", 1);

impl ReleasedRecord {
    /// From what is released; none if nothing is.
    #[must_use]
    pub fn of(released: &Released) -> Option<Self> {
        let record = ReleasedRecord {
            schema: Self::SCHEMA,
            node_ids: released.node_ids.clone(),
            content_ids: released.content_ids.iter().map(|id| Bytes::copy_from_slice(id)).collect(),
            folder_ids: released.folder_ids.clone(),
        };
        let empty = record.node_ids.is_empty() && record.content_ids.is_empty() && record.folder_ids.is_empty();
        (!empty).then_some(record)
    }

    /// What was released under a key.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if a content id has the wrong length.
    pub fn into_released(self, ticket: Vec<u8>) -> Result<Released, Error> {
        let ids = self.content_ids.iter().map(|id| id.as_ref().try_into().map_err(|e| bad_row("released", e))).collect::<Result<_, _>>()?;
        Ok(Released { ticket, node_ids: self.node_ids, content_ids: ids, folder_ids: self.folder_ids })
    }
}
