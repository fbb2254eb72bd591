//! The metadata database as the operations see it: rows of one tenant, read and changed through the router.

use bytes::Bytes;
use metadb_proto::Error;
use metadb_proto::v1::{self, KeyValue};
use shard_router::{Client, Scan};
use std::time::Duration;

/// One tenant's rows.
#[derive(Clone)]
pub(crate) struct Db {
    client: Client,
}

/// Rows of a range, and whether there are more behind them.
pub(crate) struct Page {
    pub(crate) rows: Vec<KeyValue>,
    pub(crate) more: bool,
}

impl Db {
    pub(crate) fn new(client: Client) -> Self {
        Db { client }
    }

    pub(crate) fn with_deadline(&self, deadline: Duration) -> Self {
        Db { client: self.client.with_deadline(deadline) }
    }

    pub(crate) async fn get(&self, key: Vec<u8>) -> Result<Option<KeyValue>, Error> {
        self.client.get(key).await
    }

    /// One row per key asked, in the same order. Keys must differ.
    pub(crate) async fn multi_get(&self, keys: Vec<Vec<u8>>) -> Result<Vec<Option<KeyValue>>, Error> {
        let asked: Vec<Bytes> = keys.into_iter().map(Bytes::from).collect();
        let mut rows = self.client.multi_get(asked.clone()).await?.into_iter().peekable();
        Ok(asked.iter().map(|key| rows.next_if(|row| row.key == *key)).collect())
    }

    /// At most `limit` rows from `start`, inclusive, to `end`, exclusive.
    pub(crate) async fn scan(&self, start: Vec<u8>, end: Vec<u8>, limit: usize) -> Result<Page, Error> {
        let limit = limit.clamp(1, metadb_proto::limits::PAGE_ROWS);
        let limit = u32::try_from(limit).expect("a page has fewer rows than 32 bits count");
        let scan = Scan { start: start.into(), end: end.into(), limit, ..Scan::default() };
        let page = self.client.scan(scan).await?;
        Ok(Page { more: !page.continuation.is_empty(), rows: page.rows })
    }

    pub(crate) async fn walk(&self, prefix: Vec<u8>, start: Vec<u8>, segments: Vec<Bytes>) -> Result<Vec<KeyValue>, Error> {
        Ok(self.client.walk(prefix, start, segments).await?.rows)
    }

    pub(crate) async fn transact(
        &self,
        conditions: Vec<v1::Condition>,
        operations: Vec<v1::Operation>,
    ) -> Result<v1::TransactResponse, Error> {
        self.client.transact(conditions, operations).await
    }
}
