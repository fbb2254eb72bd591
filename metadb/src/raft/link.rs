//! One stream to each other node, shared by all groups.
//!
//! Requests wait in a bounded queue; whatever waits at a moment leaves in one frame. Responses come in any order and are matched by id.
//! While the stream is down every request fails at once, so that openraft backs off; reconnecting backs off too. A stream on which
//! nothing came back for [`STALLED`] although something was asked is given up.

use crate::clock::{self, Clocks};
use crate::metrics::PeerNumbers;
use bytes::Bytes;
use metadb_proto::principal::ClusterSecret;
use metadb_proto::v1::peer_client::PeerClient;
use metadb_proto::v1::{PeerFrame, PeerMessage, PeerVerb};
use metadb_proto::{Error, seam, v1};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};

/// Largest gRPC message between nodes: one entry of the largest size in a frame, with room for what rides along.
pub(crate) const PEER_MESSAGE_BYTES: usize = 16 << 20;
/// A frame takes no further message once it has so many bytes.
const FRAME_BYTES: usize = 1 << 20;
/// A frame takes no more messages than this.
const FRAME_MESSAGES: usize = 256;
/// Requests waiting to be sent to one node.
const OUTBOX: usize = 1024;
/// Frames handed to the transport and not yet taken by it.
const FRAMES_AHEAD: usize = 4;
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long nothing may come back while something is waited for.
const STALLED: Duration = Duration::from_secs(3);
/// First pause before connecting again; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// Longest pause before connecting again: a node that came back is found within it.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Requests given up by their callers are forgotten when so many are waited for.
const FORGET_AT: usize = 4096;

/// The metadata that say for which cluster and node a stream is meant. Addresses are used again: what another node acknowledges that
/// happens to be there now must not be taken for the word of the node meant.
pub(crate) const MEANT_FOR: &str = "cairn-to";

/// Why a request brought no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum LinkError {
    /// The node can't be reached now.
    #[error("node {node_id} at {address} can't be reached: {message}")]
    Down {
        /// Which node.
        node_id: u64,
        /// Where.
        address: String,
        /// What happened.
        message: String,
    },
    /// No answer in time.
    #[error("node {node_id} did not answer within {limit:?}")]
    Timeout {
        /// Which node.
        node_id: u64,
        /// The limit.
        limit: Duration,
    },
    /// The node answered with an error.
    #[error("node {node_id} refused: {error}")]
    Refused {
        /// Which node.
        node_id: u64,
        /// Its error.
        error: Error,
    },
}

type Reply = oneshot::Sender<Result<Bytes, LinkError>>;

struct Outgoing {
    group_id: u32,
    verb: PeerVerb,
    payload: Bytes,
    reply: Reply,
}

/// An answer on its way.
pub(crate) struct Waiting(oneshot::Receiver<Result<Bytes, LinkError>>);

impl Waiting {
    /// Waits for it, at most until a moment.
    pub(crate) async fn until(&mut self, link: &Link, limit: Duration, deadline: Instant) -> Result<Bytes, LinkError> {
        let left = deadline.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, &mut self.0).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(link.down("the link was closed")),
            Err(_) => Err(LinkError::Timeout { node_id: link.node_id, limit }),
        }
    }
}

/// The streams of a node to all others.
#[derive(Clone)]
pub(crate) struct Links(Arc<Inner>);

/// The value of [`MEANT_FOR`].
pub(crate) fn meant_for(cluster_id: &str, node_id: u64) -> String {
    format!("{cluster_id}/{node_id}")
}

struct Inner {
    token: MetadataValue<tonic::metadata::Ascii>,
    cluster_id: String,
    clocks: Arc<Clocks>,
    links: Mutex<BTreeMap<(u64, String), Arc<Link>>>,
}

/// The stream to one node.
pub(crate) struct Link {
    node_id: u64,
    address: String,
    outbox: mpsc::Sender<Outgoing>,
    traffic: Arc<Traffic>,
}

/// What went over a link since it was made.
#[derive(Debug, Default)]
struct Traffic {
    up: AtomicBool,
    connects: AtomicU64,
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    frames: AtomicU64,
    messages: AtomicU64,
}

