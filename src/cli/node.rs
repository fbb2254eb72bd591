//! `cairn node`: one node of a cluster.

use crate::config::NodeConfig;
use crate::config::flags::Overrides;
use crate::failure::Failure;
use clap::Args;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  cairn node --example-config > node.toml
  openssl rand -hex 32 > cluster.secret && chmod 600 cluster.secret
  cairn node --config node.toml --bootstrap                   the first node of a new cluster
  cairn node --config node.toml --join first.example:7401     every other one
  CAIRN_LOG_FORMAT=json cairn node --config node.toml

Every setting can be given in the file, as a variable and as a flag. A flag wins over a variable, a variable over the
file, the file over the default. The paths in all three are taken from where the process runs.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Node {
    /// File with the settings, in TOML.
    #[arg(long, env = "CAIRN_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print every setting with its meaning and its default, as a file to start from, and end.
    #[arg(long)]
    example_config: bool,
    /// Check all that a start would trip over, and end: the settings, the cluster secret, whose the data folder is, whether the ports are
    /// free, and the nodes to join. Nothing is changed.
    #[arg(long)]
    check: bool,
    /// With --bootstrap and --join: make a new cluster although nodes of --join do not answer. If one of them is in a cluster, that is a
    /// second cluster beside it; so say it once, when you know.
    #[arg(long)]
    force_new_cluster: bool,
    /// Stop in an orderly way when standard input ends: a supervisor holds its other end and may die.
    #[arg(long, hide = true)]
    stop_with_stdin: bool,
    #[command(flatten)]
    settings: Overrides,
}

impl Node {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        if self.example_config {
            return crate::output::bytes(crate::config::example::EXAMPLE.as_bytes());
        }
        let file = self.config.as_deref().map_or_else(|| Ok(NodeConfig::default()), NodeConfig::read)?;
        let config = NodeConfig { force_new_cluster: self.force_new_cluster, ..self.settings.apply(&file)? };
        config.validate()?;
        if self.check {
            for note in crate::node::check(&config).await? {
                crate::output::line(&note)?;
            }
            return crate::output::line("the settings are valid");
        }
        let telemetry = crate::telemetry::Telemetry::start(&config.log)?;
        Box::pin(crate::node::run(config, telemetry, crate::node::Stop::from_system(self.stop_with_stdin)?)).await
    }
}
