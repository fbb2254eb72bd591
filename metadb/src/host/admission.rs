//! The door of one group: who goes at once, who waits, who is refused.
//!
//! While fewer requests are in flight than the limit and nobody waits, a request costs one atomic addition on its way in and one
//! subtraction on its way out. Only past the limit is the lock taken and a line formed.
//!
//! Invariants: whoever is counted in flight has a [`Permit`], which gives its place back however the request ends; a request that gives up
//! waiting leaves its line; whenever places are free and somebody waits, the next one goes.

use super::Host;
use super::ceiling::Ceiling;
use super::fair::{Arrival, FairQueue, Pushed, Room};
use super::load::Load;
use metadb_proto::principal::DIRECTORY_TENANT;
use metadb_proto::settings::registry::{
    HOST_READS_IN_FLIGHT, HOST_WRITES_IN_FLIGHT, TENANT_BYTES_PER_S, TENANT_QUEUE_BYTES, TENANT_QUEUE_REQUESTS, TENANT_REQUESTS_PER_S,
    TENANT_WEIGHT,
};
use metadb_proto::settings::{Asker, Setting};
use metadb_proto::{Error, v1};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// What waits at one door in one lane, of all tenants together.
const LANE: Room = Room { requests: 4096, bytes: 64 << 20 };
/// Bytes of what waits at all doors of a node. Past it a request is refused wherever it comes.
const NODE_BYTES: usize = 256 << 20;
/// Tenants whose counts are kept at one door and lane: the newest that waited or were refused.
const TALLIES: usize = 256;
/// Tenants told in a status.
const TOLD: usize = 8;
/// Shortest and longest time after which a refused request may come again.
const RETRY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Tells a waiting request that it may go, or why it may not.
type Turn = oneshot::Sender<Result<(), Error>>;

/// The door of one group.
pub(crate) struct Admission {
    host: Arc<Host>,
    group_id: u32,
    reads: Lane,
    writes: Lane,
}

/// Requests of one kind.
struct Lane {
    limit: &'static Setting<u64>,
    /// Cost of what is worked on.
    in_flight: AtomicU64,
    /// How many wait; read without the lock.
    waiting: AtomicUsize,
    line_up: Mutex<LineUp>,
}

struct LineUp {
    queue: FairQueue<Turn>,
    tallies: BTreeMap<u64, Tally>,
    waited: u64,
    refused: u64,
    pace: Pace,
}

/// What was counted of a tenant that had to wait.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    waited: u64,
    refused: u64,
}

/// How fast requests that wait are taken: an average that follows the last few hundred.
struct Pace {
    last: Instant,
    nanos: u64,
}

impl Pace {
    fn note(&mut self, now: Instant) {
        let nanos = u64::try_from(now.saturating_duration_since(self.last).as_nanos()).unwrap_or(u64::MAX).min(1_000_000_000);
        self.last = now;
        self.nanos = self.nanos - self.nanos / 128 + nanos / 128;
    }
}

/// A place among those that are worked on.
pub(crate) struct Permit<'a> {
    admission: &'a Admission,
    lane: &'a Lane,
    cost: u64,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.lane.in_flight.fetch_sub(self.cost, Ordering::SeqCst);
        if self.lane.waiting.load(Ordering::SeqCst) > 0 {
            self.admission.take_next(self.lane, &mut self.lane.line_up.lock());
        }
    }
}

impl Admission {
    /// The door of a group on this host.
    pub(crate) fn new(host: Arc<Host>, group_id: u32) -> Self {
        let (reads, writes) = (Lane::new(&HOST_READS_IN_FLIGHT), Lane::new(&HOST_WRITES_IN_FLIGHT));
        Admission { host, group_id, reads, writes }
    }

