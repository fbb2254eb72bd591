//! Settings of a running cluster through the real binary: refused when wrong, in force everywhere, explained, and kept.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod harness;

use harness::{Dev, until};
use serde_json::json;

/// The revisions that the nodes have in force.
fn revisions(dev: &Dev) -> Vec<u64> {
    let status = dev.json(&["admin", "status"]);
    status["nodes"].as_array().expect("nodes").iter().map(|node| node["settings_revision"].as_u64().expect("a number")).collect()
}

#[test]
fn a_setting_is_refused_when_wrong_in_force_everywhere_when_right_and_explained() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut dev = Dev::start_with(&folder.path().join("data"), 3, &[("CAIRN_LABELS", "pod=p1")]);
    let told = dev.fails(2, &["admin", "setting", "set", "tenant.wieght", "5"]);
    assert!(told.contains("tenant.weight") && told.contains("wieght"), "{told}");
    let told = dev.fails(2, &["admin", "setting", "set", "tenant.weight", "0"]);
    assert!(told.contains("tenant.weight") && told.contains("1 to 10000") && told.contains("\"0\""), "{told}");
    assert!(dev.fails(2, &["admin", "setting", "set", "tenant.weight", "5", "--user", "AK"]).contains("user AK"));
    dev.fails(3, &["admin", "setting", "set", "tenant.weight", "5", "--tenant", "nobody"]);
    assert_eq!(revisions(&dev), [0, 0, 0], "nothing was changed");

    let set = |args: &[&str]| dev.json(&[&["admin", "setting", "set", "tenant.weight"][..], args].concat());
    let dry = set(&["7", "--dry-run"]);
    assert_eq!((&dry["dry_run"], &dry["new"]), (&json!(true), &json!("7")));
    assert_eq!(dev.json(&["admin", "setting", "list"]), json!([]));
    for (scope, value) in [(&[][..], "10"), (&["--pod", "p1"], "20"), (&["--pod", "p2"], "30"), (&["--tenant", "demo"], "40")] {
        let done = set(&[&[value, "--reason", "a test"], scope].concat());
        assert_eq!((&done["nodes_in_force"], &done["nodes_late"]), (&json!(3), &json!([])), "{done}");
    }
    assert_eq!(revisions(&dev), [4, 4, 4]);

    let get = |args: &[&str]| dev.json(&[&["admin", "setting", "get", "tenant.weight"][..], args].concat());
    let won = |answer: &serde_json::Value| (answer["value"].as_str().map(str::to_owned), answer["won_by"].as_str().map(str::to_owned));
    let is = |value: &str, scope: &str| (Some(value.to_owned()), Some(scope.to_owned()));
    assert_eq!(won(&get(&[])), is("10", "cluster"));
    assert_eq!(won(&get(&["--node", "2"])), is("20", "pod p1"));
    let explained = get(&["--node", "2", "--tenant", "demo"]);
    assert_eq!(won(&explained), is("40", "tenant demo"));
    assert_eq!(explained["candidates"].as_array().map(Vec::len), Some(4), "tenant, pod, cluster, default: {explained}");

    // Whoever saw an older state is refused.
    let told = dev.fails(4, &["admin", "setting", "set", "tenant.weight", "50", "--tenant", "demo", "--expect", "3"]);
    assert!(told.contains("set it to 40 at revision 4"), "{told}");
    dev.json(&["admin", "setting", "unset", "tenant.weight", "--tenant", "demo", "--expect", "4"]);
    let history = dev.json(&["admin", "setting", "history", "tenant.weight"]);
    let newest = (&history[0]["old"], &history[0]["new"], &history[1]["new"], &history[1]["reason"]);
    assert_eq!(newest, (&json!("40"), &json!(null), &json!("40"), &json!("a test")), "{history}");

    // A node that starts alone, without a directory, has the last settings known; here all start again.
    assert!(dev.stop(), "stops by itself, and well");
    let again = Dev::start_with(&folder.path().join("data"), 3, &[("CAIRN_LABELS", "pod=p1")]);
    until("all have the last settings", || revisions(&again) == [5, 5, 5]);
}
