//! What an operator has switched off: a tenant, its writes, a service. Asked at every door and where the data is.

use super::registry::{SERVICE_FS, SERVICE_KV, SERVICE_S3, TENANT_ACCESS};
use super::{Asker, Setting, Settings};
use crate::Error;
use crate::principal::DIRECTORY_TENANT;

/// A way into the cluster that can be switched off by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// The door fs.v1.
    Fs,
    /// The S3 door.
    S3,
    /// The door metadb.v1, for tenants' own keys.
    Kv,
}

impl Service {
    /// All of them.
    pub const ALL: [Service; 3] = [Service::Fs, Service::S3, Service::Kv];

    /// Its name, for operators.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Service::Fs => "fs",
            Service::S3 => "s3",
            Service::Kv => "kv",
        }
    }

    /// The setting that switches it.
    #[must_use]
    pub fn setting(self) -> &'static Setting<bool> {
        match self {
            Service::Fs => &SERVICE_FS,
            Service::S3 => &SERVICE_S3,
            Service::Kv => &SERVICE_KV,
        }
    }
}

impl Settings {
    /// Whether a service serves a tenant now.
    ///
    /// # Errors
    /// [`Error::Suspended`], naming the service or the tenant, and the operator's reason.
    pub fn check_service(&self, service: Service, tenant_id: u64) -> Result<(), Error> {
        let (table, asker) = (self.table(), Asker::tenant(tenant_id));
        if table.get(service.setting(), asker) {
            return self.check_tenant(tenant_id, false);
        }
        let reason = table.reason(&service.setting().definition, asker);
        Err(switched_off(format!("the service {} is disabled for tenant {tenant_id}", service.name()), reason))
    }

    /// Whether a tenant may do this now.
    ///
    /// # Errors
    /// [`Error::Suspended`], naming the tenant and the operator's reason.
    pub fn check_tenant(&self, tenant_id: u64, writes: bool) -> Result<(), Error> {
        // Whatever is set for all tenants: a directory that refused nodes could never tell them that it is over.
        if tenant_id == DIRECTORY_TENANT {
            return Ok(());
        }
        let (table, asker) = (self.table(), Asker::tenant(tenant_id));
        let told = match table.get(&TENANT_ACCESS, asker) {
            "suspended" => format!("tenant {tenant_id} is suspended"),
            "read_only" if writes => format!("tenant {tenant_id} is suspended for writing"),
            _ => return Ok(()),
        };
        Err(switched_off(told, table.reason(&TENANT_ACCESS.definition, asker)))
    }
}

fn switched_off(what: String, reason: &str) -> Error {
    Error::Suspended { message: if reason.is_empty() { what } else { format!("{what}: {reason}") } }
}
