//! Tenants: made and deleted in steps that anyone may finish, this call or the reconciler.
//!
//! Which group owns a tenant's first shard is decided in the transaction that writes the tenant, so two who finish the same tenant can't
//! have two groups adopt it.

use super::{Operator, PATIENCE, check_tenant_name, counter, nodes::decode, set_counter};
use crate::client::Scan;
use crate::directory::number;
use crate::residency;
use crate::{condition, operation};
use bytes::Bytes;
use metadb_proto::settings::Scope;
use metadb_proto::v1::{KeyRecord, ShardRecord, TenantRecord, group_record, tenant_record};
use metadb_proto::{Error, directory, seam};
use prost::Message as _;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Tenants made in one transaction: a thousand cost it about 4,000 operations and conditions, and a third of a megabyte.
pub(super) const TENANTS_AT_ONCE: usize = 1000;
/// Shards of a deleted tenant that are dropped at the same time, and whose records go in one transaction.
const DROPS_AT_ONCE: usize = 64;
/// Records of a deleted tenant removed in one transaction.
const REMOVED_AT_ONCE: usize = 500;
/// Epoch of a tenant's first shard.
pub(crate) const FIRST_EPOCH: u64 = 1;

impl Operator {
    /// All tenants.
    ///
    /// # Errors
    /// As [`crate::Client::scan`].
    pub async fn tenants(&self) -> Result<Vec<TenantRecord>, Error> {
        self.all("tenant").await
    }

    /// The tenants that are being made or deleted, a thousand at most. However many others there are costs nothing.
    ///
    /// # Errors
    /// As [`crate::Client::scan`].
    pub async fn unfinished_tenants(&self) -> Result<Vec<TenantRecord>, Error> {
        let (start, end) = directory::records("tenant_unfinished");
        let limit = u32::try_from(TENANTS_AT_ONCE).unwrap_or(u32::MAX);
        let marks = self.directory().scan(Scan { start: start.into(), end: end.into(), limit, ..Scan::default() }).await?;
        let keys = marks.rows.iter().filter_map(|row| number(&row.value)).map(|id| directory::tenant_key(id).into());
        self.directory().multi_get(keys.collect()).await?.iter().map(super::record).collect()
    }

    /// The tenant with this name.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none.
    pub async fn tenant(&self, name: &str) -> Result<TenantRecord, Error> {
        let missing = || Error::not_found(format!("tenant {name:?}"));
        let tenant_id = crate::directory::tenant_id(self.router(), name).await?;
        let row = self.directory().get(directory::tenant_key(tenant_id)).await?.ok_or_else(missing)?;
        super::record(&row)
    }

    /// Makes a tenant and waits until it can be used; after [`PATIENCE`] it is returned as far as it came, and the reconciler goes on.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad name, [`Error::AlreadyExists`] for one that is taken.
    pub async fn create_tenant(&self, name: &str) -> Result<TenantRecord, Error> {
        let made = self.create_tenants(&[name]).await?;
        made.into_iter().next().ok_or_else(|| Error::internal("no tenant was made"))
    }

