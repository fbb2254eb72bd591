//! Where every live entry is, and the marks of every group, as submitted: what readers see. Plus the recent entries themselves.
//!
//! Invariant: a segment is removed only when none of its entries is live, all older segments are gone, and the records that made the last
//! of its entries dead are durable (`Segment::last_release`).

use super::format::{Kind, Place};
use super::marks::Marks;
use super::{GroupState, LogOp, Record};
use crate::EngineError;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

/// Stale entries the eviction queue may hold beyond twice the live ones before it is swept.
const CACHE_SLACK_ENTRIES: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Index {
    groups: BTreeMap<u32, Group>,
    segments: BTreeMap<u64, Segment>,
    cache: Cache,
    next_slot: u64,
    /// Counts submissions.
    pub(super) submitted: u64,
}

#[derive(Debug, Default)]
struct Group {
    marks: Marks,
    /// One for each index of `marks.range`.
    slots: VecDeque<Slot>,
}

#[derive(Debug)]
struct Slot {
    id: u64,
    bytes: Option<Bytes>,
    place: Option<Place>,
    size: usize,
}

#[derive(Debug, Default)]
struct Segment {
    bytes: u64,
    live_entries: u64,
    live_bytes: u64,
    /// The newest submission that made an entry of it dead.
    last_release: u64,
}

#[derive(Debug, Default)]
struct Cache {
    bytes: usize,
    entries: usize,
    budget: usize,
    /// Group, index and slot in the order of arrival; those of dead slots are skipped.
    order: VecDeque<(u32, u64, u64)>,
}

/// An entry found for a reader.
#[derive(Debug)]
pub(super) enum Found {
    Cached(Record),
    OnDisk(u64, Place),
}

impl Found {
    /// The segment it must be read from.
    pub(super) fn segment(&self) -> Option<u64> {
        match self {
            Self::Cached(_) => None,
            Self::OnDisk(_, place) => Some(place.segment),
        }
    }
}

/// Totals, for [`super::LogStats`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    pub(super) segments: usize,
    pub(super) bytes: u64,
    pub(super) live_bytes: u64,
    pub(super) cached_bytes: usize,
}

/// What a submission got: its number and the id of its first entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    pub(super) submission: u64,
    pub(super) first_slot: u64,
}

impl Index {
    pub(super) fn new(cache_bytes: usize) -> Self {
        Self { cache: Cache { budget: cache_bytes, ..Cache::default() }, ..Self::default() }
    }

    /// Takes a submission: all of it, or, when an entry does not follow, nothing.
    pub(super) fn submit(&mut self, ops: &[LogOp]) -> Result<Ticket, EngineError> {
        self.check(ops)?;
        self.submitted += 1;
        let ticket = Ticket { submission: self.submitted, first_slot: self.next_slot };
        for op in ops {
            match op {
                LogOp::Append { group, entries } => self.append(*group, entries),
                LogOp::Truncate { group, from_index } => self.truncate(*group, *from_index),
                LogOp::Vote { group, bytes } => self.marks(*group).vote = Some(bytes.clone()),
                LogOp::Committed { group, bytes } => self.marks(*group).committed = Some(bytes.clone()),
                LogOp::Purge { group, through_index, mark } => self.purge(*group, *through_index, mark),
                LogOp::Forget { group } => self.forget(*group),
            }
        }
        self.evict();
        Ok(ticket)
    }

    /// Whether all appended entries follow the ones before them.
    fn check(&self, ops: &[LogOp]) -> Result<(), EngineError> {
        if !ops.iter().any(|op| matches!(op, LogOp::Append { .. })) {
            return Ok(());
        }
        let mut trial: Vec<(u32, Marks)> = Vec::new();
        for op in ops {
            let group = op.group();
            let at = trial.iter().position(|(id, _)| *id == group).unwrap_or_else(|| {
                let range = self.groups.get(&group).and_then(|group| group.marks.range.clone());
                trial.push((group, Marks { range, ..Marks::default() }));
                trial.len() - 1
            });
            let marks = &mut trial[at].1;
            match op {
                LogOp::Append { entries, .. } => {
                    for entry in entries {
                        marks.append(entry.index).map_err(|expected| EngineError::Io {
                            operation: "submit",
                            path: format!("log of group {group}"),
                            message: format!("entry {} does not follow: the next one has index {expected}", entry.index),
                        })?;
                    }
                }
                LogOp::Truncate { from_index, .. } => marks.truncate(*from_index),
                LogOp::Purge { through_index, mark, .. } => marks.purge(*through_index, mark),
                LogOp::Forget { .. } => *marks = Marks::default(),
                LogOp::Vote { .. } | LogOp::Committed { .. } => {}
            }
        }
        Ok(())
    }

