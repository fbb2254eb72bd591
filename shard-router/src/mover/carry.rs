//! One change of a shard, from wherever it stands to its end.

use super::copy::{Brought, range_of};
use super::step::{Sight, Step, next};
use super::{FENCE_BUDGET, Work};
use crate::operator::Ended;
use crate::{admin, metrics};
use metadb_proto::planted::{self, Bug};
use metadb_proto::v1::shard_change as change;
use metadb_proto::v1::{self, ShardChangeCost, ShardChangeRecord, ShardStatus};
use metadb_proto::{Error, seam};
use std::time::Duration;
use tokio::time::Instant;

/// How long a step may take that nobody waits for.
const STEP: Duration = Duration::from_secs(20);
/// A round that brought no more than one page, and so took no longer than this, is close: the next one is shorter still. The first round of
/// a small shard may be.
const CLOSE_PAGES: u64 = 1;
/// Rounds of catching up after which the writes are believed to outrun the copy.
const ROUNDS: u32 = 30;
/// Between two looks of the operator's wishes in a long copy.
const HEED: Duration = Duration::from_secs(1);
/// Failed steps in a row after which the change rests.
const FAILURES: u32 = 3;
/// Ends that took too long, after which the change rests.
const RETREATS: u32 = 3;

/// A change that is carried.
struct Carried<'a> {
    work: &'a Work,
    sight: Sight,
    begun: Instant,
    rounds: u32,
    retreats: u32,
    copied_bytes: u64,
    /// Since when the shard stands still.
    fenced: Option<Instant>,
    pause: Duration,
}

/// Carries a change to its end. Ok: it is done, or taken back, or waits for an operator.
pub(super) async fn carry(work: &Work, record: ShardChangeRecord) -> Result<(), Error> {
    let record = work.operator.claim_change(&record, "").await?;
    let mut carried = Carried {
        work,
        sight: Sight { record, ..Sight::default() },
        begun: Instant::now(),
        rounds: 0,
        retreats: 0,
        copied_bytes: 0,
        fenced: None,
        pause: Duration::ZERO,
    };
    let result = carried.run().await;
    if let Err(error) = &result {
        work.operator.note_problem(&carried.sight.record, carried.copied_bytes, error).await;
    }
    result
}

