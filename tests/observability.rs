//! What a node tells machines that watch it, asked of the real binary: numbers, probes, and whether it may be taken down.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod harness;

use harness::{Dev, until};
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// Asks a node of `cairn dev` over its door for machines that watch.
fn get(dev: &Dev, node: usize, path: &str) -> (u16, String) {
    let url = dev.told["nodes"][node]["http"].as_str().expect("a URL");
    let address = url.strip_prefix("http://").expect("plain HTTP");
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    assert!(!head.contains("transfer-encoding"), "{head}");
    (status, body.to_owned())
}

#[test]
fn a_node_may_be_taken_down_only_while_the_others_can_do_without_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let dev = Dev::start(&folder.path().join("data"), 3);
    until("safe to stop", || get(&dev, 0, "/safe-to-stop").0 == 200);
    assert_eq!(dev.json(&["admin", "node", "safe-to-stop", "2"])["safe"], true);
    dev.fails(3, &["admin", "node", "safe-to-stop", "7"]);

    let pid = dev.told["nodes"][2]["pid"].as_i64().expect("a pid");
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("fits")).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("it is ours");
    let mut told = String::new();
    until("needed", || {
        let (status, body) = get(&dev, 0, "/safe-to-stop");
        told = body;
        status == 503 && told.contains(" does not answer")
    });
    // Ids are given in the order in which nodes join, which is not that of their folders.
    let silent = told.split(" does not answer").next().and_then(|before| before.rsplit(' ').next()).expect("who is silent").to_owned();
    let needed = if silent == "2" { "3" } else { "2" };
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    assert!(told["ok"] == false && told["reasons"].as_array().is_some_and(|reasons| reasons.len() >= 9), "{told}");
    let told = dev.fails(5, &["admin", "node", "safe-to-stop", needed]);
    assert!(told.contains(&format!("node {needed} is needed")) && told.contains("hint:"), "{told}");
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).expect("it is ours");
    until("safe to stop again", || get(&dev, 0, "/safe-to-stop").0 == 200);
}

#[test]
fn a_node_tells_numbers_and_that_it_is_alive_and_ready() {
    let folder = tempfile::tempdir().expect("a folder");
    let dev = Dev::start(&folder.path().join("data"), 1);
    assert_eq!(get(&dev, 0, "/livez"), (200, "{\"ok\":true,\"reasons\":[]}".to_owned()));
    until("ready", || get(&dev, 0, "/readyz").0 == 200);
    let (status, body) = get(&dev, 0, "/safe-to-stop");
    assert!(status == 503 && body.contains("group 0: without node 1 it has 0 of 1 voters"), "{status} {body}");
    let (status, text) = get(&dev, 0, "/metrics");
    assert_eq!(status, 200);
    for line in ["# TYPE cairn_process_cpu_seconds_total counter\n", "cairn_build_info{version=\"0.1.0\",node=\"1\"} 1\n"] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    assert_eq!(get(&dev, 0, "/nothing").0, 404);
}

/// The names of metrics in an expression, without what Prometheus puts behind those of histograms.
fn metrics_of(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let named = words.filter(|word| word.starts_with("cairn_"));
    named.map(|word| ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word).to_owned()).collect()
}

fn deployed(file: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The anchors of a page's headings, as a forge makes them.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter_map(|line| line.strip_prefix('#')).map(|line| line.trim_start_matches('#').trim());
    headings.map(|heading| heading.to_lowercase().replace(' ', "-")).collect()
}

