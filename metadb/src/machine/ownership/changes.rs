//! Splits, merges and the steps of moves, as one group knows them.
//!
//! Each names the epoch that the shard has afterwards. A step of a move with a higher epoch than the steps before it comes from another
//! mover, which goes on where the first one was; from then on the first one is too late. What was done is answered alike when it is asked
//! again.

use super::{Change, Ownership, Range, late, moved, under_way};
use crate::rows::shard::{Shard, State};
use bytes::Bytes;
use metadb_proto::directory::{DIRECTORY_GROUP, DIRECTORY_TENANT};
use metadb_proto::v1::{self, shard_change as step};
use metadb_proto::{Error, Version};

impl Ownership {
    /// Makes a change at a version. Whether its rows go with it: [`drops`].
    pub(crate) fn change(&mut self, range: &Range, epoch: u64, change: &step::Change, version: Version) -> Result<Change, Error> {
        if range.tenant_id == DIRECTORY_TENANT {
            return Err(Error::invalid("range.tenant_id", "a tenant; the directory is one shard and never moves", "0"));
        }
        match change {
            step::Change::Split(split) => self.split(range, &split.at, epoch, version),
            step::Change::Merge(merge) => self.merge(range, &merge.at, epoch, version),
            step::Change::Expect(expect) => self.expect(range, expect.from_group_id, epoch, version),
            step::Change::TakeOver(take) => self.take_over(range, take.from_group_id, epoch, Version(take.fence_version), version),
            step::Change::Decline(decline) => self.decline(range, decline.from_group_id, epoch, version),
            step::Change::Fence(fence) => self.fence(range, fence.to_group_id, epoch, version),
            step::Change::Lift(v1::LiftFence {}) => self.lift(range, epoch, version),
            step::Change::HandOver(hand) => self.hand_over(range, hand.to_group_id, epoch, version),
        }
    }

    fn exactly(&self, range: &Range) -> Option<&Shard> {
        self.tenants.get(&range.tenant_id)?.get(&range.start).filter(|shard| shard.end == range.end)
    }

    /// A shard that can be cut or put together: owned, not on its way, and not changed at this epoch or a later one.
    fn at_rest(&self, range: &Range, epoch: u64) -> Result<&Shard, Error> {
        let Some(shard) = self.exactly(range) else { return Err(self.no_such(range)) };
        match shard.state {
            State::Owned if shard.epoch < epoch => Ok(shard),
            State::Owned => Err(late(epoch, shard.epoch)),
            State::Fenced { .. } | State::Expected { .. } => Err(under_way(&range.start)),
            State::Dropped { to } => {
                Err(moved(self.group_id, to.unwrap_or(DIRECTORY_GROUP), shard.epoch, Some((&range.start, &range.end))))
            }
        }
    }

    fn no_such(&self, range: &Range) -> Error {
        let there: Vec<String> = self.overlapping(range).iter().take(3).map(|(start, shard)| show(start, &shard.end)).collect();
        let is = if there.is_empty() { "nothing".to_owned() } else { there.join(", ") };
        let message =
            format!("group {} has no shard {} of tenant {}, but {is}", self.group_id, show(&range.start, &range.end), range.tenant_id);
        Error::Conflict { message }
    }

    fn halves(range: &Range, at: &Bytes) -> Result<(Range, Range), Error> {
        if *at <= range.start || (!range.end.is_empty() && *at >= range.end) {
            let limit = format!("a key inside of {}, above its start", show(&range.start, &range.end));
            return Err(Error::invalid("at", limit, hex::encode(at)));
        }
        let tenant_id = range.tenant_id;
        let lower = Range { tenant_id, start: range.start.clone(), end: at.clone() };
        Ok((lower, Range { tenant_id, start: at.clone(), end: range.end.clone() }))
    }

    fn split(&mut self, range: &Range, at: &Bytes, epoch: u64, version: Version) -> Result<Change, Error> {
        let (lower, upper) = Self::halves(range, at)?;
        if let (Some(lower), Some(upper)) = (self.exactly(&lower), self.exactly(&upper))
            && (lower.state, lower.epoch, upper.state, upper.epoch) == (State::Owned, epoch, State::Owned, epoch)
        {
            return Ok(Change::Already(lower.version));
        }
        self.at_rest(range, epoch)?;
        let half = |half: &Range| Shard { end: half.end.clone(), epoch, version, state: State::Owned };
        let mut rows = self.replace(&lower, half(&lower));
        rows.extend(self.replace(&upper, half(&upper)));
        Ok(Change::Done(rows))
    }

