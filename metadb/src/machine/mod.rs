//! What a log entry does to a group's state, on every replica alike. Pure over a store: no clock, no chance, no waiting.
//!
//! * [`Machine::apply`] takes entries in log order and writes one batch: rows, and how far it got. After a crash the log is replayed from
//!   what was flushed; entries at or before the applied position never come again.
//! * A command sees what all commands before it did, in the same call or not, so how entries are cut into calls changes nothing.
//! * Each command gets a version above all before it. Conditions and operations are judged here, in log order: no locks, nothing to undo.
//! * What a proposal asks is never believed: what can't be is an outcome with an error, the same on each replica. Each is judged by the
//!   rules of the feature level that it names. A proposal that this build can't read, and stored bytes that don't decode, stop the replica.
//!
//! Not here: who leads, what is durable, who waits for an outcome (`raft`, [`crate::group`]).

mod condition;
mod operation;
mod overlay;
pub(crate) mod ownership;
mod remembered;
mod rules;
mod seen;
mod shards;
mod transact;

pub use crate::read::View;
pub use crate::rows::applied::Applied;

use crate::command::{Command, CommandError, Proposal};
use crate::rows;
use crate::rows::change::Changes;
use crate::rows::comparison::Comparison;
use bytes::Bytes;
use metadb_engine::{COLUMN_FAMILIES, Cf, EngineError, Store, StoreRead, WriteBatch};
use metadb_proto::planted::{self, Bug};
use metadb_proto::{Error, Version, v1};
use overlay::Overlay;
use ownership::{Ownership, Range};
use prost::Message;
use remembered::Remembered;
use rules::Rules;
use seen::Seen;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A log entry.
#[derive(Debug, Clone)]
pub struct Input {
    /// Where it stands in the log, opaque here.
    pub position: Bytes,
    /// What it says.
    pub body: InputBody,
    /// Whether anybody waits for what it comes to; else its outcomes are not kept.
    pub asked: bool,
}

/// What a log entry says.
#[derive(Debug, Clone)]
pub enum InputBody {
    /// Nothing: a new leader's first entry.
    Blank,
    /// Who the members are, opaque here.
    Membership(Bytes),
    /// An encoded [`Proposal`].
    Proposal(Bytes),
}

/// What a command came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Of a transaction. A condition that failed is no error.
    Transact(Result<v1::TransactResponse, Error>),
    /// Of a change of ownership: the version since which it is so.
    Shard(Result<Version, Error>),
    /// Of a comparison: the position of its entry, by which it is named.
    Compare(Result<Bytes, Error>),
}

/// A slice of the state that is to be hashed: see [`crate::raft::compare`].
pub(crate) struct Slice {
    /// Of the entry that asked for it.
    pub(crate) position: Bytes,
    /// Which rows.
    pub(crate) family: Cf,
    /// The key that it begins at, or behind.
    pub(crate) from: Bytes,
    /// It ends with the row that makes it so large.
    pub(crate) max_bytes: u64,
    /// The state right behind that entry.
    pub(crate) view: Arc<dyn StoreRead>,
}

/// The applied state of one group on one node.
pub struct Machine {
    store: Arc<dyn Store>,
    group_id: u32,
    applied: Applied,
    /// The generation of remembered requests before the one of the last version.
    older_requests: Option<u64>,
    /// Away while a call of [`Machine::apply`] has it; if that failed, nothing is known any more.
    seen_requests: Seen,
    ownership: Arc<Ownership>,
    view: Arc<View>,
    /// The last slice that was asked for and not taken yet.
    slice: Option<Slice>,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").field("group_id", &self.group_id).field("applied", &self.applied).finish_non_exhaustive()
    }
}

impl Machine {
    /// Opens what the store has of a group; a group that it has nothing of is at its birth.
    ///
    /// # Errors
    /// [`EngineError`]; [`EngineError::Corrupt`] for rows that don't decode.
    pub fn open(store: Arc<dyn Store>, group_id: u32) -> Result<Self, EngineError> {
        let row = store.get(Cf::State, &rows::applied::key(group_id))?;
        let applied = row.as_deref().map(Applied::decode).transpose()?.unwrap_or_default();
        let older_requests = Remembered::find_older(&*store, group_id, applied.version)?;
        let seen_requests = Remembered::seen(&*store, group_id, applied.version)?;
        let mut ownership = Ownership::at_birth(group_id);
        let (start, end) = rows::shard::range(group_id);
        for row in store.cursor(Cf::State, &start[..]..&end[..], false) {
            let (key, value) = row?;
            let (tenant_id, start) = rows::shard::read_key(&key)?;
            ownership.restore(tenant_id, start, rows::shard::Shard::decode(&value)?);
        }
        let ownership = Arc::new(ownership);
        let view = Arc::new(View::new(Arc::clone(&store), group_id, applied.version, Arc::clone(&ownership)));
        Ok(Machine { store, group_id, applied, older_requests, seen_requests, ownership, view, slice: None })
    }

