//! A good host through the real binary: a flood neither grows without bound nor crowds out who asks seldom.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod harness;

use harness::Dev;
use metadb_proto::Error;
use metadb_proto::principal::Token;
use serde_json::json;
use shard_router::{Client, Router, RouterConfig, operation};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Most of the flood's requests that may wait.
const LINE: u64 = 40;

/// Writes again and again until told to stop; counts what was served and what was refused.
async fn flood(client: Client, stop: Arc<AtomicBool>, counts: Arc<[AtomicU64; 2]>) {
    while !stop.load(Ordering::Relaxed) {
        let put = vec![operation::put("flood", vec![7; 300])];
        match client.transact(vec![], put).await {
            Ok(_) => counts[0].fetch_add(1, Ordering::Relaxed),
            Err(Error::Exhausted { .. }) => counts[1].fetch_add(1, Ordering::Relaxed),
            Err(error) => panic!("{error}"),
        };
    }
}

#[test]
fn a_flood_is_bounded_and_a_rare_asker_is_served() {
    let folder = tempfile::tempdir().expect("a folder");
    let dev = Dev::start(&folder.path().join("data"), 1);
    dev.json(&["admin", "setting", "set", "host.writes_in_flight", "4"]);
    dev.json(&["admin", "setting", "set", "tenant.queue_requests", &LINE.to_string()]);
    let tenant = |name: &str| dev.json(&["admin", "tenant", "create", name])["id"].as_u64().expect("an id");
    let (flooding, victim) = (tenant("flooding"), tenant("victim"));
    let key = dev.json(&["admin", "key", "create", "--operator"]);
    let token = Token::for_key(key["access_key_id"].as_str().expect("an id"), key["secret_access_key"].as_str().expect("a secret"));
    let seeds = vec![dev.told["nodes"][0]["grpc"].as_str().expect("an address").to_owned()];
    let at_door = |tenant: u64| {
        // What is wrong elsewhere is not what is asked: a machine that this flood keeps busy may tell of late nodes.
        let status = dev.json(&["admin", "status", "--exit-zero"]);
        let lines = status["waiting"].as_array().expect("a list").clone();
        lines.into_iter().find(|line| line["tenant_id"] == tenant && line["lane"] == "writes").unwrap_or_default()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let (stop, counts) = (Arc::new(AtomicBool::new(false)), Arc::new([AtomicU64::new(0), AtomicU64::new(0)]));
    // One router for all: what waits of one tenant must not keep the other's requests on the same stream from coming in.
    let router = runtime.block_on(async { Router::new(RouterConfig { seeds, token, ..RouterConfig::default() }) });
    let floods: Vec<_> = (0..200).map(|_| runtime.spawn(flood(router.tenant(flooding), Arc::clone(&stop), Arc::clone(&counts)))).collect();
    let mut served_before = 0;
    for round in 0..10 {
        runtime.block_on(async {
            let victim = router.tenant(victim).with_deadline(Duration::from_secs(30));
            for n in 0..10 {
                victim.transact(vec![], vec![operation::put(format!("{round}/{n}"), "v")]).await.expect("served");
            }
        });
        let line = at_door(flooding);
        assert!(line["requests"].as_u64().is_some_and(|requests| requests <= LINE), "{line}");
        let served = counts[0].load(Ordering::Relaxed);
        // Alone it may have everything, and together it still has its turns.
        assert!(served > served_before, "the flood is served too");
        served_before = served;
    }
    let (line, of_victim) = (at_door(flooding), at_door(victim));
    assert!(line["refused_total"].as_u64().is_some_and(|refused| refused > 0), "200 clients do not fit {LINE} places: {line}");
    assert_eq!(of_victim["refused_total"].as_u64().unwrap_or(0), 0, "the victim is never turned away: {of_victim}");
    stop.store(true, Ordering::Relaxed);
    for flood in floods {
        runtime.block_on(flood).expect("no error but the one that it was told to expect");
    }
    assert_eq!(at_door(flooding)["requests"].as_u64().unwrap_or(0), 0, "nothing is left behind");
}

/// Asks every node by itself.
fn on_every_node(dev: &Dev, mut ask: impl FnMut(&[&str])) {
    for node in dev.told["nodes"].as_array().expect("nodes") {
        let (grpc, s3) = (node["grpc"].as_str().expect("told"), node["s3"].as_str().expect("told"));
        ask(&["--endpoint", grpc, "--s3-endpoint", s3]);
    }
}

#[test]
fn a_tenant_and_a_service_are_switched_off_and_on_on_every_node() {
    let folder = tempfile::tempdir().expect("a folder");
    let dev = Dev::start(&folder.path().join("data"), 3);
    let file = folder.path().join("file");
    std::fs::write(&file, "bytes").expect("written");
    let file = file.to_str().expect("a plain path");
    let put = ["fs", "put", file, "/demo/file"];
    dev.json(&put);
    assert!(dev.fails(2, &["admin", "tenant", "suspend", "demo"]).contains("--reason"));

    let told = dev.json(&["admin", "tenant", "suspend", "demo", "--reason", "unpaid since March"]);
    assert_eq!(told["nodes_in_force"], json!(3), "{told}");
    on_every_node(&dev, |node| {
        for verb in [&["fs", "ls", "/"][..], &put] {
            let told = dev.fails(7, &[verb, node].concat());
            assert!(told.contains("suspended: unpaid since March"), "{verb:?}: {told}");
        }
    });
    assert!(
        dev.json(&["admin", "status", "--exit-zero"])["switched_off"][0].as_str().is_some_and(|off| off.contains("unpaid since March"))
    );
    dev.json(&["admin", "kv", "scan", "--tenant", "demo"]);

    dev.json(&["admin", "tenant", "suspend", "demo", "--writes-only", "--reason", "over its quota"]);
    on_every_node(&dev, |node| {
        dev.json(&[&["fs", "ls", "/"][..], node].concat());
        assert!(dev.fails(7, &[&["fs", "mkdir", "/new"][..], node].concat()).contains("over its quota"));
    });
    dev.json(&["admin", "tenant", "resume", "demo"]);
    dev.json(&put);

    dev.json(&["admin", "service", "disable", "s3", "--tenant", "demo", "--reason", "runaway client"]);
    assert!(dev.fails(7, &put).contains("runaway client"));
    dev.json(&["fs", "ls", "/"]);
    let services = dev.json(&["admin", "service", "list", "--tenant", "demo"]);
    assert_eq!(services[1]["serves"], json!(false), "{services}");
    dev.json(&["admin", "service", "enable", "s3", "--tenant", "demo"]);
    dev.json(&put);
    dev.json(&["admin", "service", "disable", "fs"]);
    on_every_node(&dev, |node| drop(dev.fails(7, &[&["fs", "ls", "/"][..], node].concat())));
    dev.json(&["admin", "service", "enable", "fs"]);
    dev.json(&["fs", "ls", "/"]);
    assert_eq!(dev.json(&["admin", "status", "--exit-zero"])["switched_off"], json!([]));
}
