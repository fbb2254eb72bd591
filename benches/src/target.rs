//! One way to put and get, whatever is behind it.

use bytes::Bytes;
use futures::future::BoxFuture;

/// A system under load, reached in one way.
pub trait Target: Send + Sync + 'static {
    /// A durable put. `client` chooses the connection.
    fn put(&self, client: usize, key: Bytes, value: Bytes) -> BoxFuture<'_, anyhow::Result<()>>;

    /// A linearizable get; whether the key was there.
    fn get(&self, client: usize, key: Bytes) -> BoxFuture<'_, anyhow::Result<bool>>;
}
