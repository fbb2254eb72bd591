//! The data plane as a trait: what a caller in the same process uses instead of a socket.

use crate::{Error, Principal, v1};
use futures::future::BoxFuture;
pub use v1::{request, response};

/// One request in, one response out. Served by a node; called by the router when it lives in the same process, and by the
/// gRPC doors (unary and framed) when it does not.
pub trait Kv: Send + Sync + 'static {
    /// Answers one request on behalf of a principal.
    ///
    /// # Errors
    /// Every kind of [`Error`]; each says what to do.
    fn call<'a>(&'a self, principal: &'a Principal, body: request::Body) -> BoxFuture<'a, Result<response::Body, Error>>;
}

/// The header of a request, if it carries one.
#[must_use]
pub fn header(body: &request::Body) -> Option<&v1::RequestHeader> {
    match body {
        request::Body::Get(r) => r.header.as_ref(),
        request::Body::MultiGet(r) => r.header.as_ref(),
        request::Body::Scan(r) => r.header.as_ref(),
        request::Body::Walk(r) => r.header.as_ref(),
        request::Body::Transact(r) => r.header.as_ref(),
    }
}

/// The header of a request, made if it carries none.
pub fn header_mut(body: &mut request::Body) -> &mut v1::RequestHeader {
    match body {
        request::Body::Get(r) => r.header.get_or_insert_default(),
        request::Body::MultiGet(r) => r.header.get_or_insert_default(),
        request::Body::Scan(r) => r.header.get_or_insert_default(),
        request::Body::Walk(r) => r.header.get_or_insert_default(),
        request::Body::Transact(r) => r.header.get_or_insert_default(),
    }
}

/// Whether the request changes something, so that a lost answer leaves its outcome unknown.
#[must_use]
pub fn has_effects(body: &request::Body) -> bool {
    match body {
        request::Body::Transact(_) => true,
        request::Body::Get(_) | request::Body::MultiGet(_) | request::Body::Scan(_) | request::Body::Walk(_) => false,
    }
}
