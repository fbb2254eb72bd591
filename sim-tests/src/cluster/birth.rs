//! A cluster comes to be as a real one does: the first node makes it, the others join, the reconciler grows the directory and makes the
//! groups, and an operator asks for the tenants without waiting for any of that. Faults may strike meanwhile; when they are over, the
//! birth must be complete within a bound.

use super::Cluster;
use crate::nemesis::{Bites, Fault};
use crate::trace::Trace;
use crate::workload::below;
use metadb_proto::Error;
use metadb_proto::settings::Scope;
use metadb_proto::settings::registry::{COMPARE_BYTES_PER_S, COMPARE_INTERVAL_S};
use metadb_proto::v1::{group_record, tenant_record};
use shard_router::operator::{Change, Operator};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

/// A cluster that nobody hurts any more is born this long after: a step of the reconciler that met a dead node takes up to 20 s, and
/// a verb of an operator up to 30 s, before it is tried again.
pub const BORN_WITHIN: Duration = Duration::from_secs(60);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(100);
/// Longest look.
const LOOK_WITHIN: Duration = Duration::from_secs(5);
/// Most strikes during a birth.
const STRIKES: u64 = 4;
/// Longest time between two strikes: an undisturbed birth takes about a second.
const STRIKE_PAUSE: Duration = Duration::from_millis(900);
/// The same for half of them: an undisturbed join takes about a tenth of a second.
const STRIKE_SOON: Duration = Duration::from_millis(150);
/// A group begins to compare the states of its replicas so often.
const COMPARE_EVERY_S: u64 = 1;
/// So many bytes of them a second: a slice is a quarter.
const COMPARE_RATE: u64 = 256 << 10;
/// Longest time that a struck node stays down.
const STRIKE_HOLD: Duration = Duration::from_millis(1500);

impl Cluster {
    /// Waits for the birth with that many tenants, and gives their ids. In two of three seeds nodes are killed meanwhile.
    ///
    /// # Errors
    /// What is still missing [`BORN_WITHIN`] after the last fault.
    pub async fn born(&self, tenants: usize, bites: &mut Bites, trace: &Trace) -> Result<Vec<u64>, Vec<String>> {
        let (at, router) = self.client(|config| config);
        let operator = Operator::new(router);
        let names: Vec<String> = (1..=tenants).map(|n| format!("tenant-{n}")).collect();
        let asking = at.spawn(make_tenants(operator.clone(), names, trace.clone()));
        if below(3) > 0 {
            self.strike(bites, trace).await;
        }
        let end = Instant::now() + BORN_WITHIN;
        loop {
            let (operator, size) = (operator.clone(), self.size());
            let looking = at.spawn(async move { tokio::time::timeout(LOOK_WITHIN, Box::pin(missing(&operator, size, tenants))).await });
            let mut lacks = match looking.await {
                Ok(Ok(Ok(lacks))) => lacks,
                Ok(Ok(Err(error))) => vec![format!("the directory does not answer: {error}")],
                Ok(Err(_)) => vec!["the directory does not answer".to_owned()],
                Err(error) => vec![format!("the operator's machine has no faults: {error}")],
            };
            lacks.extend(self.missing_replicas());
            if lacks.is_empty() && asking.is_finished() {
                trace.event(format_args!("born"));
                break;
            }
            if Instant::now() >= end {
                lacks.extend((!asking.is_finished()).then(|| "the operator's call for tenants has not returned".to_owned()));
                return Err(lacks);
            }
            tokio::time::sleep(LOOK).await;
        }
        asking.await.map_err(|error| vec![format!("the operator's call for tenants: {error}")])
    }

