//! Whether the node's disks have room, and what a node without room still takes.
//!
//! A node keeps a reserve: when it is touched, the node is read-only for clients. What frees room, the directory, votes and members go on,
//! out of the reserve. What meets a full disk all the same waits in the log and in the applier; nothing fails and nothing is promised.
//!
//! Not here: who leads instead (`shard-router` moves leaders away from such a node).

use crate::command::Command;
use metadb_engine::disk::Space;
use metadb_proto::Error;
use metadb_proto::directory::DIRECTORY_TENANT;
use metadb_proto::v1::{self, operation, shard_change};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// The part of a disk that is kept in reserve, if it is less than what the settings say.
const RESERVE_PART: u64 = 20;
/// Of the reserve, this part is for votes and members only.
const LAST_PART: u64 = 4;
/// So much more than the reserve, as a part of it, must be free again before writes are taken: else they would stop and go.
const SLACK_PART: u64 = 4;
/// When a client that met a full disk may try again: room is made by people.
const RETRY: Duration = Duration::from_secs(1);
/// What a transaction may put for each row that it deletes and still count as one that frees room: the traces of a deletion.
const TRACE_BYTES: usize = 4 << 10;

/// How much room there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// Enough.
    #[default]
    Plenty,
    /// The reserve is touched: read-only for clients.
    Low,
    /// Most of the reserve is gone: not even entries of other leaders are taken.
    Out,
}

impl From<Room> for v1::Room {
    fn from(room: Room) -> Self {
        match room {
            Room::Plenty => v1::Room::Plenty,
            Room::Low => v1::Room::Low,
            Room::Out => v1::Room::Out,
        }
    }
}

/// Bytes that a disk keeps in reserve: at most `most`, and at most a twentieth of it.
#[must_use]
pub fn reserve_bytes(total_bytes: u64, most: u64) -> u64 {
    (total_bytes / RESERVE_PART).min(most)
}

/// How much room a disk has, given how it was before.
#[must_use]
pub fn judge(before: Room, space: Space, reserve: u64) -> Room {
    let slack = if before == Room::Plenty { 0 } else { reserve / SLACK_PART };
    let last = reserve / LAST_PART;
    let last_slack = if before == Room::Out { last / SLACK_PART } else { 0 };
    if space.free_bytes < last + last_slack {
        Room::Out
    } else if space.free_bytes < reserve + slack {
        Room::Low
    } else {
        Room::Plenty
    }
}

/// Whether a transaction makes room, or at least takes none.
fn frees(request: &v1::TransactRequest) -> bool {
    let (mut deleted, mut put) = (0_usize, 0_usize);
    for op in request.operations.iter().filter_map(|operation| operation.op.as_ref()) {
        match op {
            operation::Op::Get(_) => {}
            operation::Op::Delete(_) | operation::Op::DeleteRange(_) => deleted += 1,
            operation::Op::Put(row) => put += row.key.len() + row.value.len(),
            operation::Op::Add(add) => put += add.key.len() + size_of::<u64>(),
            operation::Op::PutVersionstamped(row) => put += row.prefix.len() + row.suffix.len() + row.value.len(),
        }
    }
    put <= deleted * TRACE_BYTES
}

/// Whether a leader takes a command.
#[must_use]
pub fn takes(room: Room, command: &Command) -> bool {
    match (room, command) {
        (Room::Plenty, _) | (_, Command::DropShard(_)) => true,
        (Room::Low | Room::Out, Command::Transact(request)) => {
            let directory = request.header.as_ref().is_some_and(|header| header.tenant_id == DIRECTORY_TENANT);
            directory || frees(request)
        }
        (room, Command::AdoptShard(_)) => room == Room::Low,
        (Room::Low | Room::Out, Command::Compare(_)) => false,
        // No rows are taken in; what ends a move, either way, is.
        (_, Command::ImportRows(request)) => request.rows.is_empty(),
        (room, Command::ChangeShard(v1::ChangeShard { change, .. })) => match change.as_ref().and_then(|change| change.change.as_ref()) {
            Some(shard_change::Change::Expect(_)) | None => false,
            Some(shard_change::Change::Split(_) | shard_change::Change::Merge(_)) => room == Room::Low,
            Some(
                shard_change::Change::TakeOver(_)
                | shard_change::Change::Decline(_)
                | shard_change::Change::Fence(_)
                | shard_change::Change::Lift(_)
                | shard_change::Change::HandOver(_),
            ) => true,
        },
    }
}

/// The room of a node, as everything in it sees it.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    room: AtomicU8,
    seen: Mutex<Option<(Space, u64)>>,
}

impl Gauge {
    /// How much room there is.
    pub(crate) fn room(&self) -> Room {
        match self.room.load(Ordering::Relaxed) {
            0 => Room::Plenty,
            1 => Room::Low,
            _ => Room::Out,
        }
    }

