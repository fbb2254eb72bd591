//! Changes of shards that operators, or rules, ask for: written into the directory, carried through by the [`crate::mover`], whoever leads by
//! then. A change holds the shards that it is about: no other change of them is taken on until it ended.

use super::nodes::decode;
use super::{Operator, counter, set_counter};
use crate::admin;
use crate::directory::record;
use crate::residency;
use crate::transaction::Transaction;
use bytes::Bytes;
use metadb_proto::v1::shard_change_record::{Kind, State};
use metadb_proto::v1::{self, ShardChangeCost, ShardChangeRecord, ShardHistoryRecord, ShardRecord, group_record, shard_history_record};
use metadb_proto::{Error, directory, level, seam};
use prost::Message as _;
use std::collections::BTreeSet;
use std::time::Duration;

/// Changes that one call asks for.
pub const CHANGES_AT_ONCE: usize = 1024;
/// Changes of one transaction of the directory.
const CHANGES_WRITTEN: usize = 256;
/// Changes of a tenant that are remembered after their end.
const HISTORY: usize = 64;
const HISTORY_READ: u32 = 128;
/// Longest reason.
const REASON_BYTES: usize = 256;
/// When to ask again for a change that waits for another one.
const RETRY: Duration = Duration::from_millis(500);

/// What shall become of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Two shards, the upper one from this key on.
    Split {
        /// Above the start and below the end.
        at: Bytes,
    },
    /// One shard with its upper neighbour.
    Merge,
    /// The same shard, in another group.
    Move {
        /// Which.
        to_group_id: u32,
    },
    /// The same, if the shard is all of its tenant; [`Error::Unavailable`] if somebody cut it meanwhile.
    MoveWhole {
        /// Which group.
        to_group_id: u32,
    },
}

/// A change that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardOrder {
    /// Whose shard.
    pub tenant_id: u64,
    /// Any key in it.
    pub key: Bytes,
    /// What shall become of it.
    pub wanted: Wanted,
    /// Why, for people.
    pub reason: String,
    /// What the asker was told that it would cost.
    pub expected: Option<ShardChangeCost>,
}

/// A change that ended.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub(crate) change: ShardChangeRecord,
    /// That of the shard, or the shards, now.
    pub(crate) epoch: u64,
    pub(crate) outcome: shard_history_record::Outcome,
    pub(crate) actual: ShardChangeCost,
}

impl Operator {
    /// Asks for changes of shards: all of them are written down, or none of those that share a transaction with one that can't be.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what can never be, with what to do instead; [`Error::NotFound`] for a tenant or a group that is not there;
    /// [`Error::Unavailable`] for a shard that is being changed already, and while nodes run a build that knows no changes.
    pub async fn order_changes(&self, orders: &[ShardOrder]) -> Result<Vec<ShardChangeRecord>, Error> {
        check(orders)?;
        self.check_level().await?;
        let mut ordered = Vec::with_capacity(orders.len());
        for orders in orders.chunks(CHANGES_WRITTEN) {
            ordered.extend(self.directory().run(|tx| async move { write_orders(&tx, orders).await }).await?);
        }
        Ok(ordered)
    }

    async fn check_level(&self) -> Result<(), Error> {
        if self.cluster().await?.feature_level < u32::from(level::SHARDS) {
            return Err(Error::unavailable("nodes of the cluster run a build that can't change shards; finish the upgrade first", RETRY));
        }
        Ok(())
    }

    /// What [`Operator::order_changes`] would write down, and writes nothing.
    ///
    /// # Errors
    /// As [`Operator::order_changes`].
    pub async fn plan_changes(&self, orders: &[ShardOrder]) -> Result<Vec<ShardChangeRecord>, Error> {
        check(orders)?;
        self.check_level().await?;
        let mut planned = Vec::with_capacity(orders.len());
        for orders in orders.chunks(CHANGES_WRITTEN) {
            // A transaction that writes nothing.
            planned.extend(self.directory().run(|tx| async move { plan_orders(&tx, orders).await }).await?);
        }
        Ok(planned)
    }

    /// The changes that are not done, those of one tenant or of all.
    ///
    /// # Errors
    /// As [`crate::Client::scan`].
    pub async fn changes(&self, tenant_id: Option<u64>) -> Result<Vec<ShardChangeRecord>, Error> {
        let range = tenant_id.map_or_else(|| directory::records("shard_change"), |id| directory::range_of(&("shard_change", id)));
        let changes =
            crate::directory::records::<ShardChangeRecord>(self.router(), range, tokio::time::Instant::now() + super::PATIENCE).await?;
        Ok(distinct(changes))
    }

