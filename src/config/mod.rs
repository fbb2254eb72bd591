//! The settings of a node: a file, environment variables and flags; a flag wins over a variable, that over the file, that over the default.
//!
//! A setting is declared once, as a field here, and told once, as a commented line of the [`example`]; its flag and its variable follow
//! from its name: `listen` of `[s3]` is `--s3-listen` and `CAIRN_S3_LISTEN`. A setting that nobody knows is refused.

pub(crate) mod example;
pub(crate) mod flags;

use crate::datadir::CLUSTER_ID_DIGITS;
use crate::failure::Failure;
use metadb_proto::principal::ClusterSecret;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Most groups made at the start: more than a node carries well; shards spread over groups later, by moves.
const INITIAL_GROUPS_MAX: u32 = 256;
/// A leader's lease lasts at least this many heartbeats, so that one that is lost or late costs no lease.
const HEARTBEATS_PER_LEASE: u64 = 3;
/// The wait behind the lease is at least this many heartbeats: one that is late starts no election.
const HEARTBEATS_PER_ELECTION: u64 = 2;

/// Where a person finds what a setting may be.
const WHERE_TOLD: &str = "`cairn node --example-config` prints every setting with its meaning";

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct NodeConfig {
    pub(crate) data: PathBuf,
    pub(crate) listen: String,
    pub(crate) advertise: String,
    pub(crate) cluster_secret_file: PathBuf,
    pub(crate) cluster_id: String,
    pub(crate) bootstrap: bool,
    /// Make a new cluster although nodes of `join` do not answer. Said at one start, never kept in a file.
    #[serde(skip)]
    pub(crate) force_new_cluster: bool,
    pub(crate) join: Vec<String>,
    pub(crate) stop_grace_ms: u64,
    pub(crate) s3: S3Config,
    pub(crate) http: HttpConfig,
    pub(crate) cluster: ClusterConfig,
    pub(crate) raft: RaftConfig,
    pub(crate) storage: StorageConfig,
    pub(crate) content: ContentConfig,
    pub(crate) log: LogConfig,
    pub(crate) trace: TraceConfig,
    pub(crate) labels: BTreeMap<String, String>,
}

/// The S3 door.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct S3Config {
    pub(crate) listen: String,
    pub(crate) advertise: String,
    pub(crate) region: String,
}

/// The door for machines that watch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HttpConfig {
    pub(crate) listen: String,
}

/// What a new cluster is like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ClusterConfig {
    pub(crate) replicas: u32,
    pub(crate) initial_groups: u32,
}

/// The clock of the groups.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RaftConfig {
    pub(crate) heartbeat_ms: u64,
    pub(crate) election_min_ms: u64,
    pub(crate) election_max_ms: u64,
}

/// Memory for stored data, and how it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StorageConfig {
    pub(crate) block_cache_mib: u64,
    pub(crate) write_buffer_mib: u64,
    pub(crate) reserve_mib: u64,
    pub(crate) flush_log_mib: u64,
    pub(crate) keep_log_mib: u64,
    pub(crate) snapshot_mib_per_s: u64,
}

/// The bytes of files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ContentConfig {
    pub(crate) collect_every_ms: u64,
    pub(crate) collect_after_ms: u64,
}

/// What the node writes to standard error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LogConfig {
    pub(crate) format: LogFormat,
    pub(crate) level: String,
    pub(crate) slow_request_ms: u64,
}

/// Where sampled requests are told of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TraceConfig {
    pub(crate) otlp_endpoint: String,
    pub(crate) sample_ratio: f64,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl Default for NodeConfig {
    fn default() -> Self {
        NodeConfig {
            data: "cairn-data/node".into(),
            listen: "127.0.0.1:7401".into(),
            advertise: String::new(),
            cluster_secret_file: "cairn-data/cluster.secret".into(),
            cluster_id: String::new(),
            bootstrap: false,
            force_new_cluster: false,
            join: Vec::new(),
            stop_grace_ms: 5000,
            s3: S3Config::default(),
            http: HttpConfig::default(),
            cluster: ClusterConfig::default(),
            raft: RaftConfig::default(),
            storage: StorageConfig::default(),
            content: ContentConfig::default(),
            log: LogConfig::default(),
            trace: TraceConfig::default(),
            labels: BTreeMap::new(),
        }
    }
}

