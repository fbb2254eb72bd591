//! Calls to the control plane of nodes, always over gRPC at the node's address.
//!
//! Every call may be asked again and then answers the same, so nothing here is ever of unknown outcome: it is retried until its deadline.

use crate::policy::{self, Attempt, Decision, Failure};
use crate::router::Router;
use crate::transport::{Dial, ended};
use futures::future::BoxFuture;
use metadb_proto::v1::node_admin_client::NodeAdminClient;
use metadb_proto::v1::{self, NodeRef};
use metadb_proto::{Error, limits, seam};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tonic::transport::Channel;

/// The generated client.
pub(crate) type Admin = NodeAdminClient<Channel>;

/// How long one node may take for a call: catching up a learner is the longest.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Most channels kept.
const CHANNELS: usize = 1024;

/// Channels to control planes, by address.
pub(crate) struct Channels {
    dial: Dial,
    open: Mutex<BTreeMap<String, Channel>>,
}

impl Channels {
    pub(crate) fn new(dial: Dial) -> Self {
        Channels { dial, open: Mutex::default() }
    }

    async fn client(&self, address: &str) -> Result<Admin, Error> {
        let known = self.open.lock().get(address).cloned();
        let channel = match known {
            Some(channel) => channel,
            None => {
                let channel = self.dial.channel(address).await?;
                let mut open = self.open.lock();
                if open.len() >= CHANNELS {
                    open.pop_first();
                }
                open.insert(address.to_owned(), channel.clone());
                channel
            }
        };
        let client = NodeAdminClient::new(channel);
        Ok(client.max_decoding_message_size(limits::MESSAGE_BYTES).max_encoding_message_size(limits::MESSAGE_BYTES))
    }

    /// One call to one node.
    async fn call<R>(&self, address: &str, until: Instant, call: &Call<R>) -> Result<R, Failure> {
        let asked = async {
            let client = self.client(address).await.map_err(Failure::NotSent)?;
            let answer = (call.0)(client, &self.dial).await;
            answer.map(tonic::Response::into_inner).map_err(|status| {
                if status.details().is_empty() {
                    ended(&status, true, false)
                } else {
                    Failure::Answered(Error::from_status(&status, false))
                }
            })
        };
        let late = || Error::unavailable(format!("node at {address} did not answer in time"), Duration::from_millis(50));
        tokio::time::timeout(until.saturating_duration_since(Instant::now()).min(CALL_TIMEOUT), asked)
            .await
            .unwrap_or_else(|_| Err(Failure::Lost(late())))
    }
}

type Answer<R> = BoxFuture<'static, Result<tonic::Response<R>, tonic::Status>>;

/// A call of the control plane, to be made at whichever node it turns out to be for.
pub(crate) struct Call<R>(Box<Ask<R>>);

type Ask<R> = dyn Fn(Admin, &Dial) -> Answer<R> + Send + Sync;

macro_rules! calls {
    ($($name:ident: $request:ident => $response:ident),* $(,)?) => {
        $(
            pub(crate) fn $name(request: v1::$request) -> Call<v1::$response> {
                Call(Box::new(move |mut client, dial| {
                    let request = dial.request(request.clone());
                    Box::pin(async move { client.$name(request).await })
                }))
            }
        )*
    };
}

calls! {
    status: StatusRequest => StatusResponse,
    create_replica: CreateReplicaRequest => CreateReplicaResponse,
    change_members: ChangeMembersRequest => ChangeMembersResponse,
    drop_replica: DropReplicaRequest => DropReplicaResponse,
    rebuild_replica: RebuildReplicaRequest => RebuildReplicaResponse,
    scrub: ScrubRequest => ScrubResponse,
    transfer_leader: TransferLeaderRequest => TransferLeaderResponse,
    adopt_shards: AdoptShardsRequest => AdoptShardsResponse,
    drop_shard: DropShardRequest => DropShardResponse,
    change_shards: ChangeShardsRequest => ChangeShardsResponse,
    import_rows: ImportRowsRequest => ImportRowsResponse,
    read_shard: ReadShardRequest => ReadShardResponse,
    list_shards: ListShardsRequest => ListShardsResponse,
    raise_level: RaiseLevelRequest => RaiseLevelResponse,
}

