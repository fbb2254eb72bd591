//! The Raft log of every group of the node: segments over a [`Disk`], one writer, one sync for all that is pending.
//!
//! * [`Log::submit`] takes operations in one order for the whole node. Entries can be read as soon as it returns; the callback comes when
//!   they are durable, in the order of submission.
//! * After a failed append or sync the log is stopped: what failed is told, everything later gets [`EngineError::Stopped`]. A sync is
//!   never tried again, since its second answer proves nothing.
//! * An append that finds no room is no failure: nothing of it was promised, so the log waits, says so ([`Log::trouble`]), and appends the
//!   same bytes when there is room.
//! * Opening never writes behind a tail it can't trust: it starts a new segment (see `format`).
//!
//! The parts: `format` (bytes), `marks` (which index may follow), `index` (what readers see), `recover` (opening), `writer` (appending, no
//! waiting), `pump` (what is drained, when a callback is due), and two shells that wait: `thread` for real disks, `task` for simulated ones.
//!
//! Not here: what entries mean, and which of them may be purged.

mod format;
mod index;
mod marks;
mod pump;
mod recover;
mod task;
#[cfg(not(madsim))]
mod thread;
mod verify;
mod writer;

use crate::EngineError;
use crate::disk::{Disk, Space};
use bytes::Bytes;
use index::{Found, Index, Ticket};
use parking_lot::Mutex;
use pump::{Counters, Message, Pump};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
pub use verify::LogPlace;
use writer::Writer;

/// A submission larger than this is refused: offsets in a segment are 32 bits wide.
const SUBMISSION_BYTES_MAX: u64 = 1 << 30;
/// Entries that lie this close to each other are read at once.
const READ_GAP_BYTES: u64 = 8 << 10;
/// One read of the disk asks for about this much at most.
const READ_CHUNK_BYTES: u64 = 1 << 20;
/// How often a read starts anew because a segment was removed under it.
const READ_ATTEMPTS: usize = 8;

/// A log entry: opaque bytes with an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its index in its group; each entry's is one more than the one before.
    pub index: u64,
    /// What it says.
    pub bytes: Bytes,
}

/// A change to the log of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogOp {
    /// Adds entries behind the last one. The first entry of a group that never had any may have any index.
    Append {
        /// Of which group.
        group: u32,
        /// The entries, each following the one before.
        entries: Vec<Record>,
    },
    /// Drops the entries from an index on.
    Truncate {
        /// Of which group.
        group: u32,
        /// The first index that goes.
        from_index: u64,
    },
    /// Remembers the vote.
    Vote {
        /// Of which group.
        group: u32,
        /// The vote, opaque.
        bytes: Bytes,
    },
    /// Remembers the committed position. Not synced by itself: it rides along with the next batch.
    Committed {
        /// Of which group.
        group: u32,
        /// The position, opaque.
        bytes: Bytes,
    },
    /// Drops the entries through an index. Not synced by itself: it rides along with the next batch.
    Purge {
        /// Of which group.
        group: u32,
        /// The last index that goes. May be behind the last entry: the next one then has the index after it.
        through_index: u64,
        /// Remembered in place of the entries, opaque.
        mark: Bytes,
    },
    /// Drops the group with all that the log knows of it.
    Forget {
        /// Which.
        group: u32,
    },
}

impl LogOp {
    /// The group it is about.
    #[must_use]
    pub fn group(&self) -> u32 {
        match self {
            Self::Append { group, .. }
            | Self::Truncate { group, .. }
            | Self::Vote { group, .. }
            | Self::Committed { group, .. }
            | Self::Purge { group, .. }
            | Self::Forget { group } => *group,
        }
    }

    /// Whether its submitter may rely on it after a crash.
    fn needs_sync(&self) -> bool {
        match self {
            Self::Append { .. } | Self::Truncate { .. } | Self::Vote { .. } | Self::Forget { .. } => true,
            Self::Committed { .. } | Self::Purge { .. } => false,
        }
    }
}

/// Called once, when a submission is durable or has failed. It must not block: the log waits for it.
pub type Done = Box<dyn FnOnce(Result<(), EngineError>) + Send>;

/// What the log knows of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupState {
    /// The last vote.
    pub vote: Option<Bytes>,
    /// The last committed position.
    pub committed: Option<Bytes>,
    /// The mark of the last purge.
    pub purge_mark: Option<Bytes>,
    /// The index of the first entry held; none: no entry is held.
    pub first_index: Option<u64>,
    /// The index of the last entry held.
    pub last_index: Option<u64>,
}

