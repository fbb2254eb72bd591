//! Shards are split, merged and moved through the real binary while a client is at work: nothing is lost, nothing is done twice, nobody sees
//! an error.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod harness;

use bytes::Bytes;
use harness::{Dev, until};
use metadb_proto::principal::Token;
use serde_json::{Value, json};
use shard_router::{Client, Router, RouterConfig, Scan, operation};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Longest that a client may wait for one answer while a shard moves: many times the budget of its fence, on a busy machine.
const PAUSE: Duration = Duration::from_secs(5);

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

/// A cluster whose level allows for changes of shards.
fn start(folder: &tempfile::TempDir) -> Dev {
    let dev = Dev::start(&folder.path().join("data"), 3);
    until("all nodes know shards", || dev.json(&["admin", "status", "--exit-zero"])["feature_level"].as_u64() >= Some(5));
    dev
}

/// A client of the tenant `demo`.
fn client(dev: &Dev, runtime: &Runtime) -> Client {
    let key = dev.json(&["admin", "key", "create", "--operator"]);
    let (id, secret) = (key["access_key_id"].as_str().expect("an id"), key["secret_access_key"].as_str().expect("a secret"));
    let nodes = dev.told["nodes"].as_array().expect("nodes").iter();
    let seeds = nodes.map(|node| node["grpc"].as_str().expect("an address").to_owned()).collect();
    let tenants = dev.json(&["admin", "tenant", "list"]);
    let demo = tenants.as_array().expect("a list").iter().find(|tenant| tenant["name"] == "demo").expect("demo");
    let _inside = runtime.enter();
    Router::new(RouterConfig { seeds, token: Token::for_key(id, secret), ..RouterConfig::default() })
        .tenant(demo["id"].as_u64().expect("an id"))
}

fn key(number: usize) -> Bytes {
    // Spread over the range, so that every shard of it has something to do.
    format!("k/{:04}/{number:06}", number * 7919 % 1000).into()
}

fn value(number: usize) -> Bytes {
    format!("value {number}").into()
}

/// What a client saw.
#[derive(Default)]
struct Seen {
    failures: Vec<String>,
    longest: Duration,
}

/// Writes one key after the other and reads earlier ones, until it is told to end.
struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    working: JoinHandle<Seen>,
}

impl Load {
    fn start(client: &Client, runtime: &Runtime) -> Load {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let working = runtime.spawn(work(client.clone(), Arc::clone(&stop), Arc::clone(&acknowledged)));
        Load { stop, acknowledged, working }
    }

    /// Waits until it got on by so many writes.
    fn goes_on(&self, by: usize) {
        let wanted = self.acknowledged.load(Ordering::SeqCst) + by;
        until("the client gets on", || self.acknowledged.load(Ordering::SeqCst) >= wanted);
    }

    /// Ends it; how many writes were acknowledged.
    fn end(self, runtime: &Runtime) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        let seen = runtime.block_on(self.working).expect("it ends");
        assert!(seen.failures.is_empty(), "{:?}", seen.failures);
        assert!(seen.longest < PAUSE, "{:?}", seen.longest);
        self.acknowledged.load(Ordering::SeqCst)
    }
}

