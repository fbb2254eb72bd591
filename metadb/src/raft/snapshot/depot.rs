//! What all snapshots of a node share: the folder they lie in, the rate they move at, how many move at a time, and the counts.

use super::throttle::Throttle;
use super::{IN_PREFIX, OUT_PREFIX};
use crate::node::room::{Gauge, Room};
use metadb_engine::EngineError;
use metadb_engine::disk::Disk;
use metadb_proto::Error;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

/// A smaller transfer says nothing of how fast a large one would be.
const TELLING_BYTES: u64 = 1 << 20;

/// How snapshots travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotLimits {
    /// One file takes no further row once it has so many bytes: a transfer that finds rot repeats at most this.
    pub file_bytes: u64,
    /// Bytes of one message. A transfer that was cut goes on at such a boundary.
    pub chunk_bytes: u32,
    /// Bytes a second that all snapshots of the node together may write to files and send, so that they leave room for other traffic.
    pub bytes_per_s: u64,
    /// Snapshots of the node that are written, and sent, and received, at a time. It bounds the disk that they take.
    pub at_a_time: usize,
    /// Files of a transfer that does not go on are kept so long, on both sides.
    pub keep_idle: Duration,
    /// How long no chunk may come, or be taken, before a transfer is given up and begun anew; how long a snapshot is kept, with the log behind
    /// it, that nobody has taken anything of; and how long a follower that has it whole may not get on with the log before the log is no
    /// longer kept for it.
    pub stall: Duration,
}

impl Default for SnapshotLimits {
    fn default() -> Self {
        SnapshotLimits {
            file_bytes: 64 << 20,
            chunk_bytes: 1 << 20,
            bytes_per_s: 256 << 20,
            at_a_time: 2,
            keep_idle: Duration::from_secs(300),
            stall: Duration::from_secs(20),
        }
    }
}

impl SnapshotLimits {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Invalid`], naming the field.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let invalid = |field: &str, limit: String, value: u64| Err(Error::invalid(field, limit, value.to_string()));
        if self.chunk_bytes == 0 || self.chunk_bytes > super::CHUNK_BYTES_MAX {
            return invalid("snapshots.chunk_bytes", format!("1 to {}", super::CHUNK_BYTES_MAX), self.chunk_bytes.into());
        }
        if self.file_bytes < u64::from(self.chunk_bytes) {
            return invalid("snapshots.file_bytes", "at least chunk_bytes".to_owned(), self.file_bytes);
        }
        if self.bytes_per_s < u64::from(self.chunk_bytes) {
            return invalid("snapshots.bytes_per_s", "at least chunk_bytes".to_owned(), self.bytes_per_s);
        }
        if self.at_a_time == 0 {
            return invalid("snapshots.at_a_time", "at least 1".to_owned(), 0);
        }
        Ok(())
    }
}

/// What snapshots of a node came to since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SnapshotTotals {
    /// Snapshots that another node said to have installed.
    pub sent: u64,
    /// Their bytes, and those of transfers that were cut.
    pub sent_bytes: u64,
    /// Snapshots that came whole and right.
    pub received: u64,
    /// Their bytes, and those of transfers that were cut.
    pub received_bytes: u64,
    /// Bytes that a transfer found at the receiver, from an earlier attempt.
    pub reused_bytes: u64,
    /// Transfers that went on where an earlier one had stopped.
    pub resumed: u64,
    /// Chunks and files that failed their checksums, on either side.
    pub rotten_parts: u64,
    /// Bytes a second that the last telling transfer to another node reached, the import there included; 0: there was none.
    pub bytes_per_s: u64,
}

/// Counts of a node since it started.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Snapshots delivered.
    pub(crate) sent_whole: AtomicU64,
    /// Bytes of snapshots sent.
    pub(crate) sent: AtomicU64,
    /// Snapshots that came whole and right.
    pub(crate) received_whole: AtomicU64,
    /// Bytes of snapshots received.
    pub(crate) received: AtomicU64,
    /// Bytes that a transfer found at the receiver, from an earlier attempt.
    pub(crate) reused: AtomicU64,
    /// Transfers that went on where an earlier one had stopped.
    pub(crate) resumed: AtomicU64,
    /// Chunks and files that failed their checksums, on either side.
    pub(crate) rotten: AtomicU64,
    /// Bytes a second of the last telling transfer.
    rate: AtomicU64,
}

impl Counts {
    pub(crate) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    /// Notes how fast a transfer was, if it was large enough to tell.
    pub(crate) fn note_rate(&self, bytes: u64, took: Duration) {
        let per_s = u128::from(bytes) * 1000 / took.as_millis().max(1);
        if bytes >= TELLING_BYTES {
            self.rate.store(u64::try_from(per_s).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// All of them.
    pub(crate) fn totals(&self) -> SnapshotTotals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SnapshotTotals {
            sent: read(&self.sent_whole),
            sent_bytes: read(&self.sent),
            received: read(&self.received_whole),
            received_bytes: read(&self.received),
            reused_bytes: read(&self.reused),
            resumed: read(&self.resumed),
            rotten_parts: read(&self.rotten),
            bytes_per_s: read(&self.rate),
        }
    }
}

/// One for each node.
pub(crate) struct Depot {
    pub(crate) disk: Arc<dyn Disk>,
    /// The room on the node's disks.
    pub(crate) room: Arc<Gauge>,
    pub(crate) limits: SnapshotLimits,
    pub(crate) throttle: Throttle,
    pub(crate) sending: Semaphore,
    pub(crate) receiving: Semaphore,
    pub(crate) counts: Counts,
}

impl Depot {
    pub(crate) fn new(disk: Arc<dyn Disk>, limits: SnapshotLimits, room: Arc<Gauge>) -> Arc<Self> {
        Arc::new(Depot {
            disk,
            room,
            limits,
            throttle: Throttle::new(limits.bytes_per_s),
            sending: Semaphore::new(limits.at_a_time),
            receiving: Semaphore::new(limits.at_a_time),
            counts: Counts::default(),
        })
    }

    /// Tells of bytes that are not what they were when the snapshot was made.
    pub(crate) fn tell_rotten(&self, name: &str, offset: u64) {
        Counts::add(&self.counts.rotten, 1);
        tracing::warn!(file = name, offset, "a part of a snapshot fails its checksum; it is not taken in, and is brought again");
    }

    /// When the node starts: removes what no replica will ask for, which is all but the received files of groups that are here.
    pub(crate) fn tidy(&self, groups: &BTreeSet<u32>) -> Result<(), EngineError> {
        let kept: Vec<String> = groups.iter().map(|group| format!("{IN_PREFIX}{group:010}-")).collect();
        for name in self.disk.list()? {
            let ours = name.starts_with(OUT_PREFIX) || name.starts_with(IN_PREFIX);
            if ours && !kept.iter().any(|prefix| name.starts_with(prefix)) {
                self.disk.remove(&name)?;
            }
        }
        Ok(())
    }

    /// How long files of a transfer that does not go on are kept: hardly, while the disk is full.
    pub(crate) fn keep_idle(&self) -> Duration {
        if self.room.room() == Room::Plenty { self.limits.keep_idle } else { self.limits.stall }
    }

    /// Removes the files whose names begin so.
    pub(crate) fn remove_all(&self, prefix: &str) -> Result<(), EngineError> {
        for name in self.disk.list()?.iter().filter(|name| name.starts_with(prefix)) {
            self.disk.remove(name)?;
        }
        Ok(())
    }
}