impl Carried<'_> {
    async fn run(&mut self) -> Result<(), Error> {
        let (mut failures, mut is_known) = (0, false);
        loop {
            if !is_known {
                self.look().await?;
            }
            let step = next(&self.sight);
            tracing::debug!(change_id = self.sight.record.change_id, ?step, "next");
            match self.take(&step).await {
                Ok(Done::Ended) => return Ok(()),
                Ok(Done::Step { version, through }) => {
                    failures = 0;
                    is_known = self.sight.foresee(&step, version, through);
                }
                Err(error) => {
                    failures += 1;
                    is_known = false;
                    tracing::debug!(change_id = self.sight.record.change_id, ?step, %error, "a step failed");
                    if self.is_over_budget() {
                        self.sight.retreats = true;
                    } else if failures >= FAILURES {
                        return Err(error);
                    }
                }
            }
        }
    }

    fn is_over_budget(&self) -> bool {
        self.fenced.is_some_and(|since| since.elapsed() >= FENCE_BUDGET)
    }

    /// Looks at what the logs of the groups say.
    async fn look(&mut self) -> Result<(), Error> {
        let record = &self.sight.record;
        let until = Instant::now() + STEP;
        let destination = async { if record.to_group_id == 0 { Ok(Vec::new()) } else { self.shards_at(record.to_group_id, until).await } };
        let (source, destination) = futures::future::try_join(self.shards_at(record.group_id, until), destination).await?;
        (self.sight.source, self.sight.destination) = (source, destination);
        if !self.sight.source.iter().any(|shard| shard.state() == v1::shard_status::State::Fenced) {
            self.fenced = None;
        }
        Ok(())
    }

    async fn shards_at(&self, group_id: u32, until: Instant) -> Result<Vec<ShardStatus>, Error> {
        let list = v1::ListShardsRequest { group_id, ranges: vec![range_of(&self.sight.record)], ..Default::default() };
        self.work.operator.router().at_leader(group_id, until, &admin::list_shards(list)).await.map(|list| list.shards)
    }

    async fn take(&mut self, step: &Step) -> Result<Done, Error> {
        let record = self.sight.record.clone();
        let (from, to, epoch) = (record.group_id, record.to_group_id, record.epoch);
        let done = |version| Done::Step { version, through: 0 };
        match step {
            Step::Split => {
                let split = change::Change::Split(v1::SplitShard { at: record.at.clone() });
                self.change(from, epoch, split, STEP).await.map(done)
            }
            Step::Merge => {
                let merge = change::Change::Merge(v1::MergeShards { at: record.at.clone() });
                self.change(from, epoch, merge, STEP).await.map(done)
            }
            Step::Expect => {
                let expect = change::Change::Expect(v1::ExpectShard { from_group_id: from });
                self.change(to, epoch, expect, STEP).await.map(done)
            }
            Step::Copy => self.copy(0).await,
            Step::CatchUp { through } => self.copy(*through).await,
            Step::Fence if planted::is(Bug::MoveWithoutFence) => {
                let reached = self.sight.destination.first().map_or(0, |shard| shard.through_version);
                Ok(done(reached))
            }
            Step::Fence => {
                self.fenced.get_or_insert_with(Instant::now);
                let fence = change::Change::Fence(v1::FenceShard { to_group_id: to });
                self.change(from, epoch, fence, FENCE_BUDGET).await.map(done)
            }
            Step::TakeOver { fence_version, through } => self.take_over(*fence_version, *through).await,
            Step::HandOver { epoch } => {
                let hand_over = change::Change::HandOver(v1::HandOverShard { to_group_id: to });
                self.change(from, *epoch, hand_over, STEP).await.map(done)
            }
            Step::Decline => {
                let decline = change::Change::Decline(v1::DeclineShard { from_group_id: from });
                self.change(to, epoch, decline, STEP).await.map(done)
            }
            Step::Lift { epoch } => {
                let version = self.change(from, *epoch, change::Change::Lift(v1::LiftFence {}), STEP).await?;
                self.stood_still();
                if std::mem::take(&mut self.sight.retreats) {
                    self.rest_after_retreat().await?;
                }
                Ok(done(version))
            }
            Step::Bar => self.bar().await.map(done),
            Step::RecordDone { epoch } => self.end(*epoch, v1::shard_history_record::Outcome::Done).await,
            Step::RecordCancelled { epoch } => self.end(*epoch, v1::shard_history_record::Outcome::Cancelled).await,
            Step::Claim => {
                let why = if self.sight.retreats { "the end of the move took too long" } else { "the attempt before was overtaken" };
                self.sight.record = self.work.operator.claim_change(&record, why).await?;
                Ok(done(0))
            }
            Step::Wait => self.work.operator.settle_change(&record).await.map(|()| Done::Ended),
            Step::Stuck { why } => Err(Error::internal(format!("change {} of a shard: {why}", record.change_id))),
        }
    }

    /// One change at a group.
    async fn change(&self, group_id: u32, epoch: u64, change: change::Change, within: Duration) -> Result<u64, Error> {
        self.changes(group_id, epoch, vec![(range_of(&self.sight.record), change)], within).await
    }

    async fn changes(
        &self,
        group_id: u32,
        epoch: u64,
        changes: Vec<(v1::ShardRange, change::Change)>,
        within: Duration,
    ) -> Result<u64, Error> {
        let changes = changes.into_iter().map(|(range, change)| v1::ShardChange { range: Some(range), epoch, change: Some(change) });
        let call = admin::change_shards(v1::ChangeShardsRequest { group_id, changes: changes.collect() });
        let answer = self.work.operator.router().at_leader(group_id, Instant::now() + within, &call).await?;
        let results =
            answer.results.into_iter().map(|result| result.error.map_or(Ok(result.version), |error| Err(Error::from_proto(error))));
        let versions: Vec<u64> = results.collect::<Result<_, _>>()?;
        versions.into_iter().max().ok_or_else(|| Error::internal("a change without a result"))
    }

    /// Has the shards of a split or a merge keep what they have.
    async fn bar(&self) -> Result<u64, Error> {
        let record = &self.sight.record;
        let whole = range_of(record);
        let ranges = if record.kind() == v1::shard_change_record::Kind::Merge {
            let lower = v1::ShardRange { end: record.at.clone(), ..whole.clone() };
            vec![lower, v1::ShardRange { start: record.at.clone(), ..whole }]
        } else {
            vec![whole]
        };
        let lifts = ranges.into_iter().map(|range| (range, change::Change::Lift(v1::LiftFence {}))).collect();
        self.changes(record.group_id, record.epoch, lifts, STEP).await
    }

    async fn copy(&mut self, after: u64) -> Result<Done, Error> {
        self.rounds += 1;
        if self.rounds > ROUNDS {
            self.rounds = 0;
            let message = format!("the shard is written faster than it is copied: {} bytes so far", self.copied_bytes);
            return Err(Error::unavailable(message, HEED));
        }
        let Brought { bytes, pages, through, .. } = self.heeding(after).await?;
        self.copied_bytes += bytes;
        self.sight.is_close = pages <= CLOSE_PAGES;
        Ok(Done::Step { version: 0, through })
    }

    /// Brings rows, and looks now and then whether an operator wants something else.
    async fn heeding(&mut self, after: u64) -> Result<Brought, Error> {
        let record = self.sight.record.clone();
        let brought = self.work.bring(&record, after, None);
        tokio::pin!(brought);
        loop {
            if let Ok(brought) = tokio::time::timeout(HEED, &mut brought).await {
                return brought;
            }
            let now = match self.work.operator.change_now(&record).await {
                Ok(now) => now,
                // A directory that can't be asked wants nothing new: the copy goes on.
                Err(Error::Unavailable { .. } | Error::Exhausted { .. } | Error::Moved { .. }) => continue,
                Err(error) => return Err(error),
            };
            if now.state != record.state || now.epoch != record.epoch {
                return Err(Error::Conflict { message: "an operator, or another mover, changed what shall be".to_owned() });
            }
        }
    }

    async fn take_over(&mut self, fence_version: u64, through: u64) -> Result<Done, Error> {
        let since = *self.fenced.get_or_insert_with(Instant::now);
        let until = (since + FENCE_BUDGET).max(Instant::now());
        let brought = self.work.bring(&self.sight.record, through, Some((fence_version, until))).await?;
        self.stood_still();
        self.copied_bytes += brought.bytes;
        Ok(Done::Step { version: brought.version, through: brought.through })
    }

    fn stood_still(&mut self) {
        if let Some(since) = self.fenced.take() {
            self.pause += since.elapsed();
        }
    }

    /// What has arrived stays: after a rest the end is tried again, a bounded number of times.
    async fn rest_after_retreat(&mut self) -> Result<(), Error> {
        self.retreats += 1;
        (self.rounds, self.sight.is_close) = (0, false);
        let rest = FENCE_BUDGET + Duration::from_millis(seam::random_u64() % 200);
        if self.retreats >= RETREATS {
            let message = format!("{RETREATS} times the end of the move took longer than {} ms", FENCE_BUDGET.as_millis());
            return Err(Error::unavailable(message, rest));
        }
        tokio::time::sleep(rest).await;
        Ok(())
    }

    async fn end(&mut self, epoch: u64, outcome: v1::shard_history_record::Outcome) -> Result<Done, Error> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let pause_micros = u64::try_from(self.pause.as_micros()).unwrap_or(u64::MAX);
        let actual = ShardChangeCost { bytes: self.copied_bytes, total_ms: millis(self.begun.elapsed()), pause_micros };
        let ended = Ended { change: self.sight.record.clone(), epoch, outcome, actual };
        self.work.operator.end_change(&ended).await?;
        let is_done = outcome == v1::shard_history_record::Outcome::Done;
        metrics::shard_change_ended(ended.change.kind(), is_done, Some(self.pause).filter(|pause| !pause.is_zero()));
        Ok(Done::Ended)
    }
}

/// What became of a step.
enum Done {
    /// It was done.
    Step {
        /// Since which version it is so.
        version: u64,
        /// Up to here everything was brought.
        through: u64,
    },
    /// There is nothing more to do.
    Ended,
}
