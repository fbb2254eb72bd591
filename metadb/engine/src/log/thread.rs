//! The log's writer on a real disk: a thread, which the sync may block.

use super::pump::{Counters, Message, Pump, ROOM_RETRY, Step};
use super::{Log, LogOptions, Queue, Shared, begin};
use crate::EngineError;
use crate::disk::Disk;
use crossbeam_channel::Receiver;
use parking_lot::Mutex;
use std::sync::Arc;

/// Opens the log off the async threads and starts its writer.
pub(super) async fn open(disk: Arc<dyn Disk>, options: LogOptions) -> Result<Log, EngineError> {
    let opening = tokio::task::spawn_blocking(move || start(disk, &options));
    opening.await.unwrap_or_else(|panic| Err(EngineError::Stopped { message: format!("opening the log: {panic}") }))
}

fn start(disk: Arc<dyn Disk>, options: &LogOptions) -> Result<Log, EngineError> {
    let (writer, index) = begin(&disk, options)?;
    writer.sync()?;
    writer.settle()?;
    let counters = Arc::new(Counters::default());
    let pump = Pump::new(writer, Arc::clone(&counters), options.batch_bytes);
    let (sender, receiver) = crossbeam_channel::bounded(options.queue_submissions.max(1));
    std::thread::Builder::new().name("raft-log".to_owned()).spawn(move || run(pump, &receiver)).map_err(|error| EngineError::Io {
        operation: "start",
        path: "log writer".to_owned(),
        message: error.to_string(),
    })?;
    Ok(Log { shared: Arc::new(Shared { disk, index, queue: Mutex::new(Queue::Thread(sender)), counters }) })
}

fn run(mut pump: Pump, queue: &Receiver<Message>) {
    while let Ok(message) = queue.recv() {
        let mut more = pump.take(message);
        while more {
            let Ok(message) = queue.try_recv() else { break };
            more = pump.take(message);
        }
        let mut result = write(&mut pump);
        if pump.is_closing() {
            result = result.and_then(|()| write(&mut pump));
            match result {
                Ok(()) => pump.closed(),
                Err(error) => pump.fail(&error),
            }
            break;
        }
        if let Err(error) = result {
            pump.fail(&error);
            break;
        }
    }
    // Answered until the last handle is gone.
    while let Ok(message) = queue.recv() {
        pump.refuse(message);
    }
}

fn write(pump: &mut Pump) -> Result<(), EngineError> {
    loop {
        match pump.append()? {
            Step::Nothing => return Ok(()),
            Step::Sync => break,
            Step::Wait => wait(),
        }
    }
    let started = tokio::time::Instant::now();
    pump.sync()?;
    pump.complete(started.elapsed())
}

#[expect(clippy::disallowed_methods, reason = "the log's own thread, outside of every runtime, waits for room on its disk")]
fn wait() {
    std::thread::sleep(ROOM_RETRY);
}
