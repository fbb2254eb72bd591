//! Serves the door on a listener: connections within a bound, slow heads cut off, requests under way finished at shutdown.

use super::chunked::ReframedBody;
use super::digest::{Announced, HashedBody};
use super::error::{bad_body, refuse};
use super::limits::{BODY_IDLE_TIMEOUT, CONNECTIONS, DRAIN_TIMEOUT, HEADER_BYTES, HEADER_TIMEOUT, HEADERS, TARGET_BYTES, XML_BYTES};
use super::{S3Door, guard};
use crate::metrics;
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
            Ok(request) => self.service.call(request).await?,
            Err(error) => error.to_http_response().map_err(|e| HttpError::new(Box::new(e)))?,
        };
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
    async fn admit(&self, head: Parts, body: Incoming) -> S3Result<Request<Body>> {
        guard::check(&head, &self.region)?;
        let mode = head.headers.get("x-amz-content-sha256").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let body = if mode.starts_with("STREAMING-") {
            let reframed: DynByteStream = Box::pin(ReframedBody::new(Body::from(body), mode.starts_with("STREAMING-AWS4-")));
            Body::from(reframed)
        } else if head.method == Method::POST {
            document(&head, body).await?
        } else {
            Body::from(body)
        };
        Ok(Request::from_parts(head, body))
    }
}

/// An XML body, read whole within its bounds, its checksums verified: the library verifies those of objects only through us.
async fn document(head: &Parts, body: Incoming) -> S3Result<Body> {
    let too_late = |_| {
        refuse(
            S3ErrorCode::RequestTimeout,
            "Your socket connection to the server was not read from or written to within the timeout period.",
        )
    };
    let bytes =
        timeout(BODY_IDLE_TIMEOUT, Limited::new(body, XML_BYTES).collect()).await.map_err(too_late)?.map_err(|e| bad_body(&e))?.to_bytes();
    let blob = StreamingBlob::from(Body::from(bytes.clone()));
    let (mut hashed, _) = HashedBody::new(Some(blob), Announced::from_headers(&head.headers)?, None);
    while let Some(piece) = hashed.next().await {
        piece?;
    }
    Ok(Body::from(bytes))
}
