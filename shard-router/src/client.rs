//! A client for the keys of one tenant.

use crate::ask::Keyed;
use crate::call::{expect_answer, transact_body};
use crate::router::Router;
use crate::scan;
use crate::transaction::{self, Transaction};
use bytes::Bytes;
use metadb_proto::kv::request;
use metadb_proto::v1::{self, KeyValue, ReadOptions};
use metadb_proto::{Error, limits, seam};
use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;

/// Reads and writes the keys of one tenant. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    router: Router,
    tenant_id: u64,
    deadline: Duration,
    /// Set for work that belongs to a larger one: then the deadline is that one's.
    until: Option<Instant>,
    read: ReadOptions,
}

/// A range to read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scan {
    /// Inclusive.
    pub start: Bytes,
    /// Exclusive; empty: to the end of the tenant.
    pub end: Bytes,
    /// Most rows in the page; 0: the server's limit.
    pub limit: u32,
    /// From the end to the start.
    pub reverse: bool,
    /// Without values.
    pub keys_only: bool,
    /// From the page before; the rest stays as it was. Opaque.
    pub continuation: Bytes,
    /// How fresh the page must be.
    pub read: ReadOptions,
}

impl Client {
    pub(crate) fn new(router: Router, tenant_id: u64) -> Self {
        let deadline = router.config().deadline;
        Client { router, tenant_id, deadline, until: None, read: ReadOptions::default() }
    }

    /// The same client with another deadline for each of its requests, cut to [`limits::MAX_DEADLINE`].
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Client {
        Client { deadline: deadline.min(limits::MAX_DEADLINE), until: None, ..self.clone() }
    }

    /// The same client with another freshness for `get`, `multi_get` and `walk`.
    #[must_use]
    pub fn with_read(&self, read: ReadOptions) -> Client {
        Client { read, ..self.clone() }
    }

    pub(crate) fn until(&self, until: Instant) -> Client {
        Client { until: Some(until), ..self.clone() }
    }

    /// Whose keys it reads and writes.
    #[must_use]
    pub fn tenant_id(&self) -> u64 {
        self.tenant_id
    }

    /// What it goes through.
    #[must_use]
    pub fn router(&self) -> &Router {
        &self.router
    }

    pub(crate) fn ends_at(&self) -> Instant {
        self.until.unwrap_or_else(|| Instant::now() + self.deadline)
    }

    /// Reads one key.
    ///
    /// # Errors
    /// [`Error::Invalid`] past a limit; [`Error::NotFound`] if there is no such tenant; [`Error::Unavailable`] at the deadline.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<KeyValue>, Error> {
        let body = request::Body::Get(v1::GetRequest { header: header(), key: key.into(), read: Some(self.read) });
        Ok(expect_answer!(self.ask(body).await?, Get)?.row)
    }

    /// Reads several keys at one version. Those that exist, in the order asked.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn multi_get(&self, keys: Vec<Bytes>) -> Result<Vec<KeyValue>, Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let body = request::Body::MultiGet(v1::MultiGetRequest { header: header(), keys, read: Some(self.read) });
        Ok(expect_answer!(self.ask(body).await?, MultiGet)?.rows)
    }

    /// Reads one page of a range, across as many shards as it takes.
    ///
    /// # Errors
    /// As [`Client::get`]; [`Error::Invalid`] for a continuation that is not one.
    pub async fn scan(&self, scan: Scan) -> Result<v1::ScanResponse, Error> {
        scan::run(&self.router, self.tenant_id, scan, self.ends_at()).await
    }

    /// Follows a chain of rows in one round trip; see `WalkRequest` in kv.proto.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn walk(&self, prefix: impl Into<Bytes>, start: impl Into<Bytes>, segments: Vec<Bytes>) -> Result<v1::WalkResponse, Error> {
        let walk = v1::WalkRequest { header: header(), prefix: prefix.into(), start: start.into(), segments, read: Some(self.read) };
        expect_answer!(self.ask(request::Body::Walk(walk)).await?, Walk)
    }

    /// Commits the operations if all conditions hold, exactly once however often it is retried. A condition that fails is an answer,
    /// with `committed` false.
    ///
    /// # Errors
    /// As [`Client::get`]; [`Error::UnknownOutcome`] if the deadline passed while it could not be told whether it committed.
    pub async fn transact(&self, conditions: Vec<v1::Condition>, operations: Vec<v1::Operation>) -> Result<v1::TransactResponse, Error> {
        self.transact_as(Bytes::copy_from_slice(&seam::request_id()), conditions, operations).await
    }

    /// As [`Client::transact`], with the caller's own request id of [`limits::REQUEST_ID_BYTES`] bytes: asked again within
    /// [`limits::REQUEST_ID_RETENTION`], it answers the same. Later it is a new request, with a version of its own.
    ///
    /// # Errors
    /// As [`Client::transact`].
    pub async fn transact_as(
        &self,
        request_id: Bytes,
        conditions: Vec<v1::Condition>,
        operations: Vec<v1::Operation>,
    ) -> Result<v1::TransactResponse, Error> {
        expect_answer!(self.ask(transact_body(request_id, conditions, operations)).await?, Transact)
    }

    /// Runs `body` as one transaction: what it reads becomes conditions, what it writes is committed at its end, and when another
    /// transaction got in between it runs again. So it must do nothing else that can't be repeated.
    ///
    /// # Errors
    /// What `body` returns; [`Error::Conflict`] if it still lost at the deadline; as [`Client::transact`].
    pub fn run<T, F, R>(&self, body: F) -> impl Future<Output = Result<T, Error>> + Send + use<T, F, R>
    where
        F: Fn(Transaction) -> R + Send + Sync,
        R: Future<Output = Result<T, Error>> + Send,
        T: Send,
    {
        transaction::run(self.clone(), body)
    }

    async fn ask(&self, body: request::Body) -> Result<metadb_proto::kv::response::Body, Error> {
        limits::check(&body)?;
        Ok(self.router.call(self.tenant_id, &Keyed::new(body), self.ends_at()).await?.0)
    }
}

fn header() -> Option<v1::RequestHeader> {
    Some(v1::RequestHeader::default())
}
