//! The simulated machines: three with a node each, disks that outlive its lives, and the network between them and the clients.
//!
//! A node is put together here as the binary does it, from the same libraries, but for the gateway; only disks and sockets differ.

mod birth;
mod identity;
mod inside;
mod machine;

pub use birth::BORN_WITHIN;
pub use identity::Identity;
pub use machine::Machine;

use crate::nemesis::TAME_RATE;
use crate::planted::Planted;
use crate::trace::Trace;
use madsim::net::NetSim;
use madsim::runtime::{Handle, NodeHandle};
use metadb::node::Node;
use metadb_engine::sim::Kind;
use metadb_proto::principal::ClusterSecret;
use metadb_proto::seam::simulated;
use metadb_proto::v1::Role;
use parking_lot::Mutex;
use shard_router::operator::{Operator, Wish};
use shard_router::{Router, RouterConfig};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What messages take while nothing is wrong.
const LATENCY: Range<Duration> = Duration::from_micros(200)..Duration::from_micros(900);
/// What syncs take while nothing is wrong: long enough that a kill finds some unfinished.
const SYNC_LATENCY: Range<Duration> = Duration::from_millis(1)..Duration::from_millis(10);
/// Groups beside the directory.
pub const GROUPS: u32 = 2;
/// How long a node may take to leave: the binary's default.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// A node that does not tell its status by then is stopped.
const STATUS_WITHIN: Duration = Duration::from_millis(200);
/// A node that has not purged its log by then is stopped.
const PURGE_WITHIN: Duration = Duration::from_millis(500);
/// Port of every node's gRPC door.
const PORT: u16 = 7401;

/// All machines.
pub struct Cluster {
    handle: Handle,
    machines: Vec<Arc<Machine>>,
    clients: Mutex<Vec<(NodeHandle, Router)>>,
    secret: ClusterSecret,
    seed: u64,
    purges_early: bool,
    spoilable: usize,
    /// Whether groups shall have fewer members than there are nodes.
    shrinks: AtomicBool,
    wild: bool,
}

impl Cluster {
    /// Machines with empty disks. No node runs yet.
    ///
    /// # Panics
    /// If more than 200 are asked for.
    #[must_use]
    pub fn new(size: usize, seed: u64, planted: Option<Planted>, trace: &Trace) -> Self {
        let secret = ClusterSecret::new(vec![7; ClusterSecret::MIN_BYTES]).expect("long enough");
        let handle = Handle::current();
        let addresses: Vec<_> = (0..size).map(|i| format!("{}:{PORT}", ip(0, i))).collect();
        let machines = (0..size).map(|i| Machine::new(i, &addresses, &machine::Seeded { seed, secret: &secret, planted, trace })).collect();
        let cluster = Cluster {
            handle,
            machines,
            clients: Mutex::default(),
            secret,
            seed,
            purges_early: purges_early(seed),
            spoilable: usize::try_from(seed / 3).unwrap_or(0) % size,
            shrinks: AtomicBool::new(false),
            wild: is_wild(seed),
        };
        for machine in &cluster.machines {
            let node = cluster.handle.create_node().name(machine.address()).ip(machine.ip());
            let running = Arc::clone(machine);
            machine.placed(node.init(move || Arc::clone(&running).live()).build().id());
        }
        cluster.heal();
        cluster
    }

    /// How many nodes it has.
    #[must_use]
    pub fn size(&self) -> usize {
        self.machines.len()
    }

    /// What everything is decided from.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The node whose bytes may rot.
    #[must_use]
    pub fn spoilable(&self) -> usize {
        self.spoilable
    }

    /// Notes whether groups shall have fewer members than there are nodes.
    pub(crate) fn set_shrinks(&self, shrinks: bool) {
        self.shrinks.store(shrinks, Ordering::Relaxed);
    }

