//! What an operator asks for. Every verb is one or few transactions on the directory, and may be asked again after it died half-way.

mod batch;
mod drain;
mod forecast;
mod groups;
mod keys;
mod measure;
mod membership;
mod names;
mod nodes;
mod pods;
mod safety;
mod scrub;
mod settings;
mod shards;
mod status;
mod tenants;

pub use batch::{Planned, TenantBatch};
pub use drain::Drain;
pub use forecast::{Forecast, Relocation};
pub use groups::NewGroups;
pub use measure::{Measure, Outlook, range_of};
pub use membership::{Membership, Replace, Wish};
pub use names::check_tenant_name;
pub use safety::Obstacle;
pub use settings::{Change, Changed, REASON_BYTES, SETTINGS};
pub(crate) use shards::Ended;
pub use shards::{CHANGES_AT_ONCE, ShardOrder, Wanted};
pub use status::{ClusterStatus, GroupView, NodeView, ReplicaView, group_views};

use crate::admin;
use crate::client::Client;
use crate::directory::{number, record, records};
use crate::router::Router;
use crate::transaction::Transaction;
use metadb_proto::v1::{self, ClusterRecord, GroupRecord, NodeRef, Role, group_record};
use metadb_proto::{Error, directory, limits};
use prost::Message;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// How long a verb may take that has to wait for groups or nodes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Does an operator's work through a router whose token may do it.
#[derive(Clone, Debug)]
pub struct Operator {
    router: Router,
}

impl Operator {
    /// Works through this router.
    #[must_use]
    pub fn new(router: Router) -> Self {
        Operator { router }
    }

    /// What it works through.
    #[must_use]
    pub fn router(&self) -> &Router {
        &self.router
    }

    pub(crate) fn directory(&self) -> Client {
        self.router.tenant(directory::DIRECTORY_TENANT).with_deadline(PATIENCE)
    }

    pub(crate) async fn all<R: Message + Default>(&self, kind: &str) -> Result<Vec<R>, Error> {
        records(&self.router, directory::records(kind), Instant::now() + PATIENCE).await
    }

    /// The cluster's own record.
    ///
    /// # Errors
    /// [`Error::NotFound`] before it was bootstrapped; as [`Client::get`].
    pub async fn cluster(&self) -> Result<ClusterRecord, Error> {
        let row = self.directory().get(directory::cluster_key()).await?;
        record(&row.ok_or_else(|| Error::not_found("the cluster's record"))?)
    }

    /// All groups.
    ///
    /// # Errors
    /// As [`Client::scan`].
    pub async fn groups(&self) -> Result<Vec<GroupRecord>, Error> {
        self.all("group").await
    }

    /// All shards of a tenant.
    ///
    /// # Errors
    /// As [`Client::scan`].
    pub async fn shards(&self, tenant_id: u64) -> Result<Vec<v1::ShardRecord>, Error> {
        records(&self.router, directory::range_of(&("shard", tenant_id)), Instant::now() + PATIENCE).await
    }

    /// Hands the leadership of a group to another of its voters.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the node is not a voter; [`Error::Unavailable`] if there is no leader in time.
    pub async fn transfer_leader(&self, group_id: u32, node_id: u64) -> Result<(), Error> {
        let call = admin::transfer_leader(v1::TransferLeaderRequest { group_id, node_id });
        self.router.at_leader(group_id, Instant::now() + PATIENCE, &call).await.map(|_| ())
    }

    /// Has shards adopted by their groups, all groups at the same time.
    pub(crate) async fn adopt(&self, shards: &[v1::ShardRecord], until: Instant) -> Result<(), Error> {
        let mut by_group = BTreeMap::<(u32, u64), Vec<v1::ShardRange>>::new();
        for shard in shards {
            let range = v1::ShardRange { tenant_id: shard.tenant_id, start: shard.start.clone(), end: shard.end.clone() };
            by_group.entry((shard.group_id, shard.epoch)).or_default().push(range);
        }
        let mut calls = Vec::new();
        for ((group_id, epoch), ranges) in by_group {
            for ranges in ranges.chunks(limits::ADOPTED_AT_ONCE) {
                let call = admin::adopt_shards(v1::AdoptShardsRequest { group_id, ranges: ranges.to_vec(), epoch });
                // Each future owns its call, so that the whole can be spawned.
                calls.push(async move { self.router.at_leader(group_id, until, &call).await });
            }
        }
        futures::future::join_all(calls).await.into_iter().try_for_each(|adopted| adopted.map(|_| ()))
    }

    pub(crate) async fn drop_shard(&self, shard: &v1::ShardRecord, until: Instant) -> Result<(), Error> {
        let range = v1::ShardRange { tenant_id: shard.tenant_id, start: shard.start.clone(), end: shard.end.clone() };
        let call = admin::drop_shard(v1::DropShardRequest {
            group_id: shard.group_id,
            range: Some(range),
            epoch: shard.epoch,
            ..Default::default()
        });
        self.router.at_leader(shard.group_id, until, &call).await.map(|_| ())
    }
}

impl Operator {
    /// Whether a node leads the directory, and so acts for the cluster.
    pub(crate) async fn leads_directory(&self, node: &NodeRef) -> Result<bool, Error> {
        let status = self.router.status_of(&node.address, Instant::now() + OWN_STATUS).await?;
        let leads = |group: &v1::GroupStatus| group.group_id == directory::DIRECTORY_GROUP && group.role() == Role::Leader;
        Ok(status.groups.iter().any(leads))
    }
}

/// How long a node may take to tell its own state.
const OWN_STATUS: Duration = Duration::from_secs(1);

/// The last id given out.
pub(crate) async fn counter(tx: &Transaction, name: &str) -> Result<u64, Error> {
    match tx.get(directory::counter_key(name)).await? {
        None => Ok(0),
        Some(value) => number(&value).ok_or_else(|| Error::Corrupt { message: format!("counter {name} has {} bytes", value.len()) }),
    }
}

pub(crate) fn set_counter(tx: &Transaction, name: &str, last: u64) {
    tx.put(directory::counter_key(name), last.to_be_bytes().to_vec());
}

/// A group's record as it is written first.
pub(crate) fn group_record(group_id: u32, state: group_record::State, voters: Vec<v1::NodeRef>) -> GroupRecord {
    GroupRecord { group_id, state: state.into(), voters, created_at_ms: metadb_proto::seam::unix_ms(), ..GroupRecord::default() }
}

const _: () = assert!(PATIENCE.as_millis() <= limits::MAX_DEADLINE.as_millis(), "a verb's patience is one request's deadline");
