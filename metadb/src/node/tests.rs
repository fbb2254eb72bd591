//! Whole nodes over loopback gRPC, each in a runtime of its own, over simulated disks that forget what was not synced.

use super::*;
use crate::command::Command;
use crate::doors::Doors;
use crate::group::Wanted;
use crate::machine::Outcome;
use crate::raft::hearts;
use crate::raft::link::LinkError;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use metadb_engine::Cf;
use metadb_engine::log::LogOptions;
use metadb_engine::sim::{Kind, SimDisk, SimStore};
use metadb_proto::Principal;
use metadb_proto::kv::{request, response};
use metadb_proto::principal::{Authenticate, Token};
use std::net::SocketAddr;
use tokio::runtime::Runtime;

const GROUP: u32 = 0;
const PATIENCE: Duration = Duration::from_secs(20);

fn secret() -> ClusterSecret {
    ClusterSecret::new(vec![7; 32]).expect("long enough")
}

struct NodesOnly;

impl Authenticate for NodesOnly {
    fn authenticate<'a>(&'a self, authorization: &'a str) -> BoxFuture<'a, Result<Principal, Error>> {
        async move {
            match Token::parse(authorization)? {
                token @ Token::Node { node_id, .. } if token.proves_node(&secret()) => Ok(Principal::Node(node_id)),
                Token::Node { .. } | Token::Key { .. } => Err(Error::Unauthenticated { message: "no node".into() }),
            }
        }
        .boxed()
    }
}

/// A machine: what survives its node, and the node while it runs.
struct Host {
    node_id: u64,
    address: SocketAddr,
    store: Arc<SimStore>,
    log: Arc<SimDisk>,
    spool: Arc<SimDisk>,
    upkeep: Upkeep,
    snapshots: SnapshotLimits,
    life: Option<(Runtime, Arc<Node>)>,
}

impl Host {
    fn new(node_id: u64) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = free.local_addr().expect("bound");
        let (store, log, spool) = (SimStore::new(node_id), SimDisk::new(node_id), SimDisk::new(node_id + 100));
        Host { node_id, address, store, log, spool, upkeep: Upkeep::default(), snapshots: SnapshotLimits::default(), life: None }
    }

    fn node_ref(&self) -> v1::NodeRef {
        v1::NodeRef { node_id: self.node_id, address: self.address.to_string() }
    }

    fn start(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("builds");
        let config =
            NodeConfig { upkeep: self.upkeep, snapshots: self.snapshots, ..NodeConfig::new(self.node_id, "00", self.address.to_string()) };
        let (store, log, spool, address) = (self.store.clone(), self.log.mount(), self.spool.mount(), self.address);
        let node = runtime.block_on(async move {
            let log = Log::open(log, LogOptions::default()).await.expect("the log opens");
            let node = Node::start(config, Parts { store, log, spool, secret: secret() }).await.expect("the node starts");
            let doors = Doors::new(Arc::clone(&node), Arc::new(NodesOnly));
            let server = tonic::transport::Server::builder().add_service(doors.peer()).add_service(doors.node_admin());
            tokio::spawn(server.serve(address));
            node
        });
        self.life = Some((runtime, node));
    }

    fn node(&self) -> Arc<Node> {
        Arc::clone(&self.life.as_ref().expect("it runs").1)
    }

    fn group(&self) -> Arc<Group> {
        self.node().group(GROUP).expect("it has the replica")
    }

    /// Runs something where the node runs.
    fn run<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> T {
        self.life.as_ref().expect("it runs").0.block_on(future)
    }

    /// Power goes: tasks end where they are, and the disks forget what was not synced.
    fn kill(&mut self) {
        let (runtime, node) = self.life.take().expect("it runs");
        runtime.shutdown_timeout(Duration::from_secs(5));
        drop(node);
        self.store.crash(Kind::PowerLoss);
        self.log.crash(Kind::PowerLoss);
        self.spool.crash(Kind::PowerLoss);
    }

    fn stop(&mut self) {
        let (runtime, node) = self.life.take().expect("it runs");
        runtime.block_on(node.stop()).expect("stops in good order");
        runtime.shutdown_timeout(Duration::from_secs(5));
    }

    fn hash(&self) -> (u64, String) {
        let node = self.node();
        let status = self.run(async move { node.status(&[GROUP]).await }).expect("a status");
        (status.groups[0].applied_index, status.groups[0].state_hash.clone())
    }
}

