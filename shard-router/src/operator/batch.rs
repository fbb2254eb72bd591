//! Many tenants by one verb: so many in one transaction of the directory, and all the shards of a group in one call.
//!
//! Asked again with the same names it makes what is missing and finishes what is unfinished, so it may die at any point.

use super::tenants::{TENANTS_AT_ONCE, first_shard, lightest};
use super::{Operator, PATIENCE, check_tenant_name, counter, set_counter};
use crate::condition;
use crate::directory::number;
use bytes::Bytes;
use metadb_proto::v1::{TenantRecord, tenant_record};
use metadb_proto::{Error, directory, limits, seam};
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// Between two attempts at shards that are not adopted yet.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// What came of a batch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TenantBatch {
    /// Tenants that were made.
    pub made: Vec<TenantRecord>,
    /// Tenants that were there, finished now if they were not.
    pub existed: Vec<TenantRecord>,
}

/// What a batch would come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Planned {
    /// Names of tenants that would be made.
    pub missing: Vec<String>,
    /// Names of tenants that are there.
    pub existing: Vec<String>,
}

impl Operator {
    /// What [`Operator::ensure_tenants`] would do now.
    ///
    /// # Errors
    /// As it.
    pub async fn plan_tenants(&self, names: &[String]) -> Result<Planned, Error> {
        check(names)?;
        let mut planned = Planned::default();
        for names in names.chunks(TENANTS_AT_ONCE) {
            let existing = self.tenants_named(names).await?;
            let (there, missing): (Vec<_>, Vec<_>) = names.iter().cloned().partition(|name| existing.contains_key(name));
            planned.existing.extend(there);
            planned.missing.extend(missing);
        }
        Ok(planned)
    }

    /// Sees to it that there is a tenant of each name, and that all can be used when this returns. `progress` hears how many are done.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad name or one that is said twice, with nothing done; [`Error::AlreadyExists`] for one that is being
    /// deleted; [`Error::Unavailable`] if groups do not adopt in time: then asking again goes on.
    pub async fn ensure_tenants(&self, names: &[String], progress: impl Fn(usize) + Send + Sync) -> Result<TenantBatch, Error> {
        check(names)?;
        let mut loads = self.loads().await?;
        let mut batch = TenantBatch::default();
        for names in names.chunks(TENANTS_AT_ONCE) {
            let groups: Vec<Option<u32>> = names.iter().map(|_| lightest(&mut loads)).collect();
            let mut done = self.write_missing(names, &groups).await?;
            let unfinished = done.made.iter().chain(&done.existed).filter(|tenant| tenant.state() == tenant_record::State::Creating);
            self.raise_patiently(&unfinished.cloned().collect::<Vec<_>>()).await?;
            done.made.iter_mut().chain(&mut done.existed).for_each(|tenant| tenant.set_state(tenant_record::State::Active));
            batch.made.append(&mut done.made);
            batch.existed.append(&mut done.existed);
            progress(names.len());
        }
        Ok(batch)
    }

    /// Writes the tenants of these names that are not there, in one transaction.
    async fn write_missing(&self, names: &[String], groups: &[Option<u32>]) -> Result<TenantBatch, Error> {
        let created_at_ms = seam::unix_ms();
        let written = self.directory().run(|tx| async move {
            let mut existing = self.tenants_named(names).await?;
            let mut batch = TenantBatch::default();
            let missing: Vec<_> = names.iter().zip(groups).filter(|(name, _)| !existing.contains_key(*name)).collect();
            for name in names {
                batch.existed.extend(existing.remove(name));
            }
            if let Some(going) = batch.existed.iter().find(|tenant| tenant.state() == tenant_record::State::Deleting) {
                // As a failed condition it would be tried again; the caller shall know it.
                return Err(Error::AlreadyExists { message: format!("tenant {:?}: it is being deleted", going.name) });
            }
            if missing.is_empty() {
                return Ok(batch);
            }
            let last = counter(&tx, "tenant").await?;
            for ((name, group), tenant_id) in missing.iter().zip(last + 1..) {
                let (name_key, state) = (directory::tenant_name_key(name), tenant_record::State::Creating.into());
                let tenant = TenantRecord { tenant_id, name: (*name).clone(), state, created_at_ms, ..TenantRecord::default() };
                // Taken meanwhile: then all of it is looked at again.
                tx.require(condition::absent(name_key.clone()));
                tx.put(name_key, tenant_id.to_be_bytes().to_vec());
                tx.put(directory::tenant_key(tenant_id), tenant.encode_to_vec());
                if let Some(group_id) = group {
                    tx.put(directory::shard_key(tenant_id, b""), first_shard(tenant_id, *group_id).encode_to_vec());
                }
                batch.made.push(tenant);
            }
            set_counter(&tx, "tenant", last + missing.len() as u64);
            Ok(batch)
        });
        written.await
    }

    /// Brings tenants to where they can be used, again and again while groups can't adopt.
    async fn raise_patiently(&self, tenants: &[TenantRecord]) -> Result<(), Error> {
        let until = Instant::now() + PATIENCE;
        while !tenants.is_empty() {
            match self.raise_tenants(tenants, until).await {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() + TRY_AGAIN * 2 < until => {
                    tracing::debug!(%error, "tenants are not up yet");
                    tokio::time::sleep(TRY_AGAIN).await;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The tenants that have one of these names, by name.
    async fn tenants_named(&self, names: &[String]) -> Result<BTreeMap<String, TenantRecord>, Error> {
        let keys = names.iter().map(|name| directory::tenant_name_key(name).into()).collect();
        let ids = self.directory().multi_get(keys).await?;
        let ids = ids.iter().map(|row| {
            let broken = || Error::Corrupt { message: format!("id at {} has {} bytes", row.key.escape_ascii(), row.value.len()) };
            number(&row.value).ok_or_else(broken)
        });
        let keys: Result<Vec<Bytes>, Error> = ids.map(|id| Ok(directory::tenant_key(id?).into())).collect();
        let tenants = self.directory().multi_get(keys?).await?;
        let tenants = tenants.iter().map(|row| super::record::<TenantRecord>(row).map(|tenant| (tenant.name.clone(), tenant)));
        tenants.collect()
    }
}

/// Every name must be one, and none may come twice.
fn check(names: &[String]) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    for name in names {
        check_tenant_name(name)?;
        if !seen.insert(name) {
            return Err(Error::invalid("names", "each of them once", format!("{name:?} twice")));
        }
    }
    Ok(())
}

/// Operations and conditions of a tenant that is made.
const WRITES_PER_TENANT: usize = 4;
const _: () = assert!((TENANTS_AT_ONCE + 1) * WRITES_PER_TENANT <= limits::TRANSACTION_OPERATIONS, "tenants of one transaction fit it");
const _: () = assert!(TENANTS_AT_ONCE <= limits::PAGE_ROWS, "their names are looked up at once");
