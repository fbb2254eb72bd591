//! ListObjects, version 1: a page of keys and common prefixes behind a marker.

use super::Answer;
use crate::s3::Gateway;
use crate::s3::error::Subject;
use crate::s3::listing::{self, Encoding};
use fs_layer::{ListOptions, Listing};
use s3s::dto::{ListObjectsInput, ListObjectsOutput};
use s3s::{S3Request, S3Response};

pub(super) async fn run(gateway: &Gateway, request: S3Request<ListObjectsInput>) -> Answer<ListObjectsOutput> {
    let (namespace, _) = gateway.enter(&request)?;
    let input = request.input;
    let encoding = Encoding::parse(input.encoding_type.as_ref())?;
    let limit = listing::keys(input.max_keys)?;
    let bucket = gateway.bucket(&namespace, &input.bucket).await?;
    let delimiter = input.delimiter.filter(|delimiter| !delimiter.is_empty());
    let options = ListOptions {
        prefix: input.prefix.clone().unwrap_or_default(),
        delimiter: delimiter.clone().unwrap_or_default(),
        start_after: input.marker.clone().unwrap_or_default(),
        continuation: None,
        limit,
    };
    let page = if limit == 0 { Ok(Listing::default()) } else { namespace.list(bucket, options).await };
    let page = match page {
        Ok(page) => page,
        Err(error) => return Err(gateway.failed_in(&namespace, (&input.bucket, bucket), Subject::Bucket, error).await),
    };
    // Without a delimiter the last key is the marker, and S3 tells none.
    let next = listing::last(&page).filter(|_| page.continuation.is_some() && delimiter.is_some());
    Ok(S3Response::new(ListObjectsOutput {
        name: Some(input.bucket),
        prefix: Some(encoding.tell(&input.prefix.unwrap_or_default())),
        marker: Some(encoding.tell(&input.marker.unwrap_or_default())),
        next_marker: next.map(|next| encoding.tell(next)),
        delimiter: delimiter.map(|delimiter| encoding.tell(&delimiter)),
        max_keys: listing::told(limit),
        is_truncated: Some(page.continuation.is_some()),
        contents: Some(listing::objects(&page.entries, encoding)),
        common_prefixes: Some(listing::prefixes(&page.common_prefixes, encoding)),
        encoding_type: input.encoding_type,
        ..Default::default()
    }))
}
