//! What clients notice while shards of 1 to 64 MB move between groups: for how long each shard stands still, errors, and what clients of
//! other shards lose meanwhile.

use super::{changes_ended, fresh, say};
use crate::load::{self, Chance};
use crate::plan::Plan;
use crate::report::{Better, Figure, Report, TextTable, cells};
use crate::systems::cairn::{Cairn, GROUPS};
use anyhow::Context as _;
use metadb_proto::v1::{ShardHistoryRecord, shard_history_record};
use serde::Serialize;
use shard_router::operator::{CHANGES_AT_ONCE, ShardOrder, Wanted};
use shard_router::{Client, operation};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The sizes that shards have, in turn.
const SIZES_MB: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];
/// Bytes of a value that fills a shard.
const FILLING_BYTES: usize = 16_000;
/// Puts of one transaction that fills a shard.
const FILLING_PUTS: usize = 32;
/// Clients that write to shards that move, and how long each rests between two writes.
const WRITERS: usize = 32;
const WRITER_RESTS: Duration = Duration::from_millis(50);
/// Shards that never move, and clients that write to them one put after the other.
const STILL: usize = 16;
/// How long a round of moves, one of each shard, may take.
const ROUND_WITHIN: Duration = Duration::from_secs(900);

/// What was measured.
#[derive(Debug, Clone, Default, Serialize)]
struct Found {
    moves: usize,
    seconds: f64,
    bytes: u64,
    /// For how long each shard stood still, the shortest first.
    pauses_ms: Vec<f64>,
    attempts: u64,
    writes: u64,
    errors: u64,
    first_error: Option<String>,
    slowest_ms: f64,
    still_before: f64,
    still_meanwhile: f64,
}

/// Measures.
///
/// # Errors
/// If the cluster does not start, or moves do not end.
pub async fn run(plan: &Plan, data: &Path) -> anyhow::Result<Report> {
    say("moves: Cairn");
    fresh(data)?;
    let cairn = Cairn::start(&plan.cairn, data, 3).await?;
    let moving = tenants(&cairn, "moving", plan.moving_shards).await?;
    let still = tenants(&cairn, "still", STILL).await?;
    say(&format!("moves: filling {} shards", moving.len()));
    for (number, client) in moving.iter().enumerate() {
        fill(client, SIZES_MB[number % SIZES_MB.len()] * 1_000_000).await?;
    }
    let (writers, bystanders) = (Clients::begin(&moving, WRITERS, WRITER_RESTS), Clients::begin(&still, STILL, Duration::ZERO));
    tokio::time::sleep(plan.warm_up).await;
    let still_before = rate(&bystanders, tokio::time::sleep(plan.paced)).await.1;
    let begin = Instant::now();
    let (moved, still_meanwhile) = rate(&bystanders, Box::pin(rounds(plan, &cairn, &moving))).await;
    let seconds = begin.elapsed().as_secs_f64();
    let (writers, bystanders) = (writers.end().await, bystanders.end().await);
    let history = cairn.operator().all_shard_history().await?;
    cairn.stop().await;
    let found = Found { seconds, still_before, still_meanwhile, ..found(moved?, &history, &[writers, bystanders]) };
    report(&found)
}

async fn tenants(cairn: &Cairn, name: &str, count: usize) -> anyhow::Result<Vec<Client>> {
    let mut clients = Vec::new();
    for number in 0..count {
        clients.push(cairn.tenant(&format!("{name}-{number}")).await?);
    }
    Ok(clients)
}

async fn fill(client: &Client, bytes: usize) -> anyhow::Result<()> {
    let puts = bytes.div_ceil(FILLING_BYTES);
    for first in (0..puts).step_by(FILLING_PUTS) {
        // Of no use to a compressor.
        let value = |n: usize| {
            let mut chance = Chance::new(n as u64 ^ client.tenant_id() << 32);
            (0..FILLING_BYTES).map(|_| u8::try_from(chance.below(256)).unwrap_or(0)).collect::<Vec<u8>>()
        };
        let filling = (first..puts.min(first + FILLING_PUTS)).map(|n| operation::put(format!("row/{n:08}"), value(n)));
        client.transact(Vec::new(), filling.collect()).await.context("filling a shard")?;
    }
    Ok(())
}

