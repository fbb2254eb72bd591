//! Disks that rot or fill up under the real binary: what was acknowledged stays, and the cluster mends itself.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod harness;

use harness::{Dev, pause, stderr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Rows written before a disk is hurt.
const ROWS: usize = 40;
/// How long a cluster may take to mend itself, in looks.
const LOOKS: usize = 150;
const LOOK: Duration = Duration::from_millis(200);

fn put(dev: &Dev, key: &str) {
    dev.json(&["admin", "kv", "put", "--tenant", "demo", key, key]);
}

#[track_caller]
fn has(dev: &Dev, key: &str) {
    assert_eq!(dev.json(&["admin", "kv", "get", "--tenant", "demo", key])["value"], key);
}

#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..LOOKS {
        if is_so() {
            return;
        }
        pause(LOOK);
    }
    panic!("{what} did not come about");
}

/// What the cluster says of itself, whether or not something is wrong with it.
fn status(dev: &Dev) -> serde_json::Value {
    let output = dev.run(&["admin", "status", "-o", "json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("no status: {error}: {}", stderr(&output)))
}

/// Every replica of every group is there and none has a problem.
fn is_whole(dev: &Dev) -> bool {
    let status = status(dev);
    let replicas = status["nodes"].as_array().into_iter().flatten().map(|node| node["replicas"].as_u64().unwrap_or(0));
    let problems = status["problems"].as_array().map_or(1, Vec::len);
    replicas.sum::<u64>() == 27 && problems == 0 && status["groups_without_leader"].as_array().is_some_and(Vec::is_empty)
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("the log's folder").map(|entry| entry.expect("its entry").path());
    let mut found: Vec<_> = entries.filter(|path| path.extension().is_some_and(|kind| kind == "seg")).collect();
    found.sort();
    found
}

#[test]
fn a_flipped_bit_in_a_log_is_found_and_the_node_rebuilt() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let mut dev = Dev::start(&data, 3);
    let keys: Vec<String> = (0..ROWS).map(|n| format!("key-{n}")).collect();
    keys.iter().for_each(|key| put(&dev, key));
    assert!(dev.stop(), "stops by itself, and well");
    drop(dev);

    let log = data.join("node-2").join("log");
    let newest = segments(&log).pop().expect("a segment");
    let mut bytes = std::fs::read(&newest).expect("it reads");
    let written = bytes.iter().rposition(|byte| *byte != 0).expect("it is not empty");
    bytes[written / 2] ^= 0x10;
    std::fs::write(&newest, bytes).expect("it writes");

    let dev = Dev::start(&data, 3);
    keys.iter().for_each(|key| has(&dev, key));
    until("a whole cluster", || is_whole(&dev));
    let told = std::fs::read_to_string(data.join("node-2.log")).expect("the node's own words");
    assert!(told.contains("quarantine"), "it said nothing of it");
    put(&dev, "afterwards");
    keys.iter().for_each(|key| has(&dev, key));
    assert!(segments(&log).iter().all(|path| !path.to_string_lossy().contains("aside-")), "what was set aside goes once all is whole");
}

/// A file system of its own, if this user may mount one.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path, size: &str) -> Option<Small> {
        std::fs::create_dir_all(at).expect("a folder");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(at).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Small(at.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
#[expect(clippy::disallowed_macros, reason = "a test that can't run here says so")]
fn a_full_disk_is_read_only_until_there_is_room() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(small) = Small::mount(&folder.path().join("small"), "400m") else {
        eprintln!("SKIPPED: no file system can be mounted here, so no disk was filled");
        return;
    };
    let dev = Dev::start(&small.0.join("data"), 3);
    put(&dev, "before");
    // All but 8 MiB: less than the reserve of a twentieth, 20 MiB.
    let filler = small.0.join("filler");
    let free = rustix::fs::statvfs(&small.0).expect("it tells").f_bavail * rustix::fs::statvfs(&small.0).expect("it tells").f_frsize;
    let zeros = vec![0; usize::try_from(free - (8 << 20)).expect("it fits")];
    std::fs::write(&filler, zeros).expect("there is so much room");
    let problems = || status(&dev)["problems"].to_string();
    // Each node looks by itself, and any of them may lead the row's group.
    until("a word of the full disk from every node", || problems().matches("disk of this node is full").count() == 3);
    has(&dev, "before");
    let refused = dev.run(&["admin", "kv", "put", "--tenant", "demo", "refused", "x"]);
    assert!(!refused.status.success() && stderr(&refused).contains("full"), "{}", stderr(&refused));
    dev.json(&["admin", "kv", "delete", "--tenant", "demo", "before"]);
    std::fs::remove_file(&filler).expect("it goes");
    until("room", || !problems().contains("full"));
    put(&dev, "after");
    has(&dev, "after");
    drop(dev);
}
