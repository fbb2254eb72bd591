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
/// How long the receiver may take to say what it has, and to import, beside the time in which it reads all of the snapshot: it compares with
/// the manifest what an earlier attempt brought, and in the end everything.
const HAVE_TIMEOUT: Duration = Duration::from_secs(120);
const IMPORT_TIMEOUT: Duration = Duration::from_secs(600);
/// What a slow disk reads in a second, while others want it too.
const SLOW_READ_BYTES: u64 = 16 << 20;

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
        let reads = reading(manifest.total_bytes());
        let have = tokio::time::timeout(HAVE_TIMEOUT + reads, next(&mut answers)).await;
        let have = match have.map_err(|_| late("say what it has"))?? {
            Answer::Have(have) => have.bytes,
            // It had all of it.
            Answer::Installed(installed) => return Ok(installed.vote),
        };
        self.require_current(outgoing)?;
        let _shown = Shown(self.traffic, self.to);
        let lacks = manifest.total_bytes().saturating_sub(have.iter().sum());
        let producing = self.produce(outgoing, &manifest, &have, &pushes);
        // The sender's half stays open until the answer: a closed one would end the transfer in the receiver's eyes.
        match answered(producing, next(&mut answers), IMPORT_TIMEOUT + reads).await? {
            Answer::Installed(installed) => {
                self.depot.counts.note_rate(lacks, began.elapsed());
                Ok(installed.vote)
            }
            Answer::Have(_) => Err(Ended::Away("the receiver said twice what it has".to_owned())),
        }
    }

    /// Hands over what the receiver lacks, as long as it takes any.
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
                if !self.push(pushes, Push::Chunk(SnapshotChunk { file, offset, bytes })).await? {
                    return Ok(());
                }
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

    /// Whether the receiver takes it. If it gave up, its answer says why.
    async fn push(&self, pushes: &mpsc::Sender<SnapshotPush>, push: Push) -> Result<bool, Ended> {
        let sent = tokio::time::timeout(self.depot.limits.stall, pushes.send(SnapshotPush { push: Some(push) })).await;
        sent.map(|sent| sent.is_ok()).map_err(|_| late("take a chunk"))
    }
}

/// How long it takes to read so many bytes.
fn reading(bytes: u64) -> Duration {
    Duration::from_secs(bytes / SLOW_READ_BYTES)
}

/// The answer, which may come early, and must come within a time after everything was sent. Sending takes as long as it gets on.
async fn answered<A>(
    producing: impl Future<Output = Result<(), Ended>>,
    answering: impl Future<Output = Result<A, Ended>>,
    limit: Duration,
) -> Result<A, Ended> {
    let (mut producing, mut answering) = (std::pin::pin!(producing), std::pin::pin!(answering));
    tokio::select! {
        biased;
        answer = &mut answering => return answer,
        produced = &mut producing => produced?,
    }
    tokio::time::timeout(limit, answering).await.map_err(|_| late("import"))?
}

fn late(what: &str) -> Ended {
    Ended::Away(format!("the other node took too long to {what}"))
}

#[expect(clippy::needless_pass_by_value, reason = "fits map_err")]
fn refused(status: tonic::Status) -> Ended {
    Ended::Away(error_chain(&status))
}

async fn next(answers: &mut tonic::Streaming<SnapshotAnswer>) -> Result<Answer, Ended> {
    let answer = answers.message().await.map_err(refused)?.and_then(|answer| answer.answer);
    answer.ok_or_else(|| Ended::Away("the stream ended without an answer".to_owned()))
}

#[cfg(all(test, not(madsim)))]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(40);

    async fn sends(time: Duration, ended: Result<(), Ended>) -> Result<(), Ended> {
        tokio::time::sleep(time).await;
        ended
    }

    async fn says(after: Duration) -> Result<&'static str, Ended> {
        tokio::time::sleep(after).await;
        Ok("installed")
    }

    #[tokio::test]
    async fn a_transfer_takes_as_long_as_it_gets_on_and_an_import_its_time() {
        let silent = std::future::pending::<Result<(), Ended>>;
        let slow = answered(sends(LIMIT * 3, Ok(())), says(LIMIT * 3 + LIMIT / 4), LIMIT).await;
        assert!(matches!(slow, Ok("installed")), "the limit begins when all is sent");
        let early = answered(sends(LIMIT * 3, Ok(())), says(Duration::ZERO), LIMIT).await;
        assert!(matches!(early, Ok("installed")), "it had all of it");
        let never = answered(sends(Duration::ZERO, Ok(())), silent(), LIMIT).await;
        assert!(matches!(&never, Err(Ended::Away(why)) if why.contains("import")));
        let stuck = answered(sends(Duration::ZERO, Err(late("take a chunk"))), silent(), LIMIT).await;
        assert!(matches!(&stuck, Err(Ended::Away(why)) if why.contains("take a chunk")));
        assert_eq!(reading(10 * SLOW_READ_BYTES), Duration::from_secs(10));
    }
}
