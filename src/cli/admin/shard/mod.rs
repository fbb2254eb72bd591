//! `cairn admin shard`: where the parts of tenants are, how large and how busy they are, and how they are split, merged and moved.
//!
//! A change is written into the directory; the cluster carries it through by itself, whoever leads, also when nobody watches.

mod control;
mod find;
mod list;
mod merge;
mod order;
mod relocate;
mod show;
mod split;
mod told;
mod top;
mod whole;

pub(super) use order::{How as MoveHow, watch as watch_changes};
pub(super) use whole::move_whole;

use crate::cli::connection::Session;
use crate::failure::Failure;
use crate::output::Output;
use clap::{Args, Subcommand};
use control::Which;
use find::Named;

const EXAMPLES: &str = "\
Examples:
  cairn admin shard list --tenant acme
  cairn admin shard show --tenant acme --key users/500
  cairn admin shard top                                          the hottest and the largest
  cairn admin shard split --tenant acme --at users/500 --dry-run
  cairn admin shard split --tenant acme --middle
  cairn admin shard merge --tenant acme --key users/100          with the one behind it
  cairn admin shard move --tenant acme --to 3 --dry-run          what it would cost
  cairn admin shard move --group 2 --to 3 --limit 10
  cairn admin shard changes                                      what is under way
  cairn admin shard history --tenant acme                        what it cost, and what was expected

A shard is named by its tenant and any key in it. Keys are bytes, shown and taken as `cairn admin kv` does: \\x00.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Shard {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List shards: where each is, and about how much it holds.
    #[command(
        after_help = "Examples:\n  cairn admin shard list --tenant acme\n  cairn admin shard list --group 3 -o json\n  cairn admin shard list --limit 50"
    )]
    List(list::List),
    /// Show all that is known of a shard: its group, size and load, what is being done to it, and what was.
    #[command(
        after_help = "Examples:\n  cairn admin shard show --tenant acme\n  cairn admin shard show --tenant acme --key users/500 -o yaml"
    )]
    Show(Named),
    /// The hottest and the largest shards, redrawn each second.
    #[command(
        after_help = "Examples:\n  cairn admin shard top                              until Ctrl-C\n  cairn admin shard top --shards 20 --every-ms 5000\n  cairn admin shard top --once -o json | jq '.busiest[0]'"
    )]
    Top(top::Top),
    /// Make two shards of one: they stay in their group, no row moves, nobody waits.
    #[command(
        after_help = "Examples:\n  cairn admin shard split --tenant acme --at users/500 --dry-run\n  cairn admin shard split --tenant acme --at users/500\n  cairn admin shard split --tenant acme --key users/100 --middle    where half of the bytes lie before"
    )]
    Split(split::Split),
    /// Make one shard of a shard and the one behind it. Both must be in one group.
    #[command(
        after_help = "Examples:\n  cairn admin shard merge --tenant acme --dry-run                    the first two\n  cairn admin shard merge --tenant acme --key users/100\n  cairn admin shard merge --tenant acme --key users/100 --move-first  also if the one behind it is in another group"
    )]
    Merge(merge::Merge),
    /// Move shards to another group while they are used. Clients see a pause of milliseconds, no error.
    #[command(
        after_help = "Examples:\n  cairn admin shard move --tenant acme --to 3 --dry-run          all shards of a tenant: bytes, time and pause to expect\n  cairn admin shard move --tenant acme --to 3\n  cairn admin shard move --tenant acme --key users/500 --to 3     one shard\n  cairn admin shard move --group 2 --to 3 --limit 10 --no-wait\n\n`cairn admin setting set shards.move_mib_per_s 16` bounds what all moves together copy in a second."
    )]
    Move(relocate::Relocate),
    /// Show splits, merges and moves that ended, the last first: what they cost, and what was expected.
    #[command(
        after_help = "Examples:\n  cairn admin shard history --tenant acme\n  cairn admin shard history --tenant acme --limit 5 -o json"
    )]
    History {
        /// Whose shards.
        #[arg(long, env = "CAIRN_TENANT", default_value = "demo")]
        tenant: String,
        /// Most changes shown. A tenant's last 64 are kept.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=64))]
        limit: u16,
    },
    /// Show splits, merges and moves that are under way, and why one does not get on.
    #[command(after_help = "Examples:\n  cairn admin shard changes\n  cairn admin shard changes --tenant acme -o json")]
    Changes {
        /// Whose shards; without it, of all tenants.
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Have changes wait. A move that is about to end ends all the same; what was copied stays.
    #[command(after_help = "Examples:\n  cairn admin shard pause 17\n  cairn admin shard pause --tenant acme")]
    Pause(Which),
    /// Let changes go on that were paused.
    #[command(after_help = "Examples:\n  cairn admin shard resume 17\n  cairn admin shard resume --tenant acme")]
    Resume(Which),
    /// Take changes back: shards stay as and where they are, what was copied is dropped. Too late for what is done already.
    #[command(after_help = "Examples:\n  cairn admin shard cancel 17\n  cairn admin shard cancel --tenant acme --no-wait")]
    Cancel(Which),
}

impl Shard {
    pub(super) async fn run(self, session: &Session, output: Output) -> Result<(), Failure> {
        match self.verb {
            Verb::List(verb) => verb.run(session, output).await,
            Verb::Show(named) => show::show(session, output, &named).await,
            Verb::Top(verb) => verb.run(session, output).await,
            Verb::Split(verb) => verb.run(session, output).await,
            Verb::Merge(verb) => verb.run(session, output).await,
            Verb::Move(verb) => verb.run(session, output).await,
            Verb::History { tenant, limit } => control::history(session, output, &tenant, limit.into()).await,
            Verb::Changes { tenant } => control::changes(session, output, tenant.as_deref()).await,
            Verb::Pause(which) => which.pause(session, output).await,
            Verb::Resume(which) => which.resume(session, output).await,
            Verb::Cancel(which) => which.cancel(session, output).await,
        }
    }
}
