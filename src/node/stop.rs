//! When to stop: SIGTERM, SIGINT, or the end of standard input when a supervisor holds its other end.

use crate::failure::Failure;
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Resolves when the process shall stop.
pub(crate) struct Stop {
    terminate: Signal,
    interrupt: Signal,
    watch_stdin: bool,
}

impl Stop {
    /// Listens from now on.
    pub(crate) fn from_system(watch_stdin: bool) -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::failed(format!("can't listen for signals: {error}")));
        Ok(Stop { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())?, watch_stdin })
    }

    /// Returns when the process shall stop.
    pub(crate) async fn wait(&mut self) {
        let watch_stdin = self.watch_stdin;
        tokio::select! {
            biased;
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            () = stdin_ended(), if watch_stdin => {}
        }
    }
}

async fn stdin_ended() {
    let mut scrap = [0; 256];
    let mut stdin = tokio::io::stdin();
    while stdin.read(&mut scrap).await.is_ok_and(|bytes| bytes > 0) {}
}
