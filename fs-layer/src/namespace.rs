//! [`Fs`] and [`Namespace`]: who holds them can do every operation. The operations themselves are under `op/`.

use crate::db::Db;
use crate::ids::Ids;
use crate::model::FolderKind;
use parking_lot::Mutex;
use shard_router::Router;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The namespaces of all tenants, over one router.
#[derive(Clone)]
pub struct Fs {
    router: Router,
    tenants: Arc<Mutex<BTreeMap<u64, Arc<Tenant>>>>,
}

/// The namespace of one tenant, on behalf of one author.
#[derive(Clone)]
pub struct Namespace {
    pub(crate) db: Db,
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) tenant_id: u64,
    pub(crate) author: String,
    pub(crate) deadline: Duration,
    pub(crate) request_id: Option<[u8; 16]>,
    pub(crate) only_known: bool,
}

/// What this process remembers of a tenant; all of it may be forgotten at any time.
pub(crate) struct Tenant {
    pub(crate) ids: Ids,
    pub(crate) kinds: Kinds,
    root_made: AtomicBool,
}

/// Kinds of folders. A kind never changes and an id is never reused, so none is ever wrong; the folder may be gone.
pub(crate) struct Kinds(Mutex<BTreeMap<u64, FolderKind>>);

/// Most folders whose kind is remembered per tenant: about 2 MiB.
const KINDS: usize = 65_536;
/// Most tenants that something is remembered of.
const TENANTS: usize = 65_536;

impl Kinds {
    pub(crate) fn get(&self, id: u64) -> Option<FolderKind> {
        self.0.lock().get(&id).copied()
    }

    pub(crate) fn put(&self, id: u64, kind: FolderKind) {
        let mut kinds = self.0.lock();
        if kinds.len() >= KINDS {
            kinds.clear();
        }
        kinds.insert(id, kind);
    }

    pub(crate) fn forget(&self, id: u64) {
        self.0.lock().remove(&id);
    }
}

impl Tenant {
    fn new() -> Self {
        Tenant { ids: Ids::new(), kinds: Kinds(Mutex::new(BTreeMap::new())), root_made: AtomicBool::new(false) }
    }

    pub(crate) fn root_made(&self) -> bool {
        self.root_made.load(Ordering::Relaxed)
    }

    pub(crate) fn set_root_made(&self) {
        self.root_made.store(true, Ordering::Relaxed);
    }
}

impl Fs {
    /// Over a router.
    #[must_use]
    pub fn new(router: Router) -> Self {
        Fs { router, tenants: Arc::default() }
    }

    /// The router below.
    #[must_use]
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// The namespace of a tenant. No I/O: whether the tenant exists is told by the first operation.
    #[must_use]
    pub fn namespace(&self, tenant_id: u64) -> Namespace {
        let tenant = {
            let mut tenants = self.tenants.lock();
            if tenants.len() >= TENANTS {
                tenants.clear();
            }
            Arc::clone(tenants.entry(tenant_id).or_insert_with(|| Arc::new(Tenant::new())))
        };
        Namespace {
            db: Db::new(self.router.tenant(tenant_id)),
            tenant,
            tenant_id,
            author: String::new(),
            deadline: metadb_proto::limits::DEFAULT_DEADLINE,
            request_id: None,
            only_known: false,
        }
    }
}

impl Namespace {
    /// Whose namespace it is.
    #[must_use]
    pub fn tenant_id(&self) -> u64 {
        self.tenant_id
    }

    /// The same, for operations that end within this time.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline.min(metadb_proto::limits::MAX_DEADLINE);
        self
    }

    /// The same, for operations done by this author: told in events, and the owner of what is made.
    #[must_use]
    pub fn with_author(mut self, author: impl Into<String>) -> Self {
        self.author = author.into();
        self
    }

    /// The same, for **one** operation that the caller may repeat: asked again with the same id, it is done once and answers the same.
    #[must_use]
    pub fn with_request_id(mut self, request_id: [u8; 16]) -> Self {
        self.request_id = Some(request_id);
        self
    }

    /// The same, for operations that name contents which they read of elsewhere, as a copy does: a content that nothing names any more is
    /// refused with a conflict. Without this it would be taken for a new one, and its bytes may be gone.
    #[must_use]
    pub fn naming_known_contents(mut self) -> Self {
        self.only_known = true;
        self
    }
}