    /// Whether every group votes on all nodes, and shall go on to: only then can one node's bytes rot and be had from the others.
    pub(crate) fn votes_everywhere(&self) -> bool {
        let all_vote = |group: u32| {
            let leader = self.leader(group).and_then(|leader| self.machines[leader].node()?.group(group));
            leader.map(|leader| leader.status()).is_some_and(|status| status.voters.len() == self.size() && !status.joint)
        };
        !self.shrinks.load(Ordering::Relaxed) && (0..=GROUPS).all(all_vote)
    }

    /// Whether its nodes keep so little log that whoever was away for a second needs a snapshot.
    #[must_use]
    pub fn purges_early(&self) -> bool {
        self.purges_early
    }

    /// Whether clocks go beyond what the server allows for, and reads are excused.
    #[must_use]
    pub fn is_wild(&self) -> bool {
        self.wild
    }

    /// The machines.
    #[must_use]
    pub fn machines(&self) -> &[Arc<Machine>] {
        &self.machines
    }

    /// A client's machine and its router. What runs there must be spawned on it.
    pub fn client(&self, config: impl FnOnce(RouterConfig) -> RouterConfig) -> (NodeHandle, Router) {
        let mut clients = self.clients.lock();
        let number = clients.len();
        let node = self.handle.create_node().name(format!("client-{number}")).ip(ip(1, number)).build();
        let seeds = self.machines.iter().map(|machine| machine.address().to_owned()).collect();
        let base = RouterConfig { seeds, token: self.secret.node_token(0), ..RouterConfig::default() };
        let router = Router::new(config(base));
        clients.push((node.clone(), router.clone()));
        (node, router)
    }

    /// How many groups a node says to lead.
    #[must_use]
    pub fn leads(&self, node: usize) -> usize {
        let Some(node) = self.machines[node].node() else { return 0 };
        node.groups().iter().filter(|group| group.status().role() == Role::Leader).count()
    }

    /// The groups that a node leads, as far as anybody says.
    #[must_use]
    pub fn led_by(&self, node: usize) -> Vec<u32> {
        (0..=GROUPS).filter(|group| self.leader(*group) == Some(node)).collect()
    }

    /// Which machine's node says to lead a group, in the highest term.
    #[must_use]
    pub fn leader(&self, group_id: u32) -> Option<usize> {
        let status = |node: Arc<Node>| node.group(group_id).map(|group| group.status());
        let statuses = self.machines.iter().enumerate().filter_map(|(n, machine)| Some((n, status(machine.node()?)?)));
        statuses.filter(|(_, status)| status.role() == Role::Leader).max_by_key(|(_, status)| status.term).map(|(n, _)| n)
    }

    /// The sum of the highest terms of all groups: rises with every election.
    #[must_use]
    pub fn terms(&self) -> u64 {
        let mut terms = std::collections::BTreeMap::new();
        for node in self.machines.iter().filter_map(|machine| machine.node()) {
            for status in node.groups().iter().map(|group| group.status()) {
                let term = terms.entry(status.group_id).or_insert(0);
                *term = status.term.max(*term);
            }
        }
        terms.values().sum()
    }

    /// How often clients' routers had to ask again, for whatever reason.
    #[must_use]
    pub fn client_repeats(&self) -> u64 {
        let counters = |router: &Router| {
            let c = router.counters();
            c.retries + c.redirects + c.timeouts + c.unknown_outcomes
        };
        self.clients.lock().iter().map(|(_, router)| counters(router)).sum()
    }

    /// Kills a node's process; how many bytes of its log were lost. It stays down until [`Cluster::heal`].
    pub fn kill(&self, node: usize) -> u64 {
        let machine = &self.machines[node];
        self.handle.kill(machine.placed_at());
        machine.crash(Kind::Kill)
    }

    /// Starts a node that was killed.
    pub fn restart(&self, node: usize) {
        self.handle.restart(self.machines[node].placed_at());
    }

