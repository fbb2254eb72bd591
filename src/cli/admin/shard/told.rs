//! Changes of shards, as they are printed: planned, under way, and ended with what was expected.

use super::find::{Names, end, start};
use crate::cli::admin::kv::escape;
use crate::cli::time;
use crate::output::{Show, duration, size};
use metadb_proto::v1::shard_change_record::{Kind, State};
use metadb_proto::v1::{ShardChangeCost, ShardChangeRecord, ShardHistoryRecord, shard_history_record};
use serde::Serialize;

/// What a change costs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Cost {
    pub(super) bytes: u64,
    pub(super) total_ms: u64,
    pub(super) pause_ms: f64,
}

impl From<ShardChangeCost> for Cost {
    fn from(cost: ShardChangeCost) -> Self {
        Cost { bytes: cost.bytes, total_ms: cost.total_ms, pause_ms: cost.pause_micros as f64 / 1000.0 }
    }
}

/// A change.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    /// Absent of one that is only planned.
    change: Option<u64>,
    tenant: String,
    kind: &'static str,
    start: String,
    end: String,
    /// Where it is split, or where the two shards met.
    at: Option<String>,
    group: u32,
    to_group: Option<u32>,
    pub(super) state: &'static str,
    created: String,
    ended: Option<String>,
    attempts: u32,
    copied_bytes: u64,
    expected: Option<Cost>,
    actual: Option<Cost>,
    problem: String,
    reason: String,
}

impl Row {
    /// One that is planned or under way.
    pub(super) fn of(change: &ShardChangeRecord, names: &Names) -> Self {
        let state = match change.state() {
            State::Paused if change.settled => "paused",
            State::Paused => "pausing",
            State::Cancelling => "cancelling",
            State::Running if change.change_id == 0 => "planned",
            State::Running => "running",
            State::Unspecified => "unknown",
        };
        Row {
            change: (change.change_id != 0).then_some(change.change_id),
            tenant: names.of(change.tenant_id),
            kind: kind(change.kind()),
            start: escape(&change.start),
            end: escape(&change.end),
            at: (!change.at.is_empty()).then(|| escape(&change.at)),
            group: change.group_id,
            to_group: (change.to_group_id != 0).then_some(change.to_group_id),
            state,
            created: time(change.created_at_ms),
            ended: None,
            attempts: change.attempts,
            copied_bytes: change.copied_bytes,
            expected: change.expected.map(Cost::from),
            actual: None,
            problem: change.problem.clone(),
            reason: change.reason.clone(),
        }
    }

    /// One that ended.
    pub(super) fn ended(ended: &ShardHistoryRecord, names: &Names) -> Self {
        let state = match ended.outcome() {
            shard_history_record::Outcome::Done => "done",
            shard_history_record::Outcome::Cancelled => "cancelled",
            shard_history_record::Outcome::Unspecified => "unknown",
        };
        let change = ended.change.clone().unwrap_or_default();
        Row { state, ended: Some(time(ended.ended_at_ms)), actual: ended.actual.map(Cost::from), ..Row::of(&change, names) }
    }

    fn head(&self) -> Vec<String> {
        let change = self.change.map_or_else(String::new, |id| id.to_string());
        let groups = self.to_group.map_or_else(|| self.group.to_string(), |to| format!("{} -> {to}", self.group));
        let kind = self.at.as_ref().map_or_else(|| self.kind.to_owned(), |at| format!("{} at {at}", self.kind));
        vec![change, self.tenant.clone(), kind, start_of(&self.start), end_of(&self.end), groups, self.state.to_owned()]
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Split => "split",
        Kind::Merge => "merge",
        Kind::Move => "move",
        Kind::Unspecified => "unknown",
    }
}

fn start_of(escaped: &str) -> String {
    if escaped.is_empty() { start(&[]) } else { escaped.to_owned() }
}

fn end_of(escaped: &str) -> String {
    if escaped.is_empty() { end(&[]) } else { escaped.to_owned() }
}

const HEAD: [&str; 7] = ["CHANGE", "TENANT", "KIND", "START", "END", "GROUP", "STATE"];

/// Changes that are only planned, and what all together would cost.
#[derive(Debug, Serialize)]
pub(super) struct Planned {
    pub(super) dry_run: bool,
    pub(super) changes: Vec<Row>,
    pub(super) expected: Cost,
}

impl Show for Planned {
    fn columns(&self) -> Vec<&'static str> {
        [&HEAD[1..6], &["BYTES", "TIME", "PAUSE"]].concat()
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let costs = |cost: Option<Cost>| match cost {
            Some(cost) => vec![size(cost.bytes), duration(cost.total_ms), pause(cost.pause_ms)],
            None => vec![String::new(); 3],
        };
        let mut rows: Vec<Vec<String>> = self.changes.iter().map(|row| [&row.head()[1..6], &costs(row.expected)].concat()).collect();
        if rows.len() > 1 {
            let mut sum = vec![String::new(); 5];
            sum[0] = format!("all {}", rows.len());
            rows.push([sum, costs(Some(self.expected))].concat());
        }
        rows
    }

    fn empty(&self) -> &'static str {
        "nothing to do"
    }
}

