//! An operator who changes settings all the while, and what must hold of them: a node never has a value that nobody set, a change that
//! was acknowledged is never lost, and once all is well a change is in force on every node within a second.

use super::{Client, below, think};
use crate::cluster::Cluster;
use metadb_proto::settings::registry::TENANT_WEIGHT;
use metadb_proto::settings::{Asker, Scope, registry};
use metadb_proto::{Error, v1};
use shard_router::operator::{Change, Operator};
use std::time::Duration;
use tokio::time::Instant;

/// How long a change may take to be in force everywhere, once all is well.
pub const IN_FORCE_WITHIN: Duration = Duration::from_secs(1);
/// How long after the faults all nodes have all changes made meanwhile: connections that were cut may be silent for ten seconds.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(30);
/// The first weight that is set; each change sets the next. What tenants without a weight of their own have: one that a flood shares a node
/// with keeps its part.
const FIRST_WEIGHT: u64 = 100;
/// Between two changes, at most.
const THINK: Duration = Duration::from_millis(800);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(10);

fn change(tenant_id: u64, weight: u64) -> Change {
    Change {
        definition: &TENANT_WEIGHT.definition,
        scope: Scope::Tenant(tenant_id),
        value: Some(weight.to_string()),
        by: "the operator".to_owned(),
        reason: "to see whether it holds".to_owned(),
        expected: None,
        dry_run: false,
    }
}

/// Changes weights of tenants until the run ends.
pub async fn run(client: Client) {
    let operator = Operator::new(client.routers[0].clone());
    let mut acknowledged = 0;
    for weight in FIRST_WEIGHT.. {
        if client.shared.stopped() {
            return;
        }
        think(THINK).await;
        let tenant_id = client.tenants[usize::try_from(below(client.tenants.len() as u64)).unwrap_or(0)];
        let told = tokio::time::timeout(Duration::from_secs(10), operator.change_setting(&change(tenant_id, weight))).await;
        client.shared.trace.event(format_args!("weight {weight} for tenant {tenant_id}: {told:?}"));
        match told {
            Ok(Ok(changed)) if changed.revision <= acknowledged => {
                let revision = changed.revision;
                client.shared.unexpected.lock().push(format!("revision {revision} was given after {acknowledged}"));
            }
            Ok(Ok(changed)) => acknowledged = changed.revision,
            Ok(Err(Error::Unavailable { .. } | Error::UnknownOutcome { .. } | Error::Conflict { .. } | Error::Exhausted { .. }))
            | Err(_) => {}
            Ok(Err(error)) => client.shared.unexpected.lock().push(format!("a weight was refused: {error}")),
        }
    }
}

/// When all is well: what is wrong with the settings.
pub async fn check(cluster: &Cluster, client: &Client) -> Vec<String> {
    let operator = Operator::new(client.routers[0].clone());
    match Box::pin(look(cluster, &operator, client)).await {
        Ok(problems) => problems,
        Err(error) => vec![format!("the operator is told: {error}")],
    }
}

async fn look(cluster: &Cluster, operator: &Operator, client: &Client) -> Result<Vec<String>, Error> {
    // Brings nodes that lost a connection back to where a second is a promise.
    let revision = operator.change_setting(&change(client.tenants[0], 77)).await?.revision;
    if let Some(late) = late(cluster, revision, CAUGHT_UP_WITHIN).await {
        return Ok(vec![format!("{CAUGHT_UP_WITHIN:?} after all faults: {late}")]);
    }
    let revision = operator.change_setting(&change(client.tenants[0], 78)).await?.revision;
    if let Some(late) = late(cluster, revision, IN_FORCE_WITHIN).await {
        return Ok(vec![format!("{IN_FORCE_WITHIN:?} after the change: {late}")]);
    }
    let records = operator.settings().await?;
    let history = operator.setting_history(&TENANT_WEIGHT.definition, 1000).await?;
    Ok(differences(cluster, client, &records, &history))
}

/// A node that does not have this revision in time.
async fn late(cluster: &Cluster, revision: u64, within: Duration) -> Option<String> {
    let end = Instant::now() + within;
    loop {
        let revision_of = |machine: &crate::cluster::Machine| machine.node().map_or(0, |node| node.config().settings.revision());
        let late = cluster.machines().iter().find(|machine| revision_of(machine) < revision);
        let late = late?;
        if Instant::now() >= end {
            return Some(format!("{} has settings of revision {}, not {revision}", late.address(), revision_of(late)));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn differences(cluster: &Cluster, client: &Client, records: &[v1::SettingRecord], history: &[v1::SettingChange]) -> Vec<String> {
    let mut problems = Vec::new();
    for tenant_id in &client.tenants {
        let scope = Scope::Tenant(*tenant_id).to_proto();
        let row = records.iter().find(|record| record.scope.as_ref() == Some(&scope));
        let last = history.iter().find(|change| change.scope.as_ref() == Some(&scope));
        if row.map(|row| (&row.value, row.revision)) != last.and_then(|last| Some((last.new_value.as_ref()?, last.revision))) {
            problems.push(format!("tenant {tenant_id} has {row:?}, and its newest change is {last:?}"));
        }
        let wanted = row.and_then(|row| row.value.parse().ok()).unwrap_or(100);
        for node in cluster.machines().iter().filter_map(|machine| machine.node()) {
            let found = node.config().settings.get(&registry::TENANT_WEIGHT, Asker::tenant(*tenant_id));
            if found != wanted {
                problems.push(format!("node {} gives tenant {tenant_id} the weight {found}, the directory {wanted}", node.node_id()));
            }
        }
    }
    let revisions: Vec<u64> = history.iter().map(|change| change.revision).collect();
    if !revisions.windows(2).all(|pair| pair[0] > pair[1]) {
        problems.push(format!("the history is not in order: {revisions:?}"));
    }
    problems
}
