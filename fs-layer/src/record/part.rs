//! A part of an upload.

use super::{Record, VersionPart, record};
use crate::model::{NewPart, PartInfo};
use metadb_proto::Error;

/// Value of `(8, upload id, part number)`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PartRecord {
    /// 1.
    #[prost(uint32, tag = "1")]
    pub schema: u32,
    /// The part's number.
    #[prost(uint32, tag = "2")]
    pub number: u32,
    /// Length in bytes.
    #[prost(uint64, tag = "3")]
    pub size: u64,
    /// Without quotes.
    #[prost(string, tag = "4")]
    pub etag: String,
    /// Unix milliseconds.
    #[prost(uint64, tag = "5")]
    pub created_at_ms: u64,
    /// The bytes, in order.
    #[prost(message, repeated, tag = "6")]
    pub parts: Vec<VersionPart>,
}

record!(PartRecord, "upload part", 1);

impl PartRecord {
    /// From a part.
    #[must_use]
    pub fn of(part: &PartInfo) -> Self {
        PartRecord {
            schema: Self::SCHEMA,
            number: part.number,
            size: part.data.size,
            etag: part.data.etag.clone(),
            created_at_ms: part.created_at_ms,
            parts: VersionPart::all(&part.data.content),
        }
    }

    /// The part.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it can't be read.
    pub fn into_info(self) -> Result<PartInfo, Error> {
        let data = NewPart { content: VersionPart::into_content(self.parts)?, size: self.size, etag: self.etag };
        Ok(PartInfo { number: self.number, created_at_ms: self.created_at_ms, data })
    }
}
