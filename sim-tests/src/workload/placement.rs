//! An operator who drains nodes all the while and lets them hold again; and what must hold of them when all is well: a node that is drained
//! of leaders leads nothing, and one that is drained of everything has nothing.
//!
//! In the midst of faults a node is drained of its replicas only when groups have fewer of them than there are nodes; else that is refused.

use super::{Client, below, think};
use crate::cluster::Cluster;
use metadb_proto::v1::{NodeRecord, Role, node_record};
use metadb_proto::{Error, seam};
use shard_router::operator::{Drain, Operator, Wish};
use std::time::Duration;
use tokio::time::Instant;

/// Between two drains, at most.
const THINK: Duration = Duration::from_secs(4);
/// For how long a node stays drained, at most.
const HOLD: Duration = Duration::from_secs(2);
/// How long the operator waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// A node is as empty as it shall be this long after it was asked for, once all is well.
const DRAINED_WITHIN: Duration = Duration::from_secs(60);
/// How often it is looked, and tried again.
const LOOK: Duration = Duration::from_millis(100);

/// Whether it is done in this seed.
#[must_use]
pub fn runs_in(seed: u64) -> bool {
    seed.is_multiple_of(2)
}

/// Drains one node after the other until the run ends.
pub async fn run(client: Client) {
    let operator = Operator::new(client.routers[0].clone());
    while !client.shared.stopped() {
        think(THINK).await;
        let told = tokio::time::timeout(PATIENCE, drain_one(&operator)).await;
        client.shared.trace.event(format_args!("drain: {told:?}"));
        note(&client, told);
        think(HOLD).await;
        let told = tokio::time::timeout(PATIENCE, undrain_all(&operator)).await;
        client.shared.trace.event(format_args!("undrain: {told:?}"));
        note(&client, told);
    }
}

fn note<T>(client: &Client, told: Result<Result<T, Error>, tokio::time::error::Elapsed>) {
    match told {
        Ok(
            Ok(_)
            | Err(
                Error::Unavailable { .. }
                | Error::UnknownOutcome { .. }
                | Error::Conflict { .. }
                | Error::Exhausted { .. }
                // Too few nodes would stay.
                | Error::Invalid { .. },
            ),
        )
        | Err(_) => {}
        Ok(Err(error)) => client.shared.unexpected.lock().push(format!("the operator who drains nodes is told: {error}")),
    }
}

fn id_of(record: &NodeRecord) -> u64 {
    record.node.as_ref().map_or(0, |node| node.node_id)
}

async fn drain_one(operator: &Operator) -> Result<Wish, Error> {
    let nodes = operator.nodes().await?;
    let active: Vec<u64> = nodes.iter().filter(|node| node.state() == node_record::State::Active).map(id_of).collect();
    let chosen = active.get(usize::try_from(below(active.len() as u64)).unwrap_or(0)).copied().unwrap_or(0);
    let drain = Drain { node_id: chosen, leaders_only: below(2) == 0, reason: "to see whether anybody notices".to_owned() };
    let wish = Wish { drain: Some(drain), ..Wish::default() };
    operator.wish(&wish).await.map(|()| wish)
}

/// Takes back what was asked for, also what was not answered.
async fn undrain_all(operator: &Operator) -> Result<usize, Error> {
    let nodes = operator.nodes().await?;
    let drained: Vec<u64> = nodes.iter().filter(|node| node.state() == node_record::State::Draining).map(id_of).collect();
    for node_id in &drained {
        operator.wish(&Wish { undrain: Some(*node_id), ..Wish::default() }).await?;
    }
    Ok(drained.len())
}

/// When all is well: what is wrong with nodes that are drained. Leaves groups on all nodes, as it found them.
pub async fn check(cluster: &Cluster, client: &Client) -> Vec<String> {
    let operator = Operator::new(client.routers[0].clone());
    match Box::pin(look(cluster, &operator)).await {
        Ok(problems) => problems,
        Err(error) => vec![format!("the operator who drains nodes is told: {error}")],
    }
}

async fn look(cluster: &Cluster, operator: &Operator) -> Result<Vec<String>, Error> {
    until_granted(|| async { undrain_all(operator).await.map(|_| ()) }).await?;
    let at = usize::try_from(below(cluster.size() as u64)).unwrap_or(0);
    let Some(node_id) = cluster.machines()[at].identity().map(|identity| identity.node_id) else {
        return Ok(vec![format!("machine {at} has no identity")]);
    };
    let drain = |leaders_only| Some(Drain { node_id, leaders_only, reason: String::new() });
    let wish = Wish { drain: drain(true), ..Wish::default() };
    until_granted(|| operator.wish(&wish)).await?;
    let leads = || (cluster.leads(at) > 0).then(|| format!("machine {at} is drained of leaders and leads {:?}", cluster.led_by(at)));
    let mut problems: Vec<String> = until_none(leads).await.into_iter().collect();
    // With one replica a group there is room enough on the others.
    let wish = Wish { drain: drain(false), replicas: Some(1), ..Wish::default() };
    until_granted(|| operator.wish(&wish)).await?;
    problems.extend(until_none(|| holds(cluster, at)).await);
    let replicas = u32::try_from(cluster.size()).ok();
    let wish = Wish { undrain: Some(node_id), replicas, ..Wish::default() };
    until_granted(|| operator.wish(&wish)).await?;
    let spread = || (!cluster.votes_everywhere()).then(|| "groups are not on all nodes after nodes were drained".to_owned());
    problems.extend(until_none(spread).await);
    Ok(problems)
}

/// Asks until it is granted: right after faults a node may be silent, and records may lag.
async fn until_granted<F: Future<Output = Result<(), Error>>>(mut ask: impl FnMut() -> F) -> Result<(), Error> {
    let end = Instant::now() + DRAINED_WITHIN;
    loop {
        match ask().await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= end => return Err(error),
            Err(_) => tokio::time::sleep(LOOK + Duration::from_micros(seam::random_u64() % 1000)).await,
        }
    }
}

/// What a machine's node still has.
fn holds(cluster: &Cluster, at: usize) -> Option<String> {
    let node = cluster.machines()[at].node()?;
    let held: Vec<(u32, Role)> = node.groups().iter().map(|group| group.status()).map(|status| (status.group_id, status.role())).collect();
    (!held.is_empty()).then(|| format!("machine {at} is drained and holds {held:?}"))
}

/// Waits until nothing is told; what is told at the end of the time.
async fn until_none(told: impl Fn() -> Option<String>) -> Option<String> {
    let end = Instant::now() + DRAINED_WITHIN;
    while let Some(problem) = told() {
        if Instant::now() >= end {
            return Some(format!("{DRAINED_WITHIN:?} after it was asked for: {problem}"));
        }
        tokio::time::sleep(LOOK + Duration::from_micros(seam::random_u64() % 1000)).await;
    }
    None
}