    fn merge(&mut self, range: &Range, at: &Bytes, epoch: u64, version: Version) -> Result<Change, Error> {
        let (lower, upper) = Self::halves(range, at)?;
        if let Some(whole) = self.exactly(range)
            && (whole.state, whole.epoch) == (State::Owned, epoch)
        {
            return Ok(Change::Already(whole.version));
        }
        self.at_rest(&lower, epoch)?;
        self.at_rest(&upper, epoch)?;
        Ok(Change::Done(self.replace(range, Shard { end: range.end.clone(), epoch, version, state: State::Owned })))
    }

    fn expect(&mut self, range: &Range, from: u32, epoch: u64, version: Version) -> Result<Change, Error> {
        if from == self.group_id {
            return Err(Error::invalid("expect.from_group_id", "another group", from.to_string()));
        }
        let mut through = Version::ZERO;
        for (start, shard) in self.overlapping(range) {
            let same = start == range.start && shard.end == range.end;
            match shard.state {
                State::Expected { from: known, .. } if same && known == from && shard.epoch == epoch => {
                    return Ok(Change::Already(shard.version));
                }
                _ if shard.epoch >= epoch => return Err(late(epoch, shard.epoch)),
                // What has arrived stays good: rows never change, and everything above `through` comes again.
                State::Expected { from: known, through: reached } if same && known == from => through = reached,
                State::Owned | State::Fenced { .. } | State::Expected { .. } => return Err(self.no_such(range)),
                State::Dropped { .. } => {}
            }
        }
        let shard = Shard { end: range.end.clone(), epoch, version, state: State::Expected { from, through } };
        Ok(Change::Done(self.replace(range, shard)))
    }

    /// The shard whose rows arrive at an epoch.
    fn arriving(&self, range: &Range, epoch: u64) -> Result<(&Shard, u32, Version), Error> {
        match self.exactly(range) {
            Some(shard @ Shard { state: State::Expected { from, through }, .. }) if shard.epoch == epoch => Ok((shard, *from, *through)),
            Some(shard) if shard.epoch > epoch => Err(late(epoch, shard.epoch)),
            Some(_) | None => Err(self.no_such(range)),
        }
    }

    /// Rows arrived; with them all rows are here up to `through`.
    pub(crate) fn arrived(&mut self, range: &Range, epoch: u64, through: Version) -> Result<Change, Error> {
        let (shard, from, reached) = self.arriving(range, epoch)?;
        if through <= reached {
            return Ok(Change::Already(shard.version));
        }
        let shard = Shard { state: State::Expected { from, through }, ..shard.clone() };
        Ok(Change::Done(self.replace(range, shard)))
    }

    fn take_over(&mut self, range: &Range, from: u32, epoch: u64, fence: Version, version: Version) -> Result<Change, Error> {
        if let Some(shard) = self.exactly(range)
            && (shard.state, shard.epoch) == (State::Owned, epoch)
        {
            return Ok(Change::Already(shard.version));
        }
        let (_, known, through) = self.arriving(range, epoch)?;
        if known != from || through < fence {
            let message =
                format!("rows of the shard came from group {known} up to version {through}, the fence is at {fence} of group {from}");
            return Err(Error::Conflict { message });
        }
        Ok(Change::Done(self.replace(range, Shard { end: range.end.clone(), epoch, version, state: State::Owned })))
    }

    fn decline(&mut self, range: &Range, from: u32, epoch: u64, version: Version) -> Result<Change, Error> {
        for (start, shard) in self.overlapping(range) {
            let same = start == range.start && shard.end == range.end;
            match shard.state {
                State::Dropped { .. } if same && shard.epoch >= epoch => return Ok(Change::Already(shard.version)),
                State::Owned | State::Fenced { .. } if shard.epoch >= epoch => {
                    return Err(Error::Conflict { message: format!("the shard was taken over at epoch {}", shard.epoch) });
                }
                _ if shard.epoch > epoch => return Err(late(epoch, shard.epoch)),
                State::Expected { .. } if same => {}
                State::Owned | State::Fenced { .. } | State::Expected { .. } => return Err(self.no_such(range)),
                State::Dropped { .. } => {}
            }
        }
        // A mark also where nothing was expected yet: whoever comes later with this epoch is too late.
        let mark = Shard { end: range.end.clone(), epoch, version, state: State::Dropped { to: Some(from) } };
        Ok(Change::Done(self.replace(range, mark)))
    }

