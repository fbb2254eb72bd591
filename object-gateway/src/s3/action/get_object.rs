//! GetObject: all or a range, each byte verified before it is sent.

use super::{Answer, part_count, refuse_version, told_size};
use crate::content::ContentStream;
use crate::s3::Gateway;
use crate::s3::conditions::{Conditions, etag, last_modified};
use crate::s3::error::{Subject, failed, refuse, refuse_as};
use crate::s3::metadata::{Described, checksums_of};
use bytes::Bytes;
use fs_layer::{ContentPart, FileInfo, Namespace, NodeKind};
use futures::{Stream, StreamExt as _};
use metadb_proto::Error;
use s3s::dto::{Checksum, ChecksumMode, ChecksumType, GetObjectInput, GetObjectOutput, Range as RangeHeader, StreamingBlob};
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result, StdError};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

pub(super) async fn run(gateway: &Gateway, request: S3Request<GetObjectInput>) -> Answer<GetObjectOutput> {
    let (namespace, tenant_id) = gateway.enter(&request)?;
    let input = request.input;
    refuse_version(input.version_id.as_ref())?;
    let info = find(gateway, &namespace, &input.bucket, &input.key).await?;
    let conditions = Conditions {
        if_match: input.if_match,
        if_none_match: input.if_none_match,
        if_modified_since: input.if_modified_since,
        if_unmodified_since: input.if_unmodified_since,
    };
    let view = View::new(&info, &conditions, input.range.as_ref(), input.part_number, input.checksum_mode.as_ref())?;
    let body = read(gateway, tenant_id, &info, view.range.clone()).await?;
    let described = Described::of(&info);
    Ok(S3Response::new(GetObjectOutput {
        body: Some(body),
        accept_ranges: Some("bytes".into()),
        content_length: told_size(view.range.end - view.range.start),
        content_range: view.content_range,
        parts_count: view.parts_count,
        e_tag: etag(&info.etag),
        last_modified: last_modified(&info),
        content_type: described.content_type,
        cache_control: described.cache_control,
        content_disposition: described.content_disposition,
        content_encoding: described.content_encoding,
        content_language: described.content_language,
        expires: described.expires,
        metadata: described.metadata,
        checksum_crc32: view.checksums.checksum_crc32,
        checksum_crc32c: view.checksums.checksum_crc32c,
        checksum_crc64nvme: view.checksums.checksum_crc64nvme,
        checksum_sha1: view.checksums.checksum_sha1,
        checksum_sha256: view.checksums.checksum_sha256,
        checksum_type: view.checksums.checksum_type,
        ..Default::default()
    }))
}

/// The object that a GET or HEAD names.
pub(super) async fn find(gateway: &Gateway, namespace: &Namespace, bucket: &str, key: &str) -> S3Result<FileInfo> {
    let folder = gateway.bucket(namespace, bucket).await?;
    match namespace.stat_entry(folder, key).await {
        Ok(info) => Ok(info),
        Err(error) => Err(gateway.failed_in(namespace, (bucket, folder), Subject::Key, error).await),
    }
}

/// What of an object a GET or HEAD shows.
pub(super) struct View {
    pub(super) range: Range<u64>,
    pub(super) content_range: Option<String>,
    pub(super) parts_count: Option<i32>,
    pub(super) checksums: Checksum,
}

