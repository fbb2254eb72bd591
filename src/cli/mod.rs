//! The command line: what can be said, and who does it. One file per family of verbs.

mod admin;
mod completions;
mod connection;
mod demo;
mod demo_shards;
mod dev;
mod fs;
mod node;
mod time;

use crate::failure::{EXIT_CODES, Failure};
use crate::output::{Format, Output};
use clap::{Parser, Subcommand};
use std::process::ExitCode;
use std::time::Duration;

pub(crate) use connection::{Context, Key};
pub(crate) use fs::copies;
use time::time;

/// How long the process waits for its tasks to end, when all is done.
const LET_GO_WITHIN: Duration = Duration::from_secs(2);

const EXAMPLES: &str = "\
Examples:
  cairn dev                          three nodes here, data in ./cairn-data
  cairn admin status                 who is up, who leads
  cairn fs put report.pdf /demo/     a file into the bucket `demo`
  cairn node --config node.toml      one node of a real cluster
  cairn demo /usr/share/doc          upload a tree while a node is killed, compare every byte";

/// A replicated metadata database, a cloud file system and an object gateway in one binary.
#[derive(Debug, Parser)]
#[command(name = "cairn", version, max_term_width = 110, arg_required_else_help = true, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(crate) struct Cli {
    /// How answers are printed.
    #[arg(short, long, global = true, value_enum, default_value_t, env = "CAIRN_OUTPUT", hide_env_values = true)]
    output: Format,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a cluster on this machine, for development.
    Dev(dev::Dev),
    /// Run one node of a cluster.
    Node(Box<node::Node>),
    /// Look at a cluster and change it.
    Admin(admin::Admin),
    /// List, read and write files.
    Fs(fs::Fs),
    /// Upload a folder to a cluster of its own, kill a node meanwhile, and compare every byte.
    Demo(demo::Demo),
    /// Move every shard of thousands of tenants to other groups while clients write to them.
    DemoShards(demo_shards::DemoShards),
    /// Print the completions for a shell.
    Completions(completions::Completions),
}

/// Does what the command line says.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            crate::output::failure(&failure);
            failure.exit_code()
        }
    }
}

/// One processor is left to the threads that are not the runtime's, the log's writer before all: it decides how soon a write is durable.
/// `TOKIO_WORKER_THREADS` says otherwise.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        builder.worker_threads(processors.saturating_sub(1).max(1));
    }
    builder.enable_all().build()
}

fn run(cli: Cli) -> Result<(), Failure> {
    let output = Output { format: cli.output };
    if let Verb::Completions(verb) = &cli.verb {
        return verb.run();
    }
    let runtime = runtime().map_err(|error| Failure::failed(format!("can't start the runtime: {error}")))?;
    let ended = runtime.block_on(async {
        match cli.verb {
            Verb::Dev(verb) => verb.run(output).await,
            Verb::Node(verb) => verb.run().await,
            Verb::Admin(verb) => Box::pin(verb.run(output)).await,
            Verb::Fs(verb) => Box::pin(verb.run(output)).await,
            Verb::Demo(verb) => Box::pin(verb.run(output)).await,
            Verb::DemoShards(verb) => Box::pin(verb.run(output)).await,
            Verb::Completions(_) => Ok(()),
        }
    });
    // Whatever still holds the store lets go of it before the process ends, or RocksDB would be closed under its own feet. A read of a
    // standard input that nobody ends can't be taken back: waiting has an end.
    runtime.shutdown_timeout(LET_GO_WITHIN);
    ended
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_has_a_meaning_and_examples() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path}: no meaning");
            if path.trim() != "help" {
                let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(after.contains("Examples:"), "{path}: no examples");
            }
            command.get_subcommands().for_each(|verb| check(verb, &path));
        }
        let mut command = Cli::command().disable_help_subcommand(true);
        command.build();
        check(&command, "");
    }
}
