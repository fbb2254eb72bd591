//! The other nodes: who they are (told from outside), how to reach them, which of them failed lately or had no room.

use super::content_v1::content_client::ContentClient;
use super::limits::{CONNECT_TIMEOUT, CONNECTION_WINDOW_BYTES, FULL_TIME, MESSAGE_BYTES, STREAM_WINDOW_BYTES, SUSPECT_TIME};
use metadb_proto::Error;
use metadb_proto::principal::ClusterSecret;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its id.
    pub node_id: u64,
    /// `host:port` of its gRPC doors.
    pub address: String,
    /// Whether it stays: it gets new copies. One that leaves, or was removed, is still asked for those that it has.
    pub stays: bool,
}

/// The nodes of the cluster, this one included, as the directory has them. Dead ones are listed too: how many copies a content
/// should have depends on the size of the cluster; who answers is found out by asking.
pub trait Peers: Send + Sync + 'static {
    /// All of them, in any order. Called for each write: cheap.
    fn nodes(&self) -> Vec<Peer>;
}

struct Link {
    address: String,
    channel: Channel,
    suspect_until: Option<Instant>,
    full_until: Option<Instant>,
}

impl Link {
    fn is_suspect(&self, now: Instant) -> bool {
        self.suspect_until.is_some_and(|until| until > now)
    }

    fn is_full(&self, now: Instant) -> bool {
        self.full_until.is_some_and(|until| until > now)
    }
}

/// Connections to the other nodes, made when first used and kept.
pub(crate) struct Links {
    peers: Arc<dyn Peers>,
    own_id: u64,
    bearer: tonic::metadata::MetadataValue<tonic::metadata::Ascii>,
    links: Mutex<BTreeMap<u64, Link>>,
}

impl Links {
    pub(crate) fn new(peers: Arc<dyn Peers>, own_id: u64, secret: &ClusterSecret) -> Result<Self, Error> {
        let mut bearer: tonic::metadata::MetadataValue<_> =
            format!("Bearer {}", secret.node_token(own_id)).parse().map_err(|_| Error::internal("a node token is ASCII"))?;
        bearer.set_sensitive(true);
        Ok(Links { peers, own_id, bearer, links: Mutex::new(BTreeMap::new()) })
    }

    /// How many nodes stay in the cluster, and this one.
    pub(crate) fn cluster_size(&self) -> usize {
        let nodes = self.staying();
        nodes.len() + usize::from(!nodes.iter().any(|peer| peer.node_id == self.own_id))
    }

    fn staying(&self) -> Vec<Peer> {
        self.peers.nodes().into_iter().filter(|peer| peer.stays).collect()
    }

    /// The other nodes that stay, in the order in which they should hold this content, those that failed lately or had no room at the end.
    pub(crate) fn candidates(&self, content_id: &[u8; 16]) -> Vec<u64> {
        let mut others: Vec<u64> = self.staying().iter().map(|peer| peer.node_id).filter(|id| *id != self.own_id).collect();
        others.sort_unstable();
        others.dedup();
        super::place::rank(content_id, &mut others);
        let (now, links) = (Instant::now(), self.links.lock());
        let takes = |id: &u64| links.get(id).is_none_or(|link| !link.is_suspect(now) && !link.is_full(now));
        let (mut first, last): (Vec<u64>, Vec<u64>) = others.into_iter().partition(takes);
        first.extend(last);
        first
    }

    /// Whether this node comes first of all for this key.
    pub(crate) fn is_first_for(&self, key: &[u8; 16]) -> bool {
        let mut nodes: Vec<u64> = self.staying().iter().map(|peer| peer.node_id).chain([self.own_id]).collect();
        nodes.sort_unstable();
        nodes.dedup();
        super::place::rank(key, &mut nodes);
        nodes.first() == Some(&self.own_id)
    }

    /// The same nodes, those that failed lately at the end.
    pub(crate) fn suspects_last(&self, nodes: Vec<u64>) -> Vec<u64> {
        let (now, links) = (Instant::now(), self.links.lock());
        let is_suspect = |id: &u64| links.get(id).is_some_and(|link| link.is_suspect(now));
        let (last, mut first): (Vec<u64>, Vec<u64>) = nodes.into_iter().partition(is_suspect);
        first.extend(last);
        first
    }

    /// Whether a node failed a moment ago.
    pub(crate) fn is_suspect(&self, node_id: u64) -> bool {
        self.links.lock().get(&node_id).is_some_and(|link| link.is_suspect(Instant::now()))
    }

    /// Whether a node had no room a moment ago.
    pub(crate) fn is_full(&self, node_id: u64) -> bool {
        self.links.lock().get(&node_id).is_some_and(|link| link.is_full(Instant::now()))
    }

    /// How many other nodes that stay had room when they were last asked.
    pub(crate) fn others_with_room(&self) -> usize {
        let (now, staying, links) = (Instant::now(), self.staying(), self.links.lock());
        let has_room = |peer: &&Peer| peer.node_id != self.own_id && links.get(&peer.node_id).is_none_or(|link| !link.is_full(now));
        staying.iter().filter(has_room).count()
    }

    /// Notes that a node has no room for a copy. It answers, and is read from as ever.
    pub(crate) fn note_full(&self, node_id: u64) {
        if let Some(link) = self.links.lock().get_mut(&node_id) {
            link.full_until = Some(Instant::now() + FULL_TIME);
            link.suspect_until = None;
        }
    }

    /// Notes that a node did not answer.
    pub(crate) fn suspect(&self, node_id: u64) {
        if let Some(link) = self.links.lock().get_mut(&node_id) {
            link.suspect_until = Some(Instant::now() + SUSPECT_TIME);
        }
    }

    /// Notes that a node took a copy.
    pub(crate) fn trust(&self, node_id: u64) {
        if let Some(link) = self.links.lock().get_mut(&node_id) {
            (link.suspect_until, link.full_until) = (None, None);
        }
    }

    /// A client of a node's `content.v1`.
    pub(crate) fn client(&self, node_id: u64) -> Result<ContentClient<Channel>, Error> {
        let address = self.peers.nodes().into_iter().find(|peer| peer.node_id == node_id).map(|peer| peer.address);
        let address = address.ok_or_else(|| Error::not_found(format!("node {node_id} is not a node of this cluster")))?;
        let mut links = self.links.lock();
        let channel = match links.get(&node_id) {
            Some(link) if link.address == address => link.channel.clone(),
            _ => {
                let channel = connect(&address)?;
                links.insert(node_id, Link { address, channel: channel.clone(), suspect_until: None, full_until: None });
                channel
            }
        };
        Ok(ContentClient::new(channel).max_decoding_message_size(MESSAGE_BYTES).max_encoding_message_size(MESSAGE_BYTES))
    }

    /// A request that proves which node asks.
    pub(crate) fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert("authorization", self.bearer.clone());
        request
    }
}

fn connect(address: &str) -> Result<Channel, Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| Error::invalid("address", "host:port", address))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(false);
    Ok(endpoint.connect_lazy())
}
