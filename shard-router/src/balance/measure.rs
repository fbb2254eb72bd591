//! What there is to even: where everything is, how much it holds, and how much is asked of it.
//!
//! Bytes are those of shards as their groups tell them. Requests are those of the busiest shards that each node tells, in windows of a few
//! seconds, smoothed over several: what is not among the busiest counts as idle.

use super::plan::{Facts, Guest, Load, Seat};
use crate::operator::{Membership, Operator};
use crate::reconcile::{office, plan};
use futures::StreamExt as _;
use metadb_proto::Error;
use metadb_proto::directory::DIRECTORY_TENANT;
use metadb_proto::v1::{GroupRecord, ShardRecord, StatusResponse, TenantRecord, shard_status, tenant_record};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How much a look counts against those before.
const WEIGHT: f64 = 0.2;
/// What is asked for less often than this a second is forgotten.
const LEAST: f64 = 0.01;
/// How long a group may take to list its shards.
const LIST_WITHIN: Duration = Duration::from_secs(10);
/// Groups asked at the same time.
const GROUPS_AT_ONCE: usize = 8;

/// Requests a second of each tenant, smoothed.
#[derive(Debug, Clone, Default)]
pub struct Loads {
    tenants: BTreeMap<u64, f64>,
    looks: u32,
}

impl Loads {
    /// Takes in what nodes say now.
    pub fn look(&mut self, statuses: &BTreeMap<u64, StatusResponse>) {
        let mut seen: BTreeMap<u64, f64> = BTreeMap::new();
        for status in statuses.values() {
            let seconds = f64::from(status.busiest_window_ms.max(1)) / 1000.0;
            for shard in &status.busiest_shards {
                // Counts are estimates and may be too high by their error: what is sure.
                let sure = shard.requests.saturating_sub(shard.error);
                *seen.entry(shard.tenant_id).or_default() += sure as f64 / seconds;
            }
        }
        self.looks = self.looks.saturating_add(1);
        // The first look counts whole, so that a plan on one look has something to rest on.
        let weight = if self.looks == 1 { 1.0 } else { WEIGHT };
        for load in self.tenants.values_mut() {
            *load *= 1.0 - weight;
        }
        for (tenant_id, now) in seen {
            *self.tenants.entry(tenant_id).or_default() += weight * now;
        }
        self.tenants.retain(|_, load| *load >= LEAST);
    }

    /// How often was looked.
    #[must_use]
    pub fn looks(&self) -> u32 {
        self.looks
    }

    fn of(&self, tenant_id: u64) -> f64 {
        self.tenants.get(&tenant_id).copied().unwrap_or(0.0)
    }
}

impl Operator {
    /// All that a plan rests on, as it is now.
    ///
    /// # Errors
    /// As [`crate::Client::scan`] on the directory. A group that does not tell its shards counts as empty, and nothing of it is moved.
    pub async fn facts(&self, members: &Membership, loads: &Loads) -> Result<Facts, Error> {
        let (tenants, shards) = (self.tenants().await?, self.all_shards().await?);
        let changing: BTreeSet<u64> = self.changes(None).await?.into_iter().map(|change| change.tenant_id).collect();
        let told = futures::stream::iter(members.records.groups.iter().map(|group| self.sizes(group.group_id)));
        let sizes: BTreeMap<u32, Option<BTreeMap<u64, u64>>> = told.buffer_unordered(GROUPS_AT_ONCE).collect().await;
        let guests = guests(tenants, &shards, &sizes, loads, &changing);
        let nodes = members.records.nodes.iter().map(|record| Seat { record: record.clone(), takes: takes(members, record) }).collect();
        Ok(Facts { nodes, groups: groups(members, &sizes, &guests), tenants: guests, pods: members.records.pods.clone() })
    }

    /// What each tenant has in a group; none if the group does not tell.
    async fn sizes(&self, group_id: u32) -> (u32, Option<BTreeMap<u64, u64>>) {
        let mut sizes = BTreeMap::new();
        let Ok(shards) = self.shards_of_group(group_id, LIST_WITHIN).await else { return (group_id, None) };
        for shard in shards.iter().filter(|shard| shard.state() == shard_status::State::Owned) {
            *sizes.entry(shard.range.as_ref().map_or(DIRECTORY_TENANT, |range| range.tenant_id)).or_default() += shard.bytes;
        }
        (group_id, Some(sizes))
    }
}