impl Links {
    /// Links of a node, which proves itself with the cluster's secret.
    pub(crate) fn new(node_id: u64, cluster_id: &str, secret: &ClusterSecret, clocks: Arc<Clocks>) -> Self {
        let token = format!("Bearer {}", secret.node_token(node_id));
        let token = token.parse().expect("a node token is made of digits, dots and hex");
        Links(Arc::new(Inner { token, cluster_id: cluster_id.to_owned(), clocks, links: Mutex::default() }))
    }

    /// The link to a node, made if there is none. A node that moved to another address gets a new one, and the old one ends.
    pub(crate) fn to(&self, node_id: u64, address: &str) -> Arc<Link> {
        let mut links = self.0.links.lock();
        if let Some(link) = links.get(&(node_id, address.to_owned())) {
            return Arc::clone(link);
        }
        links.retain(|(id, _), _| *id != node_id);
        let (outbox, waiting) = mpsc::channel(OUTBOX);
        let traffic = Arc::new(Traffic::default());
        let link = Arc::new(Link { node_id, address: address.to_owned(), outbox, traffic: Arc::clone(&traffic) });
        let session = Session {
            traffic,
            node_id,
            address: address.to_owned(),
            proof: self.proof(node_id),
            clocks: Arc::clone(&self.0.clocks),
            outbox: waiting,
            waiting: BTreeMap::new(),
            next_id: 1,
            asked: None,
        };
        tokio::spawn(run(session));
        links.insert((node_id, address.to_owned()), Arc::clone(&link));
        link
    }

    /// What went over the link to each node.
    pub(crate) fn numbers(&self) -> Vec<PeerNumbers> {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let numbers = |link: &Arc<Link>| PeerNumbers {
            node_id: link.node_id,
            up: link.traffic.up.load(Ordering::Relaxed),
            connects: read(&link.traffic.connects),
            sent_bytes: read(&link.traffic.sent_bytes),
            received_bytes: read(&link.traffic.received_bytes),
            frames: read(&link.traffic.frames),
            messages: read(&link.traffic.messages),
        };
        self.0.links.lock().values().map(numbers).collect()
    }

    /// A connection of its own, for a snapshot.
    pub(crate) async fn snapshot_client(&self, address: &str) -> Result<PeerClient<Channel>, String> {
        connect(address).await
    }

    /// What a request to a node must carry.
    pub(crate) fn proof(&self, to: u64) -> Proof {
        let meant_for = meant_for(&self.0.cluster_id, to).parse().expect("the cluster's id was checked when the node started");
        Proof { token: self.0.token.clone(), meant_for }
    }
}

/// Who asks, proven, and who is meant.
pub(crate) struct Proof {
    token: MetadataValue<tonic::metadata::Ascii>,
    meant_for: MetadataValue<tonic::metadata::Ascii>,
}

impl Proof {
    /// Adds it to a request.
    pub(crate) fn sign<T>(&self, request: &mut tonic::Request<T>) {
        request.metadata_mut().insert("authorization", self.token.clone());
        request.metadata_mut().insert(MEANT_FOR, self.meant_for.clone());
    }
}

impl Link {
    /// Which node it leads to.
    pub(crate) fn node_id(&self) -> u64 {
        self.node_id
    }

    /// Where it leads to.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Queues a request; requests leave in the order in which this returned.
    pub(crate) async fn begin(&self, group_id: u32, verb: PeerVerb, payload: Bytes) -> Result<Waiting, LinkError> {
        let (reply, waiting) = oneshot::channel();
        let outgoing = Outgoing { group_id, verb, payload, reply };
        self.outbox.send(outgoing).await.map_err(|_| self.down("the link was closed"))?;
        Ok(Waiting(waiting))
    }

    /// Asks and waits, at most `limit`.
    pub(crate) async fn call(&self, group_id: u32, verb: PeerVerb, payload: Bytes, limit: Duration) -> Result<Bytes, LinkError> {
        let deadline = Instant::now() + limit;
        self.begin(group_id, verb, payload).await?.until(self, limit, deadline).await
    }

