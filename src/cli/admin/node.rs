//! `cairn admin node`.

use super::status;
use crate::cli::connection::Session;
use crate::failure::Failure;
use crate::output::Output;
use clap::{Args, Subcommand};

const EXAMPLES: &str = "\
Examples:
  cairn admin node list
  cairn admin node list -o json";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Node {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the nodes, with what each says of itself.
    #[command(after_help = EXAMPLES)]
    List,
}

impl Node {
    pub(super) async fn run(self, session: &Session, output: Output) -> Result<(), Failure> {
        match self.verb {
            Verb::List => output.show(&status::nodes(session).await?),
        }
    }
}
