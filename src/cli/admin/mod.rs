//! `cairn admin`: the operator's view and hands.

mod balance;
mod change;
mod group;
mod key;
mod kv;
mod members;
mod node;
mod pod;
mod scrub;
mod service;
mod setting;
mod shard;
mod status;
mod tenant;
mod tenant_create;
mod tenant_place;
mod top;

use super::connection::Connection;
use crate::failure::Failure;
use crate::output::Output;
use clap::{Args, Subcommand};

const EXAMPLES: &str = "\
Examples:
  cairn admin status                                   after `cairn dev`: its keys are found in ./cairn-data
  cairn admin status --endpoint 10.0.0.1:7401 --cluster-secret-file cluster.secret
  cairn admin node list -o json
  cairn admin top                                      who is busy
  cairn admin tenant create acme
  cairn admin key create --tenant acme
  cairn admin kv scan --tenant acme
  cairn admin shard list --tenant acme                 its parts, where they are, how large
  cairn admin balance --dry-run                        what would move to even loads
  cairn admin setting list --all";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Admin {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// The cluster at a glance: nodes, groups, who leads.
    Status(status::Status),
    /// Who is busy: nodes, groups and tenants, with rates, redrawn each second.
    Top(top::Top),
    /// The nodes.
    Node(node::Node),
    /// The groups and their replicas.
    Group(Box<group::Group>),
    /// Pools of nodes, by their labels: for groups, and for tenants that must be somewhere.
    Pod(Box<pod::Pod>),
    /// The parts of tenants: where they are, how large and how busy; split, merge and move them.
    Shard(Box<shard::Shard>),
    /// Even loads: move tenants between groups, replicas between nodes, leaders between voters.
    Balance(balance::Balance),
    /// The tenants.
    Tenant(tenant::Tenant),
    /// The access keys.
    Key(key::Key),
    /// Ways into the cluster, switched off and on.
    Service(service::Service),
    /// Have nodes read everything that they have at rest, to find rot before it matters.
    Scrub(scrub::Scrub),
    /// What may be changed while the cluster runs.
    Setting(Box<setting::Setting>),
    /// A tenant's keys and values as they are stored.
    Kv(kv::Kv),
}

impl Admin {
    pub(crate) async fn run(self, output: Output) -> Result<(), Failure> {
        let session = self.connection.operator()?;
        match self.verb {
            Verb::Status(verb) => verb.run(&session, output).await,
            Verb::Top(verb) => verb.run(&session, output).await,
            Verb::Node(verb) => verb.run(&session, output).await,
            Verb::Group(verb) => Box::pin(verb.run(&session, output)).await,
            Verb::Balance(verb) => Box::pin(verb.run(&session, output)).await,
            Verb::Pod(verb) => Box::pin(verb.run(&session, output)).await,
            Verb::Shard(verb) => Box::pin(verb.run(&session, output)).await,
            Verb::Tenant(verb) => Box::pin(verb.run(&session, output)).await,
            Verb::Key(verb) => verb.run(&session, output).await,
            Verb::Service(verb) => Box::pin(verb.run(&session, output)).await,
            Verb::Scrub(verb) => Box::pin(verb.run(&session, output)).await,
            Verb::Setting(verb) => Box::pin(verb.run(&session, output)).await,
            Verb::Kv(verb) => verb.run(&session, output).await,
        }
    }
}