/// Moves every shard to the next group, again and again, until as many moves were made as are planned; how many.
async fn rounds(plan: &Plan, cairn: &Cairn, moving: &[Client]) -> anyhow::Result<usize> {
    let operator = cairn.operator();
    let mut moved = 0;
    while moved < plan.moves {
        let shards = operator.all_shards().await?;
        let mut orders = Vec::new();
        for client in moving {
            let tenant_id = client.tenant_id();
            let shard = shards.iter().find(|shard| shard.tenant_id == tenant_id).context("a tenant without a shard")?;
            let to_group_id = shard.group_id % u32::try_from(GROUPS)? + 1;
            let wanted = Wanted::Move { to_group_id };
            orders.push(ShardOrder { tenant_id, key: bytes::Bytes::new(), wanted, reason: "the bench".into(), expected: None });
        }
        for orders in orders.chunks(CHANGES_AT_ONCE) {
            operator.order_changes(orders).await?;
        }
        tokio::time::timeout(ROUND_WITHIN, changes_ended(&operator)).await.context("moves did not end")??;
        moved += orders.len();
        say(&format!("moves: {moved} of {}", plan.moves));
    }
    Ok(moved)
}

/// What a piece of work came to, and how many puts a second clients got answered meanwhile.
async fn rate<T>(clients: &Clients, work: impl Future<Output = T>) -> (T, f64) {
    let (before, begin) = (clients.told.answered.load(Ordering::Relaxed), Instant::now());
    let result = work.await;
    let answered = clients.told.answered.load(Ordering::Relaxed) - before;
    (result, answered as f64 / begin.elapsed().as_secs_f64())
}

/// What clients were told.
#[derive(Default)]
struct Told {
    stop: AtomicBool,
    answered: AtomicU64,
    errors: AtomicU64,
    slowest_us: AtomicU64,
    first_error: parking_lot::Mutex<Option<String>>,
}

/// Clients that put until they are stopped.
struct Clients {
    told: Arc<Told>,
    tasks: JoinSet<()>,
}

impl Clients {
    fn begin(tenants: &[Client], count: usize, rest: Duration) -> Self {
        let (told, mut tasks) = (Arc::<Told>::default(), JoinSet::new());
        let tenants: Arc<[Client]> = tenants.into();
        for number in 0..count {
            tasks.spawn(put_until_stopped(Arc::clone(&told), Arc::clone(&tenants), number, rest));
        }
        Clients { told, tasks }
    }

    async fn end(mut self) -> Arc<Told> {
        self.told.stop.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
        self.told
    }
}

