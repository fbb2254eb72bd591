//! CreateMultipartUpload: remembers what the object will be.

use super::Answer;
use crate::s3::Gateway;
use crate::s3::error::{Subject, refuse};
use crate::s3::metadata::Described;
use fs_layer::NewUpload;
use s3s::dto::{CreateMultipartUploadInput, CreateMultipartUploadOutput};
use s3s::{S3ErrorCode, S3Request, S3Response};

pub(super) async fn run(gateway: &Gateway, request: S3Request<CreateMultipartUploadInput>) -> Answer<CreateMultipartUploadOutput> {
    let (namespace, _) = gateway.enter(&request)?;
    let input = request.input;
    if input.sse_customer_key.is_some()
        || input.server_side_encryption.is_some()
        || input.object_lock_mode.is_some()
        || input.tagging.is_some()
    {
        return Err(refuse(
            S3ErrorCode::NotImplemented,
            "A header you provided implies functionality that is not implemented: encryption, object lock, tagging",
        ));
    }
    let described = Described {
        content_type: input.content_type,
        cache_control: input.cache_control,
        content_disposition: input.content_disposition,
        content_encoding: input.content_encoding,
        content_language: input.content_language,
        expires: input.expires,
        metadata: input.metadata,
    };
    let (content_type, attributes) = described.into_attributes()?;
    let bucket = gateway.bucket(&namespace, &input.bucket).await?;
    let upload = NewUpload { content_type, attributes, author: String::new() };
    let upload = match namespace.create_upload(bucket, &input.key, upload).await {
        Ok(upload) => upload,
        Err(error) => return Err(gateway.failed_in(&namespace, (&input.bucket, bucket), Subject::Bucket, error).await),
    };
    Ok(S3Response::new(CreateMultipartUploadOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(upload.upload_id),
        checksum_algorithm: input.checksum_algorithm,
        checksum_type: input.checksum_type,
        ..Default::default()
    }))
}
