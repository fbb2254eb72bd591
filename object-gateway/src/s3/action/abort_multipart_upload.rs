//! AbortMultipartUpload: the upload and its parts are given up.

use super::Answer;
use crate::s3::Gateway;
use crate::s3::error::Subject;
use s3s::dto::{AbortMultipartUploadInput, AbortMultipartUploadOutput};
use s3s::{S3Request, S3Response};

pub(super) async fn run(gateway: &Gateway, request: S3Request<AbortMultipartUploadInput>) -> Answer<AbortMultipartUploadOutput> {
    let (namespace, _) = gateway.enter(&request)?;
    let input = request.input;
    let bucket = gateway.bucket(&namespace, &input.bucket).await?;
    if let Err(error) = namespace.abort_upload(bucket, &input.key, &input.upload_id).await {
        return Err(gateway.failed_in(&namespace, (&input.bucket, bucket), Subject::Upload, error).await);
    }
    Ok(S3Response::with_status(AbortMultipartUploadOutput::default(), http::StatusCode::NO_CONTENT))
}
