//! How a node gets its identity: from its data folder, by joining a cluster, or by making one.

use super::{RETRY_EVERY, TELL_EVERY};
use crate::config::NodeConfig;
use crate::datadir::{DataDir, Identity};
use crate::failure::{Code, Failure};
use metadb_proto::principal::ClusterSecret;
use metadb_proto::v1::{ClusterRecord, NodeRecord, NodeRef};
use metadb_proto::{Error, level};
use shard_router::operator::Operator;
use shard_router::{Router, RouterConfig};

/// The id of the node that makes a cluster.
pub(super) const FIRST_NODE: u64 = 1;

/// What the folder says; a new folder is claimed for the cluster that one of `join` is in, or else for a new one, if that is wanted.
pub(super) async fn establish(config: &NodeConfig, folder: &mut DataDir, secret: &ClusterSecret) -> Result<Identity, Failure> {
    if let Some(identity) = folder.identity() {
        return Ok(identity.clone());
    }
    if !config.bootstrap && config.join.is_empty() {
        return Err(nowhere_to_go(config));
    }
    let (cluster_id, node_id) = if config.bootstrap && !must_join(config, secret).await {
        // A cluster's id is drawn when it is made: one that has an id exists, and this node may have voted in it.
        if !config.cluster_id.is_empty() {
            let message = format!("the data folder {} is new, and cluster {} exists already", config.data.display(), config.cluster_id);
            return Err(Failure::usage(message).hint(
                "join it as a new node: give --join host:port of a node of it that runs; or leave cluster_id out to make a new cluster",
            ));
        }
        (hex::encode(metadb_proto::seam::random_id()), FIRST_NODE)
    } else {
        join(config, secret).await?
    };
    if !config.cluster_id.is_empty() && config.cluster_id != cluster_id {
        return Err(Failure::usage(format!("the nodes of `join` are in cluster {cluster_id}, not in {}", config.cluster_id)));
    }
    let identity = Identity::new(cluster_id, node_id, secret);
    folder.claim(identity.clone())?;
    Ok(identity)
}

/// A new node that was told neither whom to join nor to make a cluster.
pub(super) fn nowhere_to_go(config: &NodeConfig) -> Failure {
    Failure::usage(format!("the data folder {} is new, and no cluster is named", config.data.display()))
        .hint("give --join host:port of a node of the cluster, or --bootstrap to make a new one")
}

/// What the nodes of `join` say of themselves: whether one is in a cluster, and why the silent do not answer.
async fn ask_around(config: &NodeConfig, secret: &ClusterSecret) -> (bool, Vec<String>) {
    let token = secret.node_token(0);
    let asked = config.join.iter().map(|address| jepsen::status::ask(address, &token));
    let (mut in_a_cluster, mut silent) = (false, Vec::new());
    for answer in futures::future::join_all(asked).await {
        match answer {
            Ok(status) => in_a_cluster |= !status.cluster_id.is_empty(),
            Err(error) => silent.push(error.to_string()),
        }
    }
    (in_a_cluster, silent)
}

/// A first node whose folder was lost must not make a second cluster beside the one it was in: who does not answer may be in it. Waits until
/// one is found to be in a cluster, or all answer that they are in none.
async fn must_join(config: &NodeConfig, secret: &ClusterSecret) -> bool {
    if config.force_new_cluster {
        return false;
    }
    for attempt in 0_u32.. {
        let (in_a_cluster, silent) = ask_around(config, secret).await;
        if in_a_cluster || silent.is_empty() {
            return in_a_cluster;
        }
        if attempt % TELL_EVERY == 0 {
            let silent = silent.join("; ");
            tracing::warn!(
                silent,
                "waiting: the data folder is new, and nodes of `join` do not answer, which may be in the cluster that this node was in. \
                 If there is no cluster yet, start this node once with --force-new-cluster, or without `join`"
            );
        }
        tokio::time::sleep(RETRY_EVERY).await;
    }
    true
}

