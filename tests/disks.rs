//! Disks that rot or fill up under the real binary: what was acknowledged stays, and the cluster mends itself.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod harness;

use harness::{Dev, stderr, until};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Rows written before a disk is hurt.
const ROWS: usize = 40;

fn put(dev: &Dev, key: &str) {
    dev.json(&["admin", "kv", "put", "--tenant", "demo", key, key]);
}

#[track_caller]
fn has(dev: &Dev, key: &str) {
    assert_eq!(dev.json(&["admin", "kv", "get", "--tenant", "demo", key])["value"], key);
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

/// Sorted files of a column family of a node's store.
fn tables(data: &Path, family: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(data).expect("the store's folder").map(|entry| entry.expect("its entry").path());
    let of_family = |path: &PathBuf| {
        path.extension().is_some_and(|kind| kind == "sst")
            && std::fs::read(path).expect("it reads").windows(family.len()).any(|window| window == family.as_bytes())
    };
    entries.filter(of_family).collect()
}

#[test]
fn a_flipped_bit_in_rows_that_nobody_reads_is_found_by_a_scrub_and_the_node_rebuilt() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let mut dev = Dev::start(&data, 3);
    let keys: Vec<String> = (0..ROWS).map(|n| format!("key-{n}")).collect();
    keys.iter().for_each(|key| put(&dev, key));
    let clean = dev.json(&["admin", "scrub", "--wait", "--rate", "1g"]);
    let rows = clean.as_array().expect("a row for each node");
    assert!(rows.len() == 3 && rows.iter().all(|row| row["rot"] == 0 && row["ended_ms"].as_u64() > Some(0)), "{clean}");
    assert!(dev.stop(), "stops by itself, and well");
    drop(dev);

    let dev = Dev::start(&data, 3);
    keys.iter().for_each(|key| has(&dev, key));
    until("a whole cluster", || is_whole(&dev));
    // Which keys a commit touched: written for whoever will watch, and read by none. Under the running node, whose compactions are done.
    let changes = tables(&data.join("node-2").join("data"), "changes");
    assert!(!changes.is_empty(), "an orderly stop flushes");
    for table in &changes {
        let file = std::fs::OpenOptions::new().read(true).write(true).open(table).expect("it opens");
        let mut byte = [0];
        file.read_exact_at(&mut byte, 10).expect("it reads");
        file.write_all_at(&[byte[0] ^ 0x10], 10).expect("it writes");
    }
    let (id, told) = (dev.node_id(1), dev.json(&["admin", "scrub", "status"]));
    assert!(told.as_array().expect("rows").iter().all(|row| row["ended_ms"].as_u64() > Some(0)), "a restart forgets nothing: {told}");
    let told = dev.run(&["admin", "scrub", "--node", &id.to_string(), "--wait", "--rate", "1g", "-o", "json"]);
    assert_eq!(told.status.code(), Some(8), "{}", stderr(&told));
    let found: serde_json::Value = serde_json::from_slice(&told.stdout).expect("JSON");
    assert!(found[0]["node"] == id && found[0]["rot"] == 1, "{found}");
    until("a cluster that is whole again", || is_whole(&dev));
    dev.json(&["admin", "scrub", "--wait", "--rate", "1g"]);
    keys.iter().for_each(|key| has(&dev, key));
    put(&dev, "afterwards");
}

/// A file system of its own, if this user may mount one.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path, size: &str) -> Option<Small> {
        std::fs::create_dir_all(at).expect("a folder");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(at).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Small(at.to_owned()))
    }

    fn free_bytes(&self) -> u64 {
        let told = rustix::fs::statvfs(&self.0).expect("it tells");
        told.f_bavail * told.f_frsize
    }

    /// Leaves only so many bytes free, until the file that this returns is removed.
    fn fill_but(&self, bytes: u64) -> PathBuf {
        let filler = self.0.join("filler");
        let zeros = vec![0; usize::try_from(self.free_bytes() - bytes).expect("it fits")];
        std::fs::write(&filler, zeros).expect("there is so much room");
        filler
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
    // Less than the reserve of a twentieth, 20 MiB.
    let filler = small.fill_but(8 << 20);
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

/// How many copies of contents lie in a node's folder.
fn copies(contents: &Path) -> usize {
    let count = |folder: PathBuf| std::fs::read_dir(folder).expect("a folder").count();
    let shards = std::fs::read_dir(contents.join("data")).expect("a folder").map(|shard| shard.expect("an entry").path());
    shards.map(count).sum::<usize>() + count(contents.join("temp"))
}

#[test]
#[expect(clippy::disallowed_macros, reason = "a test that can't run here says so")]
fn a_node_whose_disk_is_full_takes_no_contents_and_others_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let mut dev = Dev::start(&data, 3);
    assert!(dev.stop(), "stops by itself, and well");
    drop(dev);
    // Their contents get disks of their own, so that all else goes on as ever.
    let contents = [1, 2, 3].map(|node| data.join(format!("node-{node}")).join("content"));
    let disks: Vec<Small> = contents.iter().filter_map(|at| Small::mount(at, "64m")).collect();
    if disks.len() < 3 {
        eprintln!("SKIPPED: no file system can be mounted here, so no disk was filled");
        return;
    }
    let dev = Dev::start(&data, 3);
    let file = folder.path().join("file");
    std::fs::write(&file, vec![7; 5 << 20]).expect("written");
    let file = file.to_str().expect("a plain path");
    let s3 = dev.told["nodes"][0]["s3"].as_str().expect("told");
    let upload = |name: &str| dev.run(&["fs", "put", file, name, "--s3-endpoint", s3]);
    // Less than the reserve of a twentieth, 3 MiB: through the door of the full node itself.
    let first = disks[0].fill_but(2 << 20);
    let told = upload("/demo/one");
    assert!(told.status.success(), "{}", stderr(&told));
    assert_eq!(contents.each_ref().map(|at| copies(at)), [0, 1, 1]);

    let rest = [disks[1].fill_but(2 << 20), disks[2].fill_but(2 << 20)];
    let told = upload("/demo/two");
    assert!(!told.status.success() && stderr(&told).contains("full"), "{}", stderr(&told));
    until("what was begun to be gone", || contents.each_ref().map(|at| copies(at)) == [0, 1, 1]);
    assert!(disks.iter().all(|disk| disk.free_bytes() >= 1 << 20), "the reserve was spent");
    let back = folder.path().join("back");
    dev.run(&["fs", "get", "/demo/one", back.to_str().expect("a plain path")]);
    assert_eq!(std::fs::read(&back).expect("it came").len(), 5 << 20, "what is there is served as ever");

    for filler in [&first, &rest[0], &rest[1]] {
        std::fs::remove_file(filler).expect("it goes");
    }
    until("an upload", || upload("/demo/two").status.success());
    until("the copies that were owed", || contents.each_ref().map(|at| copies(at)) == [2, 2, 2]);
    drop(dev);
}
