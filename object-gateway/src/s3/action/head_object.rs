//! HeadObject: what GetObject would tell, without the bytes.

use super::get_object::{View, find};
use super::{Answer, refuse_version, told_size};
use crate::s3::Gateway;
use crate::s3::conditions::{Conditions, etag, last_modified};
use crate::s3::metadata::Described;
use s3s::dto::{HeadObjectInput, HeadObjectOutput};
use s3s::{S3Request, S3Response};

pub(super) async fn run(gateway: &Gateway, request: S3Request<HeadObjectInput>) -> Answer<HeadObjectOutput> {
    let (namespace, _) = gateway.enter(&request)?;
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
    let described = Described::of(&info);
    let status = if view.content_range.is_some() { http::StatusCode::PARTIAL_CONTENT } else { http::StatusCode::OK };
    let output = HeadObjectOutput {
        accept_ranges: Some("bytes".into()),
        content_length: told_size(view.range.end - view.range.start),
        content_range: view.content_range,
        parts_count: view.parts_count,
        e_tag: etag(&info.etag),
        last_modified: last_modified(&info),
        content_type: input.response_content_type.or(described.content_type),
        cache_control: input.response_cache_control.or(described.cache_control),
        content_disposition: input.response_content_disposition.or(described.content_disposition),
        content_encoding: input.response_content_encoding.or(described.content_encoding),
        content_language: input.response_content_language.or(described.content_language),
        expires: input.response_expires.or(described.expires),
        metadata: described.metadata,
        checksum_crc32: view.checksums.checksum_crc32,
        checksum_crc32c: view.checksums.checksum_crc32c,
        checksum_crc64nvme: view.checksums.checksum_crc64nvme,
        checksum_sha1: view.checksums.checksum_sha1,
        checksum_sha256: view.checksums.checksum_sha256,
        checksum_type: view.checksums.checksum_type,
        ..Default::default()
    };
    Ok(S3Response::with_status(output, status))
}
