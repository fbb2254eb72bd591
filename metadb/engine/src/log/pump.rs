//! Between the queue and the writer: what makes a batch, which callbacks are due when, and what happens after a failure. It waits for
//! nothing; the shells do.

use super::writer::Writer;
use super::{Done, Submission};
use crate::EngineError;
use crate::metrics::BATCHES;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Unsynced submissions (committed positions, purges) wait for a batch to ride along with until they have this many bytes.
const CARRY_BYTES_MAX: u64 = 256 << 10;

/// How long the writer waits before it tries again to append what found no room.
pub(super) const ROOM_RETRY: Duration = Duration::from_millis(100);

/// What came of an attempt to append.
pub(super) enum Step {
    /// Nothing needs a sync; what was taken is answered and waits for company.
    Nothing,
    /// The batch must be synced.
    Sync,
    /// The disk is full. Nothing was written or promised: the same is tried again after [`ROOM_RETRY`].
    Wait,
}

/// To the writer.
pub(super) enum Message {
    Work(Submission),
    Close(Done),
}

impl Message {
    #[cfg(not(madsim))]
    pub(super) fn into_done(self) -> Done {
        match self {
            Self::Work(Submission { done: Some(done), .. }) | Self::Close(done) => done,
            Self::Work(Submission { done: None, .. }) => Box::new(|_| {}),
        }
    }
}

/// Counted by the writer, read by everyone.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) appended_bytes: AtomicU64,
    pub(super) records: AtomicU64,
    pub(super) submissions: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) sync_us: AtomicU64,
    /// Whether the writer waits for room on the disk.
    pub(super) full: AtomicBool,
    /// Whether someone waits for the log to be closed: it does not wait for room then.
    pub(super) closing: AtomicBool,
    stopped: Mutex<Option<String>>,
    /// The first record that did not read back.
    pub(super) corrupt: Mutex<Option<EngineError>>,
}

impl Counters {
    /// The answer to everything after a failure.
    pub(super) fn stopped(&self) -> Option<EngineError> {
        self.stopped.lock().as_ref().map(|message| EngineError::Stopped { message: message.clone() })
    }
}

/// Gathers batches and completes them.
pub(super) struct Pump {
    writer: Writer,
    counters: std::sync::Arc<Counters>,
    batch_bytes: u64,
    batch: Vec<Submission>,
    bytes: u64,
    /// How many at the start of `batch` are answered already and only ride along.
    answered: usize,
    closing: Option<Done>,
}

impl Pump {
    pub(super) fn new(writer: Writer, counters: std::sync::Arc<Counters>, batch_bytes: u64) -> Self {
        Self { writer, counters, batch_bytes, batch: Vec::new(), bytes: 0, answered: 0, closing: None }
    }

    /// Takes a message; whether the batch can take another.
    pub(super) fn take(&mut self, message: Message) -> bool {
        match message {
            Message::Work(submission) => {
                self.bytes += submission.bytes;
                self.batch.push(submission);
            }
            Message::Close(done) => self.closing = Some(done),
        }
        self.closing.is_none() && self.bytes < self.batch_bytes
    }

    /// Whether nothing can come any more.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Appends the batch.
    pub(super) fn append(&mut self) -> Result<Step, EngineError> {
        let fresh = &self.batch[self.answered..];
        let needed = fresh.iter().flat_map(|submission| &submission.ops).any(super::LogOp::needs_sync);
        if !needed && self.bytes < CARRY_BYTES_MAX && !self.is_closing() {
            for submission in &mut self.batch[self.answered..] {
                answer(submission, &Ok(()));
            }
            self.batch.retain(|submission| !submission.ops.is_empty());
            self.answered = self.batch.len();
            return Ok(Step::Nothing);
        }
        let appended = match self.writer.append(&self.batch) {
            Err(error @ EngineError::Full { .. }) if !self.counters.closing.load(Ordering::Acquire) => {
                if !self.counters.full.swap(true, Ordering::AcqRel) {
                    tracing::error!(%error, "the disk of the log is full: nothing is acknowledged until there is room");
                }
                return Ok(Step::Wait);
            }
            appended => appended?,
        };
        if self.counters.full.swap(false, Ordering::AcqRel) {
            tracing::info!("there is room for the log again");
        }
        self.counters.appended_bytes.fetch_add(appended.bytes, Ordering::Relaxed);
        self.counters.records.fetch_add(appended.records, Ordering::Relaxed);
        BATCHES.bytes.record(appended.bytes as f64);
        BATCHES.submissions.record(self.batch.len() as f64);
        Ok(Step::Sync)
    }

    /// Makes the batch durable.
    pub(super) fn sync(&self) -> Result<(), EngineError> {
        self.writer.sync()
    }

    /// The batch is durable: answers it, then removes what is dead.
    pub(super) fn complete(&mut self, took: Duration) -> Result<(), EngineError> {
        self.counters.syncs.fetch_add(1, Ordering::Relaxed);
        BATCHES.sync.record(took);
        self.counters.sync_us.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        for mut submission in self.batch.drain(..) {
            answer(&mut submission, &Ok(()));
        }
        self.bytes = 0;
        self.answered = 0;
        if !self.is_closing() {
            self.writer.prove();
        }
        self.writer.settle()
    }

    /// The log is closed: everything is written, and a last empty batch proves it.
    pub(super) fn closed(&mut self) {
        if let Some(done) = self.closing.take() {
            done(Ok(()));
        }
    }

    /// Stops the log for good: answers what was taken.
    pub(super) fn fail(&mut self, error: &EngineError) {
        tracing::error!(%error, "the log is stopped");
        self.counters.stopped.lock().get_or_insert_with(|| format!("the log stopped after: {error}"));
        for mut submission in self.batch.drain(..) {
            answer(&mut submission, &Err(error.clone()));
        }
        if let Some(done) = self.closing.take() {
            done(Err(error.clone()));
        }
    }

    /// Answers a message that came after the log was stopped.
    pub(super) fn refuse(&self, message: Message) {
        let error = self.counters.stopped().unwrap_or(EngineError::Stopped { message: "the log is closed".to_owned() });
        match message {
            Message::Work(mut submission) => answer(&mut submission, &Err(error)),
            Message::Close(done) => done(Err(error)),
        }
    }
}

fn answer(submission: &mut Submission, result: &Result<(), EngineError>) {
    if let Some(done) = submission.done.take() {
        done(result.clone());
    }
}
