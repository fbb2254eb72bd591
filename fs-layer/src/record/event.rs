//! An event: what an operation did, written in the transaction that did it.

use super::{Record, record};

/// What happened. Numbers are frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum EventKind {
    /// Not known to this build.
    Unspecified = 0,
    /// A folder was made.
    FolderCreated = 1,
    /// A file was made, with its first version.
    FileCreated = 2,
    /// A file got a new version.
    FileReplaced = 3,
    /// A node got another name or folder.
    Renamed = 4,
    /// A folder or file was deleted.
    Deleted = 5,
    /// An upload was begun.
    UploadCreated = 6,
    /// An upload was given up.
    UploadAborted = 7,
}

/// Value of `(5, versionstamp)`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct EventRecord {
    /// 1.
    #[prost(uint32, tag = "1")]
    pub schema: u32,
    /// What happened.
    #[prost(enumeration = "EventKind", tag = "2")]
    pub kind: i32,
    /// To which node; 0 for uploads.
    #[prost(uint64, tag = "3")]
    pub id: u64,
    /// As [`super::NodeRecord::kind`].
    #[prost(uint32, tag = "4")]
    pub node_kind: u32,
    /// The folder that names it (before, if it was deleted).
    #[prost(uint64, tag = "5")]
    pub parent: u64,
    /// Its name as given.
    #[prost(string, tag = "6")]
    pub name: String,
    /// The folder that named it before it was renamed.
    #[prost(uint64, tag = "7")]
    pub from_parent: u64,
    /// Its name before it was renamed.
    #[prost(string, tag = "8")]
    pub from_name: String,
    /// Number of the version that was made, or was the newest.
    #[prost(uint64, tag = "9")]
    pub version: u64,
    /// Who did it.
    #[prost(string, tag = "10")]
    pub author: String,
    /// Unix milliseconds, by the clock of who did it.
    #[prost(uint64, tag = "11")]
    pub at_ms: u64,
    /// The node that the rename replaced; 0: none.
    #[prost(uint64, tag = "12")]
    pub replaced_id: u64,
}

record!(EventRecord, "event", 1);

impl EventRecord {
    /// An event of a kind; the driver adds author and time.
    #[must_use]
    pub fn new(kind: EventKind) -> Self {
        EventRecord { schema: Self::SCHEMA, kind: kind.into(), ..Default::default() }
    }
}