async fn work(client: Client, stop: Arc<AtomicBool>, acknowledged: Arc<AtomicUsize>) -> Seen {
    let mut seen = Seen::default();
    for number in 0.. {
        if stop.load(Ordering::SeqCst) || !seen.failures.is_empty() {
            break;
        }
        let began = Instant::now();
        if let Err(error) = client.transact(vec![], vec![operation::put(key(number), value(number))]).await {
            seen.failures.push(format!("write {number}: {error}"));
            break;
        }
        acknowledged.store(number + 1, Ordering::SeqCst);
        let earlier = number * 31 % (number + 1);
        match client.get(key(earlier)).await {
            Ok(Some(row)) if row.value == value(earlier) => {}
            other => seen.failures.push(format!("read {earlier} of {number}: {other:?}")),
        }
        seen.longest = seen.longest.max(began.elapsed());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    seen
}

/// All rows of a range.
fn rows(client: &Client, runtime: &Runtime, prefix: &'static str, end: &'static str) -> BTreeMap<Bytes, Bytes> {
    runtime.block_on(async {
        let mut scan = Scan { start: prefix.into(), end: end.into(), ..Scan::default() };
        let mut rows = BTreeMap::new();
        loop {
            let page = client.scan(scan.clone()).await.expect("answered");
            for row in page.rows {
                assert!(rows.insert(row.key.clone(), row.value).is_none(), "{:?} is there twice", row.key);
            }
            if page.continuation.is_empty() {
                return rows;
            }
            scan.continuation = page.continuation;
        }
    })
}

fn list(dev: &Dev) -> Vec<Value> {
    dev.json(&["admin", "shard", "list", "--tenant", "demo"]).as_array().expect("a list").clone()
}

/// Where the tenant's shards are: start, end and group.
fn places(dev: &Dev) -> Vec<(String, String, u64)> {
    let text = |value: &Value| value.as_str().expect("a key").to_owned();
    list(dev).iter().map(|shard| (text(&shard["start"]), text(&shard["end"]), shard["group"].as_u64().expect("a group"))).collect()
}

fn history(dev: &Dev) -> Vec<Value> {
    dev.json(&["admin", "shard", "history"]).as_array().expect("a list").clone()
}

/// A group of tenants other than this one.
fn other(group: u64) -> u64 {
    if group == 1 { 2 } else { 1 }
}

#[test]
fn shards_are_split_merged_and_moved_under_the_hands_of_a_client() {
    let folder = tempfile::tempdir().expect("a folder");
    let dev = start(&folder);
    let runtime = runtime();
    let client = client(&dev, &runtime);
    let load = Load::start(&client, &runtime);
    load.goes_on(300);
    let [(_, _, home)] = places(&dev).try_into().expect("one shard");
    let away = other(home);

    // A dry run says what it costs and changes nothing.
    let shard = |args: &[&str]| dev.json(&[&["admin", "shard"][..], args].concat());
    let planned = shard(&["split", "--at", "k/0500", "--dry-run"]);
    assert_eq!(
        (&planned["dry_run"], &planned["changes"][0]["kind"], &planned["expected"]["bytes"]),
        (&json!(true), &json!("split"), &json!(0))
    );
    let planned = shard(&["move", "--tenant", "demo", "--to", &away.to_string(), "--dry-run"]);
    let expected = &planned["changes"][0]["expected"];
    assert!(expected["bytes"].as_u64() > Some(10_000) && expected["pause_ms"].as_f64() > Some(0.0), "{planned}");
    assert_eq!((places(&dev).len(), history(&dev).len()), (1, 0), "nothing was changed");

    let split = shard(&["split", "--at", "k/0500", "--reason", "a test"]);
    assert_eq!((&split["done"], &split["changes"][0]["state"]), (&json!(true), &json!("done")), "{split}");
    let halves = [(String::new(), "k/0500".to_owned(), home), ("k/0500".to_owned(), String::new(), home)];
    assert_eq!(places(&dev), halves);
    load.goes_on(100);
    shard(&["merge"]);
    assert_eq!(places(&dev), [(String::new(), String::new(), home)]);
    load.goes_on(100);
    shard(&["split", "--middle"]);
    let cut = list(&dev);
    let bytes: Vec<u64> = cut.iter().filter_map(|shard| shard["bytes"].as_u64()).collect();
    assert!(bytes.len() == 2 && bytes.iter().all(|bytes| *bytes * 4 >= bytes_of(&cut)), "{cut:?}");

    // A request whose answer was lost is asked again behind the move.
    let once = Bytes::from_static(b"sixteen bytes id");
    let add = || client.transact_as(once.clone(), vec![], vec![operation::add("z/counter", 1)]);
    let before = runtime.block_on(add()).expect("added");
    let moved = shard(&["move", "--tenant", "demo", "--key", "z", "--to", &away.to_string(), "--force"]);
    let row = &moved["changes"][0];
    assert_eq!((&row["state"], &row["to_group"]), (&json!("done"), &json!(away)), "{moved}");
    assert!(row["actual"]["bytes"].as_u64() > Some(0) && row["actual"]["pause_ms"].as_f64() > Some(0.0), "{moved}");
    assert!(row["expected"]["bytes"].as_u64() > Some(0), "{moved}");
    let after = runtime.block_on(add()).expect("answered");
    assert_eq!((before.version, &before.results), (after.version, &after.results), "the first answer again");
    let counter = runtime.block_on(client.get("z/counter")).expect("answered").expect("there");
    assert_eq!(counter.version, before.version, "it was added once");
    load.goes_on(100);

    // Shards of two groups are not merged, but it is said how.
    let told = dev.fails(2, &["admin", "shard", "merge"]);
    assert!(told.contains("--move-first") && told.contains(&format!("--to {home}")), "{told}");
    shard(&["merge", "--move-first"]);
    assert_eq!(places(&dev), [(String::new(), String::new(), home)]);
    shard(&["move", "--group", &home.to_string(), "--to", &away.to_string(), "--limit", "1"]);
    load.goes_on(100);

    let shown = shard(&["show"]);
    assert_eq!((&shown["group"], &shown["state"]), (&json!(away), &json!("owned")), "{shown}");
    assert!(shown["history"].as_array().is_some_and(|history| !history.is_empty()) && shown["leader"].is_u64(), "{shown}");
    let kinds: Vec<Value> = history(&dev).iter().map(|row| row["kind"].clone()).collect();
    assert_eq!(kinds, ["move", "merge", "move", "move", "split", "merge", "split"], "the last first");
    assert_eq!(history(&dev)[6]["reason"], "a test");
    let text = harness::stdout(&dev.run(&["admin", "shard", "history"]));
    assert!(text.contains("BYTES (EXPECTED)") && text.contains("k/0500"), "{text}");

    let mut top = Value::Null;
    until("the shard is seen at work", || {
        top = shard(&["top", "--once"]);
        top["busiest"].as_array().is_some_and(|rows| rows.iter().any(|row| row["tenant"] == "demo" && row["group"] == away))
    });
    assert!(
        top["largest"].as_array().is_some_and(|rows| rows.iter().any(|row| row["tenant"] == "demo" && row["rows"].as_u64() > Some(500))),
        "{top}"
    );

    let acknowledged = load.end(&runtime);
    let rows = rows(&client, &runtime, "k/", "k0");
    let wanted: BTreeMap<Bytes, Bytes> = (0..acknowledged).map(|number| (key(number), value(number))).collect();
    assert!(acknowledged > 800 && rows == wanted, "{acknowledged} acknowledged, {} there", rows.len());
}

fn bytes_of(shards: &[Value]) -> u64 {
    shards.iter().filter_map(|shard| shard["bytes"].as_u64()).sum()
}

/// Large rows, so that a move takes long: their sum is 24 MiB.
const LARGE: usize = 96;
const LARGE_BYTES: usize = 256 << 10;

fn large(number: usize) -> Bytes {
    let mut state = number as u64 | 1;
    let byte = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56).to_le_bytes()[0]
    };
    (0..LARGE_BYTES).map(byte).collect()
}

