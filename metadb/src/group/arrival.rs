//! Requests for a shard that is arriving: who met the fence where it comes from was sent here, and waits for the last rows.
//!
//! A bounded number waits, for a bounded time; the others are told to come again. They wait in front of the group's door, where they take no
//! place from those who can be served.

use super::Group;
use metadb_proto::{Error, limits};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Most requests of a group that wait, and their bytes.
const WAITING_REQUESTS: usize = 4096;
const WAITING_BYTES: usize = 64 << 20;
/// For how long, at most: many times what the end of a move takes. Whoever waited in vain asks where the shard is now.
const WAIT: Duration = Duration::from_secs(1);
/// When to ask again.
const RETRY: Duration = Duration::from_millis(20);

/// Who waits.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

/// A place among those who wait.
struct Place<'a> {
    arrivals: &'a Arrivals,
    bytes: usize,
}

impl Arrivals {
    fn enter(&self, bytes: usize) -> Result<Place<'_>, Error> {
        let requests = self.requests.fetch_add(1, Ordering::Relaxed);
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        // Gives its place back where it is dropped.
        let place = Place { arrivals: self, bytes };
        if requests >= WAITING_REQUESTS || before + bytes > WAITING_BYTES {
            let message =
                format!("{WAITING_REQUESTS} requests, or {} MiB of them, wait for shards that are on their way", WAITING_BYTES >> 20);
            return Err(Error::Exhausted { message, retry_after: RETRY });
        }
        Ok(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.arrivals.requests.fetch_sub(1, Ordering::Relaxed);
        self.arrivals.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Group {
    /// Waits, if this node leads, while the shard of a key arrives. `bytes`: of the request.
    ///
    /// # Errors
    /// [`Error::Exhausted`] if too many wait; [`Error::Unavailable`] if it did not arrive in time.
    pub(crate) async fn until_arrived(&self, tenant_id: u64, key: &[u8], bytes: usize, deadline: Instant) -> Result<(), Error> {
        let view = self.replica.view();
        if !view.expects(tenant_id, key) || !self.is_leader() {
            return Ok(());
        }
        let _place = self.arrivals.enter(bytes)?;
        let patience = deadline.saturating_duration_since(Instant::now()).min(WAIT);
        let late = |_| Error::unavailable(format!("a shard of tenant {tenant_id} is still on its way to group {}", self.group_id), RETRY);
        tokio::time::timeout(patience, view.until_arrived(tenant_id, key)).await.map_err(late)
    }
}

const _: () = assert!(limits::TRANSACTION_BYTES < WAITING_BYTES, "the largest request has a place");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_given_back() {
        let arrivals = Arrivals::default();
        let places: Vec<_> = (0..WAITING_REQUESTS).map(|_| arrivals.enter(1).unwrap_or_else(|_| panic!("a place"))).collect();
        assert!(matches!(arrivals.enter(1), Err(Error::Exhausted { .. })));
        drop(places);
        let large = arrivals.enter(WAITING_BYTES).unwrap_or_else(|_| panic!("a place"));
        assert!(matches!(arrivals.enter(1), Err(Error::Exhausted { .. })));
        drop(large);
        assert_eq!((arrivals.requests.into_inner(), arrivals.bytes.into_inner()), (0, 0));
    }
}
