//! `cairn dev` from its start to its second start, and every verb of `admin` and `fs` against it.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod harness;

use harness::{Dev, pause, stderr, until};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

#[test]
fn three_nodes_come_up_survive_a_death_stop_cleanly_and_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let mut dev = Dev::start(&data, 3);
    assert_eq!(dev.told["nodes"].as_array().map(Vec::len), Some(3));
    let mode = std::fs::metadata(data.join("credentials.toml")).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let status = dev.json(&["admin", "status"]);
    assert!(status["nodes"].as_array().expect("nodes").iter().all(|node| node["up"] == true), "{status}");
    assert_eq!((status["groups"].as_u64(), status["groups_without_leader"].as_array().map(Vec::len)), (Some(9), Some(0)), "{status}");

    assert_eq!((&status["problems"], &status["feature_level"]), (&serde_json::json!([]), &serde_json::json!(6)), "{status}");

    // A second start on the same folder is refused while the first one runs.
    let second = harness::run(&["dev", "--data", data.to_str().expect("a plain path")]);
    assert_eq!(second.status.code(), Some(4), "{}", stderr(&second));

    // A node that dies is started again.
    let pid = dev.told["nodes"][1]["pid"].as_i64().expect("a pid");
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("fits")).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it is ours");
    let is_back = || dev.json(&["admin", "node", "list"]).as_array().expect("nodes").iter().all(|node| node["up"] == true);
    until("the node is back", is_back);

    dev.json(&["admin", "kv", "put", "--tenant", "demo", "kept", "yes"]);
    let key = dev.told["access_key_id"].clone();
    assert!(dev.stop(), "stops by itself, and well");
    let again = Dev::start(&data, 3);
    assert_eq!(again.told["access_key_id"], key);
    assert_eq!(again.json(&["admin", "kv", "get", "--tenant", "demo", "kept"])["value"], "yes");
}

