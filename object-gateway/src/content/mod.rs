//! The content store: immutable contents, three copies on distinct nodes, checksummed from the first hasher to the last reader.
//!
//! A write streams to this node and two others and is acknowledged when two copies are durable; by then the third is durable as well or
//! a durable debt says that it is owed (`debts`). A read verifies each chunk before it is served, goes over to another copy when one
//! fails, and has the bad copy repaired. No content is ever changed: a new version is a new content. Which contents no name leads to any
//! more is known to whoever owns names: [`crate::collect`] asks there, and has the copies removed here.

mod counters;
mod debts;
mod door;
mod format;
mod limits;
mod local;
mod orphans;
mod peers;
mod place;
mod read;
mod removal;
mod repair;
mod room;
mod scrub;
mod shares;
mod write;

pub use counters::Counters;
pub use door::ContentDoor;
pub use fs_layer::ContentPart;
pub use limits::{ACK_COPIES, CHUNK_BYTES, CONNECTION_WINDOW_BYTES, COPIES, ORPHAN_AGE, STREAM_WINDOW_BYTES};
pub use orphans::OrphanReport;
pub use peers::{Peer, Peers};
pub use read::ContentStream;
pub use room::Room;
pub use scrub::{ScrubReport, ScrubStep};
pub use write::WriteError;

use counters::Counting;
use debts::Debts;
use format::Footer;
use futures::future::BoxFuture;
use local::LocalStore;
use metadb_proto::Error;
use metadb_proto::principal::ClusterSecret;
use peers::Links;
use shares::Shares;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// Generated from `proto/content/v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::restriction, reason = "generated code, the proto carries the comments")]
pub mod content_v1 {
    tonic::include_proto!("content.v1");
}

/// The proto, compiled, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/content.v1.descriptors.bin"));

/// Settings.
#[derive(Debug, Clone)]
pub struct ContentConfig {
    /// This node.
    pub node_id: u64,
    /// 32 hex digits. A folder of another cluster is refused.
    pub cluster_id: String,
}

impl ContentConfig {
    fn cluster_bytes(&self) -> Result<[u8; 16], Error> {
        let bytes = hex::decode(&self.cluster_id).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.ok_or_else(|| Error::invalid("cluster_id", "32 hex digits", self.cluster_id.clone()))
    }
}

/// Where it is written down which nodes hold a content. Implemented for [`fs_layer::Fs`].
pub trait Ledger: Send + Sync + 'static {
    /// Notes which nodes hold a content. [`Error::NotFound`] as long as no row names it.
    fn record_copies(&self, tenant_id: u64, content_id: [u8; 16], nodes: Vec<u64>) -> BoxFuture<'_, Result<(), Error>>;

    /// What is known of a content: its size, checksum and copies.
    fn content(&self, tenant_id: u64, content_id: [u8; 16]) -> BoxFuture<'_, Result<Option<ContentPart>, Error>>;
}

impl Ledger for fs_layer::Fs {
    fn record_copies(&self, tenant_id: u64, content_id: [u8; 16], nodes: Vec<u64>) -> BoxFuture<'_, Result<(), Error>> {
        let namespace = self.namespace(tenant_id);
        Box::pin(async move { namespace.record_copies(&content_id, &nodes).await.map(|_| ()) })
    }

    fn content(&self, tenant_id: u64, content_id: [u8; 16]) -> BoxFuture<'_, Result<Option<ContentPart>, Error>> {
        let namespace = self.namespace(tenant_id);
        Box::pin(async move { Ok(namespace.content(&content_id).await?.map(|info| info.part)) })
    }
}

/// What the store works with.
pub struct Parts {
    /// The nodes of the cluster.
    pub peers: Arc<dyn Peers>,
    /// Where copies are written down.
    pub ledger: Arc<dyn Ledger>,
    /// Proves this node to the others, and them to it.
    pub secret: ClusterSecret,
    /// Whether the folder's disk has room.
    pub room: Arc<dyn Room>,
}

/// A node's share of the content store, and its way to the others'. Cheap to clone.
#[derive(Clone)]
pub struct ContentStore(Arc<Inner>);

/// Places for writes through this node.
const WRITE_PLACES: shares::Bounds = shares::Bounds {
    places: limits::WRITES,
    of_one: limits::TENANT_WRITES,
    waiting: limits::WRITES_WAITING,
    patience: limits::WRITE_PATIENCE,
};

struct Inner {
    config: ContentConfig,
    local: Arc<LocalStore>,
    links: Links,
    ledger: Arc<dyn Ledger>,
    secret: ClusterSecret,
    debts: Debts,
    counting: Counting,
    repairs: mpsc::Sender<repair::Job>,
    discards: mpsc::Sender<repair::Discard>,
    writes: Arc<Shares>,
    reads: Arc<Semaphore>,
    inbound_writes: Arc<Semaphore>,
    inbound_fetches: Arc<Semaphore>,
    stragglers: Arc<Semaphore>,
    closing: CancellationToken,
}

