//! The writing half of the log, without threads or waiting: a shell hands it what was submitted and says when to append, when to sync and
//! when a sync is over.
//!
//! It keeps the marks of every group *as written*, which lag behind those of the index: a checkpoint must not tell the future.

use super::format::{self, BatchEncoder, Kind, Place, SegmentHeader};
use super::index::{Copy, Index};
use super::marks::Marks;
use super::{LogOp, LogOptions, Submission};
use crate::EngineError;
use crate::disk::Disk;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a batch costs beside its payloads, per entry: an upper bound used to decide when to start a segment.
const RECORD_OVERHEAD_BYTES: u64 = format::RECORD_HEADER_BYTES as u64;
/// At most this much of an old segment is repeated at a time, so that cleaning never delays a sync for long.
const COPY_BYTES_PER_SEGMENT: u64 = 8 << 20;
/// A segment is cleaned when less than one part in this many of it is live.
const CLEAN_BELOW_LIVE_PART: u64 = 4;
/// So many segments are kept before an old one is cleaned.
const SEGMENTS_BEFORE_CLEANING: usize = 4;
/// A buffer that has grown beyond this is not kept.
const BUFFER_KEPT_BYTES: usize = 8 << 20;

/// The end of the log, to which it writes.
pub(super) struct Writer {
    disk: Arc<dyn Disk>,
    index: Arc<Mutex<Index>>,
    segment_bytes: u64,
    groups: BTreeMap<u32, Marks>,
    segment: u64,
    name: String,
    bytes: u64,
    sequence: u64,
    buffer: Vec<u8>,
    appended_through: u64,
    /// A batch that found no room on the disk. Nothing of it was promised: it is tried again, byte for byte, before anything else.
    unwritten: Option<Unwritten>,
}

/// A batch encoded for one place in the log.
struct Unwritten {
    segment: u64,
    base: u64,
    bytes: Vec<u8>,
    records: u64,
    copied: Vec<(Copy, Place)>,
    placed: Vec<Placed>,
    /// The last submission that it holds.
    through: Option<u64>,
}

/// Where recovery ended: what the first batch of the new segment must repeat.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tail {
    /// The last segment; none: the log is new.
    pub(super) header: Option<SegmentHeader>,
    /// Up to here it was durable for certain.
    pub(super) trusted: u64,
    pub(super) next_sequence: u64,
}

/// What an append wrote.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Appended {
    pub(super) bytes: u64,
    pub(super) records: u64,
}

struct Roll {
    header: SegmentHeader,
    copies: Vec<(Copy, Bytes)>,
}

impl Writer {
    /// A writer that goes on behind `tail`, in a new segment, which is appended but not synced yet.
    pub(super) fn open(disk: Arc<dyn Disk>, index: Arc<Mutex<Index>>, options: &LogOptions, tail: Tail) -> Result<Self, EngineError> {
        let groups = index.lock().all_marks();
        let segment_bytes = options.segment_bytes;
        let mut writer = Self {
            disk,
            index,
            segment_bytes,
            groups,
            segment: tail.header.map_or(0, |header| header.number),
            name: String::new(),
            bytes: tail.trusted,
            sequence: tail.next_sequence,
            buffer: Vec::new(),
            appended_through: 0,
            unwritten: None,
        };
        let Some(last) = tail.header else {
            let roll = writer.next_segment(Vec::new());
            writer.write(Vec::new(), Some(roll))?;
            return Ok(writer);
        };
        let from = format::offset32(usize::try_from(tail.trusted).unwrap_or(usize::MAX));
        let live = writer.index.lock().live_in(last.number, from);
        let copies = writer.read_all(live)?;
        let mut roll = writer.next_segment(copies);
        if tail.trusted <= format::SEGMENT_HEADER_BYTES as u64 {
            // Nothing in it is certain, not even its name: the chain goes around it.
            roll.header.previous = last.previous;
            roll.header.previous_trusted = last.previous_trusted;
        }
        writer.write(Vec::new(), Some(roll))?;
        Ok(writer)
    }

    /// Encodes submissions as one batch and appends it. After [`EngineError::Full`] nothing of it is in the log, and the same submissions
    /// must be given again: they are appended as they were encoded then.
    pub(super) fn append(&mut self, submissions: &[Submission]) -> Result<Appended, EngineError> {
        if let Some(unwritten) = self.unwritten.take() {
            return self.put(unwritten);
        }
        let payload: u64 = submissions.iter().map(|submission| submission.bytes).sum();
        let full = self.bytes > format::SEGMENT_HEADER_BYTES as u64 && self.bytes + payload > self.segment_bytes;
        let roll = full.then(|| {
            let copies = self.cleaning();
            self.next_segment(copies)
        });
        self.write(submissions.iter().collect(), roll)
    }

