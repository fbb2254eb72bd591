//! The longest that any client waits when a leader goes: killed, or stopped in an orderly way. Beside etcd.
//!
//! Clients put and get in a loop, half of them each, over tenants in all groups. Whatever happens they ask again: through the router,
//! which does so by itself; of etcd at another node after an error or a quarter of a second without an answer. A pause is the time between two answers
//! to the same client. The node that leads most groups (etcd: its leader) goes; when everyone is served again it is started anew, and when
//! it has caught up it is the next one's turn.

use super::{fresh, say};
use crate::etcd_api::kv_client::KvClient;
use crate::etcd_api::{PutRequest, RangeRequest};
use crate::load::{Chance, key, value};
use crate::plan::{KEYS, Plan};
use crate::report::{Better, Figure, Report, TextTable, cells, median};
use crate::systems::cairn::{Cairn, GROUPS};
use crate::systems::cairn_targets::RouterTarget;
use crate::systems::etcd::Etcd;
use crate::target::Target;
use anyhow::Context as _;
use bytes::Bytes;
use jepsen::Cluster;
use parking_lot::Mutex;
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::{Channel, Endpoint};

/// How many clients wait for an answer at the same time: four per group.
const CLIENTS: usize = 32;
/// How long an etcd client waits before it asks another node: short, so that what is seen is the cluster's pause and not the client's.
const ATTEMPT: Duration = Duration::from_millis(250);
/// After an error a client waits this long.
const AFTER_ERROR: Duration = Duration::from_millis(2);
/// Shorter pauses are not kept.
const NOTED: Duration = Duration::from_millis(3);
/// How long everybody may take to be served again, and a node to come back.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long an orderly stop may take.
const GRACE: Duration = Duration::from_secs(15);

/// How the leader goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// SIGKILL.
    Kill,
    /// SIGTERM.
    Term,
}

/// The pauses of one system.
#[derive(Debug, Clone, Default, Serialize)]
struct Pauses {
    /// Longest pause of any client at each time, in milliseconds.
    gone_ms: Vec<f64>,
    /// The same while the node came back.
    back_ms: Vec<f64>,
    /// Requests that failed for good.
    errors: u64,
}

impl Pauses {
    fn longest(&self) -> Option<f64> {
        self.gone_ms.iter().copied().reduce(f64::max)
    }
}

/// Measures.
///
/// # Errors
/// If Cairn can't be started, or does not recover. If etcd doesn't, it is left out, and the report says why.
pub async fn run(plan: &Plan, data: &Path, how: How) -> anyhow::Result<Report> {
    let name = if how == How::Kill { "kill" } else { "term" };
    let mut report = Report::new(name);
    let mut etcd = Pauses::default();
    if let Some(program) = &plan.etcd {
        say(&format!("{name}: etcd"));
        fresh(data)?;
        match of_etcd(plan, program, data, how).await {
            Ok(pauses) => etcd = pauses,
            Err(error) => report.notes.push(format!("{error:#}")),
        }
    }
    say(&format!("{name}: Cairn"));
    fresh(data)?;
    let cairn = of_cairn(plan, data, how).await?;
    let title = match how {
        How::Kill => "Longest pause of any client when a leader is killed (SIGKILL), ms",
        How::Term => "Longest pause of any client when a leader is stopped (SIGTERM), ms",
    };
    let mut table =
        TextTable::new(title, &["system", "times", "longest", "median", "under 1 s", "longest at its return", "failed requests"]);
    for (system, pauses) in [("etcd", &etcd), ("Cairn router", &cairn)].iter().filter(|(_, pauses)| !pauses.gone_ms.is_empty()) {
        let all = &pauses.gone_ms;
        let back = pauses.back_ms.iter().copied().fold(0.0, f64::max);
        let numbers = [pauses.longest(), median(all.iter().copied()), Some(back)].map(|ms| cells::with_unit(ms, ""));
        let [longest, middle, back] = numbers;
        let under = format!("{} of {}", all.iter().filter(|ms| **ms < 1000.0).count(), all.len());
        table.row([(*system).to_owned(), all.len().to_string(), longest, middle, under, back, pauses.errors.to_string()]);
    }
    report.figures = figures(how, &cairn, &etcd);
    report.tables.push(table);
    report.raw = serde_json::json!({ "cairn": cairn, "etcd": etcd });
    Ok(report)
}

