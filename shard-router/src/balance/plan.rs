//! What to move so that loads are even: a pure function of records and measures. It reads no clock, draws no chance, and asks nobody.
//!
//! Three kinds of moves, each even in two measures. Tenants move between groups, by bytes and by requests; a tenant moves whole, since its
//! transactions stay in one group. Replicas move between nodes, by bytes and by number. Leaderships go from voter to voter, by number and by
//! requests.
//!
//! One rule decides all three. Loads are told in parts of the mean, or of a floor where the mean is not worth a move. A move from A to B of
//! something that weighs w is of use if `sum of w * (A - B - w) >= GAP * sum of w` over the measures: after it A has still more than B. Each such
//! move makes the sum of squares of all loads smaller, so planning ends; and to move back, loads would have to change by twice the gap,
//! so noise does not make anything go back and forth. `docs/adr/0009` has the arithmetic.
//!
//! Rules that no gain outweighs: a replica goes only to a node that takes it and is in the group's pod (`crate::residency`), a tenant only to a
//! group that it may be in. What is in the wrong place by those rules is moved first, whatever that does to loads.

use crate::residency;
use metadb_proto::v1::{GroupRecord, NodeRecord, PodRecord, TenantRecord};
use std::collections::{BTreeMap, BTreeSet};

/// How uneven, in parts of the mean, two places must be after a move for it to be of use.
pub const GAP: f64 = 0.2;

/// Below these means nothing is worth a move by that measure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Floors {
    /// Bytes of a group, and of a node.
    pub bytes: f64,
    /// Requests a second of a group, and of a node's leaders.
    pub requests: f64,
    /// Replicas of a node, and groups that it leads.
    pub count: f64,
}

impl Default for Floors {
    fn default() -> Self {
        Floors { bytes: (256_u64 << 20) as f64, requests: 500.0, count: 4.0 }
    }
}

/// Most moves of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Of tenants.
    pub tenants: usize,
    /// Of replicas: each is a copy of a group's data.
    pub replicas: usize,
    /// Of leaderships.
    pub leaders: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds { tenants: 8, replicas: 2, leaders: 4 }
    }
}

/// A node, as far as a plan needs it.
#[derive(Debug, Clone, PartialEq)]
pub struct Seat {
    /// As the directory has it.
    pub record: NodeRecord,
    /// Whether it answers, has room, and may be given more.
    pub takes: bool,
}

/// A group and what it has to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Load {
    /// As the directory has it.
    pub record: GroupRecord,
    /// Who votes.
    pub voters: BTreeSet<u64>,
    /// Who leads.
    pub leader: u64,
    /// Voters that have nearly all of its log.
    pub may_lead: BTreeSet<u64>,
    /// Bytes of its shards.
    pub bytes: f64,
    /// Requests a second.
    pub requests: f64,
    /// Nobody is moving its replicas, and an operator has not chosen them.
    pub settled: bool,
    /// Its replicas are on their way.
    pub moves: bool,
}

/// A tenant and what it asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Guest {
    /// As the directory has it.
    pub record: TenantRecord,
    /// The groups that its shards are in.
    pub groups: BTreeSet<u32>,
    /// Whether it is one shard: one that an operator has cut is moved only if it may not be where it is.
    pub whole: bool,
    /// Bytes of its shards.
    pub bytes: f64,
    /// Requests a second.
    pub requests: f64,
    /// None of its shards is being changed, nor was moved a moment ago.
    pub settled: bool,
}

/// All that a plan rests on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// The nodes.
    pub nodes: Vec<Seat>,
    /// The groups that are active and led.
    pub groups: Vec<Load>,
    /// The tenants that are active.
    pub tenants: Vec<Guest>,
    /// The pods.
    pub pods: Vec<PodRecord>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Move {
    /// All shards of a tenant to one group.
    Tenant {
        /// Which.
        tenant_id: u64,
        /// Where they are.
        from: BTreeSet<u32>,
        /// Where they shall be.
        to: u32,
    },
    /// A replica of a group to another node.
    Replica {
        /// Of which group.
        group_id: u32,
        /// The node that has it.
        from: u64,
        /// The node that shall have it.
        to: u64,
    },
    /// The leadership of a group to another voter.
    Leader {
        /// Of which group.
        group_id: u32,
        /// Who leads.
        from: u64,
        /// Who shall lead.
        to: u64,
    },
}

