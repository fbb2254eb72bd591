//! A wired node at work: its doors, its background work, and how it leaves.

use super::http::{self, Watched};
use super::settings::KeptSettings;
use super::{BACKLOG, Listeners, Wired, identity};
use crate::config::NodeConfig;
use crate::datadir::Identity;
use crate::failure::Failure;
use crate::telemetry::Telemetry;
use fs_layer::door::FsDoor;
use metadb::doors::Doors;
use metadb_proto::principal::Authenticate;
use object_gateway::collect::{CollectConfig, Collector};
use object_gateway::content;
use object_gateway::s3::{S3Config, S3Door};
use shard_router::balance::{Balancer, Pace};
use shard_router::mover::Mover;
use shard_router::operator::Operator;
use shard_router::reconcile::Reconciler;
use shard_router::settings::Follower;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// How long a quiet connection is believed to live.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long the doors may take to finish what is under way, after the replicas have left.
const DRAIN_WITHIN: Duration = Duration::from_secs(1);
/// What the health door answers for; the empty name is the node as a whole.
const HEALTH_OF: [&str; 4] = ["", "metadb.v1.Kv", "metadb.v1.NodeAdmin", "fs.v1.Fs"];

/// What runs until the node stops.
pub(super) struct Running {
    grpc: JoinHandle<Result<(), tonic::transport::Error>>,
    s3: JoinHandle<std::io::Result<()>>,
    /// Lets the S3 door open: before the cluster is known, a write would have too few copies.
    open_s3: Option<tokio::sync::oneshot::Sender<()>>,
    close_s3: CancellationToken,
    health: HealthReporter,
    watched: Arc<Watched>,
    settings: JoinHandle<()>,
}

impl Running {
    /// Opens the gRPC door; the S3 door waits.
    pub(super) fn start(
        wired: &Wired,
        config: &NodeConfig,
        doors: Listeners,
        telemetry: Telemetry,
        closing: &CancellationToken,
    ) -> Result<Self, Failure> {
        let watched = Watched::new(telemetry, wired);
        if let Some(listener) = doors.http {
            tokio::spawn(http::serve(listener, Arc::clone(&watched), closing.clone()));
        }
        let (health, health_door) = tonic_health::server::health_reporter();
        let authenticator = Arc::clone(&wired.authenticator) as Arc<dyn Authenticate>;
        let metadb = Doors::new(Arc::clone(&wired.node), Arc::clone(&authenticator));
        let server = tonic::transport::Server::builder()
            .initial_stream_window_size(content::STREAM_WINDOW_BYTES)
            .initial_connection_window_size(content::CONNECTION_WINDOW_BYTES)
            .http2_keepalive_interval(Some(KEEP_ALIVE))
            .add_service(health_door)
            // grpcurl and its like speak the one or the other.
            .add_service(descriptors().build_v1().map_err(unreadable)?)
            .add_service(descriptors().build_v1alpha().map_err(unreadable)?)
            .add_service(metadb.kv())
            .add_service(metadb.node_admin())
            .add_service(metadb.peer())
            .add_service(FsDoor::new(wired.fs.clone(), authenticator, wired.settings.clone()))
            .add_service(wired.content.door());
        let incoming = TcpIncoming::from(doors.grpc).with_nodelay(Some(true));
        let grpc = tokio::spawn(server.serve_with_incoming_shutdown(incoming, closing.clone().cancelled_owned()));
        let s3_config = S3Config { region: config.s3.region.clone(), settings: wired.settings.clone() };
        let s3 = S3Door::new(wired.fs.clone(), wired.content.clone(), Arc::clone(&wired.authenticator), s3_config)?;
        let (open_s3, may_open) = tokio::sync::oneshot::channel();
        let close_s3 = CancellationToken::new();
        let s3 = tokio::spawn(serve_s3(doors.s3, s3, may_open, close_s3.clone()));
        // From the start: what was kept holds before the directory is found.
        let follower = Follower::new(wired.router.clone(), wired.settings.clone(), KeptSettings::new(wired.kept_settings.clone()));
        let settings = tokio::spawn(follower.run());
        Ok(Running { settings, grpc, s3, open_s3: Some(open_s3), close_s3, health, watched })
    }

