//! What went wrong, in the words of S3. The only place where `metadb_proto::Error` and body errors become S3 errors.

use crate::content::WriteError;
use http::{HeaderMap, HeaderValue};
use metadb_proto::Error;
use s3s::{S3Error, S3ErrorCode, StdError};
use std::time::Duration;

/// What the request names, for "there is no such …".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    Bucket,
    Key,
    Upload,
}

/// An S3 error with a message.
pub(crate) fn refuse(code: S3ErrorCode, message: impl Into<String>) -> S3Error {
    S3Error::with_message(code, message.into())
}

/// An S3 error whose code the library does not list: 400.
pub(crate) fn refuse_as(code: &str, message: impl Into<String>) -> S3Error {
    let code = S3ErrorCode::from_bytes(code.as_bytes()).unwrap_or(S3ErrorCode::InvalidRequest);
    let mut error = refuse(code, message);
    error.set_status_code(http::StatusCode::BAD_REQUEST);
    error
}

/// A failed operation of the namespace or the content store, on something named.
pub(crate) fn failed(subject: Subject, error: Error) -> S3Error {
    match error {
        Error::NotFound { message } => match subject {
            Subject::Bucket => refuse(S3ErrorCode::NoSuchBucket, "The specified bucket does not exist"),
            Subject::Key => refuse(S3ErrorCode::NoSuchKey, "The specified key does not exist."),
            Subject::Upload => refuse(S3ErrorCode::NoSuchUpload, format!("The specified upload does not exist: {message}")),
        },
        Error::AlreadyExists { message } => match subject {
            Subject::Bucket => refuse(
                S3ErrorCode::BucketAlreadyOwnedByYou,
                "Your previous request to create the named bucket succeeded and you already own it.",
            ),
            Subject::Key | Subject::Upload => {
                refuse(S3ErrorCode::PreconditionFailed, format!("At least one of the preconditions you specified did not hold: {message}"))
            }
        },
        Error::Conflict { message } if fs_layer::error::is_precondition_failed(&Error::Conflict { message: message.clone() }) => {
            refuse(S3ErrorCode::PreconditionFailed, format!("At least one of the preconditions you specified did not hold: {message}"))
        }
        Error::Conflict { message } => refuse(
            S3ErrorCode::OperationAborted,
            format!("A conflicting operation is in progress against this resource, try again: {message}"),
        ),
        Error::Invalid { .. } if fs_layer::error::is_not_empty(&error) => {
            refuse(S3ErrorCode::BucketNotEmpty, "The bucket you tried to delete is not empty")
        }
        Error::Invalid { field, limit, value } => {
            refuse(S3ErrorCode::InvalidArgument, format!("invalid {field}: must be {limit}, is {value}"))
        }
        Error::Denied { message } => refuse(S3ErrorCode::AccessDenied, format!("Access Denied: {message}")),
        Error::Unauthenticated { message } => refuse(S3ErrorCode::AccessDenied, format!("Access Denied: {message}")),
        Error::Suspended { message } => refuse(S3ErrorCode::AccountProblem, format!("There is a problem with your account: {message}")),
        Error::Exhausted { message, retry_after } => {
            retry_later(S3ErrorCode::SlowDown, format!("Please reduce your request rate: {message}"), retry_after)
        }
        Error::Unavailable { message, retry_after } => retry_later(S3ErrorCode::ServiceUnavailable, message, retry_after),
        Error::Moved { message, .. } => retry_later(S3ErrorCode::ServiceUnavailable, message, Duration::ZERO),
        Error::UnknownOutcome { message } => retry_later(
            S3ErrorCode::ServiceUnavailable,
            format!("Whether this was done is not known, please try again: {message}"),
            Duration::ZERO,
        ),
        Error::Corrupt { message } | Error::Internal { message } => {
            tracing::error!(%message, "an internal error is told to an S3 client");
            refuse(S3ErrorCode::InternalError, format!("We encountered an internal error: {message}"))
        }
    }
}

/// The door itself has no room now.
pub(crate) fn slow_down(message: String) -> S3Error {
    retry_later(S3ErrorCode::SlowDown, message, Duration::from_secs(1))
}

/// 503 with a `Retry-After` of at least a second, its smallest unit.
fn retry_later(code: S3ErrorCode, message: String, after: Duration) -> S3Error {
    let mut error = refuse(code, message);
    error.set_status_code(http::StatusCode::SERVICE_UNAVAILABLE);
    let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0 || after.is_zero());
    // Headers of an error replace those that its body would have had.
    let xml = HeaderValue::from_static("application/xml");
    error.set_headers(HeaderMap::from_iter([(http::header::RETRY_AFTER, HeaderValue::from(seconds)), (http::header::CONTENT_TYPE, xml)]));
    error
}

