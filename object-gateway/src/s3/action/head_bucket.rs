//! HeadBucket: whether it is there, and in which region.

use super::Answer;
use crate::s3::{Gateway, bucket};
use s3s::dto::{HeadBucketInput, HeadBucketOutput};
use s3s::{S3Request, S3Response};

pub(super) async fn run(gateway: &Gateway, request: S3Request<HeadBucketInput>) -> Answer<HeadBucketOutput> {
    let (namespace, _) = gateway.enter(&request)?;
    bucket::find(&namespace, &request.input.bucket).await?;
    Ok(S3Response::new(HeadBucketOutput { bucket_region: Some(gateway.region.to_string()), ..Default::default() }))
}
