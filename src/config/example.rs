//! Every setting with its meaning and its default. What is printed by `cairn node --example-config` is also where the flags and the
//! environment variables get their names and their help from.

use std::sync::LazyLock;

/// A file that parses to the defaults.
pub(crate) const EXAMPLE: &str = r#"# Settings of one Cairn node, with their defaults. Every setting is also a flag and an environment variable:
# `listen` of [s3] is --s3-listen and CAIRN_S3_LISTEN. A flag wins over a variable, a variable over this file.

# Folder with everything that the node keeps.
data = "cairn-data/node"
# host:port where the node serves gRPC: metadb.v1, fs.v1 and content.v1.
listen = "127.0.0.1:7401"
# host:port where other nodes and clients reach that door. Empty: as `listen`.
advertise = ""
# File with the secret, in hex digits, that makes the nodes of one cluster recognise each other.
cluster_secret_file = "cairn-data/cluster.secret"
# Cluster that the data folder must belong to. Empty: any whose secret fits.
cluster_id = ""
# Make a new cluster if the data folder is new and every node of `join` says that it is in none. For the first node only. Leave `join` empty
# for a cluster that is certainly new, or say --force-new-cluster once.
bootstrap = false
# host:port of any nodes of the cluster to join. Any one of them that is up is enough.
join = []
# How long an orderly stop may take, in milliseconds, to hand over leadership and to write what is in memory.
stop_grace_ms = 5000

[s3]
# host:port where the node serves S3.
listen = "127.0.0.1:7501"
# host:port where S3 clients reach that door. Empty: as `listen`.
advertise = ""
# Region that clients sign their requests for.
region = "us-east-1"

[http]
# host:port where the node tells Prometheus its numbers (/metrics) and answers probes: /livez, /readyz, /safe-to-stop. Empty: nowhere.
listen = "127.0.0.1:7451"

# Read only when a cluster is made.
[cluster]
# On how many nodes each group is replicated: 1, 3, 5 or 7.
replicas = 3
# How many groups are made at the start, beside the directory.
initial_groups = 8

[raft]
# How often a leader tells that it lives, in milliseconds.
heartbeat_ms = 100
# Shortest wait before an election once a leader's lease is over, in milliseconds; at least two heartbeats.
election_min_ms = 200
# Longest such wait, and the lease of a leader, in milliseconds; at least three heartbeats. Each replica draws its own wait between the two:
# a leader that was silent for its lease and that wait is replaced.
election_max_ms = 400

[storage]
# Memory for blocks read from disk, in MiB.
block_cache_mib = 256
# Memory for rows not yet written to sorted files, in MiB.
write_buffer_mib = 64
# Room that each disk keeps in reserve, in MiB, though never more than a twentieth of it. When it is touched, the node is read-only until
# there is room: it takes only reads and deletions, and other nodes lead. The disk of the contents keeps as much: at its reserve, the node
# takes no file bytes. 0: no reserve.
reserve_mib = 1024
# After so much new log, in MiB, what it changed is flushed: a start after a crash replays no more than about this.
flush_log_mib = 64
# Log that stays behind what was flushed, in MiB over all groups of the node, for replicas that lag. One that lags by more gets a snapshot.
keep_log_mib = 256
# Most that snapshots may take of disk and network, in MiB a second over all groups of the node, writing and sending counted apart.
snapshot_mib_per_s = 256

[content]
# How often a node looks for bytes of deleted and overwritten files to free, in milliseconds.
collect_every_ms = 10000
# How long such bytes stay, in milliseconds, so that downloads that were begun before can end.
collect_after_ms = 60000

[log]
# How log lines on standard error look: text or json.
format = "text"
# What is logged: error, warn, info, debug or trace, also by module: metadb=debug,info.
level = "info,openraft=error"
# Requests that take longer than this are told with where their time went, in milliseconds; at most ten lines a second. 0: none.
slow_request_ms = 500

[trace]
# http://host:port of a collector that takes OTLP over gRPC: sampled requests are told there with where their time went. Empty: none.
otlp_endpoint = ""
# Which part of all requests is sampled: 1.0 is every one, 0.01 one in a hundred. A caller that samples has its requests sampled too.
sample_ratio = 0.01

# What placement and settings may ask for, as name = "value". Settings know data_centre, pod and host_group.
[labels]
"#;

/// One setting, as the example tells it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Setting {
    /// The section that it is in; empty for none.
    pub(crate) section: String,
    /// Its name within the section.
    pub(crate) name: String,
    /// `s3-listen`
    pub(crate) flag: String,
    /// `CAIRN_S3_LISTEN`
    pub(crate) variable: String,
    /// The comment above it.
    pub(crate) help: String,
    /// Its default, as the example writes it.
    pub(crate) default: String,
}

/// Every setting, in the order of the example. `[labels]` is one setting, a table.
pub(crate) static SETTINGS: LazyLock<Vec<Setting>> = LazyLock::new(|| settings(EXAMPLE));

fn settings(example: &str) -> Vec<Setting> {
    let (mut section, mut help, mut all) = (String::new(), String::new(), Vec::new());
    for line in example.lines() {
        if let Some(comment) = line.strip_prefix('#') {
            help = [help.trim(), comment.trim()].join(" ").trim().to_owned();
        } else if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            if name == "labels" {
                all.push(setting("", name, &help, ""));
            }
            name.clone_into(&mut section);
            help.clear();
        } else if let Some((name, default)) = line.split_once(" = ") {
            all.push(setting(&section, name, &help, default));
            help.clear();
        } else {
            help.clear();
        }
    }
    all
}

fn setting(section: &str, name: &str, help: &str, default: &str) -> Setting {
    let words = if section.is_empty() { name.to_owned() } else { format!("{section}_{name}") };
    Setting {
        section: section.to_owned(),
        name: name.to_owned(),
        flag: words.replace('_', "-"),
        variable: format!("CAIRN_{}", words.to_uppercase()),
        help: help.to_owned(),
        default: default.to_owned(),
    }
}