fn put(key: &str, value: &str) -> Command {
    put_as(b"", key, value)
}

fn put_as(request_id: &'static [u8], key: &str, value: &str) -> Command {
    let put = v1::operation::Put { key: key.to_owned().into(), value: value.to_owned().into() };
    let header = v1::RequestHeader { tenant_id: 0, epoch: 1, request_id: request_id.into(), ..Default::default() };
    let operations = vec![v1::Operation { op: Some(v1::operation::Op::Put(put)) }];
    Command::Transact(v1::TransactRequest { header: Some(header), operations, ..Default::default() })
}

fn get(key: &str) -> request::Body {
    let header = v1::RequestHeader { tenant_id: 0, epoch: 1, ..Default::default() };
    request::Body::Get(v1::GetRequest { header: Some(header), key: key.to_owned().into(), read: None })
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not come about");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

fn leader(hosts: &[Host]) -> usize {
    until("a leader", || {
        let running = hosts.iter().enumerate().filter(|(_, host)| host.life.is_some());
        running.map(|(at, host)| (at, host.group().status())).find(|(_, s)| s.role() == v1::Role::Leader).map(|(at, _)| at)
    })
}

/// Writes keys through whoever leads, each until it is acknowledged.
fn write(hosts: &[Host], keys: std::ops::Range<u32>) {
    for key in keys {
        until("a write", || {
            let host = &hosts[leader(hosts)];
            let group = host.group();
            let command = put(&format!("key-{key}"), &format!("value-{key}"));
            match host.run(async move { group.propose(command, soon()).await }) {
                Ok(Outcome::Transact(Ok(response))) => response.committed.then_some(()),
                Ok(other) => panic!("{other:?}"),
                Err(Error::Unavailable { .. } | Error::Moved { .. } | Error::UnknownOutcome { .. }) => None,
                Err(error) => panic!("{error}"),
            }
        });
    }
}

fn read(hosts: &[Host], key: u32) -> Option<String> {
    until("a read", || {
        let host = &hosts[leader(hosts)];
        let group = host.group();
        let view = host.run(async move { group.read_barrier(soon()).await }).ok()?;
        match view.answer(&get(&format!("key-{key}"))) {
            Ok(response::Body::Get(found)) => Some(found.row.map(|row| String::from_utf8_lossy(&row.value).into_owned())),
            other => panic!("{other:?}"),
        }
    })
}

fn settled(hosts: &[Host]) {
    let last = until("equal states", || {
        let hashes: Vec<_> = hosts.iter().map(Host::hash).collect();
        hashes.windows(2).all(|pair| pair[0] == pair[1]).then(|| hashes[0].clone())
    });
    assert!(last.0 > 0);
}

fn cluster(count: u64) -> Vec<Host> {
    let mut hosts: Vec<Host> = (1..=count).map(Host::new).collect();
    let voters: Vec<_> = hosts.iter().map(Host::node_ref).collect();
    hosts.iter_mut().for_each(Host::start);
    for host in hosts.iter().rev() {
        let (node, voters) = (host.node(), voters.clone());
        host.run(async move { node.create_replica(GROUP, voters).await }).expect("made");
    }
    hosts
}

#[test]
fn a_killed_leader_is_replaced_and_comes_back() {
    let mut hosts = cluster(3);
    write(&hosts, 0..50);
    assert_eq!(read(&hosts, 49).as_deref(), Some("value-49"));
    let first = leader(&hosts);
    let follower = &hosts[(first + 1) % 3];
    let group = follower.group();
    let refused = follower.run(async move { group.read_barrier(soon()).await }).expect_err("followers do not serve it");
    assert!(matches!(&refused, Error::Moved { redirect, .. } if redirect.leader == Some(hosts[first].node_ref())), "{refused}");

    hosts[first].kill();
    let killed = Instant::now();
    let second = leader(&hosts);
    let took = killed.elapsed();
    assert_ne!(first, second);
    assert!(took < Duration::from_secs(4), "replacing the leader took {took:?}");
    write(&hosts, 50..100);
    hosts[first].start();
    write(&hosts, 100..120);
    settled(&hosts);
    for key in [0, 49, 50, 99, 119] {
        assert_eq!(read(&hosts, key), Some(format!("value-{key}")));
    }
}

#[test]
fn a_follower_behind_the_purged_log_gets_a_snapshot() {
    let mut hosts = cluster(3);
    write(&hosts, 0..10);
    let behind = (leader(&hosts) + 1) % 3;
    hosts[behind].kill();
    write(&hosts, 10..60);
    let ask = |host: &Host| {
        let (group, command) = (host.group(), put_as(b"once-and-no-more", "once", "first"));
        match host.run(async move { group.propose(command, soon()).await }) {
            Ok(Outcome::Transact(Ok(response))) => response,
            other => panic!("{other:?}"),
        }
    };
    let answered = ask(&hosts[leader(&hosts)]);
    for host in hosts.iter().filter(|host| host.life.is_some()) {
        let node = host.node();
        host.run(async move { node.flush_keeping(0).await }).expect("flushes");
        let group = host.group();
        until("a purge", || (group.status().purged_index > 30).then_some(()));
    }
    hosts[behind].start();
    settled(&hosts);
    let totals = hosts[behind].node().snapshots();
    assert!(totals.received == 1 && totals.received_bytes > 500 && totals.rotten_parts == 0, "{totals:?}");
    let sent = || hosts.iter().map(|host| host.node().snapshots().sent).sum::<u64>();
    // The sender hears of it a little later.
    until("a snapshot that was sent", || (sent() == 1).then_some(()));
    assert_eq!(hosts[behind].group().snapshots_installed(), 1);
    write(&hosts, 60..70);
    settled(&hosts);
    assert_eq!(read(&hosts, 30).as_deref(), Some("value-30"));
    // What was answered before is answered again, the same, by one that knows it from the snapshot alone.
    let (lead, to) = (leader(&hosts), hosts[behind].node_id);
    let group = hosts[lead].group();
    hosts[lead].run(async move { group.transfer_leader(to, soon()).await }).expect("handed over");
    assert_eq!(leader(&hosts), behind);
    assert_eq!(ask(&hosts[behind]), answered);
    // It is a whole member again: with it and one other there is a quorum.
    let other = (0..3).find(|at| *at != behind && *at != leader(&hosts)).expect("three nodes");
    hosts[other].kill();
    write(&hosts, 70..75);
    hosts[other].start();
    settled(&hosts);
}

#[test]
fn a_candidate_that_is_asked_to_hand_over_leads_like_any_other() {
    let mut hosts = cluster(3);
    write(&hosts, 0..10);
    let old = leader(&hosts);
    let others: Vec<_> = (0..3).filter(|at| *at != old).map(|at| (hosts[at].node_id, hosts[at].group())).collect();
    hosts[old].kill();
    // Each is asked to lead all the while in which nobody knows who does.
    let next = until("another leader", || {
        for (at, group) in others.iter().map(|(id, group)| (id, Arc::clone(group))) {
            let (host, id) = (hosts.iter().find(|host| host.node_id == *at).expect("alive"), *at);
            drop(host.run(async move { group.transfer_leader(id, Instant::now() + Duration::from_millis(20)).await }));
        }
        others.iter().find(|(_, group)| group.is_leader())
    });
    assert!(!next.1.hands_over(), "requests would wait for a successor that never comes");
    write(&hosts, 10..15);
}

#[test]
fn log_that_a_cut_transfer_held_goes_even_if_nothing_is_written_any_more() {
    let mut hosts = cluster(3);
    write(&hosts, 0..60);
    let behind = (leader(&hosts) + 1) % 3;
    let slow = SnapshotLimits {
        file_bytes: 1 << 10,
        chunk_bytes: 256,
        bytes_per_s: 1 << 10,
        keep_idle: Duration::from_secs(5),
        ..SnapshotLimits::default()
    };
    for (at, host) in hosts.iter_mut().enumerate() {
        host.stop();
        host.upkeep.keep_log_bytes = 0;
        host.snapshots = slow;
        if at != behind {
            host.start();
        }
    }
    write(&hosts, 60..70);
    for host in hosts.iter().filter(|host| host.life.is_some()) {
        let (node, group) = (host.node(), host.group());
        until("a purge", || {
            let node = Arc::clone(&node);
            host.run(async move { node.flush().await }).expect("flushes");
            (group.status().purged_index > 60).then_some(())
        });
    }
    hosts[behind].start();
    until("a transfer", || (hosts[behind].node().snapshots().received_bytes > 0).then_some(()));
    let cut = Instant::now();
    hosts[behind].kill();
    let sender =
        hosts.iter().find(|host| host.life.as_ref().is_some_and(|(_, node)| node.snapshots().sent_bytes > 0)).expect("who sent it");
    let held = sender.group().status().purged_index;
    write(&hosts, 70..90);
    let node = sender.node();
    sender.run(async move { node.flush().await }).expect("flushes");
    let kept = sender.group().status().purged_index == held;
    assert!(kept || cut.elapsed() > slow.keep_idle, "the follower may come back for the rest");
    until("a purge", || (sender.group().status().purged_index > held + 15).then_some(()));
}

#[test]
fn a_node_whose_marks_do_not_read_back_starts_and_trusts_nothing_of_its_store() {
    let mut hosts = cluster(3);
    write(&hosts, 0..10);
    let bad = (leader(&hosts) + 1) % 3;
    let node = hosts[bad].node();
    hosts[bad].run(async move { node.flush().await }).expect("flushes");
    hosts[bad].kill();
    let is_mark = |key: bytes::Bytes| key.len() == 5 && key.last() == Some(&0xfe);
    while !hosts[bad].store.rot(Cf::State).is_some_and(is_mark) {}
    hosts[bad].start();
    until("a quarantine", || (hosts[bad].node().quarantined() == 1).then_some(()));
    hosts[bad].kill();
    write(&hosts, 10..15);
    assert_eq!(read(&hosts, 14).as_deref(), Some("value-14"));
}

#[test]
fn a_restart_replays_no_more_than_the_log_grew_since_a_flush() {
    let mut hosts = cluster(1);
    hosts[0].stop();
    hosts[0].upkeep = Upkeep { flush_log_bytes: 8 << 10, ..Upkeep::default() };
    hosts[0].start();
    write(&hosts, 0..100);
    until("the upkeep's flush", || (hosts[0].group().status().flushed_index >= 100).then_some(()));
    write(&hosts, 100..130);
    let before = hosts[0].group().status();
    hosts[0].kill();
    hosts[0].start();
    let replayed = hosts[0].group().status().replayed_entries;
    assert!(replayed <= before.last_log_index - before.flushed_index, "{replayed} of {}", before.last_log_index);
    settled(&hosts);
    assert_eq!(read(&hosts, 129).as_deref(), Some("value-129"));
}

#[test]
fn all_nodes_lose_power_and_nothing_acknowledged_is_lost() {
    let mut hosts = cluster(3);
    write(&hosts, 0..30);
    hosts.iter_mut().for_each(Host::kill);
    hosts.iter_mut().for_each(Host::start);
    for key in 0..30 {
        assert_eq!(read(&hosts, key), Some(format!("value-{key}")));
    }
    settled(&hosts);
}

#[test]
fn commands_that_wait_take_no_more_than_their_share_of_memory() {
    let mut hosts = cluster(3);
    write(&hosts, 0..1);
    let lead = leader(&hosts);
    hosts.iter_mut().enumerate().filter(|(at, _)| *at != lead).for_each(|(_, host)| host.kill());
    let group = hosts[lead].group();
    let outcomes = hosts[lead].run(async move {
        let large = || put("large", &"v".repeat(1 << 20));
        let deadline = Instant::now() + Duration::from_secs(1);
        futures::future::join_all((0..100).map(|_| group.propose(large(), deadline))).await
    });
    let refused = outcomes.iter().filter(|outcome| matches!(outcome, Err(Error::Exhausted { .. }))).count();
    assert!((20..100).contains(&refused), "{refused} of 100 refused");
    assert!(outcomes.iter().all(Result::is_err), "without a quorum nothing is done");
}

#[test]
fn a_message_meant_for_another_node_or_cluster_is_refused() {
    let hosts = cluster(1);
    let ask = |cluster_id: &'static str, to| {
        let address = hosts[0].address.to_string();
        hosts[0].run(async move {
            let links = Links::new(2, cluster_id, &secret(), Arc::new(Clocks::new(MAX_CLOCK_OFFSET)), LevelInForce::default());
            links.to(to, &address).call(GROUP, v1::PeerVerb::Vote, bytes::Bytes::new(), PATIENCE).await.expect_err("no vote request")
        })
    };
    let heard = ask("00", 1);
    assert!(matches!(heard, LinkError::Refused { .. }), "{heard}");
    for (cluster_id, to) in [("00", 9), ("01", 1)] {
        let error = ask(cluster_id, to);
        assert!(matches!(&error, LinkError::Down { message, .. } if message.contains("cluster/node")), "{error}");
    }
}

