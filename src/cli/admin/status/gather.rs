//! Asks: every endpoint that was given, then the directory, then every node that it or another node names; each with a short deadline.

use crate::cli::connection::Session;
use crate::failure::{Code, Failure};
use futures::future::join_all;
use jepsen::cluster::ClusterError;
use metadb_proto::v1::{ClusterRecord, GroupRecord, NodeRecord, NodeRef, SettingRecord, StatusResponse, group_record};
use metadb_proto::{Error, v1};
use serde::Serialize;
use shard_router::operator::{ClusterStatus, NodeView, Operator, group_views};
use shard_router::{Router, RouterConfig};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long the directory may take to tell its records, and the nodes their states: beyond it, what is known without it is told.
const DIRECTORY_WITHIN: Duration = Duration::from_secs(4);

/// An endpoint that was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Endpoint {
    pub(super) address: String,
    pub(super) answers: bool,
    /// Why it does not.
    pub(super) problem: String,
}

/// All that was found out.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) endpoints: Vec<Endpoint>,
    /// As the directory has it; without its answer as the nodes have it.
    pub(super) cluster: ClusterStatus,
    pub(super) tenants: Option<usize>,
    pub(super) settings: Vec<SettingRecord>,
    /// Why the directory did not answer, if so.
    pub(super) directory: Option<String>,
}

/// Asks everybody. Fails only if no endpoint answers.
pub(super) async fn gather(session: &Session) -> Result<Gathered, Failure> {
    let answers = join_all(session.endpoints.iter().map(|address| ask(address, &session.token))).await;
    let endpoints: Vec<Endpoint> = session.endpoints.iter().zip(&answers).map(|(address, answer)| endpoint(address, answer)).collect();
    let alive: Vec<String> = endpoints.iter().filter(|endpoint| endpoint.answers).map(|endpoint| endpoint.address.clone()).collect();
    if alive.is_empty() {
        return Err(nobody(&endpoints, &answers));
    }
    // Only those that answer: a router that meets the others would wait for them.
    let router = Router::new(RouterConfig { seeds: alive, token: session.token.clone(), ..RouterConfig::default() });
    let operator = Operator::new(router);
    let told = async { Ok::<_, Error>((operator.status().await?, operator.tenants().await?.len(), operator.settings().await?)) };
    match tokio::time::timeout(DIRECTORY_WITHIN, told).await {
        Ok(Ok((cluster, tenants, settings))) => Ok(Gathered { endpoints, cluster, tenants: Some(tenants), settings, directory: None }),
        Ok(Err(error @ (Error::Denied { .. } | Error::Unauthenticated { .. }))) => Err(error.into()),
        Ok(Err(error)) => Ok(without_directory(session, endpoints, answers, error.to_string()).await),
        Err(_) => {
            let why = format!("it did not answer within {} s", DIRECTORY_WITHIN.as_secs());
            Ok(without_directory(session, endpoints, answers, why).await)
        }
    }
}

type Answer = Result<StatusResponse, Error>;

async fn ask(address: &str, token: &str) -> Answer {
    let error = match jepsen::status::ask(address, token).await {
        Ok(status) => return Ok(status),
        Err(error) => error,
    };
    Err(if let ClusterError::Refused { message } = error {
        Error::Denied { message }
    } else if let ClusterError::Unreachable { message } = error {
        Error::unavailable(message, Duration::ZERO)
    } else {
        Error::unavailable(error.to_string(), Duration::ZERO)
    })
}

fn endpoint(address: &str, answer: &Answer) -> Endpoint {
    let problem = answer.as_ref().err().map(ToString::to_string).unwrap_or_default();
    Endpoint { address: address.to_owned(), answers: answer.is_ok(), problem }
}

fn nobody(endpoints: &[Endpoint], answers: &[Answer]) -> Failure {
    let told: Vec<String> = endpoints.iter().map(|endpoint| endpoint.problem.clone()).collect();
    let denied = answers.iter().any(|answer| matches!(answer, Err(Error::Denied { .. })));
    if denied {
        let hint = "is the key an operator's, and of this cluster? `--cluster-secret-file` works without a key";
        return Failure::new(Code::Denied, told.join("; ")).hint(hint);
    }
    let hint = "are these the gRPC doors (`listen`) of nodes that run? `cairn dev` starts a cluster here";
    Failure::new(Code::Unavailable, format!("no endpoint answers: {}", told.join("; "))).hint(hint)
}

/// What the nodes know of themselves and of each other: the voters of their groups.
async fn without_directory(session: &Session, endpoints: Vec<Endpoint>, answers: Vec<Answer>, why: String) -> Gathered {
    let statuses: Vec<StatusResponse> = answers.into_iter().filter_map(Result::ok).collect();
    let cluster_id = statuses.iter().map(|status| status.cluster_id.clone()).find(|id| !id.is_empty()).unwrap_or_default();
    let level = statuses.iter().map(|status| status.feature_level).max().unwrap_or(0);
    let voters = statuses.iter().flat_map(|status| &status.groups).flat_map(|group| &group.voters);
    let known: BTreeMap<u64, NodeRef> =
        voters.chain(statuses.iter().filter_map(|status| status.node.as_ref())).map(|node| (node.node_id, node.clone())).collect();
    let asked = known.into_values().map(|node| async move {
        let status = ask(&node.address, &session.token).await;
        NodeView { record: NodeRecord { node: Some(node), ..NodeRecord::default() }, status }
    });
    let nodes = join_all(asked).await;
    let cluster = ClusterRecord { cluster_id, feature_level: level, ..ClusterRecord::default() };
    let groups = group_views(group_records(&nodes), &nodes);
    Gathered { endpoints, cluster: ClusterStatus { cluster, nodes, groups }, tenants: None, settings: Vec::new(), directory: Some(why) }
}

/// The groups, as the replicas that answer have them.
fn group_records(nodes: &[NodeView]) -> Vec<GroupRecord> {
    let replicas = nodes.iter().filter_map(|node| node.status.as_ref().ok()).flat_map(|status| &status.groups);
    let mut newest: BTreeMap<u32, &v1::GroupStatus> = BTreeMap::new();
    for replica in replicas.filter(|replica| !replica.voters.is_empty()) {
        let known = newest.entry(replica.group_id).or_insert(replica);
        if known.term < replica.term {
            *known = replica;
        }
    }
    let record = |replica: &v1::GroupStatus| GroupRecord {
        group_id: replica.group_id,
        state: group_record::State::Active.into(),
        voters: replica.voters.clone(),
        ..GroupRecord::default()
    };
    newest.into_values().map(record).collect()
}
