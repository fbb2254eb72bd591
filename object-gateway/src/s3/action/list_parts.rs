//! ListParts: what an upload has so far.

use super::{Answer, told_size};
use crate::s3::error::{Subject, refuse};
use crate::s3::limits::LIST_KEYS;
use crate::s3::{Gateway, listing, metadata};
use fs_layer::{PartInfo, PartListing};
use s3s::dto::{ETag, ListPartsInput, ListPartsOutput, Part, StorageClass};
use s3s::{S3ErrorCode, S3Request, S3Response};

pub(super) async fn run(gateway: &Gateway, request: S3Request<ListPartsInput>) -> Answer<ListPartsOutput> {
    let (namespace, _) = gateway.enter(&request)?;
    let input = request.input;
    let limit = listing::limit("max-parts", input.max_parts, LIST_KEYS)?;
    let marker = input.part_number_marker.unwrap_or(0);
    let after = u32::try_from(marker).map_err(|_| refuse(S3ErrorCode::InvalidArgument, "part-number-marker must not be negative"))?;
    let bucket = gateway.bucket(&namespace, &input.bucket).await?;
    let page = if limit == 0 {
        namespace.upload(bucket, &input.key, &input.upload_id).await.map(|_| PartListing::default())
    } else {
        namespace.list_parts(bucket, &input.key, &input.upload_id, after, limit).await
    };
    let page = match page {
        Ok(page) => page,
        Err(error) => return Err(gateway.failed_in(&namespace, (&input.bucket, bucket), Subject::Upload, error).await),
    };
    let next = page.parts.last().and_then(|part| i32::try_from(part.number).ok());
    Ok(S3Response::new(ListPartsOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(input.upload_id),
        part_number_marker: Some(marker),
        next_part_number_marker: next.or(Some(marker)),
        max_parts: listing::told(limit),
        is_truncated: Some(page.more),
        parts: Some(page.parts.into_iter().map(told).collect()),
        storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
        ..Default::default()
    }))
}

fn told(part: PartInfo) -> Part {
    Part {
        part_number: i32::try_from(part.number).ok(),
        e_tag: Some(ETag::Strong(part.data.etag)),
        size: told_size(part.data.size),
        last_modified: metadata::timestamp(part.created_at_ms),
        ..Default::default()
    }
}