fn takes(members: &Membership, record: &metadb_proto::v1::NodeRecord) -> bool {
    let id = record.node.as_ref().map_or(0, |node| node.node_id);
    office::takes(record) && members.statuses.get(&id).is_some_and(plan::trouble::has_room)
}

fn guests(
    tenants: Vec<TenantRecord>,
    shards: &[ShardRecord],
    sizes: &BTreeMap<u32, Option<BTreeMap<u64, u64>>>,
    loads: &Loads,
    changing: &BTreeSet<u64>,
) -> Vec<Guest> {
    let mut places: BTreeMap<u64, (BTreeSet<u32>, usize)> = BTreeMap::new();
    for shard in shards {
        let (groups, count) = places.entry(shard.tenant_id).or_default();
        groups.insert(shard.group_id);
        *count += 1;
    }
    let active = tenants.into_iter().filter(|tenant| tenant.state() == tenant_record::State::Active);
    let guest = |record: TenantRecord| {
        let id = record.tenant_id;
        let (groups, count) = places.get(&id).cloned().unwrap_or_default();
        let told = groups.iter().map(|group| sizes.get(group).and_then(Option::as_ref));
        let all_told = told.clone().all(|sizes| sizes.is_some());
        let bytes: u64 = told.flatten().filter_map(|sizes| sizes.get(&id)).sum();
        let settled = all_told && !groups.is_empty() && !changing.contains(&id);
        Guest { settled, whole: count == 1, groups, bytes: bytes as f64, requests: loads.of(id), record }
    };
    active.map(guest).collect()
}

fn groups(members: &Membership, sizes: &BTreeMap<u32, Option<BTreeMap<u64, u64>>>, guests: &[Guest]) -> Vec<Load> {
    let record = |id: u32| members.records.groups.iter().find(|group| group.group_id == id);
    let mut requests: BTreeMap<u32, f64> = BTreeMap::new();
    for guest in guests {
        for group in &guest.groups {
            *requests.entry(*group).or_default() += guest.requests / guest.groups.len() as f64;
        }
    }
    let load = |p: crate::reconcile::members::Placement| {
        let record: &GroupRecord = record(p.group_id)?;
        let bytes: u64 = sizes.get(&p.group_id).and_then(Option::as_ref).map_or(0, |sizes| sizes.values().sum());
        let (_, leads) = plan::leader_of(p.group_id, &members.statuses)?;
        let may_lead = p.voters.iter().copied().filter(|id| *id == p.leader || plan::can_lead(*id, leads, &members.statuses)).collect();
        let moves = p.target != p.voters || p.learners != p.target_learners || leads.joint;
        Some(Load {
            settled: !moves && record.wanted_voters.is_empty(),
            moves,
            record: record.clone(),
            leader: p.leader,
            may_lead,
            bytes: bytes as f64,
            requests: requests.get(&p.group_id).copied().unwrap_or(0.0),
            voters: p.voters,
        })
    };
    members.placements().into_iter().filter_map(load).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use metadb_proto::v1::ShardLoad;

    fn status(requests: u64, error: u64) -> StatusResponse {
        let shard = ShardLoad { tenant_id: 7, requests, error, ..Default::default() };
        StatusResponse { busiest_shards: vec![shard], busiest_window_ms: 5000, ..Default::default() }
    }

    #[test]
    fn loads_are_smoothed_and_forgotten() {
        let mut loads = Loads::default();
        loads.look(&[(1, status(1000, 0)), (2, status(600, 100))].into());
        assert!((loads.of(7) - 300.0).abs() < 0.1, "{loads:?}");
        loads.look(&BTreeMap::new());
        assert!((loads.of(7) - 240.0).abs() < 0.1, "{loads:?}");
        for _ in 0..60 {
            loads.look(&BTreeMap::new());
        }
        assert!(loads.of(7) == 0.0 && loads.tenants.is_empty(), "{loads:?}");
    }
}
