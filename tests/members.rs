//! Members and leaders change under load, through the real binary: nothing acknowledged is lost, nothing stale is read, and clients hardly
//! notice.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod harness;

use harness::{Dev, pause, until};
use metadb_proto::principal::Token;
use metadb_proto::v1::kv_client::KvClient;
use metadb_proto::{Error, v1};
use rustix::process::Signal;
use shard_router::{Client, Router, RouterConfig, operation};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Longest pause after a leader was told to stop: it hands over before it goes. Without a busy machine it is a hundredth of this.
const PAUSE_STOP: Duration = Duration::from_secs(2);
/// Longest pause after a leader died: a lease, an election, and room for a busy machine.
const PAUSE_KILL: Duration = Duration::from_secs(5);

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

/// An operator's token, and where the nodes are.
fn access(dev: &Dev) -> (String, Vec<String>) {
    let key = dev.json(&["admin", "key", "create", "--operator"]);
    let (id, secret) = (key["access_key_id"].as_str().expect("an id"), key["secret_access_key"].as_str().expect("a secret"));
    let nodes = dev.told["nodes"].as_array().expect("nodes").iter();
    (Token::for_key(id, secret), nodes.map(|node| node["grpc"].as_str().expect("an address").to_owned()).collect())
}

fn tenant_id(dev: &Dev) -> u64 {
    dev.json(&["admin", "tenant", "list"])[0]["id"].as_u64().expect("the tenant demo")
}

/// What a writer was told.
#[derive(Debug, Default)]
struct Told {
    acknowledged: Vec<u32>,
    longest_pause: Duration,
    failures: Vec<String>,
}

/// Writes one key after the other until it is told to end.
struct Load {
    stop: Arc<AtomicBool>,
    writing: JoinHandle<Told>,
    client: Client,
}

impl Load {
    fn start(dev: &Dev, runtime: &Runtime) -> Load {
        let ((token, seeds), tenant_id) = (access(dev), tenant_id(dev));
        let _inside = runtime.enter();
        let client = Router::new(RouterConfig { seeds, token, ..RouterConfig::default() }).tenant(tenant_id);
        let stop = Arc::new(AtomicBool::new(false));
        let writing = runtime.spawn(write(client.clone(), Arc::clone(&stop)));
        Load { stop, writing, client }
    }

    /// Ends it and reads back everything that was acknowledged.
    fn end(self, runtime: &Runtime) -> Told {
        self.stop.store(true, Ordering::SeqCst);
        runtime.block_on(async {
            let told = self.writing.await.expect("the writer ends");
            for key in &told.acknowledged {
                let row = self.client.get(key.to_be_bytes().to_vec()).await.expect("answered");
                assert!(row.is_some(), "key {key} was acknowledged and is lost");
            }
            told
        })
    }
}

async fn write(client: Client, stop: Arc<AtomicBool>) -> Told {
    let mut told = Told::default();
    let mut last = Instant::now();
    for key in 0_u32.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        match client.transact(vec![], vec![operation::put(key.to_be_bytes().to_vec(), "v")]).await {
            Ok(_) => told.acknowledged.push(key),
            Err(error) => told.failures.push(error.to_string()),
        }
        told.longest_pause = told.longest_pause.max(last.elapsed());
        last = Instant::now();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    told
}

fn voters(dev: &Dev) -> Vec<Vec<u64>> {
    let ids =
        |group: &serde_json::Value| group["voters"].as_array().expect("voters").iter().filter_map(serde_json::Value::as_u64).collect();
    dev.json(&["admin", "group", "list"]).as_array().expect("groups").iter().map(ids).collect()
}

fn node(dev: &Dev, id: u64) -> serde_json::Value {
    let nodes = dev.json(&["admin", "node", "list"]);
    nodes.as_array().expect("nodes").iter().find(|node| node["id"] == id).expect("the node").clone()
}

