//! `cairn admin shard move`.

use super::find::{Names, Tenant};
use super::order::{How, Wish, carry_out};
use super::split::span;
use super::whole;
use crate::cli::admin::kv::unescape;
use crate::cli::connection::Session;
use crate::failure::{Code, Failure};
use crate::output::{self, Output};
use bytes::Bytes;
use clap::Args;
use metadb_proto::directory::{DIRECTORY_GROUP, DIRECTORY_TENANT};
use metadb_proto::v1::shard_status::State as Seen;
use metadb_proto::v1::{ShardRecord, group_record};
use shard_router::operator::{Operator, Wanted};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a group may take to list its shards.
const LIST_WITHIN: Duration = Duration::from_secs(20);

#[derive(Debug, Args)]
pub(super) struct Relocate {
    /// Whose shards: all of them, or those named by --key.
    #[arg(long, required_unless_present = "group", conflicts_with = "group")]
    tenant: Option<String>,
    /// Any key in the shard to move; may be given several times.
    #[arg(long, value_parser = unescape, requires = "tenant")]
    key: Vec<Bytes>,
    /// All shards of this group, whoever's.
    #[arg(long, value_name = "FROM")]
    group: Option<u32>,
    /// The group that gets them.
    #[arg(long, value_name = "GROUP")]
    to: u32,
    /// At most so many of them.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Also a part of a tenant that has folders or buckets: what needs a transaction over both groups is refused then.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    how: How,
}

impl Relocate {
    pub(super) async fn run(self, session: &Session, output: Output) -> Result<(), Failure> {
        let operator = session.operator();
        check_destination(&operator, self.to).await?;
        let limit = self.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let (mut shards, names) = match (&self.tenant, self.group) {
            (Some(name), _) => {
                let tenant = Tenant::find(&operator, name).await?;
                (self.of_tenant(&tenant)?, tenant.names())
            }
            (None, Some(group)) => (self.of_group(&operator, group).await?, Names::all(&operator).await?),
            (None, None) => return Err(Failure::usage("nobody's shards are named").hint("say --tenant NAME or --group FROM")),
        };
        shards.truncate(limit);
        if !self.force {
            whole::check(&operator, &shards, self.to, &names).await?;
        }
        let to_group_id = self.to;
        let wishes: Vec<Wish> = shards.into_iter().map(|shard| (shard, Wanted::Move { to_group_id })).collect();
        carry_out(session, output, &[wishes], &self.how, &names).await
    }

    /// The shards of a tenant that are meant and not there already.
    fn of_tenant(&self, tenant: &Tenant) -> Result<Vec<ShardRecord>, Failure> {
        let mut shards = tenant.shards.clone();
        if !self.key.is_empty() {
            let named: Result<BTreeSet<Bytes>, Failure> = self.key.iter().map(|key| Ok(tenant.shard(key)?.start.clone())).collect();
            let named = named?;
            shards.retain(|shard| named.contains(&shard.start));
        }
        let there: Vec<String> = shards.iter().filter(|shard| shard.group_id == self.to).map(span).collect();
        if !there.is_empty() && (there.len() == shards.len() || !self.key.is_empty()) {
            let message = format!("group {} has the shard {} already", self.to, there.join(", and the one "));
            let hint =
                format!("name another group with --to; `cairn admin shard list --tenant {}` shows where its shards are", tenant.name);
            return Err(Failure::usage(message).hint(hint));
        }
        shards.retain(|shard| shard.group_id != self.to);
        let stay = tenant.shards.iter().any(|shard| shard.group_id != self.to && !shards.iter().any(|moved| moved.start == shard.start));
        if stay || !there.is_empty() && shards.len() + there.len() < tenant.shards.len() {
            output::note(
                "afterwards the tenant's shards are in several groups: a transaction over two groups is refused, and its files need such ones",
            );
        }
        Ok(shards)
    }

    /// The shards of a group, as its own log has them.
    async fn of_group(&self, operator: &Operator, group: u32) -> Result<Vec<ShardRecord>, Failure> {
        if group == self.to {
            return Err(Failure::usage(format!("--group and --to are both {group}")).hint("name another group with --to"));
        }
        check_destination(operator, group).await?;
        let shards = operator.shards_of_group(group, LIST_WITHIN).await?;
        let owned = shards.into_iter().filter(|shard| shard.state() == Seen::Owned);
        let owned = owned.filter_map(|shard| shard.range.map(|range| (range, shard.epoch)));
        let record = |(range, epoch): (metadb_proto::v1::ShardRange, u64)| ShardRecord {
            tenant_id: range.tenant_id,
            start: range.start,
            end: range.end,
            group_id: group,
            epoch,
        };
        Ok(owned.map(record).filter(|shard| shard.tenant_id != DIRECTORY_TENANT).collect())
    }
}

/// A group of tenants that is there.
async fn check_destination(operator: &Operator, group: u32) -> Result<(), Failure> {
    let hint = "`cairn admin group list` shows the groups";
    if group == DIRECTORY_GROUP {
        return Err(Failure::usage("group 0 holds the directory, and no shards of tenants").hint(hint));
    }
    let groups = operator.groups().await?;
    match groups.iter().find(|record| record.group_id == group).map(metadb_proto::v1::GroupRecord::state) {
        Some(group_record::State::Active) => Ok(()),
        Some(group_record::State::Creating | group_record::State::Unspecified) => {
            Err(Failure::new(Code::Unavailable, format!("group {group} is being made")).hint(hint))
        }
        None => Err(Failure::new(Code::NotFound, format!("there is no group {group}")).hint(hint)),
    }
}
