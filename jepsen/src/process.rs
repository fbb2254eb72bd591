//! One child process and the task that keeps it in the state that is wanted: up, with backoff after a death, or down.
//!
//! The child gets a process group of its own, so that Ctrl-C at the terminal reaches the supervisor alone, and a pipe as its standard
//! input, whose end it takes for the death of the supervisor: no orphan outlives even a SIGKILL of the parent.

use crate::cluster::{ClusterError, NodeSpec};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// First pause before a dead child is started again.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest pause: a person who mends something should not wait longer.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A child that lived this long was well: its next death starts with the shortest pause again.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);
/// Orders that may wait for a child: each caller has one at most.
const ORDERS: usize = 16;
/// The exit code that says "my settings are wrong": starting again can't help.
const USAGE_EXIT_CODE: i32 = 2;

/// What a child is asked.
pub(crate) enum Order {
    /// Be up. Answered once the process exists.
    Start(oneshot::Sender<Result<(), ClusterError>>),
    /// Die at once and stay down. Answered once it is dead.
    Kill(oneshot::Sender<()>),
    /// Stop in an orderly way, at the latest after the grace. Answered once it is dead.
    Stop(Duration, oneshot::Sender<()>),
}

/// What is known of a child from outside its task.
#[derive(Debug, Default, Clone)]
pub(crate) struct Facts {
    pub(crate) pid: Option<u32>,
    pub(crate) restarts: u64,
    pub(crate) last_exit: Option<String>,
    pub(crate) gave_up: bool,
}

/// A child under supervision.
pub(crate) struct Supervised {
    pub(crate) spec: NodeSpec,
    pub(crate) facts: Arc<Mutex<Facts>>,
    orders: mpsc::Sender<Order>,
}

impl Supervised {
    /// Starts the task; the child is down until it is ordered up.
    pub(crate) fn new(spec: NodeSpec) -> Self {
        let (orders, inbox) = mpsc::channel(ORDERS);
        let facts = Arc::new(Mutex::new(Facts::default()));
        let keeper = Keeper { spec: spec.clone(), facts: Arc::clone(&facts), backoff: BACKOFF_MIN, lifeline: None };
        tokio::spawn(keeper.run(inbox));
        Supervised { spec, facts, orders }
    }

    /// Gives an order and waits for its answer.
    pub(crate) async fn order<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, ClusterError> {
        let gone = || ClusterError::Supervisor { node: self.spec.name.clone() };
        let (reply, answer) = oneshot::channel();
        self.orders.send(make(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }

    /// Sends a signal to the child, if it is up.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), ClusterError> {
        let down = || ClusterError::Down { node: self.spec.name.clone() };
        let pid = self.facts.lock().pid.ok_or_else(down)?;
        send_signal(pid, signal).map_err(|source| ClusterError::Signal { node: self.spec.name.clone(), source: Arc::new(source) })
    }
}

fn send_signal(pid: u32, signal: Signal) -> std::io::Result<()> {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = raw.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::InvalidInput))?;
    Ok(kill_process(pid, signal)?)
}

/// The task's own state.
struct Keeper {
    spec: NodeSpec,
    facts: Arc<Mutex<Facts>>,
    backoff: Duration,
    /// The other end of the child's standard input.
    lifeline: Option<ChildStdin>,
}

impl Keeper {
    async fn run(mut self, mut inbox: mpsc::Receiver<Order>) {
        while let Some(order) = inbox.recv().await {
            match order {
                Order::Start(reply) => {
                    self.facts.lock().gave_up = false;
                    let child = self.spawn();
                    let started = child.is_ok();
                    let _ = reply.send(child.as_ref().map(|_| ()).map_err(Clone::clone));
                    if started && let Ok(child) = child {
                        self.keep_up(child, &mut inbox).await;
                    }
                }
                Order::Kill(reply) | Order::Stop(_, reply) => drop(reply.send(())),
            }
        }
    }