#[test]
fn a_cluster_grows_and_shrinks_under_load_and_its_nodes_leave() {
    let folder = tempfile::tempdir().expect("a folder");
    let dev = Dev::start(&folder.path().join("data"), 5);
    let runtime = runtime();
    let load = Load::start(&dev, &runtime);

    let planned = dev.json(&["admin", "group", "replicas", "5", "--dry-run"]);
    assert!(planned["dry_run"] == true && planned["moves"].as_array().is_some_and(|moves| moves.len() == 9), "{planned}");
    assert!(voters(&dev).iter().all(|voters| voters.len() == 3), "a dry run changes nothing");
    for replicas in [5, 3, 1, 3] {
        dev.json(&["admin", "group", "replicas", &replicas.to_string()]);
        assert!(voters(&dev).iter().all(|voters| voters.len() == replicas), "{replicas}: {:?}", voters(&dev));
    }
    assert!(dev.fails(2, &["admin", "group", "replicas", "2"]).contains("1, 3, 5 or 7"));

    // A node leaves, watched by nobody.
    dev.json(&["admin", "node", "remove", "4", "--no-wait"]);
    until("node 4 is removed", || node(&dev, 4)["membership"] == "removed");
    assert!(voters(&dev).iter().flatten().all(|id| *id != 4), "{:?}", voters(&dev));
    dev.json(&["admin", "node", "replace", "5", "1"]);
    assert!(voters(&dev).iter().all(|voters| *voters == [1, 2, 3]), "{:?}", voters(&dev));
    let refused = dev.fails(2, &["admin", "node", "remove", "3"]);
    assert!(refused.contains("at least 3") && refused.contains("--join"), "{refused}");

    // One group by itself.
    let group = ["admin", "group", "members", "1"];
    dev.json(&[&group[..], &["remove", "3"]].concat());
    dev.json(&[&group[..], &["add-learner", "3"]].concat());
    let listed = dev.json(&group);
    assert!(
        listed.as_array().expect("members").iter().any(|m| m["node"] == 3 && m["role"] == "learner" && m["lag_entries"].is_u64()),
        "{listed}"
    );
    dev.json(&[&group[..], &["promote", "3"]].concat());
    dev.json(&[&group[..], &["automatic"]].concat());
    assert_eq!(voters(&dev)[1], [1, 2, 3]);
    let leader = dev.json(&["admin", "group", "list"])[1]["leader"].as_u64().expect("a leader");
    let heir = [1, 2, 3].into_iter().find(|id| *id != leader).expect("another").to_string();
    assert_eq!(dev.json(&["admin", "group", "transfer-leader", "1", &heir])["from"], leader);

    let told = load.end(&runtime);
    assert!(told.failures.is_empty() && told.acknowledged.len() > 100, "{} acknowledged, {:?}", told.acknowledged.len(), told.failures);
}

