//! Supervision on ordinary processes: revived when they die by themselves, down when told so.

use jepsen::{Cluster, NodeSpec};
use std::time::Duration;

fn one(folder: &std::path::Path, script: &str) -> Cluster {
    let spec = NodeSpec {
        name: "node-1".into(),
        program: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        log: folder.join("log"),
        address: "127.0.0.1:1".into(),
    };
    Cluster::new(vec![spec], "token".into())
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..200 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn a_child_that_dies_is_started_again_and_one_that_was_killed_stays_down() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = one(folder.path(), "echo up; exec sleep 100");
    cluster.start(0).await.expect("starts");
    let first = cluster.state(0).pid.expect("up");
    rustix::process::kill_process(rustix::process::Pid::from_raw(first.cast_signed()).expect("a pid"), rustix::process::Signal::KILL)
        .expect("it is ours");
    until("revived", || cluster.state(0).pid.is_some_and(|pid| pid != first)).await;
    assert_eq!(cluster.state(0).restarts, 1);
    cluster.kill(0).await.expect("killed");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(cluster.state(0).pid, None);
    cluster.start(0).await.expect("starts again");
    cluster.pause(0).expect("paused");
    cluster.stop_all(Duration::from_secs(5)).await;
    assert_eq!(cluster.state(0).pid, None);
    assert!(cluster.state(0).last_exit.expect("it ended").contains("15"), "SIGTERM reaches a paused child too");
}

#[tokio::test]
async fn a_child_whose_settings_are_wrong_is_given_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = one(folder.path(), "echo bad; exit 2");
    cluster.start(0).await.expect("starts");
    until("given up", || cluster.state(0).gave_up).await;
    assert_eq!(cluster.state(0).restarts, 0);
    assert!(cluster.pause(0).is_err());
}

#[tokio::test]
async fn a_childs_standard_input_stays_open_while_it_is_supervised() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = one(folder.path(), "echo started; cat; echo ended; exec sleep 100");
    let log = || std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
    cluster.start(0).await.expect("starts");
    // Else the log would be as empty before the shell has begun.
    until("the shell runs", || log().contains("started")).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(log(), "started\n");
    cluster.kill(0).await.expect("killed");
}

#[tokio::test]
async fn nobody_leads_a_cluster_that_does_not_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = one(folder.path(), "sleep 100");
    assert!(cluster.leads_most().await.is_err());
}