/// Changes that are under way.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct UnderWay(pub(super) Vec<Row>);

impl Show for UnderWay {
    fn columns(&self) -> Vec<&'static str> {
        [&HEAD[..], &["SINCE", "EXPECTED", "ATTEMPTS", "PROBLEM"]].concat()
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |row: &Row| {
            let expected = row.expected.map_or_else(String::new, |cost| format!("{} in {}", size(cost.bytes), duration(cost.total_ms)));
            [row.head(), vec![row.created.clone(), expected, row.attempts.to_string(), row.problem.clone()]].concat()
        };
        self.0.iter().map(row).collect()
    }

    fn empty(&self) -> &'static str {
        "no shard is being changed; `cairn admin shard history` shows what ended"
    }
}

/// Changes that ended.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct Ended(pub(super) Vec<Row>);

impl Show for Ended {
    fn columns(&self) -> Vec<&'static str> {
        [&HEAD[..], &["ENDED", "BYTES (EXPECTED)", "TIME (EXPECTED)", "PAUSE (EXPECTED)", "REASON"]].concat()
    }

    fn rows(&self) -> Vec<Vec<String>> {
        fn both<T: Copy>(row: &Row, of: fn(Cost) -> T, told: fn(T) -> String) -> String {
            match (row.actual.map(of), row.expected.map(of)) {
                (Some(actual), Some(expected)) => format!("{} ({})", told(actual), told(expected)),
                (Some(actual), None) => told(actual),
                (None, _) => String::new(),
            }
        }
        let row = |row: &Row| {
            let costs = [both(row, |c| c.bytes, size), both(row, |c| c.total_ms, duration), both(row, |c| c.pause_ms, pause)];
            [row.head(), vec![row.ended.clone().unwrap_or_default()], costs.to_vec(), vec![row.reason.clone()]].concat()
        };
        self.0.iter().map(row).collect()
    }

    fn empty(&self) -> &'static str {
        "nothing ended; `cairn admin shard changes` shows what is under way"
    }
}

/// Changes that were asked for: done, or left to the cluster.
#[derive(Debug, Serialize)]
pub(super) struct Asked {
    pub(super) dry_run: bool,
    pub(super) done: bool,
    pub(super) changes: Vec<Row>,
}

impl Show for Asked {
    fn columns(&self) -> Vec<&'static str> {
        if self.done { Ended(Vec::new()).columns() } else { UnderWay(Vec::new()).columns() }
    }

    fn rows(&self) -> Vec<Vec<String>> {
        if self.done { Ended(self.changes.clone()).rows() } else { UnderWay(self.changes.clone()).rows() }
    }
}

fn pause(ms: f64) -> String {
    format!("{ms:.1} ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change() -> ShardChangeRecord {
        ShardChangeRecord {
            change_id: 17,
            tenant_id: 7,
            start: "a\x00".into(),
            kind: Kind::Move.into(),
            group_id: 1,
            to_group_id: 3,
            state: State::Paused.into(),
            expected: Some(ShardChangeCost { bytes: 1_000_000, total_ms: 1500, pause_micros: 20_000 }),
            ..Default::default()
        }
    }

    #[test]
    fn a_change_is_told_with_what_was_expected_and_what_it_was() {
        let names = Names::default();
        let row = UnderWay(vec![Row::of(&change(), &names)]).rows().remove(0);
        assert_eq!(&row[..7], ["17", "#7", "move", "a\\x00", "(end)", "1 -> 3", "pausing"]);
        let actual = Some(ShardChangeCost { bytes: 2_000_000, total_ms: 900, pause_micros: 7_400 });
        let ended = ShardHistoryRecord {
            change: Some(change()),
            outcome: shard_history_record::Outcome::Done.into(),
            actual,
            ..Default::default()
        };
        let row = Ended(vec![Row::ended(&ended, &names)]).rows().remove(0);
        assert_eq!(&row[6..], ["done", "1970-01-01T00:00:00Z", "2.00 MB (1.00 MB)", "900 ms (1.5 s)", "7.4 ms (20.0 ms)", ""]);
    }

    #[test]
    fn every_table_is_as_wide_as_its_titles() {
        let row = Row::of(&ShardChangeRecord { change_id: 0, at: "m".into(), kind: Kind::Split.into(), ..change() }, &Names::default());
        let expected = Cost { bytes: 1, total_ms: 1, pause_ms: 1.0 };
        let planned = Planned { dry_run: true, changes: vec![row.clone(), row.clone()], expected };
        assert_eq!(planned.rows().len(), 3, "and their sum");
        assert!(planned.rows().iter().all(|cells| cells.len() == planned.columns().len()));
        for done in [false, true] {
            let asked = Asked { dry_run: false, done, changes: vec![row.clone()] };
            assert_eq!(asked.rows()[0].len(), asked.columns().len());
        }
    }

    #[test]
    fn times_have_few_digits() {
        assert_eq!([20, 1500, 150_000, 9_000_000].map(duration), ["20 ms", "1.5 s", "2 min", "2.5 h"]);
    }
}
