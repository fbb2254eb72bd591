//! The S3 door: the S3 protocol over the namespace and the content store.
//!
//! `guard` refuses what is malformed or too large, the `s3s` library parses and verifies signatures, `action/*` has one file per S3
//! action. `error` is the only place where errors become S3 errors, `metadata` the only one where attributes become headers. A bucket is
//! a flat folder in the tenant's root folder; an access key belongs to one tenant and sees its buckets alone.

mod action;
mod bucket;
mod chunked;
mod conditions;
mod credentials;
mod digest;
mod error;
mod guard;
mod limits;
mod linger;
mod listing;
mod metadata;
mod serve;

pub use serve::serve;

use crate::content::ContentStore;
use credentials::Keys;
use error::refuse;
use fs_layer::{Fs, Namespace};
use metadb_proto::settings::Settings;
use s3s::config::{S3Config as LibraryConfig, StaticConfigProvider};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3ErrorCode, S3Request, S3Result};
use shard_router::credentials::DirectoryAuthenticator;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Settings.
#[derive(Debug, Clone)]
pub struct S3Config {
    /// The region that requests must be signed for.
    pub region: String,
    /// What operators may switch off while it runs.
    pub settings: Settings,
}

/// The S3 protocol over a namespace and a content store. Cheap to clone.
#[derive(Clone)]
pub struct S3Door {
    service: S3Service,
    region: Arc<str>,
    /// Room for XML bodies, in KiB.
    documents: Arc<Semaphore>,
}

impl S3Door {
    /// Over its parts. Access keys are looked up in the directory.
    ///
    /// # Errors
    /// [`metadb_proto::Error::Invalid`] for a region that is no region.
    pub fn new(fs: Fs, content: ContentStore, keys: Arc<DirectoryAuthenticator>, config: S3Config) -> Result<Self, metadb_proto::Error> {
        let is_region = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if config.region.is_empty() || config.region.len() > 64 || !config.region.chars().all(is_region) {
            return Err(metadb_proto::Error::invalid("s3.region", "1 to 64 of a-z, 0-9 and -", config.region));
        }
        let region: Arc<str> = config.region.clone().into();
        let gateway = Gateway { fs, content, buckets: Arc::default(), region: region.clone() };
        let mut builder = S3ServiceBuilder::new(gateway);
        builder.set_auth(Keys { keys: Arc::clone(&keys), settings: config.settings.clone() });
        builder.set_access(Keys { keys, settings: config.settings });
        let mut library = LibraryConfig::default();
        library.xml_max_body_size = limits::XML_BYTES;
        builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(library))));
        let documents = Arc::new(Semaphore::new(limits::DOCUMENTS_BYTES >> 10));
        Ok(S3Door { service: builder.build(), region, documents })
    }
}

/// What the actions work with.
#[derive(Clone)]
struct Gateway {
    fs: Fs,
    content: ContentStore,
    buckets: Arc<bucket::Cache>,
    region: Arc<str>,
}

/// Whose request it is: put beside each request once its signature is verified.
#[derive(Debug, Clone)]
struct Caller {
    tenant_id: u64,
    access_key_id: String,
}

impl Gateway {
    /// The caller's namespace, and whose it is.
    fn enter<T>(&self, request: &S3Request<T>) -> S3Result<(Namespace, u64)> {
        let caller = request.extensions.get::<Caller>();
        let caller = caller.ok_or_else(|| refuse(S3ErrorCode::AccessDenied, "Access Denied: the request is not signed."))?;
        let author = format!("key:{}", caller.access_key_id);
        Ok((self.fs.namespace(caller.tenant_id).with_author(author), caller.tenant_id))
    }
}
