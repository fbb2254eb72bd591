//! What the machine allows, measured in the same run: a small synced append on its disk, and a bare unary gRPC call.

use crate::echo_api::echo_client::EchoClient;
use crate::echo_api::echo_server::{Echo, EchoServer};
use crate::echo_api::{EchoRequest, EchoResponse};
use crate::load::{self, Measured};
use crate::plan::{CLIENTS, CONNECTIONS, VALUE_BYTES, Verb};
use crate::target::Target;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde::Serialize;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};

/// The limits of this machine.
#[derive(Debug, Clone, Serialize)]
pub struct Limits {
    /// Appends of 256 bytes per second, each followed by fdatasync.
    pub syncs_per_second: f64,
    /// Bare unary calls of 256 bytes, by the number of clients.
    pub echo: Vec<(usize, Measured)>,
}

/// Measures them.
///
/// # Errors
/// If the folder can't be written or the loopback not be used.
pub async fn measure(folder: &Path, each: Duration) -> anyhow::Result<Limits> {
    let file = folder.join("sync-limit");
    let syncs_per_second = tokio::task::spawn_blocking(move || syncs(&file, each)).await??;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    // Without it a small answer waits for the acknowledgement of the one before.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = tokio::spawn(Server::builder().add_service(EchoServer::new(Answering)).serve_with_incoming(incoming));
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(EchoClient::new(Endpoint::from_shared(address.clone())?.connect().await?));
    }
    let target: Arc<dyn Target> = Arc::new(EchoTarget { clients });
    let mut echo = Vec::new();
    for clients in CLIENTS {
        echo.push((clients, load::run(&target, Verb::Put, clients, each / 4, each).await?));
    }
    server.abort();
    Ok(Limits { syncs_per_second, echo })
}

fn syncs(path: &Path, for_how_long: Duration) -> anyhow::Result<f64> {
    let mut file = std::fs::File::create(path)?;
    let begin = Instant::now();
    let mut count = 0_u32;
    while begin.elapsed() < for_how_long {
        file.write_all(&[0x5a; VALUE_BYTES])?;
        file.sync_data()?;
        count += 1;
    }
    let seconds = begin.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(f64::from(count) / seconds)
}

struct Answering;

#[tonic::async_trait]
impl Echo for Answering {
    async fn call(&self, request: Request<EchoRequest>) -> Result<Response<EchoResponse>, Status> {
        Ok(Response::new(EchoResponse { value: request.into_inner().value }))
    }
}

struct EchoTarget {
    clients: Vec<EchoClient<Channel>>,
}

impl Target for EchoTarget {
    fn put(&self, client: usize, _: Bytes, value: Bytes) -> BoxFuture<'_, anyhow::Result<()>> {
        let mut echo = self.clients[client % self.clients.len()].clone();
        async move {
            echo.call(EchoRequest { value }).await?;
            Ok(())
        }
        .boxed()
    }

    fn get(&self, client: usize, key: Bytes) -> BoxFuture<'_, anyhow::Result<bool>> {
        async move { self.put(client, key.clone(), key).await.map(|()| true) }.boxed()
    }
}
