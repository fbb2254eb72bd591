//! ListBuckets: the flat folders in the tenant's root folder that have a bucket's name.

use super::Answer;
use crate::s3::error::{Subject, failed};
use crate::s3::{Gateway, bucket, listing, metadata};
use fs_layer::{ListOptions, NodeKind, ROOT};
use s3s::dto::{Bucket, ListBucketsInput, ListBucketsOutput, Owner};
use s3s::{S3Request, S3Response};

/// Most buckets of a page: as S3.
const MOST: usize = 10_000;

pub(super) async fn run(gateway: &Gateway, request: S3Request<ListBucketsInput>) -> Answer<ListBucketsOutput> {
    let (namespace, tenant_id) = gateway.enter(&request)?;
    let input = request.input;
    let limit = listing::limit("max-buckets", input.max_buckets, MOST)?.max(1);
    let mut continuation = input.continuation_token.as_deref().map(listing::continuation).transpose()?;
    let prefix = input.prefix.unwrap_or_default();
    let mut buckets = Vec::new();
    loop {
        let options =
            ListOptions { prefix: prefix.clone(), continuation: continuation.take(), limit: limit - buckets.len(), ..Default::default() };
        let page = namespace.list(ROOT, options).await.map_err(|e| failed(Subject::Bucket, e))?;
        let found = page.entries.into_iter().filter(|entry| entry.kind == NodeKind::Flat && bucket::is_valid_name(&entry.name));
        buckets.extend(found.map(|entry| Bucket {
            name: Some(entry.name),
            creation_date: metadata::timestamp(entry.modified_at_ms),
            bucket_region: Some(gateway.region.to_string()),
        }));
        continuation = page.continuation;
        if continuation.is_none() || buckets.len() >= limit {
            break;
        }
    }
    let owner = Owner { id: Some(tenant_id.to_string()), display_name: Some(format!("tenant-{tenant_id}")) };
    Ok(S3Response::new(ListBucketsOutput {
        buckets: Some(buckets),
        continuation_token: continuation.as_deref().map(listing::token),
        owner: Some(owner),
        prefix: (!prefix.is_empty()).then_some(prefix),
    }))
}