    /// How far it was applied.
    #[must_use]
    pub fn applied(&self) -> &Applied {
        &self.applied
    }

    /// The read side, the same for the life of the machine.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view)
    }

    /// Applies entries in log order, in as few batches as memory allows. Gives the outcomes of each entry's commands, none for an entry that
    /// nobody asked for.
    ///
    /// # Errors
    /// [`EngineError`]: the entry at hand and those behind it were not written, and the replica must stop.
    pub fn apply(&mut self, entries: Vec<Input>) -> Result<Vec<Vec<Outcome>>, EngineError> {
        let mut outcomes = Vec::with_capacity(entries.len());
        self.apply_onto(entries, &mut outcomes)?;
        Ok(outcomes)
    }

    /// The same. After an error there are as many outcomes more as entries were written; those must not come again.
    ///
    /// # Errors
    /// As [`Machine::apply`].
    pub(crate) fn apply_onto(&mut self, entries: Vec<Input>, outcomes: &mut Vec<Vec<Outcome>>) -> Result<(), EngineError> {
        let mut entries = entries.into_iter().peekable();
        while entries.peek().is_some() {
            let mut written = Vec::new();
            self.apply_batch(&mut entries, &mut written)?;
            outcomes.append(&mut written);
        }
        Ok(())
    }

    /// The last slice that an entry asked for, once.
    pub(crate) fn take_slice(&mut self) -> Option<Slice> {
        self.slice.take()
    }

    /// Applies entries until there are no more, or what they made fills a batch, or one asks for the state as it is right behind it.
    fn apply_batch(&mut self, entries: &mut impl Iterator<Item = Input>, outcomes: &mut Vec<Vec<Outcome>>) -> Result<(), EngineError> {
        let seen = std::mem::take(&mut self.seen_requests);
        let mut run = Run::new(self, seen);
        while !run.overlay.meter.is_full()
            && run.compare.is_none()
            && run.arrived.is_empty()
            && let Some(entry) = entries.next()
        {
            let asked = entry.asked;
            let came_to = run.entry(entry)?;
            outcomes.push(if asked { came_to } else { Vec::new() });
        }
        let Run { applied, ownership, overlay, remembered, mut batch, released, compare, arrived, .. } = run;
        batch.put(Cf::State, rows::applied::key(self.group_id), applied.encode());
        if !released.is_empty() {
            // Readers must not meet a range whose rows are going while they believe it to be here.
            let mut without = Ownership::clone(&self.ownership);
            for range in &released {
                without.carve(range);
            }
            self.view.set_ownership(Arc::new(without));
        }
        self.store.write(batch)?;
        let slice = compare.map(|(family, from, max_bytes)| {
            let (position, view) = (applied.position.clone(), self.store.snapshot());
            Slice { position, family, from, max_bytes, view }
        });
        if !released.is_empty() {
            self.view.hot().clear();
        }
        if !arrived.is_empty() {
            // Rows arrived that no note tells of: whoever read the store before they did keeps nothing of it.
            self.view.hot().turn_away();
        }
        for (stem, stored) in overlay.into_rows() {
            self.view.hot().note(&stem, stored);
        }
        self.view.set_version(applied.version);
        if !Arc::ptr_eq(&self.ownership, &ownership) {
            self.view.set_ownership(Arc::clone(&ownership));
            self.ownership = ownership;
        }
        self.applied = applied;
        self.slice = slice.or(self.slice.take());
        (self.older_requests, self.seen_requests) = remembered.into_parts();
        Ok(())
    }
}

/// Why a command is not done: what its caller is told, or why the replica stops.
enum Refusal {
    Told(Error),
    Storage(EngineError),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal::Told(error)
    }
}

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Self {
        Refusal::Storage(error)
    }
}

/// Parts what a caller is told from what stops the replica.
fn told<T>(result: Result<T, Refusal>) -> Result<Result<T, Error>, EngineError> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(Refusal::Told(error)) => Ok(Err(error)),
        Err(Refusal::Storage(error)) => Err(error),
    }
}

/// One call of [`Machine::apply`]: what it changed so far.
struct Run<'a> {
    store: &'a dyn Store,
    group_id: u32,
    applied: Applied,
    ownership: Arc<Ownership>,
    overlay: Overlay<'a>,
    remembered: Remembered,
    /// What the commits of the current entry touched.
    changes: Changes,
    batch: WriteBatch,
    /// Ranges given away in this call.
    released: Vec<Range>,
    /// The slice that the last entry asked for: of which rows, from where, how large at most.
    compare: Option<(Cf, Bytes, u64)>,
    /// Whether anybody waits for the entry at hand.
    asked: bool,
    /// Tenants whose rows arrived in the current entry.
    arrived: BTreeSet<u64>,
}

