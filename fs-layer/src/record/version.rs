//! A version of a file. Immutable.

use super::{Record, record};
use crate::error::bad_row;
use crate::model::{Content, ContentPart, FileVersion, NewVersion};
use bytes::Bytes;
use metadb_proto::Error;
use std::collections::BTreeMap;

/// Value of `(3, node id, u64::MAX - version number)`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct VersionRecord {
    /// 1.
    #[prost(uint32, tag = "1")]
    pub schema: u32,
    /// 1 for the first.
    #[prost(uint64, tag = "2")]
    pub number: u64,
    /// Length in bytes.
    #[prost(uint64, tag = "3")]
    pub size: u64,
    /// Without quotes.
    #[prost(string, tag = "4")]
    pub etag: String,
    /// MIME type.
    #[prost(string, tag = "5")]
    pub content_type: String,
    /// User metadata.
    #[prost(btree_map = "string, string", tag = "6")]
    pub attributes: BTreeMap<String, String>,
    /// Who wrote it.
    #[prost(string, tag = "7")]
    pub author: String,
    /// Unix milliseconds.
    #[prost(uint64, tag = "8")]
    pub created_at_ms: u64,
    /// The bytes, in order.
    #[prost(message, repeated, tag = "9")]
    pub parts: Vec<VersionPart>,
}

record!(VersionRecord, "version", 1);

/// One content of a version.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct VersionPart {
    /// 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub content_id: Bytes,
    /// Length in bytes.
    #[prost(uint64, tag = "2")]
    pub size_bytes: u64,
    /// 32 bytes.
    #[prost(bytes = "bytes", tag = "3")]
    pub blake3: Bytes,
    /// Where the copies were when it was named.
    #[prost(uint64, repeated, tag = "4")]
    pub nodes: Vec<u64>,
}

impl VersionPart {
    /// From a content part.
    #[must_use]
    pub fn of(part: &ContentPart) -> Self {
        VersionPart {
            content_id: Bytes::copy_from_slice(&part.content_id),
            size_bytes: part.size_bytes,
            blake3: Bytes::copy_from_slice(&part.blake3),
            nodes: part.nodes.clone(),
        }
    }

    /// The content part.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if an id or a checksum has the wrong length.
    pub fn into_part(self) -> Result<ContentPart, Error> {
        Ok(ContentPart {
            content_id: self.content_id.as_ref().try_into().map_err(|e| bad_row("content id", e))?,
            size_bytes: self.size_bytes,
            blake3: self.blake3.as_ref().try_into().map_err(|e| bad_row("content checksum", e))?,
            nodes: self.nodes,
        })
    }

    /// All parts of a content.
    #[must_use]
    pub fn all(content: &Content) -> Vec<Self> {
        content.0.iter().map(Self::of).collect()
    }

    /// The content of all parts.
    ///
    /// # Errors
    /// As [`VersionPart::into_part`].
    pub fn into_content(parts: Vec<Self>) -> Result<Content, Error> {
        parts.into_iter().map(Self::into_part).collect::<Result<_, _>>().map(Content)
    }
}

impl VersionRecord {
    /// From a new version.
    #[must_use]
    pub fn of(version: &NewVersion, number: u64, created_at_ms: u64) -> Self {
        VersionRecord {
            schema: Self::SCHEMA,
            number,
            size: version.size,
            etag: version.etag.clone(),
            content_type: version.content_type.clone(),
            attributes: version.attributes.clone(),
            author: version.author.clone(),
            created_at_ms,
            parts: VersionPart::all(&version.content),
        }
    }

    /// The version.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if a part can't be read.
    pub fn into_version(self) -> Result<FileVersion, Error> {
        let data = NewVersion {
            content: VersionPart::into_content(self.parts)?,
            size: self.size,
            etag: self.etag,
            content_type: self.content_type,
            attributes: self.attributes,
            author: self.author,
        };
        Ok(FileVersion { number: self.number, created_at_ms: self.created_at_ms, data })
    }
}