#[test]
fn every_verb_of_admin_answers() {
    let folder = tempfile::tempdir().expect("a folder");
    let dev = Dev::start(&folder.path().join("data"), 1);
    assert_eq!(dev.json(&["admin", "tenant", "create", "acme"])["name"], "acme");
    assert!(dev.fails(4, &["admin", "tenant", "create", "acme"]).contains("exists already"));
    assert!(dev.fails(2, &["admin", "tenant", "create", "Not A Name"]).contains("must be"));
    assert!(dev.fails(2, &["admin", "tenant", "create", "--", "-x"]).contains("begins with"));
    let told = dev.json(&["admin", "kv", "scan", "--directory"]).to_string();
    assert!(told.contains("tenant_name acme") && told.contains("feature_level: 6"), "{told}");
    assert!(!told.contains(dev.told["secret_access_key"].as_str().expect("told")), "no secret is shown");
    dev.fails(2, &["admin", "kv", "put", "--directory", "a", "b"]);
    let names: Vec<_> = dev.json(&["admin", "tenant", "list"]).as_array().expect("a list").iter().map(|t| t["name"].clone()).collect();
    assert_eq!(names, ["demo", "acme"]);

    let many = ["admin", "tenant", "create", "--count", "20", "--prefix", "many-"];
    let planned = dev.json(&[&many[..], &["--dry-run"]].concat());
    assert_eq!((planned["missing"].as_array().map(Vec::len), planned["existing"].as_array().map(Vec::len)), (Some(20), Some(0)));
    assert_eq!(dev.json(&many)["made"], 20);
    // Again, by a file that names one more.
    let names = folder.path().join("names");
    std::fs::write(&names, "# who came late\nmany-20\n\nmany-21\n").expect("written");
    let again = dev.json(&["admin", "tenant", "create", "--from-file", names.to_str().expect("a plain path")]);
    assert_eq!((&again["made"], &again["existed"]), (&serde_json::json!(1), &serde_json::json!(1)));
    dev.json(&["admin", "kv", "put", "--tenant", "many-21", "k", "v"]);
    dev.fails(2, &["admin", "tenant", "create", "acme", "--count", "3", "--prefix", "x"]);
    dev.fails(2, &["admin", "tenant", "create", "--count", "3"]);

    let key = dev.json(&["admin", "key", "create", "--tenant", "acme", "--description", "a test"]);
    let (id, secret) = (key["access_key_id"].as_str().expect("an id"), key["secret_access_key"].as_str().expect("a secret"));
    let listed = dev.json(&["admin", "key", "list"]).to_string();
    assert!(listed.contains(id) && !listed.contains(secret), "secrets are not listed");
    let as_tenant = ["--access-key-id", id, "--secret-access-key", secret];
    assert_eq!(dev.json(&[&["fs", "mkdir", "/papers"][..], &as_tenant].concat())["kind"], "folder");
    dev.fails(7, &[&["admin", "tenant", "list"][..], &as_tenant].concat());
    let operator = dev.json(&["admin", "key", "create", "--operator"]);
    let as_operator = ["--access-key-id", operator["access_key_id"].as_str().expect("an id")];
    let as_operator = [&as_operator[..], &["--secret-access-key", operator["secret_access_key"].as_str().expect("a secret")]].concat();
    assert!(dev.fails(2, &[&["fs", "ls", "/"][..], &as_operator].concat()).contains("operator's"));
    let listed = dev.json(&[&["fs", "ls", "/", "--tenant", "acme"][..], &as_operator].concat());
    assert!(listed.to_string().contains("papers"), "{listed}");
    dev.json(&["admin", "key", "revoke", id]);
    pause(Duration::from_millis(1500));
    dev.fails(7, &[&["fs", "ls", "/"][..], &as_tenant].concat());

    for key in ["a", "b", "c"] {
        dev.json(&["admin", "kv", "put", "--tenant", "acme", key, "1"]);
    }
    dev.json(&["admin", "kv", "delete", "--tenant", "acme", "b"]);
    assert!(dev.fails(3, &["admin", "kv", "get", "--tenant", "acme", "b"]).contains("not found"));
    dev.fails(3, &["admin", "kv", "delete", "--tenant", "acme", "b"]);
    let rows = dev.json(&["admin", "kv", "scan", "--tenant", "acme", "--reverse", "--limit", "1"]);
    assert_eq!((rows.as_array().map(Vec::len), &rows[0]["key"]), (Some(1), &serde_json::json!("c")));
    dev.fails(3, &["admin", "kv", "get", "--tenant", "nobody", "x"]);

    assert_eq!(dev.json(&["admin", "group", "list"]).as_array().map(Vec::len), Some(9));
    assert_eq!(dev.json(&["admin", "group", "show", "0"])[0]["role"], "leader");
    dev.fails(3, &["admin", "group", "show", "77"]);
    dev.fails(2, &["admin", "tenant", "delete", "acme"]);
    dev.json(&["admin", "tenant", "delete", "acme", "--yes"]);
    let yaml = dev.run(&["admin", "node", "list", "-o", "yaml"]);
    assert!(yaml.status.success() && harness::stdout(&yaml).starts_with("- id: 1"), "{}", harness::stdout(&yaml));
}

