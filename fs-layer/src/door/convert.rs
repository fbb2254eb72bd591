//! Between the messages of `fs.v1` and the model.

use crate::model::{
    Content, ContentInfo, ContentPart, Entry, FileInfo, FileVersion, NewPart, NewUpload, NewVersion, NodeKind, PartInfo, Precondition,
    UploadInfo,
};
use crate::v1;
use bytes::Bytes;
use metadb_proto::Error;

fn kind_to(kind: NodeKind) -> i32 {
    match kind {
        NodeKind::Tree => v1::NodeKind::TreeFolder.into(),
        NodeKind::Flat => v1::NodeKind::FlatFolder.into(),
        NodeKind::File => v1::NodeKind::File.into(),
    }
}

fn kind_from(kind: i32) -> Result<NodeKind, Error> {
    match v1::NodeKind::try_from(kind) {
        Ok(v1::NodeKind::TreeFolder) => Ok(NodeKind::Tree),
        Ok(v1::NodeKind::FlatFolder) => Ok(NodeKind::Flat),
        Ok(v1::NodeKind::File) => Ok(NodeKind::File),
        Ok(v1::NodeKind::Unspecified) | Err(_) => Err(Error::invalid("kind", "a kind of node", kind.to_string())),
    }
}

fn content_to(content: &Content) -> Vec<v1::ContentPart> {
    content.0.iter().map(part_to).collect()
}

fn part_to(part: &ContentPart) -> v1::ContentPart {
    v1::ContentPart {
        content_id: Bytes::copy_from_slice(&part.content_id),
        size_bytes: part.size_bytes,
        blake3: Bytes::copy_from_slice(&part.blake3),
        node_ids: part.nodes.clone(),
    }
}

fn content_from(parts: Vec<v1::ContentPart>) -> Result<Content, Error> {
    parts.into_iter().map(part_from).collect::<Result<_, _>>().map(Content)
}

fn part_from(part: v1::ContentPart) -> Result<ContentPart, Error> {
    Ok(ContentPart {
        content_id: bytes("content.content_id", &part.content_id)?,
        size_bytes: part.size_bytes,
        blake3: bytes("content.blake3", &part.blake3)?,
        nodes: part.node_ids,
    })
}

/// Bytes of a fixed length.
pub(super) fn bytes<const N: usize>(field: &str, given: &Bytes) -> Result<[u8; N], Error> {
    given.as_ref().try_into().map_err(|_| Error::invalid(field, format!("{N} bytes"), format!("{} bytes", given.len())))
}

impl From<FileVersion> for v1::FileVersion {
    fn from(version: FileVersion) -> Self {
        v1::FileVersion {
            number: version.number,
            created_at_ms: version.created_at_ms,
            size_bytes: version.data.size,
            etag: version.data.etag,
            content_type: version.data.content_type,
            attributes: version.data.attributes,
            author: version.data.author,
            content: content_to(&version.data.content),
        }
    }
}

impl TryFrom<v1::FileVersion> for FileVersion {
    type Error = Error;

    fn try_from(version: v1::FileVersion) -> Result<Self, Error> {
        let data = NewVersion {
            content: content_from(version.content)?,
            size: version.size_bytes,
            etag: version.etag,
            content_type: version.content_type,
            attributes: version.attributes,
            author: version.author,
        };
        Ok(FileVersion { number: version.number, created_at_ms: version.created_at_ms, data })
    }
}

impl From<FileInfo> for v1::Node {
    fn from(info: FileInfo) -> Self {
        let data = NewVersion {
            content: info.content,
            size: info.size,
            etag: info.etag,
            content_type: info.content_type,
            attributes: info.attributes,
            author: info.author,
        };
        let version = FileVersion { number: info.version, created_at_ms: info.modified_at_ms, data };
        v1::Node {
            id: info.id,
            kind: kind_to(info.kind),
            parent_id: info.parent,
            name: info.name,
            owner: info.owner,
            created_at_ms: info.created_at_ms,
            modified_at_ms: info.modified_at_ms,
            version: (info.kind == NodeKind::File).then(|| version.into()),
        }
    }
}

impl TryFrom<v1::Node> for FileInfo {
    type Error = Error;

