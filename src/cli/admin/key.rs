//! `cairn admin key`.

use crate::cli::connection::Session;
use crate::cli::time;
use crate::failure::Failure;
use crate::output::{Output, Show};
use clap::{Args, Subcommand};
use metadb_proto::v1::{KeyRecord, key_record::Role};
use serde::Serialize;
use std::collections::BTreeMap;

const EXAMPLES: &str = "\
Examples:
  cairn admin key create --tenant acme --description 'backup job'
  cairn admin key create --operator --cluster-secret-file cluster.secret --endpoint 10.0.0.1:7401
  cairn admin key list
  cairn admin key revoke AKEXAMPLE";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Key {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a key. Its secret is shown now and never again.
    #[command(after_help = "Examples:\n  cairn admin key create --tenant acme\n  cairn admin key create --operator -o json")]
    Create {
        /// The tenant that may be used with it.
        #[arg(long, required_unless_present = "operator", conflicts_with = "operator")]
        tenant: Option<String>,
        /// A key that may do everything.
        #[arg(long)]
        operator: bool,
        /// What it is for.
        #[arg(long, default_value = "")]
        description: String,
    },
    /// List the keys, without their secrets.
    #[command(after_help = "Examples:\n  cairn admin key list\n  cairn admin key list -o yaml")]
    List,
    /// Make a key useless.
    #[command(after_help = "Examples:\n  cairn admin key revoke AKEXAMPLE")]
    Revoke {
        /// Its id.
        access_key_id: String,
    },
}

/// A key, as it is printed. It has no secret.
#[derive(Debug, Serialize)]
struct Row {
    access_key_id: String,
    role: &'static str,
    tenant: Option<String>,
    description: String,
    created: String,
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Rows(Vec<Row>);

/// A new key, with its secret, as it is printed once.
#[derive(Serialize)]
struct NewKey {
    access_key_id: String,
    secret_access_key: String,
}

impl Row {
    fn new(key: KeyRecord, tenants: &BTreeMap<u64, String>) -> Self {
        let (role, tenant) = match key.role() {
            Role::Unspecified => ("unknown", None),
            Role::Operator => ("operator", None),
            Role::Tenant => ("tenant", Some(tenants.get(&key.tenant_id).cloned().unwrap_or_else(|| format!("id {}", key.tenant_id)))),
        };
        Row { access_key_id: key.access_key_id, role, tenant, description: key.description, created: time(key.created_at_ms) }
    }
}

impl Show for Rows {
    fn columns(&self) -> Vec<&'static str> {
        vec!["ACCESS KEY ID", "ROLE", "TENANT", "CREATED", "DESCRIPTION"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |key: &Row| {
            let tenant = key.tenant.clone().unwrap_or_default();
            vec![key.access_key_id.clone(), key.role.to_owned(), tenant, key.created.clone(), key.description.clone()]
        };
        self.0.iter().map(row).collect()
    }
}

impl Key {
    pub(super) async fn run(self, session: &Session, output: Output) -> Result<(), Failure> {
        let operator = session.operator();
        match self.verb {
            Verb::Create { tenant, operator: _, description } => {
                let (role, tenant_id) = match &tenant {
                    None => (Role::Operator, 0),
                    Some(name) => (Role::Tenant, session.tenant_id(name).await?),
                };
                let record = operator.create_key(role, tenant_id, &description).await?;
                let key = NewKey { access_key_id: record.access_key_id, secret_access_key: record.secret };
                let told = format!("access key id:     {}\nsecret access key: {}", key.access_key_id, key.secret_access_key);
                output.done(&format!("{told}\n\nThe secret is not shown again."), &key)
            }
            Verb::List => {
                let tenants = operator.tenants().await?.into_iter().map(|tenant| (tenant.tenant_id, tenant.name)).collect();
                output.show(&Rows(operator.keys().await?.into_iter().map(|key| Row::new(key, &tenants)).collect()))
            }
            Verb::Revoke { access_key_id } => {
                operator.revoke_key(&access_key_id).await?;
                output.done(&format!("revoked {access_key_id}"), &serde_json::json!({ "revoked": access_key_id }))
            }
        }
    }
}
