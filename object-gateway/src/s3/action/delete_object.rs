//! DeleteObject: a key that is not there counts as deleted.

use super::{Answer, refuse_version};
use crate::s3::Gateway;
use crate::s3::conditions;
use crate::s3::error::{Subject, failed, refuse};
use fs_layer::Precondition;
use metadb_proto::Error;
use s3s::dto::{DeleteObjectInput, DeleteObjectOutput};
use s3s::{S3ErrorCode, S3Request, S3Response};

pub(super) async fn run(gateway: &Gateway, request: S3Request<DeleteObjectInput>) -> Answer<DeleteObjectOutput> {
    let (namespace, _) = gateway.enter(&request)?;
    let input = request.input;
    refuse_version(input.version_id.as_ref())?;
    if input.if_match_size.is_some() || input.if_match_last_modified_time.is_some() {
        return Err(refuse(
            S3ErrorCode::NotImplemented,
            "A header you provided implies functionality that is not implemented: x-amz-if-match-*",
        ));
    }
    let precondition = conditions::precondition(input.if_match.as_ref(), None)?;
    let conditional = precondition != Precondition::None;
    let bucket = gateway.bucket(&namespace, &input.bucket).await?;
    match namespace.delete(bucket, &input.key, precondition).await {
        Ok(_) => {}
        Err(error @ Error::NotFound { .. }) => {
            let error = gateway.failed_in(&namespace, (&input.bucket, bucket), Subject::Key, error).await;
            if conditional || error.code() != &S3ErrorCode::NoSuchKey {
                return Err(error);
            }
        }
        Err(error) => return Err(failed(Subject::Key, error)),
    }
    Ok(S3Response::with_status(DeleteObjectOutput::default(), http::StatusCode::NO_CONTENT))
}