    fn try_from(node: v1::Node) -> Result<Self, Error> {
        let version: FileVersion = node.version.unwrap_or_default().try_into()?;
        Ok(FileInfo {
            id: node.id,
            kind: kind_from(node.kind)?,
            parent: node.parent_id,
            name: node.name,
            owner: node.owner,
            created_at_ms: node.created_at_ms,
            modified_at_ms: node.modified_at_ms,
            version: version.number,
            size: version.data.size,
            etag: version.data.etag,
            content_type: version.data.content_type,
            attributes: version.data.attributes,
            author: version.data.author,
            content: version.data.content,
        })
    }
}

impl From<Entry> for v1::Entry {
    fn from(entry: Entry) -> Self {
        v1::Entry {
            parent_id: entry.parent,
            name: entry.name,
            id: entry.id,
            kind: kind_to(entry.kind),
            size_bytes: entry.size,
            version: entry.version,
            etag: entry.etag,
            content_type: entry.content_type,
            modified_at_ms: entry.modified_at_ms,
        }
    }
}

impl TryFrom<v1::Entry> for Entry {
    type Error = Error;

    fn try_from(entry: v1::Entry) -> Result<Self, Error> {
        Ok(Entry {
            parent: entry.parent_id,
            name: entry.name,
            id: entry.id,
            kind: kind_from(entry.kind)?,
            size: entry.size_bytes,
            version: entry.version,
            etag: entry.etag,
            content_type: entry.content_type,
            modified_at_ms: entry.modified_at_ms,
        })
    }
}

impl From<UploadInfo> for v1::Upload {
    fn from(info: UploadInfo) -> Self {
        v1::Upload {
            upload_id: info.upload_id,
            parent_id: info.parent,
            name: info.name,
            created_at_ms: info.created_at_ms,
            content_type: info.data.content_type,
            attributes: info.data.attributes,
            author: info.data.author,
        }
    }
}

impl TryFrom<v1::Upload> for UploadInfo {
    type Error = Error;

    fn try_from(upload: v1::Upload) -> Result<Self, Error> {
        let data = NewUpload { content_type: upload.content_type, attributes: upload.attributes, author: upload.author };
        let (upload_id, parent, name) = (upload.upload_id, upload.parent_id, upload.name);
        Ok(UploadInfo { upload_id, parent, name, created_at_ms: upload.created_at_ms, data })
    }
}

impl From<PartInfo> for v1::Part {
    fn from(info: PartInfo) -> Self {
        v1::Part {
            number: info.number,
            created_at_ms: info.created_at_ms,
            size_bytes: info.data.size,
            etag: info.data.etag,
            content: content_to(&info.data.content),
        }
    }
}

impl TryFrom<v1::Part> for PartInfo {
    type Error = Error;

    fn try_from(part: v1::Part) -> Result<Self, Error> {
        let data = NewPart { content: content_from(part.content)?, size: part.size_bytes, etag: part.etag };
        Ok(PartInfo { number: part.number, created_at_ms: part.created_at_ms, data })
    }
}

impl From<ContentInfo> for v1::ContentInfo {
    fn from(info: ContentInfo) -> Self {
        v1::ContentInfo { part: Some(part_to(&info.part)), names: info.names }
    }
}

impl TryFrom<v1::ContentInfo> for ContentInfo {
    type Error = Error;

    fn try_from(info: v1::ContentInfo) -> Result<Self, Error> {
        let part = info.part.ok_or_else(|| Error::invalid("part", "present", "absent"))?;
        Ok(ContentInfo { part: part_from(part)?, names: info.names })
    }
}

/// A precondition; absent or empty: none.
pub(super) fn precondition(given: Option<v1::Precondition>) -> Precondition {
    use v1::precondition::Test;
    match given.and_then(|precondition| precondition.test) {
        None => Precondition::None,
        Some(Test::Absent(_)) => Precondition::Absent,
        Some(Test::Exists(_)) => Precondition::Exists,
        Some(Test::VersionIs(version)) => Precondition::VersionIs(version),
        Some(Test::EtagIs(etag)) => Precondition::EtagIs(etag),
    }
}

/// The kind of folder that is to be made.
pub(super) fn folder_kind(kind: v1::NodeKind) -> Result<crate::FolderKind, Error> {
    match kind {
        v1::NodeKind::Unspecified | v1::NodeKind::TreeFolder => Ok(crate::FolderKind::Tree),
        v1::NodeKind::FlatFolder => Ok(crate::FolderKind::Flat),
        v1::NodeKind::File => Err(Error::invalid("kind", "a kind of folder", "a file")),
    }
}
