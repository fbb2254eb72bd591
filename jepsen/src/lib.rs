//! Faults on real processes, real disks and real sockets.
//!
//! What it is: the [`cluster`] of `cairn node` child processes (start, kill, pause, restart, who leads most groups) and the [`nemesis`]
//! that hurts it in a loop. `cairn dev` keeps its nodes alive with the first; `cairn demo` and the end-to-end tests break them with both.
//!
//! What it is not: a simulator (that is `sim-tests`: same checkers, no real time), a unit test, or a judge: histories are judged by
//! `jepsen/checkers`. It knows the cluster from outside only, by its processes and the protocol `metadb.v1`.

pub mod cluster;
pub mod nemesis;
mod process;
pub mod status;

pub use cluster::{Cluster, ClusterError, NodeSpec};
