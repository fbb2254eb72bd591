//! What clients do, and the record of what they were told.
//!
//! Each client sits on a simulated machine of its own with a router of its own. It asks one thing at a time and never repeats a request
//! without its request id. An error that says "nothing was done" is recorded as a failure, and so put to the test; only
//! [`Error::UnknownOutcome`] leaves an operation open.

pub mod again;
pub mod bank;
pub mod final_reads;
pub mod flood;
pub mod lists;
pub mod once;
pub mod placement;
pub mod registers;
pub mod settings;
pub mod shards;
pub mod tree;

use crate::planted::Planted;
use crate::trace::Trace;
use checkers::versions::Commit;
use checkers::{History, OperationId, Outcome};
use metadb_proto::Error;
use metadb_proto::v1::ErrorKind;
use parking_lot::Mutex;
use shard_router::Router;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

/// What all clients share.
#[derive(Clone)]
pub struct Shared {
    /// The trace of the run.
    pub trace: Trace,
    /// The register operations.
    pub registers: Arc<Mutex<History<checkers::register::Call, checkers::register::Return>>>,
    /// The file operations.
    pub files: Arc<Mutex<History<checkers::tree::Call, ()>>>,
    /// Keys that are written once, by tenant and key.
    pub once: Arc<Mutex<BTreeMap<String, checkers::acknowledged::Write<u64>>>>,
    /// Acknowledged commits, by tenant.
    pub commits: Arc<Mutex<BTreeMap<u64, Vec<Commit>>>>,
    /// Statements of the bank.
    pub statements: Arc<Mutex<Vec<checkers::bank::Statement>>>,
    /// Transactions over lists.
    pub lists: Arc<Mutex<Vec<checkers::lists::Transaction>>>,
    places: Arc<std::sync::atomic::AtomicU64>,
    /// Ids of all folders that were acknowledged.
    pub folders: Arc<Mutex<Vec<u64>>>,
    /// Errors that no client may ever see.
    pub unexpected: Arc<Mutex<Vec<String>>>,
    /// What clients were told instead of an answer, and how often.
    pub refusals: Arc<Mutex<BTreeMap<ErrorKind, u64>>>,
    /// Longest time an operation took in nanoseconds since it was last reset.
    pub slowest_ns: Arc<Mutex<u64>>,
    /// Set when clients shall stop asking.
    pub stop: Arc<std::sync::atomic::AtomicBool>,
    /// A deliberate bug, to see that it is caught.
    pub planted: Option<Planted>,
    /// Whether clocks go beyond what the server allows for.
    pub wild: bool,
}

impl Shared {
    /// Nothing recorded yet.
    #[must_use]
    pub fn new(trace: Trace, planted: Option<Planted>, wild: bool) -> Self {
        Shared {
            trace,
            registers: Arc::new(Mutex::new(History::new())),
            files: Arc::new(Mutex::new(History::new())),
            once: Arc::default(),
            commits: Arc::default(),
            statements: Arc::default(),
            lists: Arc::default(),
            places: Arc::default(),
            folders: Arc::default(),
            unexpected: Arc::default(),
            refusals: Arc::default(),
            slowest_ns: Arc::default(),
            stop: Arc::default(),
            planted,
            wild,
        }
    }

    /// Whether clients shall stop.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.stop.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// The next place in the order of what was asked and answered.
    pub(crate) fn place(&self) -> u64 {
        self.places.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1
    }

    /// What an error means for a request with effects.
    pub fn outcome_of<T>(&self, asked: &dyn Debug, error: &Error) -> Outcome<T> {
        *self.refusals.lock().entry(error.kind()).or_default() += 1;
        match error {
            Error::UnknownOutcome { .. } => Outcome::Unknown,
            Error::Conflict { .. }
            | Error::Unavailable { .. }
            | Error::Exhausted { .. }
            | Error::NotFound { .. }
            | Error::AlreadyExists { .. } => Outcome::Fail,
            Error::Invalid { .. }
            | Error::Moved { .. }
            | Error::Denied { .. }
            | Error::Unauthenticated { .. }
            | Error::Suspended { .. }
            | Error::Corrupt { .. }
            | Error::Internal { .. } => {
                self.unexpected.lock().push(format!("{asked:?}: {error}"));
                Outcome::Unknown
            }
        }
    }

    fn took(&self, begin_ns: u64) {
        let took = self.trace.now_ns().saturating_sub(begin_ns);
        let mut slowest = self.slowest_ns.lock();
        *slowest = took.max(*slowest);
    }
}

/// One client.
#[derive(Clone)]
pub struct Client {
    /// Its number, its process in histories.
    pub process: u64,
    /// Its routers. A request that is repeated goes through the second.
    pub routers: [Router; 2],
    /// The tenants that it uses.
    pub tenants: Vec<u64>,
    /// What it shares with the others.
    pub shared: Shared,
}

/// Records an invocation in one of the histories.
fn invoke<C: Debug, R>(client: &Client, history: &Mutex<History<C, R>>, key: &str, call: C) -> OperationId {
    let at = client.shared.trace.now_ns();
    client.shared.trace.event(format_args!("{} asks {key} {call:?}", client.process));
    history.lock().invoke(client.process, key, at, call)
}

/// Records its end.
fn complete<C, R: Debug>(client: &Client, history: &Mutex<History<C, R>>, id: OperationId, outcome: Outcome<R>) {
    let at = client.shared.trace.now_ns();
    client.shared.trace.event(format_args!("{} is told {outcome:?}", client.process));
    let mut history = history.lock();
    client.shared.took(history.operation(id).invoked_ns);
    history.complete(id, at, outcome);
}

/// A number below `limit`, from the simulator's seed.
pub(crate) fn below(limit: u64) -> u64 {
    metadb_proto::seam::random_u64() % limit.max(1)
}

/// A pause between two requests of a client.
pub(crate) async fn think(longest: Duration) {
    let micros = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
    tokio::time::sleep(Duration::from_micros(below(micros))).await;
}
