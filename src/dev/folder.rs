//! The folder of a development cluster: its plan, the secret, the settings and the data of each node.

use super::ports::{self, Doors, Reservation};
use crate::config::{ClusterConfig, NodeConfig, read_secret};
use crate::datadir::{make_private, write_durably};
use crate::failure::{Code, Failure};
use jepsen::NodeSpec;
use metadb_proto::principal::ClusterSecret;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

/// The format of the plan that this build writes, and the newest that it reads.
const FORMAT: u32 = 1;
/// How many nodes a cluster gets when nobody says.
const DEFAULT_NODES: u16 = 3;
/// Most replicas of a group: more nodes than this share the groups.
const REPLICAS: u16 = 3;

/// What was decided when the folder was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plan {
    format: u32,
    nodes: Vec<Doors>,
}

/// An open folder. Its lock ends with it.
pub(crate) struct DevFolder {
    path: PathBuf,
    plan: Plan,
    pub(crate) secret: ClusterSecret,
    /// Whether this is the first start.
    pub(crate) is_new: bool,
    _ports: Reservation,
    _lock: File,
}

impl DevFolder {
    /// Opens the folder, or makes it: ports, secret and settings.
    pub(crate) fn open(path: &Path, nodes: Option<u16>, port_base: Option<u16>) -> Result<Self, Failure> {
        let file = path.join("dev.toml");
        let known = read_plan(&file)?;
        if known.is_none() {
            refuse_contents(path)?;
        }
        make_private(path)?;
        let path = path.canonicalize().map_err(|error| Failure::io("open", path, &error))?;
        let lock = lock(&path)?;
        let is_new = known.is_none();
        let reserved = match known {
            Some(plan) => agree(&path, plan, nodes, port_base)?,
            None => ports::choose(nodes.unwrap_or(DEFAULT_NODES), port_base)?,
        };
        let plan = Plan { format: FORMAT, nodes: reserved.doors.clone() };
        let secret_file = path.join("cluster.secret");
        if is_new && !secret_file.exists() {
            let secret = [metadb_proto::seam::random_id(), metadb_proto::seam::random_id()].concat();
            write_durably(&secret_file, format!("{}\n", hex::encode(secret)).as_bytes())?;
        }
        let folder = DevFolder { secret: read_secret(&secret_file)?, plan, is_new, _ports: reserved, _lock: lock, path };
        for node in 0..folder.plan.nodes.len() {
            folder.write_settings(node)?;
        }
        if is_new {
            // Last: a folder with a plan has everything else.
            let text = toml::to_string(&folder.plan).map_err(|error| Failure::failed(format!("the plan can't be encoded: {error}")))?;
            write_durably(
                &folder.path.join("dev.toml"),
                format!("# The nodes of `cairn dev`, decided at the first start.\n{text}").as_bytes(),
            )?;
        }
        Ok(folder)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file with endpoints and keys.
    pub(crate) fn credentials(&self) -> PathBuf {
        self.path.join("credentials.toml")
    }

    /// host:port of each node's gRPC door.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.plan.nodes.iter().map(|doors| loopback(doors.grpc)).collect()
    }

    /// URL of each node's S3 door.
    pub(crate) fn s3_endpoints(&self) -> Vec<String> {
        self.plan.nodes.iter().map(|doors| format!("http://{}", loopback(doors.s3))).collect()
    }

    /// URL of each node's door for machines that watch.
    pub(crate) fn http_endpoints(&self) -> Vec<String> {
        self.plan.nodes.iter().map(|doors| format!("http://{}", loopback(doors.http))).collect()
    }

    /// How many groups and replicas the first node was told to make.
    pub(crate) fn shape(&self) -> Result<ClusterConfig, Failure> {
        Ok(NodeConfig::read(&self.settings_file(0))?.cluster)
    }

    /// Whether the ports are others than a person expects.
    pub(crate) fn moved_ports(&self) -> bool {
        self.plan.nodes.first().is_some_and(|doors| doors.grpc != ports::DEFAULT_BASE + 1)
    }

    /// How to run each node.
    pub(crate) fn specs(&self) -> Result<Vec<NodeSpec>, Failure> {
        let program = std::env::current_exe().map_err(|error| Failure::failed(format!("can't find the own binary: {error}")))?;
        let spec = |(number, doors): (usize, &Doors)| NodeSpec {
            name: name(number),
            program: program.clone(),
            args: self.args(number),
            log: self.log(number),
            address: loopback(doors.grpc),
        };
        Ok(self.plan.nodes.iter().enumerate().map(spec).collect())
    }