async fn put_until_stopped(told: Arc<Told>, tenants: Arc<[Client]>, number: usize, rest: Duration) {
    let mut chance = Chance::new(number as u64);
    while !told.stop.load(Ordering::Relaxed) {
        let tenant = chance.below(u32::try_from(tenants.len()).unwrap_or(u32::MAX)) as usize;
        let asked = Instant::now();
        let put = operation::put(load::key(chance.below(1000)), load::value());
        match tenants[tenant].transact(Vec::new(), vec![put]).await {
            Ok(_) => drop(told.answered.fetch_add(1, Ordering::Relaxed)),
            Err(error) => {
                told.errors.fetch_add(1, Ordering::Relaxed);
                told.first_error.lock().get_or_insert_with(|| error.to_string());
            }
        }
        told.slowest_us.fetch_max(u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        if !rest.is_zero() {
            tokio::time::sleep(rest).await;
        }
    }
}

fn found(moves: usize, history: &[ShardHistoryRecord], told: &[Arc<Told>; 2]) -> Found {
    let done: Vec<_> = history.iter().filter(|record| record.outcome() == shard_history_record::Outcome::Done).collect();
    let costs = || done.iter().filter_map(|record| record.actual);
    let mut pauses_ms: Vec<f64> = costs().map(|cost| cost.pause_micros as f64 / 1e3).collect();
    pauses_ms.sort_by(f64::total_cmp);
    let sum = |pick: fn(&Told) -> &AtomicU64| told.iter().map(|told| pick(told).load(Ordering::Relaxed)).sum();
    Found {
        moves,
        bytes: costs().map(|cost| cost.bytes).sum(),
        pauses_ms,
        attempts: done.iter().filter_map(|record| record.change.as_ref()).map(|change| u64::from(change.attempts)).sum(),
        writes: sum(|told| &told.answered),
        errors: sum(|told| &told.errors),
        first_error: told.iter().find_map(|told| told.first_error.lock().clone()),
        slowest_ms: told.iter().map(|told| told.slowest_us.load(Ordering::Relaxed)).max().unwrap_or(0) as f64 / 1e3,
        ..Found::default()
    }
}

impl Found {
    fn pause(&self, percent: usize) -> Option<f64> {
        let at = (self.pauses_ms.len() * percent / 100).min(self.pauses_ms.len().saturating_sub(1));
        self.pauses_ms.get(at).copied()
    }
}

fn report(found: &Found) -> anyhow::Result<Report> {
    let title = format!("{} moves of shards of 1 to 64 MB while {WRITERS} clients write to them", found.moves);
    let mut table = TextTable::new(&title, &["what", "measured"]);
    let row = |what: &str, measured: String| [what.to_owned(), measured];
    table.row(row("moves per second", cells::number(found.moves as f64 / found.seconds, 2)));
    table.row(row("MB copied per second", cells::number(found.bytes as f64 / 1e6 / found.seconds, 1)));
    table.row(row("attempts per move", cells::number(found.attempts as f64 / (found.moves as f64).max(1.0), 2)));
    for percent in [50, 90, 99, 100] {
        let what = if percent == 100 { "longest pause, ms".to_owned() } else { format!("pause p{percent}, ms") };
        table.row(row(&what, found.pause(percent).map_or_else(String::new, |ms| cells::number(ms, 1))));
    }
    table.row(row("writes, errors", format!("{}, {}", found.writes, found.errors)));
    table.row(row("slowest write, ms", cells::number(found.slowest_ms, 1)));
    table.row(row("puts per second to other shards, before", cells::number(found.still_before, 0)));
    table.row(row("puts per second to other shards, meanwhile", cells::number(found.still_meanwhile, 0)));
    let figure = |key, what, value: Option<f64>, unit, at_least, better| Figure {
        key,
        what,
        value,
        unit,
        ours: cells::with_unit(value, unit),
        peer: String::new(),
        at_least: Some(at_least),
        moon: None,
        better,
    };
    let untouched = (found.still_before > 0.0).then(|| found.still_meanwhile / found.still_before);
    let figures = vec![
        figure("move_pause_p50_ms", "a shard that moves stands still, p50", found.pause(50), " ms", 10.0, Better::Lower),
        figure("move_pause_p99_ms", "the same, p99", found.pause(99), " ms", 50.0, Better::Lower),
        figure("move_pause_max_ms", "the same, the longest", found.pause(100), " ms", 200.0, Better::Lower),
        figure("move_errors", "errors told to clients while shards move", Some(found.errors as f64), "", 0.0, Better::Lower),
        figure("move_untouched", "puts to shards that stay, meanwhile over before", untouched, "x", 0.9, Better::Higher),
    ];
    let notes = found.first_error.iter().map(|error| format!("the first error: {error}")).collect();
    Ok(Report { tables: vec![table], figures, notes, raw: serde_json::to_value(found)?, ..Report::new("moves") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_pause_is_the_last_and_nothing_has_none() {
        let found = Found { pauses_ms: vec![1.0, 2.0, 3.0, 9.0], ..Found::default() };
        assert_eq!([0, 50, 99, 100].map(|percent| found.pause(percent)), [Some(1.0), Some(3.0), Some(9.0), Some(9.0)]);
        assert_eq!(Found::default().pause(50), None);
    }
}
