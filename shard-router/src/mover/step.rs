//! The next step of a change of a shard: a pure function of its record in the directory and of what the logs of the groups say.
//!
//! Nothing else is remembered, so whoever dies at any point is followed by someone who sees the same and does the same. A mover claims a
//! change by taking a higher epoch for it; what an earlier one still sends is refused by the groups. The order of the steps of a move, and
//! what each relies on, stands in `shard.proto`.

use metadb_proto::v1::shard_change_record::{Kind, State};
use metadb_proto::v1::shard_status::State as Seen;
use metadb_proto::v1::{ShardChangeRecord, ShardRange, ShardStatus};

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// At the group: cut the shard.
    Split,
    /// At the group: put the two shards together.
    Merge,
    /// At the destination: expect the rows.
    Expect,
    /// From the source to the destination: all rows.
    Copy,
    /// From the source to the destination: what was committed above a version.
    CatchUp {
        /// Up to here everything is there.
        through: u64,
    },
    /// At the source: stop reading and writing the shard.
    Fence,
    /// Bring the last rows, and take over at the destination.
    TakeOver {
        /// The version of the fence.
        fence_version: u64,
        /// Up to here everything is there.
        through: u64,
    },
    /// At the source: drop the rows, keep a mark.
    HandOver {
        /// The epoch at which the shard was taken over.
        epoch: u64,
    },
    /// At the destination: never take it over at this epoch.
    Decline,
    /// At the source: go on with the shard at this epoch.
    Lift {
        /// Which.
        epoch: u64,
    },
    /// At the group: the shards keep what they have at this epoch, and what comes later with it is too late.
    Bar,
    /// In the directory: note that the change is done.
    RecordDone {
        /// The epoch that the shard has now.
        epoch: u64,
    },
    /// In the directory: note that the change was taken back.
    RecordCancelled {
        /// The epoch that the shard has now.
        epoch: u64,
    },
    /// Someone took this attempt's epoch: claim a higher one.
    Claim,
    /// Nothing, until an operator says so.
    Wait,
    /// The logs say what can't be: a person must look.
    Stuck {
        /// What they say.
        why: String,
    },
}

/// What is known at a moment.
#[derive(Debug, Clone, Default)]
pub struct Sight {
    /// The change, at this mover's epoch.
    pub record: ShardChangeRecord,
    /// What the group that owned the shard says of its range.
    pub source: Vec<ShardStatus>,
    /// What the group that gets it says.
    pub destination: Vec<ShardStatus>,
    /// Whether little enough is missing at the destination that the end may begin.
    pub is_close: bool,
    /// Whether the end took too long: the fence is lifted, and all that has arrived stays.
    pub retreats: bool,
}

impl Sight {
    /// As it is after a step was done at a version, so that nobody needs to look again. False: look.
    #[must_use]
    pub fn foresee(&mut self, step: &Step, version: u64, through: u64) -> bool {
        let ShardChangeRecord { start, end, epoch, group_id, to_group_id, .. } = self.record.clone();
        let range = Some(ShardRange { tenant_id: self.record.tenant_id, start: start.clone(), end: end.clone() });
        let status = |state: Seen, other_group_id| ShardStatus {
            range: range.clone(),
            state: state.into(),
            epoch,
            version,
            other_group_id,
            ..Default::default()
        };
        match step {
            Step::Expect => {
                // What had arrived for an earlier attempt stays.
                let through_version = exactly(&self.destination, &start, &end).map_or(0, |shard| shard.through_version);
                self.destination = vec![ShardStatus { through_version, ..status(Seen::Expected, group_id) }];
            }
            Step::Copy | Step::CatchUp { .. } => self.destination.iter_mut().for_each(|shard| shard.through_version = through),
            Step::Fence => self.source.iter_mut().for_each(|shard| {
                shard.set_state(Seen::Fenced);
                (shard.version, shard.move_epoch, shard.other_group_id) = (version, epoch, to_group_id);
            }),
            Step::TakeOver { .. } => self.destination = vec![status(Seen::Owned, 0)],
            Step::HandOver { .. } => self.source = vec![status(Seen::Dropped, to_group_id)],
            Step::Split
            | Step::Merge
            | Step::Decline
            | Step::Bar
            | Step::Lift { .. }
            | Step::RecordDone { .. }
            | Step::RecordCancelled { .. }
            | Step::Claim
            | Step::Wait
            | Step::Stuck { .. } => return false,
        }
        true
    }
}

/// The next step.
#[must_use]
pub fn next(sight: &Sight) -> Step {
    match sight.record.kind() {
        Kind::Split | Kind::Merge => change_in_place(sight),
        Kind::Move => step_of_move(sight),
        Kind::Unspecified => Step::Stuck { why: "a change of a kind that this build does not know".to_owned() },
    }
}

fn exactly<'a>(shards: &'a [ShardStatus], start: &[u8], end: &[u8]) -> Option<&'a ShardStatus> {
    shards.iter().find(|shard| shard.range.as_ref().is_some_and(|range| range.start == start && range.end == end))
}

