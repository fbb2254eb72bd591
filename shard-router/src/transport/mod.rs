//! How a request reaches a node: in the process, as a frame, or as a gRPC call of its own.

mod framed;
mod unary;

use crate::breaker::Breaker;
use crate::config::{RouterConfig, Transport};
use crate::counters::Counting;
use crate::policy::Failure;
use metadb_proto::kv::{self, request, response};
use metadb_proto::v1::{self, NodeRef};
use metadb_proto::{Error, limits, seam};
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};

/// What a caller is told to wait when a node can't be reached.
pub(crate) const RETRY_AFTER: Duration = Duration::from_millis(50);
/// A node that is silent for less may only be busy.
const SILENCE: Duration = Duration::from_millis(500);
/// How often an idle connection is probed, and how long the answer may take, so that a silent peer is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Window of a stream and of a connection, in bytes: a few pages in flight.
const WINDOW_BYTES: u32 = 16 << 20;
/// Most nodes to which connections are kept; more than a cluster has, so that a stream of made-up addresses is bounded.
const LINKS: usize = 1024;

/// How to open connections.
#[derive(Clone)]
pub(crate) struct Dial {
    pub(crate) authorization: Option<MetadataValue<Ascii>>,
    pub(crate) connect_timeout: Duration,
    pub(crate) counting: Arc<Counting>,
}

impl Dial {
    pub(crate) async fn channel(&self, address: &str) -> Result<Channel, Error> {
        self.counting.connects.one();
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|_| Error::invalid("address", "host:port", address))?
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        let unreachable = |why: String| Error::unavailable(format!("node at {address} can't be reached: {why}"), RETRY_AFTER);
        match tokio::time::timeout(self.connect_timeout, endpoint.connect()).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => Err(unreachable(error.to_string())),
            Err(_) => Err(unreachable(format!("no answer within {} ms", self.connect_timeout.as_millis()))),
        }
    }

    pub(crate) fn request<M>(&self, message: M) -> tonic::Request<M> {
        let mut request = tonic::Request::new(message);
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        request
    }
}

/// One way to one node.
enum Link {
    Framed(framed::Framed),
    Unary(Box<unary::Unary>),
}

/// All nodes that were ever asked.
pub(crate) struct Nodes {
    config: Arc<RouterConfig>,
    dial: Dial,
    since: Instant,
    links: RwLock<BTreeMap<String, Arc<Way>>>,
}

/// The way to a node, and whether it is worth taking.
struct Way {
    link: Link,
    breaker: Mutex<Breaker>,
}

impl Nodes {
    pub(crate) fn new(config: Arc<RouterConfig>, dial: Dial) -> Self {
        Nodes { config, dial, since: Instant::now(), links: RwLock::default() }
    }

    /// Asks one node once.
    pub(crate) async fn call(&self, node: &NodeRef, body: request::Body, until: Instant) -> Result<response::Body, Failure> {
        let effects = kv::has_effects(&body);
        let patience = until.saturating_duration_since(Instant::now());
        let late = || {
            self.dial.counting.timeouts.one();
            Err(Failure::Lost(lost(effects, format!("node {} at {} did not answer in time", node.node_id, node.address))))
        };
        if let Some(local) = self.config.local.as_ref().filter(|local| local.node_id == node.node_id) {
            let call = tokio::time::timeout(patience, local.kv.call(&local.principal, body)).await;
            return call.map_or_else(|_| late(), |result| result.map_err(Failure::Answered));
        }
        let way = self.way(&node.address);
        way.breaker.lock().admit(self.since.elapsed()).map_err(|wait| {
            let message = format!("node {} at {} has not answered for a while", node.node_id, node.address);
            Failure::NotSent(Error::unavailable(message, wait))
        })?;
        let asked = async {
            match &way.link {
                Link::Framed(framed) => framed.call(body).await,
                Link::Unary(unary) => unary.call(body, effects).await,
            }
        };
        let result = tokio::time::timeout(patience, asked).await.unwrap_or_else(|_| late());
        // A caller in a hurry says nothing of the node.
        if !matches!(result, Err(Failure::Lost(_) | Failure::NotSent(_))) || patience >= SILENCE {
            self.note(&way, node, &result);
        }
        result
    }

    fn note(&self, way: &Way, node: &NodeRef, result: &Result<response::Body, Failure>) {
        match result {
            Ok(_) | Err(Failure::Answered(_)) => {
                let mut breaker = way.breaker.lock();
                if breaker.is_open() {
                    tracing::info!(node = node.node_id, address = node.address, "the node answers again");
                }
                breaker.answered();
            }
            Err(Failure::Lost(error) | Failure::NotSent(error)) => {
                if way.breaker.lock().failed(self.since.elapsed(), seam::random_u64()) {
                    self.dial.counting.breakers_opened.one();
                    tracing::info!(node = node.node_id, address = node.address, %error, "the node is not asked for a moment");
                }
            }
        }
    }

    fn way(&self, address: &str) -> Arc<Way> {
        if let Some(way) = self.links.read().get(address) {
            return Arc::clone(way);
        }
        let mut links = self.links.write();
        if links.len() >= LINKS && !links.contains_key(address) {
            links.pop_first();
        }
        let link = || match self.config.transport {
            Transport::Framed => Link::Framed(framed::Framed::start(address.to_owned(), self.dial.clone(), self.config.in_flight_per_node)),
            Transport::Unary => Link::Unary(Box::new(unary::Unary::new(address.to_owned(), self.dial.clone()))),
        };
        let make = || Arc::new(Way { link: link(), breaker: Mutex::default() });
        Arc::clone(links.entry(address.to_owned()).or_insert_with(make))
    }
}

/// The error of a request that was sent and not answered.
pub(crate) fn lost(effects: bool, message: String) -> Error {
    if effects { Error::UnknownOutcome { message } } else { Error::unavailable(message, RETRY_AFTER) }
}

/// What a gRPC status says of requests that it ended.
pub(crate) fn ended(status: &tonic::Status, sent: bool, effects: bool) -> Failure {
    use tonic::Code;
    if matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented | Code::InvalidArgument) {
        return Failure::Answered(Error::from_status(status, effects));
    }
    let message = format!("{}: {}", status.code(), status.message());
    if sent { Failure::Lost(lost(effects, message)) } else { Failure::NotSent(Error::unavailable(message, RETRY_AFTER)) }
}

pub(crate) fn kv_client(channel: Channel) -> v1::kv_client::KvClient<Channel> {
    v1::kv_client::KvClient::new(channel).max_decoding_message_size(limits::MESSAGE_BYTES).max_encoding_message_size(limits::MESSAGE_BYTES)
}
