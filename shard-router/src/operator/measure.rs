//! What groups say of their shards, how much each holds, and what a change of one may be expected to cost.
//!
//! Expectations rest on what was measured: the size of a shard now, the setting that bounds moves, and what the last moves reached and how
//! long their shards stood still. Where nothing moved yet, constants stand in, which are documented for operators.

use super::Operator;
use crate::admin;
use crate::client::Scan;
use crate::directory::record;
use metadb_proto::settings::{Asker, Labels, Setting, Value, explain, registry};
use metadb_proto::v1::shard_change_record::Kind;
use metadb_proto::v1::{
    ListShardsRequest, SettingRecord, ShardChangeCost, ShardHistoryRecord, ShardRange, ShardRecord, ShardStatus, shard_history_record,
};
use metadb_proto::{Error, directory};
use std::cmp::Reverse;
use std::time::Duration;
use tokio::time::Instant;

/// Ranges that one call names.
const RANGES_AT_ONCE: usize = 1024;
/// Shards that one call lists.
const LISTED_AT_ONCE: u32 = 4096;
/// Shards of a group that are listed at all: many times what a node is made for.
const LISTED: usize = 200_000;
/// Moves that expectations rest on, the last ones.
const RECENT: usize = 16;
/// Records of the history that are read to find them.
const HISTORY_READ: u32 = 512;
/// A move that brought less tells nothing of the rate.
const TELLING_BYTES: u64 = 1 << 20;
/// What a change takes besides copying while nothing is known: a handful of entries.
const STEPS: Duration = Duration::from_millis(100);
/// For how long a shard stands still while nothing is known.
const PAUSE: Duration = Duration::from_millis(20);
/// What is copied in a second while nothing is known and nothing bounds it, in bytes.
const RATE: u64 = 32 << 20;

/// What shall be known of shards besides what the group's log says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Nothing.
    Nothing,
    /// About how much each holds.
    Sizes,
    /// That, and the key in the middle.
    Middles,
}

/// What changes of shards may be expected to cost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outlook {
    /// What all moves together may copy in a second; 0: nothing bounds it.
    pub bytes_per_s: u64,
    /// How many run at a time; 0: one.
    pub at_once: u64,
    /// What the last moves cost, the last one first.
    pub recent: Vec<ShardChangeCost>,
}

impl Outlook {
    /// What a second copies: as much as the fastest of the last moves did, or else as much as is allowed.
    #[must_use]
    pub fn rate(&self) -> u64 {
        let telling = self.recent.iter().filter(|cost| cost.bytes >= TELLING_BYTES && cost.total_ms > 0);
        let reached = telling.map(|cost| cost.bytes.saturating_mul(1000) / cost.total_ms).max();
        let allowed = if self.bytes_per_s == 0 { reached.unwrap_or(RATE) } else { self.bytes_per_s };
        reached.map_or(allowed, |reached| reached.min(allowed)).max(1)
    }

    /// A move of so many bytes.
    #[must_use]
    pub fn of_move(&self, bytes: u64) -> ShardChangeCost {
        self.of_moves(1, bytes)
    }

    /// So many moves, of so many bytes together.
    #[must_use]
    pub fn of_moves(&self, moves: u64, bytes: u64) -> ShardChangeCost {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let pause_micros = middle(self.recent.iter().map(|cost| cost.pause_micros)).unwrap_or(micros(PAUSE));
        let small = self.recent.iter().filter(|cost| cost.bytes < TELLING_BYTES).map(|cost| cost.total_ms);
        let steps_ms = middle(small).unwrap_or(micros(STEPS) / 1000);
        let steps_ms = u128::from(steps_ms) * u128::from(moves.div_ceil(self.at_once.max(1)));
        let total_ms = steps_ms + u128::from(bytes) * 1000 / u128::from(self.rate());
        ShardChangeCost { bytes, total_ms: u64::try_from(total_ms).unwrap_or(u64::MAX), pause_micros }
    }

    /// A split or a merge: no row moves, and nobody waits.
    #[must_use]
    pub fn in_place(&self) -> ShardChangeCost {
        ShardChangeCost { bytes: 0, total_ms: u64::try_from(STEPS.as_millis()).unwrap_or(u64::MAX), pause_micros: 0 }
    }
}