impl Default for S3Config {
    fn default() -> Self {
        S3Config { listen: "127.0.0.1:7501".into(), advertise: String::new(), region: "us-east-1".into() }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        HttpConfig { listen: "127.0.0.1:7451".into() }
    }
}

impl Default for ClusterConfig {
    fn default() -> Self {
        ClusterConfig { replicas: 3, initial_groups: 8 }
    }
}

impl Default for RaftConfig {
    fn default() -> Self {
        RaftConfig { heartbeat_ms: 100, election_min_ms: 200, election_max_ms: 400 }
    }
}

impl Default for StorageConfig {
    fn default() -> Self {
        StorageConfig {
            block_cache_mib: 256,
            write_buffer_mib: 64,
            reserve_mib: 1024,
            flush_log_mib: 64,
            keep_log_mib: 256,
            snapshot_mib_per_s: 256,
        }
    }
}

impl Default for ContentConfig {
    fn default() -> Self {
        ContentConfig { collect_every_ms: 10_000, collect_after_ms: 60_000 }
    }
}

impl Default for TraceConfig {
    fn default() -> Self {
        TraceConfig { otlp_endpoint: String::new(), sample_ratio: 0.01 }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig { format: LogFormat::Text, level: "info,openraft=error".into(), slow_request_ms: 500 }
    }
}

/// A setting that can't be used: which one, what it may be, what it was.
fn invalid(field: &str, limit: impl std::fmt::Display, value: impl std::fmt::Display) -> Failure {
    Failure::usage(format!("invalid setting {field}: must be {limit}, is {value}")).hint(WHERE_TOLD)
}

impl NodeConfig {
    /// Reads a file. Paths in it are taken from where the process runs.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::usage(format!("can't read the settings in {}: {error}", path.display()))
                .hint("`cairn node --example-config` prints a file to start from")
        })?;
        toml::from_str(&text).map_err(|error| {
            Failure::usage(format!("the settings in {} are wrong: {}", path.display(), error.to_string().trim_end())).hint(WHERE_TOLD)
        })
    }

    /// Checks everything that a value by itself can tell.
    pub(crate) fn validate(&self) -> Result<(), Failure> {
        if self.data.as_os_str().is_empty() {
            return Err(invalid("data", "a folder", "empty"));
        }
        if self.cluster_secret_file.as_os_str().is_empty() {
            return Err(invalid("cluster_secret_file", "a file", "empty"));
        }
        let hex =
            self.cluster_id.len() == CLUSTER_ID_DIGITS && self.cluster_id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !self.cluster_id.is_empty() && !hex {
            return Err(invalid(
                "cluster_id",
                format!("{CLUSTER_ID_DIGITS} hex digits in lower case, or empty"),
                format!("{:?}", self.cluster_id),
            ));
        }
        door("listen", &self.listen, "advertise", &self.advertise)?;
        door("s3.listen", &self.s3.listen, "s3.advertise", &self.s3.advertise)?;
        if !self.http.listen.is_empty() {
            host_port("http.listen", &self.http.listen)?;
        }
        self.join.iter().try_for_each(|address| host_port("join", address))?;
        if self.s3.region.is_empty() {
            return Err(invalid("s3.region", "a name", "empty"));
        }
        if !self.trace.otlp_endpoint.is_empty() {
            crate::telemetry::otlp::endpoint(&self.trace.otlp_endpoint)?;
        }
        if !(0.0..=1.0).contains(&self.trace.sample_ratio) {
            return Err(invalid("trace.sample_ratio", "from 0.0 to 1.0", self.trace.sample_ratio));
        }
        self.validate_numbers()?;
        crate::telemetry::filter(&self.log.level)
            .map(|_| ())
            .map_err(|error| invalid("log.level", "a filter such as info or metadb=debug,info", error))
    }

    fn validate_numbers(&self) -> Result<(), Failure> {
        if ![1, 3, 5, 7].contains(&self.cluster.replicas) {
            return Err(invalid("cluster.replicas", "1, 3, 5 or 7", self.cluster.replicas));
        }
        within("cluster.initial_groups", self.cluster.initial_groups.into(), 1, INITIAL_GROUPS_MAX.into())?;
        within("stop_grace_ms", self.stop_grace_ms, 0, 600_000)?;
        let RaftConfig { heartbeat_ms, election_min_ms, election_max_ms } = self.raft;
        within("raft.heartbeat_ms", heartbeat_ms, 10, 10_000)?;
        within("raft.election_min_ms", election_min_ms, heartbeat_ms * HEARTBEATS_PER_ELECTION, 60_000)?;
        within("raft.election_max_ms", election_max_ms, (election_min_ms + 1).max(heartbeat_ms * HEARTBEATS_PER_LEASE), 120_000)?;
        within("log.slow_request_ms", self.log.slow_request_ms, 0, 60_000)?;
        within("storage.block_cache_mib", self.storage.block_cache_mib, 1, 1 << 20)?;
        within("storage.write_buffer_mib", self.storage.write_buffer_mib, 1, 4096)?;
        within("storage.reserve_mib", self.storage.reserve_mib, 0, 1 << 20)?;
        within("storage.flush_log_mib", self.storage.flush_log_mib, 1, 1 << 20)?;
        within("storage.keep_log_mib", self.storage.keep_log_mib, 0, 1 << 20)?;
        within("storage.snapshot_mib_per_s", self.storage.snapshot_mib_per_s, 1, 1 << 20)?;
        within("content.collect_every_ms", self.content.collect_every_ms, 100, 3_600_000)?;
        within("content.collect_after_ms", self.content.collect_after_ms, 0, 7 * 24 * 3_600_000)
    }

    /// host:port that other nodes reach this one at.
    pub(crate) fn address(&self) -> &str {
        if self.advertise.is_empty() { &self.listen } else { &self.advertise }
    }

    /// host:port that S3 clients reach this node at.
    pub(crate) fn s3_address(&self) -> &str {
        if self.s3.advertise.is_empty() { &self.s3.listen } else { &self.s3.advertise }
    }

    /// The secret that makes nodes of one cluster recognise each other.
    pub(crate) fn secret(&self) -> Result<ClusterSecret, Failure> {
        read_secret(&self.cluster_secret_file)
    }
}