    fn marks(&mut self, group: u32) -> &mut Marks {
        &mut self.groups.entry(group).or_default().marks
    }

    fn append(&mut self, id: u32, entries: &[Record]) {
        let group = self.groups.entry(id).or_default();
        for entry in entries {
            group.marks.append(entry.index).expect("the submission was checked");
            let size = entry.bytes.len();
            group.slots.push_back(Slot { id: self.next_slot, bytes: Some(entry.bytes.clone()), place: None, size });
            self.cache.bytes += size;
            self.cache.entries += 1;
            self.cache.order.push_back((id, entry.index, self.next_slot));
            self.next_slot += 1;
        }
    }

    fn truncate(&mut self, group: u32, from: u64) {
        self.marks(group).truncate(from);
        self.trim(group);
    }

    fn purge(&mut self, group: u32, through: u64, mark: &Bytes) {
        let before = self.groups.get(&group).and_then(|group| group.marks.range.clone());
        self.marks(group).purge(through, mark);
        let Some(group) = self.groups.get_mut(&group) else { return };
        let after = group.marks.range.clone().unwrap_or_default();
        let gone = before.map_or(0, |before| after.start.min(before.end).saturating_sub(before.start));
        for slot in group.slots.drain(..to_len(gone)) {
            release(&mut self.segments, &mut self.cache, &slot, self.submitted);
        }
    }

    /// Drops the slots behind the range of a group.
    fn trim(&mut self, group: u32) {
        let Some(group) = self.groups.get_mut(&group) else { return };
        let held = group.marks.range.as_ref().map_or(0, |range| range.end - range.start);
        for slot in group.slots.drain(to_len(held)..) {
            release(&mut self.segments, &mut self.cache, &slot, self.submitted);
        }
    }

    fn forget(&mut self, group: u32) {
        for slot in self.groups.remove(&group).map(|group| group.slots).unwrap_or_default() {
            release(&mut self.segments, &mut self.cache, &slot, self.submitted);
        }
    }

    /// Drops cached entries until the budget holds. Those not written yet stay.
    fn evict(&mut self) {
        while let Some(&(group, index, id)) = self.cache.order.front() {
            match find_slot(&mut self.groups, group, index).filter(|slot| slot.id == id && slot.bytes.is_some()) {
                None => {}
                Some(_) if self.cache.bytes <= self.cache.budget => break,
                Some(slot) if slot.place.is_none() => break,
                Some(slot) => {
                    slot.bytes = None;
                    self.cache.bytes -= slot.size;
                    self.cache.entries -= 1;
                }
            }
            self.cache.order.pop_front();
        }
        if self.cache.order.len() > 2 * self.cache.entries + CACHE_SLACK_ENTRIES {
            let groups = &mut self.groups;
            self.cache
                .order
                .retain(|&(group, index, id)| find_slot(groups, group, index).is_some_and(|slot| slot.id == id && slot.bytes.is_some()));
        }
    }

    /// The entries of a range that are held, from its first on, until `max_bytes`; at least one.
    pub(super) fn find(&self, group: u32, range: Range<u64>, max_bytes: usize) -> Result<Vec<Found>, EngineError> {
        let Some(group) = self.groups.get(&group) else { return Ok(Vec::new()) };
        let Some(held) = group.marks.range.clone() else { return Ok(Vec::new()) };
        let start = range.start.max(held.start);
        let end = range.end.min(held.end);
        let mut found = Vec::new();
        let mut bytes = 0;
        for index in start..end {
            let slot = &group.slots[to_len(index - held.start)];
            bytes += slot.size;
            if bytes > max_bytes && !found.is_empty() {
                break;
            }
            found.push(match (&slot.bytes, slot.place) {
                (Some(bytes), _) => Found::Cached(Record { index, bytes: bytes.clone() }),
                (None, Some(place)) => Found::OnDisk(index, place),
                (None, None) => return Err(EngineError::Stopped { message: format!("entry {index} is nowhere: a bug of the log") }),
            });
        }
        Ok(found)
    }

