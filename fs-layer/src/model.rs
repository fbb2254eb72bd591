//! What operations take and give. Plain values: no row encoding, no wire.

use std::collections::BTreeMap;

/// What a node is. Never changes in a node's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeKind {
    /// A folder whose names are compared canonically, of any depth.
    Tree,
    /// A folder whose names are whole keys, compared by bytes: an S3 bucket.
    Flat,
    /// A file.
    File,
}

impl NodeKind {
    /// The kind of folder, if it is one.
    #[must_use]
    pub fn folder(self) -> Option<FolderKind> {
        match self {
            NodeKind::Tree => Some(FolderKind::Tree),
            NodeKind::Flat => Some(FolderKind::Flat),
            NodeKind::File => None,
        }
    }
}

/// How a folder compares and orders its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FolderKind {
    /// Canonically: composed (NFC) and case folded. Names have no slashes.
    Tree,
    /// By bytes. Names are whole keys, slashes included.
    Flat,
}

impl From<FolderKind> for NodeKind {
    fn from(kind: FolderKind) -> Self {
        match kind {
            FolderKind::Tree => NodeKind::Tree,
            FolderKind::Flat => NodeKind::Flat,
        }
    }
}

/// One immutable piece of a file's bytes, as the content store wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentPart {
    /// Chosen by the content store, never reused.
    pub content_id: [u8; 16],
    /// Its length.
    pub size_bytes: u64,
    /// BLAKE3 of its bytes.
    pub blake3: [u8; 32],
    /// The nodes that held a copy when it was named; the newest list is in [`ContentInfo`].
    pub nodes: Vec<u64>,
}

/// A file's bytes: its parts in order. Empty for an empty file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content(pub Vec<ContentPart>);

impl Content {
    /// The length of all parts together.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.0.iter().fold(0, |sum, part| sum.saturating_add(part.size_bytes))
    }
}

/// What is known of one content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentInfo {
    /// The content and the nodes that hold a copy now.
    pub part: ContentPart,
    /// How many versions and upload parts name it.
    pub names: u64,
}

/// A version to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewVersion {
    /// Its bytes, written and durable already.
    pub content: Content,
    /// The length of the file: that of its content.
    pub size: u64,
    /// The checksum that clients compare, without quotes.
    pub etag: String,
    /// MIME type; empty: not known.
    pub content_type: String,
    /// User metadata.
    pub attributes: BTreeMap<String, String>,
    /// Who writes it.
    pub author: String,
}

/// What must hold of the name that an operation changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    #[default]
    None,
    /// There is no such name. (S3: `If-None-Match: *`.)
    Absent,
    /// There is a file of that name. (S3: `If-Match: *`.)
    Exists,
    /// The file's newest version has this number.
    VersionIs(u64),
    /// The file's newest version has this etag. (S3: `If-Match`.)
    EtagIs(String),
}

/// A node as its folder lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The folder that names it; 0 for the root.
    pub parent: u64,
    /// Its name as given.
    pub name: String,
    /// Its id.
    pub id: u64,
    /// What it is.
    pub kind: NodeKind,
    /// Length of a file; 0 for folders.
    pub size: u64,
    /// Number of a file's newest version; 0 for folders.
    pub version: u64,
    /// Checksum of a file's newest version, without quotes.
    pub etag: String,
    /// MIME type of a file's newest version.
    pub content_type: String,
    /// When its newest version was made, or the folder; Unix milliseconds.
    pub modified_at_ms: u64,
}

/// All that is known of a node and, for a file, of its newest version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInfo {
    /// Its id.
    pub id: u64,
    /// What it is.
    pub kind: NodeKind,
    /// The folder that names it; 0 for the root.
    pub parent: u64,
    /// Its name as given; empty for the root.
    pub name: String,
    /// Who made it.
    pub owner: String,
    /// When it was made, Unix milliseconds.
    pub created_at_ms: u64,
    /// When its newest version was made, Unix milliseconds.
    pub modified_at_ms: u64,
    /// Number of its newest version: 1 for the first; 0 for folders.
    pub version: u64,
    /// Length of the newest version.
    pub size: u64,
    /// Checksum of the newest version, without quotes.
    pub etag: String,
    /// MIME type of the newest version.
    pub content_type: String,
    /// User metadata of the newest version.
    pub attributes: BTreeMap<String, String>,
    /// Who wrote the newest version.
    pub author: String,
    /// The bytes of the newest version.
    pub content: Content,
}

