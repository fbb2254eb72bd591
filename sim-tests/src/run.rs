//! One seed, from empty disks to the verdict.

use crate::cluster::{BORN_WITHIN, Cluster};
use crate::healing;
use crate::nemesis::{self, Bites};
use crate::planted::Planted;
use crate::trace::Trace;
use crate::verdict::{self, Final};
use crate::watcher;
use crate::workload::{self, Client, Shared, below, final_reads};
use metadb_proto::v1::ErrorKind;
use metadb_proto::v1::shard_change_record::Kind;
use metadb_proto::v1::shard_history_record::Outcome;
use shard_router::{RouterConfig, Transport};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What a run is made of. Everything else comes from the seed.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How many nodes.
    pub nodes: usize,
    /// How long faults are made, in virtual time.
    pub chaos: Duration,
    /// Clients of each workload: registers, keys written once, trees, banks, lists, repeaters.
    pub clients: [usize; 6],
    /// Virtual time after which a run is taken for stuck.
    pub limit: Duration,
    /// A deliberate bug, to see that it is caught.
    pub planted: Option<Planted>,
}

impl Default for Plan {
    fn default() -> Self {
        Plan { nodes: 3, chaos: Duration::from_secs(15), clients: [4, 2, 3, 2, 2, 2], limit: Duration::from_secs(300), planted: None }
    }
}

/// What came of a seed.
#[derive(Debug, Clone)]
pub struct Report {
    /// Which seed.
    pub seed: u64,
    /// How much virtual time passed.
    pub simulated: Duration,
    /// Hash of the trace.
    pub trace: String,
    /// Events in it.
    pub events: u64,
    /// Operations that ended well, that failed, and that stayed unknown.
    pub operations: (usize, usize, usize),
    /// What clients of all workloads were told instead of an answer, and how often.
    pub refusals: BTreeMap<ErrorKind, u64>,
    /// How often each fault was made and bit.
    pub bites: Bites,
    /// Elections won.
    pub elections: usize,
    /// Steps of replicas judged by Raft's invariants.
    pub steps: u64,
    /// Snapshots installed.
    pub snapshots: u64,
    /// Changes of shards, by kind and outcome.
    pub changes: BTreeMap<(Kind, Outcome), u64>,
    /// Transfers of snapshots that went on where an earlier one had stopped, and parts of them found rotten.
    pub transfers: (u64, u64),
    /// What is wrong. Empty: nothing.
    pub violations: Vec<String>,
    /// The last events, if something is wrong.
    pub recent: Vec<String>,
}

/// Wall time after which a seed is taken for one that never ends: a busy seed takes two seconds.
const WALL_LIMIT: Duration = Duration::from_secs(120);
/// Tenants, as far as there are groups each in its own. One more asks for far too much in one of three seeds.
const TENANTS: usize = 2;
/// The stack of a seed's thread: futures of the whole cluster are polled on it.
const STACK_BYTES: usize = 16 << 20;

/// Runs a seed in a thread of its own, since parts of the runtime's state live as long as a thread. A panic anywhere in the cluster, and
/// a run that never ends, are violations.
#[must_use]
pub fn seed(seed: u64, plan: Plan) -> Report {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name(format!("seed {seed}")).stack_size(STACK_BYTES);
    let spawned = thread.spawn(move || {
        let ended = std::panic::catch_unwind(|| simulate(seed, plan));
        let _ = sender.send(ended.map_err(|panic| panic_text(&*panic)));
    });
    let outcome = match spawned {
        Ok(_) => receiver.recv_timeout(WALL_LIMIT).unwrap_or_else(|error| Err(format!("no end within {WALL_LIMIT:?}: {error}"))),
        Err(error) => Err(format!("no thread: {error}")),
    };
    outcome.unwrap_or_else(|text| Report {
        seed,
        simulated: Duration::ZERO,
        trace: String::new(),
        events: 0,
        operations: (0, 0, 0),
        refusals: BTreeMap::new(),
        bites: Bites::new(),
        elections: 0,
        steps: 0,
        snapshots: 0,
        changes: BTreeMap::new(),
        transfers: (0, 0),
        violations: vec![format!("panic: {text}")],
        recent: Vec::new(),
    })
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_else(|| "without a message".into())
}

fn simulate(seed: u64, plan: Plan) -> Report {
    let mut runtime = madsim::runtime::Runtime::with_seed_and_config(seed, madsim::Config::default());
    runtime.set_time_limit(plan.limit);
    runtime.block_on(scenario(seed, plan))
}

