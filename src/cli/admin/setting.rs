//! `cairn admin setting`: what may be changed while the cluster runs.

mod show;

use crate::cli::connection::Session;
use crate::failure::Failure;
use crate::output::Output;
use clap::{Args, Subcommand};
use metadb_proto::settings::{self, Asker, Definition, Labels, Scope, explain, registry};
use shard_router::operator::{Change, Operator};
use show::{Changes, Explained, Known, Outcome, Values};
use std::time::Duration;

/// How long is waited for a change to be in force; it takes well under a second where the directory can be reached.
const IN_FORCE_WITHIN: Duration = Duration::from_secs(3);

const EXAMPLES: &str = "\
Examples:
  cairn admin setting list --all
  cairn admin setting get tenant.weight --tenant acme
  cairn admin setting set tenant.weight 300 --tenant acme --reason 'paid for it'
  cairn admin setting set service.s3 false --pod pod-7 --dry-run
  cairn admin setting unset tenant.weight --tenant acme
  cairn admin setting history tenant.weight

The most special scope wins: user, tenant, host group, pod, data centre, cluster, default.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Setting {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Set a value; it is in force on every node within a second.
    #[command(after_help = "Examples:\n  cairn admin setting set tenant.weight 300 --tenant acme --reason 'paid for it'\n  \
                            cairn admin setting set service.s3 false --dry-run")]
    Set {
        /// Which setting.
        name: String,
        /// Its value.
        value: String,
        #[command(flatten)]
        of: OneScope,
        #[command(flatten)]
        how: How,
    },
    /// Take a value back: what is more general holds again.
    #[command(after_help = "Examples:\n  cairn admin setting unset tenant.weight --tenant acme")]
    Unset {
        /// Which setting.
        name: String,
        #[command(flatten)]
        of: OneScope,
        #[command(flatten)]
        how: How,
    },
    /// Show the value that holds for someone somewhere, and why.
    #[command(after_help = "Examples:\n  cairn admin setting get tenant.weight --tenant acme\n  \
                            cairn admin setting get tenant.weight --tenant acme --node 2 -o json")]
    Get {
        /// Which setting.
        name: String,
        #[command(flatten)]
        of: Somewhere,
    },
    /// List the values that are set, or all settings with their meaning.
    #[command(after_help = "Examples:\n  cairn admin setting list\n  cairn admin setting list --all -o json")]
    List {
        /// Every setting that there is, with its meaning, bounds and default.
        #[arg(long)]
        all: bool,
    },
    /// Show who changed a setting, when, and why; the newest first.
    #[command(after_help = "Examples:\n  cairn admin setting history tenant.access --limit 20")]
    History {
        /// Which setting.
        name: String,
        /// Most changes shown.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
}

/// For whom a value is set: the whole cluster, or one of these.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct OneScope {
    /// On nodes with this label data_centre.
    #[arg(long, value_name = "LABEL")]
    data_centre: Option<String>,
    /// On nodes with this label pod.
    #[arg(long, value_name = "LABEL")]
    pod: Option<String>,
    /// On nodes with this label host_group.
    #[arg(long, value_name = "LABEL")]
    host_group: Option<String>,
    /// For this tenant.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// For this user, by the id of its access key.
    #[arg(long, value_name = "KEY")]
    user: Option<String>,
}

