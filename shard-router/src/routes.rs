//! What is known of where things are: tenant → shards → group → nodes. Pure: it is told things and asked things.
//!
//! It may be wrong at any time; the groups themselves know what they own and say so. It is bounded by the number of tenants.

use bytes::Bytes;
use metadb_proto::v1::{self, NodeRef};
use metadb_proto::{Error, directory};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// A shard and who is believed to own it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) start: Bytes,
    /// Exclusive; empty: to the end of the tenant.
    pub(crate) end: Bytes,
    /// Absent when the directory may not be read: any node says where to go.
    pub(crate) group_id: Option<u32>,
    pub(crate) epoch: u64,
}

impl Place {
    /// All keys of a tenant.
    pub(crate) fn whole(group_id: Option<u32>, epoch: u64) -> Self {
        Place { start: Bytes::new(), end: Bytes::new(), group_id, epoch }
    }

    pub(crate) fn holds(&self, key: &[u8]) -> bool {
        self.start.as_ref() <= key && (self.end.is_empty() || key < self.end.as_ref())
    }
}

/// The shards of a tenant, by start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TenantRoutes {
    shards: Vec<Place>,
    /// Which load they came from.
    pub(crate) generation: u64,
}

impl TenantRoutes {
    pub(crate) fn new(mut shards: Vec<Place>, generation: u64) -> Self {
        shards.sort_by(|a, b| a.start.cmp(&b.start));
        TenantRoutes { shards, generation }
    }

    pub(crate) fn directory() -> Self {
        let place = Place::whole(Some(directory::DIRECTORY_GROUP), directory::DIRECTORY_EPOCH);
        TenantRoutes { shards: vec![place], generation: u64::MAX }
    }

    /// The tenant's only shard, if it has one.
    pub(crate) fn only(&self) -> Option<&Place> {
        match self.shards.as_slice() {
            [only] if only.start.is_empty() && only.end.is_empty() => Some(only),
            _ => None,
        }
    }

    /// The shard that holds a key.
    pub(crate) fn at(&self, key: &[u8]) -> Result<&Place, Error> {
        let after = self.shards.partition_point(|shard| shard.start.as_ref() <= key);
        self.shards[..after].last().filter(|shard| shard.holds(key)).ok_or_else(gap)
    }

    /// The shard that holds the keys just below `end` (exclusive; empty: the end of the tenant).
    pub(crate) fn below(&self, end: &[u8]) -> Result<&Place, Error> {
        let after = if end.is_empty() { self.shards.len() } else { self.shards.partition_point(|shard| shard.start.as_ref() < end) };
        self.shards[..after].last().filter(|shard| shard.end.is_empty() || (!end.is_empty() && end <= shard.end.as_ref())).ok_or_else(gap)
    }

    /// The shards that a range meets.
    pub(crate) fn overlapping<'a>(&'a self, start: &'a [u8], end: &'a [u8]) -> impl Iterator<Item = &'a Place> {
        self.shards
            .iter()
            .filter(move |shard| (shard.end.is_empty() || start < shard.end.as_ref()) && (end.is_empty() || shard.start.as_ref() < end))
    }

    /// The same with what a group said of a range, where no later epoch is known.
    pub(crate) fn with(&self, place: &Place, generation: u64) -> Self {
        let (mut shards, mut later) = (Vec::new(), Vec::new());
        for shard in &self.shards {
            let overlaps = (shard.end.is_empty() || place.start < shard.end) && (place.end.is_empty() || shard.start < place.end);
            if !overlaps {
                shards.push(shard.clone());
            } else if shard.epoch > place.epoch {
                later.push(shard.clone());
            } else {
                if shard.start < place.start {
                    shards.push(Place { end: place.start.clone(), ..shard.clone() });
                }
                if !place.end.is_empty() && (shard.end.is_empty() || place.end < shard.end) {
                    shards.push(Place { start: place.end.clone(), ..shard.clone() });
                }
            }
        }
        let mut start = Some(place.start.clone());
        for shard in later {
            if let Some(start) = start.take().filter(|start| *start < shard.start) {
                shards.push(Place { start, end: shard.start.clone(), ..place.clone() });
            }
            start = (!shard.end.is_empty()).then(|| shard.end.clone());
            shards.push(shard);
        }
        if let Some(start) = start.filter(|start| place.end.is_empty() || *start < place.end) {
            shards.push(Place { start, ..place.clone() });
        }
        TenantRoutes::new(shards, generation)
    }

    pub(crate) fn groups(&self) -> impl Iterator<Item = u32> {
        self.shards.iter().filter_map(|shard| shard.group_id)
    }
}

