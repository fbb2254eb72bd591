//! A node: what a folder or file is, whatever it is called.

use super::{Record, record};

/// Value of `(1, node id)`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeRecord {
    /// 1.
    #[prost(uint32, tag = "1")]
    pub schema: u32,
    /// Tree folder 1, flat folder 2, file 3. Never changes.
    #[prost(uint32, tag = "2")]
    pub kind: u32,
    /// The folder that names it; 0 for the root.
    #[prost(uint64, tag = "3")]
    pub parent: u64,
    /// Its name as given.
    #[prost(string, tag = "4")]
    pub name: String,
    /// Who made it.
    #[prost(string, tag = "5")]
    pub owner: String,
    /// Unix milliseconds.
    #[prost(uint64, tag = "6")]
    pub created_at_ms: u64,
    /// Unix milliseconds.
    #[prost(uint64, tag = "7")]
    pub modified_at_ms: u64,
    /// Length of a file.
    #[prost(uint64, tag = "8")]
    pub size: u64,
    /// Number of a file's newest version.
    #[prost(uint64, tag = "9")]
    pub head_version: u64,
    /// None yet.
    #[prost(uint32, tag = "10")]
    pub flags: u32,
}

record!(NodeRecord, "node", 1);

impl NodeRecord {
    /// A record of the newest schema.
    #[must_use]
    pub fn new() -> Self {
        NodeRecord { schema: Self::SCHEMA, ..Default::default() }
    }
}