/// Numbers of a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Bytes in its segments.
    pub bytes: u64,
    /// Those of entries that can still be read.
    pub live_bytes: u64,
    /// Its segments.
    pub segments: u64,
    /// Bytes of entries in memory.
    pub cached_bytes: u64,
    /// Bytes appended since it was opened.
    pub appended_bytes: u64,
    /// Records appended since it was opened.
    pub records: u64,
    /// Submissions taken since it was opened.
    pub submissions: u64,
    /// Syncs since it was opened; each is one batch.
    pub syncs: u64,
    /// Microseconds spent in those syncs.
    pub sync_us: u64,
}

/// Settings of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// A segment is closed when it would grow beyond this many bytes.
    pub segment_bytes: u64,
    /// Recent entries up to this many bytes, of all groups together, are kept in memory.
    pub cache_bytes: usize,
    /// So many submissions may wait for the writer.
    pub queue_submissions: usize,
    /// One batch takes submissions until it has about this many bytes.
    pub batch_bytes: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, cache_bytes: 64 << 20, queue_submissions: 8192, batch_bytes: 8 << 20 }
    }
}

/// What was submitted, on its way to the writer.
struct Submission {
    ticket: Ticket,
    ops: Vec<LogOp>,
    bytes: u64,
    done: Option<Done>,
}

enum Queue {
    #[cfg(not(madsim))]
    Thread(crossbeam_channel::Sender<Message>),
    Task(tokio::sync::mpsc::Sender<Message>),
    Closed,
}

struct Shared {
    disk: Arc<dyn Disk>,
    index: Arc<Mutex<Index>>,
    /// Held while a submission enters the index and the queue, so that both have the same order.
    queue: Mutex<Queue>,
    counters: Arc<Counters>,
}

/// A handle to the log. The log ends with its last handle; [`Log::close`] ends it in order.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// Recovers and appends, but does not yet sync, the first batch of a new segment.
fn begin(disk: &Arc<dyn Disk>, options: &LogOptions) -> Result<(Writer, Arc<Mutex<Index>>), EngineError> {
    let mut index = Index::new(options.cache_bytes);
    let tail = recover::recover(&**disk, &mut index)?;
    let index = Arc::new(Mutex::new(index));
    let writer = Writer::open(Arc::clone(disk), Arc::clone(&index), options, tail)?;
    Ok((writer, index))
}

impl Log {
    /// Opens the log in the folder of a disk, or makes it. The disk says whether it is real (then a thread writes) or simulated (then a
    /// task does).
    ///
    /// # Errors
    /// [`EngineError::Corrupt`] when something that was durable does not read back; [`EngineError::Foreign`] for a newer format;
    /// [`EngineError::Io`], [`EngineError::Full`].
    pub async fn open(disk: Arc<dyn Disk>, options: LogOptions) -> Result<Self, EngineError> {
        let latency = disk.simulated_sync_latency();
        #[cfg(not(madsim))]
        if latency.is_none() {
            return thread::open(disk, options).await;
        }
        let (writer, index) = begin(&disk, &options)?;
        tokio::time::sleep(latency.unwrap_or_default()).await;
        writer.sync()?;
        writer.settle()?;
        let counters = Arc::new(Counters::default());
        let pump = Pump::new(writer, Arc::clone(&counters), options.batch_bytes);
        let queue = Queue::Task(task::start(pump, Arc::clone(&disk), options.queue_submissions));
        Ok(Self { shared: Arc::new(Shared { disk, index, queue: Mutex::new(queue), counters }) })
    }

    /// Hands over operations, in one order for the whole node. They can be read when it returns; `done` is called when they are durable
    /// or have failed, after the `done` of everything submitted before. Entries that do not follow are refused, alone, with nothing of
    /// the submission taken.
    ///
    /// On a real disk it waits when the queue is full; on a simulated one it refuses.
    pub fn submit(&self, ops: Vec<LogOp>, done: Done) {
        let bytes = writer::encoded_bytes(&ops);
        if let Err((error, done)) = self.enqueue(ops, bytes, done) {
            done(Err(error));
        }
    }

