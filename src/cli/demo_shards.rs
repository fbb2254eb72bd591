//! `cairn demo-shards`: every shard moves to another group while clients write to it.

use crate::demo_shards::DemoShardsOptions;
use crate::failure::Failure;
use crate::output::Output;
use clap::Args;

const EXAMPLES: &str = "\
Examples:
  cairn demo-shards                      12,288 tenants; a node is drained, and every shard moves to other groups under load
  cairn demo-shards --shards 1024        the same in under a minute
  cairn demo-shards --shards 1024 --rows 64 --value-bytes 4096

The last line is for scripts:
  shards: count=… moved=… moves_per_s=… pause_p50_ms=… pause_p99_ms=… client_errors=0 lost=0 doubled=0
It fails if a client was told an error, or a write was lost or done twice.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DemoShards {
    /// How many tenants, each with one shard.
    #[arg(long, default_value_t = 12_288, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    shards: u32,
    /// Rows that each tenant has before.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rows: u32,
    /// Bytes of each value.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    value_bytes: u32,
    /// Clients that write and read all the while.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    clients: u16,
    /// How many nodes; with more than three, one is drained meanwhile.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: u16,
    /// How many groups the shards move to.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    groups: u32,
}

impl DemoShards {
    pub(crate) async fn run(self, output: Output) -> Result<(), Failure> {
        let options = DemoShardsOptions {
            shards: self.shards,
            rows: self.rows,
            value_bytes: self.value_bytes,
            clients: self.clients,
            nodes: self.nodes,
            groups: self.groups,
        };
        crate::demo_shards::run(options, output).await
    }
}
