//! Transactions in the FoundationDB manner: reads are recorded as conditions, writes are buffered, one `Transact` at the end.
//!
//! Each read is linearizable by itself; that all of them still hold together is tested at the commit. So a body may see two states
//! mixed, but then it never commits.

use crate::client::{Client, Scan};
use crate::policy;
use crate::{condition, operation};
use bytes::Bytes;
use metadb_proto::v1::{self, KeyValue};
use metadb_proto::{Error, limits, seam};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use tokio::time::Instant;

/// A transaction while it is being put together. Cheap to clone; all clones are the same transaction.
#[derive(Clone)]
pub struct Transaction {
    client: Client,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Rows read from the database, by key: none if there was no such key.
    read: BTreeMap<Bytes, Option<KeyValue>>,
    ranges: Vec<v1::Condition>,
    operations: Vec<v1::Operation>,
    /// What the operations so far make of keys.
    written: Vec<Write>,
}

/// What one operation makes of keys, in the order written.
enum Write {
    Key {
        key: Bytes,
        effect: Effect,
    },
    /// From start to end, everything gone.
    Range {
        start: Bytes,
        end: Bytes,
    },
}

#[derive(Clone)]
enum Effect {
    Put(Bytes),
    Delete,
    Add(i64),
}

impl Transaction {
    fn new(client: Client) -> Self {
        Transaction { client, state: Arc::default() }
    }

    /// Reads a key, as the writes of this transaction leave it.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<Bytes>, Error> {
        let key = key.into();
        // A key that this transaction has set needs no look at the database.
        let known = {
            let state = self.state.lock();
            state.settled(&key).unwrap_or_else(|| state.read.get(&key).map(|row| row.as_ref().map(|row| row.value.clone())))
        };
        let below = match known {
            Some(value) => value,
            None => {
                let row = self.client.get(key.clone()).await?;
                self.state.lock().read.entry(key.clone()).or_insert(row).as_ref().map(|row| row.value.clone())
            }
        };
        self.state.lock().overlay(&key, below)
    }

    /// Reads a range in order, at most `limit` rows (0: all that fit a page), as the writes of this transaction leave it.
    ///
    /// # Errors
    /// As [`Client::scan`].
    pub async fn scan(&self, start: impl Into<Bytes>, end: impl Into<Bytes>, limit: u32) -> Result<Vec<(Bytes, Bytes)>, Error> {
        let (start, end) = (start.into(), end.into());
        let page = self.client.scan(Scan { start: start.clone(), end: end.clone(), limit, ..Scan::default() }).await?;
        // Only what was read is a condition: a page that was cut ends behind its last row.
        let seen_to = match page.rows.last() {
            Some(last) if !page.continuation.is_empty() => Bytes::from([last.key.as_ref(), &[0]].concat()),
            _ => end,
        };
        let highest = page.rows.iter().map(|row| row.version).max().unwrap_or(0);
        let unchanged = condition::range_unchanged(start.clone(), seen_to.clone(), page.rows.len() as u64, highest);
        let mut rows: BTreeMap<Bytes, Option<Bytes>> = page.rows.into_iter().map(|row| (row.key, Some(row.value))).collect();
        let mut state = self.state.lock();
        state.ranges.push(unchanged);
        for key in state.keys_written(&start, &seen_to) {
            rows.entry(key).or_insert(None);
        }
        let mut out = Vec::with_capacity(rows.len());
        for (key, below) in rows {
            if let Some(value) = state.overlay(&key, below)? {
                out.push((key, value));
            }
        }
        Ok(out)
    }

    /// Writes a key.
    pub fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        let (key, value) = (key.into(), value.into());
        self.write(operation::put(key.clone(), value.clone()), Some(Write::Key { key, effect: Effect::Put(value) }));
    }

    /// Removes a key.
    pub fn delete(&self, key: impl Into<Bytes>) {
        let key = key.into();
        self.write(operation::delete(key.clone()), Some(Write::Key { key, effect: Effect::Delete }));
    }

    /// Removes a range.
    pub fn delete_range(&self, start: impl Into<Bytes>, end: impl Into<Bytes>) {
        let (start, end) = (start.into(), end.into());
        self.write(operation::delete_range(start.clone(), end.clone()), Some(Write::Range { start, end }));
    }

    /// Adds to a counter, without reading it: such transactions do not conflict with each other.
    pub fn add(&self, key: impl Into<Bytes>, delta: i64) {
        let key = key.into();
        self.write(operation::add(key.clone(), delta), Some(Write::Key { key, effect: Effect::Add(delta) }));
    }

    /// Writes the key `prefix + version of the commit + suffix`. It can't be read within the transaction.
    pub fn put_versionstamped(&self, prefix: impl Into<Bytes>, suffix: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.write(operation::put_versionstamped(prefix, suffix, value), None);
    }

    /// Adds a condition of the caller's own.
    pub fn require(&self, condition: v1::Condition) {
        self.state.lock().ranges.push(condition);
    }

    fn write(&self, operation: v1::Operation, write: Option<Write>) {
        let mut state = self.state.lock();
        state.operations.push(operation);
        state.written.extend(write);
    }

    /// Commits. False: another transaction got in between.
    async fn commit(&self) -> Result<bool, Error> {
        let (conditions, operations, required) = {
            let mut state = self.state.lock();
            let of_keys = state.read.iter().map(|(key, row)| match row {
                Some(row) => condition::version_is(key.clone(), row.version),
                None => condition::absent(key.clone()),
            });
            let conditions: Vec<_> = of_keys.chain(state.ranges.iter().cloned()).collect();
            (conditions, std::mem::take(&mut state.operations), !state.ranges.is_empty())
        };
        // One linearizable read of a key by itself proves nothing more when it is tested.
        if operations.is_empty() && conditions.len() <= 1 && !required {
            return Ok(true);
        }
        Ok(self.client.transact(conditions, operations).await?.committed)
    }
}