#[test]
fn one_node_alone_serves_and_restarts() {
    let mut hosts = cluster(1);
    write(&hosts, 0..20);
    hosts[0].stop();
    hosts[0].start();
    assert_eq!(read(&hosts, 19).as_deref(), Some("value-19"));
    write(&hosts, 20..30);
    hosts[0].kill();
    hosts[0].start();
    assert_eq!(read(&hosts, 29).as_deref(), Some("value-29"));
}

#[test]
fn members_grow_and_leadership_is_handed_over() {
    let mut hosts = cluster(1);
    for node_id in [2, 3] {
        let mut host = Host::new(node_id);
        host.start();
        let node = host.node();
        host.run(async move { node.create_replica(GROUP, Vec::new()).await }).expect("made");
        hosts.push(host);
    }
    write(&hosts, 0..10);
    let voters: Vec<_> = hosts.iter().map(Host::node_ref).collect();
    for _ in 0..2 {
        let (group, voters) = (hosts[0].group(), voters.clone());
        hosts[0].run(async move { group.change_members(Wanted { voters, ..Wanted::default() }, soon()).await }).expect("grows");
    }
    assert_eq!(hosts[0].group().status().voters, voters);
    write(&hosts, 10..20);
    let group = hosts[0].group();
    hosts[0].run(async move { group.transfer_leader(3, soon()).await }).expect("handed over");
    // The old leader may not have heard of it yet.
    until("the one that was asked for leads alone", || (!hosts[0].group().is_leader() && leader(&hosts) == 2).then_some(()));
    write(&hosts, 20..25);
    // A graceful stop of the leader leaves no gap of an election.
    hosts[2].stop();
    let stopped = Instant::now();
    write(&hosts, 25..30);
    assert!(stopped.elapsed() < Duration::from_secs(2), "the group rested for {:?}", stopped.elapsed());
    hosts[2].start();
    settled(&hosts);
    // And shrinks again.
    let rest = vec![hosts[0].node_ref(), hosts[1].node_ref()];
    until("a shrink", || change(&hosts[leader(&hosts)], &rest, None, soon()).ok());
    hosts[2].stop();
    write(&hosts[..2], 30..35);
    assert_eq!(read(&hosts[..2], 34).as_deref(), Some("value-34"));
}

