//! A cluster of child processes: start, stop, kill, pause, and ask who leads.

use crate::process::{Order, Supervised};
use crate::status;
use metadb_proto::v1::{Role, StatusResponse};
use rustix::process::Signal;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// How to run one node.
#[derive(Debug, Clone)]
pub struct NodeSpec {
    /// For people: `node-1`.
    pub name: String,
    /// The binary.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Where its standard output and error are appended.
    pub log: PathBuf,
    /// host:port of its gRPC door.
    pub address: String,
}

/// Why the cluster could not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClusterError {
    /// The process could not be started.
    #[error("{node} can't be started: {message}")]
    Start {
        /// Which node.
        node: String,
        /// What the system said.
        message: String,
    },
    /// The node is down.
    #[error("{node} is down")]
    Down {
        /// Which node.
        node: String,
    },
    /// The signal could not be sent.
    #[error("{node} can't be signalled: {message}", message = source)]
    Signal {
        /// Which node.
        node: String,
        /// What the system said.
        #[source]
        source: std::sync::Arc<std::io::Error>,
    },
    /// The supervising task is gone: the program is ending.
    #[error("{node} is not supervised any more")]
    Supervisor {
        /// Which node.
        node: String,
    },
    /// A node answered, and denies what was asked.
    #[error("refused: {message}")]
    Refused {
        /// Which node, and its words.
        message: String,
    },
    /// No node answered with what was asked.
    #[error("no node answers: {message}")]
    Unreachable {
        /// What the last one said.
        message: String,
    },
}

/// The nodes of one cluster, each a supervised child process. Dropping it kills them.
pub struct Cluster {
    nodes: Vec<Supervised>,
    token: String,
}

/// What the supervisor knows of one node.
#[derive(Debug, Clone)]
pub struct NodeState {
    /// For people.
    pub name: String,
    /// Its process, if it is up.
    pub pid: Option<u32>,
    /// How often it was started again after it died by itself.
    pub restarts: u64,
    /// How it ended last.
    pub last_exit: Option<String>,
    /// It said that its settings are wrong, so it is not started again.
    pub gave_up: bool,
}

impl Cluster {
    /// A cluster whose nodes are all down. `token` is what its nodes accept as `authorization: Bearer …` for their status.
    #[must_use]
    pub fn new(specs: Vec<NodeSpec>, token: String) -> Self {
        Cluster { nodes: specs.into_iter().map(Supervised::new).collect(), token }
    }

    /// How many nodes it has, up or down. They are numbered from 0.
    #[must_use]
    pub fn size(&self) -> usize {
        self.nodes.len()
    }

    /// How a node is run.
    #[must_use]
    pub fn spec(&self, node: usize) -> &NodeSpec {
        &self.nodes[node].spec
    }

    /// What is known of a node.
    #[must_use]
    pub fn state(&self, node: usize) -> NodeState {
        let facts = self.nodes[node].facts.lock().clone();
        let name = self.nodes[node].spec.name.clone();
        NodeState { name, pid: facts.pid, restarts: facts.restarts, last_exit: facts.last_exit, gave_up: facts.gave_up }
    }

    /// Brings a node up, and from then on up again whenever it dies by itself.
    ///
    /// # Errors
    /// [`ClusterError::Start`].
    pub async fn start(&self, node: usize) -> Result<(), ClusterError> {
        self.nodes[node].order(Order::Start).await?
    }

    /// Brings all nodes up.
    ///
    /// # Errors
    /// [`ClusterError::Start`] of the first that can't be.
    pub async fn start_all(&self) -> Result<(), ClusterError> {
        for node in 0..self.size() {
            self.start(node).await?;
        }
        Ok(())
    }

    /// SIGKILL. The node stays down until [`Cluster::start`].
    ///
    /// # Errors
    /// [`ClusterError::Supervisor`].
    pub async fn kill(&self, node: usize) -> Result<(), ClusterError> {
        self.nodes[node].order(Order::Kill).await
    }

    /// SIGTERM, and SIGKILL after `grace`. The node stays down until [`Cluster::start`].
    ///
    /// # Errors
    /// [`ClusterError::Supervisor`].
    pub async fn stop(&self, node: usize, grace: Duration) -> Result<(), ClusterError> {
        self.nodes[node].order(|reply| Order::Stop(grace, reply)).await
    }

    /// Stops all nodes at the same time.
    pub async fn stop_all(&self, grace: Duration) {
        futures::future::join_all((0..self.size()).map(|node| self.stop(node, grace))).await;
    }

    /// SIGSTOP: the process holds its sockets and answers nothing, as a machine that hangs.
    ///
    /// # Errors
    /// [`ClusterError::Down`], [`ClusterError::Signal`].
    pub fn pause(&self, node: usize) -> Result<(), ClusterError> {
        self.nodes[node].signal(Signal::STOP)
    }

    /// SIGCONT: ends a pause.
    ///
    /// # Errors
    /// [`ClusterError::Down`], [`ClusterError::Signal`].
    pub fn resume(&self, node: usize) -> Result<(), ClusterError> {
        self.nodes[node].signal(Signal::CONT)
    }

    /// What a node says of itself.
    ///
    /// # Errors
    /// [`ClusterError::Unreachable`].
    pub async fn status(&self, node: usize) -> Result<StatusResponse, ClusterError> {
        status::ask(&self.nodes[node].spec.address, &self.token).await
    }

    /// The statuses of the nodes that answer, with their numbers.
    pub async fn statuses(&self) -> Vec<(usize, StatusResponse)> {
        let asked = (0..self.size()).map(|node| async move { (node, self.status(node).await) });
        let answers = futures::future::join_all(asked).await;
        answers.into_iter().filter_map(|(node, answer)| answer.ok().map(|status| (node, status))).collect()
    }

    /// The node that leads most groups; the one with the lowest number if several do.
    ///
    /// # Errors
    /// [`ClusterError::Unreachable`] if no node leads any.
    pub async fn leads_most(&self) -> Result<Leader, ClusterError> {
        let mut best = None::<Leader>;
        for (node, status) in self.statuses().await {
            let groups = status.groups.iter().filter(|group| group.role() == Role::Leader).count();
            if groups > best.as_ref().map_or(0, |leader| leader.groups) {
                best = Some(Leader { node, groups });
            }
        }
        best.ok_or_else(|| ClusterError::Unreachable { message: "no node leads a group".into() })
    }
}

/// A node and how many groups it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// Its number in the cluster.
    pub node: usize,
    /// How many groups it leads.
    pub groups: usize,
}
