//! An operator who splits, merges and moves shards all the while, and changes his mind; and what must hold of them when all is well: no
//! change is left over, the shards of a tenant tile it, the groups' logs say what the directory says, and every mark leads to the owner.
//!
//! A tenant moves whole, for the other workloads have transactions over all of its keys: it is moved while it has one shard, and cut and put
//! together again in between.

use super::{Client, below, think};
use bytes::Bytes;
use checkers::ownership::tile;
use metadb_proto::v1::shard_change_record::{Kind, State};
use metadb_proto::v1::{self, ShardRecord, shard_history_record::Outcome, shard_status};
use metadb_proto::{Error, seam};
use shard_router::operator::{Operator, ShardOrder, Wanted};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Between two orders, at most.
const THINK: Duration = Duration::from_millis(500);
/// How long the operator waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most shards of a tenant.
const SHARDS: usize = 4;
/// All changes are through this long after the faults.
const THROUGH_WITHIN: Duration = Duration::from_secs(60);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(100);
/// Where tenants are cut: between and inside of what the workloads write.
const CUTS: [&[u8]; 8] = [b"\x02", b"again/", b"bank/3", b"list/", b"once", b"r/", b"r/1/1", b"z"];

/// Asks for changes until the run ends.
pub async fn run(client: Client) {
    let operator = Operator::new(client.routers[0].clone());
    while !client.shared.stopped() {
        think(THINK).await;
        let tenant_id = client.tenants[usize::try_from(below(client.tenants.len() as u64)).unwrap_or(0)];
        let told = tokio::time::timeout(PATIENCE, one(&operator, tenant_id)).await;
        client.shared.trace.event(format_args!("shards of tenant {tenant_id}: {told:?}"));
        match told {
            Ok(Ok(_))
            | Err(_)
            | Ok(Err(
                Error::Unavailable { .. }
                | Error::UnknownOutcome { .. }
                | Error::Conflict { .. }
                | Error::Exhausted { .. }
                // It ended between the look and the word.
                | Error::NotFound { .. },
            )) => {}
            // Its tenant is pinned elsewhere, or the balancer has moved it there already.
            Ok(Err(Error::Invalid { field, .. })) if field == "to_group_id" => {}
            Ok(Err(error)) => client.shared.unexpected.lock().push(format!("a change of a shard was refused: {error}")),
        }
    }
}

/// One word of the operator: about a change that is under way, or a new one.
async fn one(operator: &Operator, tenant_id: u64) -> Result<String, Error> {
    if let Some(change) = operator.changes(Some(tenant_id)).await?.first() {
        let state = match (below(8), change.state()) {
            (0, _) => State::Cancelling,
            (1, State::Running) => State::Paused,
            (2..6, State::Paused) => State::Running,
            _ => return Ok("waits".to_owned()),
        };
        if change.state() != State::Cancelling {
            operator.set_change(tenant_id, change.change_id, state).await?;
        }
        return Ok(format!("{} shall be {state:?}", change.change_id));
    }
    let shards = operator.shards(tenant_id).await?;
    let (key, wanted) = match (shards.as_slice(), below(3)) {
        ([], _) => return Ok("none yet".to_owned()),
        ([only], 0 | 1) => (only.start.clone(), Wanted::Move { to_group_id: 3 - only.group_id }),
        (shards, 0) if shards.len() < SHARDS => cut(shards),
        ([only], _) => cut(std::slice::from_ref(only)),
        (shards, _) => {
            let lower = usize::try_from(below(shards.len() as u64 - 1)).unwrap_or(0);
            (shards[lower].start.clone(), Wanted::Merge)
        }
    };
    let reason = "to see whether anybody notices".to_owned();
    let order = ShardOrder { tenant_id, key, wanted, reason, expected: None };
    let ordered = operator.order_changes(&[order]).await?;
    Ok(format!("{ordered:?}"))
}

/// A cut inside of some shard.
fn cut(shards: &[ShardRecord]) -> (Bytes, Wanted) {
    let inside = |at: &&&[u8]| shards.iter().any(|shard| shard.start < ***at && (shard.end.is_empty() || ***at < *shard.end));
    let cuts: Vec<&&[u8]> = CUTS.iter().filter(inside).collect();
    // There are more cuts than shards, so one of them is free.
    let at = Bytes::from_static(cuts[usize::try_from(below(cuts.len() as u64)).unwrap_or(0)]);
    (at.clone(), Wanted::Split { at })
}

/// How often changes came to each end, and what is wrong with the shards once all is well.
pub async fn check(client: &Client, tally: &mut BTreeMap<(Kind, Outcome), u64>) -> Vec<String> {
    let operator = Operator::new(client.routers[0].clone());
    match Box::pin(look(&operator, &client.tenants, tally)).await {
        Ok(problems) => problems,
        Err(error) => vec![format!("the operator is told: {error}")],
    }
}

