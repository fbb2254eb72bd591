//! The two ways in which Cairn is asked: through the router, and as a foreign client does it.

use crate::plan::CONNECTIONS;
use crate::target::Target;
use bytes::Bytes;
use metadb_proto::v1::kv_client::KvClient;
use metadb_proto::{Error, limits, seam, v1};
use shard_router::{Client, Scan, operation};
use std::sync::{Arc, PoisonError, RwLock};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};

/// How often the unary client follows or waits before it gives a request up.
const RETRIES: usize = 20;

/// Cairn through the router.
#[derive(Clone)]
pub struct RouterTarget {
    client: Client,
}

impl RouterTarget {
    /// As this client, for its tenant.
    #[must_use]
    pub fn new(client: Client) -> Self {
        RouterTarget { client }
    }
}

impl Target for RouterTarget {
    async fn put(&self, _: usize, key: Bytes, value: Bytes) -> anyhow::Result<()> {
        self.client.transact(Vec::new(), vec![operation::put(key, value)]).await?;
        Ok(())
    }

    async fn get(&self, _: usize, key: Bytes) -> anyhow::Result<bool> {
        Ok(self.client.get(key).await?.is_some())
    }

    async fn scan(&self, _: usize, start: Bytes, end: Bytes, limit: u32) -> anyhow::Result<usize> {
        Ok(self.client.scan(Scan { start, end, limit, ..Scan::default() }).await?.rows.len())
    }
}

/// Cairn through plain unary gRPC: it stays with the leader and follows a redirect.
pub struct UnaryTarget {
    leader: RwLock<Leader>,
    authorization: MetadataValue<Ascii>,
    tenant_id: u64,
}

/// The node that is asked, over so many connections.
#[derive(Clone)]
struct Leader {
    address: String,
    clients: Arc<[KvClient<Channel>]>,
}

impl Leader {
    async fn connect(address: &str) -> anyhow::Result<Self> {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            let channel = Endpoint::from_shared(format!("http://{address}"))?.connect().await?;
            clients.push(KvClient::new(channel).max_decoding_message_size(limits::MESSAGE_BYTES));
        }
        Ok(Leader { address: address.to_owned(), clients: clients.into() })
    }
}

impl UnaryTarget {
    /// Connects to a node.
    ///
    /// # Errors
    /// If it is not there.
    pub async fn connect(address: &str, token: &str, tenant_id: u64) -> anyhow::Result<Self> {
        let leader = RwLock::new(Leader::connect(address).await?);
        Ok(UnaryTarget { leader, authorization: format!("Bearer {token}").parse()?, tenant_id })
    }

    /// Whether the node answers for the tenant.
    ///
    /// # Errors
    /// What it says if not.
    pub async fn probe(&self) -> Result<(), Error> {
        self.ask_get(0, Bytes::from_static(b"ready")).await.map(|_| ())
    }

    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert("authorization", self.authorization.clone());
        request
    }

    fn header(&self) -> Option<v1::RequestHeader> {
        Some(v1::RequestHeader { tenant_id: self.tenant_id, ..v1::RequestHeader::default() })
    }

    fn client(&self, client: usize) -> KvClient<Channel> {
        let leader = self.leader.read().unwrap_or_else(PoisonError::into_inner);
        leader.clients[client % leader.clients.len()].clone()
    }

    /// Waits as an error asks, or goes to the leader that it names; anything else stands as it is.
    async fn follow(&self, error: Error) -> anyhow::Result<()> {
        if let Error::Unavailable { retry_after, .. } | Error::Exhausted { retry_after, .. } = &error {
            tokio::time::sleep(*retry_after).await;
            return Ok(());
        }
        let Error::Moved { redirect: v1::Redirect { leader: Some(to), .. }, .. } = &error else { return Err(error.into()) };
        let known = self.leader.read().unwrap_or_else(PoisonError::into_inner).address == to.address;
        if !known {
            let leader = Leader::connect(&to.address).await?;
            *self.leader.write().unwrap_or_else(PoisonError::into_inner) = leader;
        }
        Ok(())
    }

    async fn ask_get(&self, client: usize, key: Bytes) -> Result<bool, Error> {
        let request = self.request(v1::GetRequest { header: self.header(), key, read: None });
        let answer = self.client(client).get(request).await.map_err(|status| Error::from_status(&status, false))?;
        Ok(answer.into_inner().row.is_some())
    }

    async fn ask_put(&self, client: usize, header: Option<v1::RequestHeader>, operation: v1::Operation) -> Result<(), Error> {
        let request = self.request(v1::TransactRequest { header, conditions: Vec::new(), operations: vec![operation] });
        self.client(client).transact(request).await.map_err(|status| Error::from_status(&status, true))?;
        Ok(())
    }

    async fn ask_scan(&self, client: usize, scan: v1::ScanRequest) -> Result<usize, Error> {
        let answer = self.client(client).scan(self.request(scan)).await.map_err(|status| Error::from_status(&status, false))?;
        Ok(answer.into_inner().rows.len())
    }
}

impl Target for UnaryTarget {
    async fn put(&self, client: usize, key: Bytes, value: Bytes) -> anyhow::Result<()> {
        let header = self.header().map(|h| v1::RequestHeader { request_id: Bytes::copy_from_slice(&seam::request_id()), ..h });
        let operation = operation::put(key, value);
        for _ in 0..RETRIES {
            match self.ask_put(client, header.clone(), operation.clone()).await {
                Ok(()) => return Ok(()),
                Err(error) => self.follow(error).await?,
            }
        }
        Ok(self.ask_put(client, header, operation).await?)
    }

    async fn get(&self, client: usize, key: Bytes) -> anyhow::Result<bool> {
        for _ in 0..RETRIES {
            match self.ask_get(client, key.clone()).await {
                Ok(found) => return Ok(found),
                Err(error) => self.follow(error).await?,
            }
        }
        Ok(self.ask_get(client, key).await?)
    }

    async fn scan(&self, client: usize, start: Bytes, end: Bytes, limit: u32) -> anyhow::Result<usize> {
        let scan = v1::ScanRequest { header: self.header(), start, end, limit, ..v1::ScanRequest::default() };
        for _ in 0..RETRIES {
            match self.ask_scan(client, scan.clone()).await {
                Ok(rows) => return Ok(rows),
                Err(error) => self.follow(error).await?,
            }
        }
        Ok(self.ask_scan(client, scan).await?)
    }
}