    /// Takes what was seen of the fullest disk and its reserve; says what it was before and is now. `stuck`: a write met a full disk.
    pub(super) fn look(&self, seen: Option<(Space, u64)>, stuck: bool) -> (Room, Room) {
        let before = self.room();
        let judged = seen.map_or(Room::Plenty, |(space, reserve)| judge(before, space, reserve));
        let now = if stuck { judged.max(Room::Low) } else { judged };
        self.room.store(now as u8, Ordering::Relaxed);
        *self.seen.lock() = seen;
        (before, now)
    }

    /// Refuses what a leader without room does not take.
    pub(crate) fn admit(&self, command: &Command) -> Result<(), Error> {
        let room = self.room();
        if takes(room, command) {
            return Ok(());
        }
        Err(Error::Exhausted { message: self.told(), retry_after: RETRY })
    }

    /// Refuses what a follower, or the receiver of a snapshot, has no room for.
    pub(crate) fn require(&self, enough: Room) -> Result<(), Error> {
        if self.room() <= enough { Ok(()) } else { Err(Error::unavailable(self.told(), RETRY)) }
    }

    /// What is wrong, for a person.
    pub(super) fn told(&self) -> String {
        match *self.seen.lock() {
            Some((Space { free_bytes, total_bytes }, reserve)) => format!(
                "the disk of this node is full: {} MiB of {} MiB are free, {} MiB are kept in reserve; only reads and deletions are taken until there is room",
                free_bytes >> 20,
                total_bytes >> 20,
                reserve >> 20
            ),
            None => "the disk of this node is full; only reads and deletions are taken until there is room".to_owned(),
        }
    }

    /// As the status tells it.
    pub(super) fn status(&self) -> Option<v1::DiskStatus> {
        let (space, reserve_bytes) = (*self.seen.lock())?;
        let room = v1::Room::from(self.room()).into();
        Some(v1::DiskStatus { room, free_bytes: space.free_bytes, total_bytes: space.total_bytes, reserve_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use v1::operation::{Delete, Op, Put};

    const RESERVE: u64 = 100;

    fn free(free_bytes: u64) -> Space {
        Space { free_bytes, total_bytes: 2000 }
    }

    #[test]
    fn the_reserve_is_bounded_both_ways() {
        assert_eq!(reserve_bytes(2000, 1 << 30), 100);
        assert_eq!(reserve_bytes(1 << 50, 1 << 30), 1 << 30);
    }

    #[test]
    fn room_that_was_lost_comes_back_a_little_later() {
        assert_eq!(judge(Room::Plenty, free(100), RESERVE), Room::Plenty);
        assert_eq!(judge(Room::Plenty, free(99), RESERVE), Room::Low);
        assert_eq!(judge(Room::Low, free(124), RESERVE), Room::Low, "not at once");
        assert_eq!(judge(Room::Low, free(125), RESERVE), Room::Plenty);
        assert_eq!(judge(Room::Plenty, free(24), RESERVE), Room::Out);
        assert_eq!(judge(Room::Out, free(30), RESERVE), Room::Out);
        assert_eq!(judge(Room::Out, free(31), RESERVE), Room::Low);
    }

    fn transact(tenant_id: u64, ops: Vec<Op>) -> Command {
        let header = v1::RequestHeader { tenant_id, ..Default::default() };
        let operations = ops.into_iter().map(|op| v1::Operation { op: Some(op) }).collect();
        Command::Transact(v1::TransactRequest { header: Some(header), operations, ..Default::default() })
    }

    #[test]
    fn without_room_only_what_frees_some_is_taken() {
        let put = |bytes: usize| Op::Put(Put { key: vec![1].into(), value: vec![0; bytes].into() });
        let delete = || Op::Delete(Delete { key: vec![2].into() });
        assert!(takes(Room::Plenty, &transact(7, vec![put(1)])));
        for room in [Room::Low, Room::Out] {
            assert!(!takes(room, &transact(7, vec![put(1)])));
            assert!(takes(room, &transact(7, vec![delete()])));
            assert!(takes(room, &transact(7, vec![delete(), put(100)])), "the trace of a deletion");
            assert!(!takes(room, &transact(7, vec![delete(), put(TRACE_BYTES)])), "more than a trace");
            assert!(takes(room, &transact(7, vec![])), "conditions alone");
            assert!(takes(room, &transact(DIRECTORY_TENANT, vec![put(100)])), "the cluster is still governed");
            assert!(takes(room, &Command::DropShard(v1::DropShardRequest::default())));
        }
        assert!(!takes(Room::Low, &Command::Compare(v1::CompareRequest::default())));
        assert!(!takes(Room::Out, &Command::AdoptShard(v1::AdoptShardRequest::default())));
    }

    #[test]
    fn a_write_that_met_a_full_disk_counts_whatever_the_disk_says() {
        let gauge = Gauge::default();
        assert_eq!(gauge.look(Some((free(1000), RESERVE)), true), (Room::Plenty, Room::Low));
        assert!(gauge.admit(&transact(7, vec![])).is_ok());
        assert_eq!(gauge.look(Some((free(1000), RESERVE)), false), (Room::Low, Room::Plenty));
        assert!(gauge.status().is_some_and(|disk| disk.room() == v1::Room::Plenty));
    }
}
