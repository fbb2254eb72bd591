//! The systems that are measured: how each is started with fresh data, and how it is asked.

pub mod cairn;
pub mod cairn_targets;
pub mod etcd;
pub mod mariadb;
pub mod mysql;
pub mod ports;

use anyhow::Context as _;
use jepsen::{Cluster, NodeSpec};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Lines of a peer's log that are shown when it does not come up.
const LOG_LINES: usize = 12;
/// Part of util-linux: has the kernel kill what it starts when this process dies, however it dies.
const SETPRIV: &str = "/usr/bin/setpriv";

/// A program as it is started: one that does not watch its standard input must not outlive this process.
#[must_use]
pub fn leashed(program: &Path, args: Vec<OsString>) -> (PathBuf, Vec<OsString>) {
    if !Path::new(SETPRIV).exists() {
        return (program.to_owned(), args);
    }
    let leash = ["--pdeathsig", "KILL", "--"].map(OsString::from);
    (SETPRIV.into(), leash.into_iter().chain([program.as_os_str().to_owned()]).chain(args).collect())
}

/// Waits for a system to come up. If it does not, the error tells how its processes ended and what they logged last.
///
/// # Errors
/// If it is not up within that time, or can't be.
pub async fn up<T>(what: &str, within: Duration, cluster: &Cluster, ready: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let answer = tokio::time::timeout(within, ready).await;
    let answer = answer.unwrap_or_else(|_| Err(anyhow::anyhow!("not up within {} s", within.as_secs())));
    answer.with_context(|| format!("{what} does not work: {}", last_words(cluster)))
}

fn last_words(cluster: &Cluster) -> String {
    let words = (0..cluster.size()).map(|node| {
        let (state, spec) = (cluster.state(node), cluster.spec(node));
        let log = std::fs::read(&spec.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n    ");
        let how = state.pid.map_or_else(|| state.last_exit.clone().unwrap_or_else(|| "never started".into()), |_| "running".into());
        format!("\n  {} ({how}), {}:\n    {tail}", state.name, spec.log.display())
    });
    words.collect()
}

/// The processes of a cluster that are up.
#[must_use]
pub fn pids(cluster: &Cluster) -> Vec<u32> {
    (0..cluster.size()).filter_map(|node| cluster.state(node).pid).collect()
}

/// Starts one process or several.
///
/// # Errors
/// If one can't be started.
pub async fn start(specs: Vec<NodeSpec>, token: String) -> anyhow::Result<Cluster> {
    let cluster = Cluster::new(specs, token);
    cluster.start_all().await?;
    Ok(cluster)
}
