//! `cairn demo-shards`: tenants with data, clients that write and read, and every shard moves to another group meanwhile. In the end each
//! client's counters tell whether a write was lost or done twice.

mod load;
mod report;

use crate::dev::{DevCluster, DevOptions};
use crate::failure::Failure;
use crate::output::{self, Format, Output, Progress};
use load::{Load, Told};
use metadb_proto::Error;
use metadb_proto::v1::{GroupRecord, ShardHistoryRecord, TenantRecord, group_record, node_record, shard_history_record};
use report::Report;
use shard_router::operation;
use shard_router::operator::{CHANGES_AT_ONCE, NewGroups, Operator, ShardOrder, Wanted, Wish};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

/// How often it is looked how far things are.
const LOOK: Duration = Duration::from_millis(100);
/// How long the new groups may take to be ready, and a drained node to hold nothing.
const PATIENCE: Duration = Duration::from_secs(120);
/// Tenants that are filled at a time.
const FILLED_AT_ONCE: usize = 64;
/// With more nodes than this one is drained: a group has as many replicas.
const REPLICAS: u16 = 3;

/// What the person asked for.
#[derive(Debug, Clone)]
pub(crate) struct DemoShardsOptions {
    pub(crate) shards: u32,
    pub(crate) rows: u32,
    pub(crate) value_bytes: u32,
    pub(crate) clients: u16,
    pub(crate) nodes: u16,
    pub(crate) groups: u32,
}

/// Runs it. It fails if a client was told an error, or a write was lost or done twice.
pub(crate) async fn run(options: DemoShardsOptions, output: Output) -> Result<(), Failure> {
    let mut stop = crate::node::Stop::from_system(false)?;
    let place = tempfile::Builder::new().prefix("cairn-demo-shards-").tempdir();
    let place = place.map_err(|error| Failure::failed(format!("can't make a temporary folder: {error}")))?;
    let dev = DevOptions { data: place.path().to_owned(), nodes: Some(options.nodes), port_base: None };
    let played = async {
        let running = Box::pin(DevCluster::up(&dev)).await?;
        output::note(&format!("{} nodes are up after {:.1} s", options.nodes, running.took.as_secs_f64()));
        let outcome = Box::pin(play(&options, &running)).await;
        running.down().await;
        outcome
    };
    let report = tokio::select! {
        biased;
        () = stop.wait() => Err(Failure::failed("interrupted")),
        outcome = Box::pin(played) => outcome,
    }?;
    output.show(&report)?;
    if output.format == Format::Table {
        output::line(&report.last_line())?;
    }
    report.verdict()
}

async fn play(options: &DemoShardsOptions, running: &DevCluster) -> Result<Report, Failure> {
    let operator = Operator::new(running.router());
    let started = Instant::now();
    let tenants = create(options, &operator).await?;
    let created = started.elapsed();
    fill(options, &operator, &tenants).await?;
    let old: BTreeSet<u32> = active_groups(&operator).await?.iter().map(|group| group.group_id).collect();
    let new = make_groups(options, &operator).await?;
    let load = Load::begin(options.clients, running, &tenants);
    let drained = drain(options, &operator).await?;
    let began = Instant::now();
    let moved = move_all(&operator, &tenants, &new).await?;
    let took = began.elapsed();
    let told = load.end().await?;
    let drained = match drained {
        Some(node_id) => Some((node_id, until_drained(&operator, node_id).await?)),
        None => None,
    };
    let history = operator.all_shard_history().await?;
    let left = left_behind(&operator, &tenants, &old).await?;
    Ok(summary(options, &Measured { created, moved, took, drained, left }, &told, &history))
}

/// What was measured beside what clients were told.
struct Measured {
    created: Duration,
    moved: usize,
    took: Duration,
    drained: Option<(u64, bool)>,
    left: usize,
}

async fn create(options: &DemoShardsOptions, operator: &Operator) -> Result<Vec<TenantRecord>, Failure> {
    let names: Vec<String> = (0..options.shards).map(|number| format!("shard-{number:06}")).collect();
    let progress = Progress::items("create", u64::from(options.shards));
    let batch = operator.ensure_tenants(&names, |done| progress.advance(done as u64)).await?;
    progress.finish();
    Ok(batch.made.into_iter().chain(batch.existed).collect())
}

async fn fill(options: &DemoShardsOptions, operator: &Operator, tenants: &[TenantRecord]) -> Result<(), Failure> {
    let progress = Progress::items("fill", tenants.len() as u64);
    let value = vec![b'v'; options.value_bytes as usize];
    for tenants in tenants.chunks(FILLED_AT_ONCE) {
        let filled = tenants.iter().map(|tenant| {
            let puts = (0..options.rows).map(|row| operation::put(format!("row/{row:05}"), value.clone())).collect();
            let client = operator.router().tenant(tenant.tenant_id);
            async move { client.transact(Vec::new(), puts).await }
        });
        futures::future::try_join_all(filled).await?;
        progress.advance(tenants.len() as u64);
    }
    progress.finish();
    Ok(())
}

async fn active_groups(operator: &Operator) -> Result<Vec<GroupRecord>, Failure> {
    let groups = operator.groups().await?;
    Ok(groups.into_iter().filter(|group| group.group_id != 0 && group.state() == group_record::State::Active).collect())
}

