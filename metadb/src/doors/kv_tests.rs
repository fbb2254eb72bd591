//! A node's data door over loopback: unary calls, the framed stream, and who is let in.

use super::*;
use crate::doors::Doors;
use crate::node::{Node, NodeConfig, Parts};
use futures::stream;
use metadb_engine::log::{Log, LogOptions};
use metadb_engine::sim::{SimDisk, SimStore};
use metadb_proto::principal::{Authenticate, ClusterSecret};
use metadb_proto::v1::kv_client::KvClient;
use metadb_proto::v1::node_admin_client::NodeAdminClient;
use metadb_proto::v1::{self, ErrorKind};
use std::time::Duration;
use tonic::transport::Channel;

/// Lets in who says `Bearer operator` or `Bearer tenant`.
struct ByWord;

impl Authenticate for ByWord {
    fn authenticate<'a>(&'a self, authorization: &'a str) -> BoxFuture<'a, Result<Principal, Error>> {
        let principal = match authorization {
            "Bearer operator" => Ok(Principal::Operator("AK".into())),
            "Bearer tenant" => Ok(Principal::Tenant { tenant_id: 5, access_key_id: "AK".into() }),
            _ => Err(Error::Unauthenticated { message: "nobody known".into() }),
        };
        async move { principal }.boxed()
    }
}

/// A node that leads the directory, and a channel to it.
async fn node() -> (Arc<Node>, Channel) {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = free.local_addr().expect("bound");
    drop(free);
    let log = Log::open(SimDisk::new(1).mount(), LogOptions::default()).await.expect("the log opens");
    let secret = ClusterSecret::new(vec![7; 32]).expect("long enough");
    let parts = Parts { store: SimStore::new(1), log, spool: SimDisk::new(2).mount(), secret };
    let node = Node::start(NodeConfig::new(1, "00", address.to_string()), parts).await.expect("starts");
    let doors = Doors::new(Arc::clone(&node), Arc::new(ByWord));
    tokio::spawn(tonic::transport::Server::builder().add_service(doors.kv()).add_service(doors.node_admin()).serve(address));
    node.create_replica(0, vec![node.node_ref()]).await.expect("a group of one");
    let endpoint = Channel::from_shared(format!("http://{address}")).expect("an address");
    for _ in 0..500 {
        if node.group(0).is_some_and(|group| group.is_leader())
            && let Ok(channel) = endpoint.connect().await
        {
            return (node, channel);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no leader came about");
}

fn with<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", token.parse().expect("text"));
    request
}

fn header() -> Option<v1::RequestHeader> {
    Some(v1::RequestHeader { tenant_id: 0, group_id: Some(0), ..Default::default() })
}

fn put(key: String) -> TransactRequest {
    let put = v1::operation::Put { key: key.into(), value: "v".into() };
    TransactRequest { header: header(), conditions: vec![], operations: vec![v1::Operation { op: Some(v1::operation::Op::Put(put)) }] }
}

/// The largest requests, twice as many as a stream works on at once: the room that one takes comes back with its answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_room_of_the_largest_requests_comes_back() {
    let (node, channel) = node().await;
    let mut client = KvClient::new(channel).max_encoding_message_size(limits::MESSAGE_BYTES);
    let frames = 2 * STREAM_BYTES / limits::TRANSACTION_BYTES;
    // A condition that fails carries its bytes in and writes nothing.
    let heavy = |id: u64| {
        let value = bytes::Bytes::from(vec![7; limits::VALUE_BYTES - 1024]);
        let test = |at: u64| v1::Condition { key: format!("{at}").into(), test: Some(v1::condition::Test::ValueEquals(value.clone())) };
        let request = TransactRequest { header: header(), conditions: (0..4).map(test).collect(), operations: vec![] };
        RequestFrame { requests: vec![FramedRequest { id, body: Some(request::Body::Transact(request)) }] }
    };
    let answers = client.exchange(with("Bearer operator", stream::iter((0..frames as u64).map(heavy)))).await.expect("let in").into_inner();
    let answers: Vec<ResponseFrame> = answers.map(|frame| frame.expect("a frame")).collect().await;
    let answered: usize = answers.iter().map(|frame| frame.responses.len()).sum();
    assert_eq!(answered, frames);
    node.stop().await.expect("stops");
}

