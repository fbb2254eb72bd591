//! `cairn admin shard merge`.

use super::find::{Named, Tenant, quoted};
use super::order::{How, carry_out};
use super::split::span;
use crate::cli::connection::Session;
use crate::failure::Failure;
use crate::output::{self, Output};
use clap::Args;
use metadb_proto::v1::ShardRecord;
use shard_router::operator::Wanted;

#[derive(Debug, Args)]
pub(super) struct Merge {
    #[command(flatten)]
    named: Named,
    /// If the one behind it is in another group, move that one here first.
    #[arg(long, conflicts_with = "no_wait")]
    move_first: bool,
    #[command(flatten)]
    how: How,
}

impl Merge {
    pub(super) async fn run(self, session: &Session, output: Output) -> Result<(), Failure> {
        let operator = session.operator();
        let tenant = Tenant::find(&operator, &self.named.tenant).await?;
        let lower = tenant.shard(&self.named.key)?.clone();
        let upper = tenant.behind(&lower).ok_or_else(|| alone(&tenant, &lower))?.clone();
        let mut stages = Vec::new();
        if upper.group_id != lower.group_id {
            if !self.move_first {
                return Err(apart(&tenant, &lower, &upper));
            }
            output::note(&format!("the shard {} goes to group {} first", span(&upper), lower.group_id));
            let to_group_id = lower.group_id;
            stages.push(vec![(upper, Wanted::Move { to_group_id })]);
        }
        stages.push(vec![(lower, Wanted::Merge)]);
        carry_out(session, output, &stages, &self.how, &tenant.names()).await
    }
}

fn alone(tenant: &Tenant, shard: &ShardRecord) -> Failure {
    let failure = Failure::usage(format!("no shard of tenant {} lies behind the one {}", tenant.name, span(shard)));
    let before = tenant.shards.iter().find(|other| !other.end.is_empty() && other.end == shard.start);
    match before {
        Some(before) if before.start.is_empty() => {
            failure.hint(format!("merge the one before it, which takes it in: `cairn admin shard merge --tenant {}`", tenant.name))
        }
        Some(before) => failure.hint(format!(
            "merge the one before it, which takes it in: `cairn admin shard merge --tenant {} --key {}`",
            tenant.name,
            quoted(&before.start)
        )),
        None => failure.hint("the tenant has one shard only: there is nothing to merge"),
    }
}

fn apart(tenant: &Tenant, lower: &ShardRecord, upper: &ShardRecord) -> Failure {
    let message = format!(
        "the shard {} is in group {}, the one behind it in group {}: only shards of one group can be merged",
        span(lower),
        lower.group_id,
        upper.group_id
    );
    let own = format!("cairn admin shard move --tenant {} --key {} --to {}", tenant.name, quoted(&upper.start), lower.group_id);
    Failure::usage(message).hint(format!("say --move-first, or move it yourself: `{own}`"))
}
