//! The storage seam of metadb.
//!
//! Two stores, each behind one trait or type, each with a real and a simulated disk under it:
//!
//! * [`Store`]: the applied state, three ordered column families. Nothing written is durable until [`Store::flush`], which makes everything
//!   written before it durable at once, across column families, or nothing of it. Real: RocksDB without WAL. Simulated: memory that
//!   forgets at a crash.
//! * [`log::Log`]: the Raft log of every group of the node, our own segments over [`disk::Disk`]. One writer drains what all groups have
//!   pending, writes one batch, syncs once, then completes all callbacks. Real: a thread and files. Simulated: a task, a timer and
//!   [`sim::SimDisk`], which keeps a random prefix of what was not synced and tears the last write.
//!
//! Not here: what the bytes mean. Rows, log entries and snapshots are encoded by `metadb`.

pub mod disk;
pub mod log;
pub mod metrics;
#[cfg(not(madsim))]
pub mod rocks;
pub mod sim;
pub mod store;

pub use store::{
    BatchOp, COLUMN_FAMILIES, Cf, Cursor, Exported, Extent, FileExport, Replacement, Row, Store, StoreRead, Verified, WriteBatch,
};

/// Why storage could not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// The device refused: EIO, a lost disk. What was not acknowledged may or may not be there; a failed sync is never retried.
    #[error("{operation} of {path}: {message}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: String,
        /// What the system said.
        message: String,
    },
    /// No room. Nothing of the batch was written.
    #[error("{path}: no space left")]
    Full {
        /// Where.
        path: String,
    },
    /// Bytes that fail their checksum. They are never returned.
    #[error("{path}: corrupt at byte {offset}: {message}")]
    Corrupt {
        /// Where.
        path: String,
        /// Offset of the first byte of the bad record.
        offset: u64,
        /// What was wrong.
        message: String,
    },
    /// The folder belongs to something else: another cluster, a newer format.
    #[error("{path}: {message}")]
    Foreign {
        /// Where.
        path: String,
        /// What it is, what was expected, and what to do.
        message: String,
    },
    /// The store was closed, or stopped after an earlier failure.
    #[error("storage is stopped: {message}")]
    Stopped {
        /// Why.
        message: String,
    },
}
