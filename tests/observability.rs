//! What a node tells machines that watch it, asked of the real binary: numbers, probes, and whether it may be taken down.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod harness;

use harness::{Dev, pause};
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

#[track_caller]
fn becomes(what: &str, mut is: impl FnMut() -> bool) {
    for _ in 0..100 {
        if is() {
            return;
        }
        pause(Duration::from_millis(100));
    }
    panic!("never {what}");
}

#[test]
fn a_node_may_be_taken_down_only_while_the_others_can_do_without_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let dev = Dev::start(&folder.path().join("data"), 3);
    becomes("safe to stop", || get(&dev, 0, "/safe-to-stop").0 == 200);
    assert_eq!(dev.json(&["admin", "node", "safe-to-stop", "2"])["safe"], true);
    dev.fails(3, &["admin", "node", "safe-to-stop", "7"]);

    let pid = dev.told["nodes"][2]["pid"].as_i64().expect("a pid");
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("fits")).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("it is ours");
    let mut told = String::new();
    becomes("needed", || {
        let (status, body) = get(&dev, 0, "/safe-to-stop");
        told = body;
        status == 503 && told.contains("node 3 does not answer")
    });
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    assert!(told["ok"] == false && told["reasons"].as_array().is_some_and(|reasons| reasons.len() >= 9), "{told}");
    let told = dev.fails(5, &["admin", "node", "safe-to-stop", "2"]);
    assert!(told.contains("node 2 is needed") && told.contains("hint:"), "{told}");
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).expect("it is ours");
    becomes("safe to stop again", || get(&dev, 0, "/safe-to-stop").0 == 200);
}

#[test]
fn a_node_tells_numbers_and_that_it_is_alive_and_ready() {
    let folder = tempfile::tempdir().expect("a folder");
    let dev = Dev::start(&folder.path().join("data"), 1);
    assert_eq!(get(&dev, 0, "/livez"), (200, "{\"ok\":true,\"reasons\":[]}".to_owned()));
    becomes("ready", || get(&dev, 0, "/readyz").0 == 200);
    let (status, body) = get(&dev, 0, "/safe-to-stop");
    assert!(status == 503 && body.contains("group 0: without node 1 it has 0 of 1 voters"), "{status} {body}");
    let (status, text) = get(&dev, 0, "/metrics");
    assert_eq!(status, 200);
    for line in ["# TYPE cairn_process_cpu_seconds_total counter\n", "cairn_build_info{version=\"0.1.0\",node=\"1\"} 1\n"] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    assert_eq!(get(&dev, 0, "/nothing").0, 404);
}