    /// What is wrong with the log or its disk, if anything is: [`EngineError::Full`] while it waits for room, [`EngineError::Stopped`]
    /// after a failure, [`EngineError::Corrupt`] once a record did not read back.
    #[must_use]
    pub fn trouble(&self) -> Option<EngineError> {
        let counters = &self.shared.counters;
        let corrupt = counters.corrupt.lock().clone();
        let full = || counters.full.load(Ordering::Acquire).then(|| EngineError::Full { path: "log".to_owned() });
        corrupt.or_else(|| counters.stopped()).or_else(full)
    }

    /// Removes the segments that were set aside, best effort: they are only kept for people.
    pub fn clear_aside(&self) {
        let disk = &*self.shared.disk;
        let names = disk.list().unwrap_or_default();
        for name in names.iter().filter(|name| name.starts_with(ASIDE)) {
            if let Err(error) = disk.remove(name) {
                tracing::warn!(name, %error, "a segment that was set aside can't be removed");
            }
        }
    }

    /// The room on its disk, if the disk knows.
    #[must_use]
    pub fn space(&self) -> Option<Space> {
        self.shared.disk.space()
    }

    fn enqueue(&self, ops: Vec<LogOp>, bytes: u64, done: Done) -> Result<(), (EngineError, Done)> {
        let stopped = |message: &str| EngineError::Stopped { message: message.to_owned() };
        if bytes > SUBMISSION_BYTES_MAX {
            let message = format!("a submission of {bytes} bytes; the limit is {SUBMISSION_BYTES_MAX}");
            return Err((EngineError::Io { operation: "submit", path: "log".to_owned(), message }, done));
        }
        let queue = self.shared.queue.lock();
        if let Some(error) = self.shared.counters.stopped() {
            return Err((error, done));
        }
        let take = |done| match self.shared.index.lock().submit(&ops) {
            Ok(ticket) => Ok((ticket, done)),
            Err(error) => Err((error, done)),
        };
        if self.shared.counters.full.load(Ordering::Acquire) && ops.iter().all(|op| matches!(op, LogOp::Committed { .. })) {
            // Such a mark may be lost: it must not fill the queue while the writer waits for room.
            done(Ok(()));
            return Ok(());
        }
        self.shared.counters.submissions.fetch_add(1, Ordering::Relaxed);
        match &*queue {
            #[cfg(not(madsim))]
            Queue::Thread(sender) => {
                let (ticket, done) = take(done)?;
                let message = Message::Work(Submission { ticket, ops, bytes, done: Some(done) });
                sender.send(message).map_err(|refused| (stopped("the log's writer is gone"), refused.0.into_done()))
            }
            Queue::Task(sender) => {
                let Ok(permit) = sender.try_reserve() else {
                    return Err((stopped("the log's writer is gone, or its queue is full"), done));
                };
                let (ticket, done) = take(done)?;
                permit.send(Message::Work(Submission { ticket, ops, bytes, done: Some(done) }));
                Ok(())
            }
            Queue::Closed => Err((stopped("the log is closed"), done)),
        }
    }

    /// The entries of a range that are held, in order, from the first one held on, until `max_bytes` (at least one, if there is one). They
    /// come from memory or from disk, without waiting for the writer.
    ///
    /// # Errors
    /// [`EngineError::Corrupt`], [`EngineError::Io`].
    pub fn read(&self, group: u32, range: Range<u64>, max_bytes: usize) -> Result<Vec<Record>, EngineError> {
        let mut attempts = 1;
        loop {
            let found = self.shared.index.lock().find(group, range.clone(), max_bytes)?;
            let segments: Vec<u64> = found.iter().filter_map(Found::segment).collect();
            match fetch(&*self.shared.disk, group, found) {
                Ok(records) => return Ok(records),
                Err(error) => {
                    let index = self.shared.index.lock();
                    let removed = segments.into_iter().any(|segment| !index.has_segment(segment));
                    if !removed || attempts == READ_ATTEMPTS {
                        if matches!(error, EngineError::Corrupt { .. }) {
                            self.shared.counters.corrupt.lock().get_or_insert_with(|| error.clone());
                        }
                        return Err(error);
                    }
                    attempts += 1;
                }
            }
        }
    }

    /// What is known of a group; none: nothing.
    #[must_use]
    pub fn group(&self, group: u32) -> Option<GroupState> {
        self.shared.index.lock().state(group)
    }

