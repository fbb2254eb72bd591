//! Makes the directory, once in the life of a data folder. A node that makes it a second time makes a second cluster.

use super::{Node, OPEN_RETRY};
use metadb_engine::EngineError;
use metadb_proto::Error;
use metadb_proto::directory::DIRECTORY_GROUP;

/// A file of the spool, which no quarantine and no wipe takes: this node has had the directory.
const FOUNDED: &str = "founded";

fn failed(error: &EngineError) -> Error {
    Error::unavailable(format!("the founding of the cluster can't be noted: {error}"), OPEN_RETRY)
}

impl Node {
    /// Whether this node has ever had the directory.
    pub(super) fn has_founded(&self) -> Result<bool, Error> {
        Ok(self.spool.len(FOUNDED).map_err(|error| failed(&error))?.is_some())
    }

    /// Makes a replica of the directory with this node as its only voter, unless this node ever had one: one that was lost since is added
    /// by the others, or not at all. Asked again, it does nothing.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the disk refuses.
    pub async fn found(&self) -> Result<(), Error> {
        if self.has_founded()? {
            return Ok(());
        }
        let lost = self.quarantined.lock().contains_key(&DIRECTORY_GROUP) || self.failed.lock().contains_key(&DIRECTORY_GROUP);
        if !lost {
            // One that is there and has members stays as it is.
            self.create_replica(DIRECTORY_GROUP, vec![self.node_ref()]).await?;
        }
        let note = self.spool.append(FOUNDED, b"1\n").and_then(|()| self.spool.sync(FOUNDED));
        note.map_err(|error| failed(&error))
    }
}