#[test]
fn every_alert_says_what_to_do_and_has_its_runbook() {
    let rules: serde_yaml_ng::Value = serde_yaml_ng::from_str(&deployed("deploy/prometheus/cairn.rules.yml")).expect("YAML");
    let anchors = anchors(&deployed("docs/operations.md"));
    let rules = rules["groups"][0]["rules"].as_sequence().expect("rules");
    assert!(rules.len() >= 10, "{}", rules.len());
    for rule in rules {
        let name = rule["alert"].as_str().expect("a name");
        let text = |field: &str| rule["annotations"][field].as_str().unwrap_or_else(|| panic!("{name}: no {field}"));
        assert!(text("action").len() > 20 && text("summary").len() > 10, "{name}");
        assert!(["critical", "warning"].contains(&rule["labels"]["severity"].as_str().expect("a severity")), "{name}");
        let anchor = text("runbook_url").strip_prefix("docs/operations.md#").expect("the operators' page");
        assert!(anchors.contains(anchor), "{name}: no heading makes {anchor}");
        assert!(rule["for"].as_str().is_some() && rule["expr"].as_str().is_some(), "{name}");
    }
    serde_yaml_ng::from_str::<serde_yaml_ng::Value>(&deployed("deploy/prometheus/prometheus.yml")).expect("YAML");
}

/// What dashboard and rules ask for, each with where.
fn asked_for() -> Vec<(String, String)> {
    let dashboard: serde_json::Value = serde_json::from_str(&deployed("deploy/grafana/cairn.json")).expect("JSON");
    let mut asked = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels").iter().filter(|panel| panel["type"] != "row") {
        let targets = panel["targets"].as_array().unwrap_or_else(|| panic!("{panel}"));
        assert!(!targets.is_empty(), "{panel}");
        for target in targets {
            let found = metrics_of(target["expr"].as_str().expect("an expression"));
            assert!(!found.is_empty(), "{target}");
            asked.extend(found.into_iter().map(|metric| (metric, format!("the panel {}", panel["title"]))));
        }
    }
    let rules: serde_yaml_ng::Value = serde_yaml_ng::from_str(&deployed("deploy/prometheus/cairn.rules.yml")).expect("YAML");
    for rule in rules["groups"][0]["rules"].as_sequence().expect("rules") {
        let found = metrics_of(rule["expr"].as_str().expect("an expression"));
        asked.extend(found.into_iter().map(|metric| (metric, format!("the alert {:?}", rule["alert"]))));
    }
    asked
}

#[test]
fn what_dashboard_and_alerts_ask_for_is_served_by_nodes_at_work() {
    let folder = tempfile::tempdir().expect("a folder");
    let dev = Dev::start(&folder.path().join("data"), 3);
    let file = folder.path().join("file");
    std::fs::write(&file, "some bytes").expect("written");
    let file = file.to_str().expect("a plain path");
    for node in 0..3 {
        let endpoint = dev.told["nodes"][node]["grpc"].as_str().expect("an address");
        let s3 = dev.told["nodes"][node]["s3"].as_str().expect("a URL");
        dev.json(&["fs", "mkdir", &format!("/folder-{node}"), "--endpoint", endpoint]);
        dev.json(&["fs", "put", file, &format!("/demo/file-{node}"), "--s3-endpoint", s3]);
        dev.json(&["fs", "ls", "/demo", "--endpoint", endpoint]);
    }
    tops(&dev);
    moves(&dev);
    let mut texts: Vec<String> = Vec::new();
    // Nodes are asked one after the other, and leaders are still spread over them: for a moment two may say that they lead, or nobody.
    until("led, each group by one node, with each node connected to the two others", || {
        texts = (0..3).map(|node| get(&dev, node, "/metrics").1).collect();
        total(&texts, "cairn_group_is_leader") == Some(9.0) && total(&texts, "cairn_peer_up{") == Some(6.0)
    });
    let lines = || texts.iter().flat_map(|text| text.lines());
    let served: BTreeSet<&str> =
        lines().filter_map(|line| line.strip_prefix("# TYPE ")).filter_map(|line| line.split(' ').next()).collect();
    for (metric, place) in asked_for() {
        assert!(served.contains(&*metric), "{place} asks for {metric}, which no node serves");
    }
    for counted in [
        "cairn_requests_total{verb=\"transact\",outcome=\"ok\"}",
        "cairn_request_seconds_count{verb=\"transact\"}",
        "cairn_router_requests_total{verb=\"transact\",outcome=\"ok\"}",
        "cairn_fs_operations_total{operation=\"create_folder\",outcome=\"ok\"}",
        "cairn_s3_requests_total{method=\"PUT\",class=\"2xx\"}",
        "cairn_content_written_total",
        "cairn_log_sync_seconds_count",
        "cairn_apply_seconds_count",
        "cairn_commit_seconds_count",
        "cairn_entry_commands_sum",
        "cairn_read_rounds_total{way=\"lease\"}",
        "cairn_hot_rows_misses_total",
        "cairn_peer_sent_bytes_total",
        "cairn_leader_changes_total",
        "cairn_store_memtable_bytes{family=\"data\"}",
        "cairn_shard_changes_ended_total{kind=\"move\",outcome=\"done\"}",
        "cairn_shard_move_pause_seconds_count",
        "cairn_shard_copied_bytes_total",
    ] {
        assert!(total(&texts, counted) > Some(0.0), "{counted} counted nothing");
    }
    let wrong = ["cairn_group_failed", "cairn_store_background_errors_total"].map(|metric| total(&texts, metric));
    assert_eq!(wrong, [Some(0.0), Some(0.0)]);
    assert_eq!(total(&texts, "cairn_shard_changes{"), Some(0.0), "no change of a shard is left");
}