    fn down(&self, message: &str) -> LinkError {
        LinkError::Down { node_id: self.node_id, address: self.address.clone(), message: message.to_owned() }
    }
}

async fn connect(address: &str) -> Result<PeerClient<Channel>, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| error.to_string())?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .initial_stream_window_size(Some(8 << 20))
        .initial_connection_window_size(Some(16 << 20))
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(2));
    match tokio::time::timeout(CONNECT_TIMEOUT, endpoint.connect()).await {
        Ok(Ok(channel)) => {
            Ok(PeerClient::new(channel).max_decoding_message_size(PEER_MESSAGE_BYTES).max_encoding_message_size(PEER_MESSAGE_BYTES))
        }
        Ok(Err(error)) => Err(error_chain(&error)),
        Err(_) => Err(format!("connecting took longer than {CONNECT_TIMEOUT:?}")),
    }
}

/// An error and all that caused it.
pub(super) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// What a link's task knows.
struct Session {
    node_id: u64,
    address: String,
    traffic: Arc<Traffic>,
    proof: Proof,
    clocks: Arc<Clocks>,
    outbox: mpsc::Receiver<Outgoing>,
    waiting: BTreeMap<u64, Reply>,
    next_id: u64,
    /// A message that is not answered yet, and when it left: its answer tells what the node's clock shows.
    asked: Option<(u64, Instant)>,
}

async fn run(mut session: Session) {
    let mut pause = FIRST_PAUSE;
    loop {
        let began = Instant::now();
        let ended = session.connected().await;
        session.traffic.up.store(false, Ordering::Relaxed);
        let Err(message) = ended else { return };
        if began.elapsed() > LONGEST_PAUSE * 4 {
            pause = FIRST_PAUSE;
        }
        tracing::debug!(node_id = session.node_id, address = session.address, message, "link is down");
        let jitter = seam::random_u64() % 50;
        let rest = pause + pause * u32::try_from(jitter).unwrap_or(0) / 100;
        pause = (pause * 2).min(LONGEST_PAUSE);
        if !session.refuse_for(rest, &message).await {
            return;
        }
    }
}

impl Session {
    fn down(&self, message: &str) -> LinkError {
        LinkError::Down { node_id: self.node_id, address: self.address.clone(), message: message.to_owned() }
    }

    /// Fails what waits and what comes, for a while. False: nobody holds the link any more.
    async fn refuse_for(&mut self, duration: Duration, message: &str) -> bool {
        let error = self.down(message);
        self.asked = None;
        for (_, reply) in std::mem::take(&mut self.waiting) {
            // A caller that went away needs no answer; the same below.
            let _ = reply.send(Err(error.clone()));
        }
        let deadline = Instant::now() + duration;
        loop {
            tokio::select! {
                biased;
                outgoing = self.outbox.recv() => match outgoing {
                    Some(outgoing) => drop(outgoing.reply.send(Err(error.clone()))),
                    None => return false,
                },
                () = tokio::time::sleep_until(deadline) => return true,
            }
        }
    }

    /// Connects and exchanges frames until that fails. `Ok`: nobody holds the link any more.
    async fn connected(&mut self) -> Result<(), String> {
        let mut client = connect(&self.address).await?;
        let (frames, outgoing) = mpsc::channel(FRAMES_AHEAD);
        let mut request = tonic::Request::new(ReceiverStream::new(outgoing));
        self.proof.sign(&mut request);
        let response = tokio::time::timeout(CONNECT_TIMEOUT, client.exchange(request)).await;
        let response = response.map_err(|_| "the stream was not answered".to_owned())?;
        let incoming = response.map_err(|status| status.to_string())?.into_inner();
        tracing::debug!(node_id = self.node_id, address = self.address, "link is up");
        self.traffic.up.store(true, Ordering::Relaxed);
        self.traffic.connects.fetch_add(1, Ordering::Relaxed);
        self.exchange(frames, incoming).await
    }

