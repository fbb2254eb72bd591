//! Deliberate bugs, around the cluster and inside it: a harness that catches none proves nothing. How those inside are planted, and why
//! they can't ship: `metadb_proto::planted`.

use bytes::Bytes;
use metadb_engine::EngineError;
use metadb_engine::disk::Disk;
use metadb_proto::planted::Bug;
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
    /// One inside the server.
    Server(Bug),
}

impl Planted {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Planted> {
        let around = [Planted::SyncsAreLies, Planted::RepeatsWithoutId, Planted::StaleReads];
        around.into_iter().chain(Bug::ALL.iter().copied().map(Planted::Server))
    }

    /// Its name on a command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Planted::SyncsAreLies => "syncs-are-lies",
            Planted::RepeatsWithoutId => "repeats-without-id",
            Planted::StaleReads => "stale-reads",
            Planted::Server(bug) => bug.name(),
        }
    }

    /// The one inside the server, if it is one.
    #[must_use]
    pub fn server(self) -> Option<Bug> {
        if let Planted::Server(bug) = self { Some(bug) } else { None }
    }
}

impl std::str::FromStr for Planted {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let names = || Planted::all().map(Planted::name).collect::<Vec<_>>().join(", ");
        Planted::all().find(|planted| planted.name() == name).ok_or_else(|| format!("no bug is called {name}; there are {}", names()))
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

    fn reserve(&self, name: &str, bytes: u64) {
        self.0.reserve(name, bytes);
    }

    fn retire(&self, name: &str) -> Result<(), EngineError> {
        self.0.retire(name)
    }

    fn mark(&self, name: &str, bytes: &[u8]) {
        self.0.mark(name, bytes);
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
