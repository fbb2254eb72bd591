//! Where things are, through the real binary: groups are made and replicas replaced, pods hold groups and tenants where they belong, and loads
//! are evened, while a client is at work.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod harness;

use harness::{Dev, until};
use serde_json::{Value, json};

/// Four nodes that are all labelled `region=fra`, at the level that knows pods.
fn start(folder: &tempfile::TempDir) -> Dev {
    let dev = Dev::start_with(&folder.path().join("data"), 4, &[("CAIRN_LABELS", "region=fra")]);
    until("all nodes know pods", || dev.json(&["admin", "status", "--exit-zero"])["feature_level"].as_u64() >= Some(6));
    dev
}

fn list(dev: &Dev, what: &str) -> Vec<Value> {
    dev.json(&["admin", what, "list"]).as_array().expect("a list").clone()
}

fn group(dev: &Dev, id: u64) -> Value {
    list(dev, "group").into_iter().find(|group| group["id"] == id).expect("the group")
}

/// The groups that a tenant's shards are in.
fn places(dev: &Dev, tenant: &str) -> Vec<u64> {
    let shards = dev.json(&["admin", "shard", "list", "--tenant", tenant]);
    let shards = if shards.is_array() { shards } else { shards["shards"].clone() };
    shards.as_array().expect("shards").iter().filter_map(|shard| shard["group"].as_u64()).collect()
}

#[test]
fn groups_are_made_and_replicas_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let dev = start(&folder);
    let before = list(&dev, "group").len();
    let planned = dev.json(&["admin", "group", "create", "--on", "1,2,4", "--dry-run"]);
    assert_eq!(planned["groups"][0]["voters"], json!([1, 2, 4]));
    assert_eq!(list(&dev, "group").len(), before, "a dry run changes nothing");
    let made = dev.json(&["admin", "group", "create", "--on", "1,2,4"]);
    let id = made["groups"][0]["id"].as_u64().expect("an id");
    assert_eq!((&group(&dev, id)["state"], &group(&dev, id)["voters"]), (&json!("active"), &json!([1, 2, 4])));
    for (on, told) in [("1,2", "1, 3, 5 or 7"), ("1,1,2", "different")] {
        assert!(dev.fails(2, &["admin", "group", "create", "--on", on]).contains(told));
    }
    dev.fails(3, &["admin", "group", "create", "--on", "77"]);
    dev.fails(3, &["admin", "group", "create", "--pod", "nowhere"]);

    // One replica goes to another node.
    let id = id.to_string();
    let replace = |old: &str, new: &str| ["admin", "group", "replace-replica", &id, old, new].map(str::to_owned);
    let ask = |args: &[String], more: &[&str]| dev.json(&[&args.iter().map(String::as_str).collect::<Vec<_>>()[..], more].concat());
    let refuse = |code: i32, args: &[String]| dev.fails(code, &args.iter().map(String::as_str).collect::<Vec<_>>());
    let planned = ask(&replace("4", "3"), &["--dry-run"]);
    assert_eq!((&planned["moves"][0]["to"], planned["moves"][0]["bytes"].is_u64()), (&json!([1, 2, 3]), true), "{planned}");
    ask(&replace("4", "3"), &[]);
    assert_eq!(group(&dev, id.parse().expect("a number"))["voters"], json!([1, 2, 3]));
    assert!(refuse(2, &replace("4", "3")).contains("votes in group"), "it has none any more");
    assert!(refuse(2, &replace("1", "2")).contains("does not vote"), "the same place twice");
    refuse(3, &replace("1", "77"));
    dev.json(&["admin", "node", "drain", "4", "--no-wait"]);
    assert!(refuse(2, &replace("1", "4")).contains("undrain"));
}

