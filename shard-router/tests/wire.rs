//! The transports against a real tonic server over the in-memory node: framed and unary, redirects between nodes, a node that dies.

mod memory;

use futures::{Stream, StreamExt as _};
use memory::Memory;
use metadb_proto::kv::{Kv as _, request, response};
use metadb_proto::v1::kv_server::{Kv, KvServer};
use metadb_proto::v1::node_admin_server::{NodeAdmin, NodeAdminServer};
use metadb_proto::v1::{self, NodeRef, Redirect, Role};
use metadb_proto::{Error, Principal, directory};
use shard_router::operator::Operator;
use shard_router::reconcile::Reconciler;
use shard_router::{Router, RouterConfig, Transport, condition, operation};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tonic::{Request, Response, Status, Streaming};

const TENANT: u64 = 7;
const TOKEN: &str = "key.TEST.secret";

/// One node: it leads every group, unless it is told that another one does.
#[derive(Clone)]
struct Door {
    memory: Arc<Memory>,
    this: NodeRef,
    leader: NodeRef,
    /// Streams that swallow what they are given and answer nothing.
    swallowing: Arc<AtomicBool>,
}

impl Door {
    async fn answer(&self, body: request::Body) -> Result<response::Body, Error> {
        if self.leader != self.this {
            let group_id = metadb_proto::kv::header(&body).and_then(|header| header.group_id).unwrap_or_default();
            let redirect = Redirect { group_id, leader: Some(self.leader.clone()), epoch: 0, ..Default::default() };
            return Err(Error::Moved { message: "not the leader".into(), redirect });
        }
        self.memory.call(&Principal::Node(1), body).await
    }
}

fn check<T>(request: &Request<T>) -> Result<(), Status> {
    let token = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
    if token == Some(&format!("Bearer {TOKEN}")) { Ok(()) } else { Err(Error::Unauthenticated { message: "who?".into() }.to_status()) }
}

/// The one answer of a kind, out of all.
macro_rules! unary {
    ($door:expr, $request:expr, $kind:ident) => {{
        check(&$request)?;
        match $door.answer(request::Body::$kind($request.into_inner())).await? {
            response::Body::$kind(answer) => Ok(Response::new(answer)),
            _ => Err(Status::internal("mixed up")),
        }
    }};
}

#[tonic::async_trait]
impl Kv for Door {
    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        unary!(self, request, Get)
    }
    async fn multi_get(&self, request: Request<v1::MultiGetRequest>) -> Result<Response<v1::MultiGetResponse>, Status> {
        unary!(self, request, MultiGet)
    }
    async fn scan(&self, request: Request<v1::ScanRequest>) -> Result<Response<v1::ScanResponse>, Status> {
        unary!(self, request, Scan)
    }
    async fn walk(&self, request: Request<v1::WalkRequest>) -> Result<Response<v1::WalkResponse>, Status> {
        unary!(self, request, Walk)
    }
    async fn transact(&self, request: Request<v1::TransactRequest>) -> Result<Response<v1::TransactResponse>, Status> {
        unary!(self, request, Transact)
    }

    type ExchangeStream = Pin<Box<dyn Stream<Item = Result<v1::ResponseFrame, Status>> + Send>>;

    async fn exchange(&self, request: Request<Streaming<v1::RequestFrame>>) -> Result<Response<Self::ExchangeStream>, Status> {
        check(&request)?;
        let door = self.clone();
        if self.swallowing.swap(false, Ordering::SeqCst) {
            let nothing = request.into_inner().filter_map(|_| std::future::ready(None));
            return Ok(Response::new(Box::pin(nothing)));
        }
        let answers = request.into_inner().filter_map(|frame| async { frame.ok() }).map(move |frame| {
            let door = door.clone();
            async move {
                let door = &door;
                let answers = frame.requests.into_iter().map(|request| async move {
                    let body = match door.answer(request.body.expect("a body")).await {
                        Ok(body) => body,
                        Err(error) => response::Body::Error(error.to_proto()),
                    };
                    v1::Response { id: request.id, body: Some(body) }
                });
                Ok(v1::ResponseFrame { responses: futures::future::join_all(answers).await })
            }
        });
        Ok(Response::new(Box::pin(answers.buffer_unordered(64))))
    }
}

