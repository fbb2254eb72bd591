//! A tenant that asks far more than a node does, under faults. Everybody else goes on, as their own checks see; no line is ever longer than
//! it may be; and when it is over nothing is left at any door: no request in a line, no place that is taken for ever.
//!
//! That nobody else is refused is not promised here: at a leader that lost its quorum, requests that clients gave up stay in their line
//! until their deadlines.

use super::Client;
use crate::cluster::Cluster;
use metadb_proto::settings::registry::{HOST_READS_IN_FLIGHT, HOST_WRITES_IN_FLIGHT, TENANT_QUEUE_REQUESTS};
use metadb_proto::settings::{Definition, Scope};
use metadb_proto::{Error, v1};
use shard_router::operator::{Change, Operator};
use shard_router::{Router, operation};
use std::time::Duration;
use tokio::time::Instant;

/// Requests that the tenant has under way at all times: more than places and line together.
const CLIENTS: u64 = 14;
/// What a node does at once here, so that a dozen clients are a flood.
const IN_FLIGHT: u64 = 2;
/// What may wait of one tenant: as many as there are other clients in the run.
const LINE: u64 = 10;
/// Every request that was given up by its client is over by then: the longest deadline of a client here, and some.
const EMPTY_WITHIN: Duration = Duration::from_secs(20);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(100);

/// Makes places few, then asks for all of them until the run ends.
pub async fn run(client: Client, tenant_id: u64) {
    let operator = Operator::new(client.routers[0].clone());
    let scarce = [(&HOST_WRITES_IN_FLIGHT.definition, IN_FLIGHT), (&HOST_READS_IN_FLIGHT.definition, IN_FLIGHT)];
    for (definition, value) in scarce.into_iter().chain([(&TENANT_QUEUE_REQUESTS.definition, LINE)]) {
        while let Err(error) = operator.change_setting(&change(definition, value)).await {
            client.shared.trace.event(format_args!("{} is not set yet: {error}", definition.name));
            if client.shared.stopped() {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    let asking = (0..CLIENTS).map(|n| tokio::spawn(ask(client.clone(), client.routers[usize::from(n % 2 == 0)].clone(), tenant_id, n)));
    for asked in asking.collect::<Vec<_>>() {
        if asked.await.is_err() {
            client.shared.unexpected.lock().push("a client of the flood ended before its time".to_owned());
        }
    }
}

fn change(definition: &'static Definition, value: u64) -> Change {
    let (by, reason) = ("the operator".to_owned(), "to make places few".to_owned());
    Change { definition, scope: Scope::Cluster, value: Some(value.to_string()), by, reason, expected: None, dry_run: false }
}

async fn ask(client: Client, router: Router, tenant_id: u64, number: u64) {
    let tenant = router.tenant(tenant_id);
    while !client.shared.stopped() {
        let asked = tenant.transact(Vec::new(), vec![operation::put(format!("flood {number}"), "water")]).await;
        match asked {
            Ok(_) | Err(Error::Exhausted { .. } | Error::Unavailable { .. } | Error::UnknownOutcome { .. }) => {}
            Err(error) => client.shared.unexpected.lock().push(format!("the flood is told {error}")),
        }
    }
}

/// When all is over: what is wrong at the doors.
pub async fn check(cluster: &Cluster) -> Vec<String> {
    let end = Instant::now() + EMPTY_WITHIN;
    loop {
        let problems = problems(cluster);
        if problems.is_empty() || Instant::now() >= end {
            return problems;
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn problems(cluster: &Cluster) -> Vec<String> {
    let mut problems = Vec::new();
    for node in cluster.machines().iter().filter_map(|machine| machine.node()) {
        for status in node.groups().iter().map(|group| group.status()) {
            let at = format!("the door of group {} on node {}", status.group_id, node.node_id());
            // Nodes look at the directory all the time: its reads are never over.
            let reads = status.reads.filter(|_| status.group_id != 0);
            for lane in reads.into_iter().chain(status.writes) {
                let v1::LaneStatus { in_flight, waiting_requests, waiting_bytes, .. } = lane;
                if (in_flight, waiting_requests, waiting_bytes) != (0, 0, 0) {
                    problems.push(format!("{at} has {in_flight} in flight and {waiting_requests} of {waiting_bytes} bytes waiting"));
                }
                let overlong = lane.tenants.iter().filter(|line| line.waiting_requests > LINE);
                let told = overlong.map(|line| format!("{at} lets {} requests of tenant {} wait", line.waiting_requests, line.tenant_id));
                problems.extend(told);
            }
        }
    }
    problems
}