    /// Makes many tenants, several hundred in one transaction. None of those that come in one transaction with a taken name is made.
    ///
    /// # Errors
    /// As [`Operator::create_tenant`].
    pub async fn create_tenants<N: AsRef<str>>(&self, names: &[N]) -> Result<Vec<TenantRecord>, Error> {
        let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
        names.iter().try_for_each(|name| check_tenant_name(name))?;
        let mut made = Vec::with_capacity(names.len());
        for names in names.chunks(TENANTS_AT_ONCE) {
            let mut loads = self.loads().await?;
            let groups: Vec<Option<u32>> = names.iter().map(|_| lightest(&mut loads)).collect();
            made.extend(self.write_tenants(names, &groups).await?);
        }
        let until = Instant::now() + PATIENCE;
        loop {
            let waiting: Vec<TenantRecord> = made.iter().filter(|t| t.state() == tenant_record::State::Creating).cloned().collect();
            if waiting.is_empty() {
                return Ok(made);
            }
            match self.raise_tenants(&waiting, until).await {
                Ok(()) => made.iter_mut().for_each(|tenant| tenant.set_state(tenant_record::State::Active)),
                Err(error) if Instant::now() + Duration::from_millis(200) < until => {
                    tracing::debug!(%error, "tenants are not up yet");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "tenants were written but are not up yet; the reconciler goes on");
                    return Ok(made);
                }
            }
        }
    }

    async fn write_tenants(&self, names: &[&str], groups: &[Option<u32>]) -> Result<Vec<TenantRecord>, Error> {
        let created_at_ms = seam::unix_ms();
        let written = self.directory().run(|tx| async move {
            let last = counter(&tx, "tenant").await?;
            let mut made = Vec::with_capacity(names.len());
            for ((name, group), tenant_id) in names.iter().zip(groups).zip(last + 1..) {
                let name_key = directory::tenant_name_key(name);
                // Read rather than required, so that a name taken is told as such and not retried.
                if made.iter().any(|tenant: &TenantRecord| tenant.name == *name) || tx.get(name_key.clone()).await?.is_some() {
                    return Err(Error::AlreadyExists { message: format!("tenant {name:?}") });
                }
                let state = tenant_record::State::Creating.into();
                let tenant = TenantRecord { tenant_id, name: (*name).to_owned(), state, created_at_ms, ..TenantRecord::default() };
                tx.put(name_key, tenant_id.to_be_bytes().to_vec());
                tx.put(directory::tenant_key(tenant_id), tenant.encode_to_vec());
                tx.put(directory::tenant_unfinished_key(tenant_id), tenant_id.to_be_bytes().to_vec());
                if let Some(group_id) = group {
                    tx.put(directory::shard_key(tenant_id, b""), first_shard(tenant_id, *group_id).encode_to_vec());
                }
                made.push(tenant);
            }
            set_counter(&tx, "tenant", last + names.len() as u64);
            Ok(made)
        });
        written.await
    }

    /// Brings tenants from creating to active: gives a group to those without, has their shards adopted, notes it.
    pub(crate) async fn raise_tenants(&self, tenants: &[TenantRecord], until: Instant) -> Result<(), Error> {
        for tenants in tenants.chunks(TENANTS_AT_ONCE) {
            let keys: Vec<Bytes> = tenants.iter().map(|tenant| directory::shard_key(tenant.tenant_id, b"").into()).collect();
            let rows = self.directory().multi_get(keys).await?;
            let mut shards = rows.iter().map(super::record::<ShardRecord>).collect::<Result<Vec<_>, _>>()?;
            let placed: BTreeMap<u64, ()> = shards.iter().map(|shard| (shard.tenant_id, ())).collect();
            let missing: Vec<u64> = tenants.iter().map(|t| t.tenant_id).filter(|id| !placed.contains_key(id)).collect();
            if !missing.is_empty() {
                shards.extend(self.place_tenants(&missing).await?);
            }
            self.adopt(&shards, until).await?;
            self.activate(tenants).await?;
        }
        Ok(())
    }

    /// Writes the first shards of tenants that have none.
    async fn place_tenants(&self, tenants: &[u64]) -> Result<Vec<ShardRecord>, Error> {
        let mut loads = self.loads().await?;
        let none = || Error::unavailable("no group is active yet to hold the tenant", Duration::from_millis(200));
        let shards = tenants.iter().map(|id| lightest(&mut loads).map(|group| first_shard(*id, group)).ok_or_else(none));
        let shards = shards.collect::<Result<Vec<_>, _>>()?;
        let key = |shard: &ShardRecord| directory::shard_key(shard.tenant_id, b"");
        let conditions =
            shards.iter().flat_map(|shard| [condition::absent(key(shard)), condition::exists(directory::tenant_key(shard.tenant_id))]);
        let operations = shards.iter().map(|shard| operation::put(key(shard), shard.encode_to_vec()));
        let answer = self.directory().transact(conditions.collect(), operations.collect()).await?;
        if answer.committed { Ok(shards) } else { Err(Error::unavailable("someone else places the tenant", Duration::from_millis(50))) }
    }

    /// Notes that tenants are active, those that are still being created.
    async fn activate(&self, tenants: &[TenantRecord]) -> Result<(), Error> {
        let keys = tenants.iter().map(|tenant| directory::tenant_key(tenant.tenant_id).into()).collect();
        let (mut conditions, mut operations) = (Vec::new(), Vec::new());
        for row in self.directory().multi_get(keys).await? {
            let mut record: TenantRecord = super::record(&row)?;
            if record.state() == tenant_record::State::Creating {
                record.set_state(tenant_record::State::Active);
                conditions.push(condition::version_is(row.key.clone(), row.version));
                operations.push(operation::put(row.key, record.encode_to_vec()));
                operations.push(operation::delete(directory::tenant_unfinished_key(record.tenant_id)));
            }
        }
        if operations.is_empty() || self.directory().transact(conditions, operations).await?.committed {
            return Ok(());
        }
        Err(Error::unavailable("someone else changes the tenants", Duration::from_millis(50)))
    }

    /// Deletes a tenant with everything that it has. When this returns the tenant is refused; its rows may still be going.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none.
    pub async fn delete_tenant(&self, name: &str) -> Result<(), Error> {
        let marked = self.directory().run(|tx| async move {
            let missing = || Error::not_found(format!("tenant {name:?}"));
            let id = tx.get(directory::tenant_name_key(name)).await?.ok_or_else(missing)?;
            let key = directory::tenant_key(number(&id).ok_or_else(missing)?);
            let mut record: TenantRecord = decode(&tx.get(key.clone()).await?.ok_or_else(missing)?, "tenant")?;
            if record.state() != tenant_record::State::Deleting {
                record.set_state(tenant_record::State::Deleting);
                tx.put(key, record.encode_to_vec());
                tx.put(directory::tenant_unfinished_key(record.tenant_id), record.tenant_id.to_be_bytes().to_vec());
            }
            Ok(record)
        });
        let tenant = marked.await?;
        if let Err(error) = self.finish_delete(&tenant, Instant::now() + PATIENCE).await {
            tracing::warn!(tenant_id = tenant.tenant_id, %error, "the tenant is marked; the reconciler finishes its deletion");
        }
        Ok(())
    }

    /// Drops a deleted tenant's shards, then its keys, then its own records, in transactions of a bounded size. Each leaves less to do, so
    /// whoever goes on after a deadline or a crash comes further; the tenant's record goes last, for it says that there is something to do.
    pub(crate) async fn finish_delete(&self, tenant: &TenantRecord, until: Instant) -> Result<(), Error> {
        let tenant_id = tenant.tenant_id;
        if self.cancel_changes(tenant_id).await? > 0 {
            return Err(Error::unavailable("its shards are being changed; that is taken back first", Duration::from_millis(200)));
        }
        for shards in self.shards(tenant_id).await?.chunks(DROPS_AT_ONCE) {
            futures::future::try_join_all(shards.iter().map(|shard| self.drop_shard(shard, until))).await?;
            let keys = shards.iter().map(|shard| operation::delete(directory::shard_key(tenant_id, &shard.start)));
            self.remove_of_tenant(tenant_id, keys.collect()).await?;
        }
        let keys: Vec<KeyRecord> = self.all("key").await?;
        let of_tenant: Vec<&KeyRecord> = keys.iter().filter(|key| key.tenant_id == tenant_id).collect();
        for keys in of_tenant.chunks(REMOVED_AT_ONCE) {
            let keys = keys.iter().map(|key| operation::delete(directory::access_key_key(&key.access_key_id)));
            self.remove_of_tenant(tenant_id, keys.collect()).await?;
        }
        let scope = Scope::Tenant(tenant_id).to_proto();
        let settings = directory::range_of(&("setting", scope.kind, scope.id.as_str()));
        let own = [directory::tenant_key(tenant_id), directory::tenant_name_key(&tenant.name), directory::tenant_unfinished_key(tenant_id)];
        let own = own.map(operation::delete);
        let last = std::iter::once(operation::delete_range(settings.0, settings.1)).chain(own).collect();
        self.remove_of_tenant(tenant_id, last).await?;
        self.router().map().write().forget_tenant(tenant_id);
        Ok(())
    }

    /// Removes records of a tenant while it is there. Once somebody else has finished it, there is nothing to remove, least of all what
    /// belongs to the name's next owner.
    async fn remove_of_tenant(&self, tenant_id: u64, removals: Vec<metadb_proto::v1::Operation>) -> Result<(), Error> {
        let there = condition::exists(directory::tenant_key(tenant_id));
        self.directory().transact(vec![there], removals).await.map(|_| ())
    }

    /// How many shards each active group has that takes tenants of no pod. The directory's own group does not.
    pub(super) async fn loads(&self) -> Result<BTreeMap<u32, usize>, Error> {
        let active = self.groups().await?.into_iter().filter(|group| group.state() == group_record::State::Active);
        let anybody = TenantRecord::default();
        let mut loads: BTreeMap<u32, usize> =
            active.filter(|group| residency::is_for(group, &anybody)).map(|group| (group.group_id, 0)).collect();
        for shard in self.all::<ShardRecord>("shard").await? {
            if let Some(load) = loads.get_mut(&shard.group_id) {
                *load += 1;
            }
        }
        Ok(loads)
    }
}

/// Takes a place in the group with the fewest shards.
pub(super) fn lightest(loads: &mut BTreeMap<u32, usize>) -> Option<u32> {
    let (group_id, load) = loads.iter_mut().min_by_key(|(_, load)| **load)?;
    *load += 1;
    Some(*group_id)
}

pub(super) fn first_shard(tenant_id: u64, group_id: u32) -> ShardRecord {
    ShardRecord { tenant_id, start: Bytes::new(), end: Bytes::new(), group_id, epoch: FIRST_EPOCH }
}
