//! Three Cairn processes with fresh data, and the two ways in which they are asked.

use crate::plan::CONNECTIONS;
use crate::ports;
use crate::target::Target;
use anyhow::Context as _;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use jepsen::{Cluster, NodeSpec};
use metadb_proto::principal::ClusterSecret;
use metadb_proto::v1::kv_client::KvClient;
use metadb_proto::{Error, limits, seam, v1};
use shard_router::operator::Operator;
use shard_router::{Client, Router, RouterConfig, operation};
use std::ffi::OsString;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};

/// A cluster of three is up, with all its groups and a tenant, well within this.
const UP_WITHIN: Duration = Duration::from_secs(30);
/// How often the unary client follows or waits before it gives a request up.
const RETRIES: usize = 20;
/// The tenant whose keys are measured.
const TENANT: &str = "bench";

/// The running processes.
pub struct Cairn {
    cluster: Cluster,
    addresses: Vec<String>,
    token: String,
    router: Router,
    tenant_id: u64,
}

impl Cairn {
    /// Starts three, makes a tenant, and waits until it can be written.
    ///
    /// # Errors
    /// If they can't be started or don't answer in time.
    pub async fn start(program: &Path, data: &Path) -> anyhow::Result<Self> {
        let key = seam::random_id().repeat(2);
        let secret_file = data.join("cluster.secret");
        std::fs::write(&secret_file, hex::encode(&key))?;
        let token = ClusterSecret::new(key)?.node_token(0);
        let ports = ports::free(6)?;
        let addresses: Vec<_> = ports[..3].iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let spec = |i: usize| {
            let flags = [
                ("data", data.join(format!("node-{i}")).display().to_string()),
                ("listen", addresses[i].clone()),
                ("cluster-secret-file", secret_file.display().to_string()),
                ("bootstrap", (i == 0).to_string()),
                ("join", if i == 0 { String::new() } else { addresses.join(",") }),
                ("s3-listen", format!("127.0.0.1:{}", ports[3 + i])),
                ("log-level", "warn".to_owned()),
            ];
            let flags = flags.into_iter().map(|(flag, value)| OsString::from(format!("--{flag}={value}")));
            NodeSpec {
                name: format!("node-{i}"),
                program: program.to_owned(),
                args: std::iter::once("node".into()).chain(flags).collect(),
                log: data.join(format!("node-{i}.log")),
                address: addresses[i].clone(),
            }
        };
        let cluster = Cluster::new((0..3).map(spec).collect(), token.clone());
        cluster.start_all().await?;
        let router = Router::new(RouterConfig { seeds: addresses.clone(), token: token.clone(), ..RouterConfig::default() });
        let tenant_id = tokio::time::timeout(UP_WITHIN, tenant(&router)).await.context("Cairn is not up in time")?;
        Ok(Cairn { cluster, addresses, token, router, tenant_id })
    }

    /// Through the router.
    #[must_use]
    pub fn routed(&self) -> RouterTarget {
        RouterTarget { client: self.router.tenant(self.tenant_id) }
    }

    /// Through plain unary gRPC, at the leader of the tenant's group.
    ///
    /// # Errors
    /// If no node answers for the tenant.
    pub async fn unary(&self) -> anyhow::Result<UnaryTarget> {
        let mut candidates: Vec<String> = self.addresses.clone();
        let mut last = None;
        while let Some(address) = candidates.pop() {
            let target = UnaryTarget::connect(&address, &self.token, self.tenant_id).await?;
            match target.probe().await {
                Ok(()) => return Ok(target),
                Err(Error::Moved { redirect: v1::Redirect { leader: Some(leader), .. }, .. }) if candidates.len() < 8 => {
                    candidates.push(leader.address);
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.map_or_else(|| anyhow::anyhow!("no node"), Into::into).context("no node answers for the tenant"))
    }

    /// Stops them.
    pub async fn stop(self) {
        self.cluster.stop_all(Duration::from_secs(5)).await;
    }
}

/// The tenant's id, once it takes writes.
async fn tenant(router: &Router) -> u64 {
    let operator = Operator::new(router.clone());
    loop {
        let _ = operator.create_tenant(TENANT).await;
        if let Ok(client) = router.tenant_named(TENANT).await
            && client.transact(Vec::new(), vec![operation::put("ready", "1")]).await.is_ok()
        {
            return client.tenant_id();
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Cairn through the router.
pub struct RouterTarget {
    client: Client,
}

impl Target for RouterTarget {
    fn put(&self, _: usize, key: Bytes, value: Bytes) -> BoxFuture<'_, anyhow::Result<()>> {
        async move {
            self.client.transact(Vec::new(), vec![operation::put(key, value)]).await?;
            Ok(())
        }
        .boxed()
    }

    fn get(&self, _: usize, key: Bytes) -> BoxFuture<'_, anyhow::Result<bool>> {
        async move { Ok(self.client.get(key).await?.is_some()) }.boxed()
    }
}

/// Cairn through plain unary gRPC, as a foreign client does it: it stays with the leader and follows a redirect.
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
    async fn connect(address: &str, token: &str, tenant_id: u64) -> anyhow::Result<Self> {
        let leader = RwLock::new(Leader::connect(address).await?);
        Ok(UnaryTarget { leader, authorization: format!("Bearer {token}").parse()?, tenant_id })
    }

    async fn probe(&self) -> Result<(), Error> {
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
}

impl Target for UnaryTarget {
    fn put(&self, client: usize, key: Bytes, value: Bytes) -> BoxFuture<'_, anyhow::Result<()>> {
        async move {
            let header = self.header().map(|h| v1::RequestHeader { request_id: Bytes::copy_from_slice(&seam::random_id()), ..h });
            let operation = operation::put(key, value);
            for _ in 0..RETRIES {
                match self.ask_put(client, header.clone(), operation.clone()).await {
                    Ok(()) => return Ok(()),
                    Err(error) => self.follow(error).await?,
                }
            }
            Ok(self.ask_put(client, header, operation).await?)
        }
        .boxed()
    }

    fn get(&self, client: usize, key: Bytes) -> BoxFuture<'_, anyhow::Result<bool>> {
        async move {
            for _ in 0..RETRIES {
                match self.ask_get(client, key.clone()).await {
                    Ok(found) => return Ok(found),
                    Err(error) => self.follow(error).await?,
                }
            }
            Ok(self.ask_get(client, key).await?)
        }
        .boxed()
    }
}
