//! The door for other nodes: Raft messages of all groups on one stream, and snapshots.
//!
//! Messages of a stream are begun in the order in which they came and answered in any: an append waits for the disk, the vote behind it
//! does not wait for the append. So many may be under way; then the stream is not read until one is done.

use super::entrance::{Entrance, principal};
use crate::node::Node;
use crate::raft::hearts;
use crate::raft::link::{MEANT_FOR, PEER_MESSAGE_BYTES, meant_for};
use crate::raft::receive::Session;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use metadb_proto::principal::Action;
use metadb_proto::v1::peer_server::{Peer, PeerServer};
use metadb_proto::v1::snapshot_answer::Answer;
use metadb_proto::v1::snapshot_push::Push;
use metadb_proto::v1::{PeerFrame, PeerMessage, PeerVerb, SnapshotAnswer, SnapshotChunk, SnapshotHave, SnapshotInstalled, SnapshotPush};
use metadb_proto::{Error, Principal, seam};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

/// Messages of one stream that are being answered.
const UNDER_WAY: usize = 1024;
/// Frames of answers handed to the transport and not yet taken by it.
const FRAMES_AHEAD: usize = 4;
/// Answers to the sender of a snapshot: there are two.
const SNAPSHOT_ANSWERS: usize = 2;
/// Most answers in one frame.
const FRAME_MESSAGES: usize = 256;

/// The service.
pub(super) struct PeerDoor(pub(super) Entrance);

impl PeerDoor {
    /// As tonic serves it.
    pub(super) fn server(self) -> super::served::Peer<Self> {
        PeerServer::new(self).max_decoding_message_size(PEER_MESSAGE_BYTES).max_encoding_message_size(PEER_MESSAGE_BYTES)
    }

    async fn admit(&self, metadata: &MetadataMap) -> Result<u64, Error> {
        let who = principal(&self.0, metadata).await?;
        who.authorize(Action::Replicate)?;
        match who {
            Principal::Node(node_id) => self.is_meant(metadata).map(|()| node_id),
            Principal::Operator(_) | Principal::Tenant { .. } => Err(Error::Denied { message: format!("{who} is not a node") }),
        }
    }

    /// Whether the sender takes this node for what it is: one that lost its folder, or got the address of another, must not vote for it.
    fn is_meant(&self, metadata: &MetadataMap) -> Result<(), Error> {
        let config = self.0.node.config();
        let this = meant_for(&config.cluster_id, config.node_id);
        match metadata.get(MEANT_FOR).and_then(|value| value.to_str().ok()) {
            Some(meant) if meant == this => Ok(()),
            other => Err(Error::Denied { message: format!("this is node {this} (cluster/node), not {}", other.unwrap_or("unnamed")) }),
        }
    }
}

#[tonic::async_trait]
impl Peer for PeerDoor {
    type ExchangeStream = ReceiverStream<Result<PeerFrame, Status>>;
    type SnapshotStream = ReceiverStream<Result<SnapshotAnswer, Status>>;

    async fn exchange(&self, request: Request<Streaming<PeerFrame>>) -> Result<Response<Self::ExchangeStream>, Status> {
        let (metadata, _, incoming) = request.into_parts();
        let peer = self.admit(&metadata).await?;
        let (answers, outgoing) = mpsc::channel(FRAMES_AHEAD);
        tokio::spawn(answer_all(Arc::clone(&self.0.node), peer, incoming, answers));
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }

