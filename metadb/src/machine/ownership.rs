//! Which ranges a group owns, and where those went that it owned. Pure: changes are decided here and written by the machine.
//!
//! Ranges in it never overlap. An epoch only rises: a late request of an earlier epoch changes nothing.

mod changes;

pub(super) use changes::drops;

use crate::rows::shard::{Shard, State};
use bytes::Bytes;
use metadb_proto::directory::{DIRECTORY_EPOCH, DIRECTORY_GROUP, DIRECTORY_TENANT};
use metadb_proto::{Error, Version, v1};
use rpds::RedBlackTreeMapSync as SharedMap;
use std::ops::Bound;
use std::time::Duration;

/// Suggested wait for a replica that has not learnt of an epoch yet.
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// Shards and forwarding marks of one tenant, by start.
type Shards = SharedMap<Bytes, Shard>;

/// What a group owns. A copy shares all but what is changed in it: readers hold one while the next is made, thousands of times a minute
/// when shards move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ownership {
    group_id: u32,
    tenants: SharedMap<u64, Shards>,
    /// How many shards are expected: most often none, and then no request looks for one.
    expected: usize,
    /// How many are owned, behind a fence or not: asked for several times a second.
    owned: u64,
}

/// A row to write (or, without a shard, to delete): tenant and start.
pub(crate) type ShardRow = (u64, Bytes, Option<Shard>);

/// What a change of ownership came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It was so already, since a version.
    Already(Version),
    /// It is so now.
    Done(Vec<ShardRow>),
}

/// A range as it stands in requests.
#[derive(Debug, Clone)]
pub(crate) struct Range {
    pub(crate) tenant_id: u64,
    pub(crate) start: Bytes,
    pub(crate) end: Bytes,
}

impl Range {
    /// From a request.
    pub(crate) fn read(range: Option<v1::ShardRange>) -> Result<Self, Error> {
        let range = range.ok_or_else(|| Error::invalid("range", "present", "absent"))?;
        if !range.end.is_empty() && range.start >= range.end {
            return Err(Error::invalid("range.end", "above range.start, or empty", hex::encode(&range.end)));
        }
        Ok(Range { tenant_id: range.tenant_id, start: range.start, end: range.end })
    }

    /// Whether a key lies in it.
    pub(crate) fn holds(&self, key: &[u8]) -> bool {
        self.start[..] <= *key && is_before_end(key, &self.end)
    }

    fn contains(&self, start: &[u8], shard: &Shard) -> bool {
        self.start[..] <= *start && ends_by(&shard.end, &self.end)
    }
}

/// Whether one exclusive end, empty being infinite, is at or before another.
fn ends_by(end: &[u8], other: &[u8]) -> bool {
    other.is_empty() || (!end.is_empty() && end <= other)
}

fn is_owned(shard: &Shard) -> bool {
    matches!(shard.state, State::Owned | State::Fenced { .. })
}

fn is_before_end(key: &[u8], end: &[u8]) -> bool {
    end.is_empty() || key < end
}

impl Ownership {
    /// What a group owns from birth: the directory's group the directory, others nothing.
    pub(crate) fn at_birth(group_id: u32) -> Self {
        let mut tenants = SharedMap::new_sync();
        if group_id == DIRECTORY_GROUP {
            let shard = Shard { end: Bytes::new(), epoch: DIRECTORY_EPOCH, version: Version::ZERO, state: State::Owned };
            tenants.insert_mut(DIRECTORY_TENANT, Shards::new_sync().insert(Bytes::new(), shard));
        }
        let owned = u64::from(!tenants.is_empty());
        Ownership { group_id, tenants, expected: 0, owned }
    }

    /// Takes in a row found in the store.
    pub(crate) fn restore(&mut self, tenant_id: u64, start: Bytes, shard: Shard) {
        self.insert(tenant_id, start, shard);
    }

    fn insert(&mut self, tenant_id: u64, start: Bytes, shard: Shard) {
        self.remove(tenant_id, &start);
        self.expected += usize::from(matches!(shard.state, State::Expected { .. }));
        self.owned += u64::from(is_owned(&shard));
        match self.tenants.get_mut(&tenant_id) {
            Some(shards) => shards.insert_mut(start, shard),
            None => self.tenants.insert_mut(tenant_id, Shards::new_sync().insert(start, shard)),
        }
    }

    fn remove(&mut self, tenant_id: u64, start: &[u8]) {
        let Some(shard) = self.tenants.get(&tenant_id).and_then(|shards| shards.get(start)) else { return };
        self.expected -= usize::from(matches!(shard.state, State::Expected { .. }));
        self.owned -= u64::from(is_owned(shard));
        if let Some(shards) = self.tenants.get_mut(&tenant_id) {
            shards.remove_mut(start);
        }
    }

    /// How many shards are owned.
    pub(crate) fn owned(&self) -> u64 {
        self.owned
    }

    /// Whether anything of a tenant is or was owned.
    pub(crate) fn knows(&self, tenant_id: u64) -> bool {
        self.tenants.contains_key(&tenant_id)
    }

