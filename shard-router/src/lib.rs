//! The client of metadb, and the operators' work on a cluster.
//!
//! - [`Router`] knows how to reach nodes and where things are; [`Client`] reads and writes one tenant's keys through it: it routes,
//!   follows redirects, retries within the deadline, and makes every write exactly-once by a request id.
//! - [`operator::Operator`] does what an operator asks for; [`reconcile::Reconciler`] brings the cluster to what the directory says,
//!   and [`mover::Mover`] carries changes of shards through.
//! - [`settings::Follower`] keeps the settings of a process as the directory has them.
//! - [`credentials::DirectoryAuthenticator`] establishes principals for the doors of a node.
//!
//! Where a request goes is decided by pure code ([`policy`], `routes`), tested without a socket. What this crate leaves to others:
//! it stores nothing (all it knows is in the directory), and it never decides who may do what (that is metadb's, where the data is).

mod admin;
mod ask;
pub mod balance;
mod breaker;
mod budget;
mod call;
pub mod client;
mod coalesce;
pub mod condition;
pub mod config;
pub mod counters;
pub mod credentials;
mod directory;
pub mod metrics;
pub mod mover;
pub mod operation;
pub mod operator;
pub mod policy;
pub mod reconcile;
pub mod residency;
pub mod router;
mod routes;
mod scan;
pub mod settings;
pub mod transaction;
mod transport;

pub use client::{Client, Scan};
pub use config::{Local, RouterConfig, Transport};
pub use counters::Counters;
pub use router::Router;
pub use transaction::Transaction;