    fn fence(&mut self, range: &Range, to: u32, epoch: u64, version: Version) -> Result<Change, Error> {
        if to == self.group_id {
            return Err(Error::invalid("fence.to_group_id", "another group", to.to_string()));
        }
        let Some(shard) = self.exactly(range) else { return Err(self.no_such(range)) };
        let fenced = Shard { version, state: State::Fenced { to, epoch }, ..shard.clone() };
        match shard.state {
            State::Fenced { to: known, epoch: at } if (known, at) == (to, epoch) => Ok(Change::Already(shard.version)),
            State::Fenced { epoch: at, .. } if at >= epoch => Err(late(epoch, at)),
            State::Owned if shard.epoch >= epoch => Err(late(epoch, shard.epoch)),
            State::Owned | State::Fenced { .. } => Ok(Change::Done(self.replace(range, fenced))),
            State::Expected { .. } => Err(under_way(&range.start)),
            State::Dropped { to } => {
                Err(moved(self.group_id, to.unwrap_or(DIRECTORY_GROUP), shard.epoch, Some((&range.start, &range.end))))
            }
        }
    }

    fn lift(&mut self, range: &Range, epoch: u64, version: Version) -> Result<Change, Error> {
        let Some(shard) = self.exactly(range) else { return Err(self.no_such(range)) };
        match shard.state {
            State::Owned if shard.epoch == epoch => return Ok(Change::Already(shard.version)),
            State::Owned if shard.epoch > epoch => return Err(late(epoch, shard.epoch)),
            State::Fenced { epoch: at, .. } if at > epoch => return Err(late(epoch, at)),
            // Also where there is no fence: one that is on its way with this epoch comes too late then.
            State::Owned | State::Fenced { .. } => {}
            State::Expected { .. } => return Err(under_way(&range.start)),
            State::Dropped { to } => {
                return Err(moved(self.group_id, to.unwrap_or(DIRECTORY_GROUP), shard.epoch, Some((&range.start, &range.end))));
            }
        }
        Ok(Change::Done(self.replace(range, Shard { end: range.end.clone(), epoch, version, state: State::Owned })))
    }

    fn hand_over(&mut self, range: &Range, to: u32, epoch: u64, version: Version) -> Result<Change, Error> {
        let Some(shard) = self.exactly(range) else { return Err(self.no_such(range)) };
        match shard.state {
            State::Dropped { .. } if shard.epoch >= epoch => return Ok(Change::Already(shard.version)),
            State::Fenced { to: known, epoch: at } if (known, at) == (to, epoch) => {}
            State::Owned | State::Fenced { .. } | State::Expected { .. } | State::Dropped { .. } => {
                let message = format!("the shard {} is not fenced at epoch {epoch} for group {to}", show(&range.start, &range.end));
                return Err(Error::Conflict { message });
            }
        }
        let mark = Shard { end: range.end.clone(), epoch, version, state: State::Dropped { to: Some(to) } };
        Ok(Change::Done(self.replace(range, mark)))
    }
}

/// Whether the rows of the range go with a change.
pub(crate) fn drops(change: &step::Change) -> bool {
    match change {
        step::Change::Decline(_) | step::Change::HandOver(_) => true,
        step::Change::Split(_)
        | step::Change::Merge(_)
        | step::Change::Expect(_)
        | step::Change::TakeOver(_)
        | step::Change::Fence(_)
        | step::Change::Lift(_) => false,
    }
}

fn show(start: &[u8], end: &[u8]) -> String {
    let end = if end.is_empty() { "the end".to_owned() } else { hex::encode(end) };
    format!("from {} to {end}", hex::encode(start))
}

#[cfg(test)]
#[path = "changes_tests.rs"]
mod tests;
