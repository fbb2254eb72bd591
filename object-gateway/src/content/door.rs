//! `content.v1`: what other nodes may ask of this node's copies. Only a node's token opens it.

use super::content_v1::content_server::Content;
use super::content_v1::{self as v1, write_frame::Frame};
use super::format::{Chunk, Footer, chunk_count};
use super::limits::{READ_AHEAD_CHUNKS, STALL_TIMEOUT};
use super::local::{LocalError, LocalReader, LocalWriter};
use super::read::local_error;
use super::{ContentPart, ContentStore, fixed, footer_of, part_of, repair};
use metadb_proto::principal::{Action, Token};
use metadb_proto::{Error, Principal};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// How long a writer may be silent: its own client may be slow.
const WRITER_IDLE: Duration = Duration::from_secs(120);

/// The gRPC server.
pub struct ContentDoor {
    store: ContentStore,
}

impl ContentDoor {
    pub(super) fn new(store: ContentStore) -> Self {
        ContentDoor { store }
    }

    fn authorize<T>(&self, request: &Request<T>) -> Result<(), Error> {
        let missing = || Error::Unauthenticated { message: "authorization is missing".into() };
        let value = request.metadata().get("authorization").and_then(|value| value.to_str().ok()).ok_or_else(missing)?;
        let token = Token::parse(value)?;
        match &token {
            Token::Node { node_id, .. } if token.proves_node(&self.store.0.secret) => {
                Principal::Node(*node_id).authorize(Action::Replicate)
            }
            Token::Node { .. } | Token::Key { .. } => {
                Err(Error::Unauthenticated { message: "only a node of this cluster may use content.v1".into() })
            }
        }
    }

    async fn receive(&self, frames: &mut Streaming<v1::WriteFrame>) -> Result<(), Error> {
        let Some(Frame::Header(header)) = next(frames).await? else {
            return Err(Error::invalid("frame", "a header first", "another frame"));
        };
        if header.cluster_id != self.store.0.config.cluster_id {
            return Err(Error::invalid("cluster_id", self.store.0.config.cluster_id.clone(), header.cluster_id));
        }
        let content_id = fixed("content_id", &header.content_id)?;
        // Told before the bytes come; the writer asks again for each chunk.
        self.store.0.local.require_room().map_err(local_error)?;
        let mut writer: LocalWriter = self.store.0.local.writer(header.tenant_id, content_id);
        loop {
            match next(frames).await? {
                Some(Frame::Chunk(chunk)) => {
                    writer.push(Chunk { bytes: chunk.bytes, crc: chunk.crc32c }).await.map_err(local_error)?;
                }
                Some(Frame::End(end)) => {
                    let footer = Footer { size_bytes: end.size_bytes, blake3: fixed("blake3", &end.blake3)? };
                    return writer.finish(footer).await.map_err(local_error);
                }
                Some(Frame::Header(_)) => return Err(Error::invalid("frame", "one header", "another one")),
                None => return Err(Error::invalid("frame", "an end", "none")),
            }
        }
    }

    /// A bad or missing own copy that a peer stumbled upon is repaired like one that an own reader found.
    fn note(&self, tenant_id: u64, part: &ContentPart, error: Error) -> Error {
        if part.nodes.contains(&self.store.node_id()) {
            self.store.queue_repair(repair::Job { tenant_id, part: part.clone() }, &error);
        }
        error
    }

    async fn open(&self, content: Option<&v1::ContentRef>) -> Result<(u64, ContentPart, LocalReader), Error> {
        let content = content.ok_or_else(|| Error::invalid("content", "present", "absent"))?;
        let part = part_of(content)?;
        let opened = self.store.0.local.reader(content.tenant_id, part.content_id, footer_of(&part)).await;
        match opened {
            Ok(reader) => Ok((content.tenant_id, part, reader)),
            Err(e) => Err(self.note(content.tenant_id, &part, local_error(e))),
        }
    }
}