    /// Some of the changes that are not done.
    pub(crate) async fn first_changes(&self, limit: u32) -> Result<Vec<ShardChangeRecord>, Error> {
        let (start, end) = directory::records("shard_change");
        let scan = crate::Scan { start: start.into(), end: end.into(), limit, ..Default::default() };
        let page = self.directory().scan(scan).await?;
        Ok(distinct(page.rows.iter().map(record).collect::<Result<_, _>>()?))
    }

    /// The changes of a tenant's shards that ended, the last first.
    ///
    /// # Errors
    /// As [`crate::Client::scan`].
    pub async fn shard_history(&self, tenant_id: u64) -> Result<Vec<ShardHistoryRecord>, Error> {
        let range = directory::range_of(&("shard_history", tenant_id));
        let mut history: Vec<ShardHistoryRecord> =
            crate::directory::records(self.router(), range, tokio::time::Instant::now() + super::PATIENCE).await?;
        history.reverse();
        Ok(history)
    }

    /// What a group's own log says that it owns, expects and gave away.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if it has no leader in time.
    pub async fn group_shards(&self, group_id: u32) -> Result<Vec<v1::ShardStatus>, Error> {
        let until = tokio::time::Instant::now() + super::PATIENCE;
        let mut shards: Vec<v1::ShardStatus> = Vec::new();
        loop {
            let after = shards.last().and_then(|last| last.range.clone());
            let call = admin::list_shards(v1::ListShardsRequest { group_id, after, ..Default::default() });
            let page = self.router().at_leader(group_id, until, &call).await?;
            shards.extend(page.shards);
            if !page.more {
                return Ok(shards);
            }
        }
    }

    /// The changes of all shards that ended.
    ///
    /// # Errors
    /// As [`crate::Client::scan`].
    pub async fn all_shard_history(&self) -> Result<Vec<ShardHistoryRecord>, Error> {
        self.all("shard_history").await
    }

    /// All shards of all tenants.
    ///
    /// # Errors
    /// As [`crate::Client::scan`].
    pub async fn all_shards(&self) -> Result<Vec<ShardRecord>, Error> {
        self.all("shard").await
    }

    /// Pauses a change, lets it go on, or has it taken back.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it is not there (it may have ended); [`Error::Invalid`] for one that is being taken back.
    pub async fn set_change(&self, tenant_id: u64, change_id: u64, state: State) -> Result<ShardChangeRecord, Error> {
        let found = self.changes(Some(tenant_id)).await?.into_iter().find(|change| change.change_id == change_id);
        let found = found.ok_or_else(|| Error::not_found(format!("change {change_id} of tenant {tenant_id}: it ended, or never was")))?;
        self.update_change(&found, move |change| {
            if change.state() == State::Cancelling && state != State::Cancelling {
                return Err(Error::invalid("state", "of a change that is not being taken back", "cancelling"));
            }
            change.set_state(state);
            change.settled = false;
            Ok(())
        })
        .await
    }