    /// Makes what was appended durable.
    pub(super) fn sync(&self) -> Result<(), EngineError> {
        self.disk.sync(&self.name)
    }

    /// The sync is over: removes the segments nothing needs any more.
    pub(super) fn settle(&self) -> Result<(), EngineError> {
        loop {
            let Some(dead) = self.index.lock().take_dead(self.segment, self.appended_through) else { return Ok(()) };
            self.disk.retire(&format::segment_name(dead))?;
        }
    }

    /// The sync is over: leaves an empty batch behind what it made durable, which the next batch will be written over. After a kill it
    /// proves that the batch before it was durable once, so that rot there is told from a torn write.
    pub(super) fn prove(&self) {
        let base = usize::try_from(self.bytes).unwrap_or(usize::MAX);
        let proof = BatchEncoder::new(Vec::with_capacity(format::BATCH_HEADER_BYTES), self.segment, base, self.sequence, None).finish();
        self.disk.mark(&self.name, &proof);
    }

    fn read_all(&self, copies: Vec<Copy>) -> Result<Vec<(Copy, Bytes)>, EngineError> {
        let read = |copy: Copy| read_entry(&*self.disk, copy.group, copy.index, copy.from).map(|bytes| (copy, bytes));
        copies.into_iter().map(read).collect()
    }

    fn next_segment(&self, copies: Vec<(Copy, Bytes)>) -> Roll {
        let header =
            SegmentHeader { number: self.segment + 1, previous: self.segment, previous_trusted: self.bytes, first_batch: self.sequence };
        Roll { header, copies }
    }

    /// The entries to repeat so that the oldest segment can go: few entries of idle groups must not keep all that came after them.
    /// One that does not read back is left where it is: whoever needs it is told then.
    fn cleaning(&self) -> Vec<(Copy, Bytes)> {
        let copies = self.worth_cleaning();
        self.read_all(copies).unwrap_or_else(|error| {
            tracing::error!(%error, "an old segment of the log can't be cleaned");
            Vec::new()
        })
    }

    fn worth_cleaning(&self) -> Vec<Copy> {
        let index = self.index.lock();
        if index.totals().segments < SEGMENTS_BEFORE_CLEANING {
            return Vec::new();
        }
        match index.oldest() {
            Some((number, bytes, live))
                if number != self.segment && live > 0 && live < bytes / CLEAN_BELOW_LIVE_PART && live <= COPY_BYTES_PER_SEGMENT =>
            {
                index.live_in(number, 0)
            }
            Some(_) | None => Vec::new(),
        }
    }

    fn write(&mut self, submissions: Vec<&Submission>, roll: Option<Roll>) -> Result<Appended, EngineError> {
        let (segment, base, header) = match &roll {
            Some(roll) => (roll.header.number, 0, Some(roll.header)),
            None => (self.segment, self.bytes, None),
        };
        let base = usize::try_from(base).unwrap_or(usize::MAX);
        let mut batch = BatchEncoder::new(std::mem::take(&mut self.buffer), segment, base, self.sequence, header);
        let mut records = 0;
        let mut copied = Vec::new();
        if let Some(roll) = roll {
            batch.record(Kind::Checkpoint, 0, 0, &format::encode_checkpoint(&self.groups));
            records += 1 + roll.copies.len() as u64;
            for (copy, payload) in roll.copies {
                let place = batch.record(Kind::Copied, copy.group, copy.index, &payload);
                copied.push((copy, place));
            }
        }
        let mut placed = Vec::new();
        let through = submissions.last().map(|last| last.ticket.submission);
        for submission in submissions {
            let mut slot = submission.ticket.first_slot;
            for op in &submission.ops {
                records += encode(&mut batch, &mut self.groups, op, &mut slot, &mut placed);
            }
        }
        let bytes = batch.finish();
        self.put(Unwritten { segment, base: base as u64, bytes, records, copied, placed, through })
    }