fn figures(how: How, cairn: &Pauses, etcd: &Pauses) -> Vec<Figure> {
    let figure = |key, what, pick: fn(&Pauses) -> Option<f64>, at_least, moon| Figure {
        key,
        what,
        value: pick(cairn).map(|ms| ms / 1000.0),
        unit: " s",
        ours: cells::with_unit(pick(cairn), " ms"),
        peer: cells::with_unit(pick(etcd), " ms"),
        at_least: Some(at_least),
        moon: Some(moon),
        better: Better::Lower,
    };
    let middle = |pauses: &Pauses| median(pauses.gone_ms.iter().copied());
    match how {
        How::Kill => vec![
            figure("kill_pause_max_s", "longest pause, SIGKILL of a leader", Pauses::longest, 2.0, 0.5),
            figure("kill_pause_median_s", "the same, median of all kills", middle, 1.0, 0.5),
        ],
        How::Term => vec![figure("term_pause_max_s", "longest pause, SIGTERM of a leader", Pauses::longest, 0.2, 0.02)],
    }
}

async fn of_cairn(plan: &Plan, data: &Path, how: How) -> anyhow::Result<Pauses> {
    let cairn = Cairn::start(&plan.cairn, data, 3).await?;
    // One tenant per group: each goes where there are fewest.
    let mut tenants = vec![RouterTarget::new(cairn.tenant(crate::systems::cairn::TENANT).await?)];
    for n in 1..GROUPS {
        tenants.push(RouterTarget::new(cairn.tenant(&format!("bench-{n}")).await?));
    }
    let watch = Watch::start(&Arc::new(Spread { tenants }));
    let leader = async || Ok(cairn.cluster().leads_most().await?.node);
    let back = async |node: usize| super::caught_up(&cairn, node).await;
    let pauses = hurt(plan, cairn.cluster(), how, watch, leader, back).await?;
    cairn.stop().await;
    Ok(pauses)
}

async fn of_etcd(plan: &Plan, program: &Path, data: &Path, how: How) -> anyhow::Result<Pauses> {
    let etcd = Etcd::start(program, data).await?;
    let watch = Watch::start(&Arc::new(Roaming::connect(etcd.addresses())?));
    let leader = async || Ok(etcd.leader().await);
    let back = async |node: usize| etcd.answers(node).await;
    let pauses = hurt(plan, etcd.cluster(), how, watch, leader, back).await?;
    etcd.stop().await;
    Ok(pauses)
}

/// Takes leaders away and brings them back.
async fn hurt(
    plan: &Plan,
    cluster: &Cluster,
    how: How,
    watch: Watch,
    leader: impl AsyncFn() -> anyhow::Result<usize>,
    back: impl AsyncFn(usize) -> anyhow::Result<()>,
) -> anyhow::Result<Pauses> {
    let mut pauses = Pauses::default();
    watch.served_since(Instant::now()).await?;
    for _ in 0..plan.kills {
        sleep(plan.settle / 2).await;
        let node = timeout(PATIENCE, leader()).await.context("nobody leads")??;
        let gone = Instant::now();
        match how {
            How::Kill => cluster.kill(node).await?,
            How::Term => cluster.stop(node, GRACE).await?,
        }
        sleep(plan.settle).await;
        watch.served_since(Instant::now()).await?;
        pauses.gone_ms.push(watch.longest_since(gone));
        let started = Instant::now();
        cluster.start(node).await?;
        timeout(PATIENCE, back(node)).await.with_context(|| format!("{} did not come back", cluster.spec(node).name))??;
        sleep(plan.settle / 2).await;
        watch.served_since(Instant::now()).await?;
        pauses.back_ms.push(watch.longest_since(started));
    }
    pauses.errors = watch.errors.load(Ordering::Relaxed);
    Ok(pauses)
}