    fn args(&self, node: usize) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec!["node".into(), "--stop-with-stdin".into(), "--config".into(), self.settings_file(node).into()];
        // Nobody is in a cluster yet: the others wait for the first one.
        let in_a_cluster = |node: usize| self.path.join(name(node)).join("identity.toml").exists();
        if node == 0 && !(0..self.plan.nodes.len()).any(in_a_cluster) {
            args.push("--force-new-cluster".into());
        }
        args
    }

    /// The file that a node's log lines go to.
    pub(crate) fn log(&self, node: usize) -> PathBuf {
        self.path.join(format!("{}.log", name(node)))
    }

    fn settings_file(&self, node: usize) -> PathBuf {
        self.path.join(format!("{}.toml", name(node)))
    }

    /// Written at the first start; what a person changed there is kept.
    fn write_settings(&self, node: usize) -> Result<(), Failure> {
        let file = self.settings_file(node);
        if !self.is_new && file.exists() {
            return Ok(());
        }
        let config = self.settings(node);
        let text = toml::to_string(&config).map_err(|error| Failure::failed(format!("the settings can't be encoded: {error}")))?;
        let told = "# Made by `cairn dev`; changes are kept. Meanings: `cairn node --example-config`.\n";
        write_durably(&file, format!("{told}{text}").as_bytes())
    }

    fn settings(&self, node: usize) -> NodeConfig {
        let nodes = u16::try_from(self.plan.nodes.len()).unwrap_or(u16::MAX);
        let endpoints = self.endpoints();
        let mut config = NodeConfig {
            data: self.path.join(name(node)),
            listen: endpoints[node].clone(),
            cluster_secret_file: self.path.join("cluster.secret"),
            bootstrap: node == 0,
            join: endpoints.iter().enumerate().filter(|(other, _)| *other != node).map(|(_, endpoint)| endpoint.clone()).collect(),
            ..NodeConfig::default()
        };
        config.s3.listen = loopback(self.plan.nodes[node].s3);
        config.http.listen = loopback(self.plan.nodes[node].http);
        // Groups have an odd number of replicas: two nodes survive no more than one does.
        config.cluster.replicas = if nodes < REPLICAS { 1 } else { REPLICAS.into() };
        config
    }
}

fn name(node: usize) -> String {
    format!("node-{}", node + 1)
}

fn loopback(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

fn read_plan(file: &Path) -> Result<Option<Plan>, Failure> {
    #[derive(Deserialize)]
    struct FormatOnly {
        format: u32,
    }
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::io("read", file, &error)),
    };
    let damaged = |error: toml::de::Error| Failure::failed(format!("{} is damaged: {}", file.display(), error.message()));
    let FormatOnly { format } = toml::from_str(&text).map_err(damaged)?;
    if format > FORMAT {
        let message = format!("{} has format {format}, this build reads at most format {FORMAT}", file.display());
        return Err(Failure::failed(message).hint("run the newer build that wrote it, or use another folder with --data"));
    }
    toml::from_str(&text).map(Some).map_err(damaged)
}

/// What the person asked for must be what the folder has.
fn agree(path: &Path, plan: Plan, nodes: Option<u16>, port_base: Option<u16>) -> Result<Reservation, Failure> {
    let other = "leave the option out, or use another folder with --data";
    let has = plan.nodes.len();
    if let Some(asked) = nodes.filter(|asked| usize::from(*asked) != has) {
        return Err(Failure::usage(format!("the cluster in {} has {has} nodes, not {asked}", path.display())).hint(other));
    }
    let first = plan.nodes.first().map_or(0, |doors| doors.grpc);
    if let Some(asked) = port_base.filter(|asked| asked + 1 != first) {
        return Err(
            Failure::usage(format!("the nodes in {} live at ports from {}, not from {asked}", path.display(), first - 1)).hint(other)
        );
    }
    ports::again(&plan.nodes)
}

/// A folder without a plan must be empty, but for what an interrupted first start left.
fn refuse_contents(path: &Path) -> Result<(), Failure> {
    let ours = |name: &str| {
        name == "cluster.secret" || name == "lock" || (name.starts_with("node-") && name.ends_with(".toml")) || name.ends_with(".draft")
    };
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Failure::io("read", path, &error)),
    };
    for entry in entries {
        let name = entry.map_err(|error| Failure::io("read", path, &error))?.file_name();
        if !name.to_str().is_some_and(ours) {
            let message = format!("{} is not a folder of `cairn dev`, and it is not empty: it holds {}", path.display(), name.display());
            return Err(Failure::usage(message).hint("choose an empty or new folder with --data; nothing was changed"));
        }
    }
    Ok(())
}

fn lock(path: &Path) -> Result<File, Failure> {
    let file = path.join("lock");
    let lock = File::create(&file).map_err(|error| Failure::io("open", &file, &error))?;
    lock.try_lock().map_err(|_| {
        Failure::new(Code::Conflict, format!("the cluster in {} is running already", path.display()))
            .hint("use it: `cairn admin status`; or start another one with --data")
    })?;
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_keeps_its_ports_and_its_secret() {
        let parent = tempfile::tempdir().expect("a folder");
        let path = parent.path().join("new");
        let first = DevFolder::open(&path, Some(3), None).expect("made");
        assert!(first.is_new && DevFolder::open(&path, None, None).is_err(), "it is locked");
        let (endpoints, token) = (first.endpoints(), first.secret.node_token(0));
        drop(first);
        let again = DevFolder::open(&path, None, None).expect("opened");
        assert!(!again.is_new && again.endpoints() == endpoints && again.secret.node_token(0) == token);
        drop(again);
        assert_eq!(DevFolder::open(&path, Some(5), None).err().map(|failure| failure.code), Some(Code::Usage));
        for node in 1..=3 {
            NodeConfig::read(&path.join(format!("node-{node}.toml"))).expect("reads").validate().expect("is valid");
        }
    }

    #[test]
    fn somebody_elses_folder_is_left_alone() {
        let path = tempfile::tempdir().expect("a folder");
        std::fs::write(path.path().join("thesis.tex"), "").expect("written");
        let refused = DevFolder::open(path.path(), None, None).err().expect("refused");
        assert!(refused.message.contains("thesis.tex"), "{refused}");
        assert_eq!(std::fs::read_dir(path.path()).expect("listed").count(), 1);
    }
}
