//! The door for data: unary calls, and the framed stream that a peer keeps open.
//!
//! On the stream the principal is established once. Requests are worked on side by side, up to a number and to their bytes; then no more
//! frames are taken in, and HTTP/2 holds the sender back. Both bounds are wider than what one tenant may have waiting at a group's door, so
//! that a tenant whose requests wait there does not keep those of others from coming in: what is too much is refused, not left standing.
//! Answers that are ready at a moment leave as one frame. All of it happens while the response is polled: no task, no queue, and a caller
//! that goes away takes its requests with it.

use super::entrance::{Entrance, principal};
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::{BoxStream, FuturesUnordered, StreamExt as _};
use metadb_proto::kv::{Kv as _, request, response};
use metadb_proto::v1::kv_server::{Kv, KvServer};
use metadb_proto::v1::{
    GetRequest, GetResponse, MultiGetRequest, MultiGetResponse, Request as FramedRequest, RequestFrame, Response as FramedResponse,
    ResponseFrame, ScanRequest, ScanResponse, TransactRequest, TransactResponse, WalkRequest, WalkResponse,
};
use metadb_proto::{Error, Principal, limits};
use prost::Message as _;
use std::sync::Arc;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

/// Most requests of a stream that are worked on or wait for their turn: several times what one tenant may have of both at one door.
const STREAM_REQUESTS: usize = 8 * limits::FRAME_REQUESTS;
/// Most bytes of requests of a stream that are worked on or wait, but for the last frame: several times what one tenant may have waiting
/// at one door, unless an operator gives it more.
const STREAM_BYTES: usize = 32 << 20;
/// A frame of answers is closed when it has as many bytes: with one page of the largest size on top it still fits a message.
const FRAME_BYTES: usize = 256 << 10;

const _: () = assert!(FRAME_BYTES + limits::PAGE_BYTES < limits::MESSAGE_BYTES, "the last answer of a frame may be a whole page");

/// The service.
pub(super) struct KvDoor(pub(super) Entrance);

impl KvDoor {
    /// As tonic serves it.
    pub(super) fn server(self) -> super::served::Kv<Self> {
        KvServer::new(self).max_decoding_message_size(limits::MESSAGE_BYTES).max_encoding_message_size(limits::MESSAGE_BYTES)
    }

    async fn call(&self, metadata: &MetadataMap, body: request::Body) -> Result<response::Body, Error> {
        let principal = principal(&self.0, metadata).await?;
        perform(&self.0, &principal, body).await
    }
}

/// What the service would answer only by a bug.
fn mismatch() -> Status {
    Error::internal("a request was answered with the response of another kind").into()
}

#[tonic::async_trait]
impl Kv for KvDoor {
    type ExchangeStream = BoxStream<'static, Result<ResponseFrame, Status>>;

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let answer = self.call(&metadata, request::Body::Get(request)).await?;
        if let response::Body::Get(answer) = answer { Ok(Response::new(answer)) } else { Err(mismatch()) }
    }

    async fn multi_get(&self, request: Request<MultiGetRequest>) -> Result<Response<MultiGetResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let answer = self.call(&metadata, request::Body::MultiGet(request)).await?;
        if let response::Body::MultiGet(answer) = answer { Ok(Response::new(answer)) } else { Err(mismatch()) }
    }

    async fn scan(&self, request: Request<ScanRequest>) -> Result<Response<ScanResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let answer = self.call(&metadata, request::Body::Scan(request)).await?;
        if let response::Body::Scan(answer) = answer { Ok(Response::new(answer)) } else { Err(mismatch()) }
    }

    async fn walk(&self, request: Request<WalkRequest>) -> Result<Response<WalkResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let answer = self.call(&metadata, request::Body::Walk(request)).await?;
        if let response::Body::Walk(answer) = answer { Ok(Response::new(answer)) } else { Err(mismatch()) }
    }

    async fn transact(&self, request: Request<TransactRequest>) -> Result<Response<TransactResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let answer = self.call(&metadata, request::Body::Transact(request)).await?;
        if let response::Body::Transact(answer) = answer { Ok(Response::new(answer)) } else { Err(mismatch()) }
    }

    async fn exchange(&self, request: Request<Streaming<RequestFrame>>) -> Result<Response<Self::ExchangeStream>, Status> {
        let principal = principal(&self.0, request.metadata()).await?;
        let exchange = Exchange {
            entrance: self.0.clone(),
            principal: Arc::new(principal),
            inbound: request.into_inner(),
            open: true,
            running_bytes: 0,
            running: FuturesUnordered::new(),
        };
        let frames = futures::stream::unfold(exchange, |mut exchange| async move {
            let frame = exchange.next_frame().await?;
            Some((frame, exchange))
        });
        Ok(Response::new(frames.boxed()))
    }
}