    /// Kills joining nodes and the directory's leader while they are at it.
    async fn strike(&self, bites: &mut Bites, trace: &Trace) {
        for _ in 0..=below(STRIKES) {
            pause(if below(2) == 0 { STRIKE_SOON } else { STRIKE_PAUSE }).await;
            let (fault, node, bit) = if below(2) == 0 {
                let node = 1 + usize::try_from(below(self.size() as u64 - 1)).unwrap_or(0);
                let is_whole = self.machines[node].node().is_some_and(|node| node.groups().len() > super::GROUPS as usize);
                (Fault::KillJoining, node, !is_whole)
            } else {
                let leader = self.leader(0);
                (Fault::KillFounding, leader.unwrap_or(0), leader.is_some() && !self.missing_replicas().is_empty())
            };
            trace.event(format_args!("fault {fault:?} on {node}: {bit}"));
            self.kill(node);
            let counted = bites.entry(fault).or_default();
            *counted = (counted.0 + 1, counted.1 + u64::from(bit));
            pause(STRIKE_HOLD).await;
            trace.event(format_args!("healed"));
            self.heal();
        }
    }

    /// Replicas and votes that nodes do not have yet.
    fn missing_replicas(&self) -> Vec<String> {
        let mut lacks = Vec::new();
        for machine in &self.machines {
            let Some(node) = machine.node() else {
                lacks.push(format!("no node runs at {}", machine.address()));
                continue;
            };
            for group_id in 0..=super::GROUPS {
                let voters = node.group(group_id).map_or(0, |group| group.status().voters.len());
                if voters != self.size() {
                    lacks.push(format!("node {} knows {voters} voters of group {group_id}", node.node_id()));
                }
            }
        }
        lacks
    }
}

/// As often as it takes: a tenant that is made already was made by an attempt of ours whose end we were not told.
async fn make_tenants(operator: Operator, names: Vec<String>, trace: Trace) -> Vec<u64> {
    let mut ids = Vec::new();
    // One alone, the others together: the two verbs that an operator has.
    let (first, others) = names.split_at(1);
    for names in [first, others] {
        loop {
            let made = match names {
                [name] => operator.create_tenant(name).await.map(|tenant| vec![tenant]),
                names => operator.create_tenants(names).await,
            };
            trace.event(format_args!("the operator asks for {names:?} and is told {made:?}"));
            if matches!(made, Ok(_) | Err(Error::AlreadyExists { .. })) {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    for name in names {
        let id = loop {
            match operator.tenant(&name).await {
                Ok(tenant) => break tenant.tenant_id,
                Err(_) => tokio::time::sleep(LOOK).await,
            }
        };
        ids.push(id);
    }
    have_states_compared(&operator).await;
    ids
}

/// Has replicas compare their states all the time, in small slices.
async fn have_states_compared(operator: &Operator) {
    for (definition, value) in [(&COMPARE_INTERVAL_S.definition, COMPARE_EVERY_S), (&COMPARE_BYTES_PER_S.definition, COMPARE_RATE)] {
        let change = Change {
            definition,
            scope: Scope::Cluster,
            value: Some(value.to_string()),
            by: "the operator".to_owned(),
            reason: "a run lasts seconds".to_owned(),
            expected: None,
            dry_run: false,
        };
        while operator.change_setting(&change).await.is_err() {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// What the directory does not say yet.
async fn missing(operator: &Operator, size: usize, tenants: usize) -> Result<Vec<String>, Error> {
    let mut lacks = Vec::new();
    let nodes = operator.nodes().await?;
    if nodes.len() != size {
        lacks.push(format!("the directory has {} nodes", nodes.len()));
    }
    let groups = operator.groups().await?;
    let whole = |group: &&metadb_proto::v1::GroupRecord| group.state() == group_record::State::Active && group.voters.len() == size;
    let ready = groups.iter().filter(whole).map(|group| group.group_id).collect::<BTreeSet<_>>();
    if !ready.iter().copied().eq(0..=super::GROUPS) {
        lacks.push(format!("the directory has active groups {ready:?} of {} voters", size));
    }
    let active = operator.tenants().await?.into_iter().filter(|tenant| tenant.state() == tenant_record::State::Active).count();
    if active != tenants {
        lacks.push(format!("the directory has {active} active tenants"));
    }
    Ok(lacks)
}

async fn pause(longest: Duration) {
    crate::workload::think(longest).await;
}
