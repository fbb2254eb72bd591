//! One write: a stream of bytes to this node and two others at once, in constant memory.
//!
//! Each copy has a lane: a short queue and a task that feeds a disk or a peer. The slowest lane holds the reader back, until its
//! patience ends; then the copy is given up and owed.

use super::content_v1::{self, write_frame::Frame};
use super::format::{Chunk, Footer};
use super::limits::{ACK_COPIES, CHUNK_BYTES, COPIES, GRACE, LANE_CHUNKS, SLOW_BODY_AFTER, SLOW_BODY_BYTES_PER_S, STALL_TIMEOUT};
use super::local::LocalWriter;
use super::repair::own_copy;
use super::room::full;
use super::shares::Share;
use super::{ContentPart, ContentStore, footer_of};
use bytes::{Bytes, BytesMut};
use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt as _};
use metadb_proto::{Error, seam};
use std::pin::pin;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;

/// How long a lane may hold back the others when enough copies are certain without it.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the last syncs of a copy may take.
const DURABLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError<E> {
    /// The body failed: its own error.
    #[error("the body failed: {0}")]
    Body(E),
    /// The body is not as long as it said.
    #[error("the body has {found} bytes, {expected} were announced")]
    Length {
        /// What was announced.
        expected: u64,
        /// What came, as far as it was read.
        found: u64,
    },
    /// The body came so slowly that its place was given to others.
    #[error("the body came at less than {SLOW_BODY_BYTES_PER_S} bytes a second, {bytes} bytes in all, and others wait")]
    Slow {
        /// What came.
        bytes: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Error),
}

#[derive(Clone)]
enum Event {
    Chunk(Chunk),
    End(Footer),
}

/// A place for one write of a tenant, until it is dropped.
#[derive(Debug)]
pub struct WritePlace {
    tenant_id: u64,
    _share: Share,
}

type Copy = (u64, Result<(), Error>);

struct Lane {
    node_id: u64,
    events: Option<mpsc::Sender<Event>>,
    /// None once it was heard why it ended.
    task: Option<AbortOnDropHandle<Copy>>,
}

impl ContentStore {
    /// Writes a new content. When this returns, it is durable on [`ACK_COPIES`] nodes (on all, in a smaller cluster), and the copies
    /// that it should have beyond those exist or are owed durably. A body that fails or has another length than `expected` leaves
    /// nothing. An empty body needs no content: the part returned has no nodes.
    ///
    /// # Errors
    /// [`WriteError`]; nothing was written then.
    pub async fn write<S, E>(&self, tenant_id: u64, body: S, expected: Option<u64>) -> Result<ContentPart, WriteError<E>>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Send,
    {
        let place = self.begin_write(tenant_id).await?;
        self.write_in(place, body, expected).await
    }

    /// Waits for a place for a write. Who reads from this store what it writes takes the place first: readers never wait for writers, so
    /// nobody waits in a circle.
    ///
    /// # Errors
    /// [`Error::Exhausted`] if none is free in time, or too few nodes had room a moment ago: before a body was sent in vain.
    pub async fn begin_write(&self, tenant_id: u64) -> Result<WritePlace, Error> {
        self.require_room()?;
        Ok(WritePlace { tenant_id, _share: self.0.writes.acquire(tenant_id).await? })
    }

    /// As [`ContentStore::write`], in a place taken before.
    ///
    /// # Errors
    /// As [`ContentStore::write`].
    pub async fn write_in<S, E>(&self, place: WritePlace, body: S, expected: Option<u64>) -> Result<ContentPart, WriteError<E>>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Send,
    {
        let tenant_id = place.tenant_id;
        let content_id = seam::random_id();
        let mut writing = Writing::new(self, tenant_id, content_id);
        let result = match Box::pin(writing.pump(body, expected)).await {
            Ok(None) => Ok(ContentPart { content_id, size_bytes: 0, blake3: *blake3::hash(b"").as_bytes(), nodes: Vec::new() }),
            Ok(Some(footer)) => Box::pin(writing.settle(footer)).await.map_err(WriteError::Store),
            Err(error) => Err(error),
        };
        match &result {
            Ok(part) => {
                self.0.counting.contents_written.add(1);
                self.0.counting.bytes_written.add(part.size_bytes);
            }
            Err(_) => self.0.counting.writes_failed.add(1),
        }
        result
    }

    /// Whether this node has room for contents.
    fn has_room(&self) -> bool {
        self.0.local.require_room().is_ok()
    }