fn change(host: &Host, voters: &[v1::NodeRef], if_membership_index: Option<u64>, deadline: Instant) -> Result<(), Error> {
    let (group, voters) = (host.group(), voters.to_vec());
    host.run(async move { group.change_members(Wanted { voters, learners: Vec::new(), if_membership_index }, deadline).await })
}

#[test]
fn a_change_without_a_quorum_is_told_in_time_and_is_ended_by_asking_again() {
    let mut hosts = cluster(3);
    write(&hosts, 0..5);
    let lead = leader(&hosts);
    let followers: Vec<usize> = (0..3).filter(|at| *at != lead).collect();
    let all: Vec<_> = hosts.iter().map(Host::node_ref).collect();
    let index = hosts[lead].group().status().membership_index;
    let refused = change(&hosts[lead], &all, Some(index + 1), soon()).expect_err("decided on what is not");
    assert!(matches!(refused, Error::Conflict { .. }), "{refused}");
    followers.iter().for_each(|at| hosts[*at].kill());
    let alone = [hosts[lead].node_ref()];
    let began = Instant::now();
    let told = change(&hosts[lead], &alone, Some(index), began + Duration::from_millis(300)).expect_err("nobody to agree with");
    assert!(matches!(told, Error::Unavailable { .. }) && began.elapsed() < Duration::from_secs(2), "{told} after {:?}", began.elapsed());
    followers.iter().for_each(|at| hosts[*at].start());
    // Wherever it was left: by asking whoever leads again it ends, and nothing is between two memberships.
    until("an end of the change", || {
        let lead = leader(&hosts);
        change(&hosts[lead], &alone, None, soon()).ok()?;
        let status = hosts[lead].group().status();
        (status.voters == alone && status.learners.is_empty() && !status.joint).then_some(())
    });
    write(&hosts[..=lead], 5..8);
    assert_eq!(read(&hosts[..=lead], 7).as_deref(), Some("value-7"));
}

