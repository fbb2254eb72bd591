//! Carries changes of shards through: splits, merges and moves that stand in the directory. Every node runs one mover; only that of the node
//! which leads the directory acts.
//!
//! What to do next is decided by [`step`], which sees what the directory and the groups' logs say and remembers nothing. So a mover may die
//! anywhere, and two may act at once: each claims a change by taking a higher epoch for it, and groups refuse what comes with a lower one.
//!
//! A shard stands still only between its fence and its take-over. If that is not through within [`FENCE_BUDGET`], the fence is lifted, what
//! was copied stays, and the end is tried again later: clients do not pay for a slow network or a busy group.

mod carry;
mod copy;
mod pace;
pub mod step;

use crate::metrics;
use crate::operator::Operator;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use metadb_proto::settings::{Asker, Settings, registry};
use metadb_proto::v1::shard_change_record::State;
use metadb_proto::v1::{NodeRef, ShardChangeRecord};
use metadb_proto::{Error, seam};
use pace::Pace;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Between two looks at the directory while nothing is asked for, and while there is.
const IDLE: Duration = Duration::from_millis(300);
const BUSY: Duration = Duration::from_millis(50);
/// Places that only changes get which were carried before: what they left half-way does not wait for the copies of others.
const FOR_THE_BEGUN: usize = 16;
/// Changes that are read at a time.
const PAGE: u32 = 1024;
/// How long the end of a move has, for which its shard is neither read nor written; past it the fence is lifted, which takes entries too.
pub const FENCE_BUDGET: Duration = Duration::from_millis(200);
/// How long a change rests that did not get on: the first time, and at most.
const REST_FIRST: Duration = Duration::from_millis(200);
const REST_MOST: Duration = Duration::from_secs(20);

/// One node's mover.
pub struct Mover {
    work: Arc<Work>,
    node: NodeRef,
    /// Changes that are being carried.
    carried: BTreeSet<u64>,
    /// Changes that wait for a place.
    waiting: VecDeque<ShardChangeRecord>,
    /// Changes that did not get on: until when they rest, and how often in a row.
    resting: BTreeMap<u64, (Instant, u32)>,
}

/// What those who carry share.
struct Work {
    operator: Operator,
    settings: Settings,
    pace: Pace,
}

impl Work {
    /// Changes that are carried at a time.
    fn at_once(&self) -> usize {
        usize::try_from(self.settings.get(&registry::SHARDS_CHANGES_AT_ONCE, Asker::NODE)).unwrap_or(usize::MAX)
    }
}

type Carrying = BoxFuture<'static, (u64, Result<(), Error>)>;
type Look = BoxFuture<'static, Result<Vec<ShardChangeRecord>, Error>>;

impl Mover {
    /// For this node, with its own rights.
    #[must_use]
    pub fn new(operator: Operator, node: NodeRef, settings: Settings) -> Self {
        let work = Arc::new(Work { operator, settings, pace: Pace::new() });
        metrics::shard_changes(0, 0, 0);
        Mover { work, node, carried: BTreeSet::new(), waiting: VecDeque::new(), resting: BTreeMap::new() }
    }

    /// Works until it is dropped.
    pub async fn run(mut self) {
        let mut carrying: FuturesUnordered<Carrying> = FuturesUnordered::new();
        let mut look: Option<Look> = None;
        let mut next_look = Instant::now();
        loop {
            tokio::select! {
                biased;
                Some((change_id, result)) = carrying.next(), if !carrying.is_empty() => {
                    self.ended(change_id, result);
                    // Others may be waiting behind what was read.
                    if self.waiting.is_empty() && self.carried.len() <= self.work.at_once() / 2 {
                        next_look = next_look.min(Instant::now() + BUSY);
                    }
                }
                found = async { look.as_mut().expect("asked for").await }, if look.is_some() => {
                    look = None;
                    next_look = Instant::now() + if self.found(found) { BUSY } else { IDLE };
                }
                () = tokio::time::sleep_until(next_look), if look.is_none() => {
                    look = (self.waiting.is_empty() || self.has_rested()).then(|| self.look());
                    next_look = Instant::now() + IDLE;
                }
            }
            while let Some(first) = self.waiting.front()
                && carrying.len() < self.work.at_once() + if first.attempts == 0 { 0 } else { FOR_THE_BEGUN }
                && let Some(record) = self.waiting.pop_front()
            {
                let (work, change_id) = (Arc::clone(&self.work), record.change_id);
                if self.carried.insert(change_id) {
                    carrying.push(Box::pin(async move { (change_id, carry::carry(&work, record).await) }));
                }
            }
        }
    }

    /// Whether the rest of a change is over that nobody carries.
    fn has_rested(&self) -> bool {
        let now = Instant::now();
        self.resting.iter().any(|(change_id, (until, _))| now >= *until && !self.carried.contains(change_id))
    }

    /// What is asked for, if this node leads the directory.
    fn look(&self) -> Look {
        let (work, node) = (Arc::clone(&self.work), self.node.clone());
        Box::pin(async move {
            if work.operator.leads_directory(&node).await? { work.operator.first_changes(PAGE).await } else { Ok(Vec::new()) }
        })
    }

    /// Takes in what a look found; whether there is something to do.
    fn found(&mut self, found: Result<Vec<ShardChangeRecord>, Error>) -> bool {
        let records = match found {
            Ok(records) => records,
            Err(error) => {
                tracing::debug!(%error, "the mover could not look at the directory");
                return false;
            }
        };
        let now = Instant::now();
        let known: BTreeSet<u64> = records.iter().map(|record| record.change_id).collect();
        self.resting.retain(|change_id, _| known.contains(change_id));
        let paused = records.iter().filter(|record| record.state() == State::Paused).count();
        metrics::shard_changes(records.len() - paused, paused, self.resting.len());
        let rests = |record: &ShardChangeRecord| self.resting.get(&record.change_id).is_some_and(|(until, _)| now < *until);
        let waits = |record: &ShardChangeRecord| record.state() == State::Paused && record.settled;
        let may = |record: &ShardChangeRecord| !waits(record) && !self.carried.contains(&record.change_id) && !rests(record);
        let mut waiting: Vec<ShardChangeRecord> = records.into_iter().filter(may).collect();
        // One that was carried before may have left a shard that stands still.
        waiting.sort_by_key(|record| record.attempts == 0);
        self.waiting = waiting.into();
        !self.waiting.is_empty()
    }

    fn ended(&mut self, change_id: u64, result: Result<(), Error>) {
        self.carried.remove(&change_id);
        match result {
            Ok(()) => drop(self.resting.remove(&change_id)),
            Err(error) => {
                tracing::info!(change_id, %error, "a change of a shard did not get on; it comes again");
                let times = self.resting.get(&change_id).map_or(0, |(_, times)| *times);
                let rest = (REST_FIRST * (1 << times.min(16))).min(REST_MOST);
                // Smeared: changes that failed together do not come back together.
                let rest = rest / 2 + rest.mul_f64((seam::random_u64() % 1000) as f64 / 2000.0);
                self.resting.insert(change_id, (Instant::now() + rest, times + 1));
            }
        }
    }
}
