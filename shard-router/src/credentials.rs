//! Who is who: node tokens by the cluster's secret, keys by the directory.
//!
//! A key is believed for [`REMEMBERED`] after it was read, so a revoked one stops working within that time. That there is no such key
//! is remembered as long, so that a wrong key does not become load on the directory. The memory is bounded.

use crate::coalesce::Loads;
use crate::directory::record;
use crate::router::Router;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use metadb_proto::principal::{Authenticate, ClusterSecret, Token};
use metadb_proto::v1::{KeyRecord, key_record};
use metadb_proto::{Error, Principal, directory};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long what the directory said of a key is believed.
pub const REMEMBERED: Duration = Duration::from_secs(1);
/// Most keys remembered, known and unknown together.
const KEYS: usize = 10_000;
/// Longest access key id that is looked up; ours have 20 characters.
const ID_BYTES: usize = 128;
/// How long the directory may take to answer.
const LOOKUP_DEADLINE: Duration = Duration::from_secs(3);

/// Establishes principals by the cluster's secret and the directory.
pub struct DirectoryAuthenticator {
    router: Router,
    secret: ClusterSecret,
    keys: Mutex<BTreeMap<String, Remembered>>,
    loads: Loads<String, Option<Arc<KeyRecord>>>,
}

struct Remembered {
    key: Option<Arc<KeyRecord>>,
    until: Instant,
}

impl DirectoryAuthenticator {
    /// Asks the directory through this router, which must itself be a node's (its token needs no directory to be believed).
    #[must_use]
    pub fn new(router: Router, secret: ClusterSecret) -> Self {
        DirectoryAuthenticator { router, secret, keys: Mutex::default(), loads: Loads::new() }
    }

    /// The record of a key with its secret, to verify signatures; none if there is no such key.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the directory can't tell now.
    pub async fn lookup(&self, access_key_id: &str) -> Result<Option<KeyRecord>, Error> {
        Ok(self.find(access_key_id).await?.map(|key| KeyRecord::clone(&key)))
    }

    async fn find(&self, access_key_id: &str) -> Result<Option<Arc<KeyRecord>>, Error> {
        if access_key_id.is_empty() || access_key_id.len() > ID_BYTES {
            return Ok(None);
        }
        if let Some(remembered) = self.keys.lock().get(access_key_id).filter(|key| key.until > Instant::now()) {
            return Ok(remembered.key.clone());
        }
        let (router, id) = (self.router.clone(), access_key_id.to_owned());
        // Counted from the question, not from the answer: what was read may be as old as that.
        let until = Instant::now() + REMEMBERED;
        let key = self.loads.join(id.clone(), move || {
            async move {
                let client = router.tenant(directory::DIRECTORY_TENANT).with_deadline(LOOKUP_DEADLINE);
                let row = client.get(directory::access_key_key(&id)).await?;
                row.map(|row| record::<KeyRecord>(&row).map(Arc::new)).transpose()
            }
            .boxed()
        });
        let key = key
            .await
            .map_err(|error| Error::unavailable(format!("the directory can't tell who this is: {error}"), Duration::from_millis(100)))?;
        self.remember(access_key_id, Remembered { key: key.clone(), until });
        Ok(key)
    }

    fn remember(&self, access_key_id: &str, remembered: Remembered) {
        let mut keys = self.keys.lock();
        if keys.len() >= KEYS {
            let now = Instant::now();
            keys.retain(|_, key| key.until > now);
            if keys.len() >= KEYS {
                keys.pop_first();
            }
        }
        keys.insert(access_key_id.to_owned(), remembered);
    }

    async fn establish(&self, authorization: &str) -> Result<Principal, Error> {
        let token = Token::parse(authorization)?;
        // One message for all, so that it does not tell which keys exist.
        let refused = || Error::Unauthenticated { message: "no such credential".into() };
        let access_key_id = match &token {
            Token::Node { node_id, .. } if token.proves_node(&self.secret) => return Ok(Principal::Node(*node_id)),
            Token::Node { .. } => return Err(refused()),
            Token::Key { access_key_id, .. } => access_key_id,
        };
        let key = self.find(access_key_id).await?.filter(|key| token.proves_key(&key.secret)).ok_or_else(refused)?;
        principal_of(&key).ok_or_else(refused)
    }
}

/// The principal that a key stands for.
#[must_use]
pub fn principal_of(key: &KeyRecord) -> Option<Principal> {
    let access_key_id = key.access_key_id.clone();
    match key.role() {
        key_record::Role::Operator => Some(Principal::Operator(access_key_id)),
        key_record::Role::Tenant if key.tenant_id != directory::DIRECTORY_TENANT => {
            Some(Principal::Tenant { tenant_id: key.tenant_id, access_key_id })
        }
        key_record::Role::Tenant | key_record::Role::Unspecified => None,
    }
}

impl Authenticate for DirectoryAuthenticator {
    fn authenticate<'a>(&'a self, authorization: &'a str) -> BoxFuture<'a, Result<Principal, Error>> {
        self.establish(authorization).boxed()
    }
}

impl std::fmt::Debug for DirectoryAuthenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DirectoryAuthenticator(…)")
    }
}
