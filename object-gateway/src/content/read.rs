//! One read: chunks from the nearest copy that proves good, from another one when it does not.
//!
//! A chunk is verified before a byte of it is served, so a reader sees the right bytes or a broken stream, never wrong bytes.

use super::content_v1;
use super::format::{Chunk, chunk_count};
use super::limits::{CHUNK_BYTES, READ_AHEAD_CHUNKS, READER_IDLE, STALL_TIMEOUT};
use super::local::{LocalError, LocalReader};
use super::room::full;
use super::{ContentPart, ContentStore, footer_of, ref_of, repair};
use bytes::Bytes;
use futures::Stream;
use metadb_proto::Error;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;

/// Verified bytes, in order. An error ends it.
pub struct ContentStream {
    chunks: mpsc::Receiver<Result<Bytes, Error>>,
    /// Bytes that are still to come: an end before them is told as an error.
    left: u64,
}

impl Stream for ContentStream {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = std::task::ready!(self.chunks.poll_recv(cx));
        let left = match &next {
            Some(Ok(bytes)) => self.left.saturating_sub(bytes.len() as u64),
            Some(Err(_)) | None => 0,
        };
        let was_left = std::mem::replace(&mut self.left, left);
        if next.is_none() && was_left > 0 {
            return Poll::Ready(Some(Err(Error::unavailable("the read was given up, its bytes were not taken in time", Duration::ZERO))));
        }
        Poll::Ready(next)
    }
}

impl ContentStore {
    /// Reads a range of a content. Returns when the first chunk is verified, so that a content that can't be read is told at once.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if no copy is good, [`Error::Unavailable`] if those that may be can't be reached, [`Error::Invalid`] for a
    /// range beyond the end.
    pub async fn read(&self, tenant_id: u64, part: &ContentPart, range: Range<u64>) -> Result<ContentStream, Error> {
        if range.start > range.end || range.end > part.size_bytes {
            return Err(Error::invalid("range", format!("within 0..{}", part.size_bytes), format!("{range:?}")));
        }
        let (sender, chunks) = mpsc::channel(READ_AHEAD_CHUNKS);
        let stream = ContentStream { chunks, left: range.end - range.start };
        if range.is_empty() {
            return Ok(stream);
        }
        let permit = self.0.reads.clone().acquire_owned().await.map_err(|_| Error::internal("the read semaphore is never closed"))?;
        self.0.counting.reads.add(1);
        let chunk_bytes = CHUNK_BYTES as u64;
        let indexes = range.start / chunk_bytes..range.end.div_ceil(chunk_bytes);
        let mut source = Chunks::new(self.clone(), tenant_id, part.clone(), indexes, None);
        let first = source.next().await?.ok_or_else(|| Error::internal("a range that is not empty has a chunk"))?;
        let whole = (range == (0..part.size_bytes)).then(|| Whole { hasher: blake3::Hasher::new(), expected: part.blake3 });
        let mut serve = Serve { position: range.start, end: range.end, whole, sender, patience: READER_IDLE, _permit: permit };
        if serve.send(first).await && serve.position < serve.end {
            tokio::spawn(async move { serve.run(source).await });
        }
        Ok(stream)
    }

    /// All chunks of a content, from other copies than the one to be replaced.
    pub(super) async fn open_chunks(&self, tenant_id: u64, part: &ContentPart, except: Option<u64>) -> Result<Chunks, Error> {
        Ok(Chunks::new(self.clone(), tenant_id, part.clone(), 0..chunk_count(part.size_bytes), except))
    }
}

/// The checksum of a whole content, on the way.
struct Whole {
    hasher: blake3::Hasher,
    expected: [u8; 32],
}

struct Serve {
    position: u64,
    end: u64,
    /// For a content that is read from its first byte to its last.
    whole: Option<Whole>,
    sender: mpsc::Sender<Result<Bytes, Error>>,
    /// How long the reader may take nothing.
    patience: Duration,
    _permit: OwnedSemaphorePermit,
}