#[test]
fn files_go_in_and_come_out_as_they_were() {
    let folder = tempfile::tempdir().expect("a folder");
    let dev = Dev::start(&folder.path().join("data"), 1);
    let path = |name: &str| folder.path().join(name).to_str().expect("a plain path").to_owned();
    // Several parts of 16 MiB, and one that is not whole.
    let large: Vec<u8> = (0..40_000_003_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()[0]).collect();
    std::fs::write(path("large"), &large).expect("written");
    std::fs::write(path("small"), "hello").expect("written");
    assert_eq!(dev.json(&["fs", "put", &path("small"), "/demo/docs/"])["key"], "docs/small");
    assert_eq!(dev.json(&["fs", "put", &path("large"), "/demo/large.bin"])["bytes"], 40_000_003);
    let names = |listing: serde_json::Value| {
        listing.as_array().expect("a list").iter().map(|e| e["name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(dev.json(&["fs", "ls", "/"])), ["demo"]);
    assert_eq!(names(dev.json(&["fs", "ls", "/demo"])), ["docs/", "large.bin"]);
    assert_eq!(names(dev.json(&["fs", "ls", "/demo/docs/"])), ["small"]);
    let stat = dev.json(&["fs", "stat", "/demo/large.bin"]);
    assert_eq!((&stat["kind"], &stat["version"]["size"]), (&serde_json::json!("file"), &serde_json::json!(40_000_003)));
    dev.json(&["fs", "get", "/demo/large.bin", &path("back")]);
    assert!(std::fs::read(path("back")).expect("there") == large, "every byte");
    let printed = dev.run(&["fs", "get", "/demo/docs/small", "-"]);
    assert_eq!(printed.stdout, b"hello");

    assert!(dev.fails(3, &["fs", "ls", "/demo/nothing/"]).contains("nothing in /demo"));
    let missing = dev.fails(3, &["fs", "stat", "/demo/none"]);
    assert!(missing.contains("/demo/none") && !missing.contains("in folder"), "{missing}");
    dev.json(&["fs", "mv", "/demo/docs/small", "/demo/docs/renamed"]);
    dev.fails(3, &["fs", "stat", "/demo/docs/small"]);
    dev.json(&["fs", "mkdir", "/projects"]);
    dev.json(&["fs", "mkdir", "/projects/one"]);
    dev.fails(4, &["fs", "mkdir", "/PROJECTS"]);
    dev.json(&["fs", "mv", "/projects/one", "/projects/two"]);
    assert_eq!(names(dev.json(&["fs", "ls", "/projects"])), ["two"]);
    dev.json(&["fs", "rm", "/projects/two"]);
    dev.json(&["fs", "rm", "/demo/docs/renamed"]);
    dev.fails(3, &["fs", "get", "/demo/docs/renamed", "-"]);
    dev.fails(2, &["fs", "put", &path("small"), "/projects/small"]);
    let told = dev.fails(3, &["fs", "put", &path("small"), "/nobucket/small"]);
    assert!(told.contains("mkdir --bucket"), "{told}");
}

/// How many content files the nodes have together.
fn contents(folder: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(folder).map(|entries| entries.flatten().collect::<Vec<_>>()).unwrap_or_default();
    let below =
        |entry: &std::fs::DirEntry| if entry.path().is_dir() { contents(&entry.path()) } else { usize::from(is_content(&entry.path())) };
    entries.iter().map(below).sum()
}

/// `…/content/data/<2 hex>/<id>`
fn is_content(file: &std::path::Path) -> bool {
    file.ancestors().nth(2).is_some_and(|folder| folder.ends_with("content/data"))
}

#[test]
fn the_bytes_of_what_is_deleted_are_freed_on_every_node() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let dev = Dev::start_with(&data, 3, &[("CAIRN_CONTENT_COLLECT_EVERY_MS", "200"), ("CAIRN_CONTENT_COLLECT_AFTER_MS", "0")]);
    let file = folder.path().join("file");
    std::fs::write(&file, "some bytes").expect("written");
    let becomes = |copies: usize| until(&format!("{copies} content files"), || contents(&data) == copies);
    for _ in 0..2 {
        dev.json(&["fs", "put", file.to_str().expect("a plain path"), "/demo/file"]);
    }
    // What was overwritten goes, what replaced it stays in three copies.
    becomes(3);
    dev.json(&["fs", "rm", "/demo/file"]);
    becomes(0);
}

#[test]
fn status_lists_what_is_wrong_and_exits_with_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut dev = Dev::start(&folder.path().join("data"), 3);
    // A paused node is neither up nor gone: it must not hold the display up.
    let pid = dev.told["nodes"][2]["pid"].as_i64().expect("a pid");
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("fits")).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("it is ours");
    let status = dev.json(&["admin", "status", "--exit-zero"]);
    let down = status["problems"].as_array().expect("a list").iter().find(|problem| problem["kind"] == "node_down");
    let told = dev.fails(8, &["admin", "status"]);
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).expect("it is ours");
    let down = down.unwrap_or_else(|| panic!("{status}"));
    assert!(down["node"].is_u64() && down["message"].as_str().is_some_and(|text| text.contains("does not answer")), "{down}");
    assert!(told.contains("problem"), "{told}");
    assert!(dev.stop(), "and goes on");
}
