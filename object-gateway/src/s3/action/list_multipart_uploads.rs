//! ListMultipartUploads: the uploads under way in a bucket.

use super::Answer;
use crate::s3::Gateway;
use crate::s3::error::{Subject, refuse};
use crate::s3::limits::LIST_KEYS;
use crate::s3::listing::{self, Encoding};
use crate::s3::metadata::timestamp;
use fs_layer::{UploadInfo, UploadListing, UploadOptions};
use s3s::dto::{ListMultipartUploadsInput, ListMultipartUploadsOutput, MultipartUpload, StorageClass};
use s3s::{S3ErrorCode, S3Request, S3Response};

pub(super) async fn run(gateway: &Gateway, request: S3Request<ListMultipartUploadsInput>) -> Answer<ListMultipartUploadsOutput> {
    let (namespace, _) = gateway.enter(&request)?;
    let input = request.input;
    let encoding = Encoding::parse(input.encoding_type.as_ref())?;
    let limit = listing::limit("max-uploads", input.max_uploads, LIST_KEYS)?;
    if input.delimiter.as_deref().is_some_and(|delimiter| !delimiter.is_empty()) {
        return Err(refuse(S3ErrorCode::NotImplemented, "Listing uploads by delimiter is not implemented."));
    }
    let bucket = gateway.bucket(&namespace, &input.bucket).await?;
    let after_name = input.key_marker.clone().unwrap_or_default();
    let options = UploadOptions {
        prefix: input.prefix.clone().unwrap_or_default(),
        after_upload_id: if after_name.is_empty() { String::new() } else { input.upload_id_marker.clone().unwrap_or_default() },
        after_name,
        limit,
    };
    let page = if limit == 0 { Ok(UploadListing::default()) } else { namespace.list_uploads(bucket, options).await };
    let page = match page {
        Ok(page) => page,
        Err(error) => return Err(gateway.failed_in(&namespace, (&input.bucket, bucket), Subject::Bucket, error).await),
    };
    let last = page.uploads.last().filter(|_| page.more);
    Ok(S3Response::new(ListMultipartUploadsOutput {
        bucket: Some(input.bucket),
        prefix: input.prefix.map(|prefix| encoding.tell(&prefix)),
        key_marker: Some(encoding.tell(&input.key_marker.unwrap_or_default())),
        upload_id_marker: input.upload_id_marker,
        next_key_marker: last.map(|upload| encoding.tell(&upload.name)),
        next_upload_id_marker: last.map(|upload| upload.upload_id.clone()),
        max_uploads: listing::told(limit),
        is_truncated: Some(page.more),
        uploads: Some(page.uploads.iter().map(|upload| told(upload, encoding)).collect()),
        encoding_type: input.encoding_type,
        ..Default::default()
    }))
}

fn told(upload: &UploadInfo, encoding: Encoding) -> MultipartUpload {
    MultipartUpload {
        key: Some(encoding.tell(&upload.name)),
        upload_id: Some(upload.upload_id.clone()),
        initiated: timestamp(upload.created_at_ms),
        storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
        ..Default::default()
    }
}