    /// All groups that anything is known of, in order.
    #[must_use]
    pub fn groups(&self) -> Vec<u32> {
        self.shared.index.lock().groups()
    }

    /// Numbers for metrics.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        let totals = self.shared.index.lock().totals();
        let counters = &self.shared.counters;
        LogStats {
            bytes: totals.bytes,
            live_bytes: totals.live_bytes,
            segments: totals.segments as u64,
            cached_bytes: totals.cached_bytes as u64,
            appended_bytes: counters.appended_bytes.load(Ordering::Relaxed),
            records: counters.records.load(Ordering::Relaxed),
            submissions: counters.submissions.load(Ordering::Relaxed),
            syncs: counters.syncs.load(Ordering::Relaxed),
            sync_us: counters.sync_us.load(Ordering::Relaxed),
        }
    }

    /// Writes and syncs all that was submitted, then ends the log for every handle. Closing twice is no error.
    ///
    /// # Errors
    /// [`EngineError`]: what stopped the log, now or before.
    pub async fn close(&self) -> Result<(), EngineError> {
        self.shared.counters.closing.store(true, Ordering::Release);
        let queue = std::mem::replace(&mut *self.shared.queue.lock(), Queue::Closed);
        let (sender, answer) = tokio::sync::oneshot::channel();
        let done: Done = Box::new(move |result| drop(sender.send(result)));
        let gone = EngineError::Stopped { message: "the log's writer is gone".to_owned() };
        match queue {
            #[cfg(not(madsim))]
            Queue::Thread(queue) => queue.send(Message::Close(done)).map_err(|_| gone.clone())?,
            Queue::Task(queue) => queue.send(Message::Close(done)).await.map_err(|_| gone.clone())?,
            Queue::Closed => return Ok(()),
        }
        answer.await.unwrap_or(Err(gone))
    }
}

/// What the names of segments begin with that were set aside.
const ASIDE: &str = "aside-";

/// Gives every segment on a disk another name, under which no log finds it. For one that does not open.
///
/// # Errors
/// [`EngineError::Io`].
pub fn set_aside(disk: &dyn Disk, stamp: &str) -> Result<(), EngineError> {
    let names = disk.list()?;
    // The newest first: after a crash on the way, what is left does not open either.
    for name in names.iter().rev().filter(|name| format::segment_number(name).is_some()) {
        disk.rename(name, &format!("{ASIDE}{stamp}-{name}"))?;
    }
    Ok(())
}

/// Reads what is on disk, neighbours at once.
fn fetch(disk: &dyn Disk, group: u32, found: Vec<Found>) -> Result<Vec<Record>, EngineError> {
    let mut records = Vec::with_capacity(found.len());
    let mut run: Vec<(u64, format::Place)> = Vec::new();
    for item in found {
        match item {
            Found::Cached(record) => {
                fetch_run(disk, group, &mut run, &mut records)?;
                records.push(record);
            }
            Found::OnDisk(index, place) => {
                let joins = run.first().zip(run.last()).is_some_and(|((_, first), (_, last))| {
                    let (start, end) = (u64::from(first.offset), u64::from(last.offset) + u64::from(last.bytes));
                    let (offset, next_end) = (u64::from(place.offset), u64::from(place.offset) + u64::from(place.bytes));
                    place.segment == first.segment
                        && offset >= end
                        && offset - end <= READ_GAP_BYTES
                        && next_end - start <= READ_CHUNK_BYTES
                });
                if !joins {
                    fetch_run(disk, group, &mut run, &mut records)?;
                }
                run.push((index, place));
            }
        }
    }
    fetch_run(disk, group, &mut run, &mut records)?;
    Ok(records)
}

fn fetch_run(disk: &dyn Disk, group: u32, run: &mut Vec<(u64, format::Place)>, records: &mut Vec<Record>) -> Result<(), EngineError> {
    let Some(((_, first), (_, last))) = run.first().zip(run.last()) else { return Ok(()) };
    let start = first.offset as usize;
    let length = last.offset as usize + last.bytes as usize - start;
    let bytes = disk.read(&format::segment_name(first.segment), u64::from(first.offset), length)?;
    for (index, place) in run.drain(..) {
        let at = place.offset as usize - start;
        let record = bytes.slice(at.min(bytes.len())..(at + place.bytes as usize).min(bytes.len()));
        records.push(Record { index, bytes: writer::checked_entry(&record, group, index, place)? });
    }
    Ok(())
}
