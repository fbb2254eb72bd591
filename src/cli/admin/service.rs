//! `cairn admin service`: switches ways into the cluster off and on, for all or for one tenant.

use super::setting::{Asked, How, change};
use crate::cli::connection::Session;
use crate::failure::Failure;
use crate::output::{Output, Show};
use clap::{Args, Subcommand, ValueEnum};
use metadb_proto::settings::gate::Service as Gate;
use metadb_proto::settings::{Asker, Labels, Scope, explain};
use serde::Serialize;

const EXAMPLES: &str = "\
Examples:
  cairn admin service list
  cairn admin service disable s3 --reason 'backups first'
  cairn admin service disable fs --tenant acme --reason 'runaway client'
  cairn admin service enable s3";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Service {
    #[command(subcommand)]
    verb: Verb,
}

/// A way into the cluster.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Name {
    /// The door fs.v1.
    Fs,
    /// The S3 door.
    S3,
    /// The door metadb.v1, for tenants' own keys.
    Kv,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Switch a service off; requests to it are refused on every node within a second.
    #[command(after_help = "Examples:\n  cairn admin service disable s3 --tenant acme --reason 'runaway client'")]
    Disable {
        /// Which service.
        service: Name,
        /// Only for this tenant.
        #[arg(long, value_name = "NAME")]
        tenant: Option<String>,
        #[command(flatten)]
        how: How,
    },
    /// Switch a service on again. For one tenant, also where it is off for all.
    #[command(after_help = "Examples:\n  cairn admin service enable s3 --tenant acme")]
    Enable {
        /// Which service.
        service: Name,
        /// Only for this tenant.
        #[arg(long, value_name = "NAME")]
        tenant: Option<String>,
        #[command(flatten)]
        how: How,
    },
    /// List the services and whether they serve.
    #[command(after_help = "Examples:\n  cairn admin service list\n  cairn admin service list --tenant acme -o json")]
    List {
        /// For this tenant.
        #[arg(long, value_name = "NAME")]
        tenant: Option<String>,
    },
}

#[derive(Debug, Serialize)]
struct Row {
    service: &'static str,
    serves: bool,
    set_for: String,
    by: String,
    reason: String,
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Rows(Vec<Row>);

impl Show for Rows {
    fn columns(&self) -> Vec<&'static str> {
        vec!["SERVICE", "SERVES", "SET FOR", "BY", "REASON"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
        let row = |row: &Row| vec![row.service.to_owned(), yes(row.serves), row.set_for.clone(), row.by.clone(), row.reason.clone()];
        self.0.iter().map(row).collect()
    }
}

impl Name {
    fn gate(self) -> Gate {
        match self {
            Name::Fs => Gate::Fs,
            Name::S3 => Gate::S3,
            Name::Kv => Gate::Kv,
        }
    }
}

async fn scope(session: &Session, tenant: Option<String>) -> Result<Scope, Failure> {
    match tenant {
        None => Ok(Scope::Cluster),
        Some(name) => Ok(Scope::Tenant(session.operator().tenant(&name).await?.tenant_id)),
    }
}

impl Service {
    pub(super) async fn run(self, session: &Session, output: Output) -> Result<(), Failure> {
        let (service, tenant, how, value) = match self.verb {
            Verb::Disable { service, tenant, how } => (service, tenant, how, Some("false")),
            // For all, what was said before is taken back; for one tenant it is said, whatever holds for all.
            Verb::Enable { service, tenant: None, how } => (service, None, how, None),
            Verb::Enable { service, tenant, how } => (service, tenant, how, Some("true")),
            Verb::List { tenant } => return list(session, output, tenant).await,
        };
        let definition = &service.gate().setting().definition;
        let scope = scope(session, tenant).await?;
        change(session, output, Asked { definition, scope, value: value.map(str::to_owned), how }).await
    }
}

async fn list(session: &Session, output: Output, tenant: Option<String>) -> Result<(), Failure> {
    let tenant = match scope(session, tenant).await? {
        Scope::Tenant(id) => Some(id),
        Scope::Cluster | Scope::DataCentre(_) | Scope::Pod(_) | Scope::HostGroup(_) | Scope::User(_) => None,
    };
    let records = session.operator().settings().await?;
    let row = |gate: Gate| {
        let found = explain(&gate.setting().definition, &records, &Labels::default(), Asker { tenant, user: None });
        let won = found.into_iter().next();
        let record = won.as_ref().and_then(|won| won.record.clone()).unwrap_or_default();
        let set_for = won.as_ref().and_then(|won| won.scope.as_ref()).map_or_else(|| "default".to_owned(), ToString::to_string);
        let serves = won.is_none_or(|won| won.value != metadb_proto::settings::Value::Flag(false));
        Row { service: gate.name(), serves, set_for, by: record.set_by, reason: record.reason }
    };
    output.show(&Rows(Gate::ALL.into_iter().map(row).collect()))
}
