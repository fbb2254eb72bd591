//! Files as the Raft log and snapshot spools need them: append, sync, read back, list, remove. Blocking calls; the real ones are made
//! on the log's own thread, the simulated ones cost no time of their own.

mod file;

pub use file::{FileDisk, space_of};

use crate::EngineError;
use bytes::Bytes;

/// The room on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that may still be written.
    pub free_bytes: u64,
    /// Bytes that it holds when it is empty.
    pub total_bytes: u64,
}

/// A flat folder of named files. A name is one path element.
pub trait Disk: Send + Sync + 'static {
    /// The names in the folder, sorted, without retired files.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    fn list(&self) -> Result<Vec<String>, EngineError>;

    /// The length of a file in bytes, if it exists.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    fn len(&self, name: &str) -> Result<Option<u64>, EngineError>;

    /// Bytes of a file from `offset`; fewer than asked at its end.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    fn read(&self, name: &str, offset: u64, bytes: usize) -> Result<Bytes, EngineError>;

    /// As [`Disk::read`], but from the device: what is kept of the file in memory is neither believed nor added to, as far as the disk can.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    fn read_cold(&self, name: &str, offset: u64, bytes: usize) -> Result<Bytes, EngineError> {
        self.read(name, offset, bytes)
    }

    /// Says that a new file will grow to about so many bytes by small appends, each synced. A disk may then extend it ahead with zeros, or
    /// give it the room of a retired file, so that a sync has less to write: whoever opens the file anew may find zeros or bytes of that
    /// other file at its end. Best effort.
    fn reserve(&self, name: &str, bytes: u64);

    /// Removes a file, durably, as [`Disk::remove`] does. Its room may be kept for a file that is reserved later.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    fn retire(&self, name: &str) -> Result<(), EngineError>;

    /// Writes bytes behind the end of a file, where the next append will write. Best effort, and durable by chance only: whoever opens the
    /// file anew may find them.
    fn mark(&self, name: &str, bytes: &[u8]);

    /// Appends to a file, made if it is not there. Not durable before [`Disk::sync`].
    ///
    /// # Errors
    /// [`EngineError::Full`], with nothing appended; [`EngineError::Io`].
    fn append(&self, name: &str, bytes: &[u8]) -> Result<(), EngineError>;

    /// Makes what was appended to a file durable, and its name too if it is new.
    ///
    /// # Errors
    /// [`EngineError::Io`]: the file must be given up; a second sync proves nothing.
    fn sync(&self, name: &str) -> Result<(), EngineError>;

    /// Cuts a file to a length and makes that durable. For a torn tail, found when opening.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    fn truncate(&self, name: &str, bytes: u64) -> Result<(), EngineError>;

    /// Removes a file, durably; a missing one is no error.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    fn remove(&self, name: &str) -> Result<(), EngineError>;

    /// Gives a file another name, durably, replacing what had it.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    fn rename(&self, from: &str, to: &str) -> Result<(), EngineError>;

    /// The room that is left; none: not known, as on a disk without bounds.
    fn space(&self) -> Option<Space> {
        None
    }

    /// Where a file lies in the file system, for those who must name it to a library; none: it is in no file system.
    fn local_path(&self, _name: &str) -> Option<std::path::PathBuf> {
        None
    }

    /// How long a sync of the simulated disk takes; none for a real one, whose sync blocks by itself.
    fn simulated_sync_latency(&self) -> Option<std::time::Duration>;
}