    fn find(&self, tenant_id: u64, key: &[u8]) -> Option<(&Bytes, &Shard)> {
        let shards = self.tenants.get(&tenant_id)?;
        let (start, shard) = shards.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back()?;
        is_before_end(key, &shard.end).then_some((start, shard))
    }

    /// The shard that owns a key, or why none does.
    fn owner(&self, tenant_id: u64, key: &[u8], epoch: u64) -> Result<&Shard, Error> {
        let Some((start, shard)) = self.find(tenant_id, key) else {
            if self.knows(tenant_id) {
                return Err(moved(self.group_id, DIRECTORY_GROUP, 0, None));
            }
            return Err(Error::not_found(format!("group {} owns nothing of tenant {tenant_id}", self.group_id)));
        };
        match shard.state {
            State::Dropped { to } => Err(moved(self.group_id, to.unwrap_or(DIRECTORY_GROUP), shard.epoch, Some((start, &shard.end)))),
            State::Fenced { to, epoch } => Err(moved(self.group_id, to, epoch, Some((start, &shard.end)))),
            State::Expected { .. } => {
                Err(Error::unavailable(format!("a shard of tenant {tenant_id} is on its way to group {}", self.group_id), RETRY_AFTER))
            }
            State::Owned if epoch != 0 && epoch < shard.epoch => {
                Err(moved(self.group_id, self.group_id, shard.epoch, Some((start, &shard.end))))
            }
            State::Owned if epoch > shard.epoch => {
                let message = format!("epoch {epoch} of a shard of tenant {tenant_id} has not reached group {} yet", self.group_id);
                Err(Error::unavailable(message, RETRY_AFTER))
            }
            State::Owned => Ok(shard),
        }
    }

    /// Whether a key is owned. `epoch`: as the caller knows it, 0 if not.
    pub(crate) fn check_key(&self, tenant_id: u64, key: &[u8], epoch: u64) -> Result<(), Error> {
        self.owner(tenant_id, key, epoch).map(|_| ())
    }

    /// Whether a whole range is owned, by one shard or by neighbours. The epoch is that of the first.
    pub(crate) fn check_range(&self, tenant_id: u64, start: &[u8], end: &[u8], epoch: u64) -> Result<(), Error> {
        let mut shard = self.owner(tenant_id, start, epoch)?;
        while !ends_by(end, &shard.end) {
            shard = self.owner(tenant_id, &shard.end, 0)?;
        }
        Ok(())
    }

    /// Tenant, start and end of every shard that is read and written.
    #[cfg(madsim)]
    pub(crate) fn served(&self) -> Vec<(u64, Bytes, Bytes)> {
        let served = self.after(None).filter(|(_, _, shard)| shard.state == State::Owned);
        served.map(|(tenant_id, start, shard)| (tenant_id, start.clone(), shard.end.clone())).collect()
    }

    /// Where the shard starts that a key lies in, if it is owned, behind a fence or not.
    pub(crate) fn start_of(&self, tenant_id: u64, key: &[u8]) -> Option<Bytes> {
        let (start, shard) = self.find(tenant_id, key)?;
        matches!(shard.state, State::Owned | State::Fenced { .. }).then(|| start.clone())
    }

    /// Whether a key lies in a shard whose rows arrive.
    pub(crate) fn expects(&self, tenant_id: u64, key: &[u8]) -> bool {
        self.find(tenant_id, key).is_some_and(|(_, shard)| matches!(shard.state, State::Expected { .. }))
    }

    /// Whether any shard's rows arrive.
    pub(crate) fn expects_any(&self) -> bool {
        self.expected > 0
    }

    /// Whether a range lies in one shard that is here, if only behind a fence.
    pub(crate) fn holds(&self, range: &Range) -> bool {
        let found = self.find(range.tenant_id, &range.start);
        found.is_some_and(|(_, shard)| matches!(shard.state, State::Owned | State::Fenced { .. }) && ends_by(&range.end, &shard.end))
    }

    /// Shards and marks after one, by tenant and start.
    pub(crate) fn after(&self, after: Option<(u64, Bytes)>) -> impl Iterator<Item = (u64, &Bytes, &Shard)> {
        let (tenant_id, start) = after.map_or((0, Bound::Unbounded), |(tenant_id, start)| (tenant_id, Bound::Excluded(start)));
        let rest = self
            .tenants
            .range((Bound::Excluded(tenant_id), Bound::Unbounded))
            .flat_map(|(tenant_id, shards)| shards.iter().map(|(start, shard)| (*tenant_id, start, shard)));
        let own = self.tenants.get(&tenant_id).into_iter().flat_map(move |shards| shards.range((start.clone(), Bound::Unbounded)));
        own.map(move |(start, shard)| (tenant_id, start, shard)).chain(rest)
    }