impl ContentStore {
    /// Opens the folder, removes what was left half written, and starts the background work: repairs and debts.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a folder of another cluster or of a newer format; [`Error::Internal`] if the disk fails.
    pub fn open(path: &Path, config: ContentConfig, parts: Parts) -> Result<ContentStore, Error> {
        let local = Arc::new(LocalStore::open(path, config.cluster_bytes()?, parts.room)?);
        let debts = Debts::open(local.todo_folder())?;
        let links = Links::new(parts.peers, config.node_id, &parts.secret)?;
        let (repairs, repair_jobs) = mpsc::channel(limits::REPAIR_QUEUE);
        let (discards, discard_jobs) = mpsc::channel(limits::DISCARD_QUEUE);
        let inner = Arc::new(Inner {
            config,
            local,
            links,
            ledger: parts.ledger,
            secret: parts.secret,
            debts,
            counting: Counting::default(),
            repairs,
            discards,
            writes: Shares::new(WRITE_PLACES),
            reads: Arc::new(Semaphore::new(limits::READS)),
            inbound_writes: Arc::new(Semaphore::new(limits::INBOUND_WRITES)),
            inbound_fetches: Arc::new(Semaphore::new(limits::INBOUND_FETCHES)),
            stragglers: Arc::new(Semaphore::new(limits::STRAGGLERS)),
            closing: CancellationToken::new(),
        });
        let store = ContentStore(inner);
        tokio::spawn(store.clone().until_closed(repair::run(store.clone(), repair_jobs)));
        tokio::spawn(store.clone().until_closed(repair::run_discards(store.clone(), discard_jobs)));
        tokio::spawn(store.clone().until_closed(debts::run(store.clone())));
        Ok(store)
    }

    /// The gRPC door for the other nodes. Give the server [`STREAM_WINDOW_BYTES`] and [`CONNECTION_WINDOW_BYTES`].
    #[must_use]
    pub fn door(&self) -> content_v1::content_server::ContentServer<ContentDoor> {
        content_v1::content_server::ContentServer::new(ContentDoor::new(self.clone()))
            .max_decoding_message_size(limits::MESSAGE_BYTES)
            .max_encoding_message_size(limits::MESSAGE_BYTES)
    }

    /// What it did so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.0.counting.snapshot()
    }

    /// How many contents have fewer copies than they should.
    #[must_use]
    pub fn debts(&self) -> usize {
        self.0.debts.len()
    }

    /// Removes the copies of a content that was written and will never be named. Best effort, in the background: what stays is
    /// collected later.
    pub fn discard(&self, tenant_id: u64, part: &ContentPart) {
        self.0.debts.forget(&part.content_id);
        let job = repair::Discard { tenant_id, content_id: part.content_id, nodes: part.nodes.clone() };
        if self.0.discards.try_send(job).is_err() {
            tracing::debug!(content = %hex::encode(part.content_id), "too many abandoned contents; this one is left for collection");
        }
    }

    /// Stops the background work. Reads and writes that are under way go on.
    pub fn close(&self) {
        self.0.closing.cancel();
    }

    async fn until_closed(self, work: impl Future<Output = ()>) {
        let closing = self.0.closing.clone();
        drop(self);
        closing.run_until_cancelled(work).await;
    }

    fn node_id(&self) -> u64 {
        self.0.config.node_id
    }
}

impl std::fmt::Debug for ContentStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ContentStore(node {})", self.node_id())
    }
}

fn footer_of(part: &ContentPart) -> Footer {
    Footer { size_bytes: part.size_bytes, blake3: part.blake3 }
}

fn part_of(content: &content_v1::ContentRef) -> Result<ContentPart, Error> {
    Ok(ContentPart {
        content_id: fixed("content_id", &content.content_id)?,
        size_bytes: content.size_bytes,
        blake3: fixed("blake3", &content.blake3)?,
        nodes: content.nodes.clone(),
    })
}

fn ref_of(tenant_id: u64, part: &ContentPart) -> content_v1::ContentRef {
    content_v1::ContentRef {
        tenant_id,
        content_id: part.content_id.to_vec().into(),
        size_bytes: part.size_bytes,
        blake3: part.blake3.to_vec().into(),
        nodes: part.nodes.clone(),
    }
}

fn fixed<const N: usize>(field: &str, bytes: &[u8]) -> Result<[u8; N], Error> {
    bytes.try_into().map_err(|_| Error::invalid(field, format!("{N} bytes"), format!("{} bytes", bytes.len())))
}

#[cfg(test)]
mod tests;