#[tonic::async_trait]
impl NodeAdmin for Door {
    async fn status(&self, request: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        check(&request)?;
        let role = if self.leader == self.this { Role::Leader } else { Role::Follower }.into();
        let group = |group_id| v1::GroupStatus {
            group_id,
            role,
            leader: Some(self.leader.clone()),
            term: 1,
            voters: vec![self.leader.clone()],
            ..Default::default()
        };
        let groups = (0..3).map(group).collect();
        let cluster_id = "c".repeat(32);
        Ok(Response::new(v1::StatusResponse { node: Some(self.this.clone()), cluster_id, groups, ..Default::default() }))
    }
    async fn create_replica(&self, _: Request<v1::CreateReplicaRequest>) -> Result<Response<v1::CreateReplicaResponse>, Status> {
        Ok(Response::new(v1::CreateReplicaResponse::default()))
    }
    async fn change_members(&self, _: Request<v1::ChangeMembersRequest>) -> Result<Response<v1::ChangeMembersResponse>, Status> {
        Ok(Response::new(v1::ChangeMembersResponse::default()))
    }
    async fn drop_replica(&self, _: Request<v1::DropReplicaRequest>) -> Result<Response<v1::DropReplicaResponse>, Status> {
        Ok(Response::new(v1::DropReplicaResponse::default()))
    }
    async fn rebuild_replica(&self, _: Request<v1::RebuildReplicaRequest>) -> Result<Response<v1::RebuildReplicaResponse>, Status> {
        Ok(Response::new(v1::RebuildReplicaResponse::default()))
    }
    async fn transfer_leader(&self, _: Request<v1::TransferLeaderRequest>) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        Ok(Response::new(v1::TransferLeaderResponse::default()))
    }
    async fn adopt_shard(&self, _: Request<v1::AdoptShardRequest>) -> Result<Response<v1::AdoptShardResponse>, Status> {
        Ok(Response::new(v1::AdoptShardResponse::default()))
    }
    async fn adopt_shards(&self, _: Request<v1::AdoptShardsRequest>) -> Result<Response<v1::AdoptShardsResponse>, Status> {
        Ok(Response::new(v1::AdoptShardsResponse::default()))
    }
    async fn drop_shard(&self, _: Request<v1::DropShardRequest>) -> Result<Response<v1::DropShardResponse>, Status> {
        Ok(Response::new(v1::DropShardResponse::default()))
    }
    async fn change_shards(&self, _: Request<v1::ChangeShardsRequest>) -> Result<Response<v1::ChangeShardsResponse>, Status> {
        Ok(Response::new(v1::ChangeShardsResponse::default()))
    }
    async fn import_rows(&self, _: Request<v1::ImportRowsRequest>) -> Result<Response<v1::ImportRowsResponse>, Status> {
        Ok(Response::new(v1::ImportRowsResponse::default()))
    }
    async fn read_shard(&self, _: Request<v1::ReadShardRequest>) -> Result<Response<v1::ReadShardResponse>, Status> {
        Ok(Response::new(v1::ReadShardResponse::default()))
    }
    async fn list_shards(&self, _: Request<v1::ListShardsRequest>) -> Result<Response<v1::ListShardsResponse>, Status> {
        Ok(Response::new(v1::ListShardsResponse::default()))
    }
    async fn raise_level(&self, _: Request<v1::RaiseLevelRequest>) -> Result<Response<v1::RaiseLevelResponse>, Status> {
        Ok(Response::new(v1::RaiseLevelResponse::default()))
    }
    async fn flush(&self, _: Request<v1::FlushRequest>) -> Result<Response<v1::FlushResponse>, Status> {
        Ok(Response::new(v1::FlushResponse::default()))
    }

    async fn scrub(&self, _: Request<v1::ScrubRequest>) -> Result<Response<v1::ScrubResponse>, Status> {
        Ok(Response::new(v1::ScrubResponse::default()))
    }
}

async fn free_address() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("bound").to_string()
}

struct Server(tokio::task::JoinHandle<()>, tokio::sync::oneshot::Sender<()>);

impl Server {
    /// Serves until it is killed, and is reachable when this returns.
    async fn start(door: Door) -> Server {
        let address: std::net::SocketAddr = door.this.address.parse().expect("an address");
        let (kill, killed) = tokio::sync::oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let serve = tonic::transport::Server::builder()
                .add_service(KvServer::new(door.clone()))
                .add_service(NodeAdminServer::new(door))
                .serve(address);
            tokio::select! {
                biased;
                _ = killed => {}
                served = serve => served.expect("serves"),
            }
        });
        while tokio::net::TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Server(task, kill)
    }
}