    pub(super) fn state(&self, group: u32) -> Option<GroupState> {
        let marks = &self.groups.get(&group)?.marks;
        let held = marks.range.clone().filter(|range| !range.is_empty());
        Some(GroupState {
            vote: marks.vote.clone(),
            committed: marks.committed.clone(),
            purge_mark: marks.purge_mark.clone(),
            first_index: held.as_ref().map(|range| range.start),
            last_index: held.map(|range| range.end - 1),
        })
    }

    pub(super) fn groups(&self) -> Vec<u32> {
        self.groups.keys().copied().collect()
    }

    pub(super) fn all_marks(&self) -> BTreeMap<u32, Marks> {
        self.groups.iter().map(|(id, group)| (*id, group.marks.clone())).collect()
    }

    pub(super) fn totals(&self) -> Totals {
        Totals {
            segments: self.segments.len(),
            bytes: self.segments.values().map(|segment| segment.bytes).sum(),
            live_bytes: self.segments.values().map(|segment| segment.live_bytes).sum(),
            cached_bytes: self.cache.bytes,
        }
    }

    /// Says that an entry was written. `expected`: the slot it was submitted as.
    pub(super) fn place(&mut self, group: u32, index: u64, expected: u64, place: Place) {
        let submitted = self.submitted;
        let segment = self.segments.entry(place.segment).or_default();
        match find_slot(&mut self.groups, group, index) {
            Some(slot) if slot.id == expected => {
                slot.place = Some(place);
                segment.live_entries += 1;
                segment.live_bytes += u64::from(place.bytes);
            }
            Some(_) | None => segment.last_release = submitted,
        }
    }

    /// Says that a live entry was repeated at another place, by submission `at`.
    pub(super) fn relocate(&mut self, copy: &Copy, place: Place, at: u64) {
        let submitted = self.submitted;
        let segment = self.segments.entry(place.segment).or_default();
        let Some(slot) = find_slot(&mut self.groups, copy.group, copy.index).filter(|slot| slot.place == Some(copy.from)) else {
            segment.last_release = submitted;
            return;
        };
        slot.place = Some(place);
        segment.live_entries += 1;
        segment.live_bytes += u64::from(place.bytes);
        if let Some(old) = self.segments.get_mut(&copy.from.segment) {
            old.live_entries -= 1;
            old.live_bytes -= u64::from(copy.from.bytes);
            old.last_release = old.last_release.max(at);
        }
    }

    /// The live entries that lie in a segment from an offset on.
    pub(super) fn live_in(&self, segment: u64, from_offset: u32) -> Vec<Copy> {
        let mut live = Vec::new();
        for (id, group) in &self.groups {
            let first = group.marks.range.as_ref().map_or(0, |range| range.start);
            for (index, slot) in (first..).zip(&group.slots) {
                if let Some(from) = slot.place.filter(|place| place.segment == segment && place.offset >= from_offset) {
                    live.push(Copy { group: *id, index, from });
                }
            }
        }
        live
    }

    /// Says that a segment has grown to a length.
    pub(super) fn grown(&mut self, segment: u64, bytes: u64) {
        self.segments.entry(segment).or_default().bytes = bytes;
    }

    /// The oldest segment: number, its bytes, its live bytes.
    pub(super) fn oldest(&self) -> Option<(u64, u64, u64)> {
        self.segments.first_key_value().map(|(number, segment)| (*number, segment.bytes, segment.live_bytes))
    }

    /// The segments that are written to no more, oldest first, and the one that is.
    pub(super) fn all_segments(&self) -> Vec<u64> {
        self.segments.keys().copied().collect()
    }

    pub(super) fn has_segment(&self, number: u64) -> bool {
        self.segments.contains_key(&number)
    }

    /// Takes the oldest segment out if it is dead for good, and is not `current`.
    pub(super) fn take_dead(&mut self, current: u64, durable: u64) -> Option<u64> {
        let (&number, oldest) = self.segments.first_key_value()?;
        if number == current || oldest.live_entries > 0 || oldest.last_release > durable {
            return None;
        }
        self.segments.remove(&number);
        Some(number)
    }