fn change_in_place(sight: &Sight) -> Step {
    let ShardChangeRecord { start, end, at, epoch, .. } = &sight.record;
    let whole = exactly(&sight.source, start, end);
    let halves = [exactly(&sight.source, start, at), exactly(&sight.source, at, end)];
    let is_split = sight.record.kind() == Kind::Split;
    let (before, after): (Vec<_>, Vec<_>) = if is_split { (vec![whole], halves.to_vec()) } else { (halves.to_vec(), vec![whole]) };
    // The lowest epoch of shards that are all owned.
    let owned = |shards: &[Option<&ShardStatus>]| -> Option<u64> {
        let epochs: Option<Vec<u64>> =
            shards.iter().map(|shard| shard.filter(|shard| shard.state() == Seen::Owned).map(|shard| shard.epoch)).collect();
        epochs.and_then(|epochs| epochs.into_iter().min())
    };
    let newest = before.iter().flatten().map(|shard| shard.epoch).max().unwrap_or(0);
    match (owned(&after), owned(&before), sight.record.state()) {
        // Whoever did it, it is done; a cancellation came too late.
        (Some(epoch), ..) => Step::RecordDone { epoch },
        // What an earlier attempt sent may still come: it must be too late when the change is gone.
        (None, Some(known), State::Cancelling) if known >= *epoch => Step::RecordCancelled { epoch: known },
        (None, Some(_), State::Cancelling) => Step::Bar,
        (None, Some(_), State::Paused) => Step::Wait,
        (None, Some(_), _) if newest >= *epoch => Step::Claim,
        (None, Some(_), _) if is_split => Step::Split,
        (None, Some(_), _) => Step::Merge,
        (None, None, _) => {
            Step::Stuck { why: format!("group {} has neither the shard as it was nor as it shall be", sight.record.group_id) }
        }
    }
}

fn step_of_move(sight: &Sight) -> Step {
    let record = &sight.record;
    let epoch = record.epoch;
    let source = exactly(&sight.source, &record.start, &record.end);
    let destination = exactly(&sight.destination, &record.start, &record.end);
    let Some(source) = source else {
        return match destination {
            Some(taken) if taken.state() == Seen::Owned => Step::RecordDone { epoch: taken.epoch },
            _ => Step::Stuck { why: format!("group {} does not know the shard", record.group_id) },
        };
    };
    if let Some(taken) = destination.filter(|shard| matches!(shard.state(), Seen::Owned | Seen::Fenced)) {
        return match source.state() {
            Seen::Fenced if source.move_epoch == taken.epoch => Step::HandOver { epoch: taken.epoch },
            Seen::Dropped => Step::RecordDone { epoch: taken.epoch },
            Seen::Unspecified | Seen::Owned | Seen::Fenced | Seen::Expected => {
                Step::Stuck { why: format!("groups {} and {} both claim the shard", record.group_id, record.to_group_id) }
            }
        };
    }
    let (expected, seen_epoch) = destination.map_or((None, 0), |shard| ((shard.state() == Seen::Expected).then_some(shard), shard.epoch));
    if source.state() == Seen::Dropped {
        return Step::Stuck {
            why: format!("group {} gave the shard away, and group {} does not have it", record.group_id, record.to_group_id),
        };
    }
    if record.state() == State::Cancelling {
        return cancel(epoch, source, expected.is_some(), seen_epoch);
    }
    let is_fenced = source.state() == Seen::Fenced;
    if record.state() == State::Paused && !is_fenced {
        return Step::Wait;
    }
    match expected {
        None if seen_epoch >= epoch => Step::Claim,
        None => Step::Expect,
        Some(expected) if expected.epoch > epoch => Step::Claim,
        Some(expected) if expected.epoch < epoch => Step::Expect,
        // The destination has this epoch, so no earlier one can take over: the fence of an earlier one may go.
        Some(_) if is_fenced && source.move_epoch < epoch && sight.retreats => Step::Lift { epoch: source.move_epoch },
        Some(_) if source.state() == Seen::Owned && source.epoch >= epoch => Step::Claim,
        Some(_) if is_fenced && source.move_epoch > epoch => Step::Claim,
        Some(expected) if expected.through_version == 0 && !is_fenced => Step::Copy,
        Some(_) if is_fenced && source.move_epoch < epoch => Step::Fence,
        Some(_) if is_fenced && sight.retreats => Step::Claim,
        Some(expected) if is_fenced => Step::TakeOver { fence_version: source.version, through: expected.through_version },
        Some(_) if sight.is_close => Step::Fence,
        Some(expected) => Step::CatchUp { through: expected.through_version },
    }
}

fn cancel(epoch: u64, source: &ShardStatus, is_expected: bool, seen_epoch: u64) -> Step {
    let lifted = source.state() == Seen::Owned && source.epoch >= epoch;
    if lifted && !is_expected {
        return Step::RecordCancelled { epoch: source.epoch };
    }
    if seen_epoch > epoch || source.move_epoch > epoch {
        return Step::Claim;
    }
    if is_expected || seen_epoch < epoch {
        return Step::Decline;
    }
    Step::Lift { epoch }
}

#[cfg(test)]
#[path = "step_tests.rs"]
mod tests;