    /// Refuses what too few nodes have room for, as far as is known.
    fn require_room(&self) -> Result<(), Error> {
        let needed = ACK_COPIES.min(self.0.links.cluster_size());
        let with_room = self.0.links.others_with_room() + usize::from(self.has_room());
        if with_room >= needed { Ok(()) } else { Err(too_few(with_room, needed)) }
    }

    /// Copies a content to one more node from the nodes that hold it.
    pub(super) async fn copy_to(&self, node_id: u64, tenant_id: u64, part: &ContentPart) -> Result<(), Error> {
        let mut source = self.open_chunks(tenant_id, part, Some(node_id)).await?;
        let lane = self.open_lane(node_id, tenant_id, part.content_id);
        let (Some(events), Some(task)) = (lane.events, lane.task) else { return Err(Error::internal("a new lane is open")) };
        while let Some(chunk) = source.next().await? {
            if timeout(STALL_TIMEOUT, events.send(Event::Chunk(chunk))).await.is_ok_and(|sent| sent.is_ok()) {
                continue;
            }
            break;
        }
        let _ = timeout(STALL_TIMEOUT, events.send(Event::End(footer_of(part)))).await;
        drop(events);
        match timeout(DURABLE_TIMEOUT, task).await {
            Ok(Ok((_, result))) => result,
            Ok(Err(e)) => Err(Error::internal(format!("a copy's task ended: {e}"))),
            Err(_) => Err(Error::unavailable(format!("node {node_id} did not finish its copy"), Duration::from_secs(1))),
        }
    }

    fn open_lane(&self, node_id: u64, tenant_id: u64, content_id: [u8; 16]) -> Lane {
        let (events, queue) = mpsc::channel(LANE_CHUNKS);
        let store = self.clone();
        let task = tokio::spawn(async move {
            let result = if node_id == store.node_id() {
                local_lane(store.0.local.writer(tenant_id, content_id), queue).await
            } else {
                store.remote_lane(node_id, tenant_id, content_id, queue).await
            };
            if let Err(error) = &result {
                tracing::warn!(node = node_id, content = %hex::encode(content_id), %error, "a copy was not written");
            }
            (node_id, result)
        });
        Lane { node_id, events: Some(events), task: Some(AbortOnDropHandle::new(task)) }
    }

    async fn remote_lane(&self, node_id: u64, tenant_id: u64, content_id: [u8; 16], queue: mpsc::Receiver<Event>) -> Result<(), Error> {
        let mut client = self.0.links.client(node_id)?;
        let cluster_id = self.0.config.cluster_id.clone();
        let header = Frame::Header(content_v1::WriteHeader { cluster_id, tenant_id, content_id: content_id.to_vec().into() });
        let frames = futures::stream::iter([header]).chain(ReceiverStream::new(queue).map(frame));
        let frames = frames.map(|frame| content_v1::WriteFrame { frame: Some(frame) });
        match client.write(self.0.links.request(frames)).await {
            Ok(_) => {
                self.0.links.trust(node_id);
                Ok(())
            }
            Err(status) => {
                let error = Error::from_status(&status, false);
                if matches!(error, Error::Unavailable { .. }) {
                    self.0.links.suspect(node_id);
                } else if matches!(error, Error::Exhausted { .. }) {
                    self.0.links.note_full(node_id);
                }
                Err(error)
            }
        }
    }
}

fn frame(event: Event) -> Frame {
    match event {
        Event::Chunk(chunk) => Frame::Chunk(content_v1::Chunk { bytes: chunk.bytes, crc32c: chunk.crc }),
        Event::End(footer) => Frame::End(content_v1::WriteEnd { size_bytes: footer.size_bytes, blake3: footer.blake3.to_vec().into() }),
    }
}

async fn local_lane(mut writer: LocalWriter, mut queue: mpsc::Receiver<Event>) -> Result<(), Error> {
    while let Some(event) = queue.recv().await {
        match event {
            Event::Chunk(chunk) => writer.push(chunk).await.map_err(own_copy)?,
            Event::End(footer) => return writer.finish(footer).await.map_err(own_copy),
        }
    }
    Err(Error::internal("the writer gave up"))
}

/// A write under way.
struct Writing<'a> {
    store: &'a ContentStore,
    tenant_id: u64,
    content_id: [u8; 16],
    lanes: Vec<Lane>,
    /// Nodes that may still be asked for a copy, the best first.
    spare: Vec<u64>,
    /// How many copies it should have, and how many before it is acknowledged.
    wanted: usize,
    needed: usize,
    /// Whether a node had no room for a copy.
    met_full: bool,
}

