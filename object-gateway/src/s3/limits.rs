//! Every limit of the S3 door, with its unit and its reason.

use std::time::Duration;

/// Largest object of one PutObject, in bytes: as S3.
pub(crate) const PUT_BYTES: u64 = 5 << 30;
/// Largest part of an upload, in bytes: as S3.
pub(crate) const PART_BYTES: u64 = 5 << 30;
/// Smallest part of an upload but the last, in bytes: as S3.
pub(crate) const MIN_PART_BYTES: u64 = 5 << 20;
/// Largest object, in bytes: as S3.
pub(crate) const OBJECT_BYTES: u64 = 5 << 40;
/// Most parts of an upload: as S3.
pub(crate) const PARTS: usize = 10_000;
/// Most keys in a page of a listing: as S3.
pub(crate) const LIST_KEYS: usize = 1000;
/// Most keys in one DeleteObjects: as S3.
pub(crate) const DELETE_KEYS: usize = 1000;
/// Largest XML body, in bytes: 10,000 completed parts with all their checksums.
pub(crate) const XML_BYTES: usize = 4 << 20;
/// XML bodies held at once, in bytes of what has come of them: they are read before anybody's signature is verified.
pub(crate) const DOCUMENTS_BYTES: usize = 64 << 20;
/// User metadata of an object, in bytes of names and values: as S3.
pub(crate) const METADATA_BYTES: usize = 2 << 10;
/// All headers of a request, in bytes: S3 allows 8 KiB of them, presigned requests carry a token in the query beside.
pub(crate) const HEADER_BYTES: usize = 32 << 10;
/// Most headers of a request.
pub(crate) const HEADERS: usize = 100;
/// Longest request target, in bytes: a key of 1024 bytes, each percent-encoded, and a presigned query.
pub(crate) const TARGET_BYTES: usize = 8 << 10;
/// For how long a presigned URL may be valid: as S3, whose signing keys change after seven days.
pub(crate) const PRESIGNED_SECONDS: u64 = 7 * 24 * 3600;
/// Largest chunk of a signed aws-chunked body, in bytes: it has to be held to be verified before it is believed. Unsigned ones are
/// split on arrival, so that their size does not matter.
pub(crate) const SIGNED_CHUNK_BYTES: u64 = 16 << 20;
/// Longest line between aws-chunked chunks, in bytes: a size and a signature.
pub(crate) const CHUNK_LINE_BYTES: usize = 1024;
/// Connections served at once; further ones wait to be accepted.
pub(crate) const CONNECTIONS: usize = 4096;
/// How long a client may take to send its headers, or stay silent between two requests.
pub(crate) const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a client may pause within a body.
pub(crate) const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Of a body that was refused, so many bytes are taken in and thrown away, so that its sender gets to read the answer: a part as clients
/// cut them.
pub(crate) const LINGER_BYTES: usize = 64 << 20;
/// And for so long at most.
pub(crate) const LINGER_TIME: Duration = Duration::from_secs(10);
/// How long requests under way may take to end at shutdown.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a bucket's folder id is remembered. Ids are never reused and a folder that is gone is told as such, so this only bounds for
/// how long a renamed bucket answers to its old name.
pub(crate) const BUCKET_CACHE_TIME: Duration = Duration::from_secs(2);
/// Buckets remembered, of all tenants together.
pub(crate) const BUCKET_CACHE: usize = 4096;

const _: () = assert!(XML_BYTES < DOCUMENTS_BYTES, "the largest document fits");
const _: () = assert!(MIN_PART_BYTES < PART_BYTES && PART_BYTES < OBJECT_BYTES, "parts are smaller than objects");
