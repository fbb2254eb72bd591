//! `cairn admin tenant`.

use super::setting::{Asked, How, change};
use super::shard::MoveHow;
use super::tenant_create::Create;
use super::tenant_place;
use crate::cli::connection::Session;
use crate::cli::time;
use crate::failure::Failure;
use crate::output::{Output, Show};
use clap::{Args, Subcommand};
use metadb_proto::settings::Scope;
use metadb_proto::settings::registry::TENANT_ACCESS;
use metadb_proto::v1::{TenantRecord, tenant_record::State};
use serde::Serialize;

const EXAMPLES: &str = "\
Examples:
  cairn admin tenant create acme
  cairn admin tenant create --count 1000 --prefix customer-
  cairn admin tenant list
  cairn admin tenant suspend acme --reason 'unpaid since March'
  cairn admin tenant resume acme
  cairn admin tenant pin acme --pod eu
  cairn admin tenant own-group acme --dry-run
  cairn admin tenant delete acme --yes";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Tenant {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a tenant, or many.
    Create(Box<Create>),
    /// List the tenants.
    #[command(after_help = "Examples:\n  cairn admin tenant list\n  cairn admin tenant list -o json")]
    List,
    /// Refuse all that a tenant asks, on every node within a second. Operators may still look at its data.
    #[command(after_help = "Examples:\n  cairn admin tenant suspend acme --reason 'unpaid since March'\n  \
                            cairn admin tenant suspend acme --writes-only --reason 'over its quota'")]
    Suspend {
        /// Its name.
        name: String,
        /// Refuse its writes only.
        #[arg(long)]
        writes_only: bool,
        #[command(flatten)]
        how: How,
    },
    /// Serve a suspended tenant again.
    #[command(after_help = "Examples:\n  cairn admin tenant resume acme --reason 'paid'")]
    Resume {
        /// Its name.
        name: String,
        #[command(flatten)]
        how: How,
    },
    /// Pin a tenant to a pod: its shards move to groups of the pod now, and nothing moves them out of it.
    #[command(after_help = "Examples:\n  cairn admin tenant pin acme --pod eu --dry-run\n  cairn admin tenant pin acme --pod eu")]
    Pin {
        /// Its name.
        name: String,
        /// The pod.
        #[arg(long)]
        pod: String,
        #[command(flatten)]
        how: MoveHow,
    },
    /// Let a tenant be in any group again. Nothing moves by this.
    #[command(after_help = "Examples:\n  cairn admin tenant unpin acme")]
    Unpin {
        /// Its name.
        name: String,
    },
    /// Give a tenant a group that no other tenant may be in, made if there is none, and move it there.
    #[command(
        name = "own-group",
        after_help = "Examples:\n  cairn admin tenant own-group acme --dry-run\n  cairn admin tenant own-group acme"
    )]
    OwnGroup {
        /// Its name.
        name: String,
        #[command(flatten)]
        how: MoveHow,
    },
    /// Let other tenants into the group that is a tenant's own. Nothing moves by this.
    #[command(name = "share-group", after_help = "Examples:\n  cairn admin tenant share-group acme")]
    ShareGroup {
        /// Its name.
        name: String,
    },
    /// Delete a tenant with everything that it has.
    #[command(after_help = "Examples:\n  cairn admin tenant delete acme --yes")]
    Delete {
        /// Its name.
        name: String,
        /// Really do it: nothing brings the tenant back.
        #[arg(long)]
        yes: bool,
    },
}

/// A tenant, as it is printed.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) id: u64,
    pub(super) name: String,
    state: &'static str,
    created: String,
    /// The pod that it is pinned to, if it is.
    pod: Option<String>,
}

/// Tenants, as they are printed.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Rows(Vec<Row>);

impl From<TenantRecord> for Row {
    fn from(tenant: TenantRecord) -> Self {
        let state = match tenant.state() {
            State::Unspecified => "unknown",
            State::Creating => "creating",
            State::Active => "active",
            State::Deleting => "deleting",
        };
        Row {
            id: tenant.tenant_id,
            state,
            created: time(tenant.created_at_ms),
            name: tenant.name,
            pod: Some(tenant.pod).filter(|pod| !pod.is_empty()),
        }
    }
}

impl Show for Rows {
    fn columns(&self) -> Vec<&'static str> {
        vec!["ID", "NAME", "STATE", "CREATED", "POD"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        self.0
            .iter()
            .map(|row| {
                vec![row.id.to_string(), row.name.clone(), row.state.to_owned(), row.created.clone(), row.pod.clone().unwrap_or_default()]
            })
            .collect()
    }

    fn empty(&self) -> &'static str {
        "no tenants; `cairn admin tenant create NAME` makes one"
    }
}

impl Tenant {
    pub(super) async fn run(self, session: &Session, output: Output) -> Result<(), Failure> {
        let operator = session.operator();
        match self.verb {
            Verb::Create(create) => create.run(&operator, output).await,
            Verb::List => output.show(&Rows(operator.tenants().await?.into_iter().map(Row::from).collect())),
            Verb::Suspend { name, writes_only, how } => {
                if how.reason.is_empty() {
                    return Err(Failure::usage("a suspended tenant is told why").hint("give --reason"));
                }
                let scope = Scope::Tenant(operator.tenant(&name).await?.tenant_id);
                let value = Some(if writes_only { "read_only" } else { "suspended" }.to_owned());
                change(session, output, Asked { definition: &TENANT_ACCESS.definition, scope, value, how }).await
            }
            Verb::Resume { name, how } => {
                let scope = Scope::Tenant(operator.tenant(&name).await?.tenant_id);
                change(session, output, Asked { definition: &TENANT_ACCESS.definition, scope, value: None, how }).await
            }
            Verb::Pin { name, pod, how } => tenant_place::pin(session, output, &name, &pod, how).await,
            Verb::Unpin { name } => tenant_place::unpin(session, output, &name).await,
            Verb::OwnGroup { name, how } => tenant_place::own_group(session, output, &name, how).await,
            Verb::ShareGroup { name } => tenant_place::share_group(session, output, &name).await,
            Verb::Delete { name, yes } => {
                if !yes {
                    let message = format!("deleting the tenant {name} deletes everything that it has");
                    return Err(Failure::usage(message).hint("say it with --yes"));
                }
                operator.delete_tenant(&name).await?;
                output.done(&format!("deleting tenant {name}; its data goes in the background"), &serde_json::json!({ "deleting": name }))
            }
        }
    }
}