    /// Takes a record found when opening.
    pub(super) fn replay(&mut self, kind: Kind, group: u32, index: u64, payload: &[u8], place: Place) -> Result<(), &'static str> {
        let bytes = || Bytes::copy_from_slice(payload);
        let id = self.next_slot;
        let size = place.bytes as usize - super::format::RECORD_HEADER_BYTES;
        let slot = Slot { id, bytes: None, place: Some(place), size };
        match kind {
            Kind::Entry => {
                self.marks(group).append(index).map_err(|_| "an entry that does not follow the one before it")?;
                self.groups.entry(group).or_default().slots.push_back(slot);
                self.next_slot += 1;
            }
            Kind::Copied => {
                *find_slot(&mut self.groups, group, index).ok_or("a repeated entry that is not held")? = slot;
                self.next_slot += 1;
            }
            Kind::Truncate => self.truncate(group, index),
            Kind::Vote => self.marks(group).vote = Some(bytes()),
            Kind::Committed => self.marks(group).committed = Some(bytes()),
            Kind::Purge => self.purge(group, index, &bytes()),
            Kind::Forget => self.forget(group),
            Kind::Checkpoint => {
                let marks = super::format::decode_checkpoint(payload).ok_or("a checkpoint that can't be decoded")?;
                self.settle(marks);
            }
        }
        Ok(())
    }

    /// Makes the marks what a checkpoint says; entries it holds that were not seen are filled in by repeated ones.
    fn settle(&mut self, settled: BTreeMap<u32, Marks>) {
        self.groups.retain(|id, _| settled.contains_key(id));
        for (id, marks) in settled {
            let group = self.groups.entry(id).or_default();
            let had = group.marks.range.clone().unwrap_or_default();
            let has = marks.range.clone().unwrap_or_default();
            let mut old: VecDeque<_> = std::mem::take(&mut group.slots);
            let gone = has.start.saturating_sub(had.start).min(old.len() as u64);
            old.drain(..to_len(gone));
            let overlaps = had.start <= has.start;
            group.slots = if overlaps { old } else { VecDeque::new() };
            let held = to_len(has.end - has.start);
            group.slots.truncate(held);
            while group.slots.len() < held {
                group.slots.push_back(Slot { id: self.next_slot, bytes: None, place: None, size: 0 });
                self.next_slot += 1;
            }
            group.marks = marks;
        }
    }

    /// Ends opening: counts what is live. Says which entry is missing, if one is.
    pub(super) fn recovered(&mut self, segments: &[(u64, u64)]) -> Result<(), (u32, u64)> {
        self.segments = segments.iter().map(|(number, bytes)| (*number, Segment { bytes: *bytes, ..Segment::default() })).collect();
        for (id, group) in &self.groups {
            let first = group.marks.range.as_ref().map_or(0, |range| range.start);
            for (index, slot) in (first..).zip(&group.slots) {
                let place = slot.place.ok_or((*id, index))?;
                let segment = self.segments.get_mut(&place.segment).ok_or((*id, index))?;
                segment.live_entries += 1;
                segment.live_bytes += u64::from(place.bytes);
            }
        }
        Ok(())
    }
}

/// A live entry to be repeated elsewhere.
#[derive(Debug, Clone)]
pub(super) struct Copy {
    pub(super) group: u32,
    pub(super) index: u64,
    pub(super) from: Place,
}

fn to_len(count: u64) -> usize {
    usize::try_from(count).expect("entries held in memory are counted by a usize")
}

fn find_slot(groups: &mut BTreeMap<u32, Group>, group: u32, index: u64) -> Option<&mut Slot> {
    let group = groups.get_mut(&group)?;
    let first = group.marks.range.as_ref()?.start;
    group.slots.get_mut(usize::try_from(index.checked_sub(first)?).ok()?)
}

fn release(segments: &mut BTreeMap<u64, Segment>, cache: &mut Cache, slot: &Slot, submission: u64) {
    if slot.bytes.is_some() {
        cache.bytes -= slot.size;
        cache.entries -= 1;
    }
    if let Some(place) = slot.place
        && let Some(segment) = segments.get_mut(&place.segment)
    {
        segment.live_entries = segment.live_entries.saturating_sub(1);
        segment.live_bytes = segment.live_bytes.saturating_sub(u64::from(place.bytes));
        segment.last_release = segment.last_release.max(submission);
    }
}
