//! Errors by the caller's duty, and their only translation to and from the wire.

use crate::v1;
use bytes::Bytes;
use prost::Message as _;
use std::time::Duration;

/// Why a request was not answered. The kind says what to do next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The transaction lost against another one: read again and retry.
    #[error("conflict: {message}")]
    Conflict {
        /// What it lost against.
        message: String,
    },
    /// Another node or group answers this: go there.
    #[error("moved: {message}")]
    Moved {
        /// For a person.
        message: String,
        /// Where to go.
        redirect: v1::Redirect,
    },
    /// Nothing was done: try again after a while.
    #[error("unavailable, retry after {} ms: {message}", retry_after.as_millis())]
    Unavailable {
        /// For a person.
        message: String,
        /// How long to wait.
        retry_after: Duration,
    },
    /// A queue or a quota is full and nothing was done: slow down.
    #[error("exhausted, retry after {} ms: {message}", retry_after.as_millis())]
    Exhausted {
        /// Which queue or quota, and its bound.
        message: String,
        /// How long to wait.
        retry_after: Duration,
    },
    /// The outcome is not known: the same request id tells it.
    #[error("outcome unknown, send the same request id again to learn it: {message}")]
    UnknownOutcome {
        /// For a person.
        message: String,
    },
    /// The request can never succeed as it is.
    #[error("invalid {field}: must be {limit}, is {value}")]
    Invalid {
        /// The field that is wrong.
        field: String,
        /// What it may be.
        limit: String,
        /// What it was.
        value: String,
    },
    /// What the request names does not exist.
    #[error("not found: {message}")]
    NotFound {
        /// What was named.
        message: String,
    },
    /// What the request would create exists already.
    #[error("exists already: {message}")]
    AlreadyExists {
        /// What was named.
        message: String,
    },
    /// The principal may not do this.
    #[error("denied: {message}")]
    Denied {
        /// Who may not do what.
        message: String,
    },
    /// The principal could not be established.
    #[error("unauthenticated: {message}")]
    Unauthenticated {
        /// What is missing or wrong; never the secret.
        message: String,
    },
    /// An operator has switched off what the request needs: asking again does not help, the operator does.
    #[error("suspended: {message}")]
    Suspended {
        /// Which tenant or service, and why.
        message: String,
    },
    /// Stored bytes failed their checksum and were not served.
    #[error("corrupt: {message}")]
    Corrupt {
        /// What and where.
        message: String,
    },
    /// A bug in the server.
    #[error("internal error, please report it: {message}")]
    Internal {
        /// For the developers.
        message: String,
    },
}

impl Error {
    /// An [`Error::Invalid`].
    pub fn invalid(field: impl Into<String>, limit: impl Into<String>, value: impl Into<String>) -> Self {
        Error::Invalid { field: field.into(), limit: limit.into(), value: value.into() }
    }

    /// An [`Error::Unavailable`].
    pub fn unavailable(message: impl Into<String>, retry_after: Duration) -> Self {
        Error::Unavailable { message: message.into(), retry_after }
    }

