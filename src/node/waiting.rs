//! What a node answers that has no identity yet: that it is in no cluster. A first node whose folder is empty makes a cluster only when all
//! that it was told of say so, and two nodes that wait for each other are told apart from one that is down.
//!
//! To all else it answers that it is not available yet: whoever knows its address from before is to ask another node, and an answer that
//! sounds final would keep it from that. The door closes before the node opens its own, and the port stays taken in between.

use super::cant_listen;
use crate::failure::Failure;
use metadb_proto::Error;
use metadb_proto::principal::{ClusterSecret, Token};
use metadb_proto::v1::node_admin_server::{NodeAdmin, NodeAdminServer};
use metadb_proto::v1::{self, StatusRequest, StatusResponse};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// How long whoever asks may hold the door open when it closes.
const CLOSE_WITHIN: Duration = Duration::from_millis(200);
/// When a caller may ask again for what only a node of a cluster has. Short: another node may have it at once.
const RETRY: Duration = Duration::from_millis(20);

/// A node without identity.
struct Waiting {
    secret: ClusterSecret,
    since: tokio::time::Instant,
}

/// Does something, and answers meanwhile. Returns the listener as it was.
pub(super) async fn while_answering<T>(
    listener: TcpListener,
    secret: &ClusterSecret,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<(TcpListener, T), Failure> {
    let failed = |error: std::io::Error| cant_listen("listen", "the port that it has", &error);
    let listener = listener.into_std().map_err(failed)?;
    let door = TcpListener::from_std(listener.try_clone().map_err(failed)?).map_err(failed)?;
    let waiting = Waiting { secret: secret.clone(), since: tokio::time::Instant::now() };
    let (close, closed) = oneshot::channel::<()>();
    let routes = Routes::new(NodeAdminServer::new(waiting)).into_axum_router().fallback(|| async { not_yet().into_http::<Body>() });
    let server = tonic::transport::Server::builder().add_routes(Routes::from(routes));
    let incoming = TcpIncoming::from(door).with_nodelay(Some(true));
    let mut serving = tokio::spawn(server.serve_with_incoming_shutdown(incoming, async { drop(closed.await) }));
    let done = work.await;
    drop(close);
    if tokio::time::timeout(CLOSE_WITHIN, &mut serving).await.is_err() {
        serving.abort();
    }
    Ok((TcpListener::from_std(listener).map_err(failed)?, done?))
}

fn not_yet() -> Status {
    Error::unavailable("this node is in no cluster yet", RETRY).into()
}

fn refuse<T>() -> Result<Response<T>, Status> {
    Err(not_yet())
}

#[tonic::async_trait]
impl NodeAdmin for Waiting {
    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let denied =
            || Error::Unauthenticated { message: "this node waits for its cluster, and answers only nodes with its secret".into() };
        let authorization = request.metadata().get("authorization").and_then(|value| value.to_str().ok()).ok_or_else(denied)?;
        if !Token::parse(authorization)?.proves_node(&self.secret) {
            return Err(denied().into());
        }
        let uptime_ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(Response::new(StatusResponse { build: super::build(), uptime_ms, ..StatusResponse::default() }))
    }

    async fn create_replica(&self, _: Request<v1::CreateReplicaRequest>) -> Result<Response<v1::CreateReplicaResponse>, Status> {
        refuse()
    }
    async fn change_members(&self, _: Request<v1::ChangeMembersRequest>) -> Result<Response<v1::ChangeMembersResponse>, Status> {
        refuse()
    }
    async fn transfer_leader(&self, _: Request<v1::TransferLeaderRequest>) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        refuse()
    }
    async fn adopt_shard(&self, _: Request<v1::AdoptShardRequest>) -> Result<Response<v1::AdoptShardResponse>, Status> {
        refuse()
    }
    async fn adopt_shards(&self, _: Request<v1::AdoptShardsRequest>) -> Result<Response<v1::AdoptShardsResponse>, Status> {
        refuse()
    }
    async fn drop_shard(&self, _: Request<v1::DropShardRequest>) -> Result<Response<v1::DropShardResponse>, Status> {
        refuse()
    }
    async fn change_shards(&self, _: Request<v1::ChangeShardsRequest>) -> Result<Response<v1::ChangeShardsResponse>, Status> {
        refuse()
    }
    async fn import_rows(&self, _: Request<v1::ImportRowsRequest>) -> Result<Response<v1::ImportRowsResponse>, Status> {
        refuse()
    }
    async fn read_shard(&self, _: Request<v1::ReadShardRequest>) -> Result<Response<v1::ReadShardResponse>, Status> {
        refuse()
    }
    async fn list_shards(&self, _: Request<v1::ListShardsRequest>) -> Result<Response<v1::ListShardsResponse>, Status> {
        refuse()
    }
    async fn raise_level(&self, _: Request<v1::RaiseLevelRequest>) -> Result<Response<v1::RaiseLevelResponse>, Status> {
        refuse()
    }
    async fn rebuild_replica(&self, _: Request<v1::RebuildReplicaRequest>) -> Result<Response<v1::RebuildReplicaResponse>, Status> {
        refuse()
    }
    async fn drop_replica(&self, _: Request<v1::DropReplicaRequest>) -> Result<Response<v1::DropReplicaResponse>, Status> {
        refuse()
    }
    async fn scrub(&self, _: Request<v1::ScrubRequest>) -> Result<Response<v1::ScrubResponse>, Status> {
        refuse()
    }
    async fn flush(&self, _: Request<v1::FlushRequest>) -> Result<Response<v1::FlushResponse>, Status> {
        refuse()
    }
}
