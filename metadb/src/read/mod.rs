//! What a reader sees: the state of a group as of a version.
//!
//! Rows are never changed, only superseded, so a read at a version needs no snapshot of the store and holds nothing open. The one thing
//! that removes rows under a reader is dropping a shard: its ownership goes first, and every read looks at ownership again when it is done.
//!
//! Not here: whether a read is fresh enough. Who needs the latest asks the group for a read barrier first.

mod extent;
mod get;
mod history;
mod hot;
mod live;
mod multi_get;
mod scan;
mod shard;
mod walk;

pub(crate) use hot::HotRows;
pub(crate) use live::{Live, newest};

use crate::machine::ownership::Ownership;
use crate::rows::data::{self, Stored};
use bytes::Bytes;
use metadb_engine::{EngineError, Store};
use metadb_proto::kv::{request, response};
use metadb_proto::{Error, Version, v1};
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// Suggested wait where a replica can't answer now.
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// The read side of a group's state, shared with its machine.
pub struct View {
    group_id: u32,
    store: Arc<dyn Store>,
    version: AtomicU64,
    ownership: RwLock<Arc<Ownership>>,
    /// Told when what the group owns has changed.
    changed: Notify,
    hot: HotRows,
    retired: AtomicBool,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("group_id", &self.group_id).field("version", &self.version()).finish_non_exhaustive()
    }
}

impl View {
    pub(crate) fn new(store: Arc<dyn Store>, group_id: u32, version: Version, ownership: Arc<Ownership>) -> Self {
        View {
            group_id,
            store,
            version: AtomicU64::new(version.0),
            ownership: RwLock::new(ownership),
            changed: Notify::new(),
            hot: HotRows::default(),
            retired: AtomicBool::new(false),
        }
    }

    /// The group whose state it is.
    #[must_use]
    pub fn group_id(&self) -> u32 {
        self.group_id
    }

    /// The version of the last command applied: every commit up to it is visible.
    #[must_use]
    pub fn version(&self) -> Version {
        Version(self.version.load(Ordering::Acquire))
    }

    /// How many shards the group owns.
    #[must_use]
    pub fn shards(&self) -> u64 {
        self.ownership().owned()
    }

    /// Whether the group owns, or knows where went, anything of a tenant.
    #[must_use]
    pub fn knows(&self, tenant_id: u64) -> bool {
        self.ownership().knows(tenant_id)
    }

    /// Whether the group owns a range: from `start`, inclusive, to `end`, exclusive; an empty `end` means to the end of the tenant.
    /// `epoch` is the one that the caller knows, 0 if none.
    ///
    /// # Errors
    /// [`Error::Moved`], [`Error::NotFound`] for a tenant never seen here, [`Error::Unavailable`] if the caller knows more than the replica.
    pub fn owns(&self, tenant_id: u64, start: &[u8], end: &[u8], epoch: u64) -> Result<(), Error> {
        self.ownership().check_range(tenant_id, start, end, epoch)
    }

    /// The same for one key.
    ///
    /// # Errors
    /// As [`View::owns`].
    pub fn owns_key(&self, tenant_id: u64, key: &[u8], epoch: u64) -> Result<(), Error> {
        self.ownership().check_key(tenant_id, key, epoch)
    }