async fn next(frames: &mut Streaming<v1::WriteFrame>) -> Result<Option<Frame>, Error> {
    match timeout(WRITER_IDLE, frames.message()).await {
        Ok(Ok(Some(frame))) => frame.frame.map(Some).ok_or_else(|| Error::invalid("frame", "present", "absent")),
        Ok(Ok(None)) => Ok(None),
        Ok(Err(status)) => Err(Error::from_status(&status, false)),
        Err(_) => Err(Error::unavailable("the writer is silent", WRITER_IDLE)),
    }
}

#[tonic::async_trait]
impl Content for ContentDoor {
    async fn write(&self, request: Request<Streaming<v1::WriteFrame>>) -> Result<Response<v1::WriteReply>, Status> {
        self.authorize(&request)?;
        let _permit = self.store.0.inbound_writes.acquire().await.map_err(|_| Status::internal("the semaphore is never closed"))?;
        let mut frames = request.into_inner();
        self.receive(&mut frames).await?;
        Ok(Response::new(v1::WriteReply { node_id: self.store.node_id() }))
    }

    type FetchStream = ReceiverStream<Result<v1::Chunk, Status>>;

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        self.authorize(&request)?;
        let permit =
            self.store.0.inbound_fetches.clone().acquire_owned().await.map_err(|_| Status::internal("the semaphore is never closed"))?;
        let request = request.into_inner();
        let (tenant_id, part, reader) = self.open(request.content.as_ref()).await?;
        let end = chunk_count(part.size_bytes).min(request.first_chunk.saturating_add(request.chunks));
        let (sender, chunks) = mpsc::channel(READ_AHEAD_CHUNKS);
        let door = ContentDoor { store: self.store.clone() };
        tokio::spawn(async move {
            let _permit = permit;
            for index in request.first_chunk..end {
                let chunk = reader.chunk(index).await;
                let failed = chunk.is_err();
                let message = match chunk {
                    Ok(chunk) => Ok(v1::Chunk { bytes: chunk.bytes, crc32c: chunk.crc }),
                    Err(e) => Err(door.note(tenant_id, &part, local_error(e)).to_status()),
                };
                let sent = timeout(STALL_TIMEOUT * 12, sender.send(message)).await;
                if failed || !sent.is_ok_and(|sent| sent.is_ok()) {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(chunks)))
    }

    async fn has(&self, request: Request<v1::HasRequest>) -> Result<Response<v1::HasReply>, Status> {
        self.authorize(&request)?;
        let content = request.into_inner().content.ok_or_else(|| Error::invalid("content", "present", "absent"))?;
        let part = part_of(&content)?;
        match self.store.0.local.reader(content.tenant_id, part.content_id, footer_of(&part)).await {
            Ok(_) => Ok(Response::new(v1::HasReply { held: true })),
            Err(LocalError::Missing | LocalError::Corrupt(_)) => Ok(Response::new(v1::HasReply { held: false })),
            Err(error @ (LocalError::Io(_) | LocalError::Full(_))) => Err(local_error(error).to_status()),
        }
    }

    async fn delete(&self, request: Request<v1::DeleteRequest>) -> Result<Response<v1::DeleteReply>, Status> {
        self.authorize(&request)?;
        let request = request.into_inner();
        let content_id = fixed("content_id", &request.content_id)?;
        self.store.0.debts.forget(&content_id);
        let existed = self.store.0.local.delete(request.tenant_id, content_id).await.map_err(local_error)?;
        Ok(Response::new(v1::DeleteReply { existed }))
    }

    async fn scrub(&self, request: Request<v1::ScrubRequest>) -> Result<Response<v1::ScrubReply>, Status> {
        self.authorize(&request)?;
        let report = self.store.scrub().await?;
        Ok(Response::new(v1::ScrubReply { contents: report.contents, bytes: report.bytes, corrupt: report.corrupt }))
    }
}