/// New groups, ready to take shards.
async fn make_groups(options: &DemoShardsOptions, operator: &Operator) -> Result<Vec<u32>, Failure> {
    let wanted = NewGroups { count: options.groups, ..NewGroups::default() };
    let wanted: BTreeSet<u32> = operator.create_groups(&wanted).await?.iter().map(|group| group.group_id).collect();
    let until = Instant::now() + PATIENCE;
    loop {
        let ready = active_groups(operator).await?.iter().filter(|group| wanted.contains(&group.group_id)).count();
        if ready == wanted.len() {
            return Ok(wanted.into_iter().collect());
        }
        if Instant::now() >= until {
            return Err(Failure::failed(format!("{ready} of {} new groups are ready after {} s", wanted.len(), PATIENCE.as_secs())));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Asks the last node to leave, if it can be spared; which one.
async fn drain(options: &DemoShardsOptions, operator: &Operator) -> Result<Option<u64>, Failure> {
    if options.nodes <= REPLICAS {
        return Ok(None);
    }
    let nodes = operator.nodes().await?;
    let Some(last) = nodes.iter().filter_map(|node| node.node.as_ref()).map(|node| node.node_id).max() else { return Ok(None) };
    operator.wish(&Wish { leave: Some((last, None)), ..Wish::default() }).await?;
    output::note(&format!("node {last} is being drained"));
    Ok(Some(last))
}

/// Whether a node that leaves holds nothing any more, after a while.
async fn until_drained(operator: &Operator, node_id: u64) -> Result<bool, Failure> {
    let until = Instant::now() + PATIENCE;
    loop {
        let nodes = operator.nodes().await?;
        let node = nodes.iter().find(|node| node.node.as_ref().is_some_and(|node| node.node_id == node_id));
        if node.is_none_or(|node| node.state() == node_record::State::Removed) {
            return Ok(true);
        }
        if Instant::now() >= until {
            return Ok(false);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Moves every tenant's shard to one of the new groups; how many arrived.
async fn move_all(operator: &Operator, tenants: &[TenantRecord], to: &[u32]) -> Result<usize, Failure> {
    let progress = Progress::items("move", tenants.len() as u64);
    let order = |(number, tenant): (usize, &TenantRecord)| ShardOrder {
        tenant_id: tenant.tenant_id,
        key: bytes::Bytes::new(),
        wanted: Wanted::Move { to_group_id: to[number % to.len()] },
        reason: "the demo moves every shard".to_owned(),
        expected: None,
    };
    let orders: Vec<ShardOrder> = tenants.iter().enumerate().map(order).collect();
    let asked = Cell::new(0);
    let ordering = async {
        for orders in orders.chunks(CHANGES_AT_ONCE) {
            operator.order_changes(orders).await?;
            asked.set(asked.get() + orders.len());
        }
        Ok::<(), Error>(())
    };
    let mut ordering = std::pin::pin!(ordering);
    let (mut is_ordered, mut shown) = (false, 0);
    loop {
        tokio::select! {
            biased;
            ordered = &mut ordering, if !is_ordered => {
                ordered?;
                is_ordered = true;
            }
            () = tokio::time::sleep(LOOK) => {}
        }
        // Those asked for meanwhile are seen the next time.
        let before = asked.get();
        let left = operator.changes(None).await?.len();
        let done = before.saturating_sub(left);
        progress.advance((done - shown.min(done)) as u64);
        shown = shown.max(done);
        if is_ordered && left == 0 {
            progress.finish();
            return Ok(done);
        }
    }
}

/// Tenants that are still in one of the old groups.
async fn left_behind(operator: &Operator, tenants: &[TenantRecord], old: &BTreeSet<u32>) -> Result<usize, Failure> {
    let ids: BTreeSet<u64> = tenants.iter().map(|tenant| tenant.tenant_id).collect();
    let shards = operator.all_shards().await?;
    Ok(shards.iter().filter(|shard| ids.contains(&shard.tenant_id) && old.contains(&shard.group_id)).count())
}

fn summary(options: &DemoShardsOptions, measured: &Measured, told: &Told, history: &[ShardHistoryRecord]) -> Report {
    let done = history.iter().filter(|record| record.outcome() == shard_history_record::Outcome::Done);
    let mut pauses: Vec<f64> = done.clone().filter_map(|record| record.actual).map(|cost| cost.pause_micros as f64 / 1e3).collect();
    pauses.sort_by(f64::total_cmp);
    Report {
        shards: options.shards,
        created_seconds: measured.created.as_secs_f64(),
        moved: measured.moved,
        left_behind: measured.left,
        move_seconds: measured.took.as_secs_f64(),
        copied_bytes: done.filter_map(|record| record.actual).map(|cost| cost.bytes).sum(),
        pauses_ms: pauses,
        requests: told.requests,
        slowest_ms: told.slowest.as_secs_f64() * 1e3,
        client_errors: told.errors.len(),
        first_error: told.errors.first().cloned(),
        lost: told.lost,
        doubled: told.doubled,
        drained: measured.drained,
    }
}
