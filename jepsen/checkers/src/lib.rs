//! Judges of what a cluster did, given what its clients and observers saw.
//!
//! One property, one file; each opens with the property and its source, and is tested with hand-made bad histories that it must catch
//! and good ones that it must let pass. The simulator and the tests of real processes use the same checkers.
//!
//! | module | property |
//! | --- | --- |
//! | [`linearizable`], [`register`] | each key behaves like one register, operated one request at a time, each request once |
//! | [`acknowledged`] | no acknowledged write is lost, no refused one is there |
//! | [`lists`] | transactions over several keys are strictly serializable, each done once |
//! | [`bank`] | whoever reads several keys of one moment sees one moment |
//! | [`versions`] | versions rise in real time |
//! | [`replicas`] | replicas that applied the same log are the same |
//! | [`leaders`] | a term has one leader |
//! | [`raft`] | Raft's invariants, at every step of every replica |
//! | [`tree`] | each file is reachable under exactly one name; no cycle, no orphan |
//!
//! An unknown outcome is never taken for a failure: it stays open to the end of the history. A search that runs out of its budget is
//! [`Verdict::Undecided`], which fails a run like a violation does.
//!
//! Not here: clients, faults, clocks, I/O of any kind.

pub mod acknowledged;
pub mod bank;
pub mod history;
pub mod leaders;
pub mod linearizable;
pub mod lists;
pub mod ownership;
pub mod raft;
pub mod register;
pub mod replicas;
pub mod tree;
pub mod verdict;
pub mod versions;

pub use history::{History, OperationId, Outcome};
pub use verdict::Verdict;