fn middle(numbers: impl Iterator<Item = u64>) -> Option<u64> {
    let mut numbers: Vec<u64> = numbers.collect();
    numbers.sort_unstable();
    numbers.get(numbers.len() / 2).copied()
}

/// The last moves that went through in one attempt: of others it is not known what took how long.
fn recent_moves(mut history: Vec<ShardHistoryRecord>) -> Vec<ShardChangeCost> {
    history.sort_by_key(|ended| Reverse(ended.ended_at_ms));
    history.dedup_by_key(|ended| (ended.ended_at_ms, ended.change.as_ref().map(|change| change.change_id)));
    let went_through = |ended: &ShardHistoryRecord| {
        let is_plain = ended.change.as_ref().is_some_and(|change| change.kind() == Kind::Move && change.attempts <= 1);
        is_plain && ended.outcome() == shard_history_record::Outcome::Done
    };
    history.into_iter().filter(went_through).filter_map(|ended| ended.actual).take(RECENT).collect()
}

/// The bound that holds for a node without labels; a node with labels may have another one.
fn bound(setting: &'static Setting<u64>, records: &[SettingRecord]) -> u64 {
    let held = explain(&setting.definition, records, &Labels::default(), Asker::NODE);
    match held.first().map(|candidate| candidate.value) {
        Some(Value::Integer(bound)) => bound,
        Some(Value::Flag(_) | Value::Choice(_)) | None => 0,
    }
}

/// A shard's range.
#[must_use]
pub fn range_of(shard: &ShardRecord) -> ShardRange {
    ShardRange { tenant_id: shard.tenant_id, start: shard.start.clone(), end: shard.end.clone() }
}

impl Operator {
    /// What a group's own log says of the shards in ranges.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the group does not answer in time; [`Error::Invalid`] for the middles of more than 16 shards.
    pub async fn shards_in(
        &self,
        group_id: u32,
        ranges: &[ShardRange],
        measure: Measure,
        within: Duration,
    ) -> Result<Vec<ShardStatus>, Error> {
        let until = Instant::now() + within;
        let mut shards = Vec::new();
        for ranges in ranges.chunks(RANGES_AT_ONCE) {
            let list = request(group_id, measure);
            let list = ListShardsRequest { ranges: ranges.to_vec(), ..list };
            shards.extend(self.router().at_leader(group_id, until, &admin::list_shards(list)).await?.shards);
        }
        Ok(shards)
    }

    /// What a group's own log says of all its shards, with about how much each holds.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the group does not answer in time.
    pub async fn shards_of_group(&self, group_id: u32, within: Duration) -> Result<Vec<ShardStatus>, Error> {
        let until = Instant::now() + within;
        let mut shards: Vec<ShardStatus> = Vec::new();
        loop {
            let after = shards.last().and_then(|shard| shard.range.clone());
            let list = ListShardsRequest { after, limit: LISTED_AT_ONCE, ..request(group_id, Measure::Sizes) };
            let page = self.router().at_leader(group_id, until, &admin::list_shards(list)).await?;
            let is_last = !page.more || page.shards.is_empty();
            shards.extend(page.shards);
            if is_last || shards.len() >= LISTED {
                return Ok(shards);
            }
        }
    }

    /// The first shards of all tenants, at most so many.
    ///
    /// # Errors
    /// As [`crate::Client::scan`] on the directory.
    pub async fn every_shard(&self, most: usize) -> Result<Vec<ShardRecord>, Error> {
        let (start, end) = directory::records("shard");
        let mut scan = Scan { start: start.into(), end: end.into(), ..Scan::default() };
        let mut shards = Vec::new();
        loop {
            let page = self.directory().scan(scan.clone()).await?;
            for row in page.rows.iter().take(most - shards.len()) {
                shards.push(record(row)?);
            }
            if page.continuation.is_empty() || shards.len() >= most {
                return Ok(shards);
            }
            scan.continuation = page.continuation;
        }
    }