    /// Appends an encoded batch, and notes where its entries lie.
    fn put(&mut self, batch: Unwritten) -> Result<Appended, EngineError> {
        let name = format::segment_name(batch.segment);
        if batch.base == 0 {
            self.disk.reserve(&name, self.segment_bytes);
        }
        if let Err(error) = self.disk.append(&name, &batch.bytes) {
            self.unwritten = matches!(error, EngineError::Full { .. }).then_some(batch);
            return Err(error);
        }
        let Unwritten { segment, base, bytes, records, copied, placed, through } = batch;
        let length = base + bytes.len() as u64;
        let mut index = self.index.lock();
        index.grown(segment, length);
        let submitted = index.submitted;
        for (copy, place) in copied {
            index.relocate(&copy, place, submitted.min(self.appended_through + 1));
        }
        for Placed { group, index: at, slot, place } in placed {
            index.place(group, at, slot, place);
        }
        drop(index);
        let written = Appended { bytes: bytes.len() as u64, records };
        self.segment = segment;
        self.name = name;
        self.bytes = length;
        self.sequence += 1;
        self.appended_through = through.unwrap_or(self.appended_through);
        self.buffer = if bytes.capacity() > BUFFER_KEPT_BYTES { Vec::new() } else { bytes };
        Ok(written)
    }
}

struct Placed {
    group: u32,
    index: u64,
    slot: u64,
    place: Place,
}

/// Encodes an operation and follows it in the marks; returns the number of records.
fn encode(batch: &mut BatchEncoder, groups: &mut BTreeMap<u32, Marks>, op: &LogOp, slot: &mut u64, placed: &mut Vec<Placed>) -> u64 {
    let group = op.group();
    if matches!(op, LogOp::Forget { .. }) {
        groups.remove(&group);
        batch.record(Kind::Forget, group, 0, &[]);
        return 1;
    }
    let marks = groups.entry(group).or_default();
    match op {
        LogOp::Append { entries, .. } => {
            for entry in entries {
                marks.append(entry.index).expect("the submission was checked against the same rules");
                let place = batch.record(Kind::Entry, group, entry.index, &entry.bytes);
                placed.push(Placed { group, index: entry.index, slot: *slot, place });
                *slot += 1;
            }
            return entries.len() as u64;
        }
        LogOp::Truncate { from_index, .. } => {
            marks.truncate(*from_index);
            batch.record(Kind::Truncate, group, *from_index, &[]);
        }
        LogOp::Vote { bytes, .. } => {
            marks.vote = Some(bytes.clone());
            batch.record(Kind::Vote, group, 0, bytes);
        }
        LogOp::Committed { bytes, .. } => {
            marks.committed = Some(bytes.clone());
            batch.record(Kind::Committed, group, 0, bytes);
        }
        LogOp::Purge { through_index, mark, .. } => {
            marks.purge(*through_index, mark);
            batch.record(Kind::Purge, group, *through_index, mark);
        }
        LogOp::Forget { .. } => {}
    }
    1
}

/// Bytes that operations will take in a segment, about.
pub(super) fn encoded_bytes(ops: &[LogOp]) -> u64 {
    let one = |op: &LogOp| match op {
        LogOp::Append { entries, .. } => entries.iter().map(|entry| entry.bytes.len() as u64 + RECORD_OVERHEAD_BYTES).sum(),
        LogOp::Vote { bytes, .. } | LogOp::Committed { bytes, .. } => bytes.len() as u64 + RECORD_OVERHEAD_BYTES,
        LogOp::Purge { mark, .. } => mark.len() as u64 + RECORD_OVERHEAD_BYTES,
        LogOp::Truncate { .. } | LogOp::Forget { .. } => RECORD_OVERHEAD_BYTES,
    };
    ops.iter().map(one).sum()
}

/// Reads one entry back and checks it.
fn read_entry(disk: &dyn Disk, group: u32, index: u64, place: Place) -> Result<Bytes, EngineError> {
    let bytes = disk.read(&format::segment_name(place.segment), u64::from(place.offset), place.bytes as usize)?;
    checked_entry(&bytes, group, index, place)
}

/// The payload of an entry whose record was read.
pub(super) fn checked_entry(bytes: &Bytes, group: u32, index: u64, place: Place) -> Result<Bytes, EngineError> {
    let offset = place.offset as usize;
    let bad = |message: &str| format::corrupt(place.segment, offset, message);
    let record = format::RecordView::check(place.segment, bytes, offset).map_err(bad)?;
    if record.group != group || record.index != index || !matches!(record.kind, Kind::Entry | Kind::Copied) {
        return Err(bad("another record than expected"));
    }
    Ok(bytes.slice_ref(record.payload))
}