/// A load in two measures, in parts of the mean.
type Pair = [f64; 2];

/// What a move gains: positive only if it is of use.
fn gain(from: Pair, to: Pair, weight: Pair) -> f64 {
    let total: f64 = weight.iter().sum();
    let even: f64 = (0..2).map(|d| weight[d] * (from[d] - to[d] - weight[d])).sum();
    if total <= 0.0 { 0.0 } else { even - GAP * total }
}

/// Divides by the mean of all, or by the floor if that is more.
fn units<'a>(all: impl Iterator<Item = &'a Pair> + Clone, floors: Pair) -> Pair {
    let count = all.clone().count().max(1) as f64;
    let mean = |d: usize| all.clone().map(|load| load[d]).sum::<f64>() / count;
    [mean(0).max(floors[0]), mean(1).max(floors[1])]
}

fn scaled(load: Pair, unit: Pair) -> Pair {
    [load[0] / unit[0], load[1] / unit[1]]
}

/// The better of two candidates; of equals the one that is less, so that the same facts give the same plan.
fn better(best: Option<(f64, Move)>, gained: f64, candidate: Move) -> Option<(f64, Move)> {
    match best {
        Some((most, known)) if most > gained || most == gained && known <= candidate => Some((most, known)),
        _ => Some((gained, candidate)),
    }
}

/// What to move now, the most useful first of each kind.
#[must_use]
pub fn plan(facts: &Facts, floors: &Floors, bounds: &Bounds) -> Vec<Move> {
    let mut after = facts.clone();
    let mut moves = Vec::new();
    for (most, next) in [
        (bounds.tenants, next_tenant as fn(&Facts, &Floors) -> Option<Move>),
        (bounds.replicas, next_replica),
        (bounds.leaders, next_leader),
    ] {
        for _ in 0..most {
            let Some(found) = next(&after, floors) else { break };
            apply(&mut after, &found);
            settle(&mut after, &found);
            moves.push(found);
        }
    }
    moves
}

/// The facts as they are when a move is done.
pub fn apply(facts: &mut Facts, done: &Move) {
    match done {
        Move::Tenant { tenant_id, to, .. } => {
            let Some(tenant) = facts.tenants.iter_mut().find(|tenant| tenant.record.tenant_id == *tenant_id) else { return };
            let was = std::mem::replace(&mut tenant.groups, [*to].into());
            // How much of a tenant in several groups was in which is not told: in equal parts.
            let part = 1.0 / was.len().max(1) as f64;
            let (bytes, requests) = (tenant.bytes, tenant.requests);
            for group in &mut facts.groups {
                let id = group.record.group_id;
                let change = f64::from(u8::from(id == *to)) - if was.contains(&id) { part } else { 0.0 };
                group.bytes = (group.bytes + bytes * change).max(0.0);
                group.requests = (group.requests + requests * change).max(0.0);
            }
        }
        Move::Replica { group_id, from, to } => {
            let Some(group) = facts.groups.iter_mut().find(|group| group.record.group_id == *group_id) else { return };
            group.voters.remove(from);
            group.voters.insert(*to);
            group.may_lead.remove(from);
            group.may_lead.insert(*to);
            if group.leader == *from {
                group.leader = group.may_lead.iter().find(|id| **id != *to).copied().unwrap_or(*to);
            }
        }
        Move::Leader { group_id, to, .. } => {
            if let Some(group) = facts.groups.iter_mut().find(|group| group.record.group_id == *group_id) {
                group.leader = *to;
            }
        }
    }
}