    /// What changes of a tenant's shards, or of anybody's, may be expected to cost now.
    ///
    /// # Errors
    /// As [`crate::Client::scan`] on the directory.
    pub async fn outlook(&self, tenant_id: Option<u64>) -> Result<Outlook, Error> {
        let settings = self.settings().await?;
        let (start, end) = directory::records("shard_history");
        let scan = Scan { start: start.into(), end: end.into(), limit: HISTORY_READ, reverse: true, ..Scan::default() };
        let page = self.directory().scan(scan).await?;
        let mut history: Vec<ShardHistoryRecord> = page.rows.iter().map(record).collect::<Result<_, _>>()?;
        if let Some(tenant_id) = tenant_id {
            history.extend(self.shard_history(tenant_id).await?);
        }
        Ok(Outlook {
            bytes_per_s: bound(&registry::SHARDS_MOVE_MIB_PER_S, &settings) << 20,
            at_once: bound(&registry::SHARDS_CHANGES_AT_ONCE, &settings),
            recent: recent_moves(history),
        })
    }
}

fn request(group_id: u32, measure: Measure) -> ListShardsRequest {
    let (with_sizes, with_middles) = (measure != Measure::Nothing, measure == Measure::Middles);
    ListShardsRequest { group_id, with_sizes, with_middles, ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metadb_proto::v1::ShardChangeRecord;

    const MIB: u64 = 1 << 20;

    fn cost(bytes: u64, total_ms: u64, pause_micros: u64) -> ShardChangeCost {
        ShardChangeCost { bytes, total_ms, pause_micros }
    }

    #[test]
    fn without_a_history_the_setting_and_constants_say_what_to_expect() {
        let outlook = Outlook { bytes_per_s: 64 * MIB, ..Outlook::default() };
        assert_eq!(outlook.of_move(640 * MIB), cost(640 * MIB, 10_100, 20_000));
        assert_eq!(Outlook::default().of_move(64 * MIB), cost(64 * MIB, 2_100, 20_000), "nothing bounds it");
        assert_eq!(outlook.in_place().pause_micros, 0);
    }

    #[test]
    fn what_moves_reached_counts_up_to_what_is_allowed() {
        let recent = vec![cost(10 * MIB, 1000, 9_000), cost(20 * MIB, 1000, 5_000), cost(1000, 150, 7_000)];
        let fast = Outlook { bytes_per_s: 64 * MIB, at_once: 4, recent: recent.clone() };
        assert_eq!(fast.of_moves(9, 40 * MIB).total_ms, 3 * 150 + 2000);
        assert_eq!(fast.of_move(40 * MIB), cost(40 * MIB, 2_150, 7_000));
        let bounded = Outlook { bytes_per_s: 4 * MIB, recent, ..Outlook::default() };
        assert_eq!(bounded.of_move(40 * MIB).total_ms, 10_150);
    }

    #[test]
    fn only_moves_that_went_through_at_once_tell_something_each_once() {
        let ended = |change_id, kind: Kind, attempts, outcome: shard_history_record::Outcome| ShardHistoryRecord {
            change: Some(ShardChangeRecord { change_id, kind: kind.into(), attempts, ..Default::default() }),
            outcome: outcome.into(),
            ended_at_ms: change_id,
            actual: Some(cost(change_id, 1, 1)),
        };
        use shard_history_record::Outcome::{Cancelled, Done};
        let mut history = vec![
            ended(1, Kind::Move, 1, Done),
            ended(2, Kind::Split, 1, Done),
            ended(3, Kind::Move, 2, Done),
            ended(4, Kind::Move, 1, Cancelled),
            ended(5, Kind::Move, 1, Done),
        ];
        history.extend(history.clone());
        assert_eq!(recent_moves(history).iter().map(|cost| cost.bytes).collect::<Vec<_>>(), [5, 1]);
    }

    #[test]
    fn the_bound_is_that_of_the_cluster() {
        let bound = |records: &[SettingRecord]| bound(&registry::SHARDS_MOVE_MIB_PER_S, records);
        assert_eq!(bound(&[]), 64, "the default");
        let scope = metadb_proto::settings::Scope::Cluster.to_proto();
        let set = SettingRecord { name: "shards.move_mib_per_s".into(), scope: Some(scope), value: "3".into(), ..Default::default() };
        assert_eq!(bound(&[set]), 3);
    }
}