    /// From now on nothing is answered here: the rows below are about to be replaced by a snapshot.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::SeqCst);
    }

    /// Answers a read from the state as it is here and now; for the latest of a group, after its read barrier.
    ///
    /// # Errors
    /// As [`View::owns`]; [`Error::Invalid`] for a continuation that is none or an answer larger than a page; [`Error::Corrupt`];
    /// [`Error::Unavailable`] for a version that was not reached yet.
    pub fn answer(&self, body: &request::Body) -> Result<response::Body, Error> {
        match body {
            request::Body::Get(r) => self.get(r).map(response::Body::Get),
            request::Body::MultiGet(r) => self.multi_get(r).map(response::Body::MultiGet),
            request::Body::Scan(r) => self.scan(r).map(response::Body::Scan),
            request::Body::Walk(r) => self.walk(r).map(response::Body::Walk),
            request::Body::Transact(_) => Err(Error::internal("a transaction is no read")),
        }
    }

    fn ownership(&self) -> Arc<Ownership> {
        Arc::clone(&self.ownership.read())
    }

    /// The version that a read is done at.
    fn read_version(&self, read: Option<&v1::ReadOptions>) -> Result<Version, Error> {
        let reached = self.version();
        match read.map_or(0, |read| read.at_version) {
            0 => Ok(reached),
            asked if Version(asked) <= reached => Ok(Version(asked)),
            asked => Err(Error::unavailable(format!("version {asked} is not reached yet, {reached} is"), RETRY_AFTER)),
        }
    }

    /// Does a read between two looks at ownership.
    fn guarded<T>(&self, check: impl Fn(&Ownership) -> Result<(), Error>, read: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        let before = self.ownership();
        check(&before)?;
        let answer = read();
        let after = self.ownership();
        if !Arc::ptr_eq(&before, &after) {
            check(&after)?;
        }
        if self.retired.load(Ordering::SeqCst) {
            return Err(Error::unavailable("the replica is being replaced by a snapshot", RETRY_AFTER));
        }
        answer
    }

    /// A key at a version.
    fn read_key(&self, tenant_id: u64, key: &Bytes, at: Version) -> Result<Option<v1::KeyValue>, Error> {
        let stem = data::stem(self.group_id, tenant_id, key);
        let stored = self.newest(stem, at).map_err(|error| storage_error(&error))?;
        Ok(stored.and_then(|stored| key_value(key.clone(), &stored)))
    }

    fn newest(&self, stem: Bytes, at: Version) -> Result<Option<Stored>, EngineError> {
        let ticket = match self.hot.get(&stem) {
            Ok(hot) if hot.version <= at => return Ok(Some(hot)),
            Ok(_) => return newest(&*self.store, &stem, at),
            Err(ticket) => ticket,
        };
        // The newest of all, not of `at`: nothing else may be kept as the newest.
        match newest(&*self.store, &stem, Version::MAX)? {
            Some(stored) if stored.version <= at => {
                self.hot.fill(ticket, stem, stored.clone());
                Ok(Some(stored))
            }
            Some(_) => newest(&*self.store, &stem, at),
            None => Ok(None),
        }
    }

    /// The newest row of a key for the machine, which nothing runs beside.
    pub(crate) fn newest_for_apply(&self, stem: &Bytes) -> Result<Option<Stored>, EngineError> {
        match self.hot.get(stem) {
            Ok(hot) => Ok(Some(hot)),
            Err(ticket) => {
                let found = newest(&*self.store, stem, Version::MAX)?;
                if let Some(stored) = &found {
                    self.hot.fill(ticket, stem.clone(), stored.clone());
                }
                Ok(found)
            }
        }
    }

    pub(crate) fn hot(&self) -> &HotRows {
        &self.hot
    }

    pub(crate) fn set_ownership(&self, ownership: Arc<Ownership>) {
        *self.ownership.write() = ownership;
        self.changed.notify_waiters();
    }

    /// The shards that are read and written here, if that may have changed since this was last asked.
    #[cfg(madsim)]
    pub(crate) fn owned_since(&self, last: &mut Option<Arc<Ownership>>) -> Option<Vec<(u64, Bytes, Bytes)>> {
        let now = self.ownership();
        let is_new = last.as_ref().is_none_or(|last| !Arc::ptr_eq(last, &now));
        *last = Some(Arc::clone(&now));
        is_new.then(|| now.served())
    }

    /// Where the shard starts that a key lies in, if it is here.
    pub(crate) fn shard_start(&self, tenant_id: u64, key: &[u8]) -> Option<Bytes> {
        self.ownership.read().start_of(tenant_id, key)
    }

    /// Whether a key lies in a shard whose rows arrive.
    pub(crate) fn expects(&self, tenant_id: u64, key: &[u8]) -> bool {
        let ownership = self.ownership.read();
        ownership.expects_any() && ownership.expects(tenant_id, key)
    }

    /// Waits until a key lies in no shard whose rows arrive.
    pub(crate) async fn until_arrived(&self, tenant_id: u64, key: &[u8]) {
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            // Before the look, so that no change slips in between.
            changed.as_mut().enable();
            if !self.expects(tenant_id, key) {
                return;
            }
            changed.await;
        }
    }

    pub(crate) fn set_version(&self, version: Version) {
        self.version.store(version.0, Ordering::Release);
    }
}

/// A row as it travels; none for a deletion.
pub(crate) fn key_value(key: Bytes, stored: &Stored) -> Option<v1::KeyValue> {
    stored.value().map(|value| v1::KeyValue { key, value, version: stored.version.0 })
}

/// What a caller is told of an engine's failure.
pub(crate) fn storage_error(error: &EngineError) -> Error {
    match error {
        EngineError::Corrupt { .. } => Error::Corrupt { message: error.to_string() },
        EngineError::Io { .. } | EngineError::Full { .. } | EngineError::Foreign { .. } | EngineError::Stopped { .. } => {
            Error::unavailable(error.to_string(), RETRY_AFTER)
        }
    }
}

fn header(header: Option<&v1::RequestHeader>) -> Result<&v1::RequestHeader, Error> {
    header.ok_or_else(|| Error::invalid("header", "present", "absent"))
}

#[cfg(test)]
mod tests;
