//! One node put together from the libraries: storage, replicas, router, namespace, content, doors.
//!
//! The order matters and is told here only. Refusals come first, before anything is written: settings, data folder, ports. Then the node
//! gets its identity, opens its state, opens the gRPC door (other nodes need it to elect leaders), makes the cluster if it is the
//! first, learns who the other nodes are, and opens the S3 door last. It stops in the reverse order.

mod check;
mod http;
mod identity;
mod peers;
mod room;
mod scrub;
mod serve;
mod settings;
mod stop;
mod storage;
mod waiting;

pub(crate) use check::check;
pub(crate) use stop::Stop;

use crate::config::NodeConfig;
use crate::datadir::{DataDir, Identity};
use crate::failure::{Code, Failure};
use crate::telemetry::Telemetry;
use fs_layer::Fs;
use metadb::node::{Node, Parts, Timings};
use metadb_proto::Principal;
use metadb_proto::principal::ClusterSecret;
use metadb_proto::settings::{Labels, Settings};
use object_gateway::content::{self, ContentConfig, ContentStore};
use peers::DirectoryPeers;
use room::ContentRoom;
use serve::Running;
use shard_router::credentials::DirectoryAuthenticator;
use shard_router::{Local, Router, RouterConfig};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1024;
/// Pause between two attempts at what needs the rest of the cluster.
const RETRY_EVERY: Duration = Duration::from_millis(100);
/// How often is told that the node still waits for the rest of the cluster.
const TELL_EVERY: u32 = 50;

/// Runs a node until it is told to stop.
pub(crate) async fn run(config: NodeConfig, telemetry: Telemetry, mut stop: Stop) -> Result<(), Failure> {
    let secret = config.secret()?;
    let mut folder = DataDir::open(&config.data, Some(config.cluster_id.as_str()).filter(|id| !id.is_empty()), &secret)?;
    let mut doors = Listeners {
        grpc: listen("listen", &config.listen).await?,
        s3: bind("s3.listen", &config.s3.listen).await?,
        http: if config.http.listen.is_empty() { None } else { Some(listen("http.listen", &config.http.listen).await?) },
    };
    let establishing = waiting::while_answering(doors.grpc, &secret, identity::establish(&config, &mut folder, &secret));
    let (grpc, identity) = tokio::select! {
        biased;
        () = stop.wait() => return Ok(()),
        established = establishing => established?,
    };
    doors.grpc = grpc;
    tracing::info!(node_id = identity.node_id, cluster_id = identity.cluster_id, data = %config.data.display(), "starting");
    crate::telemetry::otlp::start(&config.trace, identity.node_id)?;
    let wired = Box::pin(Wired::open(&config, &folder, &identity, secret)).await?;
    let closing = CancellationToken::new();
    let mut running = Running::start(&wired, &config, doors, telemetry, &closing)?;
    let outcome = tokio::select! {
        biased;
        () = stop.wait() => Ok(false),
        () = wired.node.condemned() => Ok(true),
        failure = Box::pin(running.work(&config, &identity, &wired)) => Err(failure),
    };
    tracing::info!("stopping");
    running.shut_down(&wired, &closing, Duration::from_millis(config.stop_grace_ms)).await;
    tracing::info!("stopped");
    if outcome? { Err(storage::start_again()) } else { Ok(()) }
}

/// The ports of the doors. The S3 one is taken but closed: clients are refused, and go elsewhere, until the door opens.
struct Listeners {
    grpc: TcpListener,
    s3: TcpSocket,
    http: Option<TcpListener>,
}

async fn listen(field: &str, address: &str) -> Result<TcpListener, Failure> {
    let socket = bind(field, address).await?;
    socket.listen(BACKLOG).map_err(|error| cant_listen(field, address, &error))
}

async fn bind(field: &str, address: &str) -> Result<TcpSocket, Failure> {
    let bound = async {
        let mut found = tokio::net::lookup_host(address).await?;
        let at = found.next().ok_or_else(|| std::io::Error::from(std::io::ErrorKind::AddrNotAvailable))?;
        let socket = if at.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(at)?;
        Ok(socket)
    };
    bound.await.map_err(|error| cant_listen(field, address, &error))
}

