//! `cairn demo`: the main job on real input, with a fault in the middle.

use crate::demo::DemoOptions;
use crate::failure::Failure;
use crate::output::Output;
use clap::Args;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  cairn demo                             upload /usr/share/doc, kill a node meanwhile, compare every byte
  cairn demo ~/photos --workers 16
  cairn demo . --data /tmp/demo --keep   keep the cluster's data to look at with `cairn dev --data /tmp/demo`

The last line is for scripts: demo: files=… bytes=… mismatches=0 longest_pause_ms=… seconds=…
It fails if a byte differs.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Demo {
    /// The folder to upload.
    #[arg(default_value = "/usr/share/doc", value_name = "DIR")]
    folder: PathBuf,
    /// How many files travel at the same time.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
    /// How many nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: u16,
    /// How many times the node that leads most groups is killed.
    #[arg(long, default_value_t = 1)]
    kills: usize,
    /// Upload at most this many files; 0: all.
    #[arg(long, default_value_t = 0)]
    max_files: usize,
    /// Folder for the cluster's data; it must be new or empty. Without it, a temporary one.
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Keep the cluster's data at the end.
    #[arg(long)]
    keep: bool,
}

impl Demo {
    pub(crate) async fn run(self, output: Output) -> Result<(), Failure> {
        let options = DemoOptions {
            folder: self.folder,
            workers: self.workers.into(),
            nodes: self.nodes,
            kills: self.kills,
            max_files: self.max_files,
            data: self.data,
            keep: self.keep,
        };
        crate::demo::run(options, output).await
    }
}
