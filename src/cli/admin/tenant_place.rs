//! `cairn admin tenant pin`, `unpin`, `own-group` and `share-group`: where a tenant's shards may be. They are moved at once, and stay whole.

use super::group::until_ready;
use super::shard::{MoveHow, move_whole};
use crate::cli::connection::Session;
use crate::failure::{Code, Failure};
use crate::output::{self, Output};
use metadb_proto::v1::{GroupRecord, TenantRecord, group_record};
use shard_router::operator::Operator;
use shard_router::residency;
use std::collections::BTreeMap;

/// Pins a tenant to a pod and moves its shards there.
pub(super) async fn pin(session: &Session, output: Output, name: &str, pod: &str, how: MoveHow) -> Result<(), Failure> {
    let operator = session.operator();
    let mut tenant = operator.tenant(name).await?;
    pod.clone_into(&mut tenant.pod);
    if how.dry_run {
        if !operator.pods().await?.iter().any(|known| known.name == pod) {
            return Err(Failure::new(Code::NotFound, format!("no pod {pod}")).hint("`cairn admin pod list` shows the pods"));
        }
    } else {
        tenant = operator.pin_tenant(name, pod).await?;
        output::note(&format!("tenant {name} is pinned to pod {pod}: nothing moves its shards out of it from now on"));
    }
    let groups = operator.groups().await?;
    let there = operator.shards(tenant.tenant_id).await?;
    let may_hold = |id: u32| groups.iter().any(|group| group.group_id == id && residency::may_hold(group, &tenant));
    if there.iter().all(|shard| may_hold(shard.group_id)) {
        let told = serde_json::json!({ "tenant": name, "pod": pod, "moved": 0 });
        return output.done(&format!("all shards of tenant {name} are in pod {pod} already"), &told);
    }
    let Some(to) = lightest(&operator, &groups, &tenant).await? else {
        let failure = Failure::usage(format!("pod {pod} has no group that could hold tenant {name}"));
        return Err(failure.hint(format!("`cairn admin group create --pod {pod}` makes one")));
    };
    move_whole(session, output, name, to, how).await
}

/// Lets a tenant be anywhere again.
pub(super) async fn unpin(session: &Session, output: Output, name: &str) -> Result<(), Failure> {
    session.operator().pin_tenant(name, "").await?;
    let told = serde_json::json!({ "tenant": name, "pod": null });
    output.done(&format!("tenant {name} is pinned to no pod; its shards stay where they are until somebody moves them"), &told)
}

/// Gives a tenant a group that no other may be in, and moves it there.
pub(super) async fn own_group(session: &Session, output: Output, name: &str, how: MoveHow) -> Result<(), Failure> {
    let operator = session.operator();
    let tenant = operator.tenant(name).await?;
    let known = operator.groups().await?.into_iter().find(|group| group.own_of_tenant == tenant.tenant_id && group.pod == tenant.pod);
    let group = match known {
        Some(group) => group,
        None if how.dry_run => {
            let bytes = bytes(&operator, &tenant).await;
            let told = serde_json::json!({ "dry_run": true, "tenant": name, "group": null, "bytes": bytes });
            let pod = if tenant.pod.is_empty() { String::new() } else { format!(" in pod {}", tenant.pod) };
            return output.done(&format!("would make a group{pod} for tenant {name} alone, and move {} there", output::size(bytes)), &told);
        }
        None => operator.own_group(&tenant).await?,
    };
    if !how.dry_run {
        until_ready(&operator, &[group.group_id].into()).await?;
        output::note(&format!("group {} is tenant {name}'s own", group.group_id));
    }
    if operator.shards(tenant.tenant_id).await?.iter().all(|shard| shard.group_id == group.group_id) {
        let told = serde_json::json!({ "tenant": name, "group": group.group_id, "moved": 0 });
        return output.done(&format!("tenant {name} is in group {}, its own, already", group.group_id), &told);
    }
    move_whole(session, output, name, group.group_id, how).await
}

/// Lets other tenants into a tenant's own groups.
pub(super) async fn share_group(session: &Session, output: Output, name: &str) -> Result<(), Failure> {
    let operator = session.operator();
    let tenant = operator.tenant(name).await?;
    let shared = operator.share_groups(tenant.tenant_id).await?;
    let told = serde_json::json!({ "tenant": name, "shared": shared });
    output.done(&format!("{shared} groups that were tenant {name}'s own take others too from now on"), &told)
}

/// The group with the fewest shards of those that are for a tenant; its own first.
async fn lightest(operator: &Operator, groups: &[GroupRecord], tenant: &TenantRecord) -> Result<Option<u32>, Failure> {
    let mut loads: BTreeMap<u32, usize> = BTreeMap::new();
    for shard in operator.all_shards().await? {
        *loads.entry(shard.group_id).or_default() += 1;
    }
    let load = |group: &GroupRecord| loads.get(&group.group_id).copied().unwrap_or(0);
    let fit = groups.iter().filter(|group| group.state() == group_record::State::Active && residency::is_for(group, tenant));
    Ok(fit.min_by_key(|group| (group.own_of_tenant == 0, load(group), group.group_id)).map(|group| group.group_id))
}

/// About how much a tenant has; what a group does not tell counts as nothing.
async fn bytes(operator: &Operator, tenant: &TenantRecord) -> u64 {
    let mut bytes = 0;
    for shard in operator.shards(tenant.tenant_id).await.unwrap_or_default() {
        let range = [shard_router::operator::range_of(&shard)];
        let within = std::time::Duration::from_secs(5);
        let told = operator.shards_in(shard.group_id, &range, shard_router::operator::Measure::Sizes, within).await;
        bytes += told.unwrap_or_default().iter().map(|shard| shard.bytes).sum::<u64>();
    }
    bytes
}