async fn scenario(seed: u64, plan: Plan) -> Report {
    metadb_proto::seam::simulated::plant(plan.planted.and_then(Planted::server));
    let trace = Trace::new();
    let shared = Shared::new(trace.clone(), plan.planted, crate::cluster::is_wild(seed));
    let cluster = Arc::new(Cluster::new(plan.nodes, seed, plan.planted, &trace));
    let stop_watching = Arc::new(AtomicBool::new(false));
    let watching = {
        let (cluster, trace, stop) = (Arc::clone(&cluster), trace.clone(), Arc::clone(&stop_watching));
        tokio::spawn(async move { watcher::run(&cluster, &trace, &stop).await })
    };
    let mut bites = Bites::new();
    let born = cluster.born(TENANTS + 1, &mut bites, &trace).await;
    let ended = match born {
        Ok(tenants) => Ok(live(&cluster, &shared, &tenants, plan, &mut bites).await),
        Err(missing) => Err(missing.into_iter().map(|text| format!("birth, {BORN_WITHIN:?} after the last fault: {text}")).collect()),
    };
    stop_watching.store(true, Ordering::Relaxed);
    let seen = watching.await.expect("the watcher's machine has no faults");
    let (violations, changes): (Vec<String>, _) = match ended {
        Ok((mut violations, last)) => {
            violations.extend(verdict::violations(&shared, &seen, &last, &cluster));
            (violations, last.changes)
        }
        Err(missing) => (missing, BTreeMap::new()),
    };
    let (digest, events) = trace.digest();
    let (registers, files) = (shared.registers.lock().tally(), shared.files.lock().tally());
    Report {
        seed,
        simulated: Duration::from_nanos(trace.now_ns()),
        trace: digest,
        events,
        operations: (registers.0 + files.0, registers.1 + files.1, registers.2 + files.2),
        refusals: shared.refusals.lock().clone(),
        bites,
        elections: seen.elections(),
        steps: seen.judge.steps(),
        snapshots: seen.snapshots(),
        changes,
        transfers: seen.transfers(),
        recent: if violations.is_empty() { Vec::new() } else { trace.recent() },
        violations,
    }
}

/// A cluster that is born: work and faults, healing, and a last look at everything. What is wrong so far, and what was read in the end.
async fn live(cluster: &Arc<Cluster>, shared: &Shared, tenants: &[u64], plan: Plan, bites: &mut Bites) -> (Vec<String>, Final) {
    let (tenants, flooding) = tenants.split_at(TENANTS);
    let mut clients = clients(cluster, shared, tenants, plan.clients);
    if below(3) == 0 {
        let (client, at) = client(cluster, shared, tenants, 999);
        clients.push(at.spawn(workload::flood::run(client, flooding[0])));
    }
    nemesis::run(cluster, shared, plan.chaos, bites).await;
    cluster.heal();
    shared.stop.store(true, Ordering::Relaxed);
    let mut violations = Vec::new();
    for client in clients {
        if client.await.is_err() {
            violations.push("a client ended before its time".to_owned());
        }
    }
    let (reading, at) = client(cluster, shared, tenants, 1000);
    let healing = Arc::clone(cluster);
    let ended = at.spawn(async move {
        let mut missing = healing::well(&healing, &reading).await;
        missing.extend(healing::scrubbed(&healing, &reading.shared.trace).await);
        missing.extend(healing::compared(&healing, &reading.shared.trace).await);
        // What was found is rebuilt: the cluster must be well after that, too.
        missing.extend(healing::well(&healing, &reading).await);
        let mut last = Final::default();
        let problems = Box::pin(final_reads::all(&reading, &mut last)).await;
        if workload::placement::runs_in(healing.seed()) {
            missing.extend(workload::placement::settled(&reading).await);
        }
        missing.extend(Box::pin(workload::settings::check(&healing, &reading)).await);
        missing.extend(Box::pin(workload::shards::check(&reading, &mut last.changes)).await);
        missing.extend(workload::flood::check(&healing).await);
        if workload::placement::runs_in(healing.seed()) {
            missing.extend(Box::pin(workload::placement::check(&healing, &reading)).await);
            missing.extend(healing::well(&healing, &reading).await);
        }
        last.samples = healing::identical(&healing, &reading.shared.trace).await;
        (missing, problems, last)
    });
    let (missing, problems, last) = ended.await.expect("the reader's machine has no faults");
    violations.extend(missing.into_iter().map(|text| format!("healing: {text}")));
    violations.extend(problems.into_iter().map(|text| format!("final reads: {text}")));
    (violations, last)
}

/// Clients of every workload, each on a machine of its own.
fn clients(cluster: &Arc<Cluster>, shared: &Shared, tenants: &[u64], counts: [usize; 6]) -> Vec<tokio::task::JoinHandle<()>> {
    let mut tasks = Vec::new();
    for (workload, count) in counts.into_iter().enumerate() {
        for _ in 0..count {
            let process = tasks.len() as u64 + 1;
            let (client, at) = client(cluster, shared, tenants, process);
            tasks.push(match workload {
                0 => at.spawn(workload::registers::run(client)),
                1 => at.spawn(workload::once::run(client)),
                2 => at.spawn(workload::tree::run(client)),
                3 => at.spawn(workload::bank::run(client)),
                4 => at.spawn(workload::lists::run(client)),
                _ => at.spawn(workload::again::run(client, Arc::clone(cluster))),
            });
        }
    }
    let (operator, at) = client(cluster, shared, tenants, tasks.len() as u64 + 1);
    tasks.push(at.spawn(workload::settings::run(operator)));
    let (operator, at) = client(cluster, shared, tenants, tasks.len() as u64 + 1);
    tasks.push(at.spawn(workload::shards::run(operator)));
    if workload::placement::runs_in(cluster.seed()) {
        let (operator, at) = client(cluster, shared, tenants, tasks.len() as u64 + 1);
        tasks.push(at.spawn(workload::placement::run(operator)));
    }
    tasks
}

/// A client with two routers, one framed and one of either kind.
pub(crate) fn client(cluster: &Cluster, shared: &Shared, tenants: &[u64], process: u64) -> (Client, madsim::runtime::NodeHandle) {
    let other = if below(2) == 0 { Transport::Unary } else { Transport::Framed };
    let (at, first) = cluster.client(|config| RouterConfig { transport: Transport::Framed, ..config });
    let (_, second) = cluster.client(|config| RouterConfig { transport: other, ..config });
    let client = Client { process, routers: [first, second], tenants: tenants.to_vec(), shared: shared.clone() };
    (client, at)
}
