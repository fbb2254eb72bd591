//! Settings: the example, the precedence, and what is refused.

use super::example::{EXAMPLE, SETTINGS};
use super::flags::Overrides;
use super::*;
use clap::{Args as _, Command, FromArgMatches as _};

fn flags(args: &[&str]) -> Overrides {
    let command = Overrides::augment_args(Command::new("node"));
    let matches = command.try_get_matches_from(std::iter::once(&"node").chain(args)).expect("parses");
    Overrides::from_arg_matches(&matches).expect("flags")
}

#[test]
fn the_example_parses_to_the_defaults() {
    let parsed: NodeConfig = toml::from_str(EXAMPLE).expect("parses");
    assert_eq!(parsed, NodeConfig::default());
    parsed.validate().expect("the defaults are valid");
}

#[test]
fn every_setting_is_in_the_example_with_a_meaning() {
    let all = toml::Table::try_from(NodeConfig::default()).expect("encodes");
    let mut names = Vec::new();
    for (name, value) in &all {
        match value.as_table().filter(|_| name != "labels") {
            Some(section) => names.extend(section.keys().map(|key| format!("{name}-{key}"))),
            None => names.push(name.clone()),
        }
    }
    let mut flags: Vec<_> = SETTINGS.iter().map(|setting| setting.flag.clone()).collect();
    let mut names: Vec<_> = names.iter().map(|name| name.replace('_', "-")).collect();
    flags.sort();
    names.sort();
    assert_eq!(flags, names);
    assert!(SETTINGS.iter().all(|setting| setting.help.ends_with('.')), "{SETTINGS:?}");
}

#[test]
fn flags_win_over_the_file_and_have_its_types() {
    let file: NodeConfig = toml::from_str("listen = \"10.0.0.1:1\"\n[raft]\nheartbeat_ms = 50\n").expect("parses");
    let given = [
        "--listen",
        "10.0.0.2:2",
        "--bootstrap",
        "--join",
        "a:1, b:2",
        "--raft-heartbeat-ms",
        "60",
        "--labels",
        "pod=a",
        "--log-format",
        "json",
    ];
    let config = flags(&given).apply(&file).expect("applies");
    assert_eq!(config.listen, "10.0.0.2:2");
    assert!(config.bootstrap);
    assert_eq!(config.join, ["a:1", "b:2"]);
    assert_eq!(config.raft.heartbeat_ms, 60);
    assert_eq!(config.labels.get("pod").map(String::as_str), Some("a"));
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(flags(&[]).apply(&file).expect("applies"), file);
}

#[test]
fn a_flag_of_the_wrong_type_is_refused_by_name() {
    let refused = flags(&["--raft-heartbeat-ms", "soon"]).apply(&NodeConfig::default()).expect_err("not a number");
    assert!(refused.message.contains("CAIRN_RAFT_HEARTBEAT_MS") && refused.message.contains("soon"), "{refused}");
    assert!(flags(&["--log-format", "xml"]).apply(&NodeConfig::default()).is_err());
}

#[test]
fn an_unknown_setting_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("node.toml");
    std::fs::write(&file, "[raft]\nheart_beat_ms = 3\n").expect("written");
    let refused = NodeConfig::read(&file).expect_err("unknown");
    assert!(refused.message.contains("heart_beat_ms") && refused.message.contains("node.toml"), "{refused}");
}

#[test]
fn what_is_out_of_bounds_is_told_with_field_limit_and_value() {
    let check = |change: fn(&mut NodeConfig), field: &str, value: &str| {
        let mut config = NodeConfig::default();
        change(&mut config);
        let refused = config.validate().expect_err(field);
        assert!(refused.message.contains(field) && refused.message.contains("must be") && refused.message.contains(value), "{refused}");
    };
    check(|c| c.cluster.replicas = 2, "cluster.replicas", "2");
    check(|c| c.listen = "here".into(), "listen", "here");
    check(|c| c.listen = "0.0.0.0:7401".into(), "advertise", "empty");
    check(|c| c.http.listen = "here".into(), "http.listen", "here");
    check(|c| c.trace.sample_ratio = 1.5, "trace.sample_ratio", "1.5");
    check(|c| c.trace.otlp_endpoint = "collector".into(), "trace.otlp_endpoint", "collector");
    check(|c| c.join = vec!["http://a:1".into()], "join", "http://a:1");
    check(|c| c.raft.election_min_ms = 199, "raft.election_min_ms", "199");
    check(|c| c.raft.election_max_ms = 299, "raft.election_max_ms", "299");
    check(|c| c.cluster.initial_groups = 0, "cluster.initial_groups", "0");
    check(|c| c.content.collect_every_ms = 1, "content.collect_every_ms", "1");
    check(|c| c.cluster_id = "XYZ".into(), "cluster_id", "XYZ");
}

#[test]
fn a_short_secret_is_refused_without_being_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("secret");
    std::fs::write(&file, "abcdef\n").expect("written");
    let refused = read_secret(&file).expect_err("too short");
    assert!(refused.message.contains("32 bytes") && !refused.message.contains("abcdef"), "{refused}");
}