fn under_way(dev: &Dev) -> Value {
    dev.json(&["admin", "shard", "changes", "--tenant", "demo"])
}

/// Bytes of the tenant's shard that have arrived in a group.
fn arrived(dev: &Dev, group: u64) -> u64 {
    let shards = dev.json(&["admin", "shard", "list", "--group", &group.to_string()]);
    let arriving = shards.as_array().expect("a list").iter().filter(|shard| shard["tenant"] == "demo");
    arriving
        .filter(|shard| shard["state"].as_str().is_some_and(|state| state.starts_with("arrives")))
        .filter_map(|shard| shard["bytes"].as_u64())
        .sum()
}

fn process(dev: &Dev, node_id: u64) -> rustix::process::Pid {
    let nodes = dev.json(&["admin", "node", "list"]);
    let address = nodes.as_array().expect("a list").iter().find(|node| node["id"] == node_id).expect("listed")["address"].clone();
    let told = dev.told["nodes"].as_array().expect("nodes").iter().find(|node| node["grpc"] == address).expect("told");
    let pid = told["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).expect("a pid");
    rustix::process::Pid::from_raw(pid).expect("a pid")
}

#[test]
fn a_long_move_pauses_is_taken_back_and_outlives_the_node_that_carries_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let dev = start(&folder);
    let runtime = runtime();
    let client = client(&dev, &runtime);
    runtime.block_on(async {
        for number in 0..LARGE {
            client.transact(vec![], vec![operation::put(format!("large/{number:04}"), large(number))]).await.expect("written");
        }
    });
    let [(_, _, home)] = places(&dev).try_into().expect("one shard");
    let away = other(home).to_string();
    let shard = |args: &[&str]| dev.json(&[&["admin", "shard"][..], args].concat());
    let rate = |mib_per_s: &str| dev.json(&["admin", "setting", "set", "shards.move_mib_per_s", mib_per_s]);
    rate("1");
    let planned = shard(&["move", "--tenant", "demo", "--to", &away, "--dry-run"]);
    let expected = &planned["expected"];
    assert!(expected["bytes"].as_u64() >= Some((LARGE * LARGE_BYTES) as u64) && expected["total_ms"].as_u64() > Some(20_000), "{planned}");
    let load = Load::start(&client, &runtime);

    let begin = || {
        let ordered = shard(&["move", "--tenant", "demo", "--to", &away, "--no-wait"]);
        assert_eq!(ordered["done"], false);
        let id = ordered["changes"][0]["change"].as_u64().expect("its number").to_string();
        until("rows arrive", || arrived(&dev, other(home)) > 1 << 20);
        id
    };
    let id = begin();
    let told = dev.fails(5, &["admin", "shard", "split", "--at", "large/0050"]);
    assert!(told.contains("is being changed already") && told.contains("admin shard changes"), "{told}");
    shard(&["pause", &id]);
    assert_eq!(under_way(&dev)[0]["state"], "paused");
    let at_rest = arrived(&dev, other(home));
    load.goes_on(100);
    assert_eq!(arrived(&dev, other(home)), at_rest, "nothing is copied while it is paused");
    shard(&["resume", &id, "--no-wait"]);
    until("more arrives", || arrived(&dev, other(home)) > at_rest);
    let cancelled = shard(&["cancel", &id]);
    assert_eq!(cancelled[0]["state"], "cancelled", "{cancelled}");
    assert_eq!((places(&dev)[0].2, under_way(&dev)), (home, json!([])));
    until("what was copied is dropped", || arrived(&dev, other(home)) == 0);
    dev.fails(3, &["admin", "shard", "cancel", &id]);

    // The node that carries it dies: that which leads the directory then goes on.
    begin();
    let leader = dev.json(&["admin", "group", "list"])[0]["leader"].as_u64().expect("a leader");
    rustix::process::kill_process(process(&dev, leader), rustix::process::Signal::KILL).expect("it is ours");
    until("another one carries it", || {
        let answer = dev.run(&["admin", "shard", "changes", "--tenant", "demo", "-o", "json"]);
        let changes: Value = serde_json::from_slice(&answer.stdout).unwrap_or_default();
        changes[0]["attempts"].as_u64() >= Some(2)
    });
    rate("0");
    until("it is done", || places(&dev)[0].2 == other(home));
    let ended = &history(&dev)[0];
    assert!(ended["state"] == "done" && ended["attempts"].as_u64() >= Some(2), "{ended}");

    load.end(&runtime);
    let rows = rows(&client, &runtime, "large/", "large0");
    assert!(rows.len() == LARGE && rows.into_values().enumerate().all(|(number, value)| value == large(number)), "every byte");
}

