//! An entry: a name in a folder, and what a listing shows of the node that it names.
//!
//! The value begins with a link for `metadb.v1.Walk`: one length byte and, for a tree folder, its tuple-encoded id. Files and flat folders
//! have none: a walk ends there.

use super::{Record, kind_number, kind_of, record};
use crate::error::bad_row;
use crate::keys;
use crate::model::{Entry, NodeKind};
use bytes::{BufMut as _, Bytes, BytesMut};
use metadb_proto::Error;
use prost::Message as _;

/// Value of `(2, folder id, canonical name)`, behind the link.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct EntryRecord {
    /// 1.
    #[prost(uint32, tag = "1")]
    pub schema: u32,
    /// The node.
    #[prost(uint64, tag = "2")]
    pub id: u64,
    /// As [`super::NodeRecord::kind`].
    #[prost(uint32, tag = "3")]
    pub kind: u32,
    /// The name as given; empty if that is the canonical one.
    #[prost(string, tag = "4")]
    pub name: String,
    /// Length of a file.
    #[prost(uint64, tag = "5")]
    pub size: u64,
    /// Number of a file's newest version.
    #[prost(uint64, tag = "6")]
    pub version: u64,
    /// Of a file's newest version.
    #[prost(string, tag = "7")]
    pub etag: String,
    /// Of a file's newest version.
    #[prost(string, tag = "8")]
    pub content_type: String,
    /// Unix milliseconds.
    #[prost(uint64, tag = "9")]
    pub modified_at_ms: u64,
}

record!(EntryRecord, "entry", 1);

impl EntryRecord {
    /// From an entry whose canonical name is known.
    #[must_use]
    pub fn of(entry: &Entry, canonical: &str) -> Self {
        EntryRecord {
            schema: Self::SCHEMA,
            id: entry.id,
            kind: kind_number(entry.kind),
            name: if entry.name == canonical { String::new() } else { entry.name.clone() },
            size: entry.size,
            version: entry.version,
            etag: entry.etag.clone(),
            content_type: entry.content_type.clone(),
            modified_at_ms: entry.modified_at_ms,
        }
    }

    /// As it is stored: link first.
    #[must_use]
    pub fn to_row(&self) -> Bytes {
        let link = if self.kind == kind_number(NodeKind::Tree) { keys::link(self.id) } else { Vec::new() };
        let mut row = BytesMut::with_capacity(1 + link.len() + self.encoded_len());
        row.put_u8(u8::try_from(link.len()).expect("a tuple-encoded id has at most nine bytes"));
        row.put_slice(&link);
        row.put_slice(&self.to_bytes());
        row.freeze()
    }

    /// From a row's value.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it can't be read.
    pub fn from_row(value: &Bytes) -> Result<Self, Error> {
        let link = value.first().map(|length| usize::from(*length)).ok_or_else(|| bad_row("entry", "no link"))?;
        if value.len() < 1 + link {
            return Err(bad_row("entry", "its link is cut"));
        }
        Self::from_bytes(value.slice(1 + link..))
    }

    /// The entry.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the kind is unknown.
    pub fn into_entry(self, parent: u64, canonical: &str) -> Result<Entry, Error> {
        Ok(Entry {
            parent,
            kind: kind_of("entry", self.kind)?,
            name: if self.name.is_empty() { canonical.to_owned() } else { self.name },
            id: self.id,
            size: self.size,
            version: self.version,
            etag: self.etag,
            content_type: self.content_type,
            modified_at_ms: self.modified_at_ms,
        })
    }
}
