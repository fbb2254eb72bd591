//! Tenants stay whole: the files of a tenant are used by transactions, which do not span groups.

use super::find::{Names, Tenant};
use super::order::{How, Wish, carry_out};
use crate::cli::connection::Session;
use crate::failure::Failure;
use crate::output::Output;
use bytes::Bytes;
use fs_layer::keys::KeyKind;
use metadb_proto::v1::ShardRecord;
use shard_router::client::Scan;
use shard_router::operator::{Operator, Wanted};
use std::collections::{BTreeMap, BTreeSet};

/// Moves all shards of a tenant that are not there to a group.
pub(in crate::cli::admin) async fn move_whole(session: &Session, output: Output, name: &str, to: u32, how: How) -> Result<(), Failure> {
    let tenant = Tenant::find(&session.operator(), name).await?;
    let moving = tenant.shards.iter().filter(|shard| shard.group_id != to).cloned();
    let wishes: Vec<Wish> = moving.map(|shard| (shard, Wanted::Move { to_group_id: to })).collect();
    carry_out(session, output, &[wishes], &how, &tenant.names()).await
}

/// Refuses moves after which the files of a tenant would be in several groups.
pub(super) async fn check(operator: &Operator, moving: &[ShardRecord], to: u32, names: &Names) -> Result<(), Failure> {
    let mut moved: BTreeMap<u64, BTreeSet<Bytes>> = BTreeMap::new();
    for shard in moving {
        moved.entry(shard.tenant_id).or_default().insert(shard.start.clone());
    }
    for (tenant_id, starts) in moved {
        let stays = |shard: &ShardRecord| shard.group_id != to && !starts.contains(&shard.start);
        let is_part = operator.shards(tenant_id).await?.iter().any(stays);
        if is_part && has_files(operator, tenant_id).await? {
            let name = names.of(tenant_id);
            let message =
                format!("tenant {name} has folders or buckets, which need transactions over all of its shards, and some would stay behind");
            let hint = format!("move all of them: `cairn admin shard move --tenant {name} --to {to}`; --force moves a part all the same");
            return Err(Failure::usage(message).hint(hint));
        }
    }
    Ok(())
}

/// Whether there is a namespace in a tenant's keys.
async fn has_files(operator: &Operator, tenant_id: u64) -> Result<bool, Failure> {
    let start = KeyKind::Node.prefix();
    let mut end = start.clone();
    end.push(u8::MAX);
    let first = Scan { start: start.into(), end: end.into(), limit: 1, keys_only: true, ..Scan::default() };
    Ok(!operator.router().tenant(tenant_id).scan(first).await?.rows.is_empty())
}
