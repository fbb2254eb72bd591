//! The gRPC door `fs.v1`: establishes who asks and for which tenant, translates, and calls the operation. Decides nothing else.
//!
//! What a principal may do is decided by `Principal::authorize`, here, for the tenant as a whole: below this door the node itself asks.
//! Errors become statuses by `metadb_proto::Error::to_status` alone.

mod convert;
mod service;

use crate::model::Entry;
use crate::namespace::{Fs, Namespace};
use crate::v1;
use metadb_proto::principal::{Action, Authenticate, DIRECTORY_TENANT};
use metadb_proto::settings::Settings;
use metadb_proto::settings::gate::Service;
use metadb_proto::{Error, Principal, limits};
use std::sync::Arc;
use std::time::Duration;
use tonic::Request;
use v1::request_header::Tenant;

/// The generated server. That of the simulator names its interceptor too.
#[cfg(not(madsim))]
pub type Server = v1::fs_server::FsServer<FsDoor>;
/// The generated server. That of the simulator names its interceptor too.
#[cfg(madsim)]
pub type Server = v1::fs_server::FsServer<FsDoor, tonic::codegen::IdentityInterceptor>;

/// Serves `fs.v1` over a [`Fs`].
#[derive(Clone)]
pub struct FsDoor {
    fs: Fs,
    authenticator: Arc<dyn Authenticate>,
    settings: Settings,
}

impl FsDoor {
    /// The gRPC server.
    #[must_use]
    pub fn new(fs: Fs, authenticator: Arc<dyn Authenticate>, settings: Settings) -> Server {
        let server = v1::fs_server::FsServer::new(Self::inner(fs, authenticator, settings));
        server.max_decoding_message_size(limits::MESSAGE_BYTES).max_encoding_message_size(limits::MESSAGE_BYTES)
    }

    pub(crate) fn inner(fs: Fs, authenticator: Arc<dyn Authenticate>, settings: Settings) -> FsDoor {
        FsDoor { fs, authenticator, settings }
    }

    /// Takes a request in: who asks, for which tenant, until when.
    async fn admit<T>(&self, request: Request<T>, header: impl FnOnce(&T) -> Option<&v1::RequestHeader>) -> Result<(Namespace, T), Error> {
        let authorization = request.metadata().get("authorization").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let request = request.into_inner();
        let authorization = authorization.ok_or_else(|| Error::Unauthenticated { message: "no `authorization` in the metadata".into() })?;
        let principal = self.authenticator.authenticate(&authorization).await?;
        let header = header(&request).cloned().unwrap_or_default();
        let tenant_id = self.tenant(&principal, header.tenant).await?;
        if matches!(principal, Principal::Tenant { .. }) {
            self.settings.check_service(Service::Fs, tenant_id)?;
        }
        let mut namespace = self.fs.namespace(tenant_id).with_author(author(&principal));
        if header.deadline_ms != 0 {
            namespace = namespace.with_deadline(Duration::from_millis(header.deadline_ms.into()));
        }
        if !header.request_id.is_empty() {
            namespace = namespace.with_request_id(convert::bytes("header.request_id", &header.request_id)?);
        }
        Ok((namespace, request))
    }

    /// Whose namespace is meant, if the principal may use it.
    async fn tenant(&self, principal: &Principal, asked: Option<Tenant>) -> Result<u64, Error> {
        let own = match principal {
            Principal::Tenant { tenant_id, .. } => Some(*tenant_id),
            Principal::Node(_) | Principal::Operator(_) => None,
        };
        let tenant_id = match (asked, own) {
            (None, Some(own)) => own,
            (Some(Tenant::TenantId(id)), _) => id,
            (Some(Tenant::TenantName(name)), _) => self.named(&name).await?,
            (None, None) => return Err(Error::invalid("header.tenant", "named, unless a tenant's key asks", "absent")),
        };
        if tenant_id == DIRECTORY_TENANT {
            return Err(Error::invalid("header.tenant_id", "the id of a tenant", "0, the directory"));
        }
        principal.authorize(Action::Data { tenant_id })?;
        Ok(tenant_id)
    }

    async fn named(&self, name: &str) -> Result<u64, Error> {
        Ok(self.fs.router().tenant_named(name).await?.tenant_id())
    }
}

/// Who a principal is in events.
fn author(principal: &Principal) -> String {
    match principal {
        Principal::Node(id) => format!("node {id}"),
        Principal::Operator(key) => key.clone(),
        Principal::Tenant { access_key_id, .. } => access_key_id.clone(),
    }
}

fn absent(field: &str) -> Error {
    Error::invalid(field, "present", "absent")
}

/// The id of what a target names.
async fn target_id(namespace: &Namespace, field: &str, target: Option<v1::Target>) -> Result<u64, Error> {
    use v1::target::Target as T;
    match target.and_then(|target| target.target).ok_or_else(|| absent(field))? {
        T::Id(id) => Ok(id),
        T::Path(path) => namespace.resolve(&path).await.map(|Entry { id, .. }| id),
        T::Child(child) => namespace.stat_entry(child.parent_id, &child.name).await.map(|info| info.id),
    }
}

/// The folder and the name that a place means.
async fn place(namespace: &Namespace, field: &str, place: Option<v1::Place>) -> Result<(u64, String), Error> {
    use v1::place::Place as P;
    match place.and_then(|place| place.place).ok_or_else(|| absent(field))? {
        P::Path(path) => namespace.resolve_place(&path).await,
        P::Child(child) => Ok((child.parent_id, child.name)),
    }
}
