//! Commands that change what the group owns, and rows that arrive with a shard.
//!
//! Imported rows go into the batch past the overlay: nobody reads them before the group owns their range. So an entry that brings rows ends
//! the batch, and whoever comes later in the same entry for the same tenant is told to come again.

use super::ownership::{self, Change, Range, ShardRow};
use super::{Run, rows};
use crate::command::Command;
use crate::rows::data::{self, Stored};
use bytes::Bytes;
use metadb_engine::{BatchOp, Cf};
use metadb_proto::v1::{self, shard_change as step};
use metadb_proto::{Error, Version, limits};
use std::sync::Arc;
use std::time::Duration;

/// When a caller may ask again whose shard arrived in the entry before.
const ARRIVED_RETRY: Duration = Duration::from_millis(1);

/// Most rows of a range that are removed one by one, and most bytes that are read to find them.
const FEW_ROWS: usize = 512;
const FEW_ROWS_BYTES: usize = 1 << 20;

/// The least version that a command may be given: a shard's versions go on rising where it arrives.
pub(super) fn above_fence(command: &Command) -> Version {
    let take_over = match command {
        Command::ImportRows(request) => request.take_over.as_ref(),
        Command::ChangeShard(v1::ChangeShard {
            change: Some(v1::ShardChange { change: Some(step::Change::TakeOver(take)), .. }), ..
        }) => Some(take),
        Command::ChangeShard(_) | Command::Transact(_) | Command::AdoptShard(_) | Command::DropShard(_) | Command::Compare(_) => None,
    };
    take_over.map_or(Version::ZERO, |take| Version(take.fence_version.saturating_add(1)))
}

impl Run<'_> {
    /// Splits, merges, or takes a step of a move.
    pub(super) fn change_shard(&mut self, request: v1::ChangeShard, version: Version) -> Result<Version, Error> {
        self.check_group(request.group_id)?;
        let change = request.change.ok_or_else(|| Error::invalid("change", "present", "absent"))?;
        let range = Range::read(change.range)?;
        let step = change.change.ok_or_else(|| Error::invalid("change.change", "present", "absent"))?;
        let changed = Arc::make_mut(&mut self.ownership).change(&range, change.epoch, &step, version)?;
        if matches!(changed, Change::Done(_)) && ownership::drops(&step) {
            self.drop_rows(range);
        }
        Ok(self.write_shards(changed, version))
    }

    /// Takes in rows and outcomes of a shard that is expected.
    pub(super) fn import(&mut self, request: v1::ImportRowsRequest, version: Version) -> Result<Version, Error> {
        self.check_group(request.group_id)?;
        let range = Range::read(request.range)?;
        let rows: Result<Vec<_>, Error> = request.rows.into_iter().map(|row| check_row(&range, row)).collect();
        let rows = rows?;
        let ownership = Arc::make_mut(&mut self.ownership);
        let mut changes = vec![ownership.arrived(&range, request.epoch, Version(request.through_version))?];
        if let Some(take_over) = request.take_over {
            changes.push(ownership.change(&range, request.epoch, &step::Change::TakeOver(take_over), version)?);
        }
        for (key, stored) in rows {
            let stem = data::stem(self.group_id, range.tenant_id, &key);
            self.overlay.meter.made(stem.len() + stored.row().len());
            self.batch.put(Cf::Data, data::row_key(&stem, stored.version), stored.row().clone());
        }
        for v1::ShardOutcome { request_id, outcome } in request.outcomes {
            // Under the generation of now: it stays for at least as long as one that was made here.
            self.remembered.keep(version, range.tenant_id, &request_id, &outcome.unwrap_or_default(), &mut self.batch);
        }
        self.arrived.insert(range.tenant_id);
        for change in changes {
            self.write_shards(change, version);
        }
        Ok(version)
    }

    /// Whether rows of the tenant arrived in the same entry.
    pub(super) fn check_arrivals(&self, tenant_id: u64) -> Result<(), Error> {
        if self.arrived.contains(&tenant_id) {
            return Err(Error::unavailable(format!("rows of tenant {tenant_id} arrive at this moment"), ARRIVED_RETRY));
        }
        Ok(())
    }

    fn drop_rows(&mut self, range: Range) {
        if let Some((start, end)) = data::range(self.group_id, range.tenant_id, &range.start, &range.end) {
            match self.few_rows(&start, &end) {
                Some(keys) => keys.into_iter().for_each(|key| self.batch.delete(Cf::Data, key)),
                None => self.batch.delete_range(Cf::Data, start.clone(), end.clone()),
            }
            self.overlay.drop_range(start, end);
            self.released.push(range);
        }
    }

    /// The keys of the rows of a range, if they are few. Those are removed one by one: a range that was deleted is looked at by every read of
    /// the store until a compaction, and thousands of small shards may go in a minute. What does not read back goes with its range.
    fn few_rows(&self, start: &Bytes, end: &Bytes) -> Option<Vec<Bytes>> {
        let is_put = |key: &Bytes| start <= key && (end.is_empty() || key < end);
        if self.batch.ops().iter().any(|(cf, op)| *cf == Cf::Data && matches!(op, BatchOp::Put(key, _) if is_put(key))) {
            return None;
        }
        let (mut keys, mut bytes) = (Vec::new(), 0);
        for row in self.store.cursor(Cf::Data, &start[..]..&end[..], false) {
            let (key, value) = row.ok()?;
            bytes += key.len() + value.len();
            if keys.len() == FEW_ROWS || bytes > FEW_ROWS_BYTES {
                return None;
            }
            keys.push(key);
        }
        Some(keys)
    }

    pub(super) fn adopt(&mut self, request: v1::AdoptShardRequest, version: Version) -> Result<Version, Error> {
        self.check_group(request.group_id)?;
        let range = Range::read(request.range)?;
        let change = Arc::make_mut(&mut self.ownership).adopt(&range, request.epoch, version)?;
        Ok(self.write_shards(change, version))
    }

    pub(super) fn release(&mut self, request: v1::DropShardRequest, version: Version) -> Result<Version, Error> {
        self.check_group(request.group_id)?;
        let range = Range::read(request.range)?;
        let change = Arc::make_mut(&mut self.ownership).release(&range, request.epoch, request.to_group_id, version)?;
        if matches!(change, Change::Done(_)) {
            self.drop_rows(range);
        }
        Ok(self.write_shards(change, version))
    }

    pub(super) fn check_group(&self, group_id: u32) -> Result<(), Error> {
        if group_id == self.group_id {
            return Ok(());
        }
        Err(Error::internal(format!("a command for group {group_id} came to group {}", self.group_id)))
    }

    fn write_shards(&mut self, change: Change, version: Version) -> Version {
        let rows: Vec<ShardRow> = match change {
            Change::Already(since) => return since,
            Change::Done(rows) => rows,
        };
        for (tenant_id, start, shard) in rows {
            let key = rows::shard::key(self.group_id, tenant_id, &start);
            match shard {
                Some(shard) => self.batch.put(Cf::State, key, shard.encode()),
                None => self.batch.delete(Cf::State, key),
            }
        }
        version
    }
}

fn check_row(range: &Range, row: v1::ShardRow) -> Result<(bytes::Bytes, Stored), Error> {
    let v1::ShardRow { key, version, value } = row;
    if !range.holds(&key) || key.len() > limits::KEY_BYTES {
        return Err(Error::invalid("rows.key", "a key of the shard", hex::encode(&key)));
    }
    let version = Version(version);
    Ok((key, value.map_or_else(|| Stored::deleted(version), |value| Stored::put(version, &value))))
}