/// What is moved by a plan is not moved by the same plan again.
fn settle(facts: &mut Facts, planned: &Move) {
    match planned {
        Move::Tenant { tenant_id, .. } => {
            facts.tenants.iter_mut().filter(|tenant| tenant.record.tenant_id == *tenant_id).for_each(|tenant| tenant.settled = false);
        }
        Move::Replica { group_id, .. } | Move::Leader { group_id, .. } => {
            facts.groups.iter_mut().filter(|group| group.record.group_id == *group_id).for_each(|group| group.settled = false);
        }
    }
}

fn next_tenant(facts: &Facts, floors: &Floors) -> Option<Move> {
    stray(facts, floors).or_else(|| heavy(facts, floors))
}

/// The loads of groups in parts of the mean of those that take the same tenants.
fn group_loads(facts: &Facts, floors: &Floors) -> BTreeMap<u32, (Pair, Pair)> {
    let mut pods: BTreeMap<&str, Vec<Pair>> = BTreeMap::new();
    let shared = || facts.groups.iter().filter(|group| takes_tenants(group) && group.record.own_of_tenant == 0);
    for group in shared() {
        pods.entry(&group.record.pod).or_default().push([group.bytes, group.requests]);
    }
    let of_pod: BTreeMap<&str, Pair> =
        pods.iter().map(|(pod, loads)| (*pod, units(loads.iter(), [floors.bytes, floors.requests]))).collect();
    let unit = |group: &Load| of_pod.get(group.record.pod.as_str()).copied().unwrap_or([floors.bytes, floors.requests]);
    let load = |group: &Load| (group.record.group_id, (scaled([group.bytes, group.requests], unit(group)), unit(group)));
    facts.groups.iter().filter(|group| takes_tenants(group)).map(load).collect()
}

fn takes_tenants(group: &Load) -> bool {
    group.record.group_id != metadb_proto::directory::DIRECTORY_GROUP
}

/// A tenant that is where it may not be: to the group with least to do of those that are for it.
fn stray(facts: &Facts, floors: &Floors) -> Option<Move> {
    let loads = group_loads(facts, floors);
    let may_hold = |id: u32, tenant: &TenantRecord| {
        facts.groups.iter().find(|group| group.record.group_id == id).is_none_or(|group| residency::may_hold(&group.record, tenant))
    };
    let mut astray = facts.tenants.iter().filter(|tenant| tenant.settled && !tenant.groups.iter().all(|id| may_hold(*id, &tenant.record)));
    astray.find_map(|tenant| {
        let fit = facts.groups.iter().filter(|group| residency::is_for(&group.record, &tenant.record));
        let total = |group: &Load| loads.get(&group.record.group_id).map_or(0.0, |(load, _)| load[0] + load[1]);
        // Its own, else one that has a part of it already, else the one with least to do.
        let rank = |group: &Load| (group.record.own_of_tenant == 0, !tenant.groups.contains(&group.record.group_id));
        let to =
            fit.min_by(|a, b| rank(a).cmp(&rank(b)).then(total(a).total_cmp(&total(b))).then(a.record.group_id.cmp(&b.record.group_id)))?;
        Some(Move::Tenant { tenant_id: tenant.record.tenant_id, from: tenant.groups.clone(), to: to.record.group_id })
    })
}

/// The tenant whose move evens loads most.
fn heavy(facts: &Facts, floors: &Floors) -> Option<Move> {
    let loads = group_loads(facts, floors);
    let group = |id: u32| facts.groups.iter().find(|group| group.record.group_id == id);
    let mut best = None;
    for tenant in facts.tenants.iter().filter(|tenant| tenant.settled && tenant.whole) {
        // One in several groups was put there by an operator.
        let (Some(from), 1) = (tenant.groups.first().copied(), tenant.groups.len()) else { continue };
        let Some((source, (load, unit))) = group(from).zip(loads.get(&from).copied()) else { continue };
        // In its own group, or in a pod that is not its own, it is by order.
        if source.record.own_of_tenant != 0 || !residency::is_for(&source.record, &tenant.record) {
            continue;
        }
        let weight = scaled([tenant.bytes, tenant.requests], unit);
        for to in facts.groups.iter().filter(|to| takes_tenants(to) && to.record.group_id != from && to.record.own_of_tenant == 0) {
            let Some((there, _)) = loads.get(&to.record.group_id).filter(|_| residency::is_for(&to.record, &tenant.record)) else {
                continue;
            };
            let gained = gain(load, *there, weight);
            if gained > 0.0 {
                let (tenant_id, from) = (tenant.record.tenant_id, tenant.groups.clone());
                best = better(best, gained, Move::Tenant { tenant_id, from, to: to.record.group_id });
            }
        }
    }
    best.map(|(_, found)| found)
}

