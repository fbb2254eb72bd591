//! For whom a value holds, and who asks for it.

use crate::{Error, v1};
use std::collections::BTreeMap;

/// Longest id of a scope, in bytes: a label, a tenant's id, an access key's id.
pub const SCOPE_ID_BYTES: usize = 128;

/// The kinds of scopes, from the most general to the most special. The special one wins: the order here is the precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ScopeKind {
    /// Everywhere.
    Cluster,
    /// Nodes with this label `data_centre`.
    DataCentre,
    /// Nodes with this label `pod`.
    Pod,
    /// Nodes with this label `host_group`.
    HostGroup,
    /// One tenant.
    Tenant,
    /// One user.
    User,
}

impl ScopeKind {
    /// All kinds, in the order of precedence.
    pub const ALL: [ScopeKind; 6] =
        [ScopeKind::Cluster, ScopeKind::DataCentre, ScopeKind::Pod, ScopeKind::HostGroup, ScopeKind::Tenant, ScopeKind::User];

    /// As an operator names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ScopeKind::Cluster => "cluster",
            ScopeKind::DataCentre => "data centre",
            ScopeKind::Pod => "pod",
            ScopeKind::HostGroup => "host group",
            ScopeKind::Tenant => "tenant",
            ScopeKind::User => "user",
        }
    }
}

/// For whom a value holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Everybody.
    Cluster,
    /// Nodes with this label `data_centre`.
    DataCentre(String),
    /// Nodes with this label `pod`.
    Pod(String),
    /// Nodes with this label `host_group`.
    HostGroup(String),
    /// This tenant, by id.
    Tenant(u64),
    /// This user, by the id of its access key.
    User(String),
}

impl Scope {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> ScopeKind {
        match self {
            Scope::Cluster => ScopeKind::Cluster,
            Scope::DataCentre(_) => ScopeKind::DataCentre,
            Scope::Pod(_) => ScopeKind::Pod,
            Scope::HostGroup(_) => ScopeKind::HostGroup,
            Scope::Tenant(_) => ScopeKind::Tenant,
            Scope::User(_) => ScopeKind::User,
        }
    }

    /// As the directory has it.
    #[must_use]
    pub fn to_proto(&self) -> v1::SettingScope {
        use v1::setting_scope::Kind;
        let (kind, id) = match self {
            Scope::Cluster => (Kind::Cluster, String::new()),
            Scope::DataCentre(id) => (Kind::DataCentre, id.clone()),
            Scope::Pod(id) => (Kind::Pod, id.clone()),
            Scope::HostGroup(id) => (Kind::HostGroup, id.clone()),
            Scope::Tenant(id) => (Kind::Tenant, id.to_string()),
            Scope::User(id) => (Kind::User, id.clone()),
        };
        v1::SettingScope { kind: kind.into(), id }
    }

    /// From the directory; none for a kind that this build does not know, and for a tenant's id that is no number.
    #[must_use]
    pub fn from_proto(scope: &v1::SettingScope) -> Option<Self> {
        use v1::setting_scope::Kind;
        let id = scope.id.clone();
        match scope.kind() {
            Kind::Unspecified => None,
            Kind::Cluster => Some(Scope::Cluster),
            Kind::DataCentre => Some(Scope::DataCentre(id)),
            Kind::Pod => Some(Scope::Pod(id)),
            Kind::HostGroup => Some(Scope::HostGroup(id)),
            Kind::Tenant => id.parse().ok().map(Scope::Tenant),
            Kind::User => Some(Scope::User(id)),
        }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let id = match self {
            Scope::Cluster => return Ok(()),
            Scope::Tenant(0) => return Err(Error::invalid("tenant", "a tenant", "0, the directory")),
            Scope::Tenant(_) => return Ok(()),
            Scope::DataCentre(id) | Scope::Pod(id) | Scope::HostGroup(id) | Scope::User(id) => id,
        };
        let plain = id.chars().all(|c| !c.is_control());
        if id.is_empty() || id.len() > SCOPE_ID_BYTES || !plain {
            let limit = format!("1 to {SCOPE_ID_BYTES} bytes of printable text");
            return Err(Error::invalid(self.kind().name(), limit, format!("{:?}", id.chars().take(SCOPE_ID_BYTES).collect::<String>())));
        }
        Ok(())
    }

    /// Whether a value of this scope holds for someone on a node with these labels.
    #[must_use]
    pub fn holds_for(&self, labels: &Labels, asker: Asker<'_>) -> bool {
        let is = |label: &Option<String>, id: &String| label.as_ref() == Some(id);
        match self {
            Scope::Cluster => true,
            Scope::DataCentre(id) => is(&labels.data_centre, id),
            Scope::Pod(id) => is(&labels.pod, id),
            Scope::HostGroup(id) => is(&labels.host_group, id),
            Scope::Tenant(id) => asker.tenant == Some(*id),
            Scope::User(id) => asker.user == Some(id),
        }
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = self.kind().name();
        match self {
            Scope::Cluster => f.write_str(kind),
            Scope::Tenant(id) => write!(f, "{kind} {id}"),
            Scope::DataCentre(id) | Scope::Pod(id) | Scope::HostGroup(id) | Scope::User(id) => write!(f, "{kind} {id}"),
        }
    }
}

/// The labels of a node that settings know, out of all that its configuration gives it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    /// `data_centre`
    pub data_centre: Option<String>,
    /// `pod`
    pub pod: Option<String>,
    /// `host_group`
    pub host_group: Option<String>,
}

impl Labels {
    /// Out of a node's labels.
    #[must_use]
    pub fn of(labels: &BTreeMap<String, String>) -> Self {
        let label = |name: &str| labels.get(name).filter(|value| !value.is_empty()).cloned();
        Labels { data_centre: label("data_centre"), pod: label("pod"), host_group: label("host_group") }
    }
}

/// For whom something is done, on whichever node it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asker<'a> {
    /// The tenant, if it is done for one.
    pub tenant: Option<u64>,
    /// The id of the access key, if it is known.
    pub user: Option<&'a str>,
}

impl Asker<'static> {
    /// What a node does for nobody in particular.
    pub const NODE: Asker<'static> = Asker { tenant: None, user: None };

    /// What is done for a tenant.
    #[must_use]
    pub fn tenant(tenant_id: u64) -> Self {
        Asker { tenant: Some(tenant_id), user: None }
    }
}
