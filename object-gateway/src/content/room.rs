//! Whether the disk of this node's contents has room for more. How that is judged is up to whoever opens the store.
//!
//! A node without room takes no copy, from nobody; those that it has are served, and removed, as ever. Who is refused asks other nodes.

use metadb_proto::Error;
use std::time::Duration;

/// When a client that met full disks may try again: room is made by people.
pub(super) const ROOM_RETRY: Duration = Duration::from_secs(1);

/// The room for contents.
pub trait Room: Send + Sync + 'static {
    /// Tells why there is none, if so. Called for each chunk: cheap.
    ///
    /// # Errors
    /// What is full, for a person.
    fn require(&self) -> Result<(), String>;
}

/// That this node has no room.
pub(super) fn full(told: String) -> Error {
    Error::Exhausted { message: told, retry_after: ROOM_RETRY }
}