impl Router {
    /// The status of the node at an address, asked once.
    pub(crate) async fn status_of(&self, address: &str, until: Instant) -> Result<v1::StatusResponse, Error> {
        let result = self.admins().call(address, until, &status(v1::StatusRequest::default())).await;
        result.map_err(|failure| failure.error().clone())
    }

    /// A call at one node, retried while the node can't answer.
    pub(crate) async fn at_node<R>(&self, node: &NodeRef, until: Instant, call: &Call<R>) -> Result<R, Error> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let failure = match self.admins().call(&node.address, until, call).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            match judge(&failure, attempts, 0, None, until) {
                Decision::GiveUp { error } => return Err(error),
                Decision::GoTo { .. } => return Err(policy::surrender(failure.error(), false)),
                Decision::RetryHere { after }
                | Decision::Follow { after }
                | Decision::TryAnother { after }
                | Decision::Refresh { after } => tokio::time::sleep(after).await,
            }
        }
    }

    /// A call at the leader of a group, wherever that is by now.
    pub(crate) async fn at_leader<R>(&self, group_id: u32, until: Instant, call: &Call<R>) -> Result<R, Error> {
        let (mut attempts, mut redirects) = (0, 0);
        let mut avoid: Option<Arc<NodeRef>> = None;
        let mut next: Option<Arc<NodeRef>> = None;
        loop {
            attempts += 1;
            let node = match next.take() {
                Some(node) => node,
                None => self.voter(group_id, avoid.as_deref(), until).await?,
            };
            let failure = match self.admins().call(&node.address, until, call).await {
                Ok(answer) => {
                    self.map().write().learn_leader(group_id, node);
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            self.map().write().doubt_leader(group_id, &node);
            let decision = judge(&failure, attempts, redirects, Some(group_id), until);
            tracing::debug!(group_id, node = node.node_id, error = %failure.error(), ?decision, "call at the leader failed");
            let after = match decision {
                Decision::GiveUp { error } => return Err(error),
                Decision::RetryHere { after } => {
                    next = Some(node);
                    after
                }
                Decision::GoTo { after, redirect } => {
                    redirects += 1;
                    next = redirect.leader.map(Arc::new);
                    after
                }
                Decision::TryAnother { after } | Decision::Follow { after } => {
                    avoid = Some(node);
                    after
                }
                Decision::Refresh { after } => {
                    avoid = None;
                    // What it could not learn, the next attempt shows.
                    let _ = self.learn_group(group_id, until).await;
                    after
                }
            };
            tokio::time::sleep(after).await;
        }
    }

    async fn learn_group(&self, group_id: u32, until: Instant) -> Result<(), Error> {
        if group_id == metadb_proto::directory::DIRECTORY_GROUP {
            self.discover(until).await.map(|_| ())
        } else {
            self.load_voters(group_id, until).await
        }
    }

    async fn voter(&self, group_id: u32, avoid: Option<&NodeRef>, until: Instant) -> Result<Arc<NodeRef>, Error> {
        let pick = || self.map().read().pick(group_id, avoid, None, seam::random_u64()).filter(|node| !node.address.is_empty());
        if let Some(node) = pick() {
            return Ok(node);
        }
        self.learn_group(group_id, until).await?;
        pick().ok_or_else(|| Error::unavailable(format!("no node of group {group_id} is known"), Duration::from_millis(100)))
    }
}

fn judge(failure: &Failure, attempts: u32, redirects: u32, group_id: Option<u32>, until: Instant) -> Decision {
    let attempt = Attempt {
        failure,
        attempts,
        redirects,
        time_left: until.saturating_duration_since(Instant::now()),
        effects: false,
        repeatable: true,
        open: false,
        group_id,
        may_repeat: true,
        random: seam::random_u64(),
    };
    policy::decide(&attempt).decision
}