impl View {
    pub(super) fn new(
        info: &FileInfo,
        conditions: &Conditions,
        range: Option<&RangeHeader>,
        part_number: Option<i32>,
        checksum_mode: Option<&ChecksumMode>,
    ) -> S3Result<View> {
        if info.kind != NodeKind::File {
            return Err(failed(Subject::Key, Error::not_found("a folder")));
        }
        conditions.check_read(info)?;
        let (asked, parts_count) = match (range, part_number) {
            (Some(_), Some(_)) => {
                return Err(refuse(S3ErrorCode::InvalidRequest, "Cannot specify both Range header and partNumber query parameter"));
            }
            (Some(range), None) => (Some(range.check(info.size).map_err(|_| unsatisfiable(info.size))?), None),
            (None, Some(number)) => {
                let (range, count) = part(info, number)?;
                (Some(range), i32::try_from(count).ok().filter(|count| *count > 1))
            }
            (None, None) => (None, None),
        };
        let whole = 0..info.size;
        let mut checksums = Checksum::default();
        let wants_sums = checksum_mode.is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED);
        if wants_sums && asked.as_ref().is_none_or(|range| *range == whole) {
            checksums = checksums_of(info);
            let any = info.attributes.keys().any(|name| name.starts_with("checksum."));
            checksums.checksum_type = any.then(|| ChecksumType::from_static(ChecksumType::FULL_OBJECT));
        }
        let content_range =
            asked.as_ref().filter(|range| !range.is_empty()).map(|r| format!("bytes {}-{}/{}", r.start, r.end - 1, info.size));
        Ok(View { range: asked.unwrap_or(whole), content_range, parts_count, checksums })
    }
}

/// The range of a part, and how many there are. A simple object is its own only part.
fn part(info: &FileInfo, number: i32) -> S3Result<(Range<u64>, usize)> {
    let invalid = || {
        let mut error = refuse_as("InvalidPartNumber", "The requested partnumber is not satisfiable");
        error.set_status_code(http::StatusCode::RANGE_NOT_SATISFIABLE);
        error
    };
    let index = usize::try_from(number).ok().and_then(|n| n.checked_sub(1)).ok_or_else(invalid)?;
    let parts = &info.content.0;
    let count = match part_count(info) {
        None if index == 0 => return Ok((0..info.size, 1)),
        // Only the last part may be empty, and an empty one has no content.
        Some(count) if count == parts.len() || count == parts.len() + 1 => count,
        None | Some(_) => return Err(invalid()),
    };
    let start = parts.iter().take(index).map(|part| part.size_bytes).sum::<u64>();
    match parts.get(index) {
        Some(part) => Ok((start..start + part.size_bytes, count)),
        None if index + 1 == count => Ok((info.size..info.size, count)),
        None => Err(invalid()),
    }
}

fn unsatisfiable(size: u64) -> s3s::S3Error {
    let mut error = refuse(S3ErrorCode::InvalidRange, "The requested range is not satisfiable");
    if let Ok(value) = format!("bytes */{size}").parse() {
        let xml = http::HeaderValue::from_static("application/xml");
        error.set_headers([(http::header::CONTENT_RANGE, value), (http::header::CONTENT_TYPE, xml)].into_iter().collect());
    }
    error
}

/// A range of a file's bytes. Its first chunk is verified before this returns.
pub(super) async fn read(gateway: &Gateway, tenant_id: u64, info: &FileInfo, range: Range<u64>) -> S3Result<StreamingBlob> {
    let length = range.end - range.start;
    let mut pieces = pieces(&info.content.0, range).into_iter();
    let Some((part, within)) = pieces.next() else { return Ok(StreamingBlob::from(s3s::Body::empty())) };
    let first = gateway.content.read(tenant_id, &part, within).await.map_err(|e| failed(Subject::Key, e))?;
    let rest: Vec<_> = pieces.collect();
    if rest.is_empty() {
        return Ok(StreamingBlob::new(Sized { inner: first, left: length }));
    }
    let (sender, receiver) = mpsc::channel(1);
    let store = gateway.content.clone();
    tokio::spawn(async move {
        let mut stream: ContentStream = first;
        let mut rest = rest.into_iter();
        loop {
            while let Some(bytes) = stream.next().await {
                let failed = bytes.is_err();
                if sender.send(bytes).await.is_err() || failed {
                    return;
                }
            }
            let Some((part, within)) = rest.next() else { return };
            match store.read(tenant_id, &part, within).await {
                Ok(next) => stream = next,
                Err(error) => return drop(sender.send(Err(error)).await),
            }
        }
    });
    Ok(StreamingBlob::new(Sized { inner: ReceiverStream::new(receiver), left: length }))
}

