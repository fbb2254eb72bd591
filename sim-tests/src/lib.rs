//! The whole cluster in one thread: the real server, router and namespace in the simulator, with faults, judged by `jepsen/checkers`.
//!
//! A seed decides everything: what clients ask, when nodes die, which message is late, which task runs next. The same seed gives the same
//! [`trace`], bit for bit, and a test proves it; so a seed is a bug report. `sim --seed N` replays one.
//!
//! A [`run`] is: a [`cluster`] of simulated machines is born as a real one is; [`workload`]s ask it through routers of their own,
//! from machines of their own, and record what they were told; a [`nemesis`] kills, cuts and slows; then everything is healed, and
//! [`healing`] gives the cluster a bounded time to be well again; then the [`verdict`] of every checker is asked. Meanwhile [`watcher`]
//! looks at every replica. What chance would hardly bring about is a scenario of its own: [`late`], [`full`].
//!
//! Not here: mocks of our own code (only disks and the network are simulated), real time, real files. RocksDB is never compiled for
//! this. Without `--cfg madsim` the crate is empty.
//!
//! Limits of the simulated network, all of them kinder than the real one: a message is never lost inside a connection, only late;
//! a connection that is cut does not fail by itself. Real processes on real disks are the part of `jepsen`.

#![cfg_attr(madsim, expect(clippy::disallowed_methods, reason = "in the simulator tokio's Instant is std's, on virtual time"))]

#[cfg(madsim)]
pub mod cluster;
#[cfg(madsim)]
pub mod full;
#[cfg(madsim)]
pub mod healing;
#[cfg(madsim)]
pub mod late;
#[cfg(madsim)]
pub mod nemesis;
#[cfg(madsim)]
pub mod planted;
#[cfg(madsim)]
pub mod run;
#[cfg(madsim)]
mod scenario;
#[cfg(madsim)]
pub mod trace;
#[cfg(madsim)]
pub mod verdict;
#[cfg(madsim)]
pub mod watcher;
#[cfg(madsim)]
pub mod workload;
