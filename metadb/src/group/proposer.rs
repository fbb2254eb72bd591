//! Batches what is proposed: one entry of the log carries whatever waits when there is room for one more entry in flight.
//!
//! Alone, a command leaves at once; under load batches grow by themselves, since only so many entries are in flight.

use super::LevelInForce;
use crate::command::{Command, Proposal};
use crate::machine::Outcome;
use crate::metrics::HANDLES;
use crate::raft::Answer;
use crate::raft::replica::Replica;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use metadb_proto::{Error, Version};
use metadb_telemetry::trace::{Context, Span};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

/// Commands that wait for a place in an entry. More are refused: waiting longer would only pass deadlines.
const QUEUE_COMMANDS: usize = 4096;
/// Bytes of the commands that wait, in KiB; more are refused: thousands of the largest would be more than there is memory.
const QUEUE_KIB: usize = 64 << 10;
/// An entry takes no further command once it has so many bytes; a single command may be larger.
const ENTRY_BYTES: usize = 1 << 20;
/// Most commands of an entry.
const ENTRY_COMMANDS: usize = 1024;
/// Entries proposed and not yet applied: enough to hide a network round trip and a sync.
const ENTRIES_IN_FLIGHT: usize = 4;
/// When a caller that met a full queue may try again.
const FULL_RETRY: Duration = Duration::from_millis(20);

/// Waits in the queue.
const QUEUED: u8 = 0;
/// Handed to Raft, or about to be.
const TAKEN: u8 = 1;
/// Given up by its caller while it waited.
const GIVEN_UP: u8 = 2;

/// Where the time of a command went.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Times {
    pub(super) queue: Duration,
    pub(super) commit: Duration,
    pub(super) apply: Duration,
}

/// How much a proposer has to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) in_flight: usize,
    pub(super) queue_commands: usize,
    pub(super) queue_bytes: usize,
}

type Reply = oneshot::Sender<Result<(Outcome, Times), Error>>;

struct Waiting {
    command: Command,
    bytes: usize,
    /// Its place in the queue.
    room: OwnedSemaphorePermit,
    deadline: Instant,
    state: Arc<AtomicU8>,
    since: Instant,
    /// The span of the request that it belongs to, if that is sampled.
    trace: Option<Context>,
    reply: Reply,
}

/// The queue in front of a group's log.
pub(super) struct Proposer {
    queue: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
    in_flight: Arc<AtomicUsize>,
}

fn late() -> Error {
    Error::unavailable("the deadline passed before the command was proposed", FULL_RETRY)
}

impl Proposer {
    /// Starts the task that empties the queue. It ends with the last handle.
    pub(super) fn start(replica: Arc<Replica>, level: LevelInForce) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE_COMMANDS);
        let in_flight = Arc::default();
        tokio::spawn(run(replica, level, waiting, Arc::clone(&in_flight)));
        Proposer { queue, room: Arc::new(Semaphore::new(QUEUE_KIB)), in_flight }
    }

    /// How much there is to do now.
    pub(super) fn load(&self) -> Load {
        Load {
            in_flight: self.in_flight.load(Ordering::Relaxed),
            queue_commands: self.queue.max_capacity() - self.queue.capacity(),
            queue_bytes: (QUEUE_KIB - self.room.available_permits().min(QUEUE_KIB)) << 10,
        }
    }

    /// Queues a command and waits for its outcome.
    pub(super) async fn propose(&self, command: Command, deadline: Instant, trace: Option<Context>) -> Result<(Outcome, Times), Error> {
        let (reply, outcome) = oneshot::channel();
        let state = Arc::new(AtomicU8::new(QUEUED));
        let bytes = command.encoded_len();
        let full = || Error::Exhausted {
            message: format!("{QUEUE_COMMANDS} commands, or {QUEUE_KIB} KiB of them, wait for this group's log"),
            retry_after: FULL_RETRY,
        };
        let kib = u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).try_acquire_many_owned(kib).map_err(|_| full())?;
        let waiting = Waiting { command, bytes, room, deadline, state: Arc::clone(&state), since: Instant::now(), trace, reply };
        self.queue.try_send(waiting).map_err(|_| full())?;
        let left = deadline.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, outcome).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(unknown("the group stopped")),
            Err(_) if state.compare_exchange(QUEUED, GIVEN_UP, Ordering::SeqCst, Ordering::SeqCst).is_ok() => Err(late()),
            Err(_) => Err(unknown("the deadline passed before the command was applied")),
        }
    }
}

fn unknown(message: &str) -> Error {
    Error::UnknownOutcome { message: message.to_owned() }
}

/// Whom to answer, and since when each waits.
type Replies = Vec<(Instant, Reply)>;

