//! The door: who may come in, for which tenant, and that errors keep their kind.

use super::{TENANT, fresh_fs};
use crate::door::FsDoor;
use crate::v1::{self, fs_server::Fs as _};
use futures::future::BoxFuture;
use metadb_proto::principal::Authenticate;
use metadb_proto::{Error, Principal};
use std::sync::Arc;
use tonic::Request;
use v1::request_header::Tenant;

/// Knows one operator, a key of the tenant and a key of another.
struct Keys;

impl Authenticate for Keys {
    fn authenticate<'a>(&'a self, authorization: &'a str) -> BoxFuture<'a, Result<Principal, Error>> {
        let tenant = |tenant_id| Principal::Tenant { tenant_id, access_key_id: "AK".into() };
        Box::pin(async move {
            match authorization {
                "Bearer operator" => Ok(Principal::Operator("OP".into())),
                "Bearer tenant" => Ok(tenant(TENANT)),
                "Bearer other" => Ok(tenant(8)),
                _ => Err(Error::Unauthenticated { message: "nobody known".into() }),
            }
        })
    }
}

fn door() -> FsDoor {
    FsDoor::inner(fresh_fs().0, Arc::new(Keys), metadb_proto::settings::Settings::default())
}

fn by<T>(who: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if !who.is_empty() {
        request.metadata_mut().insert("authorization", format!("Bearer {who}").parse().expect("ascii"));
    }
    request
}

fn header(tenant: Option<Tenant>) -> Option<v1::RequestHeader> {
    Some(v1::RequestHeader { tenant, ..Default::default() })
}

fn path_target(path: &str) -> Option<v1::Target> {
    Some(v1::Target { target: Some(v1::target::Target::Path(path.into())) })
}

fn path(path: &str) -> Option<v1::Place> {
    Some(v1::Place { place: Some(v1::place::Place::Path(path.into())) })
}

fn error_of<T>(answer: Result<T, tonic::Status>) -> Error {
    Error::from_status(&answer.err().expect("refused"), true)
}

#[tokio::test]
async fn only_the_tenant_and_operators_come_in() {
    let door = door();
    let stat = async |who: &str, tenant: Option<Tenant>| {
        let request = v1::StatRequest { header: header(tenant), target: path_target("/") };
        door.stat(by(who, request)).await.map(|answer| answer.into_inner().node.expect("present").id)
    };
    let (id, name) = (Some(Tenant::TenantId(TENANT)), Some(Tenant::TenantName("t".into())));
    for (who, tenant) in [("tenant", None), ("tenant", id.clone()), ("tenant", name.clone()), ("operator", id.clone()), ("operator", name)]
    {
        assert_eq!(stat(who, tenant).await.expect("let in"), 1);
    }
    for who in ["", "nobody"] {
        assert!(matches!(error_of(stat(who, None).await), Error::Unauthenticated { .. }));
    }
    assert!(matches!(error_of(stat("other", id).await), Error::Denied { .. }));
    assert!(matches!(error_of(stat("operator", None).await), Error::Invalid { field, .. } if field == "header.tenant"));
    assert!(
        matches!(error_of(stat("operator", Some(Tenant::TenantId(0))).await), Error::Invalid { field, .. } if field == "header.tenant_id")
    );
    assert!(matches!(error_of(stat("operator", Some(Tenant::TenantName("x".into()))).await), Error::NotFound { .. }));
}

#[tokio::test]
async fn the_main_operations_by_path() {
    let door = door();
    let made = v1::CreateFolderRequest { place: path("/Docs"), ..Default::default() };
    let made = door.create_folder(by("tenant", made)).await.expect("made").into_inner().node.expect("present");
    assert_eq!((made.kind(), made.owner.as_str()), (v1::NodeKind::TreeFolder, "AK"));
    let version = v1::FileVersion { etag: "e".into(), ..Default::default() };
    let put = v1::PutFileRequest { place: path("/docs/a"), version: Some(version), ..Default::default() };
    let put = door.put_file(by("tenant", put)).await.expect("put").into_inner().node.expect("present");
    assert_eq!((put.parent_id, put.version.expect("a file's").author.as_str()), (made.id, "AK"));
    let rename = v1::RenameRequest { from: path("/docs/A"), to: path("/b"), ..Default::default() };
    assert_eq!(door.rename(by("tenant", rename)).await.expect("renamed").into_inner().entry.expect("present").id, put.id);
    let list = v1::ListRequest { folder: path_target("/"), ..Default::default() };
    let listed = door.list(by("tenant", list)).await.expect("listed").into_inner();
    assert_eq!(listed.entries.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["b", "Docs"]);
    for place in ["/docs", "/b"] {
        door.delete(by("tenant", v1::DeleteRequest { place: path(place), ..Default::default() })).await.expect("deleted");
    }
    let gone = v1::StatRequest { target: path_target("/b"), ..Default::default() };
    assert!(matches!(error_of(door.stat(by("tenant", gone)).await), Error::NotFound { .. }));
}

#[tokio::test]
async fn bad_requests_are_told_what_is_wrong() {
    let door = door();
    let bad_id = v1::RequestHeader { request_id: vec![1].into(), ..Default::default() };
    let request = v1::DeleteRequest { header: Some(bad_id), place: path("/a"), ..Default::default() };
    assert!(
        matches!(error_of(door.delete(by("tenant", request)).await), Error::Invalid { field, value, .. } if field == "header.request_id" && value == "1 bytes")
    );
    let request = v1::DeleteRequest::default();
    assert!(matches!(error_of(door.delete(by("tenant", request)).await), Error::Invalid { field, .. } if field == "place"));
    let request = v1::PutFileRequest { place: path("/a"), ..Default::default() };
    assert!(matches!(error_of(door.put_file(by("tenant", request)).await), Error::Invalid { field, .. } if field == "version"));
    for bad in ["/..", "/a\0", &format!("/{}", "x".repeat(256))] {
        let request = v1::CreateFolderRequest { place: path(bad), ..Default::default() };
        assert!(matches!(error_of(door.create_folder(by("tenant", request)).await), Error::Invalid { .. }), "{bad}");
    }
    let content = v1::ContentPart { content_id: vec![0; 15].into(), ..Default::default() };
    let version = v1::FileVersion { content: vec![content], ..Default::default() };
    let request = v1::PutFileRequest { place: path("/a"), version: Some(version), ..Default::default() };
    assert!(matches!(error_of(door.put_file(by("tenant", request)).await), Error::Invalid { field, .. } if field == "content.content_id"));
}
