//! A node that was away for longer than the others keep log, through the real binary: it catches up by a snapshot.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod harness;

use harness::{Dev, until};
use metadb_proto::principal::Token;
use rustix::process::{Pid, Signal, kill_process};
use shard_router::{Client, Router, RouterConfig, operation};
use std::time::Duration;

/// Rows that are written while a node is away, and how long each is: several files' worth of log and several chunks of snapshot.
const ROWS: u32 = 120;
const ROW_BYTES: usize = 64 << 10;

fn signal(dev: &Dev, node: usize, signal: Signal) {
    let pid = dev.told["nodes"][node]["pid"].as_i64().expect("a pid");
    let pid = Pid::from_raw(i32::try_from(pid).expect("fits")).expect("a pid");
    kill_process(pid, signal).expect("it is ours");
}

/// A value that no two rows share and that does not compress to nothing.
fn value(row: u32, round: u32) -> Vec<u8> {
    let mut state = u64::from(row) << 32 | u64::from(round) | 1;
    let words = (0..ROW_BYTES / 8).flat_map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state ^ (state >> 29)).to_be_bytes()
    });
    words.collect()
}

async fn write(client: &Client, round: u32) {
    for row in 0..ROWS {
        client.transact(vec![], vec![operation::put(format!("row/{row}"), value(row, round))]).await.expect("two of three take it");
    }
}

async fn check(client: &Client, round: u32) {
    for row in 0..ROWS {
        let found = client.get(format!("row/{row}")).await.expect("two of three serve it").expect("it is there");
        assert!(found.value == value(row, round), "row {row} is not of round {round}");
    }
}

/// The last entry of the replica of the busiest group on a node, and that group.
fn busiest(dev: &Dev) -> u32 {
    let groups = dev.json(&["admin", "group", "list"]);
    let busiest = groups.as_array().expect("groups").iter().filter(|group| group["id"] != 0);
    let busiest = busiest.max_by_key(|group| group["applied_index"].as_u64()).expect("there are groups");
    u32::try_from(busiest["id"].as_u64().expect("an id")).expect("fits")
}

/// How far replicas of a group purged their logs, and how far these reach, of those that answer.
fn reach(dev: &Dev, group: u32) -> Vec<(u64, u64)> {
    let shown = dev.json(&["admin", "group", "show", &group.to_string()]);
    let number = |replica: &serde_json::Value, field: &str| replica[field].as_u64().expect("a number");
    shown.as_array().expect("replicas").iter().map(|r| (number(r, "purged_index"), number(r, "last_log_index"))).collect()
}

/// Whether all replicas of a group have applied the same, and no snapshot of it is on its way.
fn is_whole(dev: &Dev, group: u32) -> bool {
    let shown = dev.json(&["admin", "group", "show", &group.to_string()]);
    let replicas = shown.as_array().expect("replicas");
    let applied = |replica: &serde_json::Value| replica["applied_index"].as_u64();
    let rests = |replica: &serde_json::Value| {
        applied(replica) == applied(&replicas[0]) && replica["snapshots"].as_array().is_some_and(Vec::is_empty)
    };
    replicas.len() == 3 && replicas.iter().all(rests)
}

#[test]
fn a_node_that_was_away_for_long_catches_up_by_a_snapshot_and_counts_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let small = [("CAIRN_STORAGE_FLUSH_LOG_MIB", "1"), ("CAIRN_STORAGE_KEEP_LOG_MIB", "0"), ("CAIRN_STORAGE_SNAPSHOT_MIB_PER_S", "8")];
    let dev = Dev::start_with(&folder.path().join("data"), 3, &small);
    let tenant = dev.json(&["admin", "tenant", "create", "away"])["id"].as_u64().expect("an id");
    let key = dev.json(&["admin", "key", "create", "--operator"]);
    let token = Token::for_key(key["access_key_id"].as_str().expect("an id"), key["secret_access_key"].as_str().expect("a secret"));
    let seeds = (0..3).map(|node| dev.told["nodes"][node]["grpc"].as_str().expect("an address").to_owned()).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let router = runtime.block_on(async { Router::new(RouterConfig { seeds, token, ..RouterConfig::default() }) });
    let client = router.tenant(tenant).with_deadline(Duration::from_secs(30));
    runtime.block_on(write(&client, 1));
    let group = busiest(&dev);

    until("whole", || is_whole(&dev, group));
    let away = |round: u32, back: Signal| {
        // Silent, not dead: `cairn dev` would start a dead one again.
        signal(&dev, 2, Signal::STOP);
        let had = reach(&dev, group).into_iter().map(|(_, last)| last).max().expect("two answer");
        runtime.block_on(write(&client, round));
        until("purged", || {
            let reach = reach(&dev, group);
            reach.len() == 2 && reach.iter().all(|(purged, _)| *purged > had)
        });
        signal(&dev, 2, back);
    };
    let installed = format!("cairn_group_snapshots_installed_total{{group=\"{group}\"}}");
    let caught_up = || dev.metric(2, &installed).is_some_and(|count| count > 0.0);
    away(2, Signal::CONT);
    until("caught up by a snapshot", caught_up);
    until("whole", || is_whole(&dev, group));
    // It has the log again, so nobody waits for it any more. This time it dies, and counts anew.
    away(3, Signal::KILL);
    until("caught up by another snapshot", caught_up);
    let of_node = |node, name| dev.metric(node, name).expect("it answers");
    let came = of_node(2, "cairn_snapshot_received_bytes_total");
    assert!(came > f64::from(ROWS) * ROW_BYTES as f64, "{came} bytes came, and that is not all");
    let sent: f64 = (0..2).map(|node| of_node(node, "cairn_snapshot_sent_bytes_total")).sum();
    assert!(sent >= came, "{sent} bytes were sent, {came} received");
    assert!((of_node(2, "cairn_snapshot_rotten_parts_total")).abs() < 0.5, "nothing rots here");
    let received = format!("snapshot-in-{group:010}-");
    until("rid of the files that were taken in", || !spool(&dev, 2).iter().any(|name| name.starts_with(&received)));

    // It counts again: with it and one other there is a quorum, which has everything.
    until("whole", || is_whole(&dev, group));
    signal(&dev, 0, Signal::STOP);
    runtime.block_on(check(&client, 3));
    runtime.block_on(write(&client, 4));
    runtime.block_on(check(&client, 4));
    signal(&dev, 0, Signal::CONT);
}

/// Names of the files of a node's spool.
fn spool(dev: &Dev, node: usize) -> Vec<String> {
    let folder = dev.data.join(format!("node-{}", node + 1)).join("spool");
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}