/// Moves the tenant's shard once.
fn moves(dev: &Dev) {
    until("able to move shards", || dev.json(&["admin", "status", "--exit-zero"])["feature_level"].as_u64() >= Some(5));
    let group = dev.json(&["admin", "shard", "list", "--tenant", "demo"])[0]["group"].as_u64().expect("a group");
    let to = if group == 1 { "2" } else { "1" };
    assert_eq!(dev.json(&["admin", "shard", "move", "--tenant", "demo", "--to", to])["changes"][0]["state"], "done");
    // The mover tells what is left at its next look.
    until("told that nothing is left", || {
        (0..3).all(|node| !get(dev, node, "/metrics").1.contains("cairn_shard_changes{state=\"running\"} 1"))
    });
}

/// The sum of all samples whose lines begin so; none: there are none.
#[track_caller]
fn total(texts: &[String], start: &str) -> Option<f64> {
    let lines = texts.iter().flat_map(|text| text.lines()).filter(|line| line.starts_with(start));
    let numbers = lines.filter_map(|line| line.rsplit(' ').next());
    let parsed: Vec<f64> = numbers.map(|number| number.parse().unwrap_or_else(|error| panic!("{start}: {number}: {error}"))).collect();
    (!parsed.is_empty()).then(|| parsed.iter().sum())
}

/// What `cairn admin top` shows while a tenant is at work: its window is over within some seconds, and a node that is late once is shown so.
fn tops(dev: &Dev) {
    let mut top = serde_json::Value::Null;
    let all = |top: &serde_json::Value, list: &str, count: usize, holds: &dyn Fn(&serde_json::Value) -> bool| {
        top[list].as_array().is_some_and(|found| found.len() == count && found.iter().all(holds))
    };
    for _ in 0..100 {
        dev.json(&["fs", "ls", "/demo"]);
        top = dev.json(&["admin", "top", "--once", "--every-ms", "200"]);
        let at_work = top["tenants"].as_array().is_some_and(|tenants| tenants.iter().any(|tenant| tenant["tenant"] == "demo"));
        let nodes = all(&top, "nodes", 3, &|node| node["up"] == true && node["resident_bytes"].as_u64() > Some(1_000_000));
        if at_work && nodes && all(&top, "groups", 9, &|group| group["leader"].is_u64()) {
            break;
        }
        top["incomplete"] = true.into();
    }
    assert!(top["incomplete"].is_null(), "{top}");
    let table = dev.run(&["admin", "top", "--once"]);
    let text = harness::stdout(&table);
    assert!(["REQ/S", "ENTRIES/S", "TENANT"].iter().all(|title| text.contains(title)), "{text}");
}