async fn look(operator: &Operator, tenants: &[u64], tally: &mut BTreeMap<(Kind, Outcome), u64>) -> Result<Vec<String>, Error> {
    let left = until_through(operator).await?;
    if !left.is_empty() {
        return Ok(vec![format!("{THROUGH_WITHIN:?} after the faults changes of shards are not through: {left:?}")]);
    }
    let mut problems = Vec::new();
    let mut said: BTreeMap<u32, Vec<v1::ShardStatus>> = BTreeMap::new();
    for group in operator.groups().await?.iter().filter(|group| group.group_id != 0) {
        said.insert(group.group_id, operator.group_shards(group.group_id).await?);
    }
    for tenant_id in tenants {
        let shards = operator.shards(*tenant_id).await?;
        let ranges: Vec<_> = shards.iter().map(|shard| (*tenant_id, shard.start.to_vec(), shard.end.to_vec())).collect();
        if !tile(&ranges) {
            problems.push(format!("the shards of tenant {tenant_id} do not tile it: {shards:?}"));
        }
        problems.extend(shards.iter().filter(|shard| !is_owned(shard, &said)).map(|shard| format!("no group owns {shard:?}: {said:?}")));
        for record in operator.shard_history(*tenant_id).await? {
            let kind = record.change.as_ref().map_or(Kind::Unspecified, v1::ShardChangeRecord::kind);
            *tally.entry((kind, record.outcome())).or_default() += 1;
        }
    }
    problems.extend(lost_marks(&said));
    Ok(problems)
}

/// Lets everything go on that was paused, and waits; what is left at the end of the time.
async fn until_through(operator: &Operator) -> Result<Vec<v1::ShardChangeRecord>, Error> {
    let end = Instant::now() + THROUGH_WITHIN;
    loop {
        let left = operator.changes(None).await?;
        if left.is_empty() || Instant::now() >= end {
            return Ok(left);
        }
        for change in left.iter().filter(|change| change.state() == State::Paused) {
            match operator.set_change(change.tenant_id, change.change_id, State::Running).await {
                Ok(_) | Err(Error::NotFound { .. } | Error::Unavailable { .. } | Error::UnknownOutcome { .. } | Error::Conflict { .. }) => {
                }
                Err(error) => return Err(error),
            }
        }
        tokio::time::sleep(LOOK + Duration::from_micros(seam::random_u64() % 1000)).await;
    }
}

/// Whether the log of the group that the directory names says so, in the same epoch, and no other group's log says that it has any of it.
fn is_owned(shard: &ShardRecord, said: &BTreeMap<u32, Vec<v1::ShardStatus>>) -> bool {
    let wanted = v1::ShardRange { tenant_id: shard.tenant_id, start: shard.start.clone(), end: shard.end.clone() };
    let has = said.iter().flat_map(|(group, shards)| shards.iter().map(move |status| (*group, status)));
    let has: Vec<_> = has.filter(|(_, status)| status.state() != shard_status::State::Dropped && meets(status, &wanted)).collect();
    matches!(has.as_slice(), [(group, status)] if *group == shard.group_id
        && status.state() == shard_status::State::Owned
        && status.epoch == shard.epoch
        && status.range.as_ref() == Some(&wanted))
}

fn meets(status: &v1::ShardStatus, wanted: &v1::ShardRange) -> bool {
    let range = status.range.clone().unwrap_or_default();
    range.tenant_id == wanted.tenant_id
        && (range.end.is_empty() || wanted.start < range.end)
        && (wanted.end.is_empty() || range.start < wanted.end)
}

/// Marks that lead round in circles: each must lead to a later epoch.
fn lost_marks(said: &BTreeMap<u32, Vec<v1::ShardStatus>>) -> Vec<String> {
    let mut problems = Vec::new();
    for (group, mark) in said.iter().flat_map(|(group, shards)| shards.iter().map(move |status| (*group, status))) {
        if mark.state() != shard_status::State::Dropped || mark.other_group_id == 0 {
            continue;
        }
        let range = mark.range.clone().unwrap_or_default();
        let there = said.get(&mark.other_group_id).into_iter().flatten().filter(|status| meets(status, &range));
        if let Some(back) = there.filter(|status| status.state() == shard_status::State::Dropped).find(|status| status.epoch < mark.epoch) {
            problems.push(format!(
                "group {group} leads to group {}, which leads back to {}: {mark:?}",
                mark.other_group_id, back.other_group_id
            ));
        }
    }
    problems
}
