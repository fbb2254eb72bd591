//! Sends a snapshot to another node: offers it, hears what is there already, sends the rest, and waits for the import.

use super::codec;
use super::link::{Links, error_chain};
use super::snapshot::SnapshotError;
use super::snapshot::depot::{Counts, Depot};
use super::snapshot::manifest::Manifest;
use super::snapshot::outgoing::{Outgoing, Traffic, Transfer};
use super::{Types, Vote};
use crate::node::room::Room;
use metadb_proto::v1::snapshot_answer::Answer;
use metadb_proto::v1::snapshot_push::Push;
use metadb_proto::v1::{SnapshotAnswer, SnapshotChunk, SnapshotOffer, SnapshotPush};
use openraft::errors::{NetworkError, StreamingError, Unreachable};
use openraft::raft::SnapshotResponse;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

/// Chunks read ahead of the transport.
const CHUNKS_AHEAD: usize = 2;
/// How long the receiver may take to say what it has: it compares all of that with the manifest.
const HAVE_TIMEOUT: Duration = Duration::from_secs(120);
/// How long the receiver may take to import.
const IMPORT_TIMEOUT: Duration = Duration::from_secs(600);

/// From whom to whom.
pub(super) struct Way<'a> {
    pub(super) links: &'a Links,
    pub(super) depot: &'a Depot,
    pub(super) traffic: &'a Traffic,
    pub(super) to: u64,
    pub(super) address: &'a str,
}

/// Why a transfer ended.
enum Ended {
    /// The other node can't be reached, or refused: try again later.
    Away(String),
    /// The files here are not what they were: they must be written anew.
    Spoiled(SnapshotError),
}

/// Takes the transfer out of what is shown, however it ends.
struct Shown<'a>(&'a Traffic, u64);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.0.note_sending(self.1, None);
    }
}

