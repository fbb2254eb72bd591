//! A content: where the copies of its bytes are, and how many versions and upload parts name it.

use super::{Record, VersionPart, record};
use crate::error::bad_row;
use crate::model::{ContentInfo, ContentPart};
use metadb_proto::Error;

/// Value of `(6, content id)`. Goes away with its last name.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ContentRecord {
    /// 1.
    #[prost(uint32, tag = "1")]
    pub schema: u32,
    /// The content; its nodes are those that hold a copy now.
    #[prost(message, optional, tag = "2")]
    pub part: Option<VersionPart>,
    /// How many versions and upload parts name it. 0: none does any more, and its copies may go.
    #[prost(uint64, tag = "3")]
    pub names: u64,
}

record!(ContentRecord, "content", 1);

impl ContentRecord {
    /// A content with so many names.
    #[must_use]
    pub fn of(part: &ContentPart, names: u64) -> Self {
        ContentRecord { schema: Self::SCHEMA, part: Some(VersionPart::of(part)), names }
    }

    /// What is known of the content.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it can't be read.
    pub fn into_info(self) -> Result<ContentInfo, Error> {
        let part = self.part.ok_or_else(|| bad_row("content", "no part"))?.into_part()?;
        Ok(ContentInfo { part, names: self.names })
    }
}