    /// Shards and marks that reach into a range.
    pub(crate) fn overlapping(&self, range: &Range) -> Vec<(Bytes, Shard)> {
        let Some(shards) = self.tenants.get(&range.tenant_id) else { return Vec::new() };
        let before = shards.range::<[u8], _>((Bound::Unbounded, Bound::Excluded(&range.start[..]))).next_back();
        let before = before.filter(|(_, shard)| is_before_end(&range.start, &shard.end));
        let inside = shards.range(range.start.clone()..).take_while(|(start, _)| is_before_end(start, &range.end));
        before.into_iter().chain(inside).map(|(start, shard)| (start.clone(), shard.clone())).collect()
    }

    /// Takes a range over.
    pub(crate) fn adopt(&mut self, range: &Range, epoch: u64, version: Version) -> Result<Change, Error> {
        if epoch == 0 {
            return Err(Error::invalid("epoch", "at least 1", "0"));
        }
        for (start, shard) in self.overlapping(range) {
            let same = start == range.start && shard.end == range.end;
            match shard.state {
                State::Owned if same && shard.epoch == epoch => return Ok(Change::Already(shard.version)),
                State::Owned if !same => {
                    let limit = "a range that overlaps no other shard of the group";
                    return Err(Error::invalid("range", limit, format!("overlaps the shard from {}", hex::encode(&start))));
                }
                State::Fenced { .. } | State::Expected { .. } => return Err(under_way(&start)),
                State::Owned | State::Dropped { .. } if shard.epoch >= epoch => return Err(late(epoch, shard.epoch)),
                State::Owned | State::Dropped { .. } => {}
            }
        }
        let shard = Shard { end: range.end.clone(), epoch, version, state: State::Owned };
        Ok(Change::Done(self.replace(range, shard)))
    }

    /// Gives a range away: `to` is the group that has it now, if one has.
    pub(crate) fn release(&mut self, range: &Range, epoch: u64, to: Option<u32>, version: Version) -> Result<Change, Error> {
        if range.tenant_id == DIRECTORY_TENANT {
            return Err(Error::invalid("range.tenant_id", "a tenant; the directory never moves", "0"));
        }
        for (start, shard) in self.overlapping(range) {
            match shard.state {
                State::Dropped { .. } if start == range.start && shard.end == range.end && shard.epoch >= epoch => {
                    return Ok(Change::Already(shard.version));
                }
                State::Owned | State::Fenced { .. } | State::Expected { .. } if !range.contains(&start, &shard) => {
                    let limit = "a range of whole shards";
                    return Err(Error::invalid("range", limit, format!("cuts the shard from {}", hex::encode(&start))));
                }
                State::Fenced { epoch: known, .. } if known > epoch => return Err(late(epoch, known)),
                _ if shard.epoch > epoch => return Err(late(epoch, shard.epoch)),
                State::Owned | State::Fenced { .. } | State::Expected { .. } | State::Dropped { .. } => {}
            }
        }
        let mark = Shard { end: range.end.clone(), epoch, version, state: State::Dropped { to } };
        Ok(Change::Done(self.replace(range, mark)))
    }

    /// Puts one shard where others, or parts of them, were.
    fn replace(&mut self, range: &Range, shard: Shard) -> Vec<ShardRow> {
        let mut rows = self.carve(range);
        rows.push((range.tenant_id, range.start.clone(), Some(shard.clone())));
        self.restore(range.tenant_id, range.start.clone(), shard);
        rows
    }

    /// Cuts a range out of whatever reaches into it.
    pub(crate) fn carve(&mut self, range: &Range) -> Vec<ShardRow> {
        let overlapping = self.overlapping(range);
        let mut rows = Vec::new();
        for (start, shard) in overlapping {
            self.remove(range.tenant_id, &start);
            rows.push((range.tenant_id, start.clone(), None));
            let left = (start < range.start).then(|| (start, Shard { end: range.start.clone(), ..shard.clone() }));
            let right = (!ends_by(&shard.end, &range.end)).then(|| (range.end.clone(), shard));
            for (start, rest) in left.into_iter().chain(right) {
                self.insert(range.tenant_id, start.clone(), rest.clone());
                rows.push((range.tenant_id, start, Some(rest)));
            }
        }
        rows
    }
}

/// `of`: the start and the end of the keys that moved, if that is known.
fn moved(from: u32, to: u32, epoch: u64, of: Option<(&Bytes, &Bytes)>) -> Error {
    let message = if to == from { format!("the shard is at epoch {epoch} now") } else { format!("group {from} does not own the range") };
    let keys = of.map(|(start, end)| Box::new(v1::KeySpan { start: start.clone(), end: end.clone() }));
    Error::Moved { message, redirect: v1::Redirect { group_id: to, leader: None, epoch, keys } }
}

fn under_way(start: &[u8]) -> Error {
    Error::Conflict { message: format!("the shard from {} is being moved", hex::encode(start)) }
}

fn late(epoch: u64, known: u64) -> Error {
    Error::Conflict { message: format!("the group knows epoch {known} of the range, epoch {epoch} comes too late") }
}

#[cfg(test)]
#[path = "ownership_tests.rs"]
mod tests;