#[test]
fn a_node_is_drained_under_load_and_holds_again_when_it_is_wanted() {
    let folder = tempfile::tempdir().expect("a folder");
    let dev = Dev::start(&folder.path().join("data"), 4);
    until("all nodes know drains", || dev.json(&["admin", "status", "--exit-zero"])["feature_level"].as_u64() >= Some(6));
    let runtime = runtime();
    let load = Load::start(&dev, &runtime);

    // Of leaders only: it keeps what it holds. Not before every group has another voter.
    until("node 1 can be drained", || dev.run(&["admin", "node", "drain", "1", "--leaders-only", "--dry-run"]).status.success());
    let held = node(&dev, 1)["replicas"].as_u64().expect("a number");
    dev.json(&["admin", "node", "drain", "1", "--leaders-only", "--reason", "a new kernel"]);
    let drained = node(&dev, 1);
    assert!(drained["membership"] == "draining" && drained["leads"] == 0 && drained["replicas"] == held, "{drained}");
    let told = harness::stdout(&dev.run(&["admin", "status", "--exit-zero"]));
    assert!(told.contains("node 1 is drained (a new kernel)") && told.contains("keeps"), "{told}");
    dev.json(&["admin", "node", "undrain", "1"]);

    // Of everything.
    let planned = dev.json(&["admin", "node", "drain", "2", "--dry-run"]);
    let moves = planned["moves"].as_array().expect("moves");
    assert!(
        !moves.is_empty() && moves.iter().all(|m| m["bytes"].is_u64() && !m["to"].as_array().expect("ids").contains(&2.into())),
        "{planned}"
    );
    assert!(planned["expected"]["total_ms"].as_u64() > Some(0), "{planned}");
    assert_eq!(node(&dev, 2)["membership"], "active", "a dry run changes nothing");
    dev.json(&["admin", "node", "drain", "2", "--no-wait"]);
    until("node 2 is empty", || node(&dev, 2)["replicas"] == 0);
    assert!(voters(&dev).iter().flatten().all(|id| *id != 2), "{:?}", voters(&dev));
    // It gets nothing new.
    let refused = dev.fails(2, &["admin", "group", "members", "1", "promote", "2"]);
    assert!(refused.contains("undrain"), "{refused}");
    let refused = dev.fails(2, &["admin", "node", "replace", "3", "2"]);
    assert!(refused.contains("undrain"), "{refused}");
    // The three that are left are needed, of replicas and in the end of leaders.
    let refused = dev.fails(2, &["admin", "node", "drain", "3"]);
    assert!(refused.contains("at least 3") && refused.contains("--join"), "{refused}");
    for node in ["1", "3"] {
        dev.json(&["admin", "node", "drain", node, "--leaders-only"]);
    }
    let refused = dev.fails(2, &["admin", "node", "drain", "4", "--leaders-only"]);
    assert!(refused.contains("undrain"), "{refused}");
    for verb in ["drain", "undrain"] {
        dev.fails(3, &["admin", "node", verb, "77"]);
    }
    for node in ["1", "2", "3"] {
        dev.json(&["admin", "node", "undrain", node]);
    }
    // Now there is a place for its replicas again.
    dev.json(&["admin", "node", "drain", "3"]);
    assert!(voters(&dev).iter().all(|voters| *voters == [1, 2, 4]), "{:?}", voters(&dev));
    until("leaders come back by themselves", || node(&dev, 2)["leads"].as_u64() > Some(0));
    // A node that is drained may leave for good, and is not taken back by the wrong verb.
    dev.json(&["admin", "node", "remove", "3", "--no-wait"]);
    until("node 3 is removed", || node(&dev, 3)["membership"] == "removed");
    assert!(dev.fails(2, &["admin", "node", "undrain", "3"]).contains("removed"));

    let told = load.end(&runtime);
    assert!(told.failures.is_empty() && told.acknowledged.len() > 100, "{} acknowledged, {:?}", told.acknowledged.len(), told.failures);
}

/// Where in the cluster's list a node is: ids are given in the order of joining.
fn place(dev: &Dev, id: u64) -> usize {
    let address = node(dev, id)["address"].clone();
    dev.told["nodes"].as_array().expect("nodes").iter().position(|node| node["grpc"] == address).expect("listed")
}

/// The node that leads the group of the tenant's data, and its process.
fn leader(dev: &Dev) -> (u64, rustix::process::Pid) {
    let mut leader = None;
    // Between two leaders nobody says what a group holds.
    until("a group with data has a leader", || {
        let groups = dev.json(&["admin", "group", "list"]);
        let with_data = groups.as_array().expect("groups").iter().find(|group| group["id"] != 0 && group["shards"] != 0);
        leader = with_data.and_then(|group| group["leader"].as_u64());
        leader.is_some()
    });
    let leader = leader.expect("found");
    (leader, pid(dev, place(dev, leader)))
}

/// As [`leader`], once leaders are spread over the nodes and stay where they are.
fn settled_leader(dev: &Dev) -> (u64, rustix::process::Pid) {
    let leaders = || -> Vec<serde_json::Value> {
        dev.json(&["admin", "group", "list"]).as_array().expect("groups").iter().map(|group| group["leader"].clone()).collect()
    };
    let mut before = leaders();
    until("leaders stay where they are", || {
        // Longer than it takes to move one.
        pause(Duration::from_millis(2500));
        let now = leaders();
        std::mem::replace(&mut before, now.clone()) == now
    });
    leader(dev)
}

/// The process of a node. Other than at the start of the cluster, if it was started again.
fn pid(dev: &Dev, node: usize) -> rustix::process::Pid {
    let settings = dev.data.join(format!("node-{}.toml", node + 1));
    let processes = std::fs::read_dir("/proc").expect("listed").flatten();
    let found = processes.filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok())).find(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(settings.to_str().expect("a plain path"))
    });
    rustix::process::Pid::from_raw(found.expect("the node runs")).expect("a pid")
}