/// Clients that ask until this is dropped.
struct Watch {
    begin: Instant,
    seen: Vec<Arc<Seen>>,
    errors: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

/// What one client saw.
#[derive(Default)]
struct Seen {
    /// When it was answered last, in nanoseconds since the begin.
    answered: AtomicU64,
    /// When each of its pauses ended, and how long it was.
    pauses: Mutex<Vec<(u64, u64)>>,
}

impl Watch {
    fn start<T: Target>(target: &Arc<T>) -> Self {
        let (begin, errors, mut tasks) = (Instant::now(), Arc::new(AtomicU64::new(0)), JoinSet::new());
        let seen: Vec<Arc<Seen>> = (0..CLIENTS).map(|_| Arc::new(Seen::default())).collect();
        for (client, seen) in seen.iter().enumerate() {
            tasks.spawn(one_client(Arc::clone(target), client, begin, Arc::clone(seen), Arc::clone(&errors)));
        }
        Watch { begin, seen, errors, _tasks: tasks }
    }

    /// Waits until every client was answered after a moment.
    async fn served_since(&self, moment: Instant) -> anyhow::Result<()> {
        let moment = since(self.begin, moment);
        let all = async {
            while self.seen.iter().any(|seen| seen.answered.load(Ordering::Relaxed) <= moment) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, all).await.with_context(|| format!("not every client is served again after {} s", PATIENCE.as_secs()))
    }

    /// The longest pause in milliseconds of any client that ended after a moment, or has not ended.
    fn longest_since(&self, moment: Instant) -> f64 {
        let (moment, now) = (since(self.begin, moment), since(self.begin, Instant::now()));
        let of_one = |seen: &Arc<Seen>| {
            let ended = seen.pauses.lock().iter().filter(|(end, _)| *end >= moment).map(|(_, pause)| *pause).max().unwrap_or(0);
            ended.max(now.saturating_sub(seen.answered.load(Ordering::Relaxed)))
        };
        self.seen.iter().map(of_one).max().unwrap_or(0) as f64 / 1e6
    }
}

fn since(begin: Instant, moment: Instant) -> u64 {
    u64::try_from(moment.saturating_duration_since(begin).as_nanos()).unwrap_or(u64::MAX)
}

async fn one_client<T: Target>(target: Arc<T>, client: usize, begin: Instant, seen: Arc<Seen>, errors: Arc<AtomicU64>) {
    let mut chance = Chance::new(client as u64);
    loop {
        let key = key(chance.below(KEYS));
        // Half of those on each tenant put, the others get.
        let outcome = if (client / GROUPS).is_multiple_of(2) {
            target.put(client, key, value()).await
        } else {
            target.get(client, key).await.map(|_| ())
        };
        if outcome.is_err() {
            errors.fetch_add(1, Ordering::Relaxed);
            sleep(AFTER_ERROR).await;
            continue;
        }
        let now = since(begin, Instant::now());
        let pause = now - seen.answered.swap(now, Ordering::Relaxed);
        if u128::from(pause) >= NOTED.as_nanos() {
            seen.pauses.lock().push((now, pause));
        }
    }
}

/// Cairn, over tenants in all groups.
struct Spread {
    tenants: Vec<RouterTarget>,
}

impl Target for Spread {
    async fn put(&self, client: usize, key: Bytes, value: Bytes) -> anyhow::Result<()> {
        self.tenants[client % self.tenants.len()].put(client, key, value).await
    }

    async fn get(&self, client: usize, key: Bytes) -> anyhow::Result<bool> {
        self.tenants[client % self.tenants.len()].get(client, key).await
    }

