//! A replica whose state is not that of the others, though every checksum is right, under the real binary: they notice, say so, take it out
//! of service, and make it anew.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod harness;

use bytes::Bytes;
use harness::{Dev, stderr, until};
use metadb_engine::rocks::{RocksOptions, RocksStore};
use metadb_engine::{Cf, Store as _, StoreRead as _, WriteBatch};
use serde_json::Value;
use std::path::Path;

/// Rows of each tenant.
const ROWS: usize = 8;
/// What each value begins with, and what it is made to begin with.
const RIGHT: &str = "right";
const WRONG: &str = "wrong";
/// Which row of them is altered.
const ALTERED: &str = "key-3";

fn value(key: &str) -> String {
    format!("{RIGHT} for {key}")
}

/// A tenant, the node whose replica of it is altered, and that node's id.
struct Victim {
    tenant: &'static str,
    group: u64,
    node: usize,
    id: u64,
}

impl Victim {
    fn read(&self, dev: &Dev, key: &str) -> String {
        let row = dev.json(&["admin", "kv", "get", "--tenant", self.tenant, key]);
        row["value"].as_str().expect("text").to_owned()
    }

    fn leader(&self, dev: &Dev) -> Option<u64> {
        let groups = dev.json(&["admin", "group", "list"]);
        groups.as_array().expect("a list").iter().find(|group| group["id"] == self.group)?["leader"].as_u64()
    }

    /// Has it lead its group. False: it does not yet, or somebody else has it led elsewhere meanwhile.
    fn leads(&self, dev: &Dev) -> bool {
        if self.leader(dev) != Some(self.id) {
            dev.run(&["admin", "group", "transfer-leader", &self.group.to_string(), &self.id.to_string()]);
        }
        self.leader(dev) == Some(self.id)
    }
}

/// The tenant's group.
fn group(dev: &Dev, tenant: &str) -> u64 {
    dev.json(&["admin", "shard", "list", "--tenant", tenant])[0]["group"].as_u64().expect("a group")
}