    /// An [`Error::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Error::Internal { message: message.into() }
    }

    /// An [`Error::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Error::NotFound { message: message.into() }
    }

    /// The kind on the wire.
    #[must_use]
    pub fn kind(&self) -> v1::ErrorKind {
        use v1::ErrorKind as K;
        match self {
            Error::Conflict { .. } => K::Conflict,
            Error::Moved { .. } => K::Moved,
            Error::Unavailable { .. } => K::Unavailable,
            Error::Exhausted { .. } => K::Exhausted,
            Error::UnknownOutcome { .. } => K::UnknownOutcome,
            Error::Invalid { .. } => K::Invalid,
            Error::NotFound { .. } => K::NotFound,
            Error::AlreadyExists { .. } => K::AlreadyExists,
            Error::Denied { .. } => K::Denied,
            Error::Unauthenticated { .. } => K::Unauthenticated,
            Error::Suspended { .. } => K::Suspended,
            Error::Corrupt { .. } => K::Corrupt,
            Error::Internal { .. } => K::Internal,
        }
    }

    /// As it travels.
    #[must_use]
    pub fn to_proto(&self) -> v1::Error {
        let mut out = v1::Error { kind: self.kind().into(), ..Default::default() };
        match self {
            Error::Moved { message, redirect } => {
                out.message.clone_from(message);
                out.redirect = Some(redirect.clone());
            }
            Error::Unavailable { message, retry_after } | Error::Exhausted { message, retry_after } => {
                out.message.clone_from(message);
                out.retry_after_ms = u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX);
            }
            Error::Invalid { field, limit, value } => {
                out.message = self.to_string();
                out.field.clone_from(field);
                out.limit.clone_from(limit);
                out.value.clone_from(value);
            }
            Error::Conflict { message }
            | Error::UnknownOutcome { message }
            | Error::NotFound { message }
            | Error::AlreadyExists { message }
            | Error::Denied { message }
            | Error::Unauthenticated { message }
            | Error::Suspended { message }
            | Error::Corrupt { message }
            | Error::Internal { message } => out.message.clone_from(message),
        }
        out
    }

    /// From the wire. A kind that this build does not know becomes [`Error::Internal`].
    #[must_use]
    pub fn from_proto(e: v1::Error) -> Self {
        use v1::ErrorKind as K;
        let retry_after = Duration::from_millis(e.retry_after_ms.into());
        let (kind, message) = (e.kind(), e.message);
        match kind {
            K::Conflict => Error::Conflict { message },
            K::Moved => Error::Moved { message, redirect: e.redirect.unwrap_or_default() },
            K::Unavailable => Error::Unavailable { message, retry_after },
            K::Exhausted => Error::Exhausted { message, retry_after },
            K::UnknownOutcome => Error::UnknownOutcome { message },
            K::Invalid => Error::Invalid { field: e.field, limit: e.limit, value: e.value },
            K::NotFound => Error::NotFound { message },
            K::AlreadyExists => Error::AlreadyExists { message },
            K::Denied => Error::Denied { message },
            K::Unauthenticated => Error::Unauthenticated { message },
            K::Suspended => Error::Suspended { message },
            K::Corrupt => Error::Corrupt { message },
            K::Internal | K::Unspecified => Error::Internal { message },
        }
    }

    /// As a gRPC status whose details carry the whole error.
    #[must_use]
    pub fn to_status(&self) -> tonic::Status {
        let code = self.code();
        let error = v1::RpcAny { type_url: DETAIL_TYPE.into(), value: self.to_proto().encode_to_vec().into() };
        let message = self.to_string();
        let details = v1::RpcStatus { code: code as i32, message: message.clone(), details: vec![error] };
        tonic::Status::with_details(code, message, details.encode_to_vec().into())
    }

    /// From a gRPC status. One without our details comes from the transport: a request that may have been sent has an unknown
    /// outcome when `sent_effects` says that it changes something; else it is unavailable.
    #[must_use]
    #[expect(clippy::wildcard_enum_match_arm, reason = "whatever else the transport says, the request may or may not have arrived")]
    pub fn from_status(status: &tonic::Status, sent_effects: bool) -> Self {
        let detail = v1::RpcStatus::decode(Bytes::copy_from_slice(status.details()))
            .ok()
            .and_then(|d| d.details.into_iter().find(|any| any.type_url == DETAIL_TYPE))
            .and_then(|any| v1::Error::decode(any.value).ok());
        if let Some(detail) = detail {
            return Error::from_proto(detail);
        }
        let message = format!("{}: {}", status.code(), status.message());
        match status.code() {
            tonic::Code::Unauthenticated => Error::Unauthenticated { message },
            tonic::Code::PermissionDenied => Error::Denied { message },
            tonic::Code::InvalidArgument => Error::invalid("message", "accepted by the transport", message),
            // Too long a message: the request, refused, or the answer, after all was done.
            tonic::Code::OutOfRange if !sent_effects => Error::invalid("message", "short enough for the transport", message),
            tonic::Code::Unimplemented => Error::Internal { message },
            _ if sent_effects => Error::UnknownOutcome { message },
            _ => Error::Unavailable { message, retry_after: Duration::from_millis(50) },
        }
    }

    fn code(&self) -> tonic::Code {
        use tonic::Code;
        match self {
            Error::Conflict { .. } => Code::Aborted,
            Error::Moved { .. } | Error::UnknownOutcome { .. } => Code::Unknown,
            Error::Unavailable { .. } => Code::Unavailable,
            Error::Exhausted { .. } => Code::ResourceExhausted,
            Error::Invalid { .. } => Code::InvalidArgument,
            Error::NotFound { .. } => Code::NotFound,
            Error::AlreadyExists { .. } => Code::AlreadyExists,
            Error::Denied { .. } => Code::PermissionDenied,
            Error::Unauthenticated { .. } => Code::Unauthenticated,
            Error::Suspended { .. } => Code::FailedPrecondition,
            Error::Corrupt { .. } => Code::DataLoss,
            Error::Internal { .. } => Code::Internal,
        }
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        error.to_status()
    }
}

const DETAIL_TYPE: &str = "type.googleapis.com/metadb.v1.Error";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_the_wire() {
        let message = || "why".to_owned();
        let retry_after = Duration::from_millis(7);
        let redirect = v1::Redirect {
            group_id: 3,
            leader: Some(v1::NodeRef { node_id: 2, address: "a:1".into() }),
            epoch: 9,
            keys: Some(Box::new(v1::KeySpan { start: "a".into(), end: "b".into() })),
        };
        let all = [
            Error::Conflict { message: message() },
            Error::Moved { message: message(), redirect },
            Error::Unavailable { message: message(), retry_after },
            Error::Exhausted { message: message(), retry_after },
            Error::UnknownOutcome { message: message() },
            Error::invalid("f", "l", "v"),
            Error::not_found("x"),
            Error::AlreadyExists { message: message() },
            Error::Denied { message: message() },
            Error::Unauthenticated { message: message() },
            Error::Suspended { message: message() },
            Error::Corrupt { message: message() },
            Error::internal("bug"),
        ];
        for error in all {
            assert_eq!(Error::from_proto(error.to_proto()), error);
            assert_eq!(Error::from_status(&error.to_status(), true), error);
        }
    }

    #[test]
    fn a_broken_transport_is_unknown_for_writes_and_unavailable_for_reads() {
        let status = tonic::Status::unavailable("connection reset");
        assert!(matches!(Error::from_status(&status, true), Error::UnknownOutcome { .. }));
        assert!(matches!(Error::from_status(&status, false), Error::Unavailable { .. }));
    }
}
