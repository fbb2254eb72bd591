//! openraft's way to another replica: every call becomes a message on the node's link.

use super::link::{Link, LinkError, Links, Waiting};
use super::messages::{
    decode_append_response, decode_transfer_response, decode_vote_response, encode_append, encode_transfer, encode_vote_request,
};
use super::send::Way;
use super::snapshot::SnapshotData;
use super::snapshot::depot::Depot;
use super::snapshot::outgoing::Traffic;
use super::{LogId, Member, Types, Vote, codec};
use bytes::Bytes;
use futures::{FutureExt as _, Stream, StreamExt as _};
use metadb_proto::Error;
use metadb_proto::planted::{self, Bug};
use metadb_proto::v1::PeerVerb;
use openraft::alias::SnapshotOf;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{Backoff, RPCOption, RPCTypes, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkV2};
use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Appends on their way to one follower: enough for a disk that syncs in a few milliseconds behind a wide network.
const APPENDS_IN_FLIGHT: usize = 16;
/// How long an append may take: it waits for the follower's disk, so it is not bound to the heartbeat.
const APPEND_TIMEOUT: Duration = Duration::from_secs(2);
/// Pauses between attempts at a node that can't be reached.
const PAUSES_MS: [u64; 4] = [20, 50, 100, 200];

/// Makes the ways of one replica to its peers.
pub(crate) struct Network {
    pub(crate) links: Links,
    pub(crate) node_id: u64,
    pub(crate) group_id: u32,
    pub(crate) depot: Arc<Depot>,
    pub(crate) traffic: Arc<Traffic>,
}

/// The way to one peer.
pub(crate) struct Conn {
    links: Links,
    link: Arc<Link>,
    node_id: u64,
    group_id: u32,
    depot: Arc<Depot>,
    traffic: Arc<Traffic>,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Conn;

    async fn new_client(&mut self, target: u64, member: &Member) -> Conn {
        let link = self.links.to(target, &member.address);
        Conn {
            links: self.links.clone(),
            link,
            node_id: self.node_id,
            group_id: self.group_id,
            depot: Arc::clone(&self.depot),
            traffic: Arc::clone(&self.traffic),
        }
    }
}

impl Conn {
    fn rpc_error(&self, action: RPCTypes, error: LinkError) -> RPCError<Types> {
        match error {
            LinkError::Timeout { limit, .. } => {
                RPCError::Timeout(Timeout { action, id: self.node_id, target: self.link.node_id(), timeout: limit })
            }
            // A node without the replica, or whose replica is not ready, is as good as away: openraft backs off.
            LinkError::Down { .. }
            | LinkError::Refused { error: Error::NotFound { .. } | Error::Unavailable { .. } | Error::Exhausted { .. }, .. } => {
                RPCError::Unreachable(Unreachable::from_string(error))
            }
            LinkError::Refused { .. } => RPCError::Network(NetworkError::from_string(error)),
        }
    }

    async fn call(&self, verb: PeerVerb, action: RPCTypes, payload: Bytes, limit: Duration) -> Result<Bytes, RPCError<Types>> {
        self.link.call(self.group_id, verb, payload, limit).await.map_err(|error| self.rpc_error(action, error))
    }
}

fn malformed(error: codec::CodecError) -> RPCError<Types> {
    RPCError::Network(NetworkError::new(&error))
}

/// Appends sent and not yet answered, oldest first.
///
/// openraft finds out which append an answer belongs to by where the log of the append ends, and takes the time at which the *last* such
/// append left for the moment up to which the follower is known to follow: its lease counts from there. Two appends in flight end at the
/// same place whenever one tells only what is committed. So of those the last answer alone is handed on: otherwise a follower's word from
/// before an election would renew the lease of the leader whom the election ended.
struct Pipeline<'s, S> {
    conn: &'s Conn,
    input: Option<S>,
    sent: VecDeque<Sent>,
}

struct Sent {
    prev: Option<LogId>,
    last: Option<LogId>,
    deadline: Instant,
    waiting: Waiting,
}

/// What happens next to a pipeline.
enum Step {
    /// openraft wants to send; none: it has no more.
    Request(Option<AppendEntriesRequest<Types>>),
    /// The oldest append was answered.
    Answer(Result<AppendEntriesResponse<Types>, RPCError<Types>>),
    /// Nothing is left to send or to wait for.
    End,
}

type AppendItem = Result<StreamAppendResult<Types>, RPCError<Types>>;