fn status(dev: &Dev) -> Value {
    let output = dev.run(&["admin", "status", "-o", "json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("no status: {error}: {}", stderr(&output)))
}

/// Every replica of every group is there and none has a problem.
fn is_whole(dev: &Dev) -> bool {
    let status = status(dev);
    let replicas = status["nodes"].as_array().into_iter().flatten().map(|node| node["replicas"].as_u64().unwrap_or(0));
    replicas.sum::<u64>() == 27 && status["problems"].as_array().is_some_and(Vec::is_empty)
}

/// Changes a row in a node's store as no fault of a disk could: RocksDB writes it, with all its checksums. The node does not run.
fn alter(store: &Path, group: u64) {
    let right = value(ALTERED);
    let store = RocksStore::open(store, &RocksOptions { block_cache_bytes: 1 << 20, ..RocksOptions::default() }).expect("it opens");
    let start = u32::try_from(group).expect("a group").to_be_bytes();
    let end = u32::try_from(group + 1).expect("a group").to_be_bytes();
    let rows: Vec<(Bytes, Bytes)> = store.cursor(Cf::Data, &start[..]..&end[..], false).collect::<Result<_, _>>().expect("they read");
    let mut found = rows.iter().filter(|(_, row)| row.ends_with(right.as_bytes()));
    let (key, row) = found.next().expect("an orderly stop flushes");
    assert!(found.next().is_none(), "one version of one row");
    let kept = row.len() - right.len();
    let mut batch = WriteBatch::default();
    batch.put(Cf::Data, key.clone(), [&row[..kept], right.replace(RIGHT, WRONG).as_bytes()].concat());
    store.write(batch).expect("it writes");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(store.flush()).expect("it flushes");
}

/// How many replicas of a node differed since it started, in digits.
fn differed(dev: &Dev, node: usize) -> String {
    format!("{:.0}", dev.metric(node, "cairn_replicas_differed_total").expect("it answers"))
}

#[test]
fn a_replica_that_differs_is_noticed_leads_no_more_and_is_made_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let mut dev = Dev::start(&data, 3);
    let level = || dev.json(&["admin", "status", "--exit-zero"])["feature_level"].as_u64();
    until("all nodes compare", || level() >= Some(metadb_proto::level::COMPARE.into()));
    // Whatever was compared until now is compared again only when this test says so.
    dev.json(&["admin", "setting", "set", "compare.interval_s", "0"]);
    let others = ["other-1", "other-2", "other-3", "other-4", "other-5", "other-6"];
    let demo = group(&dev, "demo");
    let other = others.into_iter().find(|tenant| {
        dev.json(&["admin", "tenant", "create", tenant]);
        group(&dev, tenant) != demo
    });
    let other = other.expect("tenants are spread over groups");
    // The one leads and finds itself wrong; the other is told so by its leader.
    let victims = [
        Victim { tenant: "demo", group: demo, node: 1, id: dev.node_id(1) },
        Victim { tenant: other, group: group(&dev, other), node: 2, id: dev.node_id(2) },
    ];
    let [leading, following] = &victims;
    let keys: Vec<String> = (0..ROWS).map(|number| format!("key-{number}")).collect();
    for victim in &victims {
        keys.iter().for_each(|key| drop(dev.json(&["admin", "kv", "put", "--tenant", victim.tenant, key, &value(key)])));
    }
    assert!(dev.stop(), "stops by itself, and well");
    drop(dev);
    for victim in &victims {
        alter(&data.join(format!("node-{}", victim.node + 1)).join("data"), victim.group);
    }

    let dev = Dev::start(&data, 3);
    until("a whole cluster", || is_whole(&dev));
    // No checksum tells, so the leader serves it: nothing but a comparison helps.
    until("the wrong row is read", || leading.leads(&dev) && leading.read(&dev, ALTERED).starts_with(WRONG));
    assert_eq!(victims.each_ref().map(|victim| differed(&dev, victim.node)), ["0", "0"]);
    dev.json(&["admin", "setting", "set", "compare.interval_s", "1"]);
    let mut told = std::collections::BTreeSet::new();
    until("both differ, and are told of", || {
        for problem in status(&dev)["problems"].as_array().expect("a list") {
            if problem["message"].as_str().is_some_and(|why| why.contains("is not the one that most replicas of the group have")) {
                told.insert((problem["group"].as_u64(), problem["node"].as_u64()));
            }
        }
        victims.iter().all(|victim| differed(&dev, victim.node) == "1")
    });
    // From here on neither serves: whoever answers, answers right.
    for victim in &victims {
        keys.iter().for_each(|key| assert_eq!(victim.read(&dev, key), value(key)));
    }
    let expected = victims.each_ref().map(|victim| (Some(victim.group), Some(victim.id)));
    assert!(told.iter().all(|one| expected.contains(one)) && !told.is_empty(), "{told:?}");
    for victim in &victims {
        let log = std::fs::read_to_string(data.join(format!("node-{}.log", victim.node + 1))).expect("the node's own words");
        assert!(log.contains("goes into quarantine"), "node {} said nothing of it", victim.id);
    }

    until("a cluster that is whole again", || is_whole(&dev));
    for victim in [leading, following] {
        until("the replica that was made anew leads", || victim.leads(&dev));
        keys.iter().for_each(|key| assert_eq!(victim.read(&dev, key), value(key)));
    }
    assert_eq!([0, 1, 2].map(|node| differed(&dev, node)), ["0", "1", "1"], "once each, and nobody else");
    let differ = |node| dev.metric(node, "cairn_comparisons_total{outcome=\"differ\"}").unwrap_or(0.0);
    assert!((0..3).map(differ).sum::<f64>() > 1.5, "two slices differed");
}
