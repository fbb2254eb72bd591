//! Linearizable reads: one confirmation of leadership serves everyone who was waiting when it began.
//!
//! While the leader's lease is fresh, which is known without a message, a round costs a queue hop; else it is a heartbeat to a quorum.

use crate::metrics::HANDLES;
use crate::raft::replica::Replica;
use metadb_proto::Error;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Readers that wait for a round to begin. More are refused.
const QUEUE_READERS: usize = 8192;
/// When a reader that met a full queue may try again.
const FULL_RETRY: Duration = Duration::from_millis(20);

type Reply = oneshot::Sender<Result<u64, Error>>;

/// The queue of readers.
pub(super) struct Barrier {
    queue: mpsc::Sender<Reply>,
    replica: Arc<Replica>,
}

fn late() -> Error {
    Error::unavailable("the deadline passed before leadership was confirmed", FULL_RETRY)
}

impl Barrier {
    /// Starts the task that runs the rounds. It ends with the last handle.
    pub(super) fn start(replica: Arc<Replica>) -> Self {
        let (queue, readers) = mpsc::channel(QUEUE_READERS);
        tokio::spawn(run(Arc::clone(&replica), readers));
        Barrier { queue, replica }
    }

    /// Returns when this replica's state holds every write that was answered before the call.
    pub(super) async fn pass(&self, deadline: Instant) -> Result<(), Error> {
        let (reply, index) = oneshot::channel();
        self.queue.try_send(reply).map_err(|_| Error::Exhausted {
            message: format!("{QUEUE_READERS} reads wait for this group's leader to be confirmed"),
            retry_after: FULL_RETRY,
        })?;
        let passed = async {
            let index = index.await.map_err(|_| Error::unavailable("the group stopped", FULL_RETRY))??;
            self.replica.applied_through(index).await;
            #[cfg(madsim)]
            self.replica.tell_served(index);
            Ok(())
        };
        let left = deadline.saturating_duration_since(Instant::now());
        tokio::time::timeout(left, passed).await.unwrap_or_else(|_| Err(late()))
    }
}

async fn run(replica: Arc<Replica>, mut queue: mpsc::Receiver<Reply>) {
    let mut readers = Vec::new();
    while queue.recv_many(&mut readers, QUEUE_READERS).await > 0 {
        let by = if replica.lease_is_fresh() { &HANDLES.rounds_by_lease } else { &HANDLES.rounds_by_quorum };
        by.increment(1);
        HANDLES.round_readers.record(readers.len() as f64);
        let index = replica.read_index().await;
        for reader in readers.drain(..) {
            // A reader that gave up needs no answer.
            let _ = reader.send(index.clone());
        }
    }
}
