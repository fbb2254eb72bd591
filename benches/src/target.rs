//! One way to put, get and scan, whatever is behind it.

use bytes::Bytes;
use std::future::Future;

/// A system under load, reached in one way. `client` chooses the connection.
pub trait Target: Send + Sync + 'static {
    /// A durable put.
    fn put(&self, client: usize, key: Bytes, value: Bytes) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// A linearizable get; whether the key was there.
    fn get(&self, client: usize, key: Bytes) -> impl Future<Output = anyhow::Result<bool>> + Send;

    /// A linearizable scan of at most `limit` rows of a range; how many there were.
    fn scan(&self, client: usize, start: Bytes, end: Bytes, limit: u32) -> impl Future<Output = anyhow::Result<usize>> + Send;
}
