//! Serves the door on a listener: connections within a bound, slow heads cut off, requests under way finished at shutdown.

use super::chunked::ReframedBody;
use super::digest::{Announced, HashedBody};
use super::error::{bad_body, refuse, slow_down};
use super::limits::{
    BODY_IDLE_TIMEOUT, CONNECTIONS, DOCUMENTS_BYTES, DRAIN_TIMEOUT, HEADER_BYTES, HEADER_TIMEOUT, HEADERS, TARGET_BYTES, XML_BYTES,
};
use super::linger::Lingering;
use super::{S3Door, guard};
use crate::metrics;
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use metadb_proto::seam;
use s3s::dto::StreamingBlob;
use s3s::stream::DynByteStream;
use s3s::{Body, HttpError, S3ErrorCode, S3Result};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Pause after a failed accept: there may be no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown`, then finishes the requests under way, within a bound.
///
/// # Errors
/// None today; the listener's own errors are waited out.
pub async fn serve(listener: TcpListener, door: S3Door, shutdown: CancellationToken) -> std::io::Result<()> {
    let (graceful, connections) = (GracefulShutdown::new(), Arc::new(Semaphore::new(CONNECTIONS)));
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = accept(&listener, &connections) => accepted,
        };
        match accepted {
            Ok((stream, permit)) => spawn_connection(stream, permit, door.clone(), &graceful),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    if timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::warn!("S3 requests were cut off at shutdown");
    }
    Ok(())
}

async fn accept(listener: &TcpListener, connections: &Arc<Semaphore>) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = connections.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, permit))
}

fn spawn_connection(stream: TcpStream, permit: OwnedSemaphorePermit, door: S3Door, graceful: &GracefulShutdown) {
    let service = hyper::service::service_fn(move |request| {
        let door = door.clone();
        Box::pin(async move { door.answer(request).await })
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(HEADERS)
        .max_buf_size(HEADER_BYTES + TARGET_BYTES + (64 << 10));
    let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an S3 connection ended badly");
        }
        drop(permit);
    });
}

impl S3Door {
    /// Answers one request.
    ///
    /// # Errors
    /// Only if an answer can't be written as XML.
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, HttpError> {
        let (started, id) = (Instant::now(), format!("{:016X}", seam::random_u64()));
        let method = request.method().clone();
        let (head, body) = request.into_parts();
        let mut response = match self.admit(head, body).await {
            // What a document takes is held until it was answered.
            Ok((request, _room)) => self.service.call(request).await?,
            Err(error) => error.to_http_response().map_err(|e| HttpError::new(Box::new(e)))?,
        };
        give_words(&mut response);
        let headers = response.headers_mut();
        headers.insert("server", HeaderValue::from_static("Cairn"));
        if let Ok(value) = HeaderValue::from_str(&id) {
            headers.insert("x-amz-request-id", value);
        }
        metrics::answered_s3(&method, response.status(), started.elapsed());
        tracing::debug!(%method, status = response.status().as_u16(), request_id = id, elapsed = ?started.elapsed(), "answered an S3 request");
        Ok(response)
    }

    /// Judges the head, and bounds the body.
    async fn admit(&self, head: Parts, body: Incoming) -> S3Result<(Request<Body>, Option<OwnedSemaphorePermit>)> {
        let body = Lingering::new(body, &head);
        guard::check(&head, &self.region)?;
        let mode = head.headers.get("x-amz-content-sha256").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let mut room = None;
        let body = if mode.starts_with("STREAMING-") {
            let reframed: DynByteStream = Box::pin(ReframedBody::new(Body::http_body_unsync(body), mode.starts_with("STREAMING-AWS4-")));
            Body::from(reframed)
        } else if head.method == Method::POST {
            document(&head, body, &self.documents, &mut room).await?
        } else {
            Body::http_body_unsync(body)
        };
        Ok((Request::from_parts(head, body), room))
    }
}

/// The library tells some errors by their code alone, and clients then print "Unknown".
fn give_words(response: &mut Response<Body>) {
    if response.status().is_success() {
        return;
    }
    let Some(worded) = response.body().bytes().and_then(|xml| with_message(&xml)) else { return };
    response.headers_mut().remove(http::header::CONTENT_LENGTH);
    *response.body_mut() = Body::from(worded);
}

/// An error document with a message, if it had none and its code is known.
fn with_message(xml: &[u8]) -> Option<Bytes> {
    let text = std::str::from_utf8(xml).ok()?;
    let code = text.split_once("<Code>")?.1.split_once("</Code>")?.0;
    let message = match code {
        _ if text.contains("<Message>") => return None,
        "SignatureDoesNotMatch" => {
            "The request signature we calculated does not match the signature you provided. Check your secret access key and signing method."
        }
        "InvalidBucketName" => "The specified bucket is not valid: 3 to 63 of a-z 0-9 . -, a letter or digit at both ends.",
        "InvalidAccessKeyId" => "The access key id you provided does not exist in our records.",
        "AccessDenied" => "Access Denied",
        "MethodNotAllowed" => "The specified method is not allowed against this resource.",
        "NotImplemented" => "A header or query you provided implies functionality that is not implemented.",
        "MalformedXML" => "The XML you provided was not well-formed or did not validate against our published schema.",
        "KeyTooLongError" => "Your key is too long.",
        "InvalidURI" => "Couldn't parse the specified URI.",
        _ => return None,
    };
    Some(text.replacen("</Code>", &format!("</Code><Message>{message}</Message>"), 1).into())
}

/// An XML body, read whole within its bounds, its checksums verified: the library verifies those of objects only through us.
/// `documents` is the room for all of them, in KiB; `room` is what this one takes of it.
async fn document(
    head: &Parts,
    body: Lingering<Incoming>,
    documents: &Arc<Semaphore>,
    room: &mut Option<OwnedSemaphorePermit>,
) -> S3Result<Body> {
    let too_late = |_| {
        refuse(
            S3ErrorCode::RequestTimeout,
            "Your socket connection to the server was not read from or written to within the timeout period.",
        )
    };
    let bytes = timeout(BODY_IDLE_TIMEOUT, read_whole(Limited::new(body, XML_BYTES), documents, room)).await.map_err(too_late)??;
    let blob = StreamingBlob::from(Body::from(bytes.clone()));
    let (mut hashed, _) = HashedBody::new(Some(blob), Announced::from_headers(&head.headers)?, None);
    while let Some(piece) = hashed.next().await {
        piece?;
    }
    Ok(Body::from(bytes))
}

/// Reads a body to its end. It takes room as its bytes come: what is announced and never sent takes none.
async fn read_whole<B>(mut body: B, documents: &Arc<Semaphore>, room: &mut Option<OwnedSemaphorePermit>) -> S3Result<Bytes>
where
    B: http_body::Body<Data = Bytes, Error = s3s::StdError> + Unpin,
{
    let mut bytes = BytesMut::new();
    let mut taken_kib = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| bad_body(&error))?.into_data() else { continue };
        let kib = (bytes.len() + data.len()).div_ceil(1 << 10);
        let more = u32::try_from(kib - taken_kib).unwrap_or(u32::MAX);
        let full = |_| {
            let message = format!("Please reduce your request rate: {DOCUMENTS_BYTES} bytes of request documents are being read already.");
            slow_down(message)
        };
        let permit = Arc::clone(documents).try_acquire_many_owned(more).map_err(full)?;
        match room {
            Some(room) => room.merge(permit),
            None => *room = Some(permit),
        }
        taken_kib = kib;
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;

    fn body(bytes: usize) -> impl http_body::Body<Data = Bytes, Error = s3s::StdError> + Unpin {
        Box::pin(Full::new(Bytes::from(vec![b'x'; bytes])).map_err(|never| match never {}))
    }

    #[test]
    fn an_error_without_words_gets_some_and_others_keep_theirs() {
        let told = with_message(b"<Error><Code>SignatureDoesNotMatch</Code></Error>").expect("known");
        assert!(told.starts_with(b"<Error><Code>SignatureDoesNotMatch</Code><Message>The request signature"), "{told:?}");
        for kept in
            ["<Error><Code>SignatureDoesNotMatch</Code><Message>own</Message></Error>", "<Error><Code>New</Code></Error>", "", "no xml"]
        {
            assert_eq!(with_message(kept.as_bytes()), None, "{kept}");
        }
    }

    #[tokio::test]
    async fn documents_take_room_together_and_give_it_back() {
        let documents = Arc::new(Semaphore::new(8));
        let mut first = None;
        assert_eq!(read_whole(body(5 << 10), &documents, &mut first).await.expect("fits").len(), 5 << 10);
        assert_eq!(documents.available_permits(), 3);
        let mut second = None;
        let refused = read_whole(body(4 << 10), &documents, &mut second).await.expect_err("4 of 3 KiB");
        assert_eq!(refused.code().as_str(), "SlowDown");
        drop(first);
        read_whole(body(4 << 10), &documents, &mut second).await.expect("room again");
        drop(second);
        assert_eq!(documents.available_permits(), 8);
    }
}