    async fn scan(&self, client: usize, start: Bytes, end: Bytes, limit: u32) -> anyhow::Result<usize> {
        self.tenants[client % self.tenants.len()].scan(client, start, end, limit).await
    }
}

/// etcd at any node that answers: all clients go on to the next one when one of them got no answer.
struct Roaming {
    nodes: Vec<KvClient<Channel>>,
    at: AtomicUsize,
}

impl Roaming {
    fn connect(addresses: &[String]) -> anyhow::Result<Self> {
        let connect = |address: &String| {
            let endpoint = Endpoint::from_shared(address.clone())?.connect_timeout(ATTEMPT);
            anyhow::Ok(KvClient::new(endpoint.connect_lazy()))
        };
        Ok(Roaming { nodes: addresses.iter().map(connect).collect::<Result<_, _>>()?, at: AtomicUsize::new(0) })
    }

    async fn ask<R, F>(&self, call: impl Fn(KvClient<Channel>) -> F + Send + Sync) -> R
    where
        F: Future<Output = Result<R, tonic::Status>> + Send,
        R: Send,
    {
        loop {
            let at = self.at.load(Ordering::Relaxed);
            if let Ok(Ok(answer)) = timeout(ATTEMPT, call(self.nodes[at % self.nodes.len()].clone())).await {
                return answer;
            }
            let _ = self.at.compare_exchange(at, at + 1, Ordering::Relaxed, Ordering::Relaxed);
            sleep(AFTER_ERROR).await;
        }
    }
}

impl Target for Roaming {
    async fn put(&self, _: usize, key: Bytes, value: Bytes) -> anyhow::Result<()> {
        let put = PutRequest { key, value, lease: 0 };
        let call = |mut node: KvClient<Channel>| {
            let put = put.clone();
            async move { node.put(put).await }
        };
        self.ask(call).await;
        Ok(())
    }

    async fn get(&self, _: usize, key: Bytes) -> anyhow::Result<bool> {
        let range = RangeRequest { key, ..RangeRequest::default() };
        let call = |mut node: KvClient<Channel>| {
            let range = range.clone();
            async move { node.range(range).await }
        };
        let answer = self.ask(call).await;
        Ok(!answer.into_inner().kvs.is_empty())
    }

    async fn scan(&self, _: usize, _: Bytes, _: Bytes, _: u32) -> anyhow::Result<usize> {
        anyhow::bail!("pauses are measured by puts and gets")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers, but for a while.
    struct Pausing {
        from: Instant,
        to: Instant,
    }

    impl Target for Pausing {
        async fn put(&self, _: usize, _: Bytes, _: Bytes) -> anyhow::Result<()> {
            sleep(Duration::from_millis(1)).await;
            let now = Instant::now();
            if now > self.from && now < self.to {
                anyhow::bail!("down");
            }
            Ok(())
        }

        async fn get(&self, client: usize, key: Bytes) -> anyhow::Result<bool> {
            self.put(client, key, Bytes::new()).await.map(|()| true)
        }

        async fn scan(&self, _: usize, _: Bytes, _: Bytes, _: u32) -> anyhow::Result<usize> {
            Ok(0)
        }
    }

    #[tokio::test]
    async fn a_pause_is_seen_once_and_only_where_it_is() {
        let now = Instant::now();
        let (from, to) = (now + Duration::from_millis(100), now + Duration::from_millis(400));
        let watch = Watch::start(&Arc::new(Pausing { from, to }));
        watch.served_since(to).await.expect("it comes back");
        let pause = watch.longest_since(from);
        assert!((300.0..2000.0).contains(&pause), "{pause}");
        sleep(Duration::from_millis(50)).await;
        assert!(watch.longest_since(Instant::now()) < 250.0);
        assert!(watch.errors.load(Ordering::Relaxed) > 0);
    }
}
