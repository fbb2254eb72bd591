//! The gRPC door as a foreign client meets it: reflection, health, and what it refuses.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod harness;

use harness::Dev;
use metadb_proto::v1::kv_client::KvClient;
use metadb_proto::{Error, limits, v1};
use shard_router::operation;
use tonic::transport::Channel;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ListServiceResponse, ServerReflectionRequest};

/// A tenant that nobody made.
const NOBODY: u64 = 4711;

fn on_one_node<F: Future<Output = ()>>(test: impl FnOnce(Channel, String) -> F) {
    let folder = tempfile::tempdir().expect("a folder");
    let dev = Dev::start(&folder.path().join("data"), 1);
    let address = dev.told["nodes"][0]["grpc"].as_str().expect("an address").to_owned();
    let key = dev.json(&["admin", "key", "create", "--operator"]);
    let (id, secret) = (key["access_key_id"].as_str().expect("an id"), key["secret_access_key"].as_str().expect("a secret"));
    let token = format!("Bearer {}", metadb_proto::principal::Token::for_key(id, secret));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let channel = Channel::from_shared(format!("http://{address}")).expect("an address").connect().await.expect("connected");
        test(channel, token).await;
    });
}

async fn services(channel: Channel) -> Vec<String> {
    let ask = ServerReflectionRequest { host: String::new(), message_request: Some(MessageRequest::ListServices(String::new())) };
    let mut answers =
        ServerReflectionClient::new(channel).server_reflection_info(tokio_stream::once(ask)).await.expect("answered").into_inner();
    match answers.message().await.expect("an answer").and_then(|answer| answer.message_response) {
        Some(MessageResponse::ListServicesResponse(ListServiceResponse { service })) => service.into_iter().map(|s| s.name).collect(),
        other => panic!("{other:?}"),
    }
}

fn with_token<T>(message: T, token: &str) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("authorization", token.parse().expect("plain"));
    request
}

fn get(tenant_id: u64, key: &'static [u8]) -> v1::GetRequest {
    let header = Some(v1::RequestHeader { tenant_id, ..v1::RequestHeader::default() });
    v1::GetRequest { header, key: key.into(), read: None }
}

#[test]
fn a_foreign_client_finds_out_what_is_served_and_whether_it_is_healthy() {
    on_one_node(|channel, _| async move {
        let found = services(channel.clone()).await;
        for service in ["metadb.v1.Kv", "metadb.v1.NodeAdmin", "fs.v1.Fs", "grpc.health.v1.Health"] {
            assert!(found.iter().any(|name| name == service), "{service} is not in {found:?}");
        }
        for service in ["", "metadb.v1.Kv", "fs.v1.Fs"] {
            let ask = tonic_health::pb::HealthCheckRequest { service: service.to_owned() };
            let answer = tonic_health::pb::health_client::HealthClient::new(channel.clone()).check(ask).await.expect("answered");
            assert_eq!(answer.into_inner().status(), tonic_health::pb::health_check_response::ServingStatus::Serving, "{service:?}");
        }
    });
}

#[test]
fn what_can_never_succeed_is_refused_with_what_to_mend() {
    on_one_node(|channel, token| async move {
        let mut kv = KvClient::new(channel);
        let refused = |status: tonic::Status| (status.code(), Error::from_status(&status, true));

        let (code, _) = refused(kv.get(get(1, b"k")).await.expect_err("no token"));
        assert_eq!(code, tonic::Code::Unauthenticated);
        let forged = with_token(get(1, b"k"), "Bearer key.AKNOBODY.secret");
        assert_eq!(refused(kv.get(forged).await.expect_err("a bad token")).0, tonic::Code::Unauthenticated);

        let (code, error) = refused(kv.get(with_token(get(NOBODY, b"k"), &token)).await.expect_err("no such tenant"));
        assert!(matches!(error, Error::NotFound { .. } | Error::Moved { .. }), "{code}: {error}");

        let operations = vec![operation::put(vec![b'k'; limits::KEY_BYTES + 1], "v")];
        let header = Some(v1::RequestHeader { tenant_id: 1, ..v1::RequestHeader::default() });
        let request = v1::TransactRequest { header, conditions: Vec::new(), operations };
        let (code, error) = refused(kv.transact(with_token(request, &token)).await.expect_err("too long a key"));
        let Error::Invalid { field, limit, value } = error else { panic!("{code}: {error}") };
        assert_eq!((code, field.as_str()), (tonic::Code::InvalidArgument, "operations.put.key"));
        assert!(limit.contains("4096") && value.contains("4097"), "{limit}; {value}");
    });
}
