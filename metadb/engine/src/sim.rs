//! The simulated engines: a disk and a store in memory that forget at a crash what was not made durable, and fail on demand.
//!
//! Both are held by the test, not by the node: the node gets an `Arc`, dies, and the next life of the node gets the same one. Chance
//! comes from the seed of the constructor alone, so that a seed is a bug report. They work inside the simulator and outside of it.
//!
//! Not here: when to fail. A test decides that, through the methods of [`SimDisk`] and [`SimStore`].

mod chance;
mod disk;
mod store;

pub use chance::Chance;
pub use disk::{SimDisk, SimMount};
pub use store::SimStore;

/// How a simulated machine goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The process dies: a random prefix of the writes that were not synced remains, each whole or not at all.
    Kill,
    /// The power fails: as a kill, and the first write that is lost may be torn: cut anywhere, or with sectors missing in it. A file
    /// that was never synced may be gone with its name.
    PowerLoss,
}