#[test]
fn pods_hold_groups_and_tenants() {
    let folder = tempfile::tempdir().expect("a folder");
    let dev = start(&folder);
    dev.json(&["admin", "tenant", "create", "acme"]);
    dev.json(&["admin", "kv", "put", "--tenant", "acme", "kept", "yes"]);
    let made = dev.json(&["admin", "pod", "create", "eu", "--match", "region=fra,ams"]);
    assert_eq!(made["nodes"], json!([1, 2, 3, 4]));
    assert!(dev.fails(4, &["admin", "pod", "create", "eu"]).contains("pod set"));
    dev.fails(2, &["admin", "pod", "create", "Not a name"]);
    dev.fails(2, &["admin", "pod", "create", "us", "--match", "region"]);
    dev.json(&["admin", "pod", "create", "us"]);
    let refused = dev.fails(2, &["admin", "group", "create", "--pod", "us"]);
    assert!(refused.contains("of pod \"us\"") && refused.contains("--join"), "{refused}");

    // No group of the pod: nothing to pin to.
    let refused = dev.fails(2, &["admin", "tenant", "pin", "acme", "--pod", "eu"]);
    assert!(refused.contains("group create --pod eu"), "{refused}");
    dev.fails(3, &["admin", "tenant", "pin", "acme", "--pod", "nowhere"]);
    let id = dev.json(&["admin", "group", "create", "--pod", "eu"])["groups"][0]["id"].as_u64().expect("an id");
    assert_eq!(group(&dev, id)["pod"], "eu");
    let home = places(&dev, "acme")[0];
    assert_ne!(home, id, "who is not pinned goes to groups of no pod");
    // A shard on its way to where it may not be then is not overlooked.
    let other = list(&dev, "group").into_iter().filter_map(|group| group["id"].as_u64()).find(|other| ![0, home, id].contains(other));
    let other = other.expect("a third group").to_string();
    for row in 0..100 {
        dev.json(&["admin", "kv", "put", "--tenant", "acme", &format!("large/{row:03}"), &"v".repeat(100_000)]);
    }
    let rate = |mib_per_s: &str| dev.json(&["admin", "setting", "set", "shards.move_mib_per_s", mib_per_s]);
    rate("1");
    let ordered = dev.json(&["admin", "shard", "move", "--tenant", "acme", "--to", &other, "--no-wait"]);
    let refused = dev.fails(5, &["admin", "tenant", "pin", "acme", "--pod", "eu"]);
    let change = ordered["changes"][0]["change"].as_u64().expect("its number").to_string();
    assert!(refused.contains(&format!("shard cancel {change}")), "{refused}");
    dev.json(&["admin", "shard", "cancel", &change]);
    rate("0");
    dev.json(&["admin", "tenant", "pin", "acme", "--pod", "eu"]);
    assert_eq!(places(&dev, "acme"), [id]);
    // Nobody moves it out.
    let refused = dev.fails(2, &["admin", "shard", "move", "--tenant", "acme", "--to", &home.to_string()]);
    assert!(refused.contains("pinned") && refused.contains("group create --pod eu"), "{refused}");
    let refused = dev.fails(2, &["admin", "shard", "move", "--tenant", "acme", "--to", &id.to_string()]);
    assert!(refused.contains("already"), "the same group: {refused}");
    assert!(dev.fails(2, &["admin", "group", "set-pod", &id.to_string(), "--none"]).contains("acme"));
    assert!(dev.fails(2, &["admin", "pod", "delete", "eu"]).contains("acme"));
    let refused = dev.fails(2, &["admin", "pod", "set", "eu", "--match", "region=iad"]);
    assert!(refused.contains("at least 3 in pod"), "{refused}");
    assert_eq!(
        dev.json(&["admin", "pod", "show", "eu"])[0]["notes"]
            .as_array()
            .expect("notes")
            .iter()
            .filter(|n| n.to_string().contains("still"))
            .count(),
        0
    );

    // A group of its own.
    assert_eq!(dev.json(&["admin", "tenant", "own-group", "acme", "--dry-run"])["dry_run"], true);
    dev.json(&["admin", "tenant", "own-group", "acme"]);
    let own = places(&dev, "acme")[0];
    let tenants = list(&dev, "tenant");
    let acme = tenants.iter().find(|tenant| tenant["name"] == "acme").expect("there");
    assert_eq!((&group(&dev, own)["own_of_tenant"], &group(&dev, own)["pod"]), (&acme["id"], &json!("eu")));
    dev.json(&["admin", "tenant", "create", "other"]);
    let refused = dev.fails(2, &["admin", "shard", "move", "--tenant", "other", "--to", &own.to_string()]);
    assert!(refused.contains("own"), "{refused}");
    dev.json(&["admin", "tenant", "share-group", "acme"]);
    dev.json(&["admin", "shard", "move", "--tenant", "other", "--to", &own.to_string()]);
    assert_eq!(dev.json(&["admin", "kv", "get", "--tenant", "acme", "kept"])["value"], "yes");
    dev.json(&["admin", "tenant", "unpin", "acme"]);
    dev.json(&["admin", "shard", "move", "--tenant", "acme", "--to", &home.to_string()]);
    assert_eq!(dev.json(&["admin", "kv", "get", "--tenant", "acme", "kept"])["value"], "yes");
}

#[test]
fn files_of_a_tenant_stay_together_unless_somebody_insists() {
    let folder = tempfile::tempdir().expect("a folder");
    let dev = start(&folder);
    // `demo` has a bucket. Cut behind all of it, and then one half shall go.
    dev.json(&["admin", "shard", "split", "--tenant", "demo", "--at", "z", "--allow-empty"]);
    let to = [1_u64, 2].into_iter().find(|id| !places(&dev, "demo").contains(id)).expect("another group").to_string();
    let refused = dev.fails(2, &["admin", "shard", "move", "--tenant", "demo", "--key", "z", "--to", &to]);
    assert!(refused.contains("folders or buckets") && refused.contains("--force"), "{refused}");
    dev.json(&["admin", "shard", "move", "--tenant", "demo", "--key", "z", "--to", &to, "--force"]);
    dev.json(&["admin", "shard", "move", "--tenant", "demo", "--to", &to]);
    assert!(places(&dev, "demo").iter().all(|place| place.to_string() == to));
}

#[test]
fn loads_are_shown_and_evened() {
    let folder = tempfile::tempdir().expect("a folder");
    let dev = start(&folder);
    let planned = dev.json(&["admin", "balance", "--dry-run"]);
    assert!(planned["dry_run"] == true && planned["moves"].as_array().is_some(), "{planned}");
    // Groups on three of four nodes: replicas are uneven enough to be moved by the number alone.
    dev.json(&["admin", "group", "create", "--count", "12", "--on", "1,2,3"]);
    for id in 9..=20_u64 {
        let id = id.to_string();
        until("the group has a leader", || dev.run(&["admin", "group", "members", &id, "automatic", "--no-wait"]).status.success());
    }
    let planned = dev.json(&["admin", "balance", "--dry-run"]);
    let replicas = planned["moves"].as_array().expect("moves").iter().filter(|row| row["what"] == "replica").count();
    assert!(replicas > 0, "{planned}");
    let held =
        |id: u64| list(&dev, "node").into_iter().find(|node| node["id"] == id).expect("there")["replicas"].as_u64().expect("a number");
    let before = held(4);
    dev.json(&["admin", "balance"]);
    until("node 4 has more", || held(4) > before);
    dev.json(&["admin", "setting", "set", "balance.enabled", "true", "--reason", "let it go on"]);
    until("it goes on by itself", || held(4) > before + 2);
}
