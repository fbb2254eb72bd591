//! UploadPart: the body becomes durable, then the upload knows it as its part.

use super::{Answer, Incoming, Stored};
use crate::s3::error::{Subject, failed, refuse};
use crate::s3::{Gateway, digest};
use fs_layer::NewPart;
use metadb_proto::Error;
use s3s::dto::{ETag, UploadPartInput, UploadPartOutput};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

pub(super) async fn run(gateway: &Gateway, request: S3Request<UploadPartInput>) -> Answer<UploadPartOutput> {
    let (namespace, tenant_id) = gateway.enter(&request)?;
    let input = request.input;
    let number = part_number(input.part_number)?;
    let bucket = gateway.bucket(&namespace, &input.bucket).await?;
    // Asked before the body is taken: a gigabyte for an upload that does not exist helps nobody.
    if let Err(error) = namespace.upload(bucket, &input.key, &input.upload_id).await {
        return Err(gateway.failed_in(&namespace, (&input.bucket, bucket), Subject::Upload, error).await);
    }
    let incoming = Incoming { body: input.body, headers: request.headers, trailing: request.trailing_headers };
    let Stored { content, size, digests } = Box::pin(gateway.store(tenant_id, incoming)).await?;
    let part = NewPart { content: content.clone(), size, etag: digests.md5.clone() };
    if let Err(error) = namespace.put_part(bucket, &input.key, &input.upload_id, number, part).await {
        gateway.give_up(tenant_id, &content, &error);
        return Err(failed_upload(error));
    }
    let sums = digest::to_dto(&digests.checksums);
    Ok(S3Response::new(UploadPartOutput {
        e_tag: Some(ETag::Strong(digests.md5)),
        checksum_crc32: sums.checksum_crc32,
        checksum_crc32c: sums.checksum_crc32c,
        checksum_crc64nvme: sums.checksum_crc64nvme,
        checksum_sha1: sums.checksum_sha1,
        checksum_sha256: sums.checksum_sha256,
        ..Default::default()
    }))
}

/// 1 to 10,000.
pub(super) fn part_number(number: i32) -> S3Result<u32> {
    let most = fs_layer::limits::PART_NUMBER;
    let invalid = || refuse(S3ErrorCode::InvalidArgument, format!("Part number must be an integer between 1 and {most}, inclusive"));
    u32::try_from(number).ok().filter(|number| (1..=most).contains(number)).ok_or_else(invalid)
}

/// An operation on an upload failed.
pub(super) fn failed_upload(error: Error) -> S3Error {
    failed(Subject::Upload, error)
}