impl<'a> Run<'a> {
    fn new(machine: &'a Machine, seen: Seen) -> Self {
        Run {
            store: &*machine.store,
            group_id: machine.group_id,
            applied: machine.applied.clone(),
            ownership: Arc::clone(&machine.ownership),
            overlay: Overlay::new(&*machine.store, &machine.view),
            remembered: Remembered::new(machine.group_id, machine.older_requests, seen),
            changes: Changes::default(),
            batch: WriteBatch::default(),
            released: Vec::new(),
            compare: None,
            asked: false,
            arrived: BTreeSet::new(),
        }
    }

    fn entry(&mut self, entry: Input) -> Result<Vec<Outcome>, EngineError> {
        self.applied.position = entry.position;
        self.asked = entry.asked;
        match entry.body {
            InputBody::Blank => Ok(Vec::new()),
            InputBody::Membership(membership) => {
                self.applied.membership = membership;
                Ok(Vec::new())
            }
            InputBody::Proposal(bytes) => {
                let proposal = Proposal::decode(bytes).map_err(|error| self.unreadable(&error))?;
                let level = proposal.level;
                let rules = Rules::of(level).ok_or_else(|| self.unreadable(&CommandError::Level { level }))?;
                self.overlay.meter.begin_entry(rules);
                let outcomes = proposal.commands.into_iter().map(|command| self.command(proposal.proposed, command)).collect();
                self.close_changes();
                outcomes
            }
        }
    }

    /// Why the replica stops at the entry at hand: another replica may carry it out, so no answer is right here.
    fn unreadable(&self, error: &CommandError) -> EngineError {
        let path = format!("log of group {}", self.group_id);
        let entry = hex::encode(&self.applied.position);
        if error.is_of_another_build() {
            let message = format!("entry {entry} is of a newer build ({error}); install that build on this node: its data is whole");
            return EngineError::Foreign { path, message };
        }
        EngineError::Corrupt { path, offset: 0, message: format!("entry {entry}: {error}") }
    }

    fn command(&mut self, proposed: Version, command: Command) -> Result<Outcome, EngineError> {
        // What changes nothing that a reader could see has no version.
        let version = if matches!(command, Command::Compare(_)) {
            Ok(self.applied.version)
        } else {
            self.next_version(shards::above_fence(&command).max(proposed))
        };
        Ok(match command {
            Command::Transact(request) => {
                let outcome = match version.and_then(|version| self.overlay.meter.begin_command().map(|()| version)) {
                    Ok(version) => told(self.transact(&request, version))?,
                    Err(error) => Err(error),
                };
                self.overlay.meter.made(outcome.as_ref().map_or(0, Message::encoded_len));
                Outcome::Transact(outcome)
            }
            Command::AdoptShard(request) => Outcome::Shard(version.and_then(|version| self.adopt(request, version))),
            Command::DropShard(request) => Outcome::Shard(version.and_then(|version| self.release(request, version))),
            Command::Compare(request) => Outcome::Compare(self.compare(request)),
            Command::ChangeShard(change) => Outcome::Shard(version.and_then(|version| self.change_shard(change, version))),
            Command::ImportRows(request) => Outcome::Shard(version.and_then(|version| self.import(request, version))),
        })
    }

    /// Has a slice of the state hashed as it is behind the entry at hand, and remembers how far the comparison is.
    fn compare(&mut self, request: v1::CompareRequest) -> Result<Bytes, Error> {
        self.check_group(request.group_id)?;
        let number = u8::try_from(request.family).unwrap_or(u8::MAX);
        let Some(family) = COLUMN_FAMILIES.get(usize::from(number)) else {
            return Err(Error::invalid("family", "that of some rows", request.family.to_string()));
        };
        let comparison = Comparison { began_ms: request.began_ms, family: number, from: request.from.clone() };
        self.batch.put(Cf::State, rows::comparison::key(self.group_id), comparison.encode());
        self.compare = Some((*family, request.from, request.max_bytes));
        Ok(self.applied.position.clone())
    }

    /// Writes the row of what the commits so far touched.
    fn close_changes(&mut self) {
        if let Some((key, row)) = self.changes.take(self.group_id) {
            if planted::is(Bug::ChangesWhereAsked) && !self.asked {
                return;
            }
            self.batch.put(Cf::Changes, key, row);
        }
    }

    /// Gives the next version out, and lets remembered requests go where it begins a new generation.
    fn next_version(&mut self, proposed: Version) -> Result<Version, Error> {
        let last = self.applied.version;
        let proposed = if planted::is(Bug::ApplyByOwnClock) { Version::from_unix_ms(metadb_proto::seam::unix_ms()) } else { proposed };
        let version = last.next(proposed);
        if version <= last || version == Version::MAX {
            return Err(Error::internal("the group has no version left to give: a node's clock was far in the future"));
        }
        self.remembered.forget_old(last, version, &mut self.batch);
        self.applied.version = version;
        Ok(version)
    }
}

#[cfg(test)]
mod tests;
