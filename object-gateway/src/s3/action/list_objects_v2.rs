//! ListObjectsV2: a page of keys and common prefixes, by continuation token.

use super::Answer;
use crate::s3::Gateway;
use crate::s3::error::Subject;
use crate::s3::listing::{self, Encoding};
use fs_layer::{ListOptions, Listing};
use s3s::dto::{ListObjectsV2Input, ListObjectsV2Output};
use s3s::{S3Request, S3Response};

pub(super) async fn run(gateway: &Gateway, request: S3Request<ListObjectsV2Input>) -> Answer<ListObjectsV2Output> {
    let (namespace, _) = gateway.enter(&request)?;
    let input = request.input;
    let encoding = Encoding::parse(input.encoding_type.as_ref())?;
    let limit = listing::keys(input.max_keys)?;
    let bucket = gateway.bucket(&namespace, &input.bucket).await?;
    let options = ListOptions {
        prefix: input.prefix.clone().unwrap_or_default(),
        delimiter: input.delimiter.clone().unwrap_or_default(),
        start_after: input.start_after.clone().unwrap_or_default(),
        continuation: input.continuation_token.as_deref().map(listing::continuation).transpose()?,
        limit,
    };
    let page = if limit == 0 { Ok(Listing::default()) } else { namespace.list(bucket, options).await };
    let page = match page {
        Ok(page) => page,
        Err(error) => return Err(gateway.failed_in(&namespace, (&input.bucket, bucket), Subject::Bucket, error).await),
    };
    let tell = |name: Option<String>| name.map(|name| encoding.tell(&name));
    Ok(S3Response::new(ListObjectsV2Output {
        name: Some(input.bucket),
        prefix: Some(encoding.tell(&input.prefix.unwrap_or_default())),
        delimiter: tell(input.delimiter.filter(|delimiter| !delimiter.is_empty())),
        start_after: tell(input.start_after),
        max_keys: listing::told(limit),
        key_count: listing::told(page.entries.len() + page.common_prefixes.len()),
        is_truncated: Some(page.continuation.is_some()),
        continuation_token: input.continuation_token,
        next_continuation_token: page.continuation.as_deref().map(listing::token),
        contents: Some(listing::objects(&page.entries, encoding)),
        common_prefixes: Some(listing::prefixes(&page.common_prefixes, encoding)),
        encoding_type: input.encoding_type,
        ..Default::default()
    }))
}
