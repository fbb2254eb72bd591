//! One group's log, as openraft wants it, inside the node's one log.
//!
//! All writes of a group go through one first-in-first-out queue, so votes, entries, truncations and purges are never reordered.
//! An append returns once its entries are readable and calls back once they are durable; a vote is durable when saving it returns. What
//! is committed and what is purged ride along with a later sync: losing them costs a replay, not data.

use super::codec::{decode_entry, decode_log_id, decode_vote, encode_entry, encode_log_id, encode_vote};
use super::followed::Followed;
#[cfg(madsim)]
use super::probe;
use super::{Entry, LogId, Types, Vote};
use bytes::Bytes;
use futures::Stream;
use metadb_engine::EngineError;
use metadb_engine::log::{Log, LogOp, Record};
use metadb_proto::planted::{self, Bug};
use metadb_telemetry::trace::Context;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload, LogState, OptionalSend};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Most bytes of entries in one append to a follower: a few frames' worth, so that one slow follower holds little memory.
pub(crate) const APPEND_BYTES: usize = 1 << 20;
/// Most bytes of entries read at once to be applied.
const APPLY_READ_BYTES: usize = 4 << 20;
/// How often the sizes of entries are sampled, in bytes of log.
const SAMPLE_BYTES: u64 = 64 << 10;

/// A group's part of the log.
#[derive(Clone)]
pub(crate) struct GroupLog {
    log: Log,
    group_id: u32,
    sizes: Arc<Mutex<Sizes>>,
    followed: Arc<Followed>,
}

/// Where in the log how many bytes lie: `(last index, bytes up to it)`, sampled. What was there before this process is one lump.
#[derive(Default)]
pub(crate) struct Sizes {
    last: Option<u64>,
    total: u64,
    samples: VecDeque<(u64, u64)>,
    /// Appends so far, for whoever watches the simulator.
    #[cfg(madsim)]
    appends: u64,
}

impl Sizes {
    #[cfg(madsim)]
    fn appends(&mut self) -> u64 {
        self.appends += 1;
        self.appends
    }

    fn append(&mut self, index: u64, bytes: u64) {
        self.last = Some(index);
        self.total += bytes;
        if self.samples.back().is_none_or(|(_, upto)| self.total - upto >= SAMPLE_BYTES) {
            self.samples.push_back((index, self.total));
        }
    }

    fn truncate(&mut self, from: u64) {
        self.last = from.checked_sub(1);
        while self.samples.back().is_some_and(|(index, _)| *index >= from) {
            self.samples.pop_back();
        }
    }

    /// The highest index that has at least `budget` bytes of log behind it.
    fn index_before(&mut self, budget: u64) -> Option<u64> {
        if budget == 0 {
            return self.last;
        }
        let limit = self.total.checked_sub(budget)?;
        let mut found = None;
        while self.samples.front().is_some_and(|(_, upto)| *upto <= limit) {
            found = self.samples.pop_front();
        }
        let (index, upto) = found?;
        // Kept, so that the next call without new appends gives the same answer.
        self.samples.push_front((index, upto));
        Some(index)
    }
}

impl GroupLog {
    /// The part of a group.
    pub(crate) fn new(log: Log, group_id: u32) -> Self {
        let mut sizes = Sizes::default();
        if let Some(last) = log.group(group_id).and_then(|state| state.last_index) {
            // Nobody knows which group wrote how much before; an equal share is near enough to keep the log bounded.
            sizes.append(last, log.stats().live_bytes / log.groups().len().max(1) as u64);
        }
        GroupLog { log, group_id, sizes: Arc::new(Mutex::new(sizes)), followed: Arc::default() }
    }

    /// The entries of sampled requests.
    pub(crate) fn followed(&self) -> &Arc<Followed> {
        &self.followed
    }

    /// The highest index that may be purged so that the entries behind it still take `budget` bytes.
    pub(crate) fn purgeable(&self, budget: u64) -> Option<u64> {
        self.sizes.lock().index_before(budget)
    }

