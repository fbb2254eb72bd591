//! CreateBucket: a flat folder in the tenant's root folder.

use super::Answer;
use crate::s3::error::{Subject, failed, refuse};
use crate::s3::{Gateway, bucket};
use fs_layer::{FolderKind, ROOT};
use s3s::dto::{CreateBucketInput, CreateBucketOutput};
use s3s::{S3ErrorCode, S3Request, S3Response};

pub(super) async fn run(gateway: &Gateway, request: S3Request<CreateBucketInput>) -> Answer<CreateBucketOutput> {
    let (namespace, tenant_id) = gateway.enter(&request)?;
    let input = request.input;
    if !bucket::is_valid_name(&input.bucket) {
        return Err(refuse(S3ErrorCode::InvalidBucketName, "The specified bucket is not valid."));
    }
    if input.object_lock_enabled_for_bucket == Some(true) {
        return Err(refuse(S3ErrorCode::NotImplemented, "Object lock is not implemented."));
    }
    let wanted = input.create_bucket_configuration.and_then(|configuration| configuration.location_constraint);
    if let Some(wanted) = wanted.filter(|wanted| !wanted.as_str().is_empty() && wanted.as_str() != &*gateway.region) {
        let message = format!("The specified location-constraint '{}' is not valid; expecting '{}'", wanted.as_str(), gateway.region);
        return Err(refuse(S3ErrorCode::InvalidLocationConstraint, message));
    }
    let made = namespace.create_folder(ROOT, &input.bucket, FolderKind::Flat).await.map_err(|e| failed(Subject::Bucket, e))?;
    gateway.buckets.put(tenant_id, &input.bucket, made.id);
    Ok(S3Response::new(CreateBucketOutput { location: Some(format!("/{}", input.bucket)) }))
}
