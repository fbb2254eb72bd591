//! Batches what is proposed: one entry of the log carries whatever waits when there is room for one more entry in flight.
//!
//! Alone, a command leaves at once; under load batches grow by themselves, since only so many entries are in flight.

use super::LevelInForce;
use crate::command::{Command, Proposal};
use crate::machine::Outcome;
use crate::raft::replica::Replica;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use metadb_proto::planted::{self, Bug};
use metadb_proto::{Error, Version};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
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

struct Waiting {
    command: Command,
    bytes: usize,
    /// Its place in the queue.
    room: OwnedSemaphorePermit,
    deadline: Instant,
    state: Arc<AtomicU8>,
    reply: oneshot::Sender<Result<Outcome, Error>>,
}

/// The queue in front of a group's log.
pub(super) struct Proposer {
    queue: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
}

fn late() -> Error {
    Error::unavailable("the deadline passed before the command was proposed", FULL_RETRY)
}

impl Proposer {
    /// Starts the task that empties the queue. It ends with the last handle.
    pub(super) fn start(replica: Arc<Replica>, level: LevelInForce) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE_COMMANDS);
        tokio::spawn(run(replica, level, waiting));
        Proposer { queue, room: Arc::new(Semaphore::new(QUEUE_KIB)) }
    }

    /// Queues a command and waits for its outcome.
    pub(super) async fn propose(&self, command: Command, deadline: Instant) -> Result<Outcome, Error> {
        let (reply, outcome) = oneshot::channel();
        let state = Arc::new(AtomicU8::new(QUEUED));
        let bytes = command.encoded_len();
        let full = || Error::Exhausted {
            message: format!("{QUEUE_COMMANDS} commands, or {QUEUE_KIB} KiB of them, wait for this group's log"),
            retry_after: FULL_RETRY,
        };
        let kib = u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).try_acquire_many_owned(kib).map_err(|_| full())?;
        let waiting = Waiting { command, bytes, room, deadline, state: Arc::clone(&state), reply };
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
    if planted::is(Bug::UnknownIsToldAsFailed) {
        return late();
    }
    Error::UnknownOutcome { message: message.to_owned() }
}

type Replies = Vec<oneshot::Sender<Result<Outcome, Error>>>;

async fn run(replica: Arc<Replica>, level: LevelInForce, mut queue: mpsc::Receiver<Waiting>) {
    let mut in_flight = FuturesUnordered::new();
    let mut held: Option<Waiting> = None;
    loop {
        let has_room = in_flight.len() < ENTRIES_IN_FLIGHT;
        if has_room && let Some(first) = held.take() {
            in_flight.extend(propose(&replica, level.get(), &mut queue, first, &mut held).await);
            continue;
        }
        tokio::select! {
            biased;
            Some((replies, result)) = in_flight.next(), if !in_flight.is_empty() => answer(replies, result),
            first = queue.recv(), if has_room => match first {
                Some(first) => in_flight.extend(propose(&replica, level.get(), &mut queue, first, &mut held).await),
                None if in_flight.is_empty() => return,
                None => {
                    while let Some((replies, result)) = in_flight.next().await {
                        answer(replies, result);
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
) -> Option<impl Future<Output = (Replies, Result<Vec<Outcome>, Error>)> + use<>> {
    let (mut commands, mut replies, mut bytes) = (Vec::new(), Replies::new(), 0);
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
            replies.push(waiting.reply);
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
    let submitted = match replica.clocks().proposable() {
        Ok(unix_ms) => replica.submit(Proposal { level, proposed: Version::from_unix_ms(unix_ms), commands }.encode()).await,
        Err(error) => Err(error),
    };
    match submitted {
        Ok(submitted) => Some(async move { (replies, submitted.outcomes().await) }),
        Err(error) => {
            answer(replies, Err(error));
            None
        }
    }
}

fn answer(replies: Replies, result: Result<Vec<Outcome>, Error>) {
    match result {
        Ok(outcomes) if outcomes.len() == replies.len() => {
            for (reply, outcome) in replies.into_iter().zip(outcomes) {
                let _ = reply.send(Ok(outcome));
            }
        }
        Ok(outcomes) => {
            let message = format!("{} outcomes for {} commands", outcomes.len(), replies.len());
            replies.into_iter().for_each(|reply| drop(reply.send(Err(Error::internal(message.clone())))));
        }
        Err(error) => replies.into_iter().for_each(|reply| drop(reply.send(Err(error.clone())))),
    }
}
