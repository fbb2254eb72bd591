//! Deliberate bugs, planted around the cluster and never inside it: a harness that catches none proves nothing.

use bytes::Bytes;
use metadb_engine::EngineError;
use metadb_engine::disk::Disk;
use std::sync::Arc;
use std::time::Duration;

/// A deliberate bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// The disk says that it has synced, and has not: what a log that skips its sync would do.
    SyncsAreLies,
    /// A client repeats a request of unknown outcome under a new id: what a retry that is not exactly-once would do.
    RepeatsWithoutId,
    /// Reads are answered by any replica, however old: what a lost lease check would do.
    StaleReads,
}

impl std::str::FromStr for Planted {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "syncs-are-lies" => Ok(Planted::SyncsAreLies),
            "repeats-without-id" => Ok(Planted::RepeatsWithoutId),
            "stale-reads" => Ok(Planted::StaleReads),
            other => Err(format!("no bug is called {other}")),
        }
    }
}

/// A disk that never syncs and says it did.
pub(crate) struct LyingDisk<D>(pub(crate) Arc<D>);

impl<D: Disk> Disk for LyingDisk<D> {
    fn list(&self) -> Result<Vec<String>, EngineError> {
        self.0.list()
    }

    fn len(&self, name: &str) -> Result<Option<u64>, EngineError> {
        self.0.len(name)
    }

    fn read(&self, name: &str, offset: u64, bytes: usize) -> Result<Bytes, EngineError> {
        self.0.read(name, offset, bytes)
    }

    fn append(&self, name: &str, bytes: &[u8]) -> Result<(), EngineError> {
        self.0.append(name, bytes)
    }

    fn sync(&self, _: &str) -> Result<(), EngineError> {
        Ok(())
    }

    fn truncate(&self, name: &str, bytes: u64) -> Result<(), EngineError> {
        self.0.truncate(name, bytes)
    }

    fn remove(&self, name: &str) -> Result<(), EngineError> {
        self.0.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), EngineError> {
        self.0.rename(from, to)
    }

    fn simulated_sync_latency(&self) -> Option<Duration> {
        self.0.simulated_sync_latency()
    }
}