fn gap() -> Error {
    Error::unavailable("the directory names no shard for this key yet", std::time::Duration::from_millis(50))
}

/// The replicas of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct GroupRoute {
    pub(crate) leader: Option<Arc<NodeRef>>,
    pub(crate) voters: Vec<Arc<NodeRef>>,
}

/// Everything known.
#[derive(Debug, Default)]
pub(crate) struct RouteMap {
    tenants: BTreeMap<u64, Arc<TenantRoutes>>,
    groups: BTreeMap<u32, GroupRoute>,
    most_tenants: usize,
}

impl RouteMap {
    pub(crate) fn new(most_tenants: usize) -> Self {
        RouteMap { most_tenants, ..RouteMap::default() }
    }

    pub(crate) fn tenant(&self, tenant_id: u64) -> Option<Arc<TenantRoutes>> {
        self.tenants.get(&tenant_id).cloned()
    }

    /// Remembers a tenant's shards. A full map forgets another tenant, chosen at random: that needs no bookkeeping on the way of a request.
    pub(crate) fn learn_tenant(&mut self, tenant_id: u64, routes: Arc<TenantRoutes>, random: u64) {
        if self.tenants.len() >= self.most_tenants && !self.tenants.contains_key(&tenant_id) {
            let span = self.tenants.last_key_value().map_or(0, |(last, _)| *last).max(1);
            let from = random % span;
            let victim = self.tenants.range((Bound::Included(from), Bound::Unbounded)).next().map(|(id, _)| *id);
            if let Some(victim) = victim.or_else(|| self.tenants.keys().next().copied()) {
                self.tenants.remove(&victim);
            }
        }
        self.tenants.insert(tenant_id, routes);
    }

    pub(crate) fn forget_tenant(&mut self, tenant_id: u64) {
        self.tenants.remove(&tenant_id);
    }

    /// The voters as the directory or a status says; a leader that is among them stays believed.
    pub(crate) fn learn_voters(&mut self, group_id: u32, voters: Vec<NodeRef>) {
        let group = self.groups.entry(group_id).or_default();
        group.voters = voters.into_iter().map(Arc::new).collect();
        if group.leader.as_ref().is_some_and(|leader| !group.voters.iter().any(|voter| voter.node_id == leader.node_id)) {
            group.leader = None;
        }
    }

    pub(crate) fn learn_leader(&mut self, group_id: u32, leader: Arc<NodeRef>) {
        self.groups.entry(group_id).or_default().leader = Some(leader);
    }

    /// The node did not answer for the group: do not ask it first any more.
    pub(crate) fn doubt_leader(&mut self, group_id: u32, node: &NodeRef) {
        if let Some(group) = self.groups.get_mut(&group_id)
            && group.leader.as_ref().is_some_and(|leader| leader.address == node.address)
        {
            group.leader = None;
        }
    }

    pub(crate) fn leader(&self, group_id: u32) -> Option<Arc<NodeRef>> {
        self.groups.get(&group_id)?.leader.clone()
    }

    /// Whom to ask for a group: its leader; else the node of this process, if it is a voter; else any voter; the node to avoid last.
    pub(crate) fn pick(&self, group_id: u32, avoid: Option<&NodeRef>, local: Option<u64>, random: u64) -> Option<Arc<NodeRef>> {
        let group = self.groups.get(&group_id)?;
        let avoided = |node: &NodeRef| avoid.is_some_and(|avoid| avoid == node);
        if let Some(leader) = group.leader.as_ref().filter(|leader| !avoided(leader)) {
            return Some(Arc::clone(leader));
        }
        let candidates: Vec<&Arc<NodeRef>> = group.voters.iter().filter(|voter| !avoided(voter)).collect();
        if let Some(voter) = candidates.iter().find(|voter| Some(voter.node_id) == local) {
            return Some(Arc::clone(voter));
        }
        let any = usize::try_from(random % (candidates.len().max(1) as u64)).unwrap_or(0);
        candidates.get(any).map(|voter| Arc::clone(voter)).or_else(|| group.leader.clone()).or_else(|| group.voters.first().cloned())
    }

    /// Addresses of all nodes known.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let mut addresses: Vec<String> =
            self.groups.values().flat_map(|group| group.voters.iter().chain(&group.leader)).map(|node| node.address.clone()).collect();
        addresses.sort();
        addresses.dedup();
        addresses
    }
}

/// From a record of the directory.
impl From<v1::ShardRecord> for Place {
    fn from(record: v1::ShardRecord) -> Self {
        Place { start: record.start, end: record.end, group_id: Some(record.group_id), epoch: record.epoch }
    }
}

#[cfg(test)]
mod tests;