    /// Returns when the child is down and shall stay so.
    async fn keep_up(&mut self, mut child: Child, inbox: &mut mpsc::Receiver<Order>) {
        loop {
            let born = Instant::now();
            let order = tokio::select! {
                biased;
                order = inbox.recv() => order,
                exit = child.wait() => {
                    self.died(&exit);
                    if self.facts.lock().gave_up {
                        return;
                    }
                    match self.revive(born, inbox).await {
                        Some(next) => { child = next; continue }
                        None => return,
                    }
                }
            };
            match order {
                Some(Order::Start(reply)) => drop(reply.send(Ok(()))),
                Some(Order::Kill(reply)) => {
                    let _ = child.start_kill();
                    self.reap(&mut child).await;
                    let _ = reply.send(());
                    return;
                }
                Some(Order::Stop(grace, reply)) => {
                    self.stop(&mut child, grace).await;
                    let _ = reply.send(());
                    return;
                }
                // The supervisor is gone: the child sees its standard input end, and `kill_on_drop` does the rest.
                None => return,
            }
        }
    }

    /// Waits and starts the child again; none if it was ordered to stay down meanwhile.
    async fn revive(&mut self, born: Instant, inbox: &mut mpsc::Receiver<Order>) -> Option<Child> {
        if born.elapsed() >= HEALTHY_AFTER {
            self.backoff = BACKOFF_MIN;
        }
        loop {
            let pause = tokio::time::sleep(self.backoff);
            self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
            tokio::select! {
                biased;
                order = inbox.recv() => match order {
                    Some(Order::Start(reply)) => drop(reply.send(Ok(()))),
                    Some(Order::Kill(reply) | Order::Stop(_, reply)) => { let _ = reply.send(()); return None }
                    None => return None,
                },
                () = pause => {}
            }
            match self.spawn() {
                Ok(child) => {
                    self.facts.lock().restarts += 1;
                    return Some(child);
                }
                Err(error) => tracing::error!(node = %self.spec.name, %error, "can't start"),
            }
        }
    }

    async fn stop(&self, child: &mut Child, grace: Duration) {
        if let Some(pid) = child.id() {
            // A paused child can't act on SIGTERM.
            let _ = send_signal(pid, Signal::CONT);
            let _ = send_signal(pid, Signal::TERM);
        }
        if tokio::time::timeout(grace, child.wait()).await.is_err() {
            tracing::warn!(node = %self.spec.name, grace_ms = grace.as_millis(), "did not stop in time, killing it");
            let _ = child.start_kill();
        }
        self.reap(child).await;
    }

    async fn reap(&self, child: &mut Child) {
        let exit = child.wait().await;
        let mut facts = self.facts.lock();
        facts.pid = None;
        facts.last_exit = Some(describe(&exit));
    }

    fn died(&self, exit: &std::io::Result<ExitStatus>) {
        let told = describe(exit);
        tracing::warn!(node = %self.spec.name, exit = %told, "died");
        let mut facts = self.facts.lock();
        facts.pid = None;
        facts.last_exit = Some(told);
        facts.gave_up = exit.as_ref().is_ok_and(|status| status.code() == Some(USAGE_EXIT_CODE));
    }

    fn spawn(&mut self) -> Result<Child, ClusterError> {
        let failed = |source: std::io::Error| ClusterError::Start { node: self.spec.name.clone(), message: source.to_string() };
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.spec.log).map_err(failed)?;
        let mut child = Command::new(&self.spec.program)
            .args(&self.spec.args)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        self.facts.lock().pid = child.id();
        // Waiting for a child would close its end.
        self.lifeline = child.stdin.take();
        Ok(child)
    }
}

fn describe(exit: &std::io::Result<ExitStatus>) -> String {
    match exit {
        Ok(status) => status.to_string(),
        Err(error) => format!("can't be waited for: {error}"),
    }
}