#[test]
fn what_can_not_be_is_refused_with_what_to_do_instead() {
    let folder = tempfile::tempdir().expect("a folder");
    let dev = Dev::start(&folder.path().join("data"), 1);
    until("the node knows shards", || dev.json(&["admin", "status", "--exit-zero"])["feature_level"].as_u64() >= Some(5));
    dev.json(&["admin", "tenant", "create", "acme"]);
    let put = |key: &str| dev.json(&["admin", "kv", "put", "--tenant", "acme", key, "1"]);
    let fails = |code: i32, args: &[&str], words: &[&str]| {
        let told = dev.fails(code, &[&["admin", "shard"][..], args].concat());
        assert!(words.iter().all(|word| told.contains(word)), "{args:?} said {told}");
    };
    let acme = ["--tenant", "acme"];
    let of_acme = |args: &[&'static str]| -> Vec<&'static str> { [args, &acme].concat() };

    fails(2, &of_acme(&["split", "--middle"]), &["fewer than two keys", "--allow-empty"]);
    fails(2, &of_acme(&["split", "--at", "m"]), &["is empty", "--allow-empty"]);
    for key in ["b", "m", "x"] {
        put(key);
    }
    fails(2, &of_acme(&["split"]), &["--at"]);
    fails(2, &of_acme(&["split", "--at", "\\q"]), &["two hex digits"]);
    fails(2, &of_acme(&["split", "--at", ""]), &["(begin)", "above the start"]);
    fails(2, &of_acme(&["split", "--at", "a"]), &["below a there is no key", "from b to x", "--middle"]);
    fails(2, &of_acme(&["split", "--at", "y"]), &["from it on y", "from b to x"]);
    fails(2, &of_acme(&["merge"]), &["one shard only"]);
    dev.json(&["admin", "shard", "split", "--tenant", "acme", "--at", "m"]);
    fails(2, &of_acme(&["split", "--at", "m"]), &["starts at m already", "shard list"]);
    fails(2, &of_acme(&["split", "--key", "a", "--at", "x"]), &["outside of the shard from (begin) to m", "--at 'x'"]);
    fails(2, &of_acme(&["merge", "--key", "n"]), &["no shard of tenant acme lies behind", "the one before it"]);
    fails(3, &["split", "--tenant", "nobody", "--at", "m"], &["nobody", "tenant list"]);

    let group = dev.json(&["admin", "shard", "list", "--tenant", "acme"])[0]["group"].to_string();
    fails(2, &of_acme(&["move", "--to", "0"]), &["group 0 holds the directory", "group list"]);
    fails(3, &of_acme(&["move", "--to", "99"]), &["no group 99", "group list"]);
    fails(2, &["move", "--tenant", "acme", "--to", &group], &["already", "another group"]);
    fails(2, &["move", "--group", &group, "--to", &group], &["both"]);
    fails(2, &["move", "--to", "1"], &["--tenant"]);
    fails(3, &["cancel", "9999"], &["9999 is not under way", "shard history"]);
    fails(2, &["pause"], &["CHANGE"]);
    fails(3, &["list", "--group", "99"], &["no group 99"]);
    let shards = dev.json(&["admin", "shard", "list", "--tenant", "acme"]);
    assert_eq!(shards.as_array().map(Vec::len), Some(2), "{shards}");
    assert!(shards[0]["rows"] == 1 && shards[1]["rows"] == 2, "{shards}");
    // Ahead of a load that is to come.
    dev.json(&["admin", "shard", "split", "--tenant", "acme", "--at", "zz", "--allow-empty"]);
    let yaml = harness::stdout(&dev.run(&["admin", "shard", "list", "--tenant", "acme", "-o", "yaml"]));
    assert!(yaml.starts_with("- tenant: acme") && yaml.contains("start: zz"), "{yaml}");
}
