//! AbortMultipartUpload: the upload and its parts are given up.

use super::Answer;
use super::upload_part::failed_upload;
use crate::s3::Gateway;
use s3s::dto::{AbortMultipartUploadInput, AbortMultipartUploadOutput};
use s3s::{S3Request, S3Response};

pub(super) async fn run(gateway: &Gateway, request: S3Request<AbortMultipartUploadInput>) -> Answer<AbortMultipartUploadOutput> {
    let (namespace, _) = gateway.enter(&request)?;
    let input = request.input;
    let bucket = gateway.bucket(&namespace, &input.bucket).await?;
    namespace.abort_upload(bucket, &input.key, &input.upload_id).await.map_err(failed_upload)?;
    Ok(S3Response::with_status(AbortMultipartUploadOutput::default(), http::StatusCode::NO_CONTENT))
}