    /// Whether this replica has voted or stored anything before.
    pub(crate) fn has_history(&self) -> bool {
        self.log.group(self.group_id).is_some_and(|state| state.vote.is_some())
    }

    /// How many entries behind an applied index are known to be committed.
    pub(crate) async fn committed_behind(&self, applied: u64) -> io::Result<u64> {
        let committed = self.clone().read_committed().await?.map_or(0, |id| id.index);
        Ok(committed.saturating_sub(applied))
    }

    /// The term of its vote and the index of its last entry.
    pub(crate) async fn ends(&mut self) -> io::Result<(u64, u64)> {
        let term = self.read_vote().await?.map_or(0, |vote| vote.leader_id.term);
        let last = self.get_log_state().await?.last_log_id.map_or(0, |id| id.index);
        Ok((term, last))
    }

    /// Tells what it begins with.
    #[cfg(madsim)]
    pub(crate) async fn tell_opened(&self, applied: u64) -> io::Result<()> {
        let mut reader = self.clone();
        let vote = reader.read_vote().await?.as_ref().map(probe::vote);
        let purged = reader.get_log_state().await?.last_purged_log_id.map(|id| id.index);
        let log = reader.try_get_log_entries(purged.map_or(0, |index| index + 1)..).await?.iter().map(probe::written).collect();
        probe::tell(self.group_id, || probe::Did::Opened { vote, purged: purged.unwrap_or(0), log, applied });
        Ok(())
    }

    fn read(&self, from: u64, to: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let records = self.log.read(self.group_id, from..to, max_bytes).map_err(io_error)?;
        records.into_iter().map(|record| decode(record).map_err(io::Error::from)).collect()
    }

    async fn write_durably(&self, op: LogOp) -> io::Result<()> {
        let (done, durable) = oneshot::channel();
        self.log.submit(
            vec![op],
            Box::new(move |result| {
                // A caller that went away needs no answer.
                let _ = done.send(result);
            }),
        );
        match durable.await {
            Ok(result) => result.map_err(io_error),
            Err(_) => Err(io::Error::other("the log's writer is gone")),
        }
    }

    fn write_lazily(&self, op: LogOp) {
        let group_id = self.group_id;
        self.log.submit(
            vec![op],
            Box::new(move |result| {
                if let Err(error) = result {
                    tracing::warn!(group_id, %error, "a mark was not written to the log");
                }
            }),
        );
    }
}

fn decode(record: Record) -> Result<Entry, super::codec::CodecError> {
    let entry = decode_entry(record.bytes)?;
    debug_assert_eq!(entry.log_id.index, record.index, "the log filed an entry under another index");
    Ok(entry)
}

/// Storage trouble as openraft takes it.
pub(crate) fn io_error(error: EngineError) -> io::Error {
    io::Error::other(error)
}

fn bounds(range: &impl RangeBounds<u64>, end: u64) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index + 1,
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(index) => index + 1,
        Bound::Excluded(index) => *index,
        Bound::Unbounded => end,
    };
    (from, to.min(end))
}

impl GroupLog {
    fn end(&self) -> u64 {
        self.log.group(self.group_id).and_then(|state| state.last_index).map_or(0, |last| last + 1)
    }
}

impl RaftLogReader<Types> for GroupLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (mut from, to) = bounds(&range, self.end());
        let mut entries = Vec::new();
        while from < to {
            let read = self.read(from, to, APPLY_READ_BYTES)?;
            let Some(last) = read.last() else { break };
            from = last.log_id.index + 1;
            entries.extend(read);
        }
        Ok(entries)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        let vote = self.log.group(self.group_id).and_then(|state| state.vote);
        vote.map(|bytes| decode_vote(bytes).map_err(io::Error::from)).transpose()
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.read(start, end, APPEND_BYTES)
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, to) = bounds(&range, self.end());
        let chunks = futures::stream::unfold((self.clone(), from), move |(log, from)| async move {
            if from >= to {
                return None;
            }
            match log.read(from, to, APPLY_READ_BYTES) {
                Ok(entries) => {
                    let next = entries.last().map(|entry| entry.log_id.index + 1)?;
                    let items: Vec<io::Result<Entry>> = entries.into_iter().map(Ok).collect();
                    Some((futures::stream::iter(items), (log, next)))
                }
                Err(error) => Some((futures::stream::iter(vec![Err(error)]), (log, to))),
            }
        });
        Box::pin(futures::StreamExt::flatten(chunks))
    }
}

