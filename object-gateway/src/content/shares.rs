//! Places for work of tenants, shared: alone a tenant may have nearly all of them; together the one that holds the fewest is next.
//!
//! A place is given back when it is dropped, to whoever waits and holds the fewest, in the order of arrival among equals. Nobody waits for
//! ever, and only so many wait.

use metadb_proto::Error;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// When to try again after nothing was free in time.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How many there are, and for whom.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Places.
    pub(crate) places: usize,
    /// Places that one tenant may hold.
    pub(crate) of_one: usize,
    /// Requests that may wait for one.
    pub(crate) waiting: usize,
    /// For how long.
    pub(crate) patience: Duration,
}

/// The places.
#[derive(Debug)]
pub(crate) struct Shares {
    bounds: Bounds,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    /// By tenant; none that holds nothing.
    held: BTreeMap<u64, usize>,
    waiting: VecDeque<(u64, oneshot::Sender<Share>)>,
}

/// One place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    /// None when it was never handed over.
    shares: Option<Arc<Shares>>,
    tenant_id: u64,
}

impl Shares {
    pub(crate) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Shares { bounds, state: Mutex::default() })
    }

    /// A place for a tenant.
    pub(crate) async fn acquire(self: &Arc<Self>, tenant_id: u64) -> Result<Share, Error> {
        let waiter = {
            let mut state = self.state.lock();
            if state.may_take(tenant_id, self.bounds) {
                state.take(tenant_id);
                return Ok(self.share(tenant_id));
            }
            if state.waiting.len() >= self.bounds.waiting {
                state.waiting.retain(|(_, waiter)| !waiter.is_closed());
            }
            if state.waiting.len() >= self.bounds.waiting {
                return Err(self.exhausted(&format!("{} requests wait for one already", self.bounds.waiting)));
            }
            let (sender, waiter) = oneshot::channel();
            state.waiting.push_back((tenant_id, sender));
            waiter
        };
        match timeout(self.bounds.patience, waiter).await {
            Ok(Ok(share)) => Ok(share),
            Ok(Err(_)) | Err(_) => Err(self.exhausted(&format!("none was free within {} s", self.bounds.patience.as_secs()))),
        }
    }

    /// Whether somebody waits.
    pub(crate) fn is_contended(&self) -> bool {
        self.state.lock().waiting.iter().any(|(_, waiter)| !waiter.is_closed())
    }

    fn share(self: &Arc<Self>, tenant_id: u64) -> Share {
        Share { shares: Some(Arc::clone(self)), tenant_id }
    }

    fn exhausted(&self, why: &str) -> Error {
        let Bounds { places, of_one, .. } = self.bounds;
        let message = format!("all places for uploads are taken ({places}, at most {of_one} for one tenant), and {why}");
        Error::Exhausted { message, retry_after: RETRY_AFTER }
    }

    fn give_back(self: &Arc<Self>, tenant_id: u64) {
        let mut state = self.state.lock();
        state.put_back(tenant_id);
        while let Some((tenant_id, waiter)) = state.next(self.bounds) {
            state.take(tenant_id);
            if let Err(mut unwanted) = waiter.send(self.share(tenant_id)) {
                // It gave up meanwhile. Dropping the share as it is would come back to this lock.
                unwanted.shares = None;
                state.put_back(tenant_id);
            }
        }
    }
}

impl State {
    fn of(&self, tenant_id: u64) -> usize {
        self.held.get(&tenant_id).copied().unwrap_or(0)
    }

    fn may_take(&self, tenant_id: u64, bounds: Bounds) -> bool {
        self.used < bounds.places && self.of(tenant_id) < bounds.of_one
    }

    fn take(&mut self, tenant_id: u64) {
        self.used += 1;
        *self.held.entry(tenant_id).or_default() += 1;
    }

    fn put_back(&mut self, tenant_id: u64) {
        self.used -= 1;
        if let Some(held) = self.held.get_mut(&tenant_id) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&tenant_id);
            }
        }
    }

    /// Takes out the one to be served next, if one can be.
    fn next(&mut self, bounds: Bounds) -> Option<(u64, oneshot::Sender<Share>)> {
        let able = self.waiting.iter().enumerate().filter(|(_, (tenant_id, _))| self.may_take(*tenant_id, bounds));
        let (at, _) = able.min_by_key(|(at, (tenant_id, _))| (self.of(*tenant_id), *at))?;
        self.waiting.remove(at)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(shares) = self.shares.take() {
            shares.give_back(self.tenant_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    fn shares(places: usize, of_one: usize, waiting: usize) -> Arc<Shares> {
        Shares::new(Bounds { places, of_one, waiting, patience: Duration::from_secs(5) })
    }

    fn free(shares: &Arc<Shares>) -> usize {
        shares.bounds.places - shares.state.lock().used
    }

    #[tokio::test]
    async fn who_holds_the_fewest_is_next() {
        let shares = shares(3, 3, 10);
        let mut greedy = Vec::new();
        for _ in 0..3 {
            greedy.push(shares.acquire(1).await.expect("free"));
        }
        let (mut fourth, mut other) = (Box::pin(shares.acquire(1)), Box::pin(shares.acquire(2)));
        assert!(fourth.as_mut().now_or_never().is_none() && other.as_mut().now_or_never().is_none());
        assert!(shares.is_contended());
        drop(greedy.pop());
        assert!(fourth.as_mut().now_or_never().is_none(), "it holds two");
        let other = other.as_mut().now_or_never().expect("it holds none").expect("given");
        drop(other);
        fourth.as_mut().now_or_never().expect("nobody else waits").expect("given");
        drop(greedy);
        assert_eq!(free(&shares), 3);
        assert!(shares.state.lock().held.is_empty() && !shares.is_contended());
    }

    #[tokio::test]
    async fn one_tenant_never_has_all_and_only_so_many_wait() {
        let shares = shares(3, 2, 1);
        let held = [shares.acquire(1).await.expect("free"), shares.acquire(1).await.expect("free")];
        let mut third = Box::pin(shares.acquire(1));
        assert!(third.as_mut().now_or_never().is_none(), "a place is free, but not for it");
        drop(shares.acquire(2).await.expect("for others it is"));
        assert!(third.as_mut().now_or_never().is_none(), "still not");
        assert!(matches!(shares.acquire(1).await, Err(Error::Exhausted { .. })), "one waits already");
        drop(held);
        third.await.expect("its own came back");
        assert_eq!(free(&shares), 3);
    }

    #[tokio::test]
    async fn who_gives_up_takes_nothing_along() {
        let shares = Shares::new(Bounds { places: 1, of_one: 1, waiting: 10, patience: Duration::from_millis(20) });
        let held = shares.acquire(1).await.expect("free");
        assert!(matches!(shares.acquire(2).await, Err(Error::Exhausted { .. })), "after its patience");
        // One gives up before it is given a place, one after.
        let mut before = Box::pin(shares.acquire(3));
        assert!(before.as_mut().now_or_never().is_none());
        drop(before);
        let mut after = Box::pin(shares.acquire(4));
        assert!(after.as_mut().now_or_never().is_none());
        drop(held);
        drop(after);
        assert_eq!(free(&shares), 1);
        shares.acquire(5).await.expect("free");
    }
}
