//! Settings and data folders that a node must refuse, seen from outside: by exit code, by words, and by what stays untouched.

#[expect(dead_code, reason = "each test file uses its part of the harness")]
mod harness;

use harness::{run, stderr, stdout};
use std::path::Path;

fn settings(folder: &Path, more: &str) -> String {
    let secret = folder.join("cluster.secret");
    std::fs::write(&secret, "ab".repeat(32)).expect("written");
    let file = folder.join("node.toml");
    let text = format!(
        "cluster_secret_file = {secret:?}\ndata = {:?}\nlisten = \"127.0.0.1:7999\"\nbootstrap = true\n{more}",
        folder.join("data")
    );
    std::fs::write(&file, text).expect("written");
    file.to_str().expect("a plain path").to_owned()
}

#[track_caller]
fn refused(args: &[&str], code: i32, words: &[&str]) {
    let output = run(args);
    assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
    let told = stderr(&output);
    assert!(words.iter().all(|word| told.contains(word)), "{words:?} not all in: {told}");
    assert!(told.starts_with("error: ") && told.contains("\n hint: "), "{told}");
}

#[test]
fn the_example_is_accepted_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let example = run(&["node", "--example-config"]);
    assert!(example.status.success());
    let file = folder.path().join("node.toml");
    std::fs::write(&file, &example.stdout).expect("written");
    // Only what is of this machine differs: a free port, a folder, a secret.
    let secret = folder.path().join("cluster.secret");
    std::fs::write(&secret, "ab".repeat(32)).expect("written");
    let (data, secret) = (folder.path().join("data"), secret.to_str().expect("a plain path").to_owned());
    let (listen, s3) = (free_port(), free_port());
    let own = [
        "--cluster-secret-file",
        &secret,
        "--data",
        data.to_str().expect("a plain path"),
        "--listen",
        &listen,
        "--s3-listen",
        &s3,
        "--http-listen=",
    ];
    let checked = run(&[&["node", "--check", "--config", file.to_str().expect("a plain path"), "--bootstrap=true"][..], &own].concat());
    assert!(checked.status.success(), "{}", stderr(&checked));
    assert!(stdout(&example).lines().filter(|line| line.starts_with('#')).count() > 20, "every setting is explained");
}

/// An address on this machine where nobody listens.
fn free_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("bound").to_string()
}

#[test]
fn a_check_finds_what_a_start_would_trip_over_and_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = settings(folder.path(), "");
    let check = |more: &[&str]| {
        let (listen, s3) = (free_port(), free_port());
        let args = [&["node", "--check", "--config", &file, "--listen", &listen, "--s3-listen", &s3, "--http-listen="][..], more].concat();
        let output = run(&args);
        (output.status.code(), stdout(&output) + &stderr(&output))
    };
    let well = check(&[]);
    assert!(well.0 == Some(0) && well.1.contains("makes a new cluster"), "{well:?}");
    assert!(!folder.path().join("data").exists(), "nothing is made");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let taken = taken.local_addr().map(|address| (address.to_string(), taken)).expect("bound");
    let busy = run(&["node", "--check", "--config", &file, "--listen", &taken.0, "--s3-listen", &free_port(), "--http-listen="]);
    assert!(busy.status.code() == Some(4) && stderr(&busy).contains(&taken.0), "{}", stderr(&busy));
    let alone = check(&["--bootstrap=false"]);
    assert!(alone.0 == Some(2) && alone.1.contains("--join"), "{alone:?}");
    let silent = check(&["--bootstrap=false", "--join", "127.0.0.1:1"]);
    assert!(silent.0 == Some(0) && silent.1.contains("can't be reached now"), "{silent:?}");
    let nameless = check(&["--bootstrap=false", "--join", "nobody.invalid:7401"]);
    assert!(nameless.0 == Some(2) && nameless.1.contains("leads nowhere"), "{nameless:?}");
    let data = folder.path().join("data");
    std::fs::create_dir(&data).expect("made");
    std::fs::write(data.join("letter.txt"), "dear").expect("written");
    let strange = check(&[]);
    assert!(strange.0 == Some(1) && strange.1.contains("letter.txt"), "{strange:?}");
    std::fs::write(folder.path().join("cluster.secret"), "short").expect("written");
    assert_eq!(check(&[]).0, Some(2), "the secret is read too");
}

#[test]
fn an_unknown_setting_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = settings(folder.path(), "[raft]\nheart_beat_ms = 3\n");
    refused(&["node", "--config", &file], 2, &["heart_beat_ms", "node.toml", "line 6"]);
    assert!(!folder.path().join("data").exists());
}

#[test]
fn a_setting_out_of_bounds_is_refused_with_its_limit() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = settings(folder.path(), "[cluster]\nreplicas = 4\n");
    refused(&["node", "--config", &file], 2, &["cluster.replicas", "1, 3, 5 or 7", "is 4"]);
    refused(&["node", "--config", &file, "--cluster-replicas", "many"], 2, &["CAIRN_CLUSTER_REPLICAS", "many"]);
}