impl RaftLogStorage<Types> for GroupLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let Some(state) = self.log.group(self.group_id) else { return Ok(LogState::default()) };
        let purged = state.purge_mark.map(decode_log_id).transpose()?;
        let last = match state.last_index {
            Some(index) => self.read(index, index + 1, 1)?.pop().map(|entry| entry.log_id),
            None => None,
        };
        // All entries may be purged: then the mark is the end of the log.
        Ok(LogState { last_purged_log_id: purged, last_log_id: last.max(purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let op = LogOp::Vote { group: self.group_id, bytes: encode_vote(vote) };
        if planted::is(Bug::VoteIsNotSynced) {
            self.write_lazily(op);
        } else {
            self.write_durably(op).await?;
        }
        #[cfg(madsim)]
        probe::tell(self.group_id, || {
            let (term, candidate, leads) = probe::vote(vote);
            probe::Did::Voted { term, candidate, leads }
        });
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let bytes = committed.map_or_else(Bytes::new, |id| encode_log_id(&id));
        self.write_lazily(LogOp::Committed { group: self.group_id, bytes });
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        let bytes = self.log.group(self.group_id).and_then(|state| state.committed).filter(|bytes| !bytes.is_empty());
        let Some(committed) = bytes.map(decode_log_id).transpose()? else { return Ok(None) };
        // The mark may have been synced before a crash cut entries that it covers; they are committed, but not here.
        Ok(Some(committed).filter(|id| id.index < self.end()))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut records = Vec::new();
        #[cfg(madsim)]
        let mut written = Vec::new();
        let mut spans = Vec::new();
        {
            let mut sizes = self.sizes.lock();
            for entry in entries {
                #[cfg(madsim)]
                written.push(probe::written(&entry));
                if let EntryPayload::Normal(payload) = &entry.payload {
                    spans.extend(self.followed.of(&payload.0));
                }
                let bytes = encode_entry(&entry);
                sizes.append(entry.log_id.index, bytes.len() as u64);
                records.push(Record { index: entry.log_id.index, bytes });
            }
        }
        let op = LogOp::Append { group: self.group_id, entries: records };
        #[cfg(madsim)]
        let (group_id, append) = (self.group_id, self.sizes.lock().appends());
        #[cfg(madsim)]
        probe::tell(group_id, || probe::Did::Appended { append, entries: written });
        if planted::is(Bug::AppendIsNotSynced) {
            self.write_lazily(op);
            callback.io_completed(Ok(()));
            return Ok(());
        }
        let handed = (!spans.is_empty()).then(Instant::now);
        let durable = move |result: Result<(), EngineError>| {
            if let Some(handed) = handed {
                spans.iter().for_each(|span: &Context| span.record("log sync", handed, Instant::now(), Vec::new()));
            }
            #[cfg(madsim)]
            if result.is_ok() {
                probe::tell(group_id, || probe::Did::Durable { append });
            }
            callback.io_completed(result.map_err(io_error));
        };
        self.log.submit(vec![op], Box::new(durable));
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let from_index = last_log_id.map_or(0, |id| id.index + 1);
        self.sizes.lock().truncate(from_index);
        #[cfg(madsim)]
        probe::tell(self.group_id, || probe::Did::Truncated { from: from_index });
        self.write_durably(LogOp::Truncate { group: self.group_id, from_index }).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        #[cfg(madsim)]
        probe::tell(self.group_id, || probe::Did::Purged { through: log_id.index });
        self.write_lazily(LogOp::Purge { group: self.group_id, through_index: log_id.index, mark: encode_log_id(&log_id) });
        Ok(())
    }
}

#[cfg(all(test, not(madsim)))]
#[path = "log_store_tests.rs"]
mod tests;
