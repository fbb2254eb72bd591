//! Many workers that upload files, and many that read them back through another node and compare.
//!
//! Every worker keeps what its client saw: how often it had to ask again, and how long it waited for one answer at most.

use super::tree::TreeFile;
use crate::failure::Failure;
use crate::output::Progress;
use crate::s3_client::{Ask, PART_BYTES, S3Client, S3Error, Took};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use std::io::Read as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The checksum of what was sent.
pub(crate) type Sum = [u8; 32];

/// Uploads and reads.
pub(crate) struct Copier<'a> {
    pub(crate) s3: S3Client,
    pub(crate) bucket: &'a str,
    pub(crate) nodes: usize,
    pub(crate) workers: usize,
    pub(crate) progress: &'a Progress,
    pub(crate) seen: &'a Seen,
}

/// What the clients saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    retries: AtomicU64,
    longest_ms: AtomicU64,
    pub(crate) files: AtomicU64,
}

impl Seen {
    fn add<T>(&self, took: Took<T>) -> T {
        self.retries.fetch_add(took.retries, Ordering::Relaxed);
        let ms = u64::try_from(took.elapsed.as_millis()).unwrap_or(u64::MAX);
        self.longest_ms.fetch_max(ms, Ordering::Relaxed);
        took.value
    }

    /// How often a request had to be sent again.
    pub(crate) fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// The longest that any client waited for one request to be answered, all its attempts together.
    pub(crate) fn longest_pause(&self) -> Duration {
        Duration::from_millis(self.longest_ms.load(Ordering::Relaxed))
    }
}

/// A file that was read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Every byte is what was sent.
    Same,
    /// It was read, and differs.
    Differs,
}

impl Copier<'_> {
    /// Uploads all files, each through a node of its turn; gives the checksums of what was sent.
    pub(crate) async fn upload(&self, files: &[TreeFile]) -> Result<Vec<Sum>, Failure> {
        let sent = files.iter().enumerate().map(|(turn, file)| async move {
            let sum = self.upload_one(turn % self.nodes, file).await?;
            self.seen.files.fetch_add(1, Ordering::Relaxed);
            self.progress.advance(file.bytes);
            Ok::<Sum, Failure>(sum)
        });
        futures::stream::iter(sent).buffered(self.workers).try_collect().await
    }

    /// Reads all files, each through another node than it went in by, and compares.
    pub(crate) async fn verify(&self, files: &[TreeFile], sums: &[Sum]) -> Result<Vec<Verdict>, Failure> {
        let read = files.iter().zip(sums).enumerate().map(|(turn, (file, sum))| async move {
            let verdict = self.verify_one((turn + 1) % self.nodes, file, sum).await?;
            self.seen.files.fetch_add(1, Ordering::Relaxed);
            self.progress.advance(file.bytes);
            Ok::<Verdict, Failure>(verdict)
        });
        futures::stream::iter(read).buffered(self.workers).try_collect().await
    }

    async fn upload_one(&self, node: usize, file: &TreeFile) -> Result<Sum, Failure> {
        let failed = |error: S3Error| Failure::from(error).during(&format!("uploading {}", file.path.display()));
        let unreadable = |error: std::io::Error| Failure::io("read", &file.path, &error);
        let mut source = std::fs::File::open(&file.path).map_err(unreadable)?;
        let first = read_part(&mut source).map_err(unreadable)?;
        if first.len() < PART_BYTES {
            let sum = blake3::hash(&first).into();
            self.seen.add(self.s3.put(node, self.bucket, &file.key, first).await.map_err(failed)?);
            return Ok(sum);
        }
        let key = file.key.as_str();
        let upload = self.seen.add(self.s3.create_upload(node, self.bucket, key).await.map_err(failed)?);
        let (mut hash, mut etags, mut part, mut bytes) = (blake3::Hasher::new(), Vec::new(), first, 0);
        while !part.is_empty() {
            hash.update(&part);
            bytes += part.len() as u64;
            let number =
                u16::try_from(etags.len() + 1).map_err(|_| Failure::failed(format!("{} has too many parts", file.path.display())))?;
            let ask = Ask::PutPart { key, upload: &upload, number, body: part };
            etags.push(self.seen.add(self.s3.put_part(node, self.bucket, ask).await.map_err(failed)?));
            part = read_part(&mut source).map_err(unreadable)?;
        }
        let ask = Ask::CompleteUpload { key, upload: &upload, etags: &etags };
        self.seen.add(self.s3.complete_upload(node, self.bucket, ask, bytes).await.map_err(failed)?);
        Ok(hash.finalize().into())
    }

    async fn verify_one(&self, node: usize, file: &TreeFile, sum: &Sum) -> Result<Verdict, Failure> {
        let mut hash = blake3::Hasher::new();
        let sink = |bytes: Option<&[u8]>| {
            match bytes {
                Some(bytes) => drop(hash.update(bytes)),
                None => drop(hash.reset()),
            }
            Ok(())
        };
        match self.s3.get(node, self.bucket, &file.key, sink).await {
            Ok(took) => {
                self.seen.add(took);
                Ok(if hash.finalize().as_bytes() == sum { Verdict::Same } else { Verdict::Differs })
            }
            // A file that is not there differs from what was sent.
            Err(S3Error::Answer { status, .. }) if status == http::StatusCode::NOT_FOUND => Ok(Verdict::Differs),
            Err(error) => Err(Failure::from(error).during(&format!("reading {} back", file.key))),
        }
    }
}

/// The next bytes of a file, a whole part if there are so many.
pub(crate) fn read_part(source: &mut std::fs::File) -> std::io::Result<Bytes> {
    let mut part = Vec::new();
    source.take(PART_BYTES as u64).read_to_end(&mut part)?;
    Ok(part.into())
}
