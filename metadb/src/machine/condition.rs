//! Conditions: what must hold for a transaction to commit, judged in order against the newest rows.

use super::{Refusal, Run};
use crate::read::key_value;
use crate::rows::data::{self, Stored};
use bytes::Bytes;
use metadb_proto::Error;
use metadb_proto::v1::{self, condition::Test};

/// A condition that failed: its index, and the row it met.
type Failed = (usize, Option<v1::KeyValue>);

impl Run<'_> {
    /// The first condition that does not hold.
    pub(super) fn failed_condition(&self, tenant_id: u64, conditions: &[v1::Condition]) -> Result<Option<Failed>, Refusal> {
        let mut range_keys = 0;
        for (index, condition) in conditions.iter().enumerate() {
            let failed = match condition.test.as_ref().ok_or_else(|| Error::invalid("conditions.test", "present", "absent"))? {
                Test::RangeEmpty(range) => self.range_not_empty(tenant_id, &condition.key, &range.end)?,
                Test::RangeUnchanged(range) => self.range_changed(tenant_id, &condition.key, range, &mut range_keys)?,
                test @ (Test::VersionEquals(_) | Test::Exists(_) | Test::Absent(_) | Test::ValueEquals(_)) => {
                    self.key_differs(tenant_id, &condition.key, test)?
                }
            };
            if let Some(actual) = failed {
                return Ok(Some((index, actual)));
            }
        }
        Ok(None)
    }

    /// `None`: it holds. Else the row met, if there is one.
    fn key_differs(&self, tenant_id: u64, key: &Bytes, test: &Test) -> Result<Option<Option<v1::KeyValue>>, Refusal> {
        let stored = self.overlay.newest(&data::stem(self.group_id, tenant_id, key))?.filter(Stored::is_live);
        let holds = match test {
            Test::Exists(_) => stored.is_some(),
            Test::Absent(_) => stored.is_none(),
            // Version 0 is that of a key that is not there.
            Test::VersionEquals(version) => stored.as_ref().map_or(0, |stored| stored.version.0) == *version,
            Test::ValueEquals(value) => stored.as_ref().and_then(Stored::value).is_some_and(|stored| stored == value),
            Test::RangeEmpty(_) | Test::RangeUnchanged(_) => return Err(Error::internal("a range is no key").into()),
        };
        Ok((!holds).then(|| stored.and_then(|stored| key_value(key.clone(), &stored))))
    }

    fn range_not_empty(&self, tenant_id: u64, start: &[u8], end: &[u8]) -> Result<Option<Option<v1::KeyValue>>, Refusal> {
        let Some(range) = data::range(self.group_id, tenant_id, start, end) else { return Ok(None) };
        match self.overlay.live(range).next().transpose()? {
            Some((stem, stored)) => Ok(Some(key_value(data::key_of(&stem)?, &stored))),
            None => Ok(None),
        }
    }

    /// The row met is the newest of the range. `range_keys`: how many keys the ranges of the transaction held so far.
    fn range_changed(
        &self,
        tenant_id: u64,
        start: &[u8],
        expected: &v1::condition::RangeUnchanged,
        range_keys: &mut u64,
    ) -> Result<Option<Option<v1::KeyValue>>, Refusal> {
        let (mut count, mut newest) = (0_u64, None::<(Bytes, Stored)>);
        if let Some(range) = data::range(self.group_id, tenant_id, start, &expected.end) {
            for row in self.overlay.live(range) {
                let (stem, stored) = row?;
                count += 1;
                *range_keys += 1;
                let most = self.overlay.meter.rules().range_condition_keys;
                let keys = if self.overlay.meter.rules().ranges_share_their_bound { *range_keys } else { count };
                if keys > most {
                    let limit = format!("ranges of at most {most} keys together; compare smaller ones");
                    return Err(Error::invalid("conditions.range_unchanged", limit, "more").into());
                }
                if newest.as_ref().is_none_or(|(_, newest)| newest.version < stored.version) {
                    newest = Some((stem, stored));
                }
            }
        }
        let highest = newest.as_ref().map_or(0, |(_, newest)| newest.version.0);
        if count == expected.count && highest == expected.highest_version {
            return Ok(None);
        }
        match newest {
            Some((stem, stored)) => Ok(Some(key_value(data::key_of(&stem)?, &stored))),
            None => Ok(Some(None)),
        }
    }
}