    /// Brings the node into the cluster, opens the S3 door, and does the background work. Ends only by a failure that can't be waited out.
    pub(super) async fn work(&mut self, config: &NodeConfig, identity: &Identity, wired: &Wired) -> Failure {
        let operator = Operator::new(wired.router.clone());
        if let Err(failure) = identity::announce(config, identity, &operator).await {
            return failure;
        }
        wired.peers.refresh_until_known(&operator).await;
        if let Some(open) = self.open_s3.take() {
            let _ = open.send(());
        }
        self.tell_health(ServingStatus::Serving).await;
        self.watched.ready.store(true, Ordering::Relaxed);
        tracing::info!(grpc = config.address(), s3 = config.s3_address(), http = config.http.listen, nodes = wired.peers.count(), "ready");
        let reconciler = Reconciler::new(operator.clone(), wired.node.node_ref());
        let mover = Mover::new(operator.clone(), wired.node.node_ref(), wired.settings.clone());
        let balancer = Balancer::new(operator.clone(), wired.node.node_ref(), wired.settings.clone(), Pace::default());
        let collector = Collector::new(wired.fs.clone(), wired.content.clone(), collecting(config));
        tokio::select! {
            biased;
            () = collector.run() => Failure::failed("the collector ended"),
            () = reconciler.run() => Failure::failed("the reconciler ended"),
            () = mover.run() => Failure::failed("the mover of shards ended"),
            () = balancer.run() => Failure::failed("the balancer ended"),
            () = wired.peers.refresh(&operator) => Failure::failed("the view of the cluster is not kept fresh any more"),
            ended = &mut self.settings => Failure::failed(format!("settings are not followed any more: {ended:?}")),
            ended = &mut self.grpc => Failure::failed(format!("the gRPC door closed: {ended:?}")),
            ended = &mut self.s3 => Failure::failed(format!("the S3 door closed: {ended:?}")),
        }
    }

    async fn tell_health(&self, status: ServingStatus) {
        for service in HEALTH_OF {
            self.health.set_service_status(service, status).await;
        }
    }

    /// Leaves in good order: no new S3 requests, leadership to others, what is in memory to disk, then the doors.
    pub(super) async fn shut_down(self, wired: &Wired, closing: &CancellationToken, grace: Duration) {
        self.tell_health(ServingStatus::NotServing).await;
        self.watched.ready.store(false, Ordering::Relaxed);
        self.close_s3.cancel();
        self.settings.abort();
        wired.content.close();
        match tokio::time::timeout(grace, wired.node.stop()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "what is in memory could not be written; the log has it"),
            Err(_) => tracing::warn!(grace_ms = grace.as_millis(), "did not stop within the grace; the log has everything"),
        }
        closing.cancel();
        if tokio::time::timeout(DRAIN_WITHIN, futures::future::join(self.grpc, self.s3)).await.is_err() {
            tracing::info!("requests under way were cut off");
        }
    }
}

fn collecting(config: &NodeConfig) -> CollectConfig {
    let every = Duration::from_millis(config.content.collect_every_ms);
    CollectConfig { every, after: Duration::from_millis(config.content.collect_after_ms), ..CollectConfig::default() }
}

async fn serve_s3(
    socket: TcpSocket,
    door: S3Door,
    may_open: tokio::sync::oneshot::Receiver<()>,
    closing: CancellationToken,
) -> std::io::Result<()> {
    let opened = closing.run_until_cancelled(may_open).await;
    if !matches!(opened, Some(Ok(()))) {
        return Ok(());
    }
    object_gateway::s3::serve(socket.listen(BACKLOG)?, door, closing).await
}

/// What the gRPC door says of itself: the protos of everything that it serves.
fn descriptors() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(metadb_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(fs_layer::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(content::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

fn unreadable(error: tonic_reflection::server::Error) -> Failure {
    Failure::failed(format!("the gRPC descriptors can't be served: {error}"))
}