/// Says at once, and now and then, what a node waits for that wants to join.
async fn tell_who_is_silent(config: &NodeConfig, secret: &ClusterSecret) {
    loop {
        let (in_a_cluster, silent) = ask_around(config, secret).await;
        if !in_a_cluster {
            let why = if silent.is_empty() { "they are in no cluster yet".to_owned() } else { silent.join("; ") };
            tracing::warn!(join = config.join.join(","), why, "waiting for a node of `join` that is in a cluster");
        }
        tokio::time::sleep(RETRY_EVERY * TELL_EVERY).await;
    }
}

/// Asks the directory for an id until it answers.
async fn join(config: &NodeConfig, secret: &ClusterSecret) -> Result<(String, u64), Failure> {
    let router = Router::new(RouterConfig { seeds: config.join.clone(), token: secret.node_token(0), ..RouterConfig::default() });
    let operator = Operator::new(router);
    tokio::select! {
        biased;
        joined = patiently("joining the cluster", || operator.join(record(config, 0))) => joined,
        () = tell_who_is_silent(config, secret) => Err(Failure::failed("joining the cluster: gave up")),
    }
}

/// This node, as the directory has it.
pub(super) fn record(config: &NodeConfig, node_id: u64) -> NodeRecord {
    NodeRecord {
        node: Some(NodeRef { node_id, address: config.address().to_owned() }),
        doors: [("s3".to_owned(), config.s3_address().to_owned())].into(),
        labels: config.labels.clone().into_iter().collect(),
        joined_at_ms: 0,
        build: super::build(),
        oldest_level: level::OLDEST.into(),
        newest_level: level::NEWEST.into(),
        ..NodeRecord::default()
    }
}

/// Tells the directory of this node, after the first node has made it.
pub(super) async fn announce(config: &NodeConfig, identity: &Identity, operator: &Operator) -> Result<(), Failure> {
    let node = record(config, identity.node_id);
    if config.bootstrap && identity.node_id == FIRST_NODE {
        let cluster = ClusterRecord {
            cluster_id: identity.cluster_id.clone(),
            created_at_ms: metadb_proto::seam::unix_ms(),
            replicas: config.cluster.replicas,
            initial_groups: config.cluster.initial_groups,
            feature_level: level::NEWEST.into(),
            ..ClusterRecord::default()
        };
        patiently("making the cluster", || operator.bootstrap(cluster.clone(), node.clone())).await?;
    }
    let (cluster_id, _) = patiently("telling the directory", || operator.join(node.clone())).await?;
    if cluster_id != identity.cluster_id {
        let message = format!("the nodes of `join` are in cluster {cluster_id}, the data folder in {}", identity.cluster_id);
        return Err(Failure::usage(message).hint("correct `join`, or `data`"));
    }
    Ok(())
}

/// Does what needs the rest of the cluster, again and again while it can't be had.
async fn patiently<T, F: Future<Output = Result<T, Error>>>(what: &str, mut work: impl FnMut() -> F) -> Result<T, Failure> {
    for attempt in 0_u32.. {
        let error = match work().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        match &error {
            Error::Denied { .. } | Error::Unauthenticated { .. } => {
                return Err(Failure::from(error).during(what).hint("every node of a cluster needs the same cluster_secret_file"));
            }
            Error::AlreadyExists { .. } => {
                let told = "a node that was removed, or whose address another node has, can't come back under its old id: move its data folder away, and it joins as a new node";
                return Err(Failure::new(Code::Conflict, error.to_string()).during(what).hint(told));
            }
            Error::Invalid { .. } => return Err(Failure::from(error).during(what)),
            // A directory that is not made yet has no record; that and all else pass.
            Error::NotFound { .. }
            | Error::Conflict { .. }
            | Error::Moved { .. }
            | Error::Unavailable { .. }
            | Error::Exhausted { .. }
            | Error::UnknownOutcome { .. }
            | Error::Suspended { .. }
            | Error::Corrupt { .. }
            | Error::Internal { .. } => {
                if attempt % TELL_EVERY == TELL_EVERY - 1 {
                    tracing::warn!(%error, "{what}: still trying");
                }
                tokio::time::sleep(RETRY_EVERY).await;
            }
        }
    }
    Err(Failure::failed(format!("{what}: gave up")))
}
