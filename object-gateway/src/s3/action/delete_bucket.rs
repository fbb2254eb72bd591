//! DeleteBucket: only an empty one.

use super::Answer;
use crate::s3::error::{Subject, failed};
use crate::s3::{Gateway, bucket};
use fs_layer::{Precondition, ROOT};
use s3s::dto::{DeleteBucketInput, DeleteBucketOutput};
use s3s::{S3Request, S3Response};

pub(super) async fn run(gateway: &Gateway, request: S3Request<DeleteBucketInput>) -> Answer<DeleteBucketOutput> {
    let (namespace, tenant_id) = gateway.enter(&request)?;
    let name = request.input.bucket;
    bucket::find(&namespace, &name).await?;
    namespace.delete(ROOT, &name, Precondition::None).await.map_err(|e| failed(Subject::Bucket, e))?;
    gateway.buckets.forget(tenant_id, &name);
    Ok(S3Response::with_status(DeleteBucketOutput::default(), http::StatusCode::NO_CONTENT))
}