/// Which parts of a content make a range, and what of each.
fn pieces(parts: &[ContentPart], range: Range<u64>) -> Vec<(ContentPart, Range<u64>)> {
    let (mut out, mut start) = (Vec::new(), 0_u64);
    for part in parts {
        let end = start + part.size_bytes;
        let (from, to) = (range.start.max(start), range.end.min(end));
        if from < to {
            out.push((part.clone(), from - start..to - start));
        }
        start = end;
    }
    out
}

/// A stream that tells how long it is, and fails if it is shorter.
struct Sized<S> {
    inner: S,
    left: u64,
}

impl<S: Stream<Item = Result<Bytes, Error>> + Unpin> Stream for Sized<S> {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = std::task::ready!(Pin::new(&mut self.inner).poll_next(cx));
        Poll::Ready(match next {
            Some(Ok(bytes)) => {
                self.left = self.left.saturating_sub(bytes.len() as u64);
                Some(Ok(bytes))
            }
            Some(Err(error)) => {
                tracing::error!(%error, "a read was broken off: no copy is good");
                Some(Err(Box::new(error)))
            }
            None if self.left > 0 => {
                self.left = 0;
                Some(Err("the content ended early".into()))
            }
            None => None,
        })
    }
}

impl<S: Stream<Item = Result<Bytes, Error>> + Unpin> s3s::stream::ByteStream for Sized<S> {
    fn remaining_length(&self) -> s3s::stream::RemainingLength {
        usize::try_from(self.left).map_or_else(|_| s3s::stream::RemainingLength::unknown(), s3s::stream::RemainingLength::new_exact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_by_its_number_also_when_the_last_one_is_empty() {
        let content = |sizes: &[u64]| {
            let part = |size: &u64| ContentPart { content_id: [1; 16], size_bytes: *size, blake3: [0; 32], nodes: vec![] };
            fs_layer::Content(sizes.iter().map(part).collect())
        };
        let object = |etag: &str, sizes: &[u64]| FileInfo {
            id: 5,
            kind: NodeKind::File,
            parent: 1,
            name: "k".into(),
            owner: String::new(),
            created_at_ms: 0,
            modified_at_ms: 0,
            version: 1,
            size: sizes.iter().sum(),
            etag: etag.into(),
            content_type: String::new(),
            attributes: Default::default(),
            author: String::new(),
            content: content(sizes),
        };
        let told = |info: &FileInfo| (0..5).map(|number| part(info, number).ok()).collect::<Vec<_>>();
        let full = object("abc-2", &[10, 5]);
        assert_eq!(told(&full), [None, Some((0..10, 2)), Some((10..15, 2)), None, None]);
        let last_empty = object("abc-3", &[10, 5]);
        assert_eq!(told(&last_empty), [None, Some((0..10, 3)), Some((10..15, 3)), Some((15..15, 3)), None]);
        assert_eq!(told(&object("abc", &[10])), [None, Some((0..10, 1)), None, None, None]);
        assert_eq!(told(&object("abc-4", &[10])), [None, None, None, None, None], "more are missing than can be empty");
    }

    #[test]
    fn a_range_over_parts() {
        let part = |byte: u8, size_bytes| ContentPart { content_id: [byte; 16], size_bytes, blake3: [0; 32], nodes: vec![] };
        let parts = [part(1, 10), part(2, 0), part(3, 5)];
        let told = |range: Range<u64>| pieces(&parts, range).into_iter().map(|(p, r)| (p.content_id[0], r)).collect::<Vec<_>>();
        assert_eq!(told(0..15), [(1, 0..10), (3, 0..5)]);
        assert_eq!(told(9..11), [(1, 9..10), (3, 0..1)]);
        assert_eq!(told(10..15), [(3, 0..5)]);
        assert_eq!(told(4..4), []);
    }
}
