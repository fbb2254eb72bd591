//! GetBucketLocation: the region; nothing for `us-east-1`, as S3 does.

use super::Answer;
use crate::s3::{Gateway, bucket};
use s3s::dto::{BucketLocationConstraint, GetBucketLocationInput, GetBucketLocationOutput};
use s3s::{S3Request, S3Response};

pub(super) async fn run(gateway: &Gateway, request: S3Request<GetBucketLocationInput>) -> Answer<GetBucketLocationOutput> {
    let (namespace, _) = gateway.enter(&request)?;
    bucket::find(&namespace, &request.input.bucket).await?;
    let location = (&*gateway.region != "us-east-1").then(|| BucketLocationConstraint::from(gateway.region.to_string()));
    Ok(S3Response::new(GetBucketLocationOutput { location_constraint: location }))
}