    /// Waits until a request may be worked on.
    ///
    /// # Errors
    /// [`Error::Exhausted`] if its tenant is over its ceiling, if too much waits, or if its turn did not come before the deadline.
    pub(crate) async fn enter(&self, tenant_id: u64, load: Load, deadline: Instant) -> Result<Permit<'_>, Error> {
        let lane = if load.writes { &self.writes } else { &self.reads };
        let (limit, ceiling) = {
            let table = self.host.settings.table();
            let held = table.of(Asker::tenant(tenant_id));
            let ceiling = Ceiling { requests_per_s: held.get(&TENANT_REQUESTS_PER_S), bytes_per_s: held.get(&TENANT_BYTES_PER_S) };
            // A ceiling for all tenants is not one for the nodes' own work in the directory.
            (held.get(lane.limit), if tenant_id == DIRECTORY_TENANT { Ceiling::default() } else { ceiling })
        };
        if !ceiling.is_none() {
            self.host.ceilings.pass(tenant_id, ceiling, load, deadline).await?;
        }
        if lane.enter_at_once(load.cost, limit) {
            return Ok(Permit { admission: self, lane, cost: load.cost });
        }
        self.wait(lane, tenant_id, load, deadline).await
    }

    async fn wait<'a>(&'a self, lane: &'a Lane, tenant_id: u64, load: Load, deadline: Instant) -> Result<Permit<'a>, Error> {
        let mut waiting = self.line_up(lane, tenant_id, load)?;
        match tokio::time::timeout(deadline.saturating_duration_since(Instant::now()), &mut waiting.turn).await {
            Ok(Ok(Ok(()))) => {
                waiting.ended = true;
                Ok(Permit { admission: self, lane, cost: load.cost })
            }
            Ok(Ok(Err(error))) => {
                waiting.ended = true;
                Err(error)
            }
            // The sender lives in the queue, and the queue as long as this door.
            Ok(Err(_)) => Err(Error::internal("a waiting request was forgotten")),
            Err(_) => {
                let message = format!("tenant {tenant_id}: its turn in group {} did not come before the deadline", self.group_id);
                Err(Error::Exhausted { message, retry_after: RETRY.0 })
            }
        }
    }

    fn line_up<'a>(&'a self, lane: &'a Lane, tenant_id: u64, load: Load) -> Result<Waiting<'a>, Error> {
        let (weight, room) = {
            let table = self.host.settings.table();
            let held = table.of(Asker::tenant(tenant_id));
            let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
            let room = Room { requests: number(held.get(&TENANT_QUEUE_REQUESTS)), bytes: number(held.get(&TENANT_QUEUE_BYTES)) };
            (held.get(&TENANT_WEIGHT), room)
        };
        let (turn, told) = oneshot::channel();
        let mut line_up = lane.line_up.lock();
        let before = line_up.queue.waiting().bytes;
        let node_full = self.host.waiting_bytes.load(Ordering::Relaxed).saturating_add(load.bytes) > NODE_BYTES;
        let arrival = Arrival { tenant_id, weight, cost: load.cost, bytes: load.bytes, value: turn };
        let (pushed, gone) = if node_full { (Pushed::AllFull, Vec::new()) } else { line_up.queue.push(arrival, room) };
        if !gone.is_empty() {
            let error = self.refusal(&line_up, "had the longest line when all that may wait did", tenant_id);
            line_up.refused += gone.len() as u64;
            // Whoever does not listen any more has left.
            gone.into_iter().for_each(|gone| drop(gone.send(Err(error.clone()))));
        }
        let refused = match pushed {
            Pushed::Waits { .. } => None,
            Pushed::LineFull => Some("has as much waiting as it may"),
            Pushed::AllFull => Some("came when all that may wait did"),
        };
        self.note_bytes(before, line_up.queue.waiting().bytes);
        let tally = |line_up: &mut LineUp, count: fn(&mut Tally)| {
            if line_up.tallies.len() >= TALLIES && !line_up.tallies.contains_key(&tenant_id) {
                let least = line_up.tallies.iter().min_by_key(|(_, tally)| tally.waited + tally.refused).map(|(id, _)| *id);
                least.and_then(|least| line_up.tallies.remove(&least));
            }
            count(line_up.tallies.entry(tenant_id).or_default());
        };
        if let Some(why) = refused {
            line_up.refused += 1;
            lane.waiting.store(line_up.queue.waiting().requests, Ordering::SeqCst);
            tally(&mut line_up, |tally| tally.refused += 1);
            return Err(self.refusal(&line_up, why, tenant_id));
        }
        tally(&mut line_up, |tally| tally.waited += 1);
        line_up.waited += 1;
        // Told before places are looked at: whoever gives one back from now on sees that somebody waits.
        lane.waiting.store(line_up.queue.waiting().requests, Ordering::SeqCst);
        self.take_next(lane, &mut line_up);
        drop(line_up);
        let ticket = if let Pushed::Waits { ticket } = pushed { ticket } else { 0 };
        Ok(Waiting { admission: self, lane, tenant_id, ticket, cost: load.cost, turn: told, ended: false })
    }

    /// Lets those go whose turn it is.
    fn take_next(&self, lane: &Lane, line_up: &mut LineUp) {
        let limit = self.host.settings.get(lane.limit, Asker::NODE);
        let before = line_up.queue.waiting();
        while lane.in_flight.load(Ordering::SeqCst) < limit {
            let Some(taken) = line_up.queue.pop() else { break };
            lane.in_flight.fetch_add(taken.cost, Ordering::SeqCst);
            line_up.pace.note(Instant::now());
            // Who leaves takes itself out under the lock, so whoever is in the queue listens.
            if taken.value.send(Ok(())).is_err() {
                lane.in_flight.fetch_sub(taken.cost, Ordering::SeqCst);
            }
        }
        let after = line_up.queue.waiting();
        lane.waiting.store(after.requests, Ordering::SeqCst);
        self.note_bytes(before.bytes, after.bytes);
    }

    fn note_bytes(&self, before: usize, after: usize) {
        if after >= before {
            self.host.waiting_bytes.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.host.waiting_bytes.fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    /// When half of the tenant's line will be gone, as fast as requests go now and with as many tenants taking turns.
    fn refusal(&self, line_up: &LineUp, why: &str, tenant_id: u64) -> Error {
        let (line, tenants) = (line_up.queue.line(tenant_id).requests.max(1) as u64, line_up.queue.tenants().max(1) as u64);
        let nanos = line_up.pace.nanos.saturating_mul(line / 2 + 1).saturating_mul(tenants);
        let waits = line_up.queue.waiting();
        let message = format!("tenant {tenant_id} {why} for group {}: {} requests of {tenants} tenants", self.group_id, waits.requests);
        Error::Exhausted { message, retry_after: Duration::from_nanos(nanos).clamp(RETRY.0, RETRY.1) }
    }

    /// What waits for reading, and for writing.
    pub(crate) fn status(&self) -> (v1::LaneStatus, v1::LaneStatus) {
        let limit = |lane: &Lane| self.host.settings.get(lane.limit, Asker::NODE);
        (self.reads.status(limit(&self.reads)), self.writes.status(limit(&self.writes)))
    }
}

impl Lane {
    fn new(limit: &'static Setting<u64>) -> Self {
        let pace = Pace { last: Instant::now(), nanos: 0 };
        let line_up = LineUp { queue: FairQueue::new(LANE), tallies: BTreeMap::new(), waited: 0, refused: 0, pace };
        Lane { limit, in_flight: AtomicU64::new(0), waiting: AtomicUsize::new(0), line_up: Mutex::new(line_up) }
    }

    fn enter_at_once(&self, cost: u64, limit: u64) -> bool {
        let has_room = |in_flight: u64| (in_flight < limit).then_some(in_flight + cost);
        self.waiting.load(Ordering::SeqCst) == 0 && self.in_flight.fetch_update(Ordering::SeqCst, Ordering::SeqCst, has_room).is_ok()
    }

    fn status(&self, limit: u64) -> v1::LaneStatus {
        let line_up = self.line_up.lock();
        let waits = line_up.queue.waiting();
        let mut told: BTreeMap<u64, (Room, bool)> = BTreeMap::new();
        told.extend(line_up.queue.longest(TOLD).into_iter().map(|(tenant_id, room, tripped)| (tenant_id, (room, tripped))));
        let mut most: Vec<_> = line_up.tallies.iter().map(|(tenant_id, tally)| (tally.waited + tally.refused, *tenant_id)).collect();
        most.sort_unstable();
        for (_, tenant_id) in most.into_iter().rev().take(TOLD) {
            told.entry(tenant_id).or_default();
        }
        let line = |(tenant_id, (room, tripped)): (u64, (Room, bool))| {
            let tally = line_up.tallies.get(&tenant_id).copied().unwrap_or_default();
            v1::TenantLine {
                tenant_id,
                waiting_requests: room.requests as u64,
                waiting_bytes: room.bytes as u64,
                tripped,
                waited_total: tally.waited,
                refused_total: tally.refused,
            }
        };
        v1::LaneStatus {
            in_flight: self.in_flight.load(Ordering::Relaxed),
            limit,
            waiting_requests: waits.requests as u64,
            waiting_bytes: waits.bytes as u64,
            waited_total: line_up.waited,
            refused_total: line_up.refused,
            tenants: told.into_iter().map(line).collect(),
        }
    }
}

/// A request in its line. Whoever stops waiting, for whatever reason, leaves the line, or gives back the place that it was just given.
struct Waiting<'a> {
    admission: &'a Admission,
    lane: &'a Lane,
    tenant_id: u64,
    ticket: u64,
    cost: u64,
    turn: oneshot::Receiver<Result<(), Error>>,
    ended: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let mut line_up = self.lane.line_up.lock();
        let before = line_up.queue.waiting().bytes;
        if line_up.queue.remove(self.tenant_id, self.ticket).is_some() {
            let after = line_up.queue.waiting();
            self.lane.waiting.store(after.requests, Ordering::SeqCst);
            self.admission.note_bytes(before, after.bytes);
        } else if let Ok(Ok(())) = self.turn.try_recv() {
            self.lane.in_flight.fetch_sub(self.cost, Ordering::SeqCst);
            self.admission.take_next(self.lane, &mut line_up);
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        for lane in [&self.reads, &self.writes] {
            self.note_bytes(lane.line_up.lock().queue.waiting().bytes, 0);
        }
    }
}

#[cfg(all(test, not(madsim)))]
#[path = "admission_tests.rs"]
mod tests;
