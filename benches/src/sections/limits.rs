//! What the machine allows, measured in the same run: synced appends on its disk, alone and in groups, and calls that do nothing.

use crate::echo_api::echo_client::EchoClient;
use crate::echo_api::echo_server::{Echo, EchoServer};
use crate::echo_api::{EchoRequest, EchoResponse, Frame, Item};
use crate::load::{Closed, Measured, closed};
use crate::plan::{CLIENTS, CONNECTIONS, Plan, VALUE_BYTES, Verb, Way};
use crate::report::{Report, TextTable, cells};
use crate::target::Target;
use anyhow::Context as _;
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

/// Requests that wait to be put in a frame.
const QUEUE: usize = 1024;
/// Frames handed to the transport: few, so that requests gather while the wire is busy.
const FRAMES_AHEAD: usize = 2;

/// The file into which appends go, written before they are counted.
const SYNC_FILE_BYTES: usize = 32 << 20;

/// The limits of this machine.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Limits {
    /// Records of 256 bytes appended per second, by how many share one fdatasync.
    pub synced: Vec<(usize, f64)>,
    /// Bare unary calls of 256 bytes, by the number of clients.
    pub echo: Vec<(usize, Measured)>,
    /// Bare calls gathered into frames on one stream.
    pub framed: Vec<(usize, Measured)>,
}

impl Limits {
    /// Unary calls per second at a number of clients.
    #[must_use]
    pub fn echo_at(&self, clients: usize) -> Option<f64> {
        self.echo.iter().find(|(n, _)| *n == clients).map(|(_, measured)| measured.per_second)
    }

    /// As a section of the report.
    ///
    /// # Errors
    /// If the figures can't be encoded.
    pub fn report(&self) -> anyhow::Result<Report> {
        let mut table = TextTable::new("Limits of this machine", &["what", "at once", "per second", "p50 µs", "p99 µs", "client cpu µs"]);
        for (together, per_second) in &self.synced {
            table.row([format!("append of {VALUE_BYTES} B, synced"), together.to_string(), format!("{per_second:.0}")]);
        }
        for (way, measured) in [(Way::Echo, &self.echo), (Way::FramedEcho, &self.framed)] {
            for (clients, m) in measured {
                let numbers = [m.per_second, m.p50_us, m.p99_us, m.client_cpu_us].map(|n| cells::number(n, 0));
                table.row([way.to_string(), clients.to_string()].into_iter().chain(numbers));
            }
        }
        let raw = serde_json::to_value(self)?;
        Ok(Report { tables: vec![table], raw, ..Report::new("limits") })
    }
}

/// Measures them.
///
/// # Errors
/// If the folder can't be written or the loopback not be used.
pub async fn measure(folder: &Path, plan: &Plan) -> anyhow::Result<Limits> {
    let mut limits = Limits::default();
    for together in CLIENTS {
        let (file, each) = (folder.join("sync-limit"), plan.limit);
        let per_second = tokio::task::spawn_blocking(move || syncs(&file, together, each)).await??;
        limits.synced.push((together, per_second));
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    // Without it a small answer waits for the acknowledgement of the one before.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = tokio::spawn(Server::builder().add_service(EchoServer::new(Answering)).serve_with_incoming(incoming));
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(EchoClient::new(Endpoint::from_shared(address.clone())?.connect().await?));
    }
    let framed = Arc::new(FramedEcho::start(clients[0].clone()));
    let unary = Arc::new(UnaryEcho { clients });
    for clients in CLIENTS {
        let load = Closed { verb: Verb::Put, clients, warm_up: plan.limit / 4, measure: plan.limit };
        limits.echo.push((clients, closed(&unary, &load, &[]).await?));
        limits.framed.push((clients, closed(&framed, &load, &[]).await?));
    }
    server.abort();
    Ok(limits)
}