#[test]
fn a_stop_in_good_order_leaves_nothing_to_apply_again() {
    let mut hosts = cluster(3);
    let replayed = |hosts: &[Host]| hosts.iter().map(|host| host.group().status().replayed_entries).collect::<Vec<_>>();
    write(&hosts, 0..40);
    hosts.iter_mut().for_each(Host::stop);
    hosts.iter_mut().for_each(Host::start);
    assert_eq!(replayed(&hosts), [0, 0, 0]);
    write(&hosts, 40..80);
    settled(&hosts);
    hosts.iter_mut().for_each(Host::kill);
    hosts.iter_mut().for_each(Host::start);
    assert!(replayed(&hosts).into_iter().any(|entries| entries > 10), "power went without a flush: {:?}", replayed(&hosts));
    settled(&hosts);
    assert_eq!(read(&hosts, 79).as_deref(), Some("value-79"));
}

#[test]
fn heartbeats_of_many_groups_travel_in_one_frame() {
    const BEATS: u32 = 50;
    let hosts = cluster(1);
    let address = hosts[0].address.to_string();
    // On one thread: all of them are there before the message leaves.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("builds");
    runtime.block_on(async move {
        let links = Links::new(2, "00", &secret(), Arc::new(Clocks::new(MAX_CLOCK_OFFSET)), LevelInForce::default());
        let link = links.to(1, &address);
        let beat = |group_id| hearts::beat(&link, group_id, bytes::Bytes::new());
        // The first one opens the stream.
        beat(100).await.expect_err("no such group");
        let before = (links.numbers()[0], links.heartbeats());
        let answers = futures::future::join_all((0..BEATS).map(|at| beat(100 + at))).await;
        for (at, answer) in (0..).zip(answers) {
            let refused = answer.expect_err("no such group").to_string();
            assert!(refused.contains(&format!("group {}", 100 + at)), "each gets its own answer: {refused}");
        }
        let after = (links.numbers()[0], links.heartbeats());
        assert_eq!((after.0.frames - before.0.frames, after.0.messages - before.0.messages), (1, 1));
        assert_eq!((after.1.0 - before.1.0, after.1.1 - before.1.1), (u64::from(BEATS), 1));
    });
}