impl Way<'_> {
    /// Brings a snapshot to the other node; its vote.
    pub(super) async fn send(&self, vote: &Vote, outgoing: &Arc<Outgoing>) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let unreachable = |message: String| StreamingError::Unreachable(Unreachable::from_string(message));
        match self.transfer(vote, outgoing).await {
            Ok(theirs) => {
                let theirs = codec::decode_vote(theirs).map_err(|error| StreamingError::from(NetworkError::new(&error)))?;
                // Else the receiver follows another leader by now, and took nothing.
                if theirs <= *vote {
                    self.traffic.delivered(outgoing, self.to);
                    Counts::add(&self.depot.counts.sent_whole, 1);
                }
                Ok(SnapshotResponse::new(theirs))
            }
            Err(Ended::Away(message)) => {
                tracing::info!(group_id = outgoing.group_id, to = self.to, message, "a snapshot was not delivered; it will be tried again");
                Err(unreachable(message))
            }
            Err(Ended::Spoiled(error)) => {
                tracing::warn!(group_id = outgoing.group_id, to = self.to, %error, "a snapshot must be written anew");
                self.traffic.forget(outgoing);
                Err(unreachable(error.to_string()))
            }
        }
    }

    async fn transfer(&self, vote: &Vote, outgoing: &Arc<Outgoing>) -> Result<bytes::Bytes, Ended> {
        let mut client = self.links.snapshot_client(self.address).await.map_err(Ended::Away)?;
        let Ok(_permit) = self.depot.sending.acquire().await else { return Err(Ended::Away("the node stops".to_owned())) };
        self.require_current(outgoing)?;
        if !outgoing.is_written() {
            // Its files would take the room of what the disk must have room for.
            self.depot.room.require(Room::Plenty).map_err(|error| Ended::Away(error.to_string()))?;
        }
        let began = Instant::now();
        let manifest = outgoing.manifest().await.map_err(Ended::Spoiled)?;
        let (pushes, outbox) = mpsc::channel(CHUNKS_AHEAD);
        let mut request = tonic::Request::new(ReceiverStream::new(outbox));
        self.links.proof(self.to).sign(&mut request);
        let offer = SnapshotOffer { group_id: outgoing.group_id, vote: codec::encode_vote(vote), manifest: manifest.encode() };
        self.push(&pushes, Push::Offer(offer)).await?;
        let opened = tokio::time::timeout(HAVE_TIMEOUT, client.snapshot(request)).await;
        let mut answers = opened.map_err(|_| late("open the stream"))?.map_err(refused)?.into_inner();
        let have = match next(&mut answers, HAVE_TIMEOUT).await? {
            Answer::Have(have) => have.bytes,
            // It had all of it.
            Answer::Installed(installed) => return Ok(installed.vote),
        };
        self.require_current(outgoing)?;
        let _shown = Shown(self.traffic, self.to);
        let lacks = manifest.total_bytes().saturating_sub(have.iter().sum());
        let producing = self.produce(outgoing, &manifest, &have, &pushes);
        // The sender's half stays open until the answer: a closed one would end the transfer in the receiver's eyes.
        let answering = next(&mut answers, IMPORT_TIMEOUT);
        let (mut producing, mut answering) = (std::pin::pin!(producing), std::pin::pin!(answering));
        let answer = tokio::select! {
            biased;
            answer = &mut answering => answer?,
            produced = &mut producing => {
                produced?;
                answering.await?
            }
        };
        match answer {
            Answer::Installed(installed) => {
                self.depot.counts.note_rate(lacks, began.elapsed());
                Ok(installed.vote)
            }
            Answer::Have(_) => Err(Ended::Away("the receiver said twice what it has".to_owned())),
        }
    }

    /// Hands over what the receiver lacks.
    async fn produce(
        &self,
        outgoing: &Outgoing,
        manifest: &Manifest,
        have: &[u64],
        pushes: &mpsc::Sender<SnapshotPush>,
    ) -> Result<(), Ended> {
        let reused_bytes = have.iter().sum();
        let mut shown = Transfer { total_bytes: manifest.total_bytes(), done_bytes: reused_bytes, reused_bytes };
        self.traffic.note_sending(self.to, Some(shown));
        for (number, file) in manifest.files.iter().enumerate() {
            let mut offset = have.get(number).copied().unwrap_or(0);
            while let Some(chunk) = file.chunk_at(offset, manifest.chunk_bytes) {
                self.depot.throttle.take(chunk.bytes as u64).await;
                self.require_current(outgoing)?;
                let bytes = outgoing.read(number, chunk).map_err(Ended::Spoiled)?;
                let file = u32::try_from(number).unwrap_or(u32::MAX);
                self.push(pushes, Push::Chunk(SnapshotChunk { file, offset, bytes })).await?;
                offset += chunk.bytes as u64;
                shown.done_bytes += chunk.bytes as u64;
                self.traffic.note_sending(self.to, Some(shown));
                Counts::add(&self.depot.counts.sent, chunk.bytes as u64);
            }
        }
        Ok(())
    }

    /// Refuses what would not help the other node: the next attempt gives a later one.
    fn require_current(&self, outgoing: &Outgoing) -> Result<(), Ended> {
        if self.traffic.is_outdated(outgoing) {
            return Err(Ended::Away("the log does not go on any more from where this snapshot ends".to_owned()));
        }
        Ok(())
    }

    async fn push(&self, pushes: &mpsc::Sender<SnapshotPush>, push: Push) -> Result<(), Ended> {
        match tokio::time::timeout(self.depot.limits.stall, pushes.send(SnapshotPush { push: Some(push) })).await {
            Ok(Ok(())) => Ok(()),
            // The receiver gave up; its answer says why.
            Ok(Err(_)) => std::future::pending().await,
            Err(_) => Err(late("take a chunk")),
        }
    }
}

fn late(what: &str) -> Ended {
    Ended::Away(format!("the other node took too long to {what}"))
}

#[expect(clippy::needless_pass_by_value, reason = "fits map_err")]
fn refused(status: tonic::Status) -> Ended {
    Ended::Away(error_chain(&status))
}

async fn next(answers: &mut tonic::Streaming<SnapshotAnswer>, limit: Duration) -> Result<Answer, Ended> {
    let answer = tokio::time::timeout(limit, answers.message()).await.map_err(|_| late("answer"))?;
    let answer = answer.map_err(refused)?.and_then(|answer| answer.answer);
    answer.ok_or_else(|| Ended::Away("the stream ended without an answer".to_owned()))
}