async fn one_node() -> (Arc<Memory>, Door, Server) {
    let this = NodeRef { node_id: 1, address: free_address().await };
    let memory = Memory::new();
    memory.add_tenant(TENANT, &[("", 1)], &this);
    let door = Door { memory: memory.clone(), leader: this.clone(), this, swallowing: Arc::default() };
    let server = Server::start(door.clone()).await;
    (memory, door, server)
}

fn router(seed: &NodeRef, transport: Transport) -> Router {
    Router::new(RouterConfig { seeds: vec![seed.address.clone()], token: TOKEN.into(), transport, ..RouterConfig::default() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_transports_read_and_write_and_frames_gather_requests() {
    for transport in [Transport::Framed, Transport::Unary] {
        let (memory, door, _server) = one_node().await;
        let client = router(&door.this, transport).tenant(TENANT);
        // Errors cross the wire as what they are: both are retried, and nothing is done twice.
        let unknown = Error::UnknownOutcome { message: "the leader stepped down".into() };
        let refused = Error::unavailable("an election", Duration::from_millis(1));
        memory.script([memory::Scripted::Refuse(refused), memory::Scripted::DoThenFail(unknown)]);
        let puts = (0..1000).map(|n| {
            let client = client.clone();
            async move { client.transact(vec![condition::absent(format!("k{n}"))], vec![operation::put(format!("k{n}"), "v")]).await }
        });
        for put in futures::future::join_all(puts).await {
            assert!(put.expect("written").committed);
        }
        let page = client.scan(shard_router::Scan::default()).await.expect("read");
        assert_eq!(page.rows.len(), 1000);
        assert_eq!(memory.state.lock().executed, 1000);
        let counters = client.router().counters();
        match transport {
            Transport::Framed => assert!(counters.framed_requests > 1000 && counters.frames < 600, "{counters:?}"),
            Transport::Unary => assert_eq!(counters.frames, 0),
        }
    }
}

#[tokio::test]
async fn requests_in_flight_are_bounded_and_all_are_served() {
    let (_, door, _server) = one_node().await;
    let config =
        RouterConfig { seeds: vec![door.this.address.clone()], token: TOKEN.into(), in_flight_per_node: 3, ..RouterConfig::default() };
    let client = Router::new(config).tenant(TENANT);
    let gets = futures::future::join_all((0..3000).map(|n| client.get(format!("k{n}")))).await;
    gets.into_iter().for_each(|got| assert!(got.expect("read").is_none()));
}

/// Its connection is well, so nothing but the silence tells.
#[tokio::test]
async fn a_stream_that_only_swallows_is_opened_anew() {
    let (_, door, _server) = one_node().await;
    door.swallowing.store(true, Ordering::SeqCst);
    let client = router(&door.this, Transport::Framed).tenant(TENANT).with_deadline(Duration::from_millis(400));
    let answered = async { while client.get("k").await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(20), answered).await.expect("another stream answers");
    assert!(!door.swallowing.load(Ordering::SeqCst), "the first stream was the one that swallows");
}

#[tokio::test]
async fn a_node_that_dies_and_returns_is_found_again_and_nothing_is_done_twice() {
    for transport in [Transport::Framed, Transport::Unary] {
        let (memory, door, server) = one_node().await;
        let client = router(&door.this, transport).tenant(TENANT);
        let add = || client.transact(vec![], vec![operation::add("n", 1)]);
        add().await.expect("written");
        memory.script([memory::Scripted::Hang]);
        let waiting = tokio::spawn({
            let client = client.clone();
            async move { client.transact(vec![], vec![operation::add("n", 1)]).await }
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(server.1);
        server.0.await.expect("ended");
        tokio::time::sleep(Duration::from_millis(100)).await;
        let _server = Server::start(door).await;
        assert!(waiting.await.expect("ran").expect("retried").committed);
        add().await.expect("written");
        let row = client.get("n").await.expect("read").expect("there");
        assert_eq!(row.value.as_ref(), 3_i64.to_le_bytes());
    }
}

#[tokio::test]
async fn a_follower_sends_to_the_leader_and_the_router_remembers() {
    let (memory, leader, _server) = one_node().await;
    let this = NodeRef { node_id: 2, address: free_address().await };
    let follower = Door { memory, this: this.clone(), leader: leader.this.clone(), swallowing: Arc::default() };
    let _follower = Server::start(follower).await;
    // The directory says that the follower is the voter: only the redirect leads to the leader.
    let memory = &leader.memory;
    memory.add_tenant(TENANT, &[("", 1)], &this);
    let client = router(&this, Transport::Framed).tenant(TENANT);
    client.get("k").await.expect("followed");
    assert_eq!(client.router().believed_leader(1), Some(leader.this.clone()));
    let before = client.router().counters().redirects;
    client.get("k").await.expect("known");
    assert_eq!(client.router().counters().redirects, before);
}

#[tokio::test]
async fn a_wrong_token_is_told_at_once() {
    for transport in [Transport::Framed, Transport::Unary] {
        let (_, door, _server) = one_node().await;
        let config =
            RouterConfig { seeds: vec![door.this.address.clone()], token: "key.WRONG.x".into(), transport, ..RouterConfig::default() };
        let refused = Router::new(config).tenant(TENANT).get("k").await;
        assert!(matches!(refused, Err(Error::Unauthenticated { .. })), "{refused:?}");
    }
}

#[tokio::test]
async fn nobody_there_is_unavailable_in_time() {
    let nobody = NodeRef { node_id: 1, address: free_address().await };
    let client = router(&nobody, Transport::Framed).tenant(TENANT).with_deadline(Duration::from_millis(300));
    let started = tokio::time::Instant::now();
    assert!(matches!(client.get("k").await, Err(Error::Unavailable { .. })));
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn an_operator_makes_a_cluster_groups_tenants_and_keys() {
    let this = NodeRef { node_id: 1, address: free_address().await };
    let memory = Memory::new();
    let door = Door { memory: memory.clone(), this: this.clone(), leader: this.clone(), swallowing: Arc::default() };
    let _server = Server::start(door).await;
    let operator = Operator::new(router(&this, Transport::Framed));
    let cluster = v1::ClusterRecord { cluster_id: "c".repeat(32), replicas: 1, initial_groups: 2, created_at_ms: 1, ..Default::default() };
    let node = v1::NodeRecord { node: Some(this.clone()), ..Default::default() };
    operator.bootstrap(cluster.clone(), node.clone()).await.expect("made");
    operator.bootstrap(cluster.clone(), node.clone()).await.expect("again");
    let other = v1::ClusterRecord { cluster_id: "d".repeat(32), ..cluster.clone() };
    assert!(matches!(operator.bootstrap(other, node.clone()).await, Err(Error::Invalid { .. })));
    assert_eq!(operator.join(node).await.expect("known"), ("c".repeat(32), 1));
    let at = |address: &str| v1::NodeRecord { node: Some(NodeRef { node_id: 0, address: address.into() }), ..Default::default() };
    assert_eq!(operator.join(at("127.0.0.1:1")).await.expect("joined").1, 2);
    assert_eq!(operator.join(at("127.0.0.1:1")).await.expect("joined anew").1, 3);
    assert_eq!(operator.nodes().await.expect("listed").len(), 2, "the one that never came up is gone");
    let second = v1::NodeRecord { node: Some(NodeRef { node_id: 3, address: this.address.clone() }), ..Default::default() };
    assert!(matches!(operator.join(second).await, Err(Error::AlreadyExists { .. })), "two identities at one address");

    feature_levels(&operator, &this).await;

    let mut reconciler = Reconciler::new(operator.clone(), this);
    while reconciler.round().await.expect("a round") > 0 {}
    let groups = operator.groups().await.expect("listed");
    assert!(groups.len() == 3 && groups.iter().all(|group| group.state() == v1::group_record::State::Active), "{groups:?}");

    let acme = operator.create_tenant("acme").await.expect("made");
    assert_eq!(acme.state(), v1::tenant_record::State::Active);
    assert!(matches!(operator.create_tenant("acme").await, Err(Error::AlreadyExists { .. })));
    assert!(matches!(operator.create_tenant("Acme").await, Err(Error::Invalid { .. })));
    let names: Vec<String> = (0..700).map(|n| format!("t{n}")).collect();
    let many = operator.create_tenants(&names).await.expect("made");
    assert!(many.len() == 700 && many.iter().all(|tenant| tenant.state() == v1::tenant_record::State::Active));
    let in_one = many.iter().map(|t| operator.shards(t.tenant_id));
    let shards: Vec<_> = futures::future::join_all(in_one).await.into_iter().map(|shards| shards.expect("listed")[0].group_id).collect();
    assert_eq!(shards.iter().filter(|group| **group == 1).count(), 350, "evenly");

    batches(&operator).await;

    let client = operator.router().tenant_named("acme").await.expect("named");
    client.transact(vec![], vec![operation::put("k", "v")]).await.expect("usable");
    let key = operator.create_key(v1::key_record::Role::Tenant, acme.tenant_id, "for tests").await.expect("made");
    assert!(key.secret.len() == 40 && key.access_key_id.len() == 20);
    assert!(operator.keys().await.expect("listed").iter().all(|key| key.secret.is_empty()));
    assert!(operator.create_key(v1::key_record::Role::Operator, 5, "").await.is_err());
    assert!(matches!(operator.create_key(v1::key_record::Role::Tenant, 99_999, "").await, Err(Error::NotFound { .. })));

    authenticates(&operator, &key).await;
    // More keys than one transaction may hold operations for its deletion: written by hand, for a thousand calls take long.
    for n in 0..1100 {
        let id = format!("AK{n:06}");
        let record = v1::KeyRecord { access_key_id: id.clone(), tenant_id: acme.tenant_id, ..Default::default() };
        memory.put(0, directory::access_key_key(&id), prost::Message::encode_to_vec(&record));
    }
    assert_eq!(operator.unfinished_tenants().await.expect("listed"), [], "all that were made are finished");
    let half = v1::TenantRecord {
        tenant_id: 9999,
        name: "half".into(),
        state: v1::tenant_record::State::Creating.into(),
        created_at_ms: 1,
        ..Default::default()
    };
    memory.put(0, directory::tenant_key(9999), prost::Message::encode_to_vec(&half));
    memory.put(0, directory::tenant_unfinished_key(9999), 9999_u64.to_be_bytes().to_vec());
    assert_eq!(operator.unfinished_tenants().await.expect("listed"), [half], "what a dead call left is found");
    operator.delete_tenant("acme").await.expect("deleted");
    assert_eq!(operator.unfinished_tenants().await.expect("listed").len(), 1, "a deletion that ended leaves no mark");
    assert!(matches!(operator.tenant("acme").await, Err(Error::NotFound { .. })));
    assert!(operator.keys().await.expect("listed").is_empty(), "its keys went with it");
    assert_eq!(operator.create_tenant("acme").await.expect("the name is free").state(), v1::tenant_record::State::Active);
    assert_eq!(operator.status().await.expect("told").groups.len(), 3);
}

/// Of the two nodes in the directory, one after the other gets a newer build; then the level rises, and an older build stays out.
async fn feature_levels(operator: &Operator, this: &NodeRef) {
    let of = |node_id, address: &str, newest_level: u32| {
        let node = Some(NodeRef { node_id, address: address.into() });
        v1::NodeRecord { node, oldest_level: newest_level.min(2), newest_level, ..Default::default() }
    };
    let told = |result: Result<(String, u64), Error>| result.expect_err("refused").to_string();
    assert!(told(operator.join(of(3, "127.0.0.1:1", 3)).await).contains("install an older build"), "it knows 2 and 3, the cluster is at 1");
    let both = |newest_level| v1::NodeRecord { oldest_level: 1, ..of(3, "127.0.0.1:1", newest_level) };
    operator.join(both(2)).await.expect("knows 1 and 2");
    assert!(matches!(operator.raise_level(2).await, Err(Error::Invalid { .. })), "the first node knows only 1");
    operator.join(v1::NodeRecord { oldest_level: 1, ..of(1, &this.address, 2) }).await.expect("upgraded");
    operator.raise_level(2).await.expect("all know it");
    operator.raise_level(1).await.expect("changes nothing");
    assert_eq!(operator.cluster().await.expect("told").feature_level, 2);
    assert!(told(operator.join(both(1)).await).contains("install a newer build"), "downgraded");
    operator.join(both(2)).await.expect("and back");
}

async fn batches(operator: &Operator) {
    let names = |range: std::ops::Range<u32>| -> Vec<String> { range.map(|n| format!("b{n}")).collect() };
    let planned = operator.plan_tenants(&names(0..1500)).await.expect("told");
    assert!(planned.existing.is_empty() && planned.missing.len() == 1500);
    let batch = operator.ensure_tenants(&names(0..1500), |_| {}).await.expect("made");
    assert!(batch.existed.is_empty() && batch.made.len() == 1500);
    // Again, with more: those that are there stay as they are.
    let heard = std::sync::atomic::AtomicUsize::new(0);
    let hear = |done: usize| {
        heard.fetch_add(done, std::sync::atomic::Ordering::Relaxed);
    };
    let again = operator.ensure_tenants(&names(0..1600), hear).await.expect("made");
    assert!(again.made.len() == 100 && again.existed.len() == 1500 && heard.into_inner() == 1600);
    let ids = |tenants: &[v1::TenantRecord]| tenants.iter().map(|tenant| (tenant.name.clone(), tenant.tenant_id)).collect::<Vec<_>>();
    assert_eq!(ids(&again.existed), ids(&batch.made));
    assert_eq!(operator.plan_tenants(&names(1599..1601)).await.expect("told").missing, ["b1600"]);
    // Every one of them can be written, and each group has its share.
    for name in ["b0", "b999", "b1599"] {
        let client = operator.router().tenant_named(name).await.expect("named");
        client.transact(vec![], vec![operation::put("k", name.to_owned())]).await.expect("usable");
    }
    let placed = futures::future::join_all(again.made.iter().map(|tenant| operator.shards(tenant.tenant_id))).await;
    let in_first = placed.into_iter().filter(|shards| shards.as_ref().expect("listed")[0].group_id == 1).count();
    assert_eq!(in_first, 50, "evenly");
    for bad in [vec!["b0".to_owned(), "b0".to_owned()], vec!["good".to_owned(), "Bad".to_owned()]] {
        assert!(matches!(operator.ensure_tenants(&bad, |_| {}).await, Err(Error::Invalid { .. })), "{bad:?}");
    }
    assert!(matches!(operator.tenant("good").await, Err(Error::NotFound { .. })), "nothing is done of a bad batch");
}

async fn authenticates(operator: &Operator, key: &v1::KeyRecord) {
    use metadb_proto::principal::{Authenticate as _, ClusterSecret, Token};
    let secret = ClusterSecret::new(vec![3; 32]).expect("long enough");
    let node = format!("Bearer {}", secret.node_token(9));
    let door = shard_router::credentials::DirectoryAuthenticator::new(operator.router().clone(), secret);
    assert_eq!(door.authenticate(&node).await, Ok(Principal::Node(9)));
    let of = |secret: &str| format!("Bearer {}", Token::for_key(&key.access_key_id, secret));
    let tenant = Principal::Tenant { tenant_id: key.tenant_id, access_key_id: key.access_key_id.clone() };
    assert_eq!(door.authenticate(&of(&key.secret)).await, Ok(tenant));
    for wrong in [of("wrong"), "Bearer key.NOBODY.x".into(), format!("{node}0"), String::new()] {
        assert!(matches!(door.authenticate(&wrong).await, Err(Error::Unauthenticated { .. })), "{wrong}");
    }
    assert_eq!(door.lookup(&key.access_key_id).await.expect("told").as_ref(), Some(key));
    let asked = operator.router().counters().requests;
    for _ in 0..100 {
        door.authenticate(&of(&key.secret)).await.expect("known");
    }
    assert!(operator.router().counters().requests <= asked + 1, "believed for a second");
    let doomed = operator.create_key(v1::key_record::Role::Operator, 0, "").await.expect("made");
    let doomed_token = format!("Bearer {}", Token::for_key(&doomed.access_key_id, &doomed.secret));
    assert_eq!(door.authenticate(&doomed_token).await, Ok(Principal::Operator(doomed.access_key_id.clone())));
    operator.revoke_key(&doomed.access_key_id).await.expect("revoked");
    assert!(matches!(operator.revoke_key(&doomed.access_key_id).await, Err(Error::NotFound { .. })));
    tokio::time::sleep(shard_router::credentials::REMEMBERED).await;
    assert!(matches!(door.authenticate(&doomed_token).await, Err(Error::Unauthenticated { .. })));
}