fn get(key: &'static str) -> GetRequest {
    GetRequest { header: header(), key: key.into(), read: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unary_calls_are_answered_and_strangers_are_not() {
    let (node, channel) = node().await;
    let mut client = KvClient::new(channel);
    assert!(client.transact(with("Bearer operator", put("k".into()))).await.expect("committed").into_inner().committed);
    let row = client.get(with("Bearer operator", get("k"))).await.expect("found").into_inner().row.expect("there");
    assert_eq!(row.value, "v");
    for (token, kind) in [("Bearer nobody", ErrorKind::Unauthenticated), ("Bearer tenant", ErrorKind::Denied)] {
        let status = client.get(with(token, get("k"))).await.expect_err(token);
        assert_eq!(Error::from_status(&status, false).kind(), kind);
    }
    let status = client.get(Request::new(get("k"))).await.expect_err("no token at all");
    assert_eq!(status.code(), tonic::Code::Unauthenticated);
    let status = client.get(with("Bearer operator", get(""))).await.expect_err("an empty key");
    assert!(matches!(Error::from_status(&status, false), Error::Invalid { field, .. } if field == "key"));
    node.stop().await.expect("stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_may_look_at_a_node_but_not_have_it_read_every_row() {
    let (node, channel) = node().await;
    let mut client = NodeAdminClient::new(channel);
    let request = |group_ids| v1::StatusRequest { group_ids };
    client.status(with("Bearer tenant", request(vec![]))).await.expect("it finds leaders by it");
    let status = client.status(with("Bearer tenant", request(vec![0]))).await.expect_err("hashes are for operators");
    assert_eq!(Error::from_status(&status, false).kind(), ErrorKind::Denied);
    client.status(with("Bearer operator", request(vec![0]))).await.expect("an operator");
    node.stop().await.expect("stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_of_the_stream_is_answered_once_and_many_in_a_frame() {
    let (node, channel) = node().await;
    let mut client = KvClient::new(channel).max_decoding_message_size(limits::MESSAGE_BYTES);
    let requests = 500_u64;
    let framed = |id| FramedRequest { id, body: Some(request::Body::Transact(put(format!("k{id}")))) };
    let mut frames: Vec<RequestFrame> =
        (0..requests / 50).map(|frame| RequestFrame { requests: (frame * 50..(frame + 1) * 50).map(framed).collect() }).collect();
    frames.push(RequestFrame { requests: vec![FramedRequest { id: requests, body: None }] });
    let answers = client.exchange(with("Bearer operator", stream::iter(frames))).await.expect("let in").into_inner();
    let answers: Vec<ResponseFrame> = answers.map(|frame| frame.expect("a frame")).collect().await;
    assert!(answers.len() < 400, "{} frames for {requests} requests", answers.len());
    let mut ids = Vec::new();
    for response in answers.into_iter().flat_map(|frame| frame.responses) {
        ids.push(response.id);
        let body = response.body.expect("a body");
        if let response::Body::Transact(answer) = &body {
            assert!(answer.committed && response.id < requests);
        } else if let response::Body::Error(error) = &body {
            assert!(error.field == "body" && response.id == requests);
        } else {
            panic!("{body:?}");
        }
    }
    ids.sort_unstable();
    assert_eq!(ids, (0..=requests).collect::<Vec<_>>());
    let oversized = RequestFrame { requests: (0..=limits::FRAME_REQUESTS as u64).map(framed).collect() };
    let mut answers = client.exchange(with("Bearer operator", stream::iter([oversized]))).await.expect("let in").into_inner();
    assert_eq!(answers.message().await.expect_err("too many").code(), tonic::Code::InvalidArgument);
    node.stop().await.expect("stops");
}
