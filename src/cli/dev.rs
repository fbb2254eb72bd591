//! `cairn dev`: a whole cluster on this machine.

use crate::dev::DevOptions;
use crate::failure::Failure;
use crate::output::Output;
use clap::Args;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  cairn dev                              three nodes, data in ./cairn-data
  cairn dev --nodes 1                    for a laptop
  cairn dev --data /tmp/try --port-base 9400
  cairn dev -o json                      the endpoints and credentials for a program

Node N serves gRPC at port-base+N, /metrics and probes at port-base+50+N, and S3 at port-base+100+N, on loopback only. Keys are generated at the first start and
kept in DATA/credentials.toml. Started again on the same folder, it goes on with what is there. Ctrl-C stops it.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Dev {
    /// How many nodes. A folder keeps the number that it was made with.
    #[arg(long, env = "CAIRN_DEV_NODES", value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: Option<u16>,
    /// Folder with everything that the cluster keeps.
    #[arg(long, env = "CAIRN_DEV_DATA", value_name = "FOLDER", default_value = "cairn-data")]
    data: PathBuf,
    /// Where the ports start. Without it, 7400 or the next range that is free.
    #[arg(long, env = "CAIRN_DEV_PORT_BASE", value_name = "PORT", value_parser = clap::value_parser!(u16).range(1024..=65000))]
    port_base: Option<u16>,
}

impl Dev {
    pub(crate) async fn run(self, output: Output) -> Result<(), Failure> {
        let stop = crate::node::Stop::from_system(false)?;
        let options = DevOptions { data: self.data, nodes: self.nodes, port_base: self.port_base };
        crate::dev::run(options, output, stop).await
    }
}
