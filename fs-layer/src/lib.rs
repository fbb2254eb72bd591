//! The namespace of a tenant: folders, files, versions, uploads and events, as rows of the metadata database.
//!
//! Stateless: all that is kept in memory is a block of unused ids. Every change is some reads and **one** transaction whose conditions
//! hold what was read; the transaction also writes the event that tells of it. [`Namespace`] has one method per operation, each with
//! its own file under `op/`; the driver adds deadline, retry and exactly-once.
//!
//! What decides does no I/O: names ([`name`]), the plan of a listing ([`listing`]), the rules of renaming ([`rules`]).
//!
//! Not here: file bytes (`object-gateway` writes them before they are named here), routing and Raft, and any cache of rows.

pub mod door;
pub mod error;
pub mod keys;
pub mod limits;
pub mod listing;
pub mod metrics;
pub mod name;
pub mod path;
pub mod record;
pub mod rules;

mod db;
mod driver;
mod ids;
mod model;
mod namespace;
mod op;

#[cfg(test)]
mod tests;

pub use model::{
    Completed, Content, ContentInfo, ContentPart, Entry, FileInfo, FileVersion, FolderKind, ListOptions, Listing, NewPart, NewUpload,
    NewVersion, NodeKind, PartInfo, PartListing, Precondition, Released, UploadInfo, UploadListing, UploadOptions,
};
pub use namespace::{Fs, Namespace};

/// The id of a tenant's root folder, which is a tree folder.
pub const ROOT: u64 = 1;

/// Generated from `proto/fs/v1`.
#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "generated code, different in the simulator; the proto carries the comments"
)]
pub mod v1 {
    tonic::include_proto!("fs.v1");
}

/// The proto, compiled, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/fs.v1.descriptors.bin"));