/// An entry that Raft has, until it was applied.
struct Entry {
    replies: Replies,
    proposed: Instant,
    result: Result<Answer, Error>,
}

async fn run(replica: Arc<Replica>, level: LevelInForce, mut queue: mpsc::Receiver<Waiting>, load: Arc<AtomicUsize>) {
    let mut in_flight = FuturesUnordered::new();
    let mut held: Option<Waiting> = None;
    loop {
        let has_room = in_flight.len() < ENTRIES_IN_FLIGHT;
        load.store(in_flight.len(), Ordering::Relaxed);
        if has_room && let Some(first) = held.take() {
            in_flight.extend(propose(&replica, level.get(), &mut queue, first, &mut held).await);
            continue;
        }
        tokio::select! {
            biased;
            Some(entry) = in_flight.next(), if !in_flight.is_empty() => answer(entry),
            first = queue.recv(), if has_room => match first {
                Some(first) => in_flight.extend(propose(&replica, level.get(), &mut queue, first, &mut held).await),
                None if in_flight.is_empty() => return,
                None => {
                    while let Some(entry) = in_flight.next().await {
                        answer(entry);
                    }
                    return;
                }
            },
        }
    }
}

/// Takes a batch off the queue and hands it to Raft. A command that would make it too large is held for the next.
async fn propose(
    replica: &Replica,
    level: u16,
    queue: &mut mpsc::Receiver<Waiting>,
    first: Waiting,
    held: &mut Option<Waiting>,
) -> Option<impl Future<Output = Entry> + use<>> {
    let (mut commands, mut replies, mut bytes, mut spans) = (Vec::new(), Replies::new(), 0, Vec::new());
    let now = Instant::now();
    let mut next = Some(first);
    while let Some(waiting) = next.take() {
        if !commands.is_empty() && bytes + waiting.bytes > ENTRY_BYTES {
            *held = Some(waiting);
            break;
        }
        let taken = waiting.state.compare_exchange(QUEUED, TAKEN, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if taken && waiting.deadline > now {
            bytes += waiting.bytes;
            drop(waiting.room);
            commands.push(waiting.command);
            replies.push((waiting.since, waiting.reply));
            spans.extend(waiting.trace.map(|trace| trace.child_since("propose", waiting.since)));
        } else {
            // Nobody may wait any more; the same below.
            let _ = waiting.reply.send(Err(late()));
        }
        if commands.len() < ENTRY_COMMANDS {
            next = queue.try_recv().ok();
        }
    }
    if commands.is_empty() {
        return None;
    }
    HANDLES.entry_commands.record(commands.len() as f64);
    let proposed = now;
    let (submitted, following) = match replica.clocks().proposable() {
        Ok(unix_ms) => {
            let payload = Proposal { level, proposed: Version::from_unix_ms(unix_ms), commands }.encode();
            HANDLES.entry_bytes.record(payload.len() as f64);
            let following = replica.followed().follow(&payload, spans.iter().map(Span::context).collect());
            (replica.submit(payload).await, following)
        }
        Err(error) => (Err(error), None),
    };
    match submitted {
        Ok(submitted) => Some(async move {
            let result = submitted.outcomes().await;
            drop(following);
            tell(spans, &result);
            Entry { replies, proposed, result }
        }),
        Err(error) => {
            answer(Entry { replies, proposed, result: Err(error) });
            None
        }
    }
}

/// Ends the spans of the sampled commands of an entry.
fn tell(spans: Vec<Span>, result: &Result<Answer, Error>) {
    for mut span in spans {
        match result {
            Ok(answer) => {
                let what = vec![("commands", answer.outcomes.len().to_string())];
                span.context().record("apply", answer.began, answer.ended, what);
            }
            Err(error) => span.fail(error),
        }
    }
}

fn answer(entry: Entry) {
    let Entry { replies, proposed, result } = entry;
    match result {
        Ok(Answer { outcomes, began, ended }) if outcomes.len() == replies.len() => {
            let commit = began.saturating_duration_since(proposed);
            HANDLES.commit.record(commit);
            if let Some((oldest, _)) = replies.first() {
                HANDLES.queue.record(proposed.saturating_duration_since(*oldest));
            }
            for ((since, reply), outcome) in replies.into_iter().zip(outcomes) {
                let times = Times { queue: proposed.saturating_duration_since(since), commit, apply: ended - began };
                let _ = reply.send(Ok((outcome, times)));
            }
        }
        Ok(answer) => {
            let message = format!("{} outcomes for {} commands", answer.outcomes.len(), replies.len());
            replies.into_iter().for_each(|(_, reply)| drop(reply.send(Err(Error::internal(message.clone())))));
        }
        Err(error) => replies.into_iter().for_each(|(_, reply)| drop(reply.send(Err(error.clone())))),
    }
}