/// One stream of a peer.
struct Exchange {
    entrance: Entrance,
    principal: Arc<Principal>,
    inbound: Streaming<RequestFrame>,
    /// Whether more frames may come.
    open: bool,
    /// Each ends with the bytes of its request.
    running: FuturesUnordered<BoxFuture<'static, (usize, FramedResponse)>>,
    /// Bytes of the requests that are running.
    running_bytes: usize,
}

impl Exchange {
    /// The next frame of answers; none when the peer is done and has all its answers.
    async fn next_frame(&mut self) -> Option<Result<ResponseFrame, Status>> {
        loop {
            let has_room = self.open && self.running.len() < STREAM_REQUESTS && self.running_bytes < STREAM_BYTES;
            if !has_room && self.running.is_empty() {
                return None;
            }
            tokio::select! {
                biased;
                frame = self.inbound.next(), if has_room => match frame {
                    Some(Ok(frame)) => {
                        if let Err(error) = self.take_in(frame) {
                            self.open = false;
                            self.running.clear();
                            return Some(Err(error.into()));
                        }
                    }
                    // The peer said that it is done, or it is gone: either way nothing new comes.
                    Some(Err(_)) | None => self.open = false,
                },
                Some(done) = self.running.next(), if !self.running.is_empty() => return Some(Ok(self.coalesce(done))),
            }
        }
    }

    fn take_in(&mut self, frame: RequestFrame) -> Result<(), Error> {
        if frame.requests.len() > limits::FRAME_REQUESTS {
            let limit = format!("at most {} requests in a frame", limits::FRAME_REQUESTS);
            return Err(Error::invalid("requests", limit, frame.requests.len().to_string()));
        }
        for request in frame.requests {
            let bytes = request.encoded_len();
            self.running_bytes += bytes;
            let answer = serve(self.entrance.clone(), Arc::clone(&self.principal), request);
            self.running.push(answer.map(move |response| (bytes, response)).boxed());
        }
        Ok(())
    }

    /// A frame of an answer and of those that are ready too.
    fn coalesce(&mut self, (done_bytes, first): (usize, FramedResponse)) -> ResponseFrame {
        self.running_bytes -= done_bytes;
        let mut bytes = first.encoded_len();
        let mut responses = vec![first];
        while bytes < FRAME_BYTES && responses.len() < limits::FRAME_REQUESTS {
            let Some(Some((done_bytes, response))) = self.running.next().now_or_never() else { break };
            self.running_bytes -= done_bytes;
            bytes += response.encoded_len();
            responses.push(response);
        }
        ResponseFrame { responses }
    }
}

async fn serve(entrance: Entrance, principal: Arc<Principal>, request: FramedRequest) -> FramedResponse {
    let answer = match request.body {
        Some(body) => perform(&entrance, &principal, body).await,
        None => Err(Error::invalid("body", "a request that this build knows", "absent")),
    };
    let body = answer.unwrap_or_else(|error| response::Body::Error(error.to_proto()));
    FramedResponse { id: request.id, body: Some(body) }
}

async fn perform(entrance: &Entrance, principal: &Principal, body: request::Body) -> Result<response::Body, Error> {
    #[cfg(madsim)]
    let again = again(&body);
    let answer = entrance.node.call(principal, body).await;
    #[cfg(madsim)]
    come_again(entrance, principal, again, &answer);
    answer
}

/// In the simulator a transaction with a request id may come a second time, as from a router that gave up waiting: what, and when.
#[cfg(madsim)]
fn again(body: &request::Body) -> Option<(request::Body, std::time::Duration)> {
    let request::Body::Transact(request) = body else { return None };
    let has_id = request.header.as_ref().is_some_and(|header| !header.request_id.is_empty());
    let later = has_id.then(metadb_proto::seam::simulated::duplicate).flatten()?;
    Some((body.clone(), later))
}

/// It comes, unless the first was refused: who is told that nothing was done asks under that id again or never, and no network can.
#[cfg(madsim)]
fn come_again(
    entrance: &Entrance,
    principal: &Principal,
    again: Option<(request::Body, std::time::Duration)>,
    answer: &Result<response::Body, Error>,
) {
    let Some((body, later)) = again.filter(|_| matches!(answer, Ok(_) | Err(Error::UnknownOutcome { .. }))) else { return };
    let (entrance, principal) = (entrance.clone(), principal.clone());
    tokio::spawn(async move {
        tokio::time::sleep(later).await;
        drop(entrance.node.call(&principal, body).await);
    });
}

#[cfg(all(test, not(madsim)))]
#[path = "kv_tests.rs"]
mod tests;