/// Reads a cluster secret: hex digits in a file.
pub(crate) fn read_secret(path: &Path) -> Result<ClusterSecret, Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let make = format!(
        "make one with `mkdir -p {1} && openssl rand -hex 32 > {0} && chmod 600 {0}`, the same file for every node",
        path.display(),
        folder.display()
    );
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("can't read the cluster secret in {}: {error}", path.display())).hint(make.clone()))?;
    let bytes = hex::decode(text.trim())
        .map_err(|_| Failure::usage(format!("the cluster secret in {} is not written in hex digits", path.display())).hint(make.clone()))?;
    ClusterSecret::new(bytes).map_err(|error| Failure::usage(format!("the cluster secret in {}: {error}", path.display())).hint(make))
}

fn within(field: &str, value: u64, least: u64, most: u64) -> Result<(), Failure> {
    if (least..=most).contains(&value) { Ok(()) } else { Err(invalid(field, format!("from {least} to {most}"), value)) }
}

fn host_port(field: &str, address: &str) -> Result<(), Failure> {
    check_host_port(address).map_err(|()| invalid(field, "host:port", format!("{address:?}")))
}

/// Whether an address is host:port.
pub(crate) fn check_host_port(address: &str) -> Result<(), ()> {
    let parts = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    match parts {
        Some((host, port)) if !host.is_empty() && port > 0 && !host.contains("//") && !host.contains(char::is_whitespace) => Ok(()),
        _ => Err(()),
    }
}

/// Others can't connect to "any address": a door that listens there must say where it is.
fn door(listen_field: &str, listen: &str, advertise_field: &str, advertise: &str) -> Result<(), Failure> {
    host_port(listen_field, listen)?;
    if !advertise.is_empty() {
        return host_port(advertise_field, advertise);
    }
    let everywhere = listen.parse::<std::net::SocketAddr>().is_ok_and(|address| address.ip().is_unspecified());
    if everywhere {
        return Err(invalid(advertise_field, format!("set when {listen_field} is {listen}, to an address that others reach"), "empty"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
