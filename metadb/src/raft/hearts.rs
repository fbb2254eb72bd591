//! Heartbeats of all groups between two nodes, in one message; their answers come back in one.
//!
//! The node beats for all groups that it leads at the same moment ([`crate::node`]), so what gathers here within [`LINGER`] is nearly all
//! there is. A heartbeat that openraft asks for by itself, to confirm a read, goes the same way and is late by no more than that.
//! What a group's core does with a heartbeat is its own affair: one that is slow is told as such and keeps the others waiting no longer
//! than [`BEAT_WITHIN`].

use super::link::{Link, LinkError};
use crate::node::Node;
use bytes::Bytes;
use metadb_proto::v1::{PeerFrame, PeerMessage, PeerVerb};
use metadb_proto::{Error, v1};
use parking_lot::Mutex;
use prost::Message as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

/// How long heartbeats gather. The wheel of timers has slots of 1 ms.
const LINGER: Duration = Duration::from_millis(1);
/// How long a group may take to answer its heartbeat before the answers of the others leave.
const BEAT_WITHIN: Duration = Duration::from_millis(40);
/// How long the whole answer may take.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// When a heartbeat that was not answered may come again.
const RETRY: Duration = Duration::from_millis(50);

struct Beat {
    group_id: u32,
    payload: Bytes,
    reply: oneshot::Sender<Result<Bytes, LinkError>>,
}

/// What gathers on the way to one node.
#[derive(Default)]
pub(crate) struct Hearts {
    waiting: Mutex<Vec<Beat>>,
    beats: AtomicU64,
    messages: AtomicU64,
}

impl Hearts {
    /// How many heartbeats went, in how many messages.
    pub(crate) fn sent(&self) -> (u64, u64) {
        (self.beats.load(Ordering::Relaxed), self.messages.load(Ordering::Relaxed))
    }
}

/// Sends a group's heartbeat, together with those of other groups, and waits for its answer.
pub(crate) async fn beat(link: &Arc<Link>, group_id: u32, payload: Bytes) -> Result<Bytes, LinkError> {
    let (reply, answer) = oneshot::channel();
    let is_first = {
        let mut waiting = link.hearts().waiting.lock();
        waiting.push(Beat { group_id, payload, reply });
        waiting.len() == 1
    };
    if is_first {
        tokio::spawn(carry(Arc::clone(link)));
    }
    answer.await.unwrap_or_else(|_| Err(link.down("the heartbeat was not answered")))
}

async fn carry(link: Arc<Link>) {
    tokio::time::sleep(LINGER).await;
    let beats = std::mem::take(&mut *link.hearts().waiting.lock());
    link.hearts().beats.fetch_add(beats.len() as u64, Ordering::Relaxed);
    link.hearts().messages.fetch_add(1, Ordering::Relaxed);
    let message = |(id, beat): (u64, &Beat)| PeerMessage {
        id,
        group_id: beat.group_id,
        verb: PeerVerb::Append.into(),
        payload: beat.payload.clone(),
        error: None,
    };
    let frame = PeerFrame { messages: (0..).zip(&beats).map(message).collect(), ..PeerFrame::default() };
    let asked = link.call(0, PeerVerb::Heartbeats, frame.encode_to_vec().into(), ANSWER_WITHIN).await;
    let malformed = |error: prost::DecodeError| link.down(&format!("the answer to heartbeats can't be read: {error}"));
    let answers = asked.and_then(|bytes| PeerFrame::decode(bytes).map_err(malformed));
    match answers {
        Err(error) => beats.into_iter().for_each(|beat| drop(beat.reply.send(Err(error.clone())))),
        Ok(answers) => {
            let mut beats: Vec<Option<Beat>> = beats.into_iter().map(Some).collect();
            for answer in answers.messages {
                let at = usize::try_from(answer.id).unwrap_or(usize::MAX);
                let Some(beat) = beats.get_mut(at).and_then(Option::take) else { continue };
                let result = match answer.error {
                    None => Ok(answer.payload),
                    Some(error) => Err(LinkError::Refused { node_id: link.node_id(), error: Error::from_proto(error) }),
                };
                // A core that stopped meanwhile needs no answer.
                let _ = beat.reply.send(result);
            }
        }
    }
}

/// Hands heartbeats to the groups that they are for.
pub(crate) async fn serve(node: &Node, payload: Bytes) -> Result<Bytes, Error> {
    let malformed = |error: prost::DecodeError| Error::invalid("payload", "heartbeats", error.to_string());
    let frame = PeerFrame::decode(payload).map_err(malformed)?;
    let answers = futures::future::join_all(frame.messages.into_iter().map(|message| serve_one(node, message))).await;
    Ok(PeerFrame { messages: answers, ..PeerFrame::default() }.encode_to_vec().into())
}

async fn serve_one(node: &Node, message: v1::PeerMessage) -> v1::PeerMessage {
    let PeerMessage { id, group_id, verb, payload, .. } = message;
    let late = || Error::unavailable(format!("group {group_id} is too busy for a heartbeat"), RETRY);
    let answered = async { node.require_group(group_id)?.serve(PeerVerb::Append, payload).await };
    let result = tokio::time::timeout(BEAT_WITHIN, answered).await.unwrap_or_else(|_| Err(late()));
    let (payload, error) = match result {
        Ok(payload) => (payload, None),
        Err(error) => (Bytes::new(), Some(error.to_proto())),
    };
    PeerMessage { id, group_id, verb, payload, error }
}