/// How a change is made.
#[derive(Debug, Args)]
pub(super) struct How {
    /// Why: kept in the history, and told to those who are refused because of it.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(super) reason: String,
    /// Only if the value is still of this revision, as `list` shows it; 0: if none is set.
    #[arg(long, value_name = "REVISION")]
    pub(super) expect: Option<u64>,
    /// Check it and say what would be done.
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// Who asks, on which node.
#[derive(Debug, Args)]
struct Somewhere {
    /// On this node.
    #[arg(long, value_name = "ID", conflicts_with_all = ["data_centre", "pod", "host_group"])]
    node: Option<u64>,
    /// On a node with this label data_centre.
    #[arg(long, value_name = "LABEL")]
    data_centre: Option<String>,
    /// On a node with this label pod.
    #[arg(long, value_name = "LABEL")]
    pod: Option<String>,
    /// On a node with this label host_group.
    #[arg(long, value_name = "LABEL")]
    host_group: Option<String>,
    /// For this tenant.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// For this user, by the id of its access key.
    #[arg(long, value_name = "KEY")]
    user: Option<String>,
}

impl OneScope {
    async fn scope(self, operator: &Operator) -> Result<Scope, Failure> {
        let OneScope { data_centre, pod, host_group, tenant, user } = self;
        if let Some(name) = tenant {
            return Ok(Scope::Tenant(operator.tenant(&name).await?.tenant_id));
        }
        let named = data_centre.map(Scope::DataCentre).or(pod.map(Scope::Pod)).or(host_group.map(Scope::HostGroup));
        Ok(named.or(user.map(Scope::User)).unwrap_or(Scope::Cluster))
    }
}

impl Setting {
    pub(super) async fn run(self, session: &Session, output: Output) -> Result<(), Failure> {
        let operator = session.operator();
        match self.verb {
            Verb::Set { name, value, of, how } => {
                let definition = settings::definition(&name)?;
                let scope = of.scope(&operator).await?;
                change(session, output, Asked { definition, scope, value: Some(value), how }).await
            }
            Verb::Unset { name, of, how } => {
                let definition = settings::definition(&name)?;
                let scope = of.scope(&operator).await?;
                change(session, output, Asked { definition, scope, value: None, how }).await
            }
            Verb::Get { name, of } => get(&operator, output, settings::definition(&name)?, of).await,
            Verb::List { all: true } => output.show(&Known::new(registry::DEFINITIONS)),
            Verb::List { all: false } => output.show(&Values::new(&operator.settings().await?, &tenants(&operator).await?)),
            Verb::History { name, limit } => {
                let changes = operator.setting_history(settings::definition(&name)?, limit).await?;
                output.show(&Changes::new(changes, &tenants(&operator).await?))
            }
        }
    }
}

/// Names of tenants by id.
type Tenants = std::collections::BTreeMap<u64, String>;

async fn tenants(operator: &Operator) -> Result<Tenants, Failure> {
    Ok(operator.tenants().await?.into_iter().map(|tenant| (tenant.tenant_id, tenant.name)).collect())
}

/// What an operator asks for.
pub(super) struct Asked {
    pub(super) definition: &'static Definition,
    pub(super) scope: Scope,
    pub(super) value: Option<String>,
    pub(super) how: How,
}

/// Changes a setting, waits until it is in force, and tells it. Other verbs that stand for a setting come here too.
pub(super) async fn change(session: &Session, output: Output, asked: Asked) -> Result<(), Failure> {
    let operator = session.operator();
    let Asked { definition, scope, value, how } = asked;
    let how_dry = how.dry_run;
    let change = Change { definition, scope, value, by: session.who(), reason: how.reason, expected: how.expect, dry_run: how.dry_run };
    let changed = operator.change_setting(&change).await?;
    let in_force = if how_dry { (0, Vec::new()) } else { operator.settings_in_force(changed.revision, IN_FORCE_WITHIN).await? };
    let outcome = Outcome::new(&change, changed, in_force);
    output.done(&outcome.sentence(), &outcome)
}

async fn get(operator: &Operator, output: Output, definition: &'static Definition, of: Somewhere) -> Result<(), Failure> {
    let labels = match of.node {
        None => Labels { data_centre: of.data_centre, pod: of.pod, host_group: of.host_group },
        Some(id) => {
            let nodes = operator.nodes().await?;
            let node = nodes.into_iter().find(|record| record.node.as_ref().is_some_and(|node| node.node_id == id));
            Labels::of(&node.ok_or_else(|| metadb_proto::Error::not_found(format!("node {id}")))?.labels)
        }
    };
    let tenant = match of.tenant {
        Some(name) => Some(operator.tenant(&name).await?.tenant_id),
        None => None,
    };
    let records = operator.settings().await?;
    let candidates = explain(definition, &records, &labels, Asker { tenant, user: of.user.as_deref() });
    output.show(&Explained::new(definition, &candidates, &tenants(operator).await?))
}
