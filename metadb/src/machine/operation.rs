//! Operations: what a transaction does, in order, each seeing what the ones before it did.

use super::Refusal;
use super::overlay::Overlay;
use crate::read::key_value;
use crate::rows::data::{self, Stored};
use bytes::Bytes;
use metadb_proto::v1::{self, operation::Op};
use metadb_proto::{Error, Version};

/// A transaction that is writing.
pub(super) struct Transaction<'a, 'b> {
    group_id: u32,
    tenant_id: u64,
    version: Version,
    overlay: &'a mut Overlay<'b>,
    /// Keys written, each once.
    keys: Vec<Bytes>,
    /// Operations so far that wrote a versionstamp.
    stamped: u16,
    /// Keys removed by ranges so far.
    range_deleted: usize,
    /// Bytes of those keys: the change log names each, and a row of it must fit a message.
    range_deleted_bytes: usize,
    /// Bytes of rows in the results so far.
    result_bytes: usize,
}

impl<'a, 'b> Transaction<'a, 'b> {
    pub(super) fn new(group_id: u32, tenant_id: u64, version: Version, overlay: &'a mut Overlay<'b>) -> Self {
        Transaction {
            group_id,
            tenant_id,
            version,
            overlay,
            keys: Vec::new(),
            stamped: 0,
            range_deleted: 0,
            range_deleted_bytes: 0,
            result_bytes: 0,
        }
    }

    /// The keys that were written.
    pub(super) fn into_keys(self) -> Vec<Bytes> {
        self.keys
    }

    /// Does one operation.
    pub(super) fn perform(&mut self, operation: &v1::Operation) -> Result<v1::OperationResult, Refusal> {
        match operation.op.as_ref().ok_or_else(|| Error::invalid("operations.op", "present", "absent"))? {
            Op::Get(get) => self.get(&get.key),
            Op::Put(put) => {
                self.put(&put.key, &put.value)?;
                Ok(v1::OperationResult::default())
            }
            Op::Delete(delete) => self.delete(&delete.key),
            Op::DeleteRange(range) => self.delete_range(&range.start, &range.end),
            Op::Add(add) => self.add(&add.key, add.delta),
            Op::PutVersionstamped(put) => self.put_versionstamped(put),
        }
    }

    fn stem(&self, key: &[u8]) -> Bytes {
        data::stem(self.group_id, self.tenant_id, key)
    }

    fn write(&mut self, stem: Bytes, key: &Bytes, stored: Stored) {
        if self.overlay.write(stem, stored) {
            self.keys.push(key.clone());
        }
    }

    fn result(&mut self, row: Option<v1::KeyValue>) -> Result<v1::OperationResult, Refusal> {
        self.result_bytes += row.as_ref().map_or(0, |row| row.key.len() + row.value.len());
        let most = self.overlay.meter.rules().result_bytes;
        if self.result_bytes > most {
            let limit = format!("results of at most {most} bytes together");
            return Err(Error::invalid("operations", limit, format!("at least {} bytes", self.result_bytes)).into());
        }
        Ok(v1::OperationResult { row, deleted: 0 })
    }

    fn get(&mut self, key: &Bytes) -> Result<v1::OperationResult, Refusal> {
        let stored = self.overlay.newest(&self.stem(key))?;
        self.result(stored.and_then(|stored| key_value(key.clone(), &stored)))
    }

    fn put(&mut self, key: &Bytes, value: &[u8]) -> Result<(), Refusal> {
        let most = self.overlay.meter.rules().key_bytes;
        if key.is_empty() || key.len() > most {
            let limit = format!("1 to {most} bytes");
            return Err(Error::invalid("operations.key", limit, format!("{} bytes", key.len())).into());
        }
        self.write(self.stem(key), key, Stored::put(self.version, value));
        Ok(())
    }

    fn delete(&mut self, key: &Bytes) -> Result<v1::OperationResult, Refusal> {
        let stem = self.stem(key);
        let there = self.overlay.newest(&stem)?.is_some_and(|stored| stored.is_live());
        if there {
            self.write(stem, key, Stored::deleted(self.version));
        }
        Ok(v1::OperationResult { row: None, deleted: u64::from(there) })
    }

    fn delete_range(&mut self, start: &[u8], end: &[u8]) -> Result<v1::OperationResult, Refusal> {
        let Some(range) = data::range(self.group_id, self.tenant_id, start, end) else { return Ok(v1::OperationResult::default()) };
        let rules = self.overlay.meter.rules();
        let allowed = rules.delete_range_keys - self.range_deleted;
        let mut keys = Vec::new();
        // Only keys are held: the values of so many rows may be more than there is memory.
        for row in self.overlay.live(range).take(allowed + 1) {
            let (stem, _) = row?;
            let key = data::key_of(&stem)?;
            self.range_deleted_bytes += key.len();
            if self.range_deleted_bytes > rules.delete_range_bytes {
                let limit = format!("ranges of at most {} bytes of keys together", rules.delete_range_bytes);
                return Err(Error::invalid("operations.delete_range", limit, "more").into());
            }
            keys.push((stem, key));
        }
        if keys.len() > allowed {
            let limit = format!("ranges of at most {} keys together", rules.delete_range_keys);
            return Err(Error::invalid("operations.delete_range", limit, "more").into());
        }
        self.range_deleted += keys.len();
        let deleted = keys.len() as u64;
        for (stem, key) in keys {
            self.write(stem, &key, Stored::deleted(self.version));
        }
        Ok(v1::OperationResult { row: None, deleted })
    }

    fn add(&mut self, key: &Bytes, delta: i64) -> Result<v1::OperationResult, Refusal> {
        let before = match self.overlay.newest(&self.stem(key))?.and_then(|stored| stored.value()) {
            None => 0,
            Some(value) => match <[u8; 8]>::try_from(&value[..]) {
                Ok(bytes) => i64::from_le_bytes(bytes),
                Err(_) => {
                    return Err(Error::invalid("operations.add", "a key whose value has 8 bytes", format!("{} bytes", value.len())).into());
                }
            },
        };
        let after = before
            .checked_add(delta)
            .ok_or_else(|| Error::invalid("operations.add.delta", "a sum that fits 64 bits with sign", format!("{before} plus {delta}")))?;
        let value = Bytes::copy_from_slice(&after.to_le_bytes());
        self.put(key, &value)?;
        self.result(Some(v1::KeyValue { key: key.clone(), value, version: self.version.0 }))
    }

    fn put_versionstamped(&mut self, put: &v1::operation::PutVersionstamped) -> Result<v1::OperationResult, Refusal> {
        let number = self.stamped;
        self.stamped = number.checked_add(1).ok_or_else(|| Error::invalid("operations", "at most 65535 versionstamps", "more"))?;
        let key = stamped_key(put, self.version, number);
        self.put(&key, &put.value)?;
        self.result(Some(v1::KeyValue { key, value: Bytes::new(), version: self.version.0 }))
    }
}

/// The key that a versionstamped put writes, being the `number`th of its transaction.
pub(super) fn stamped_key(put: &v1::operation::PutVersionstamped, version: Version, number: u16) -> Bytes {
    Bytes::from([&put.prefix[..], &version.0.to_be_bytes(), &number.to_be_bytes(), &put.suffix[..]].concat())
}