fn id_of(seat: &Seat) -> u64 {
    seat.record.node.as_ref().map_or(0, |node| node.node_id)
}

/// The replica whose move evens nodes most, by bytes and by number.
fn next_replica(facts: &Facts, floors: &Floors) -> Option<Move> {
    let mut raw: BTreeMap<u64, Pair> = facts.nodes.iter().filter(|seat| seat.takes).map(|seat| (id_of(seat), [0.0; 2])).collect();
    for group in &facts.groups {
        for id in &group.voters {
            if let Some(load) = raw.get_mut(id) {
                *load = [load[0] + group.bytes, load[1] + 1.0];
            }
        }
    }
    let unit = units(raw.values(), [floors.bytes, floors.count]);
    let loads: BTreeMap<u64, Pair> = raw.iter().map(|(id, load)| (*id, scaled(*load, unit))).collect();
    let mut best = None;
    for group in facts.groups.iter().filter(|group| group.settled) {
        let weight = scaled([group.bytes, 1.0], unit);
        let fits = |seat: &&Seat| {
            seat.takes && !group.voters.contains(&id_of(seat)) && residency::may_be_on(&group.record, &seat.record, &facts.pods)
        };
        for to in facts.nodes.iter().filter(fits).map(id_of) {
            for from in group.voters.iter().copied() {
                let (Some(here), Some(there)) = (loads.get(&from), loads.get(&to)) else { continue };
                let gained = gain(*here, *there, weight);
                if gained > 0.0 {
                    // A leader that has to hand over first is a pause: of two that gain the same, the follower.
                    let gained = if from == group.leader { gained / 2.0 } else { gained };
                    best = better(best, gained, Move::Replica { group_id: group.record.group_id, from, to });
                }
            }
        }
    }
    best.map(|(_, found)| found)
}

/// The leadership that evens nodes most, by number and by requests; never to a node that leads as many. The reconciler evens leaders by number
/// alone: so neither undoes what the other did.
fn next_leader(facts: &Facts, floors: &Floors) -> Option<Move> {
    let mut raw: BTreeMap<u64, Pair> = facts.nodes.iter().filter(|seat| seat.takes).map(|seat| (id_of(seat), [0.0; 2])).collect();
    for group in &facts.groups {
        if let Some(load) = raw.get_mut(&group.leader) {
            *load = [load[0] + 1.0, load[1] + group.requests];
        }
    }
    let unit = units(raw.values(), [floors.count, floors.requests]);
    let loads: BTreeMap<u64, Pair> = raw.iter().map(|(id, load)| (*id, scaled(*load, unit))).collect();
    let mut best = None;
    for group in facts.groups.iter().filter(|group| group.settled) {
        let weight = scaled([1.0, group.requests], unit);
        let Some(here) = loads.get(&group.leader).copied() else { continue };
        for to in group.may_lead.intersection(&group.voters).copied().filter(|id| *id != group.leader) {
            let Some(there) = loads.get(&to).copied().filter(|_| raw[&group.leader][0] > raw[&to][0]) else { continue };
            let gained = gain(here, there, weight);
            if gained > 0.0 {
                best = better(best, gained, Move::Leader { group_id: group.record.group_id, from: group.leader, to });
            }
        }
    }
    best.map(|(_, found)| found)
}

#[cfg(test)]
mod tests;