    async fn exchange(&mut self, frames: mpsc::Sender<PeerFrame>, mut incoming: tonic::Streaming<PeerFrame>) -> Result<(), String> {
        let mut heard = Instant::now();
        let mut ready: Option<PeerFrame> = None;
        loop {
            tokio::select! {
                biased;
                frame = incoming.message() => match frame {
                    Ok(Some(frame)) => {
                        heard = Instant::now();
                        self.deliver(frame);
                    }
                    Ok(None) => return Err("the stream ended".to_owned()),
                    Err(status) => return Err(status.to_string()),
                },
                permit = frames.reserve(), if ready.is_some() => match (permit, ready.take()) {
                    (Ok(permit), Some(frame)) => permit.send(frame),
                    _ => return Err("the stream was closed".to_owned()),
                },
                outgoing = self.outbox.recv(), if ready.is_none() => match outgoing {
                    Some(outgoing) => {
                        if self.waiting.is_empty() {
                            heard = Instant::now();
                        }
                        ready = self.frame(outgoing);
                    }
                    None => return Ok(()),
                },
                () = tokio::time::sleep_until(heard + STALLED) => {
                    self.waiting.retain(|_, reply| !reply.is_closed());
                    if !self.waiting.is_empty() {
                        return Err(format!("nothing came back for {STALLED:?}"));
                    }
                    heard = Instant::now();
                }
            }
        }
    }

    fn deliver(&mut self, frame: PeerFrame) {
        for message in frame.messages {
            self.traffic.received_bytes.fetch_add(message.payload.len() as u64, Ordering::Relaxed);
            if let Some((id, asked)) = self.asked
                && id == message.id
            {
                self.asked = None;
                self.clocks.heard(self.node_id, asked, clock::now(), frame.unix_ms);
            }
            let Some(reply) = self.waiting.remove(&message.id) else { continue };
            let result = match message.error {
                None => Ok(message.payload),
                Some(error) => Err(LinkError::Refused { node_id: self.node_id, error: Error::from_proto(error) }),
            };
            let _ = reply.send(result);
        }
    }

    /// A frame of this request and whatever waits behind it.
    fn frame(&mut self, first: Outgoing) -> Option<PeerFrame> {
        let mut messages = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(outgoing) = next.take() {
            // Given up while it waited: the other node need not hear of it.
            if !outgoing.reply.is_closed() {
                bytes += outgoing.payload.len();
                messages.push(self.register(outgoing));
            }
            if bytes < FRAME_BYTES && messages.len() < FRAME_MESSAGES {
                next = self.outbox.try_recv().ok();
            }
        }
        self.traffic.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.traffic.messages.fetch_add(messages.len() as u64, Ordering::Relaxed);
        self.traffic.frames.fetch_add(1, Ordering::Relaxed);
        if let (None, Some(message)) = (self.asked, messages.first()) {
            self.asked = Some((message.id, clock::now()));
        }
        if messages.is_empty() { None } else { Some(PeerFrame { messages, unix_ms: seam::unix_ms() }) }
    }

    fn register(&mut self, outgoing: Outgoing) -> PeerMessage {
        let id = self.next_id;
        self.next_id += 1;
        if self.waiting.len() >= FORGET_AT {
            self.waiting.retain(|_, reply| !reply.is_closed());
        }
        self.waiting.insert(id, outgoing.reply);
        v1::PeerMessage { id, group_id: outgoing.group_id, verb: outgoing.verb.into(), payload: outgoing.payload, error: None }
    }
}

/// The far end of a link without a stream, in a test.
#[cfg(test)]
pub(crate) struct FarEnd(mpsc::Receiver<Outgoing>);

#[cfg(test)]
impl FarEnd {
    /// A link to it.
    pub(crate) fn new(node_id: u64) -> (Arc<Link>, Self) {
        let (outbox, waiting) = mpsc::channel(OUTBOX);
        (Arc::new(Link { node_id, address: "nowhere:1".to_owned(), outbox, traffic: Arc::default() }), FarEnd(waiting))
    }

    /// The oldest request that came, to be answered.
    pub(crate) fn asked(&mut self) -> Option<impl FnOnce(Bytes) + use<>> {
        let reply = self.0.try_recv().ok()?.reply;
        Some(move |answer| assert!(reply.send(Ok(answer)).is_ok(), "somebody waits for the answer"))
    }
}