impl Serve {
    async fn run(mut self, mut source: Chunks) {
        while self.position < self.end {
            match source.next().await {
                Ok(Some(chunk)) => {
                    if !self.send(chunk).await {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    let _ = timeout(self.patience, self.sender.send(Err(error))).await;
                    return;
                }
            }
        }
    }

    /// Sends what the range wants of a chunk. `false` if nobody listens any more, or takes nothing: others wait for the permit.
    async fn send(&mut self, chunk: Chunk) -> bool {
        let start = self.position % CHUNK_BYTES as u64;
        let end = (start + (self.end - self.position)).min(chunk.bytes.len() as u64);
        let (Ok(from), Ok(to)) = (usize::try_from(start), usize::try_from(end)) else { return false };
        self.position += end - start;
        if let Some(whole) = &mut self.whole {
            whole.hasher.update(&chunk.bytes);
            // Before the last bytes go: who has them all takes them for good.
            if self.position == self.end && whole.hasher.finalize() != whole.expected {
                let message = "its chunks are whole, and together they are not the content that was written".to_owned();
                let _ = timeout(self.patience, self.sender.send(Err(Error::Corrupt { message }))).await;
                return false;
            }
        }
        let sent = timeout(self.patience, self.sender.send(Ok(chunk.bytes.slice(from..to)))).await;
        sent.is_ok_and(|sent| sent.is_ok())
    }
}

enum Source {
    Local(u64, LocalReader),
    Remote(u64, Box<tonic::Streaming<content_v1::Chunk>>),
}

/// Verified chunks of a content, from whichever copy is good.
pub(super) struct Chunks {
    store: ContentStore,
    tenant_id: u64,
    part: ContentPart,
    next: u64,
    end: u64,
    /// A copy that is being replaced: asked last, and not reported again.
    replaced: Option<u64>,
    /// Nodes still to be tried for the next chunk, the best first.
    copies: std::collections::VecDeque<u64>,
    /// Nodes whose copy of this chunk is bad: their other chunks may be good.
    bad: Vec<u64>,
    source: Option<Source>,
    failure: Option<Error>,
    /// Whether the ledger was asked for copies that were made later.
    asked_ledger: bool,
}

impl Chunks {
    fn new(store: ContentStore, tenant_id: u64, part: ContentPart, indexes: Range<u64>, except: Option<u64>) -> Self {
        let own = store.node_id();
        let others: Vec<u64> = part.nodes.iter().copied().filter(|id| *id != own && Some(*id) != except).collect();
        let mut copies: std::collections::VecDeque<u64> = store.0.links.suspects_last(others).into();
        if except == Some(own) {
            copies.push_back(own);
        } else if part.nodes.contains(&own) {
            copies.push_front(own);
        }
        let (next, end) = (indexes.start, indexes.end);
        Chunks {
            store,
            tenant_id,
            part,
            next,
            end,
            replaced: except,
            copies,
            bad: Vec::new(),
            source: None,
            failure: None,
            asked_ledger: false,
        }
    }

    pub(super) async fn next(&mut self) -> Result<Option<Chunk>, Error> {
        while self.next < self.end {
            let result = match &mut self.source {
                Some(source) => take(source, self.next, self.part.size_bytes).await,
                None => match self.copies.pop_front() {
                    Some(node_id) => match self.open(node_id).await {
                        Ok(source) => {
                            self.source = Some(source);
                            continue;
                        }
                        Err(failure) => Err(failure),
                    },
                    None if self.asked_ledger => return Err(self.exhausted()),
                    None => {
                        self.learn_copies().await;
                        continue;
                    }
                },
            };
            match result {
                Ok(chunk) => {
                    self.next += 1;
                    self.copies.extend(self.bad.drain(..));
                    return Ok(Some(chunk));
                }
                Err((node_id, failure)) => self.give_up(node_id, failure),
            }
        }
        Ok(None)
    }

    async fn open(&self, node_id: u64) -> Result<Source, (u64, Error)> {
        if node_id == self.store.node_id() {
            let opened = self.store.0.local.reader(self.tenant_id, self.part.content_id, footer_of(&self.part)).await;
            return opened.map(|reader| Source::Local(node_id, reader)).map_err(|e| (node_id, local_error(e)));
        }
        let request = content_v1::FetchRequest {
            content: Some(ref_of(self.tenant_id, &self.part)),
            first_chunk: self.next,
            chunks: self.end - self.next,
        };
        let fetch = async {
            let mut client = self.store.0.links.client(node_id)?;
            let answer = client.fetch(self.store.0.links.request(request)).await;
            answer.map(tonic::Response::into_inner).map_err(|status| Error::from_status(&status, false))
        };
        match timeout(STALL_TIMEOUT, fetch).await {
            Ok(Ok(stream)) => {
                self.store.0.links.trust(node_id);
                Ok(Source::Remote(node_id, Box::new(stream)))
            }
            Ok(Err(error)) => Err((node_id, error)),
            Err(_) => Err((node_id, stalled(node_id))),
        }
    }

    /// A version names the nodes that held a copy when it was made. The copy that was owed then, and those made in place of lost ones,
    /// are in the ledger only: asked when the others do not suffice.
    async fn learn_copies(&mut self) {
        self.asked_ledger = true;
        let known = match self.store.0.ledger.content(self.tenant_id, self.part.content_id).await {
            Ok(known) => known.map_or_else(Vec::new, |part| part.nodes),
            Err(error) => {
                tracing::warn!(content = hex::encode(self.part.content_id), %error, "the ledger could not tell of more copies");
                return;
            }
        };
        let later = known.into_iter().filter(|id| !self.part.nodes.contains(id) && self.replaced != Some(*id)).collect();
        let later = self.store.0.links.suspects_last(later);
        self.part.nodes.extend(&later);
        self.copies.extend(later);
    }

