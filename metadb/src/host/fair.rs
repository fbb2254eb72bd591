//! Weighted fair queuing by tenant: start-time fair queuing, without I/O and without a clock.
//!
//! Every tenant has a line of its own, first in, first out. A line has a *start*: the virtual time from which its next request may go. What
//! is taken next is the head of the line with the lowest start; that start is the virtual time from then on, and the line's start rises by
//! the cost of the request over the weight of the tenant. A tenant that comes anew starts now: it has no credit for the time that it was
//! away, and no debt. So two tenants that both always have something waiting get shares of their weights, but for one request each, and
//! a tenant that asks seldom waits for at most one request of every other one.
//!
//! Bounds: requests and bytes of a line, and of all lines. When all lines together are full, the newest of the longest line makes room
//! for a shorter one: whoever is below its share is not turned away because of others. A line that was found full is *tripped*: it takes
//! nothing more until half of it has gone, so that an overload costs refusals and not a fight for single places.

use std::collections::{BTreeMap, BTreeSet};

/// Virtual time of one unit of cost at weight 1; large against the largest weight, so that shares are exact.
const UNIT: u128 = 1 << 32;
/// What a waiting request takes beside its own bytes, for comparing lines.
const REQUEST_BYTES: usize = 1 << 10;

/// Most tenants whose debts are remembered while they have nothing waiting.
const DEBTS: usize = 4096;

/// Requests and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) requests: usize,
    pub(crate) bytes: usize,
}

impl Room {
    fn takes(self, bytes: usize, within: Room) -> bool {
        self.requests < within.requests && self.bytes.saturating_add(bytes) <= within.bytes
    }

    fn add(&mut self, bytes: usize) {
        self.requests += 1;
        self.bytes += bytes;
    }

    fn take(&mut self, bytes: usize) {
        self.requests -= 1;
        self.bytes -= bytes;
    }

    fn length(self) -> usize {
        self.requests * REQUEST_BYTES + self.bytes
    }
}

/// A request that wants to wait.
#[derive(Debug)]
pub(crate) struct Arrival<T> {
    pub(crate) tenant_id: u64,
    /// The tenant's weight, at least 1.
    pub(crate) weight: u64,
    /// What it will take of what is shared, at least 1.
    pub(crate) cost: u64,
    pub(crate) bytes: usize,
    pub(crate) value: T,
}

/// A request that was taken out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Taken<T> {
    pub(crate) tenant_id: u64,
    pub(crate) cost: u64,
    pub(crate) value: T,
}

/// What became of an arrival.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It waits, under this number.
    Waits { ticket: u64 },
    /// Its tenant's line is full, or was and is not half empty yet.
    LineFull,
    /// All lines together are full, and its own is the longest.
    AllFull,
}

#[derive(Debug)]
struct Line<T> {
    start: u128,
    waiting: BTreeMap<u64, Arrival<T>>,
    room: Room,
    tripped: bool,
}

/// The lines of all tenants.
#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    lines: BTreeMap<u64, Line<T>>,
    /// Lines with something in them, by start.
    order: BTreeSet<(u128, u64)>,
    /// Lines with nothing in them whose debt is not over, by start.
    idle: BTreeSet<(u128, u64)>,
    /// Lines with something in them, by length.
    lengths: BTreeSet<(usize, u64)>,
    now: u128,
    tickets: u64,
    all: Room,
    within: Room,
}

impl<T> FairQueue<T> {
    /// An empty queue with the bounds of all lines together.
    pub(crate) fn new(within: Room) -> Self {
        FairQueue {
            lines: BTreeMap::new(),
            order: BTreeSet::new(),
            idle: BTreeSet::new(),
            lengths: BTreeSet::new(),
            now: 0,
            tickets: 0,
            all: Room::default(),
            within,
        }
    }

    /// How much waits.
    pub(crate) fn waiting(&self) -> Room {
        self.all
    }

    /// How much of a tenant waits.
    pub(crate) fn line(&self, tenant_id: u64) -> Room {
        self.lines.get(&tenant_id).map_or_else(Room::default, |line| line.room)
    }

    /// How many tenants have something waiting.
    pub(crate) fn tenants(&self) -> usize {
        self.order.len()
    }

    /// The longest lines, the longest first: tenant, what waits, whether it is tripped.
    pub(crate) fn longest(&self, most: usize) -> Vec<(u64, Room, bool)> {
        let lines = self.lengths.iter().rev().take(most);
        lines.filter_map(|(_, tenant_id)| self.lines.get(tenant_id).map(|line| (*tenant_id, line.room, line.tripped))).collect()
    }

