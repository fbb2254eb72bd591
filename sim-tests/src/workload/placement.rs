//! An operator who drains nodes all the while and lets them hold again, has groups and tenants belong to a pod and not, and lets the cluster
//! balance itself; and what must hold when all is well: a node that is drained of leaders leads nothing, one that is drained of everything has
//! nothing, no replica of a group is outside of its pod, and no tenant's shard.
//!
//! In the midst of faults a node is drained of its replicas only when groups have fewer of them than there are nodes; else that is refused.

use super::{Client, below, think};
use crate::cluster::{Cluster, GROUPS};
use metadb_proto::settings::Scope;
use metadb_proto::settings::registry::BALANCE_ENABLED;
use metadb_proto::v1::{LabelRule, NodeRecord, Role, node_record};
use metadb_proto::{Error, seam};
use shard_router::operator::{Change, Drain, Operator, Wish};
use shard_router::residency;
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
    let told = tokio::time::timeout(PATIENCE, balance(&operator, true)).await;
    note(&client, told);
    while !client.shared.stopped() {
        think(THINK).await;
        let told = tokio::time::timeout(PATIENCE, drain_one(&operator)).await;
        client.shared.trace.event(format_args!("drain: {told:?}"));
        note(&client, told);
        let told = tokio::time::timeout(PATIENCE, reside_one(&operator)).await;
        client.shared.trace.event(format_args!("pods: {told:?}"));
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
                // It was made by a word that was not answered.
                | Error::AlreadyExists { .. }
                // Somebody was quicker.
                | Error::NotFound { .. }
                // Too few nodes would stay, or a group of the pod is needed where it is.
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

/// Says whether the cluster shall balance itself.
async fn balance(operator: &Operator, on: bool) -> Result<(), Error> {
    let change = Change {
        definition: &BALANCE_ENABLED.definition,
        scope: Scope::Cluster,
        value: Some(on.to_string()),
        by: "the operator".to_owned(),
        reason: "to see whether anybody notices".to_owned(),
        expected: None,
        dry_run: false,
    };
    operator.change_setting(&change).await.map(|_| ())
}

/// The pod of all nodes, and one of a single node.
const ALL: &str = "all";
const ONE: &str = "one";

/// Has a group, or a tenant, belong to the pod of all nodes, or to none.
async fn reside_one(operator: &Operator) -> Result<String, Error> {
    if !operator.pods().await?.iter().any(|pod| pod.name == ALL) {
        let values = operator.nodes().await?.iter().filter_map(|node| node.labels.get("place").cloned()).collect();
        operator.put_pod(ALL, &[LabelRule { label: "place".to_owned(), values }], true).await?;
    }
    let pod = if below(2) == 0 { ALL } else { "" };
    if below(2) == 0 {
        let group = 1 + u32::try_from(below(u64::from(GROUPS))).unwrap_or(0);
        operator.set_group_pod(group, pod).await?;
        return Ok(format!("group {group} belongs to pod {pod:?}"));
    }
    let tenants = operator.tenants().await?;
    let chosen =
        tenants.get(usize::try_from(below(tenants.len() as u64)).unwrap_or(0)).map(|tenant| tenant.name.clone()).unwrap_or_default();
    operator.pin_tenant(&chosen, pod).await?;
    Ok(format!("tenant {chosen} is pinned to pod {pod:?}"))
}

/// When all is well: every tenant comes to where it may be; then the cluster balances itself no more. What does not.
pub async fn settled(client: &Client) -> Vec<String> {
    let operator = Operator::new(client.routers[0].clone());
    let settled = async move {
        until_granted(|| async { undrain_all(&operator).await.map(|_| ()) }).await?;
        let end = Instant::now() + DRAINED_WITHIN;
        loop {
            let astray = astray(&operator).await?;
            if astray.is_empty() || Instant::now() >= end {
                until_granted(|| balance(&operator, false)).await?;
                return Ok::<_, Error>(astray);
            }
            tokio::time::sleep(LOOK + Duration::from_micros(seam::random_u64() % 1000)).await;
        }
    };
    match Box::pin(settled).await {
        Ok(astray) => astray.into_iter().map(|text| format!("{DRAINED_WITHIN:?} after the faults: {text}")).collect(),
        Err(error) => vec![format!("the operator of pods is told: {error}")],
    }
}

/// Shards in groups that may not hold them, though there is one that may.
async fn astray(operator: &Operator) -> Result<Vec<String>, Error> {
    let (groups, shards) = (operator.groups().await?, operator.all_shards().await?);
    let mut astray = Vec::new();
    for tenant in operator.tenants().await? {
        let has_place = groups.iter().any(|group| residency::is_for(group, &tenant));
        let may = |id: u32| groups.iter().any(|group| group.group_id == id && residency::may_hold(group, &tenant));
        let of_tenant = shards.iter().filter(|shard| shard.tenant_id == tenant.tenant_id && !may(shard.group_id));
        astray.extend(of_tenant.filter(|_| has_place).map(|shard| format!("tenant {} of pod {:?} has {shard:?}", tenant.name, tenant.pod)));
    }
    Ok(astray)
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
    until_granted(|| async { undrain_all(operator).await.map(|_| ()) }).await?;
    problems.extend(confined(cluster, operator, at, node_id).await?);
    let replicas = u32::try_from(cluster.size()).ok();
    let wish = Wish { replicas, ..Wish::default() };
    until_granted(|| operator.wish(&wish)).await?;
    let spread = || (!cluster.votes_everywhere()).then(|| "groups are not on all nodes after nodes were drained".to_owned());
    problems.extend(until_none(spread).await);
    Ok(problems)
}

/// A group of a pod of one node is on that node, whatever it held before.
async fn confined(cluster: &Cluster, operator: &Operator, at: usize, node_id: u64) -> Result<Option<String>, Error> {
    for tenant in operator.tenants().await?.iter().filter(|tenant| !tenant.pod.is_empty()) {
        until_granted(|| async { operator.pin_tenant(&tenant.name, "").await.map(|_| ()) }).await?;
    }
    let rules = [LabelRule { label: "place".to_owned(), values: vec![cluster.machines()[at].address().to_owned()] }];
    until_granted(|| async { operator.put_pod(ONE, &rules, true).await.map(|_| ()) }).await?;
    until_granted(|| operator.set_group_pod(GROUPS, ONE)).await?;
    let outside = || {
        let leader = cluster.leader(GROUPS).and_then(|leader| cluster.machines()[leader].node()?.group(GROUPS))?.status();
        let members: Vec<u64> = leader.voters.iter().chain(&leader.learners).map(|node| node.node_id).collect();
        (members != [node_id]).then(|| format!("group {GROUPS} belongs on node {node_id}, and is on {members:?}"))
    };
    let problem = until_none(outside).await;
    until_granted(|| operator.set_group_pod(GROUPS, "")).await?;
    until_granted(|| operator.delete_pod(ONE)).await?;
    Ok(problem)
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