    /// Has a node leave in good order, as the binary does when it is told to stop, and ends its process then. True if it left in time;
    /// whatever it had not synced by then is lost.
    ///
    /// # Errors
    /// If it said that it left in good order, and lost something.
    pub async fn stop(&self, node: usize) -> Result<bool, String> {
        let machine = &self.machines[node];
        let (Some(running), Some(at)) = (machine.node(), self.handle.get_node(machine.placed_at())) else { return Ok(false) };
        let stopping = at.spawn(async move { running.stop().await });
        let left = matches!(tokio::time::timeout(STOP_GRACE, stopping).await, Ok(Ok(Ok(()))));
        let unsynced = machine.unsynced_bytes();
        self.kill(node);
        if left && unsynced > 0 {
            return Err(format!("node at {} left in good order, and a crash may take {unsynced} bytes of its log", machine.address()));
        }
        Ok(left)
    }

    /// Has an operator hand a group's leadership to a node.
    ///
    /// # Errors
    /// What the operator was told.
    pub async fn transfer(&self, group_id: u32, to: usize, within: Duration) -> Result<(), String> {
        let (Some(identity), operators) = (self.machines[to].identity(), self.clients.lock().first().cloned()) else {
            return Err("the node has no identity yet".to_owned());
        };
        let Some((at, router)) = operators else { return Err("no operator has come yet".to_owned()) };
        let operator = Operator::new(router);
        let asking = at.spawn(async move { operator.transfer_leader(group_id, identity.node_id).await });
        match tokio::time::timeout(within, asking).await {
            Ok(Ok(told)) => told.map_err(|error| error.to_string()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {within:?}")),
        }
    }

    /// Has a node, if it runs, flush its store and purge all of its log that is not needed for that.
    pub async fn purge(&self, node: usize) {
        let machine = &self.machines[node];
        let (Some(running), Some(at)) = (machine.node(), self.handle.get_node(machine.placed_at())) else { return };
        let flushing = at.spawn(async move { running.flush_keeping(0).await });
        // One that is stopped, or whose disk refuses, purges nothing.
        let _ = tokio::time::timeout(PURGE_WITHIN, flushing).await;
    }

    /// Has an operator write down what the members shall be.
    ///
    /// # Errors
    /// What the operator was told.
    pub async fn wish(&self, wish: Wish) -> Result<(), String> {
        let operators = self.clients.lock().first().cloned();
        let Some((at, router)) = operators else { return Err("no operator has come yet".to_owned()) };
        let operator = Operator::new(router);
        match at.spawn(async move { operator.wish(&wish).await }).await {
            Ok(told) => told.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Takes the power from all machines at once; how many bytes of their logs were lost.
    pub fn power_loss(&self) -> u64 {
        for machine in &self.machines {
            self.handle.kill(machine.placed_at());
        }
        self.machines.iter().map(|machine| machine.crash(Kind::PowerLoss)).sum()
    }

    /// Stops a process without ending it.
    pub fn pause(&self, node: usize) {
        self.handle.pause(self.machines[node].placed_at());
    }

    /// Cuts a node from everybody.
    pub fn isolate(&self, node: usize) {
        NetSim::current().clog_node(self.machines[node].placed_at());
    }

    /// Holds back messages from one node to another, this way only.
    pub fn cut(&self, from: usize, to: usize) {
        NetSim::current().clog_link(self.machines[from].placed_at(), self.machines[to].placed_at());
    }

    /// Lets messages from one node to another through again.
    pub fn join(&self, from: usize, to: usize) {
        NetSim::current().unclog_link(self.machines[from].placed_at(), self.machines[to].placed_at());
    }

    /// Holds back what clients send to a node.
    pub fn cut_clients(&self, node: usize) {
        self.clients.lock().iter().for_each(|(client, _)| NetSim::current().clog_link(client.id(), self.machines[node].placed_at()));
    }

    /// A leader and who would be elected in its place have the clocks that are worst for leases, and that they must allow for.
    pub(crate) fn rival(&self, leader: usize, rival: usize) {
        if !self.wild {
            self.set_clock(leader, simulated::TRUE_RATE - TAME_RATE, 0);
            self.set_clock(rival, simulated::TRUE_RATE + TAME_RATE, 0);
        }
    }

    /// Sets a node's clocks: the rate of the monotonic one, and how far the wall clock is ahead.
    pub fn set_clock(&self, node: usize, rate: u32, wall_offset_ms: i64) {
        simulated::set_clock(self.machines[node].placed_at(), rate, wall_offset_ms);
    }

    /// What a node says of its clock, if it runs and something is wrong with it.
    pub async fn clock_problem(&self, node: usize) -> Option<String> {
        let machine = &self.machines[node];
        let (running, at) = (machine.node()?, self.handle.get_node(machine.placed_at())?);
        let asking = at.spawn(async move { running.status(&[]).await });
        let told = tokio::time::timeout(STATUS_WITHIN, asking).await.ok()?.ok()?.ok()?;
        Some(told.clock_problem).filter(|problem| !problem.is_empty())
    }

    /// Sets for how long a node rests before each batch of entries that it applies.
    pub fn set_apply_pause(&self, node: usize, pause: Duration) {
        simulated::set_apply_pause(self.machines[node].placed_at(), pause);
    }

    /// Whether a node knows of committed entries of a group that it has not applied.
    #[must_use]
    pub fn is_behind(&self, node: usize, group_id: u32) -> bool {
        let status = self.machines[node].node().and_then(|node| node.group(group_id)).map(|group| group.status());
        status.is_some_and(|status| status.applied_index < status.committed_index)
    }

    /// Sets what messages take, everywhere.
    pub fn set_latency(&self, latency: Range<Duration>) {
        NetSim::current().update_config(|config| config.send_latency = latency);
    }

    /// Sets what a node's syncs take.
    pub fn set_sync_latency(&self, node: usize, latency: Range<Duration>) {
        self.machines[node].disk().set_sync_latency(latency);
    }

    /// Has a node's next syncs take what they take while nothing is wrong.
    pub fn mend_syncs(&self, node: usize) {
        self.set_sync_latency(node, SYNC_LATENCY);
    }

    /// Restarts the nodes that are to begin anew with empty disks.
    pub fn tend(&self) {
        for (number, machine) in self.machines.iter().enumerate() {
            if machine.take_restart() {
                self.kill(number);
                self.handle.restart(machine.placed_at());
            }
        }
    }

    /// Ends every fault, and starts what is down.
    pub fn heal(&self) {
        let net = NetSim::current();
        for machine in &self.machines {
            net.unclog_node(machine.placed_at());
            for other in self.machines.iter().filter(|other| other.address() != machine.address()) {
                net.unclog_link(machine.placed_at(), other.placed_at());
            }
            for (client, _) in self.clients.lock().iter() {
                net.unclog_link(client.id(), machine.placed_at());
            }
            machine.disk().set_sync_latency(SYNC_LATENCY);
            machine.disk().set_capacity(None);
            machine.store().set_full(false);
            simulated::set_clock(machine.placed_at(), simulated::TRUE_RATE, 0);
            simulated::set_apply_pause(machine.placed_at(), Duration::ZERO);
            self.handle.resume(machine.placed_at());
            if self.handle.is_exit(machine.placed_at()) {
                self.handle.restart(machine.placed_at());
            }
        }
        self.set_latency(LATENCY);
        simulated::set_duplicates(None);
    }
}

/// The nodes of every third seed keep hardly any log.
fn purges_early(seed: u64) -> bool {
    seed.is_multiple_of(3)
}

/// In every fifth seed clocks go beyond what the server allows for.
pub(crate) fn is_wild(seed: u64) -> bool {
    seed % 5 == 4
}

fn ip(net: u8, host: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, net, u8::try_from(host + 1).expect("few machines")))
}