/// Records per second if so many share a sync.
fn syncs(path: &Path, together: usize, for_how_long: Duration) -> anyhow::Result<f64> {
    let mut file = std::fs::File::create(path)?;
    // A log that is clever does not grow its file at every append.
    file.write_all(&vec![0; SYNC_FILE_BYTES])?;
    file.sync_all()?;
    let bytes = vec![0x5a; VALUE_BYTES * together];
    let begin = Instant::now();
    let (mut count, mut at) = (0_usize, 0);
    while begin.elapsed() < for_how_long {
        if at + bytes.len() > SYNC_FILE_BYTES {
            at = 0;
        }
        file.seek(SeekFrom::Start(at as u64))?;
        file.write_all(&bytes)?;
        at += bytes.len();
        file.sync_data()?;
        count += together;
    }
    let seconds = begin.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(count as f64 / seconds)
}

struct Answering;

#[tonic::async_trait]
impl Echo for Answering {
    type ExchangeStream = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

    async fn call(&self, request: Request<EchoRequest>) -> Result<Response<EchoResponse>, Status> {
        Ok(Response::new(EchoResponse { value: request.into_inner().value }))
    }

    async fn exchange(&self, request: Request<Streaming<Frame>>) -> Result<Response<Self::ExchangeStream>, Status> {
        Ok(Response::new(request.into_inner().boxed()))
    }
}

struct UnaryEcho {
    clients: Vec<EchoClient<Channel>>,
}

impl Target for UnaryEcho {
    async fn put(&self, client: usize, _: Bytes, value: Bytes) -> anyhow::Result<()> {
        self.clients[client % self.clients.len()].clone().call(EchoRequest { value }).await?;
        Ok(())
    }

    async fn get(&self, _: usize, _: Bytes) -> anyhow::Result<bool> {
        anyhow::bail!("an echo keeps nothing")
    }

    async fn scan(&self, _: usize, _: Bytes, _: Bytes, _: u32) -> anyhow::Result<usize> {
        anyhow::bail!("an echo keeps nothing")
    }
}

type Reply = oneshot::Sender<()>;

/// What asks at the same moment travels in one frame, as through the router, with nothing behind it.
struct FramedEcho {
    queue: mpsc::Sender<(Bytes, Reply)>,
}

impl FramedEcho {
    fn start(client: EchoClient<Channel>) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            if let Err(error) = exchange(client, waiting).await {
                tracing::warn!(%error, "the framed echo ended");
            }
        });
        FramedEcho { queue }
    }
}

async fn exchange(mut client: EchoClient<Channel>, mut waiting: mpsc::Receiver<(Bytes, Reply)>) -> anyhow::Result<()> {
    let (frames, mut outgoing) = mpsc::channel::<Frame>(FRAMES_AHEAD);
    let opened = client.exchange(futures::stream::poll_fn(move |cx| outgoing.poll_recv(cx))).await?;
    let mut answers = opened.into_inner();
    let mut sent = BTreeMap::<u64, Reply>::new();
    let (mut next_id, mut asked) = (0, Vec::with_capacity(QUEUE));
    loop {
        tokio::select! {
            biased;
            frame = answers.message() => {
                for item in frame?.context("the stream ended")?.items {
                    if let Some(reply) = sent.remove(&item.id) {
                        let _ = reply.send(());
                    }
                }
            }
            permit = frames.reserve(), if !asked.is_empty() => {
                let items = asked.drain(..).map(|(value, reply)| {
                    next_id += 1;
                    sent.insert(next_id, reply);
                    Item { id: next_id, value }
                });
                permit?.send(Frame { items: items.collect() });
            }
            count = waiting.recv_many(&mut asked, QUEUE), if asked.len() < QUEUE => {
                if count == 0 {
                    return Ok(());
                }
            }
        }
    }
}

impl Target for FramedEcho {
    async fn put(&self, _: usize, _: Bytes, value: Bytes) -> anyhow::Result<()> {
        let (reply, answer) = oneshot::channel();
        self.queue.send((value, reply)).await?;
        Ok(answer.await?)
    }

    async fn get(&self, _: usize, _: Bytes) -> anyhow::Result<bool> {
        anyhow::bail!("an echo keeps nothing")
    }

    async fn scan(&self, _: usize, _: Bytes, _: Bytes, _: u32) -> anyhow::Result<usize> {
        anyhow::bail!("an echo keeps nothing")
    }
}