#[test]
fn a_leader_that_stops_hands_over_and_one_that_dies_is_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let dev = Dev::start(&folder.path().join("data"), 3);
    let runtime = runtime();
    for (signal, bound) in [(Signal::TERM, PAUSE_STOP), (Signal::KILL, PAUSE_KILL)] {
        let load = Load::start(&dev, &runtime);
        pause(Duration::from_millis(500));
        let (_, pid) = leader(&dev);
        let terms = || -> u64 {
            dev.json(&["admin", "group", "list"]).as_array().expect("groups").iter().filter_map(|group| group["term"].as_u64()).sum()
        };
        let before = terms();
        rustix::process::kill_process(pid, signal).expect("it is ours");
        // All groups that it led, and it led one at least. Later it may lead again.
        until("another term", || terms() > before && leader(&dev).1 != pid);
        pause(Duration::from_millis(500));
        let told = load.end(&runtime);
        assert!(told.failures.is_empty(), "{:?}", told.failures);
        assert!(told.longest_pause < bound, "{signal:?}: {:?}", told.longest_pause);
        until("all are up", || dev.json(&["admin", "node", "list"]).as_array().expect("nodes").iter().all(|node| node["up"] == true));
    }
}

fn with_token<T>(message: T, token: &str) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("plain"));
    request
}

#[test]
fn a_leader_that_was_stopped_for_long_serves_nothing_old() {
    let folder = tempfile::tempdir().expect("a folder");
    let dev = Dev::start(&folder.path().join("data"), 3);
    let ((token, seeds), tenant_id) = (access(&dev), tenant_id(&dev));
    runtime().block_on(async {
        let client = Router::new(RouterConfig { seeds: seeds.clone(), token: token.clone(), ..RouterConfig::default() }).tenant(tenant_id);
        client.transact(vec![], vec![operation::put("k", "old")]).await.expect("written");
        let (id, pid) = settled_leader(&dev);
        let address = seeds[place(&dev, id)].clone();
        let channel =
            tonic::transport::Channel::from_shared(format!("http://{address}")).expect("an address").connect().await.expect("connected");
        let read = |deadline_ms: u32| {
            let header = Some(v1::RequestHeader { tenant_id, deadline_ms, ..v1::RequestHeader::default() });
            let request = with_token(v1::GetRequest { header, key: "k".into(), read: None }, &token);
            let mut kv = KvClient::new(channel.clone());
            async move { kv.get(request).await.map(|answer| answer.into_inner().row.map(|row| row.value)) }
        };
        let before = read(5000).await;
        assert_eq!(before.expect("the leader answers").as_deref(), Some(&b"old"[..]));

        rustix::process::kill_process(pid, Signal::STOP).expect("it is ours");
        client.transact(vec![], vec![operation::put("k", "new")]).await.expect("another leads by now");
        // All of these wait in the sockets of the node that stands still, and were asked after "new" was acknowledged.
        let asked: Vec<_> = (0..50).map(|_| tokio::spawn(read(10_000))).collect();
        tokio::time::sleep(Duration::from_millis(300)).await;
        rustix::process::kill_process(pid, Signal::CONT).expect("it is ours");
        let mut answered = 0;
        for answer in futures::future::join_all(asked).await {
            match answer.expect("ended") {
                Ok(value) => assert_eq!(value.as_deref(), Some(&b"new"[..]), "an old value was served"),
                Err(status) => {
                    let error = Error::from_status(&status, false);
                    assert!(matches!(error, Error::Moved { .. } | Error::Unavailable { .. }), "{error}");
                }
            }
            answered += 1;
        }
        assert_eq!(answered, 50);
    });
}

#[test]
fn a_disk_that_was_lost_comes_back_as_a_new_node_and_the_old_one_is_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let mut dev = Dev::start(&data, 3);
    dev.json(&["admin", "kv", "put", "--tenant", "demo", "kept", "yes"]);
    let lost = (1..=3).find(|id| place(&dev, *id) == 2).expect("listed");
    assert!(dev.stop(), "stops by itself");
    drop(dev);
    std::fs::remove_dir_all(data.join("node-3")).expect("its disk is lost");
    let dev = Dev::start(&data, 3);
    until("the old node is replaced", || node(&dev, lost)["membership"] == "removed");
    assert!(voters(&dev).iter().all(|voters| voters.len() == 3 && voters.contains(&4) && !voters.contains(&lost)), "{:?}", voters(&dev));
    assert_eq!(dev.json(&["admin", "kv", "get", "--tenant", "demo", "kept"])["value"], "yes");
}

