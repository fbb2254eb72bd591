//! Buckets: flat folders in the tenant's root folder.

use super::Gateway;
use super::error::{Subject, failed, refuse};
use super::limits::{BUCKET_CACHE, BUCKET_CACHE_TIME};
use fs_layer::{Namespace, NodeKind};
use metadb_proto::Error;
use parking_lot::Mutex;
use s3s::{S3Error, S3ErrorCode, S3Result};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Whether S3 would take it for a new bucket.
pub(crate) fn is_valid_name(name: &str) -> bool {
    let ends = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = name.as_bytes();
    (3..=63).contains(&bytes.len())
        && bytes.iter().all(|c| ends(*c) || matches!(c, b'-' | b'.'))
        && bytes.first().is_some_and(|c| ends(*c))
        && bytes.last().is_some_and(|c| ends(*c))
        && !name.contains("..")
        && name.parse::<std::net::Ipv4Addr>().is_err()
        && !["xn--", "sthree-", "amzn-s3-demo-"].iter().any(|prefix| name.starts_with(prefix))
        && !["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"].iter().any(|suffix| name.ends_with(suffix))
}

/// Folder ids of buckets, for a moment.
#[derive(Default)]
pub(crate) struct Cache(Mutex<BTreeMap<(u64, String), (u64, Instant)>>);

impl Cache {
    fn get(&self, tenant_id: u64, name: &str) -> Option<u64> {
        let found = self.0.lock().get(&(tenant_id, name.to_owned())).copied();
        found.and_then(|(id, until)| (until > Instant::now()).then_some(id))
    }

    pub(crate) fn put(&self, tenant_id: u64, name: &str, id: u64) {
        let mut cache = self.0.lock();
        if cache.len() >= BUCKET_CACHE {
            cache.clear();
        }
        cache.insert((tenant_id, name.to_owned()), (id, Instant::now() + BUCKET_CACHE_TIME));
    }

    pub(crate) fn forget(&self, tenant_id: u64, name: &str) {
        self.0.lock().remove(&(tenant_id, name.to_owned()));
    }
}

impl Gateway {
    /// The folder of a bucket.
    pub(crate) async fn bucket(&self, namespace: &Namespace, name: &str) -> S3Result<u64> {
        let tenant_id = namespace.tenant_id();
        if let Some(id) = self.buckets.get(tenant_id, name) {
            return Ok(id);
        }
        let id = find(namespace, name).await?;
        self.buckets.put(tenant_id, name, id);
        Ok(id)
    }

    /// A failed operation in a bucket whose folder was taken to be `folder`. That may have been remembered from before the bucket was
    /// deleted, and made anew, through another node: then what was not found there says nothing of what is in the bucket now.
    pub(crate) async fn failed_in(&self, namespace: &Namespace, (bucket, folder): (&str, u64), subject: Subject, error: Error) -> S3Error {
        if !matches!(error, Error::NotFound { .. }) {
            return failed(subject, error);
        }
        self.buckets.forget(namespace.tenant_id(), bucket);
        not_found_in(folder, self.bucket(namespace, bucket).await, subject, error)
    }
}

/// What "not found" in a folder means, given the folder that the bucket has now.
fn not_found_in(folder: u64, now: S3Result<u64>, subject: Subject, error: Error) -> S3Error {
    match now {
        Err(gone) => gone,
        Ok(now) if now == folder => failed(subject, error),
        Ok(_) => failed(subject, Error::unavailable("the bucket was made anew a moment ago", Duration::ZERO)),
    }
}

/// The folder of a bucket, as the namespace has it now.
pub(crate) async fn find(namespace: &Namespace, name: &str) -> S3Result<u64> {
    let missing = || refuse(S3ErrorCode::NoSuchBucket, "The specified bucket does not exist");
    if !is_valid_name(name) {
        return Err(missing());
    }
    let entry = namespace.resolve(name).await.map_err(|e| failed(Subject::Bucket, e))?;
    if entry.kind == NodeKind::Flat && entry.name == name { Ok(entry.id) } else { Err(missing()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_found_in_a_bucket_that_was_made_anew_is_asked_for_again() {
        let told = |now: S3Result<u64>| not_found_in(5, now, Subject::Key, Error::not_found("k")).code().as_str().to_owned();
        assert_eq!(told(Ok(5)), "NoSuchKey");
        assert_eq!(told(Ok(6)), "ServiceUnavailable");
        assert_eq!(told(Err(refuse(S3ErrorCode::NoSuchBucket, "gone"))), "NoSuchBucket");
    }

    #[test]
    fn names_as_s3_takes_them() {
        for good in ["abc", "my-bucket", "a.b.c", "123", "0-0", &"a".repeat(63)] {
            assert!(is_valid_name(good), "{good}");
        }
        for bad in
            ["", "ab", "Abc", "a_b", "-abc", "abc-", ".abc", "a..b", "192.168.1.1", "xn--abc", "abc-s3alias", "a/b", "ä-b", &"a".repeat(64)]
        {
            assert!(!is_valid_name(bad), "{bad}");
        }
    }
}
