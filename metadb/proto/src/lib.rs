//! The contract between metadb and its clients.
//!
//! Servers (`metadb`) and clients (`shard-router`) meet only here: the protos and their generated stubs, error kinds, limits,
//! principals, versions, the keys of the directory, and what may be set while a cluster runs. Nothing here opens a socket, touches a disk or decides a policy.

pub mod directory;
pub mod error;
pub mod kv;
pub mod level;
pub mod limits;
pub mod planted;
pub mod principal;
pub mod seam;
pub mod settings;
pub mod version;

pub use error::Error;
pub use foundationdb_tuple as tuple;
pub use principal::Principal;
pub use version::Version;

/// Generated from `proto/metadb/v1`.
#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "generated code, different in the simulator; the protos carry the comments"
)]
pub mod v1 {
    tonic::include_proto!("metadb.v1");
}

/// The protos, compiled, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/metadb.v1.descriptors.bin"));
