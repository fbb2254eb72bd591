//! One stream to one node; requests that are there at the same moment travel in one frame, answers come in any order.
//!
//! Bounded everywhere: the queue in front, the requests in flight, the bytes of a frame. A full queue makes callers wait until their
//! deadline. A task of its own drives the stream and opens it again when it breaks: requests that were sent are then lost (their outcome is
//! open), those that were not are told so. A stream that only swallows, on which nothing came back for [`SILENT`] and everyone has given up who
//! asked before that, is opened anew.

use super::{Dial, ended, kv_client, lost};
use crate::policy::{Failure, backoff};
use metadb_proto::kv::{self, request, response};
use metadb_proto::{Error, limits, seam, v1};
use prost::Message as _;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tonic::Streaming;

/// Requests that wait to be put in a frame. Past it, callers wait.
const QUEUE: usize = 1024;
/// How long nothing may come back, before it is looked whether anyone still waits who had asked by then.
const SILENT: Duration = Duration::from_secs(2);
/// Frames handed to the transport and not yet taken by it: small, so that requests gather here while the wire is busy.
const FRAMES_AHEAD: usize = 2;

type Reply = oneshot::Sender<Result<response::Body, Failure>>;

struct Waiting {
    body: request::Body,
    reply: Reply,
}

/// A request that was sent.
struct Sent {
    effects: bool,
    reply: Reply,
}

/// The caller's end.
pub(super) struct Framed {
    queue: mpsc::Sender<Waiting>,
}

impl Framed {
    /// Starts the task that drives the stream; it ends when this is dropped.
    pub(super) fn start(address: String, dial: Dial, most_in_flight: usize) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(drive(address, dial, most_in_flight, waiting));
        Framed { queue }
    }

    pub(super) async fn call(&self, body: request::Body) -> Result<response::Body, Failure> {
        let effects = kv::has_effects(&body);
        let (reply, answer) = oneshot::channel();
        let gone = || Error::unavailable("the stream's driver has ended", super::RETRY_AFTER);
        self.queue.send(Waiting { body, reply }).await.map_err(|_| Failure::NotSent(gone()))?;
        answer.await.unwrap_or_else(|_| Err(Failure::Lost(lost(effects, "the stream's driver has ended".into()))))
    }
}

async fn drive(address: String, dial: Dial, most_in_flight: usize, mut queue: mpsc::Receiver<Waiting>) {
    let mut failures = 0;
    // Nothing is opened before it is needed.
    while let Some(first) = queue.recv().await {
        let why = match open(&address, &dial).await {
            Ok((frames, answers)) => {
                failures = 0;
                let stream = Stream { dial: &dial, most_in_flight, frames, answers, sent: BTreeMap::new(), next_id: 1 };
                if stream.run(first, &mut queue).await {
                    return;
                }
                continue;
            }
            Err(why) => why,
        };
        // Whoever waits now learns that it can't be sent; whoever comes within the backoff, too.
        failures += 1;
        let _ = first.reply.send(Err(why.clone()));
        let until = Instant::now() + backoff(failures, seam::random_u64());
        loop {
            match tokio::time::timeout(until.saturating_duration_since(Instant::now()), queue.recv()).await {
                Ok(Some(waiting)) => {
                    let _ = waiting.reply.send(Err(why.clone()));
                }
                Ok(None) => return,
                Err(_) => break,
            }
        }
    }
}

async fn open(address: &str, dial: &Dial) -> Result<(mpsc::Sender<v1::RequestFrame>, Streaming<v1::ResponseFrame>), Failure> {
    let mut client = kv_client(dial.channel(address).await.map_err(Failure::NotSent)?);
    let (frames, mut outgoing) = mpsc::channel(FRAMES_AHEAD);
    let outgoing = futures::stream::poll_fn(move |cx| outgoing.poll_recv(cx));
    let opening = tokio::time::timeout(dial.connect_timeout, client.exchange(dial.request(outgoing))).await;
    match opening {
        Ok(Ok(answers)) => Ok((frames, answers.into_inner())),
        Ok(Err(status)) => Err(ended(&status, false, false)),
        Err(_) => {
            Err(Failure::NotSent(Error::unavailable(format!("node at {address} did not open the stream in time"), super::RETRY_AFTER)))
        }
    }
}

/// One stream, while it lives.
struct Stream<'a> {
    dial: &'a Dial,
    most_in_flight: usize,
    frames: mpsc::Sender<v1::RequestFrame>,
    answers: Streaming<v1::ResponseFrame>,
    sent: BTreeMap<u64, Sent>,
    next_id: u64,
}

