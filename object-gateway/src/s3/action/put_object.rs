//! PutObject: the body becomes durable, then it gets its name in one transaction.

use super::{Answer, Incoming, Stored};
use crate::s3::error::{Subject, refuse};
use crate::s3::metadata::{Described, note_checksums};
use crate::s3::{Gateway, conditions, digest};
use fs_layer::NewVersion;
use s3s::dto::{ChecksumType, ETag, PutObjectInput, PutObjectOutput};
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result};

pub(super) async fn run(gateway: &Gateway, request: S3Request<PutObjectInput>) -> Answer<PutObjectOutput> {
    let (namespace, tenant_id) = gateway.enter(&request)?;
    let mut input = request.input;
    refuse_unsupported(&input)?;
    let precondition = conditions::precondition(input.if_match.as_ref(), input.if_none_match.as_ref())?;
    let (content_type, mut attributes) = describe(&mut input).into_attributes()?;
    let bucket = gateway.bucket(&namespace, &input.bucket).await?;
    let incoming = Incoming { body: input.body, headers: request.headers, trailing: request.trailing_headers };
    let Stored { content, size, digests } = Box::pin(gateway.store(tenant_id, incoming)).await?;
    note_checksums(&mut attributes, &digests.checksums);
    let etag = digests.md5;
    let version = NewVersion { content: content.clone(), size, etag: etag.clone(), content_type, attributes, author: String::new() };
    if let Err(error) = namespace.put_file(bucket, &input.key, version, precondition).await {
        gateway.give_up(tenant_id, &content, &error);
        return Err(gateway.failed_in(&namespace, (&input.bucket, bucket), Subject::Key, error).await);
    }
    let sums = digest::to_dto(&digests.checksums);
    Ok(S3Response::new(PutObjectOutput {
        e_tag: Some(ETag::Strong(etag)),
        checksum_crc32: sums.checksum_crc32,
        checksum_crc32c: sums.checksum_crc32c,
        checksum_crc64nvme: sums.checksum_crc64nvme,
        checksum_sha1: sums.checksum_sha1,
        checksum_sha256: sums.checksum_sha256,
        checksum_type: (!digests.checksums.is_empty()).then(|| ChecksumType::from_static(ChecksumType::FULL_OBJECT)),
        ..Default::default()
    }))
}

fn describe(input: &mut PutObjectInput) -> Described {
    Described {
        content_type: input.content_type.take(),
        cache_control: input.cache_control.take(),
        content_disposition: input.content_disposition.take(),
        content_encoding: input.content_encoding.take(),
        content_language: input.content_language.take(),
        expires: input.expires.take(),
        metadata: input.metadata.take(),
    }
}

/// What would be silently ignored and must not be.
fn refuse_unsupported(input: &PutObjectInput) -> S3Result<()> {
    let asked = [
        ("x-amz-server-side-encryption-customer-key", input.sse_customer_key.is_some()),
        ("x-amz-server-side-encryption", input.server_side_encryption.is_some()),
        ("x-amz-object-lock-mode", input.object_lock_mode.is_some()),
        ("x-amz-object-lock-legal-hold", input.object_lock_legal_hold_status.is_some()),
        ("x-amz-tagging", input.tagging.is_some()),
        ("x-amz-write-offset-bytes", input.write_offset_bytes.is_some()),
        ("x-amz-website-redirect-location", input.website_redirect_location.is_some()),
    ];
    match asked.iter().find(|(_, asked)| *asked) {
        Some((header, _)) => Err(refuse(
            S3ErrorCode::NotImplemented,
            format!("A header you provided implies functionality that is not implemented: {header}"),
        )),
        None => Ok(()),
    }
}
