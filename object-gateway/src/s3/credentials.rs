//! From an access key to its secret (to verify the signature) and to its tenant.

use super::Caller;
use super::error::{Subject, failed, refuse};
use metadb_proto::settings::Settings;
use metadb_proto::settings::gate::Service;
use metadb_proto::v1::{KeyRecord, key_record::Role};
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3ErrorCode, S3Result};
use shard_router::credentials::DirectoryAuthenticator;
use std::sync::Arc;

/// Longest access key id that is looked up, in bytes.
const ACCESS_KEY_BYTES: usize = 128;

/// The directory's keys, for the S3 library.
pub(crate) struct Keys {
    pub(crate) keys: Arc<DirectoryAuthenticator>,
    pub(crate) settings: Settings,
}

impl Keys {
    async fn record(&self, access_key_id: &str) -> S3Result<KeyRecord> {
        let unknown = || refuse(S3ErrorCode::InvalidAccessKeyId, "The AWS Access Key Id you provided does not exist in our records.");
        if access_key_id.is_empty() || access_key_id.len() > ACCESS_KEY_BYTES {
            return Err(unknown());
        }
        let record = self.keys.lookup(access_key_id).await.map_err(|e| failed(Subject::Key, e))?;
        record.ok_or_else(unknown)
    }
}

#[async_trait::async_trait]
impl S3Auth for Keys {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        Ok(SecretKey::from(self.record(access_key).await?.secret.clone()))
    }
}

#[async_trait::async_trait]
impl S3Access for Keys {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let credentials = cx.credentials().ok_or_else(|| refuse(S3ErrorCode::AccessDenied, "Access Denied: the request is not signed."))?;
        let record = self.record(&credentials.access_key).await?;
        let caller = match record.role() {
            Role::Tenant => Caller { tenant_id: record.tenant_id, access_key_id: credentials.access_key.clone() },
            Role::Operator | Role::Unspecified => {
                return Err(refuse(S3ErrorCode::AccessDenied, "Access Denied: this is not the key of a tenant, so it has no buckets."));
            }
        };
        // Before a body is read; where the data is it is looked at again.
        let writes = !matches!(*cx.method(), http::Method::GET | http::Method::HEAD);
        let is_on = self.settings.check_service(Service::S3, caller.tenant_id);
        is_on.and_then(|()| self.settings.check_tenant(caller.tenant_id, writes)).map_err(|error| failed(Subject::Key, error))?;
        cx.extensions_mut().insert(caller);
        Ok(())
    }
}