#[test]
fn a_flag_wins_over_a_variable_and_that_over_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = settings(folder.path(), "[cluster]\nreplicas = 4\n");
    let (listen, s3) = (free_port(), free_port());
    let args = ["node", "--check", "--config", &file, "--listen", &listen, "--s3-listen", &s3, "--http-listen="];
    let variable = harness::cairn(&args).env("CAIRN_CLUSTER_REPLICAS", "5").output().expect("runs");
    assert!(variable.status.success(), "{}", stderr(&variable));
    let flag =
        harness::cairn(&["node", "--check", "--config", &file, "--cluster-replicas", "2"]).env("CAIRN_CLUSTER_REPLICAS", "5").output();
    assert!(stderr(&flag.expect("runs")).contains("is 2"));
}

#[test]
fn a_missing_or_bad_secret_is_refused_without_being_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = settings(folder.path(), "");
    std::fs::write(folder.path().join("cluster.secret"), "c0ffee").expect("written");
    let output = run(&["node", "--config", &file]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("at least 32 bytes") && !stderr(&output).contains("c0ffee"), "{}", stderr(&output));
    std::fs::remove_file(folder.path().join("cluster.secret")).expect("removed");
    refused(&["node", "--config", &file], 2, &["cluster.secret", "openssl rand"]);
}

#[test]
fn the_data_folder_of_another_cluster_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = settings(folder.path(), "");
    let data = folder.path().join("data");
    std::fs::create_dir(&data).expect("made");
    let identity = format!("format = 1\ncluster_id = \"{}\"\nnode_id = 3\nsecret_check = \"{}\"\n", "cd".repeat(16), "00".repeat(16));
    std::fs::write(data.join("identity.toml"), &identity).expect("written");
    refused(&["node", "--config", &file], 1, &[&"cd".repeat(16), "another cluster secret"]);
    refused(&["node", "--config", &file, "--cluster-id", &"ef".repeat(16)], 1, &[&"cd".repeat(16), &"ef".repeat(16)]);
    assert_eq!(std::fs::read_dir(&data).expect("listed").count(), 1);
}

#[test]
fn a_data_folder_of_a_newer_format_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = settings(folder.path(), "");
    let data = folder.path().join("data");
    std::fs::create_dir(&data).expect("made");
    std::fs::write(data.join("identity.toml"), "format = 7\nsomething_new = 1\n").expect("written");
    refused(&["node", "--config", &file], 1, &["format 7", "at most format 1"]);
    assert_eq!(std::fs::read_dir(&data).expect("listed").count(), 1);
}

#[test]
fn a_new_node_that_nobody_told_where_to_go_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = settings(folder.path(), "");
    let output = run(&[
        "node",
        "--config",
        &file,
        "--bootstrap=false",
        "--listen",
        "127.0.0.1:7998",
        "--s3-listen",
        "127.0.0.1:7997",
        "--http-listen=",
    ]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("--join"), "{}", stderr(&output));
}

#[test]
fn a_first_node_that_lost_its_folder_does_not_make_its_cluster_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = settings(folder.path(), "");
    let cluster = "ef".repeat(16);
    let args = ["node", "--config", &file, "--bootstrap=true", "--cluster-id", &cluster];
    refused(
        &[&args[..], &["--listen", "127.0.0.1:7996", "--s3-listen", "127.0.0.1:7995", "--http-listen="]].concat(),
        2,
        &["exists already", "--join"],
    );
    assert!(!folder.path().join("data").join("identity.toml").exists(), "no identity is made up");
}

#[test]
fn without_a_cluster_every_verb_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let nowhere = folder.path().join("none.toml");
    let nowhere = nowhere.to_str().expect("a plain path");
    refused(&["admin", "status", "--context", nowhere], 7, &["cairn dev"]);
    refused(&["fs", "ls", "/", "--context", nowhere], 7, &["cairn dev"]);
}

#[test]
fn an_endpoint_that_is_none_is_an_argument_error_and_one_where_nobody_is_is_told_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("cluster.secret");
    std::fs::write(&secret, "ab".repeat(32)).expect("written");
    let secret = secret.to_str().expect("a plain path");
    let status = |endpoint: &str| run(&["admin", "status", "--endpoint", endpoint, "--cluster-secret-file", secret]);
    let nonsense = status("nonsense");
    assert_eq!(nonsense.status.code(), Some(2), "{}", stderr(&nonsense));
    assert!(stderr(&nonsense).contains("--endpoint") && stderr(&nonsense).contains("host:port"), "{}", stderr(&nonsense));
    let nobody = status("127.0.0.1:1,127.0.0.1:2");
    assert_eq!(nobody.status.code(), Some(5), "{}", stderr(&nobody));
    let told = stderr(&nobody);
    assert!(told.contains("127.0.0.1:1: Connection refused") && told.contains("127.0.0.1:2: Connection refused"), "{told}");
    let help = stdout(&run(&["admin", "status", "--help"]));
    assert!(help.contains("Exit code: 0 when all is well, 8"), "{help}");
}

#[test]
fn shells_get_completions_and_people_get_exit_codes() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell]);
        assert!(script.status.success() && stdout(&script).contains("admin"), "{shell}");
    }
    let help = stdout(&run(&["--help"]));
    assert!(help.contains("Exit codes:") && help.contains("outcome is not known") && help.contains("Examples:"), "{help}");
    assert_eq!(run(&["no-such-verb"]).status.code(), Some(2));
}