    /// Lets a request wait, within the bounds of its tenant's line. Also gives those of longer lines that had to go for it.
    pub(crate) fn push(&mut self, arrival: Arrival<T>, within: Room) -> (Pushed, Vec<T>) {
        let (tenant_id, bytes) = (arrival.tenant_id, arrival.bytes);
        if let Some(line) = self.lines.get_mut(&tenant_id) {
            line.tripped &= line.room.requests > within.requests / 2 || line.room.bytes > within.bytes / 2;
            if line.tripped || !line.room.takes(bytes, within) {
                line.tripped = true;
                return (Pushed::LineFull, Vec::new());
            }
        } else if !Room::default().takes(bytes, within) {
            return (Pushed::LineFull, Vec::new());
        }
        let mut gone = Vec::new();
        while !self.all.takes(bytes, self.within) {
            let Some(loser) = self.longer_than(tenant_id, bytes) else { return (Pushed::AllFull, gone) };
            gone.extend(self.pop_newest(loser));
        }
        self.tickets += 1;
        let ticket = self.tickets;
        let now = self.now;
        let empty = || Line { start: now, waiting: BTreeMap::new(), room: Room::default(), tripped: false };
        let line = self.lines.entry(tenant_id).or_insert_with(empty);
        if line.waiting.is_empty() {
            self.idle.remove(&(line.start, tenant_id));
            line.start = line.start.max(now);
            self.order.insert((line.start, tenant_id));
        } else {
            self.lengths.remove(&(line.room.length(), tenant_id));
        }
        line.room.add(bytes);
        line.waiting.insert(ticket, arrival);
        self.lengths.insert((line.room.length(), tenant_id));
        self.all.add(bytes);
        (Pushed::Waits { ticket }, gone)
    }

    /// Takes the next one.
    pub(crate) fn pop(&mut self) -> Option<Taken<T>> {
        let (start, tenant_id) = *self.order.first()?;
        let ticket = *self.lines.get(&tenant_id)?.waiting.first_key_value()?.0;
        let arrival = self.unlink(tenant_id, ticket)?;
        self.now = start;
        self.charge(tenant_id, arrival.cost, arrival.weight);
        self.forget();
        Some(Taken { tenant_id, cost: arrival.cost, value: arrival.value })
    }

    /// Takes one out that does not want to wait any more; none if it is not there.
    pub(crate) fn remove(&mut self, tenant_id: u64, ticket: u64) -> Option<T> {
        let arrival = self.unlink(tenant_id, ticket)?;
        self.forget();
        Some(arrival.value)
    }

    /// The tenant with the longest line, if it is longer than this one would be.
    fn longer_than(&self, tenant_id: u64, bytes: usize) -> Option<u64> {
        let own = self.line(tenant_id).length() + REQUEST_BYTES + bytes;
        self.lengths.last().filter(|(length, longest)| *longest != tenant_id && *length > own).map(|(_, longest)| *longest)
    }

    fn pop_newest(&mut self, tenant_id: u64) -> Option<T> {
        let ticket = *self.lines.get(&tenant_id)?.waiting.last_key_value()?.0;
        let gone = self.unlink(tenant_id, ticket)?;
        if let Some(line) = self.lines.get_mut(&tenant_id) {
            line.tripped = true;
        }
        Some(gone.value)
    }

    /// Takes one out of its line, without a charge.
    fn unlink(&mut self, tenant_id: u64, ticket: u64) -> Option<Arrival<T>> {
        let line = self.lines.get_mut(&tenant_id)?;
        let arrival = line.waiting.remove(&ticket)?;
        self.lengths.remove(&(line.room.length(), tenant_id));
        line.room.take(arrival.bytes);
        self.all.take(arrival.bytes);
        if line.waiting.is_empty() {
            self.order.remove(&(line.start, tenant_id));
            self.idle.insert((line.start, tenant_id));
        } else {
            self.lengths.insert((line.room.length(), tenant_id));
        }
        Some(arrival)
    }

    /// Moves a line's start behind what it was given.
    fn charge(&mut self, tenant_id: u64, cost: u64, weight: u64) {
        let Some(line) = self.lines.get_mut(&tenant_id) else { return };
        let set = if line.waiting.is_empty() { &mut self.idle } else { &mut self.order };
        set.remove(&(line.start, tenant_id));
        line.start += UNIT * u128::from(cost.max(1)) / u128::from(weight.max(1));
        set.insert((line.start, tenant_id));
    }

    /// Lines without debts go; when nothing waits, all go, since there is nobody to be fair to.
    fn forget(&mut self) {
        if self.order.is_empty() {
            self.lines.clear();
            self.idle.clear();
            self.now = 0;
            return;
        }
        let is_over = |idle: &BTreeSet<(u128, u64)>, start: u128| start <= self.now || idle.len() > DEBTS;
        while let Some((start, tenant_id)) = self.idle.first().copied().filter(|(start, _)| is_over(&self.idle, *start)) {
            self.idle.remove(&(start, tenant_id));
            self.lines.remove(&tenant_id);
        }
    }
}

#[cfg(test)]
#[path = "fair_tests.rs"]
mod tests;