#[test]
fn a_leader_beats_for_all_its_groups_at_once_when_every_node_understands_it() {
    const GROUPS: std::ops::RangeInclusive<u32> = 1..=12;
    let hosts = cluster(2);
    let voters: Vec<_> = hosts.iter().map(Host::node_ref).collect();
    for (host, group_id) in hosts.iter().rev().flat_map(|host| GROUPS.map(move |group_id| (host, group_id))) {
        let (node, voters) = (host.node(), voters.clone());
        host.run(async move { node.create_replica(group_id, voters).await }).expect("made");
    }
    let leads = |host: &Host| host.node().groups().iter().filter(|group| group.status().role() == v1::Role::Leader).count();
    until("leaders", || (hosts.iter().map(leads).sum::<usize>() == 13).then_some(()));
    let sent = || {
        let sent = hosts.iter().map(|host| host.node().links.heartbeats());
        sent.fold((0, 0), |sum, sent| (sum.0 + sent.0, sum.1 + sent.1))
    };
    assert_eq!(sent(), (0, 0), "at the oldest level each group beats by itself");
    for host in &hosts {
        host.node().raise_level(v1::RaiseLevelRequest { feature_level: level::MEMBERS.into() }).expect("known");
    }
    let (beats, messages) = until("heartbeats", || Some(sent()).filter(|(beats, _)| *beats > 400));
    assert!(beats > messages * 3, "{beats} heartbeats of 13 groups went in {messages} messages");
}