/// A body that could not be stored.
pub(crate) fn not_stored(error: WriteError<S3Error>) -> S3Error {
    match error {
        WriteError::Body(error) => error,
        WriteError::Length { expected, found } if found < expected => refuse(
            S3ErrorCode::IncompleteBody,
            format!("You did not provide the number of bytes specified by the Content-Length HTTP header: {found} of {expected}"),
        ),
        WriteError::Length { expected, found } => {
            refuse(S3ErrorCode::IncompleteBody, format!("The body is longer than announced: {found} bytes instead of {expected}"))
        }
        WriteError::Slow { bytes } => {
            refuse(S3ErrorCode::RequestTimeout, format!("Your upload was too slow while others waited: {bytes} bytes came. Try again."))
        }
        WriteError::Store(error) => failed(Subject::Key, error),
    }
}

/// A body that broke off, or that is not what its signatures say. The library keeps the types of these errors to itself and passes ours
/// on inside its own as text, so all are told apart by their text; the end-to-end tests hold it.
pub(crate) fn bad_body(error: &StdError) -> S3Error {
    let text = error.to_string();
    let is = |what: &str| text.contains(what);
    if is(super::chunked::FORMAT) {
        return refuse(S3ErrorCode::InvalidRequest, text);
    }
    if is(super::chunked::SIGNED_TOO_LARGE) {
        return refuse_as("InvalidChunkSizeError", text);
    }
    if is("Sha256Mismatch") {
        return refuse_as("XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header does not match what was computed.");
    }
    if is("SignatureMismatch") {
        return refuse(S3ErrorCode::SignatureDoesNotMatch, "The signature of a chunk or of the trailer does not match what was computed.");
    }
    if is("FormatError") || is("TooLarge") || is("TooMany") {
        return refuse(S3ErrorCode::InvalidRequest, format!("The body is not well-formed aws-chunked: {text}"));
    }
    refuse(S3ErrorCode::IncompleteBody, format!("The request body terminated unexpectedly: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::chunked::ChunkedError;

    #[test]
    fn duties_become_statuses() {
        let retry_after = Duration::from_millis(1200);
        let message = || "why".to_owned();
        let cases = [
            (Error::not_found("x"), "NoSuchKey", 404),
            (Error::AlreadyExists { message: message() }, "PreconditionFailed", 412),
            (Error::Conflict { message: message() }, "OperationAborted", 409),
            (Error::invalid("key", "short", "long"), "InvalidArgument", 400),
            (Error::Denied { message: message() }, "AccessDenied", 403),
            (Error::Suspended { message: message() }, "AccountProblem", 403),
            (Error::Exhausted { message: message(), retry_after }, "SlowDown", 503),
            (Error::Unavailable { message: message(), retry_after }, "ServiceUnavailable", 503),
            (Error::UnknownOutcome { message: message() }, "ServiceUnavailable", 503),
            (Error::Corrupt { message: message() }, "InternalError", 500),
        ];
        for (error, code, status) in cases {
            let told = failed(Subject::Key, error.clone());
            assert_eq!((told.code().as_str(), told.status_code().map(|s| s.as_u16())), (code, Some(status)), "{error}");
            if status == 503 {
                assert!(told.headers().is_some_and(|h| h.contains_key("retry-after")), "{error}");
            }
        }
        let told = failed(Subject::Key, Error::Unavailable { message: message(), retry_after });
        assert_eq!(told.headers().and_then(|h| h.get("retry-after")).and_then(|v| v.to_str().ok()), Some("2"));
        assert_eq!(failed(Subject::Bucket, Error::not_found("x")).code().as_str(), "NoSuchBucket");
        assert_eq!(failed(Subject::Upload, Error::not_found("x")).code().as_str(), "NoSuchUpload");
    }

    #[test]
    fn bodies_that_lie_are_told_apart() {
        let told = |text: &str| bad_body(&StdError::from(text)).code().as_str().to_owned();
        assert_eq!(told("UploadStreamError: Sha256Mismatch"), "XAmzContentSHA256Mismatch");
        assert_eq!(told("AwsChunkedStreamError: SignatureMismatch"), "SignatureDoesNotMatch");
        assert_eq!(told("UploadStreamError: Incomplete"), "IncompleteBody");
        assert_eq!(told("error reading a body from connection"), "IncompleteBody");
        let ours = |error: ChunkedError| told(&format!("AwsChunkedStreamError: Underlying: {error}"));
        assert_eq!(ours(ChunkedError::Incomplete), "IncompleteBody");
        assert_eq!(ours(ChunkedError::Format), "InvalidRequest");
        assert_eq!(ours(ChunkedError::SignedChunkTooLarge(1 << 30)), "InvalidChunkSizeError");
        let short = WriteError::<S3Error>::Length { expected: 5, found: 4 };
        assert_eq!(not_stored(short).code().as_str(), "IncompleteBody");
    }
}