impl<'a> Writing<'a> {
    fn new(store: &'a ContentStore, tenant_id: u64, content_id: [u8; 16]) -> Self {
        let size = store.0.links.cluster_size();
        Writing {
            store,
            tenant_id,
            content_id,
            lanes: Vec::new(),
            spare: Vec::new(),
            wanted: COPIES.min(size),
            needed: ACK_COPIES.min(size),
            met_full: false,
        }
    }

    /// Opens the lanes: this node, then the content's other nodes. Nodes that failed a moment ago or have no room are spared unless needed.
    fn open(&mut self) {
        let (own, links) = (self.store.node_id(), &self.store.0.links);
        let mut nodes = links.candidates(&self.content_id);
        let mut healthy = nodes.iter().filter(|id| !links.is_suspect(**id) && !links.is_full(**id)).count();
        if self.store.has_room() {
            nodes.insert(0, own);
            healthy += 1;
        } else {
            nodes.push(own);
        }
        let lanes = self.wanted.min(healthy.max(self.needed)).min(nodes.len());
        self.spare = nodes.split_off(lanes);
        self.lanes = nodes.iter().map(|id| self.store.open_lane(*id, self.tenant_id, self.content_id)).collect();
    }

    /// Cuts the body into chunks and feeds them to all lanes. `None` for an empty body.
    async fn pump<S, E>(&mut self, body: S, expected: Option<u64>) -> Result<Option<Footer>, WriteError<E>>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Send,
    {
        let mut body = pin!(body);
        let (mut hasher, mut buffer, mut index, mut size) = (blake3::Hasher::new(), BytesMut::new(), 0_u64, 0_u64);
        let mut waited = Duration::ZERO;
        loop {
            let asked = Instant::now();
            let Some(bytes) = body.next().await else { break };
            waited += asked.elapsed();
            let mut bytes = bytes.map_err(WriteError::Body)?;
            size += bytes.len() as u64;
            if is_slow(size, waited) && self.store.0.writes.is_contended() {
                return Err(WriteError::Slow { bytes: size });
            }
            if expected.is_some_and(|expected| size > expected) {
                return Err(WriteError::Length { expected: expected.unwrap_or(0), found: size });
            }
            while !bytes.is_empty() {
                let take = bytes.len().min(CHUNK_BYTES - buffer.len());
                buffer.extend_from_slice(&bytes.split_to(take));
                if buffer.len() == CHUNK_BYTES {
                    self.send_chunk(&mut hasher, index, buffer.split().freeze()).await?;
                    index += 1;
                }
            }
        }
        if expected.is_some_and(|expected| size != expected) {
            return Err(WriteError::Length { expected: expected.unwrap_or(0), found: size });
        }
        if size == 0 {
            return Ok(None);
        }
        if !buffer.is_empty() {
            self.send_chunk(&mut hasher, index, buffer.freeze()).await?;
        }
        let footer = Footer { size_bytes: size, blake3: *hasher.finalize().as_bytes() };
        self.send(&Event::End(footer)).await?;
        Ok(Some(footer))
    }

    async fn send_chunk(&mut self, hasher: &mut blake3::Hasher, index: u64, bytes: Bytes) -> Result<(), Error> {
        if self.lanes.is_empty() {
            self.open();
        }
        hasher.update(&bytes);
        self.send(&Event::Chunk(Chunk::seal(index, bytes))).await
    }

    /// Gives an event to every lane. A lane that takes nothing for too long is closed.
    async fn send(&mut self, event: &Event) -> Result<(), Error> {
        for i in 0..self.lanes.len() {
            let open = self.lanes.iter().filter(|lane| lane.events.is_some()).count();
            let patience = if open > self.needed { PATIENCE } else { STALL_TIMEOUT };
            let Some(events) = &self.lanes[i].events else { continue };
            if !timeout(patience, events.send(event.clone())).await.is_ok_and(|sent| sent.is_ok()) {
                self.close(i).await;
            }
        }
        if self.lanes.iter().all(|lane| lane.events.is_none()) {
            return Err(self.refusal(0));
        }
        Ok(())
    }

    /// Closes a lane that takes nothing. One that has ended says why.
    async fn close(&mut self, lane: usize) {
        let lane = &mut self.lanes[lane];
        let ended = lane.events.take().is_some_and(|events| events.is_closed());
        if ended
            && let Some(task) = lane.task.take()
            && let Ok((_, Err(Error::Exhausted { .. }))) = task.await
        {
            self.met_full = true;
        } else {
            self.store.0.links.suspect(lane.node_id);
        }
    }