impl Stream<'_> {
    /// Runs until the stream breaks (false) or nobody can ask any more (true).
    async fn run(mut self, first: Waiting, queue: &mut mpsc::Receiver<Waiting>) -> bool {
        let mut next = Some(first);
        // When silence began, and the first request since then.
        let (mut heard, mut asked_since) = (Instant::now(), self.next_id);
        loop {
            if self.sent.len() >= self.most_in_flight {
                // Callers that gave up leave their place.
                self.sent.retain(|_, sent| !sent.reply.is_closed());
            }
            let room = self.sent.len() < self.most_in_flight;
            tokio::select! {
                biased;
                frame = self.answers.message() => match frame {
                    Ok(Some(frame)) => {
                        (heard, asked_since) = (Instant::now(), self.next_id);
                        frame.responses.into_iter().for_each(|response| self.answer(response));
                    }
                    Ok(None) => return self.end(&tonic::Status::unavailable("the node closed the stream"), next),
                    Err(status) => return self.end(&status, next),
                },
                permit = self.frames.clone().reserve_owned(), if next.is_some() && room => match permit {
                    Ok(permit) => {
                        let frame = self.gather(&mut next, queue);
                        if !frame.requests.is_empty() {
                            permit.send(frame);
                        }
                    }
                    Err(_) => return self.end(&tonic::Status::unavailable("the stream was closed"), next),
                },
                waiting = queue.recv(), if next.is_none() => match waiting {
                    Some(waiting) => next = Some(waiting),
                    None => return true,
                },
                () = tokio::time::sleep_until(heard + SILENT), if !self.sent.is_empty() => {
                    let mut before = self.sent.range(..asked_since).peekable();
                    if before.peek().is_some() && before.all(|(_, sent)| sent.reply.is_closed()) {
                        return self.end(&tonic::Status::unavailable("nothing comes back on the stream"), next);
                    }
                    (heard, asked_since) = (Instant::now(), self.next_id);
                }
            }
        }
    }

    /// Everything that waits at this moment, as far as it fits in a frame. What does not fit is the next one's first.
    fn gather(&mut self, next: &mut Option<Waiting>, queue: &mut mpsc::Receiver<Waiting>) -> v1::RequestFrame {
        let mut frame = v1::RequestFrame::default();
        let mut bytes = 0;
        while let Some(waiting) = next.take().or_else(|| queue.try_recv().ok()) {
            if waiting.reply.is_closed() {
                continue;
            }
            let effects = kv::has_effects(&waiting.body);
            let request = v1::Request { id: self.next_id, body: Some(waiting.body) };
            bytes += request.encoded_len() + FRAMING_BYTES;
            let full = !frame.requests.is_empty() && bytes > limits::MESSAGE_BYTES - (64 << 10);
            if full || frame.requests.len() >= limits::FRAME_REQUESTS || self.sent.len() >= self.most_in_flight {
                *next = request.body.map(|body| Waiting { body, reply: waiting.reply });
                break;
            }
            self.next_id += 1;
            self.sent.insert(request.id, Sent { effects, reply: waiting.reply });
            frame.requests.push(request);
        }
        self.dial.counting.frames.one();
        self.dial.counting.framed_requests.more(frame.requests.len());
        frame
    }

    fn answer(&mut self, response: v1::Response) {
        let Some(sent) = self.sent.remove(&response.id) else { return };
        let result = match response.body {
            Some(v1::response::Body::Error(error)) => Err(Failure::Answered(Error::from_proto(error))),
            Some(body) => Ok(body),
            None => Err(Failure::Answered(Error::internal("the node answered nothing"))),
        };
        // The caller may have given up.
        let _ = sent.reply.send(result);
    }

    /// The stream broke: what was sent is lost, in the order in which it was sent. Whatever the status says, it is of the stream and
    /// not of one request: each of them may have been carried out.
    fn end(self, status: &tonic::Status, next: Option<Waiting>) -> bool {
        tracing::debug!(code = %status.code(), message = status.message(), lost = self.sent.len(), "stream ended");
        let why = format!("{}: {}", status.code(), status.message());
        for (_, sent) in self.sent {
            let _ = sent.reply.send(Err(Failure::Lost(lost(sent.effects, why.clone()))));
        }
        if let Some(next) = next {
            let _ = next.reply.send(Err(ended(status, false, false)));
        }
        false
    }
}

/// Tag and length that a request costs in a frame, at most.
const FRAMING_BYTES: usize = 8;
