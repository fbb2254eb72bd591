//! A request followed from end to end: nodes of the real binary tell a collector, here a small one, where its time went.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod harness;
#[path = "../src/telemetry/otlp/messages.rs"]
mod messages;

use bytes::{Buf as _, Bytes};
use harness::{Dev, pause};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use messages::{ExportTraceServiceRequest, ExportTraceServiceResponse, KeyValue};
use prost::Message as _;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A span as it came, and the node that told it.
#[derive(Debug, Clone)]
struct Seen {
    node: String,
    trace: Vec<u8>,
    id: Vec<u8>,
    parent: Vec<u8>,
    name: String,
    times: (u64, u64),
    attributes: BTreeMap<String, String>,
}

type Spans = Arc<Mutex<Vec<Seen>>>;

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    attributes.into_iter().filter_map(|pair| Some((pair.key, pair.value?.string_value?))).collect()
}

/// Takes one message of gRPC: five bytes ahead, then protobuf.
async fn take(
    spans: Spans,
    request: Request<Incoming>,
) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>>, Infallible> {
    assert_eq!(request.uri().path(), "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
    let mut body = request.into_body().collect().await.expect("a whole message").to_bytes();
    body.advance(5);
    let message = ExportTraceServiceRequest::decode(body).expect("protobuf");
    for of_process in message.resource_spans {
        let about = texts(of_process.resource.expect("a resource").attributes);
        assert_eq!(about.get("service.name").map(String::as_str), Some("cairn"));
        let node = about.get("service.instance.id").cloned().unwrap_or_default();
        for span in of_process.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            spans.lock().expect("no test panicked").push(Seen {
                node: node.clone(),
                trace: span.trace_id,
                id: span.span_id,
                parent: span.parent_span_id,
                name: span.name,
                times: (span.start_time_unix_nano, span.end_time_unix_nano),
                attributes: texts(span.attributes),
            });
        }
    }
    let answer = ExportTraceServiceResponse {}.encode_to_vec();
    assert!(answer.is_empty(), "so that its length is five zeros");
    let empty = Bytes::from_static(&[0; 5]);
    let mut trailers = hyper::HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().expect("plain"));
    let frames = futures::stream::iter([Ok(Frame::data(empty)), Ok(Frame::trailers(trailers))]);
    Ok(Response::builder().header("content-type", "application/grpc").body(StreamBody::new(frames)).expect("a response"))
}

/// A collector on loopback; gives where it listens and what it got.
fn collector(runtime: &tokio::runtime::Runtime) -> (String, Spans) {
    let spans = Spans::default();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port is free");
    let address = listener.local_addr().expect("bound");
    let taken = Arc::clone(&spans);
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let spans = Arc::clone(&taken);
            let service = hyper::service::service_fn(move |request| take(Arc::clone(&spans), request));
            tokio::spawn(hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service));
        }
    });
    (format!("http://{address}"), spans)
}

fn child<'a>(all: &'a [Seen], parent: &Seen, name: &str) -> Option<&'a Seen> {
    all.iter().find(|span| span.name == name && span.trace == parent.trace && span.parent == parent.id)
}

/// The spans of a write that was followed through everything, first to last.
fn whole_write<'a>(all: &'a [Seen], router: &'a Seen) -> Option<[&'a Seen; 5]> {
    let node = child(all, router, "node")?;
    let propose = child(all, node, "propose")?;
    let sync = child(all, propose, "log sync")?;
    let apply = child(all, propose, "apply")?;
    Some([router, node, propose, sync, apply])
}

#[test]
fn a_write_is_followed_from_the_router_over_the_wire_through_the_log_to_its_apply() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let (endpoint, spans) = collector(&runtime);
    let folder = tempfile::tempdir().expect("a folder");
    let settings = [("CAIRN_TRACE_OTLP_ENDPOINT", &*endpoint), ("CAIRN_TRACE_SAMPLE_RATIO", "1.0")];
    let dev = Dev::start_with(&folder.path().join("data"), 3, &settings);
    // Whichever node leads the tenant's group: two of these requests come in at another one, and travel as frames.
    for node in 0..3 {
        let address = dev.told["nodes"][node]["grpc"].as_str().expect("an address");
        dev.json(&["fs", "mkdir", &format!("/folder-{node}"), "--endpoint", address]);
    }
    let mut found = None;
    for _ in 0..300 {
        let all = spans.lock().expect("no test panicked").clone();
        let roots = all.iter().filter(|span| span.name == "router" && span.parent.is_empty());
        let whole: Vec<[Seen; 5]> = roots.filter_map(|root| whole_write(&all, root)).map(|spans| spans.map(Seen::clone)).collect();
        found = whole
            .into_iter()
            .find(|[router, node, ..]| router.node != node.node && node.attributes.get("tenant").is_some_and(|t| t != "0"));
        if found.is_some() {
            break;
        }
        pause(Duration::from_millis(100));
    }
    let names: BTreeMap<String, usize> = spans.lock().expect("no test panicked").iter().fold(BTreeMap::new(), |mut names, span| {
        *names.entry(span.name.clone()).or_default() += 1;
        names
    });
    let [router, node, propose, sync, apply] = found.unwrap_or_else(|| panic!("no write was followed over the wire: {names:?}"));
    assert_eq!((router.attributes["verb"].as_str(), node.attributes["verb"].as_str()), ("transact", "transact"));
    assert_eq!(node.attributes["request_id"].len(), 32, "{node:?}");
    assert!([&propose, &sync, &apply].iter().all(|span| span.node == node.node), "the log is that of the node that leads");
    for span in [&router, &node, &propose, &sync, &apply] {
        assert!(span.times.0 > 1_600_000_000_000_000_000 && span.times.0 <= span.times.1, "{span:?}");
    }
    assert!(
        apply.times.0 >= sync.times.0 && apply.times.1 <= propose.times.1,
        "applied after it was handed to the log: {sync:?} {apply:?}"
    );
}