fn cant_listen(field: &str, address: &str, error: &std::io::Error) -> Failure {
    let code = if error.kind() == std::io::ErrorKind::AddrInUse { Code::Conflict } else { Code::Failed };
    let hint = format!("choose another address for {field}, or stop what has it");
    Failure::new(code, format!("can't listen at {address} ({field}): {error}")).hint(hint)
}

/// The parts of a node, connected.
struct Wired {
    node: Arc<Node>,
    router: Router,
    settings: Settings,
    kept_settings: PathBuf,
    fs: Fs,
    content: ContentStore,
    authenticator: Arc<DirectoryAuthenticator>,
    peers: Arc<DirectoryPeers>,
}

impl Wired {
    async fn open(config: &NodeConfig, folder: &DataDir, identity: &Identity, secret: ClusterSecret) -> Result<Self, Failure> {
        let settings = Settings::new(Labels::of(&config.labels));
        let node = open_database(config, folder, identity, &secret, &settings).await?;
        let mut seeds = config.join.clone();
        seeds.push(config.address().to_owned());
        let local = Local { node_id: identity.node_id, kv: Arc::clone(&node) as _, principal: Principal::Node(identity.node_id) };
        let token = secret.node_token(identity.node_id);
        let router = Router::new(RouterConfig { seeds, token, local: Some(local), ..RouterConfig::default() });
        let fs = Fs::new(router.clone());
        let authenticator = Arc::new(DirectoryAuthenticator::new(router.clone(), secret.clone()));
        let state = folder.folder("state")?;
        let peers = Arc::new(DirectoryPeers::open(state.join("peers.toml")));
        let content_config = ContentConfig { node_id: identity.node_id, cluster_id: identity.cluster_id.clone() };
        let path = folder.folder("content")?;
        let room = Arc::new(ContentRoom::new(path.clone(), config.storage.reserve_mib << 20));
        let parts = content::Parts { peers: Arc::clone(&peers) as _, ledger: Arc::new(fs.clone()), secret, room };
        let content =
            ContentStore::open(&path, content_config, parts).map_err(|error| Failure::from(error).during("opening the content store"))?;
        node.also_scrub(vec![Arc::new(scrub::Contents(content.clone()))]);
        Ok(Wired { node, router, settings, kept_settings: state.join("settings"), fs, content, authenticator, peers })
    }
}

async fn open_database(
    config: &NodeConfig,
    folder: &DataDir,
    identity: &Identity,
    secret: &ClusterSecret,
    settings: &Settings,
) -> Result<Arc<Node>, Failure> {
    let storage::Opened { store, log, spool } = storage::open(config, folder).await?;
    let mut node_config = metadb::node::NodeConfig::new(identity.node_id, identity.cluster_id.clone(), config.address());
    node_config.build = build();
    node_config.settings = settings.clone();
    node_config.timings = Timings {
        heartbeat: Duration::from_millis(config.raft.heartbeat_ms),
        election_min: Duration::from_millis(config.raft.election_min_ms),
        election_max: Duration::from_millis(config.raft.election_max_ms),
    };
    node_config.slow_request = Duration::from_millis(config.log.slow_request_ms);
    node_config.usage = crate::telemetry::usage;
    node_config.disk_reserve_bytes = config.storage.reserve_mib << 20;
    node_config.upkeep.flush_log_bytes = config.storage.flush_log_mib << 20;
    node_config.upkeep.keep_log_bytes = config.storage.keep_log_mib << 20;
    node_config.snapshots.bytes_per_s = config.storage.snapshot_mib_per_s << 20;
    let node = Node::start(node_config, Parts { store, log, spool, secret: secret.clone() }).await?;
    if config.bootstrap && identity.node_id == identity::FIRST_NODE {
        node.found().await?;
    }
    Ok(node)
}

/// The version of this binary.
pub(crate) fn build() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}
