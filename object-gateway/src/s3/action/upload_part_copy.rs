//! UploadPartCopy: a range of an object as a part. The bytes are read and written anew: a part needs their MD5.

use super::copy_object::stat_source;
use super::upload_part::{failed_upload, part_number};
use super::{Answer, get_object, source_of};
use crate::s3::Gateway;
use crate::s3::conditions::Conditions;
use crate::s3::digest::{Announced, HashedBody};
use crate::s3::error::{Subject, failed, not_stored, refuse};
use crate::s3::limits::PART_BYTES;
use crate::s3::metadata::timestamp;
use fs_layer::{Content, NewPart};
use s3s::dto::{CopyPartResult, ETag, UploadPartCopyInput, UploadPartCopyOutput};
use s3s::{S3ErrorCode, S3Request, S3Response, S3Result};
use std::ops::Range;

pub(super) async fn run(gateway: &Gateway, request: S3Request<UploadPartCopyInput>) -> Answer<UploadPartCopyOutput> {
    let (namespace, tenant_id) = gateway.enter(&request)?;
    let input = request.input;
    let number = part_number(input.part_number)?;
    let (source_bucket, source_key) = source_of(&input.copy_source)?;
    let bucket = gateway.bucket(&namespace, &input.bucket).await?;
    if let Err(error) = namespace.upload(bucket, &input.key, &input.upload_id).await {
        return Err(gateway.failed_in(&namespace, (&input.bucket, bucket), Subject::Upload, error).await);
    }
    let source = stat_source(gateway, &namespace, &source_bucket, &source_key).await?;
    let conditions = Conditions {
        if_match: input.copy_source_if_match,
        if_none_match: input.copy_source_if_none_match,
        if_modified_since: input.copy_source_if_modified_since,
        if_unmodified_since: input.copy_source_if_unmodified_since,
    };
    conditions.check_source(&source)?;
    let range = copied_range(input.copy_source_range.as_deref(), source.size)?;
    let length = range.end - range.start;
    // Before the source is opened: a copy that holds a reader's place must not wait for a writer's.
    let place = gateway.content.begin_write(tenant_id).await.map_err(|error| failed(Subject::Key, error))?;
    let body = get_object::read(gateway, tenant_id, &source, range).await?;
    let (body, digests) = HashedBody::new(Some(body), Announced::default(), None);
    let written = Box::pin(gateway.content.write_in(place, body, Some(length))).await.map_err(not_stored)?;
    let md5 = digests.lock().md5.clone();
    let content = Content(if length == 0 { Vec::new() } else { vec![written] });
    let part = NewPart { content: content.clone(), size: length, etag: md5.clone() };
    let part = match namespace.put_part(bucket, &input.key, &input.upload_id, number, part).await {
        Ok(part) => part,
        Err(error) => {
            gateway.give_up(tenant_id, &content, &error);
            return Err(failed_upload(error));
        }
    };
    let result = CopyPartResult { e_tag: Some(ETag::Strong(md5)), last_modified: timestamp(part.created_at_ms), ..Default::default() };
    Ok(S3Response::new(UploadPartCopyOutput { copy_part_result: Some(result), ..Default::default() }))
}

/// `bytes=first-last`, both present and within the source: as S3.
fn copied_range(header: Option<&str>, size: u64) -> S3Result<Range<u64>> {
    let Some(header) = header else {
        return if size > PART_BYTES {
            Err(refuse(S3ErrorCode::InvalidRequest, format!("The specified copy source is larger than {PART_BYTES} bytes")))
        } else {
            Ok(0..size)
        };
    };
    let range = header.strip_prefix("bytes=").and_then(|range| range.split_once('-'));
    let range = range.and_then(|(first, last)| Some((first.parse::<u64>().ok()?, last.parse::<u64>().ok()?)));
    match range {
        Some((first, last)) if first <= last && last < size && last - first < PART_BYTES => Ok(first..last + 1),
        Some(_) => Err(refuse(S3ErrorCode::InvalidArgument, format!("Range specified is not valid for source object of size: {size}"))),
        None => Err(refuse(
            S3ErrorCode::InvalidArgument,
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based offsets of the first and last bytes to copy",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::copied_range;

    #[test]
    fn ranges_must_lie_within_the_source() {
        assert_eq!(copied_range(None, 10).ok(), Some(0..10));
        assert_eq!(copied_range(Some("bytes=0-9"), 10).ok(), Some(0..10));
        assert_eq!(copied_range(Some("bytes=3-3"), 10).ok(), Some(3..4));
        for bad in ["bytes=0-10", "bytes=5-4", "bytes=-5", "bytes=5-", "0-5", "bytes=a-b"] {
            assert!(copied_range(Some(bad), 10).is_err(), "{bad}");
        }
    }
}
