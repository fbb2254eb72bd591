//! An upload under way.

use super::{Record, record};
use crate::model::{NewUpload, UploadInfo};
use std::collections::BTreeMap;

/// Value of `(7, folder id, canonical name, upload id)`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct UploadRecord {
    /// 1.
    #[prost(uint32, tag = "1")]
    pub schema: u32,
    /// The name as given.
    #[prost(string, tag = "2")]
    pub name: String,
    /// MIME type.
    #[prost(string, tag = "3")]
    pub content_type: String,
    /// User metadata.
    #[prost(btree_map = "string, string", tag = "4")]
    pub attributes: BTreeMap<String, String>,
    /// Who writes it.
    #[prost(string, tag = "5")]
    pub author: String,
    /// Unix milliseconds.
    #[prost(uint64, tag = "6")]
    pub created_at_ms: u64,
}

record!(UploadRecord, "upload", 1);

impl UploadRecord {
    /// From an upload.
    #[must_use]
    pub fn of(upload: &UploadInfo) -> Self {
        UploadRecord {
            schema: Self::SCHEMA,
            name: upload.name.clone(),
            content_type: upload.data.content_type.clone(),
            attributes: upload.data.attributes.clone(),
            author: upload.data.author.clone(),
            created_at_ms: upload.created_at_ms,
        }
    }

    /// The upload.
    #[must_use]
    pub fn into_info(self, parent: u64, upload_id: &[u8; 16]) -> UploadInfo {
        let data = NewUpload { content_type: self.content_type, attributes: self.attributes, author: self.author };
        UploadInfo { upload_id: hex::encode(upload_id), parent, name: self.name, created_at_ms: self.created_at_ms, data }
    }
}