/// One version of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileVersion {
    /// Its number: 1 for the first.
    pub number: u64,
    /// When it was made, Unix milliseconds.
    pub created_at_ms: u64,
    /// What it holds.
    pub data: NewVersion,
}

/// Which entries to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// Only names that begin with this (in tree folders: canonically).
    pub prefix: String,
    /// Names that hold this behind the prefix are given as one common prefix, through it. Empty: none.
    pub delimiter: String,
    /// Only names and common prefixes behind this one. Empty: from the start.
    pub start_after: String,
    /// From the page before; prefix and delimiter stay as they were.
    pub continuation: Option<String>,
    /// Most entries and common prefixes together; 0: [`crate::limits::LIST_DEFAULT`].
    pub limit: usize,
}

/// A page of a listing. Entries and common prefixes are each in order; merged by name they are the order of the folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Names that stand for themselves.
    pub entries: Vec<Entry>,
    /// Names cut behind the delimiter.
    pub common_prefixes: Vec<String>,
    /// There is more: ask again with this.
    pub continuation: Option<String>,
}

/// An upload to be begun.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewUpload {
    /// MIME type; empty: not known.
    pub content_type: String,
    /// User metadata.
    pub attributes: BTreeMap<String, String>,
    /// Who writes it.
    pub author: String,
}

/// An upload under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadInfo {
    /// Its id, in hex.
    pub upload_id: String,
    /// The folder of the file to be.
    pub parent: u64,
    /// The name of the file to be.
    pub name: String,
    /// When it was begun, Unix milliseconds.
    pub created_at_ms: u64,
    /// What it was begun with.
    pub data: NewUpload,
}

/// A part to be put.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewPart {
    /// Its bytes, written and durable already.
    pub content: Content,
    /// Its length: that of its content.
    pub size: u64,
    /// Its checksum, without quotes.
    pub etag: String,
}

/// A part of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartInfo {
    /// From 1 to [`crate::limits::PART_NUMBER`].
    pub number: u32,
    /// When it was put, Unix milliseconds.
    pub created_at_ms: u64,
    /// What it holds.
    pub data: NewPart,
}

/// A page of an upload's parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartListing {
    /// In order of their numbers.
    pub parts: Vec<PartInfo>,
    /// There is more behind the last part given.
    pub more: bool,
}

/// Which uploads to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UploadOptions {
    /// Only of names that begin with this.
    pub prefix: String,
    /// Only behind this name, or with `after_upload_id` behind that upload of it. Empty: from the start.
    pub after_name: String,
    /// See `after_name`. Empty: behind all uploads of that name.
    pub after_upload_id: String,
    /// Most uploads; 0: [`crate::limits::LIST_DEFAULT`].
    pub limit: usize,
}

/// A page of a folder's uploads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UploadListing {
    /// In order of name, then of upload id.
    pub uploads: Vec<UploadInfo>,
    /// There is more behind the last upload given.
    pub more: bool,
}

/// What an upload is completed with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Completed {
    /// Number and etag of each part that makes the file, rising by number.
    pub parts: Vec<(u32, String)>,
    /// The checksum of the file that clients compare, without quotes.
    pub etag: String,
    /// What must hold of the name.
    pub precondition: Precondition,
}

/// What lost its name in one transaction, for collection. Every field may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Released {
    /// Names this release to `collect`.
    pub ticket: Vec<u8>,
    /// Files whose versions are all released.
    pub node_ids: Vec<u64>,
    /// Contents that lost one name.
    pub content_ids: Vec<[u8; 16]>,
    /// Deleted folders whose unfinished uploads are released.
    pub folder_ids: Vec<u64>,
}
