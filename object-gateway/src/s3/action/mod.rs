//! The S3 actions, one file each: what the action means. Signatures, limits, parsing and the translation of errors are around it.

mod abort_multipart_upload;
mod complete_multipart_upload;
mod copy_object;
mod create_bucket;
mod create_multipart_upload;
mod delete_bucket;
mod delete_object;
mod delete_objects;
mod get_bucket_location;
mod get_object;
mod head_bucket;
mod head_object;
mod list_buckets;
mod list_multipart_uploads;
mod list_objects;
mod list_objects_v2;
mod list_parts;
mod put_object;
mod upload_part;
mod upload_part_copy;

use super::Gateway;
use super::digest::{Announced, Digests, HashedBody};
use super::error::{not_stored, refuse};
use super::limits::PUT_BYTES;
use fs_layer::{Content, FileInfo};
use metadb_proto::Error;
use s3s::dto::{CopySource, StreamingBlob};
use s3s::{S3, S3ErrorCode, S3Request, S3Response, S3Result, TrailingHeaders, dto};

type Answer<T> = S3Result<S3Response<T>>;

macro_rules! actions {
    ($($name:ident($input:ident) -> $output:ident;)*) => {
        #[async_trait::async_trait]
        impl S3 for Gateway {
            $(
                async fn $name(&self, request: S3Request<dto::$input>) -> Answer<dto::$output> {
                    $name::run(self, request).await
                }
            )*
        }
    };
}

actions! {
    abort_multipart_upload(AbortMultipartUploadInput) -> AbortMultipartUploadOutput;
    complete_multipart_upload(CompleteMultipartUploadInput) -> CompleteMultipartUploadOutput;
    copy_object(CopyObjectInput) -> CopyObjectOutput;
    create_bucket(CreateBucketInput) -> CreateBucketOutput;
    create_multipart_upload(CreateMultipartUploadInput) -> CreateMultipartUploadOutput;
    delete_bucket(DeleteBucketInput) -> DeleteBucketOutput;
    delete_object(DeleteObjectInput) -> DeleteObjectOutput;
    delete_objects(DeleteObjectsInput) -> DeleteObjectsOutput;
    get_bucket_location(GetBucketLocationInput) -> GetBucketLocationOutput;
    get_object(GetObjectInput) -> GetObjectOutput;
    head_bucket(HeadBucketInput) -> HeadBucketOutput;
    head_object(HeadObjectInput) -> HeadObjectOutput;
    list_buckets(ListBucketsInput) -> ListBucketsOutput;
    list_multipart_uploads(ListMultipartUploadsInput) -> ListMultipartUploadsOutput;
    list_objects(ListObjectsInput) -> ListObjectsOutput;
    list_objects_v2(ListObjectsV2Input) -> ListObjectsV2Output;
    list_parts(ListPartsInput) -> ListPartsOutput;
    put_object(PutObjectInput) -> PutObjectOutput;
    upload_part(UploadPartInput) -> UploadPartOutput;
    upload_part_copy(UploadPartCopyInput) -> UploadPartCopyOutput;
}

/// A body that is durable and has no name yet.
struct Stored {
    content: Content,
    size: u64,
    digests: Digests,
}

/// What a request tells of its body.
struct Incoming {
    body: Option<StreamingBlob>,
    headers: http::HeaderMap,
    trailing: Option<TrailingHeaders>,
}

impl Gateway {
    /// Makes a request's body durable. If it is not what it says, nothing is stored.
    async fn store(&self, tenant_id: u64, incoming: Incoming) -> S3Result<Stored> {
        let announced = Announced::from_headers(&incoming.headers)?;
        let number = |name: &str| incoming.headers.get(name)?.to_str().ok()?.parse::<u64>().ok();
        let expected = number("x-amz-decoded-content-length").or_else(|| number("content-length"));
        let expected =
            expected.ok_or_else(|| refuse(S3ErrorCode::MissingContentLength, "You must provide the Content-Length HTTP header."))?;
        if expected > PUT_BYTES {
            return Err(refuse(
                S3ErrorCode::EntityTooLarge,
                format!("Your proposed upload exceeds the maximum allowed size: {expected} bytes, at most {PUT_BYTES}"),
            ));
        }
        let (body, digests) = HashedBody::new(incoming.body, announced, incoming.trailing);
        let part = self.content.write(tenant_id, body, Some(expected)).await.map_err(not_stored)?;
        let digests = std::mem::take(&mut *digests.lock());
        let (size, content) = (part.size_bytes, Content(if part.size_bytes == 0 { Vec::new() } else { vec![part] }));
        Ok(Stored { content, size, digests })
    }

    /// A body could not be named. Its copies go, unless it may have been named after all.
    fn give_up(&self, tenant_id: u64, content: &Content, error: &Error) {
        if !matches!(error, Error::UnknownOutcome { .. } | Error::Internal { .. }) {
            for part in &content.0 {
                self.content.discard(tenant_id, part);
            }
        }
    }
}

/// The bucket and key that a copy reads. Versions of objects are not told apart yet.
fn source_of(source: &CopySource) -> S3Result<(String, String)> {
    match source {
        CopySource::Bucket { bucket, key, version_id: None } => Ok((bucket.to_string(), key.to_string())),
        CopySource::Bucket { version_id: Some(_), .. } => Err(no_versions()),
        CopySource::AccessPoint { .. } | CopySource::Outpost { .. } => {
            Err(refuse(S3ErrorCode::NotImplemented, "Copies from access points are not implemented."))
        }
    }
}

fn no_versions() -> s3s::S3Error {
    refuse(S3ErrorCode::NotImplemented, "Object versions are not implemented in this door.")
}

fn refuse_version(version_id: Option<&String>) -> S3Result<()> {
    match version_id.map(String::as_str) {
        None | Some("" | "null") => Ok(()),
        Some(_) => Err(no_versions()),
    }
}

/// A length or a position, as S3 tells it.
fn told_size(size: u64) -> Option<i64> {
    i64::try_from(size).ok()
}

/// How many parts an object was uploaded in, if it was: its ETag tells.
fn part_count(info: &FileInfo) -> Option<usize> {
    info.etag.rsplit_once('-').and_then(|(_, count)| count.parse().ok())
}