#[test]
fn a_replica_of_a_node_that_is_no_member_is_deleted_and_one_that_heard_from_its_group_stays() {
    let mut hosts = cluster(3);
    write(&hosts, 0..20);
    settled(&hosts);
    let gone = (leader(&hosts) + 1) % 3;
    let rest: Vec<_> = hosts.iter().map(Host::node_ref).filter(|node| node.node_id != hosts[gone].node_id).collect();
    until("a shrink", || change(&hosts[leader(&hosts)], &rest, None, soon()).ok());
    let seen = || {
        let v1::GroupStatus { term, last_log_index, .. } = hosts[gone].group().status();
        v1::DropReplicaRequest { group_id: GROUP, term, last_log_index }
    };
    let drop_replica = |host: &Host, request: v1::DropReplicaRequest| {
        let node = host.node();
        host.run(async move { node.drop_replica(&request).await })
    };
    let stale = v1::DropReplicaRequest { last_log_index: seen().last_log_index - 1, ..seen() };
    let refused = drop_replica(&hosts[gone], stale).expect_err("it has heard from its group since");
    assert!(matches!(refused, Error::Conflict { .. }), "{refused}");
    assert!(hosts[gone].group().status().last_log_index > 0, "it stays as it is");
    let request = seen();
    for _ in 0..2 {
        until("a deletion", || drop_replica(&hosts[gone], request).ok());
    }
    assert!(hosts[gone].node().group(GROUP).is_none() && hosts[gone].node().quarantined() == 0);
    assert!(hosts[gone].node().log.group(GROUP).is_none_or(|state| state.last_index.is_none() && state.vote.is_none()));
    hosts[gone].stop();
    hosts[gone].start();
    assert!(hosts[gone].node().groups().is_empty(), "nothing of it comes back");

    // As the reconciler adds it again: silent until it has what its leader had.
    let through = hosts[leader_of_rest(&hosts, gone)].group().status().last_log_index;
    let node = hosts[gone].node();
    hosts[gone].run(async move { node.create_silent_replica(GROUP, through).await }).expect("made anew");
    let (node, alone) = (hosts[gone].node(), vec![hosts[gone].node_ref()]);
    hosts[gone].run(async move { node.create_replica(GROUP, alone).await }).expect("a late founder is told nothing new");
    assert_eq!(hosts[gone].group().status().last_log_index, 0, "a group is born once");
    let all: Vec<_> = hosts.iter().map(Host::node_ref).collect();
    until("a growth", || change(&hosts[leader_of_rest(&hosts, gone)], &all, None, soon()).ok());
    settled(&hosts);
}

/// The leader among the others than one.
fn leader_of_rest(hosts: &[Host], without: usize) -> usize {
    until("a leader", || {
        let others = hosts.iter().enumerate().filter(|(at, _)| *at != without);
        others.map(|(at, host)| (at, host.group().status())).find(|(_, s)| s.role() == v1::Role::Leader).map(|(at, _)| at)
    })
}