    async fn snapshot(&self, request: Request<Streaming<SnapshotPush>>) -> Result<Response<Self::SnapshotStream>, Status> {
        let (metadata, _, pushes) = request.into_parts();
        self.admit(&metadata).await?;
        let (answers, outgoing) = mpsc::channel(SNAPSHOT_ANSWERS);
        tokio::spawn(take_snapshot(Arc::clone(&self.0.node), Pushed { pushes, answers }));
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

/// The transfer of a snapshot, as the stream has it.
struct Pushed {
    pushes: Streaming<SnapshotPush>,
    answers: mpsc::Sender<Result<SnapshotAnswer, Status>>,
}

impl Pushed {
    async fn push(&mut self) -> Result<Option<Push>, Error> {
        let push = self.pushes.message().await.map_err(|status| Error::from_status(&status, false))?;
        Ok(push.and_then(|push| push.push))
    }

    async fn answer(&mut self, answer: Answer) -> Result<(), Error> {
        let sent = self.answers.send(Ok(SnapshotAnswer { answer: Some(answer) })).await;
        sent.map_err(|_| Error::unavailable("the sender is gone", std::time::Duration::ZERO))
    }
}

impl Session for Pushed {
    async fn next(&mut self) -> Result<Option<SnapshotChunk>, Error> {
        match self.push().await? {
            Some(Push::Chunk(chunk)) => Ok(Some(chunk)),
            Some(Push::Offer(_)) => Err(Error::invalid("offer", "once, first", "again")),
            None => Ok(None),
        }
    }

    async fn have(&mut self, bytes: Vec<u64>) -> Result<(), Error> {
        self.answer(Answer::Have(SnapshotHave { bytes })).await
    }
}

async fn take_snapshot(node: Arc<Node>, mut pushed: Pushed) {
    let taken = async {
        let Some(Push::Offer(offer)) = pushed.push().await? else { return Err(Error::invalid("offer", "the first message", "none")) };
        node.require_group(offer.group_id)?.receive_snapshot(offer, &mut pushed).await
    };
    let sent = match taken.await {
        Ok(vote) => pushed.answer(Answer::Installed(SnapshotInstalled { vote })).await.is_ok(),
        Err(error) => pushed.answers.send(Err(error.into())).await.is_ok(),
    };
    if !sent {
        tracing::debug!("the sender of a snapshot is gone");
    }
}

type Answering = BoxFuture<'static, PeerMessage>;

async fn answer_all(node: Arc<Node>, peer: u64, mut incoming: Streaming<PeerFrame>, answers: mpsc::Sender<Result<PeerFrame, Status>>) {
    let mut under_way: FuturesUnordered<Answering> = FuturesUnordered::new();
    let mut ready: Vec<PeerMessage> = Vec::new();
    loop {
        tokio::select! {
            biased;
            permit = answers.reserve(), if !ready.is_empty() => {
                let Ok(permit) = permit else { return };
                let rest = ready.split_off(ready.len().min(FRAME_MESSAGES));
                permit.send(Ok(PeerFrame { messages: std::mem::replace(&mut ready, rest), unix_ms: seam::unix_ms() }));
            }
            Some(answer) = under_way.next(), if !under_way.is_empty() && ready.len() < FRAME_MESSAGES => {
                ready.push(answer);
                // Whatever is done by now travels in the same frame.
                while ready.len() < FRAME_MESSAGES && let Some(Some(answer)) = futures::FutureExt::now_or_never(under_way.next()) {
                    ready.push(answer);
                }
            }
            frame = incoming.message(), if under_way.len() < UNDER_WAY && ready.len() < FRAME_MESSAGES => match frame {
                Ok(Some(frame)) => {
                    node.clocks().heard_of(peer, frame.unix_ms);
                    for message in frame.messages {
                        #[cfg(madsim)]
                        come_again(&node, &message);
                        begin(&node, message, &under_way, &mut ready);
                    }
                }
                Ok(None) | Err(_) => return,
            },
        }
    }
}

/// In the simulator a message may come a second time, later: what the network of an old stream still held.
#[cfg(madsim)]
fn come_again(node: &Arc<Node>, message: &PeerMessage) {
    if let Some(later) = seam::simulated::duplicate() {
        let (node, message) = (Arc::clone(node), message.clone());
        tokio::spawn(async move {
            tokio::time::sleep(later).await;
            drop(answer(node, message).await);
        });
    }
}

/// Begins to answer a message, before any that comes after it is begun: an append that follows another must reach the core behind it.
fn begin(node: &Arc<Node>, message: PeerMessage, under_way: &FuturesUnordered<Answering>, ready: &mut Vec<PeerMessage>) {
    let mut answering: Answering = Box::pin(answer(Arc::clone(node), message));
    match answering.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => ready.push(answer),
        // Polled again with a waker that counts, as soon as the set is.
        Poll::Pending => under_way.push(answering),
    }
}

async fn answer(node: Arc<Node>, message: PeerMessage) -> PeerMessage {
    let (id, group_id, verb) = (message.id, message.group_id, message.verb());
    let result: Result<Bytes, Error> = match node.require_group(group_id) {
        _ if verb == PeerVerb::Heartbeats => hearts::serve(&node, message.payload).await,
        Ok(group) => group.serve(verb, message.payload).await,
        Err(error) => Err(error),
    };
    let (payload, error) = match result {
        Ok(payload) => (payload, None),
        Err(error) => (Bytes::new(), Some(error.to_proto())),
    };
    PeerMessage { id, group_id, verb: verb.into(), payload, error }
}