impl State {
    /// The value of a key, if the writes alone say it: the last that sets it comes before any `add`.
    fn settled(&self, key: &Bytes) -> Option<Option<Option<Bytes>>> {
        let set = self.written.iter().any(|write| match write {
            Write::Key { key: written, effect } => written == key && !matches!(effect, Effect::Add(_)),
            Write::Range { start, end } => start <= key && (end.is_empty() || key < end),
        });
        set.then_some(Some(None))
    }

    /// What the writes make of a value.
    fn overlay(&self, key: &Bytes, below: Option<Bytes>) -> Result<Option<Bytes>, Error> {
        let mut value = below;
        for write in &self.written {
            match write {
                Write::Key { key: written, effect } if written == key => {
                    value = match effect {
                        Effect::Put(put) => Some(put.clone()),
                        Effect::Delete => None,
                        Effect::Add(delta) => Some(added(key, value.as_ref(), *delta)?),
                    }
                }
                Write::Range { start, end } if start <= key && (end.is_empty() || key < end) => value = None,
                Write::Key { .. } | Write::Range { .. } => {}
            }
        }
        Ok(value)
    }

    fn keys_written(&self, start: &Bytes, end: &Bytes) -> Vec<Bytes> {
        let within = |key: &Bytes| start <= key && (end.is_empty() || key < end);
        let keys = self.written.iter().filter_map(|write| match write {
            Write::Key { key, .. } if within(key) => Some(key.clone()),
            Write::Key { .. } | Write::Range { .. } => None,
        });
        keys.collect()
    }
}

fn added(key: &Bytes, value: Option<&Bytes>, delta: i64) -> Result<Bytes, Error> {
    let counter = match value {
        None => 0,
        Some(value) => {
            let bytes = value.as_ref().try_into().map_err(|_| {
                let field = format!("operations.add of {}", key.escape_ascii());
                Error::invalid(field, "a key with a value of 8 bytes", format!("{} bytes", value.len()))
            })?;
            i64::from_le_bytes(bytes)
        }
    };
    let sum = counter.checked_add(delta);
    let sum = sum.ok_or_else(|| Error::invalid("operations.add.delta", "a sum that fits 64 bits", format!("{counter} + {delta}")))?;
    Ok(Bytes::copy_from_slice(&sum.to_le_bytes()))
}

/// Runs a body until it commits.
pub(crate) async fn run<T, F, R>(client: Client, body: F) -> Result<T, Error>
where
    F: Fn(Transaction) -> R + Send + Sync,
    R: Future<Output = Result<T, Error>> + Send,
    T: Send,
{
    let until = client.ends_at().min(Instant::now() + limits::MAX_DEADLINE);
    let client = client.until(until);
    let mut attempts = 0;
    loop {
        attempts += 1;
        let transaction = Transaction::new(client.clone());
        let message = match body(transaction.clone()).await {
            Ok(value) => match transaction.commit().await {
                Ok(true) => return Ok(value),
                Ok(false) => "what the transaction read was changed by another one".to_owned(),
                Err(Error::Conflict { message }) => message,
                Err(error) => return Err(error),
            },
            Err(Error::Conflict { message }) => message,
            Err(error) => return Err(error),
        };
        client.router().counting().conflicts.one();
        let wait = policy::backoff(attempts, seam::random_u64());
        if Instant::now() + wait >= until {
            return Err(Error::Conflict { message: format!("{message}, {attempts} times until the deadline") });
        }
        tokio::time::sleep(wait).await;
    }
}

#[cfg(test)]
mod tests;