    /// Has all changes of a tenant taken back; how many there are still.
    pub(crate) async fn cancel_changes(&self, tenant_id: u64) -> Result<usize, Error> {
        let changes = self.changes(Some(tenant_id)).await?;
        for change in &changes {
            match self.set_change(tenant_id, change.change_id, State::Cancelling).await {
                Ok(_) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(changes.len())
    }

    /// Takes a change over: from now on other movers are too late.
    pub(crate) async fn claim_change(&self, seen: &ShardChangeRecord, why: &str) -> Result<ShardChangeRecord, Error> {
        let seen_epoch = seen.epoch;
        self.update_change(seen, move |change| {
            if change.epoch != seen_epoch {
                return Err(Error::unavailable("another mover is at it", RETRY));
            }
            change.epoch += u64::from(change.attempts > 0);
            change.attempts += 1;
            if !why.is_empty() {
                why.clone_into(&mut change.problem);
            }
            Ok(())
        })
        .await
    }

    /// Notes that a paused change is in the middle of nothing.
    pub(crate) async fn settle_change(&self, seen: &ShardChangeRecord) -> Result<(), Error> {
        let settle = |change: &mut ShardChangeRecord| {
            change.settled = change.state() == State::Paused;
            Ok(())
        };
        self.update_change(seen, settle).await.map(|_| ())
    }

    /// A change as it is now.
    pub(crate) async fn change_now(&self, seen: &ShardChangeRecord) -> Result<ShardChangeRecord, Error> {
        let row = self.directory().get(directory::shard_change_key(seen.tenant_id, &seen.start)).await?;
        let change = row.as_ref().map(record::<ShardChangeRecord>).transpose()?.filter(|change| change.change_id == seen.change_id);
        change.ok_or_else(|| ended(seen))
    }

    /// Notes why a change did not get on. That this fails too is no trouble.
    pub(crate) async fn note_problem(&self, seen: &ShardChangeRecord, copied_bytes: u64, problem: &Error) {
        let mut problem = problem.to_string();
        problem.truncate(problem.floor_char_boundary(REASON_BYTES));
        let noted = self.update_change(seen, |change| {
            change.problem.clone_from(&problem);
            change.copied_bytes += copied_bytes;
            Ok(())
        });
        drop(noted.await);
    }

    async fn update_change(
        &self,
        seen: &ShardChangeRecord,
        update: impl Fn(&mut ShardChangeRecord) -> Result<(), Error> + Send + Sync,
    ) -> Result<ShardChangeRecord, Error> {
        let update = &update;
        self.directory()
            .run(|tx| async move {
                let mut change = read_change(&tx, seen).await?.ok_or_else(|| ended(seen))?;
                update(&mut change)?;
                for key in keys(&change) {
                    tx.put(key, change.encode_to_vec());
                }
                Ok(change)
            })
            .await
    }

    /// Writes down that a change ended: the shards as they are now, and what it cost. Asked again, it does nothing.
    pub(crate) async fn end_change(&self, ended: &Ended) -> Result<(), Error> {
        self.directory().run(|tx| async move { write_end(&tx, ended).await }).await?;
        self.router().map().write().forget_tenant(ended.change.tenant_id);
        Ok(())
    }
}

fn check(orders: &[ShardOrder]) -> Result<(), Error> {
    if orders.is_empty() || orders.len() > CHANGES_AT_ONCE {
        return Err(Error::invalid("changes", format!("1 to {CHANGES_AT_ONCE}"), orders.len().to_string()));
    }
    for order in orders {
        if order.tenant_id == directory::DIRECTORY_TENANT {
            return Err(Error::invalid("tenant_id", "a tenant; the directory is one shard and never moves", "0"));
        }
        if order.reason.len() > REASON_BYTES {
            return Err(Error::invalid("reason", format!("at most {REASON_BYTES} bytes"), format!("{} bytes", order.reason.len())));
        }
    }
    Ok(())
}

/// A merge stands under both of its shards; it is one change.
fn distinct(mut changes: Vec<ShardChangeRecord>) -> Vec<ShardChangeRecord> {
    changes.sort_by_key(|change| change.change_id);
    changes.dedup_by_key(|change| change.change_id);
    changes
}

fn ended(change: &ShardChangeRecord) -> Error {
    Error::not_found(format!("change {} of tenant {}: it ended meanwhile", change.change_id, change.tenant_id))
}

/// The keys that a change stands under.
fn keys(change: &ShardChangeRecord) -> Vec<Vec<u8>> {
    let upper = (change.kind() == Kind::Merge).then(|| directory::shard_change_key(change.tenant_id, &change.at));
    std::iter::once(directory::shard_change_key(change.tenant_id, &change.start)).chain(upper).collect()
}

async fn read_change(tx: &Transaction, seen: &ShardChangeRecord) -> Result<Option<ShardChangeRecord>, Error> {
    let row = tx.get(directory::shard_change_key(seen.tenant_id, &seen.start)).await?;
    let change = row.map(|row| decode::<ShardChangeRecord>(&row, "shard_change")).transpose()?;
    Ok(change.filter(|change| change.change_id == seen.change_id))
}

/// What orders come to, if no shard is being changed already and no two of them are about one shard.
async fn plan_orders(tx: &Transaction, orders: &[ShardOrder]) -> Result<Vec<ShardChangeRecord>, Error> {
    let mut taken = BTreeSet::new();
    let mut planned = Vec::with_capacity(orders.len());
    for order in orders {
        let change = plan_order(tx, order).await?;
        for key in keys(&change) {
            if tx.get(key.clone()).await?.is_some() || !taken.insert(key) {
                let message = format!("a shard of tenant {} is being changed already: see its changes, wait or cancel", order.tenant_id);
                return Err(Error::unavailable(message, RETRY));
            }
        }
        planned.push(change);
    }
    Ok(planned)
}

async fn write_orders(tx: &Transaction, orders: &[ShardOrder]) -> Result<Vec<ShardChangeRecord>, Error> {
    let last = counter(tx, "shard_change").await?;
    let mut ordered = plan_orders(tx, orders).await?;
    for (change, change_id) in ordered.iter_mut().zip(last + 1..) {
        change.change_id = change_id;
        for key in keys(change) {
            tx.put(key, change.encode_to_vec());
        }
    }
    set_counter(tx, "shard_change", last + orders.len() as u64);
    Ok(ordered)
}

/// What an order comes to, as the directory is now.
async fn plan_order(tx: &Transaction, order: &ShardOrder) -> Result<ShardChangeRecord, Error> {
    let tenant_id = order.tenant_id;
    let row = tx.get(directory::tenant_key(tenant_id)).await?.ok_or_else(|| Error::not_found(format!("tenant {tenant_id}")))?;
    let tenant: v1::TenantRecord = decode(&row, "tenant")?;
    if tenant.state() != v1::tenant_record::State::Active {
        return Err(Error::unavailable(format!("tenant {:?} is being made or deleted", tenant.name), RETRY));
    }
    let shard = shard_at(tx, tenant_id, &order.key).await?;
    let mut change = ShardChangeRecord {
        tenant_id,
        start: shard.start.clone(),
        end: shard.end.clone(),
        group_id: shard.group_id,
        epoch: shard.epoch + 1,
        state: State::Running.into(),
        created_at_ms: seam::unix_ms(),
        reason: order.reason.clone(),
        expected: order.expected,
        ..Default::default()
    };
    match &order.wanted {
        Wanted::Split { at } => {
            if *at <= shard.start || (!shard.end.is_empty() && *at >= shard.end) {
                let limit = format!("a key inside of the shard {}, above its start", span(&shard));
                return Err(Error::invalid("at", limit, show(at)));
            }
            (change.at, change.kind) = (at.clone(), Kind::Split.into());
        }
        Wanted::Merge => {
            if shard.end.is_empty() {
                return Err(Error::invalid("key", "in a shard that has an upper neighbour", format!("{}, the last one", span(&shard))));
            }
            let upper = shard_at(tx, tenant_id, &shard.end).await?;
            if upper.group_id != shard.group_id {
                let limit = format!("two neighbours in one group: move {} to group {} first", span(&upper), shard.group_id);
                return Err(Error::invalid("key", limit, format!("groups {} and {}", shard.group_id, upper.group_id)));
            }
            (change.at, change.end, change.kind) = (shard.end.clone(), upper.end.clone(), Kind::Merge.into());
            change.epoch = shard.epoch.max(upper.epoch) + 1;
        }
        Wanted::MoveWhole { .. } if !(shard.start.is_empty() && shard.end.is_empty()) => {
            return Err(Error::unavailable(format!("tenant {:?} has several shards", tenant.name), RETRY));
        }
        Wanted::Move { to_group_id } | Wanted::MoveWhole { to_group_id } => {
            check_destination(tx, &tenant, &shard, *to_group_id).await?;
            (change.to_group_id, change.kind) = (*to_group_id, Kind::Move.into());
        }
    }
    Ok(change)
}

/// The shard of a tenant that a key lies in.
async fn shard_at(tx: &Transaction, tenant_id: u64, key: &[u8]) -> Result<ShardRecord, Error> {
    // Most tenants have one shard, or a few: the first that ends behind the key.
    let (mut start, end) = directory::range_of(&("shard", tenant_id));
    loop {
        let rows = tx.scan(start.clone(), end.clone(), SHARDS_READ).await?;
        let Some((last, _)) = rows.last() else {
            return Err(Error::not_found(format!("tenant {tenant_id} has no shard that holds {}", show(key))));
        };
        start = [&last[..], &[0]].concat();
        for (_, row) in rows {
            let shard: ShardRecord = decode(&row, "shard")?;
            if shard.start.as_ref() <= key && (shard.end.is_empty() || key < shard.end.as_ref()) {
                return Ok(shard);
            }
        }
    }
}

/// Shards that are read at a time in search of one.
const SHARDS_READ: u32 = 256;

async fn check_destination(tx: &Transaction, tenant: &v1::TenantRecord, shard: &ShardRecord, to_group_id: u32) -> Result<(), Error> {
    let to = to_group_id.to_string();
    if to_group_id == shard.group_id {
        return Err(Error::invalid("to_group_id", format!("another group than {}, where the shard is", shard.group_id), to));
    }
    if to_group_id == directory::DIRECTORY_GROUP {
        return Err(Error::invalid("to_group_id", "a group of tenants; group 0 holds the directory", to));
    }
    let row = tx.get(directory::group_key(to_group_id)).await?;
    let row = row.ok_or_else(|| Error::not_found(format!("group {to_group_id}: `cairn admin group list` shows those that there are")))?;
    let group: v1::GroupRecord = decode(&row, "group")?;
    residency::check_hold(&group, tenant)?;
    if !tenant.pod.is_empty() {
        let records = super::membership::read(tx).await?;
        let replicas = || group.voters.iter().chain(&group.learners).map(|node| node.node_id);
        let is_outside = |id: &u64| {
            let record = records.nodes.iter().find(|record| record.node.as_ref().is_some_and(|node| node.node_id == *id));
            !record.is_some_and(|record| residency::may_be_on(&group, record, &records.pods))
        };
        if let Some(outside) = replicas().find(is_outside) {
            let message = format!(
                "group {to_group_id} belongs to pod {:?}, and node {outside}, which has a replica of it, does not: ask again when that has gone, \
                 `cairn admin group show {to_group_id}`",
                group.pod
            );
            return Err(Error::unavailable(message, RETRY));
        }
    }
    if group.state() != group_record::State::Active {
        return Err(Error::unavailable(format!("group {to_group_id} is not ready to take shards"), RETRY));
    }
    Ok(())
}

async fn write_end(tx: &Transaction, ended: &Ended) -> Result<(), Error> {
    let Some(change) = read_change(tx, &ended.change).await? else { return Ok(()) };
    let tenant_id = change.tenant_id;
    let shard = |start: &Bytes, end: &Bytes, group_id| ShardRecord {
        tenant_id,
        start: start.clone(),
        end: end.clone(),
        group_id,
        epoch: ended.epoch,
    };
    let put = |shard: ShardRecord| tx.put(directory::shard_key(tenant_id, &shard.start), shard.encode_to_vec());
    let is_done = ended.outcome == shard_history_record::Outcome::Done;
    match (change.kind(), is_done) {
        (Kind::Split, true) => {
            put(shard(&change.start, &change.at, change.group_id));
            put(shard(&change.at, &change.end, change.group_id));
        }
        (Kind::Merge, true) => {
            tx.delete(directory::shard_key(tenant_id, &change.at));
            put(shard(&change.start, &change.end, change.group_id));
        }
        (Kind::Move, _) => put(shard(&change.start, &change.end, if is_done { change.to_group_id } else { change.group_id })),
        (Kind::Split, false) => put(shard(&change.start, &change.end, change.group_id)),
        (Kind::Merge, false) => {
            put(shard(&change.start, &change.at, change.group_id));
            put(shard(&change.at, &change.end, change.group_id));
        }
        (Kind::Unspecified, _) => {}
    }
    for key in keys(&change) {
        tx.delete(key);
    }
    let (start, end) = directory::range_of(&("shard_history", tenant_id));
    let history = tx.scan(start, end, HISTORY_READ).await?;
    for (key, _) in history.iter().take((history.len() + 1).saturating_sub(HISTORY)) {
        tx.delete(key.clone());
    }
    let actual = ShardChangeCost { bytes: ended.actual.bytes + change.copied_bytes, ..ended.actual };
    let record = ShardHistoryRecord {
        outcome: ended.outcome.into(),
        ended_at_ms: seam::unix_ms(),
        actual: Some(actual),
        change: Some(change.clone()),
    };
    tx.put(directory::shard_history_key(tenant_id, change.change_id), record.encode_to_vec());
    Ok(())
}

/// A shard's range for people.
fn span(shard: &ShardRecord) -> String {
    let end = if shard.end.is_empty() { "the end".to_owned() } else { show(&shard.end) };
    let start = if shard.start.is_empty() { "the beginning".to_owned() } else { show(&shard.start) };
    format!("from {start} to {end}")
}

fn show(key: &[u8]) -> String {
    format!("\"{}\"", key.escape_ascii())
}
