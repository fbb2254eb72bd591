//! The server of the metadata database: Raft groups, transactions, ownership of shards, and the doors to them.
//!
//! Read in this order: [`command`] (what is proposed), [`machine`] (what a proposal does, on every replica alike), [`read`] (what a reader
//! sees), [`group`] (one replica: proposing, read barrier, members), [`node`] (all replicas of a process), [`service`] (a request's way
//! through limits, authorisation, ownership and routing; `host` says who goes first), [`doors`] (gRPC).
//!
//! What it never does:
//! * decide a policy: where a shard goes, who is a member, when to split are decided by operators and `shard-router`'s reconciler;
//! * name `openraft` outside [`raft`], or a file or a socket outside the seams of `metadb-engine` and `tonic`;
//! * read a clock or draw a random number that a replica's state depends on: a proposal carries what its leader saw.

pub mod clock;
pub mod command;
pub mod doors;
pub mod group;
mod host;
pub mod machine;
pub mod metrics;
pub mod node;
pub mod raft;
pub mod read;
pub mod rows;
pub mod service;
mod witness;