/// Addresses at which nobody listens now.
fn free_addresses<const N: usize>() -> [String; N] {
    let listeners = [(); N].map(|()| std::net::TcpListener::bind("127.0.0.1:0").expect("a port"));
    listeners.map(|listener| listener.local_addr().expect("bound").to_string())
}

#[test]
fn a_first_node_that_lost_its_folder_makes_no_second_cluster_while_nobody_answers() {
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("cluster.secret");
    std::fs::write(&secret, "7".repeat(64)).expect("written");
    let [listen, s3, nobody] = free_addresses();
    let run = |more: &[&str], bootstrap: &str| {
        let data = folder.path().join("data");
        let paths = [secret.to_str().expect("plain"), data.to_str().expect("plain")];
        let args =
            ["node", "--cluster-secret-file", paths[0], "--data", paths[1], "--listen", &listen, "--s3-listen", &s3, "--http-listen="];
        let log = folder.path().join("log");
        let file = std::fs::File::create(&log).expect("a log");
        let join = ["--join", &nobody, bootstrap];
        let mut node = harness::cairn(&[&args[..], &join, more].concat()).stderr(file).spawn().expect("runs");
        let said = |what: &str| std::fs::read_to_string(&log).unwrap_or_default().contains(what);
        until("it says something", || said("waiting") || said("ready"));
        let text = std::fs::read_to_string(&log).expect("a log");
        node.kill().expect("ours");
        node.wait().expect("ended");
        text
    };
    let told = run(&[], "--bootstrap=true");
    assert!(told.contains("--force-new-cluster") && told.contains(&nobody), "{told}");
    assert!(!folder.path().join("data/identity.toml").exists(), "no identity is made up");
    let told = run(&[], "--bootstrap=false");
    assert!(told.contains(&nobody) && told.contains("waiting for a node of `join`"), "{told}");
    let told = run(&["--force-new-cluster", "--cluster-replicas", "1"], "--bootstrap=true");
    assert!(told.contains("ready"), "{told}");
}

#[test]
fn a_first_node_makes_its_cluster_when_all_others_say_that_they_are_in_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("cluster.secret");
    std::fs::write(&secret, "7".repeat(64)).expect("written");
    let [first, s3, second, other_s3] = free_addresses();
    let log = |name: &str| std::fs::read_to_string(folder.path().join(name).with_extension("log")).unwrap_or_default();
    let start = |name: &str, listen: &str, s3: &str, more: &[&str]| {
        let data = folder.path().join(name);
        let file = std::fs::File::create(data.with_extension("log")).expect("a log");
        let paths = [secret.to_str().expect("plain"), data.to_str().expect("plain")];
        let args = ["node", "--cluster-secret-file", paths[0], "--data", paths[1], "--listen", listen, "--s3-listen", s3, "--http-listen="];
        harness::cairn(&[&args[..], more].concat()).stderr(file).spawn().expect("runs")
    };
    // It waits for the first one, which waits for its word.
    let mut joining = start("second", &second, &other_s3, &["--join", &first]);
    until("it waits", || log("second").contains("waiting for a node of `join`"));
    // Whoever knew it before is told to ask another node.
    let told = runtime().block_on(async {
        let mut kv = KvClient::connect(format!("http://{second}")).await.expect("it listens");
        kv.get(v1::GetRequest::default()).await.expect_err("it has nothing")
    });
    assert_eq!(told.code(), tonic::Code::Unavailable, "{told}");
    let mut founding = start("first", &first, &s3, &["--join", &second, "--bootstrap=true", "--cluster-replicas", "1"]);
    until("both are in one cluster", || log("first").contains("ready") && log("second").contains("ready"));
    let id = |name: &str| std::fs::read_to_string(folder.path().join(name).join("identity.toml")).expect("an identity");
    let cluster = |identity: String| identity.lines().find(|line| line.starts_with("cluster_id")).map(str::to_owned);
    let clusters = (cluster(id("first")), cluster(id("second")));
    for node in [&mut founding, &mut joining] {
        node.kill().expect("ours");
        node.wait().expect("ended");
    }
    assert!(clusters.0.is_some() && clusters.0 == clusters.1, "{clusters:?}");
}