impl<S> Pipeline<'_, S>
where
    S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
{
    /// The next answer, in the order of the requests; new requests are sent meanwhile. None: the input is exhausted and answered.
    async fn next(&mut self) -> Option<AppendItem> {
        loop {
            match self.step().await {
                Step::End => return None,
                Step::Answer(answer) => {
                    if let Some(item) = self.finish(answer) {
                        return Some(item);
                    }
                }
                Step::Request(None) => self.input = None,
                Step::Request(Some(request)) => {
                    if let Err(error) = self.send(&request).await {
                        self.input = None;
                        self.sent.clear();
                        return Some(Err(error));
                    }
                }
            }
        }
    }

    async fn step(&mut self) -> Step {
        let may_send = self.sent.len() < APPENDS_IN_FLIGHT;
        let conn = self.conn;
        match (self.input.as_mut().filter(|_| may_send), self.sent.front_mut()) {
            (None, None) => Step::End,
            (Some(input), None) => Step::Request(input.next().await),
            (None, Some(front)) => Step::Answer(front.answer(conn).await),
            (Some(input), Some(front)) => {
                tokio::select! {
                    biased;
                    answer = front.answer(conn) => Step::Answer(answer),
                    request = input.next() => Step::Request(request),
                }
            }
        }
    }

    async fn send(&mut self, request: &AppendEntriesRequest<Types>) -> Result<(), RPCError<Types>> {
        let last = request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id);
        let begun = self.conn.link.begin(self.conn.group_id, PeerVerb::Append, encode_append(request)).await;
        let waiting = begun.map_err(|error| self.conn.rpc_error(RPCTypes::AppendEntries, error))?;
        self.sent.push_back(Sent { prev: request.prev_log_id, last, deadline: Instant::now() + APPEND_TIMEOUT, waiting });
        Ok(())
    }

    /// What openraft is told of the oldest append; nothing, if a later one ends at the same place and will tell it.
    fn finish(&mut self, answer: Result<AppendEntriesResponse<Types>, RPCError<Types>>) -> Option<AppendItem> {
        let sent = self.sent.pop_front()?;
        let item = answer.and_then(|response| {
            if response.is_conflict() && sent.prev.is_none() {
                return Err(RPCError::Network(NetworkError::from_string("a follower can't conflict with the beginning of the log")));
            }
            Ok(response.into_stream_result(sent.prev, sent.last))
        });
        // Whatever follows an error belongs to a stream that openraft has given up.
        if !matches!(&item, Ok(Ok(matched)) if *matched == sent.last) {
            self.input = None;
            self.sent.clear();
        }
        let told_later = self.sent.front().is_some_and(|next| next.last == sent.last);
        if told_later && !planted::is(Bug::EarlyAnswerRenewsLease) { None } else { Some(item) }
    }
}

impl Sent {
    async fn answer(&mut self, conn: &Conn) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let bytes = self.waiting.until(&conn.link, APPEND_TIMEOUT, self.deadline).await;
        let bytes = bytes.map_err(|error| conn.rpc_error(RPCTypes::AppendEntries, error))?;
        decode_append_response(bytes).map_err(malformed)
    }
}

impl RaftNetworkV2<Types> for Conn {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let bytes = self.call(PeerVerb::Append, RPCTypes::AppendEntries, encode_append(&request), option.soft_ttl()).await?;
        decode_append_response(bytes).map_err(malformed)
    }

    fn stream_append<'s, S>(&'s mut self, input: S, _option: RPCOption) -> BoxFuture<'s, Result<BoxStream<'s, AppendItem>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        let pipeline = Pipeline { conn: &*self, input: Some(input), sent: VecDeque::new() };
        let answers = futures::stream::unfold(pipeline, |mut pipeline| async move {
            let item = pipeline.next().await?;
            Some((item, pipeline))
        });
        let answers: BoxStream<'s, AppendItem> = Box::pin(answers);
        async move { Ok(answers) }.boxed()
    }

    async fn vote(&mut self, request: VoteRequest<Types>, option: RPCOption) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let bytes = self.call(PeerVerb::Vote, RPCTypes::Vote, encode_vote_request(&request), option.soft_ttl()).await?;
        decode_vote_response(bytes).map_err(malformed)
    }

    async fn pre_vote(&mut self, request: VoteRequest<Types>, option: RPCOption) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let bytes = self.call(PeerVerb::PreVote, RPCTypes::Vote, encode_vote_request(&request), option.soft_ttl()).await?;
        decode_vote_response(bytes).map_err(malformed)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<Types, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let SnapshotData::Outgoing(outgoing) = snapshot.snapshot else {
            return Err(NetworkError::from_string("a snapshot that was received is not sent on").into());
        };
        let (to, address) = (self.link.node_id(), self.link.address());
        let way = Way { links: &self.links, depot: &self.depot, traffic: &self.traffic, to, address };
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = way.send(&vote, &outgoing) => sent,
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let payload = encode_transfer(&request);
        let bytes = self.call(PeerVerb::TransferLeader, RPCTypes::TransferLeader, payload, option.soft_ttl()).await?;
        decode_transfer_response(bytes).map_err(malformed)
    }

    fn backoff(&self) -> Option<Backoff> {
        let last = PAUSES_MS[PAUSES_MS.len() - 1];
        Some(Backoff::new(PAUSES_MS.into_iter().chain(std::iter::repeat(last)).map(Duration::from_millis)))
    }
}

#[cfg(all(test, not(madsim)))]
#[path = "network_tests.rs"]
mod tests;