    /// Why there are too few copies.
    fn refusal(&self, copies: usize) -> Error {
        if self.met_full {
            return too_few(copies, self.needed);
        }
        Error::unavailable(format!("{copies} of {} copies needed could be made durable", self.needed), Duration::from_secs(1))
    }

    /// Waits for enough durable copies, then writes down what is still owed.
    async fn settle(mut self, footer: Footer) -> Result<ContentPart, Error> {
        let mut part = ContentPart {
            content_id: self.content_id,
            size_bytes: footer.size_bytes,
            blake3: footer.blake3,
            nodes: Vec::with_capacity(COPIES),
        };
        let mut copies: FuturesUnordered<_> = self.lanes.drain(..).filter_map(|lane| lane.task).map(settle_lane).collect();
        while part.nodes.len() < self.needed {
            match copies.next().await {
                Some((node, Ok(()))) => part.nodes.push(node),
                Some((node, Err(error))) => {
                    self.met_full |= matches!(error, Error::Exhausted { .. });
                    tracing::debug!(node, "a copy failed, another node is asked");
                }
                None => self.replace(&mut part).await?,
            }
        }
        // The last copy is nearly always a moment away: a moment is cheaper than a debt.
        let _ = timeout(GRACE, async {
            while let Some((node, result)) = copies.next().await {
                part.nodes.extend(result.is_ok().then_some(node));
            }
        })
        .await;
        if part.nodes.len() < self.wanted {
            self.owe(&part, copies).await;
        }
        Ok(part)
    }

    /// All lanes are settled and too few copies are durable: another node gets one from those that hold it.
    async fn replace(&mut self, part: &mut ContentPart) -> Result<(), Error> {
        while !part.nodes.is_empty() && !self.spare.is_empty() {
            let node_id = self.spare.remove(0);
            match self.store.copy_to(node_id, self.tenant_id, part).await {
                Ok(()) => {
                    part.nodes.push(node_id);
                    return Ok(());
                }
                Err(error) => {
                    self.met_full |= matches!(error, Error::Exhausted { .. });
                    tracing::warn!(node = node_id, %error, "a replacement copy was not written");
                }
            }
        }
        self.store.discard(self.tenant_id, part);
        Err(self.refusal(part.nodes.len()))
    }

    /// Makes the debt durable before the acknowledgement; a lane that is still at work goes on in the background.
    async fn owe(&self, part: &ContentPart, mut copies: FuturesUnordered<impl Future<Output = Copy> + Send + 'static>) {
        self.store.0.counting.debts.add(1);
        if let Err(error) = self.store.0.debts.add(self.tenant_id, part).await {
            tracing::error!(%error, content = %hex::encode(part.content_id), "a debt could not be written down, it is kept in memory only");
        }
        let Ok(permit) = self.store.0.stragglers.clone().try_acquire_owned() else { return };
        let (store, content_id) = (self.store.clone(), part.content_id);
        tokio::spawn(async move {
            while let Some((node, result)) = copies.next().await {
                if result.is_ok() {
                    store.0.debts.note_copy(&content_id, node);
                }
            }
            drop(permit);
        });
    }
}

/// That disks are full.
fn too_few(nodes: usize, needed: usize) -> Error {
    full(format!("the disks of this cluster are full: {nodes} nodes have room for a content that must be on {needed}"))
}

/// Whether a body came too slowly in the time that was spent waiting for it.
fn is_slow(bytes: u64, waited: Duration) -> bool {
    waited > SLOW_BODY_AFTER && bytes < waited.as_secs() * SLOW_BODY_BYTES_PER_S
}

async fn settle_lane(task: AbortOnDropHandle<Copy>) -> Copy {
    match timeout(DURABLE_TIMEOUT, task).await {
        Ok(Ok(copy)) => copy,
        Ok(Err(e)) => (0, Err(Error::internal(format!("a copy's task ended: {e}")))),
        Err(_) => (0, Err(Error::unavailable("a copy did not become durable in time", Duration::from_secs(1)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_may_pause_but_not_drip() {
        let rate = SLOW_BODY_BYTES_PER_S;
        assert!(!is_slow(1, SLOW_BODY_AFTER), "so long a pause is allowed");
        assert!(is_slow(60, Duration::from_secs(60)), "a byte a second");
        assert!(!is_slow(60 * rate, Duration::from_secs(60)), "at the rate");
        assert!(is_slow(60 * rate - 1, Duration::from_secs(60)), "below it");
    }
}
