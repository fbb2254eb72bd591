//! Loads shared by all who wait for the same thing: however many ask at a moment, one goes out.
//!
//! The load runs in a task of its own, so that it ends even when those who wait give up. Nothing is remembered here once it has ended.

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use metadb_proto::Error;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) type Load<V> = Shared<BoxFuture<'static, Result<V, Error>>>;

/// Loads under way, by what they load.
pub(crate) struct Loads<K, V: Clone> {
    under_way: Arc<Mutex<BTreeMap<K, Load<V>>>>,
}

impl<K, V> Loads<K, V>
where
    K: Ord + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(crate) fn new() -> Self {
        Loads { under_way: Arc::default() }
    }

    /// Joins the load of `key` that is under way, or starts `load`.
    pub(crate) fn join(&self, key: K, load: impl FnOnce() -> BoxFuture<'static, Result<V, Error>>) -> Load<V> {
        let mut under_way = self.under_way.lock();
        if let Some(load) = under_way.get(&key) {
            return load.clone();
        }
        let (done, result) = tokio::sync::oneshot::channel();
        let shared = result
            .map(|r| r.unwrap_or_else(|_| Err(Error::unavailable("the load was dropped", std::time::Duration::from_millis(10)))))
            .boxed()
            .shared();
        under_way.insert(key.clone(), shared.clone());
        let (load, map) = (load(), Arc::clone(&self.under_way));
        tokio::spawn(async move {
            let result = load.await;
            map.lock().remove(&key);
            // Nobody may be waiting any more.
            let _ = done.send(result);
        });
        shared
    }
}
