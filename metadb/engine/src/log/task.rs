//! The log's writer on a simulated disk: a task; the sync takes its time by a timer.

use super::pump::{Message, Pump, ROOM_RETRY, Step};
use crate::EngineError;
use crate::disk::Disk;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Starts the task; the log ends with the sender.
pub(super) fn start(pump: Pump, disk: Arc<dyn Disk>, queue_submissions: usize) -> mpsc::Sender<Message> {
    let (sender, receiver) = mpsc::channel(queue_submissions.max(1));
    tokio::spawn(run(pump, disk, receiver));
    sender
}

async fn run(mut pump: Pump, disk: Arc<dyn Disk>, mut queue: mpsc::Receiver<Message>) {
    while let Some(message) = queue.recv().await {
        let mut more = pump.take(message);
        while more {
            let Ok(message) = queue.try_recv() else { break };
            more = pump.take(message);
        }
        let mut result = write(&mut pump, &*disk).await;
        if pump.is_closing() {
            if result.is_ok() {
                result = write(&mut pump, &*disk).await;
            }
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
    while let Some(message) = queue.recv().await {
        pump.refuse(message);
    }
}

async fn write(pump: &mut Pump, disk: &dyn Disk) -> Result<(), EngineError> {
    loop {
        match pump.append()? {
            Step::Nothing => return Ok(()),
            Step::Sync => break,
            Step::Wait => tokio::time::sleep(ROOM_RETRY).await,
        }
    }
    let latency = disk.simulated_sync_latency().unwrap_or_default();
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    pump.sync()?;
    pump.complete(latency)
}