    fn give_up(&mut self, node_id: u64, failure: Error) {
        self.source = None;
        if self.replaced != Some(node_id) {
            let content = hex::encode(self.part.content_id);
            tracing::warn!(node = node_id, content, error = %failure, "a copy was given up, another one is read");
            self.store.0.counting.failovers.add(1);
            if node_id == self.store.node_id() {
                self.store.queue_repair(repair::Job { tenant_id: self.tenant_id, part: self.part.clone() }, &failure);
            }
        }
        if matches!(failure, Error::Unavailable { .. }) {
            self.store.0.links.suspect(node_id);
        } else {
            self.bad.push(node_id);
        }
        // A copy that is certainly bad says more than one that can't be reached; but that one may be good.
        if !matches!(self.failure, Some(Error::Unavailable { .. })) {
            self.failure = Some(failure);
        }
    }

    fn exhausted(&mut self) -> Error {
        let content = hex::encode(self.part.content_id);
        match self.failure.take() {
            Some(Error::Unavailable { message, retry_after }) => {
                Error::unavailable(format!("no good copy of content {content} can be reached now: {message}"), retry_after)
            }
            Some(error) => Error::Corrupt { message: format!("no copy of content {content} is good: {error}") },
            None => Error::Corrupt { message: format!("content {content} has no copies") },
        }
    }
}

async fn take(source: &mut Source, index: u64, size_bytes: u64) -> Result<Chunk, (u64, Error)> {
    match source {
        Source::Local(node_id, reader) => reader.chunk(index).await.map_err(|e| (*node_id, local_error(e))),
        Source::Remote(node_id, stream) => {
            let chunk = match timeout(STALL_TIMEOUT, stream.message()).await {
                Ok(Ok(Some(chunk))) => Chunk { bytes: chunk.bytes, crc: chunk.crc32c },
                Ok(Ok(None)) => return Err((*node_id, Error::Corrupt { message: format!("node {node_id} sent too few chunks") })),
                Ok(Err(status)) => return Err((*node_id, Error::from_status(&status, false))),
                Err(_) => return Err((*node_id, stalled(*node_id))),
            };
            chunk.verify(index, size_bytes).map_err(|e| (*node_id, Error::Corrupt { message: format!("from node {node_id}: {e}") }))?;
            Ok(chunk)
        }
    }
}

fn stalled(node_id: u64) -> Error {
    Error::unavailable(format!("node {node_id} does not answer"), Duration::from_secs(1))
}

/// As it is told to other nodes and to readers.
pub(super) fn local_error(error: LocalError) -> Error {
    match error {
        LocalError::Missing => Error::not_found("there is no copy here"),
        LocalError::Corrupt(e) => Error::Corrupt { message: e.to_string() },
        LocalError::Full(told) => full(told),
        LocalError::Io(e) => Error::unavailable(format!("the disk answered: {e}"), Duration::from_secs(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt as _;
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    /// A chunk of another content in its place has a right checksum of its own.
    #[tokio::test]
    async fn a_whole_content_is_checked_as_a_whole_before_its_last_bytes_go() {
        let (right, wrong) = (Bytes::from_static(b"right"), Bytes::from_static(b"wrong"));
        for (bytes, good) in [(right.clone(), true), (wrong, false)] {
            let permit = Arc::new(Semaphore::new(1)).acquire_owned().await.expect("open");
            let (sender, chunks) = mpsc::channel(2);
            let whole = Some(Whole { hasher: blake3::Hasher::new(), expected: *blake3::hash(&right).as_bytes() });
            let mut serve = Serve { position: 0, end: 5, whole, sender, patience: Duration::from_secs(5), _permit: permit };
            assert_eq!(serve.send(Chunk::seal(0, bytes)).await, good);
            let mut stream = ContentStream { chunks, left: 5 };
            let told = stream.next().await.expect("something");
            assert_eq!(told.is_ok(), good, "{told:?}");
            assert!(good || matches!(told, Err(Error::Corrupt { .. })), "{told:?}");
        }
    }

    #[tokio::test]
    async fn a_reader_that_takes_nothing_loses_its_place_and_is_told() {
        let reads = Arc::new(Semaphore::new(1));
        let permit = reads.clone().acquire_owned().await.expect("open");
        let (sender, chunks) = mpsc::channel(1);
        let mut stream = ContentStream { chunks, left: 10 };
        let mut serve = Serve { position: 0, end: 10, whole: None, sender, patience: Duration::from_millis(20), _permit: permit };
        assert!(serve.send(Chunk::seal(0, Bytes::from_static(b"01234"))).await);
        assert!(!serve.send(Chunk::seal(0, Bytes::from_static(b"0123456789"))).await, "the reader holds still");
        drop(serve);
        assert_eq!(reads.available_permits(), 1);
        assert_eq!(stream.next().await, Some(Ok(Bytes::from_static(b"01234"))));
        assert!(matches!(stream.next().await, Some(Err(Error::Unavailable { .. }))), "an early end is no end");
        assert_eq!(stream.next().await, None);
    }
}
