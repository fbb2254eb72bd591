//! When to stop: SIGTERM, SIGINT, or the end of standard input when a supervisor holds its other end.

use crate::failure::Failure;
use std::io::Read as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// Resolves when the process shall stop.
pub(crate) struct Stop {
    terminate: Signal,
    interrupt: Signal,
    stdin_ended: Option<oneshot::Receiver<()>>,
}

impl Stop {
    /// Listens from now on.
    pub(crate) fn from_system(watch_stdin: bool) -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::failed(format!("can't listen for signals: {error}")));
        let stdin_ended = if watch_stdin { Some(watch_stdin_end()?) } else { None };
        Ok(Stop { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())?, stdin_ended })
    }

    /// Returns when the process shall stop.
    pub(crate) async fn wait(&mut self) {
        let stdin_ended = async {
            match &mut self.stdin_ended {
                // A thread that is gone has seen the end.
                Some(ended) => drop(ended.await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            () = stdin_ended => {}
        }
    }
}

/// On a thread of its own: a read can't be taken back, and the runtime waits for its own threads when the process ends.
fn watch_stdin_end() -> Result<oneshot::Receiver<()>, Failure> {
    let (ended, told) = oneshot::channel();
    let watch = move || {
        let mut scrap = [0; 256];
        let mut stdin = std::io::stdin().lock();
        while stdin.read(&mut scrap).is_ok_and(|bytes| bytes > 0) {}
        // Whoever stopped for another reason does not listen any more.
        let _ = ended.send(());
    };
    let started = std::thread::Builder::new().name("stdin".to_owned()).spawn(watch);
    started.map(|_| told).map_err(|error| Failure::failed(format!("can't watch standard input: {error}")))
}
