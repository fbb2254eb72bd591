//! A cluster that serves: the directory's records written, and a shard for each tenant adopted, before any fault begins.

use super::{Cluster, GROUPS, machine};
use bytes::Bytes;
use metadb::command::Command;
use metadb_proto::directory::{DIRECTORY_TENANT, cluster_key, counter_key, group_key, node_key, shard_key, tenant_key, tenant_name_key};
use metadb_proto::v1::{self, group_record, tenant_record};
use prost::Message;
use shard_router::{RouterConfig, operation};
use std::time::Duration;
use tokio::time::Instant;

/// A cluster without faults serves well within this.
const WITHIN: Duration = Duration::from_secs(20);
/// How often it is tried.
const RETRY: Duration = Duration::from_millis(50);

impl Cluster {
    /// Makes that many tenants, each with its shard in a group of its own as far as there are groups. Gives their ids.
    ///
    /// # Panics
    /// If a cluster that nobody hurts does not come up: that is a bug too.
    pub async fn set_up(&self, tenants: u32) -> Vec<u64> {
        let end = Instant::now() + WITHIN;
        let placed: Vec<(u64, u32)> = (1..=tenants).map(|n| (u64::from(n), 1 + (n - 1) % GROUPS)).collect();
        let (at, router) = self.client(|config: RouterConfig| config);
        let records = self.records(&placed);
        let write = async move { router.tenant(DIRECTORY_TENANT).with_deadline(WITHIN).transact(Vec::new(), records).await };
        let written = at.spawn(write).await.expect("the client's machine has no faults");
        written.expect("the directory takes its first records");
        for (tenant_id, group_id) in &placed {
            let range = Some(v1::ShardRange { tenant_id: *tenant_id, start: Bytes::new(), end: Bytes::new() });
            let request = v1::AdoptShardRequest { group_id: *group_id, range, epoch: 1 };
            while let Err(error) = self.propose(*group_id, Command::AdoptShard(request.clone()), end).await {
                assert!(Instant::now() < end, "group {group_id} adopts no shard: {error}");
                tokio::time::sleep(RETRY).await;
            }
        }
        placed.into_iter().map(|(tenant_id, _)| tenant_id).collect()
    }

    async fn propose(&self, group_id: u32, command: Command, end: Instant) -> Result<(), metadb_proto::Error> {
        let mut last = metadb_proto::Error::internal("no node is up");
        for node in self.machines().iter().filter_map(|machine| machine.node()) {
            let Some(group) = node.group(group_id) else { continue };
            match group.propose(command.clone(), end).await {
                Ok(_) => return Ok(()),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn records(&self, placed: &[(u64, u32)]) -> Vec<v1::Operation> {
        let nodes: Vec<_> = self.machines().iter().map(|m| v1::NodeRef { node_id: m.node_id(), address: m.address().to_owned() }).collect();
        let cluster = v1::ClusterRecord {
            cluster_id: machine::CLUSTER_ID.to_owned(),
            replicas: u32::try_from(nodes.len()).unwrap_or(u32::MAX),
            initial_groups: GROUPS,
            ..Default::default()
        };
        let mut records = vec![put(cluster_key(), &cluster)];
        for node in &nodes {
            records.push(put(node_key(node.node_id), &v1::NodeRecord { node: Some(node.clone()), ..Default::default() }));
        }
        for group_id in 0..=GROUPS {
            let state = group_record::State::Active.into();
            let record = v1::GroupRecord { group_id, state, voters: nodes.clone(), ..Default::default() };
            records.push(put(group_key(group_id), &record));
        }
        for (tenant_id, group_id) in placed {
            let (tenant_id, group_id) = (*tenant_id, *group_id);
            let name = format!("tenant-{tenant_id}");
            let state = tenant_record::State::Active.into();
            records.push(operation::put(tenant_name_key(&name), Bytes::copy_from_slice(&tenant_id.to_be_bytes())));
            records.push(put(tenant_key(tenant_id), &v1::TenantRecord { tenant_id, name, state, ..Default::default() }));
            records.push(put(shard_key(tenant_id, b""), &v1::ShardRecord { tenant_id, group_id, epoch: 1, ..Default::default() }));
        }
        let given = [("node", nodes.len() as u64), ("group", GROUPS.into()), ("tenant", placed.len() as u64)];
        records.extend(given.map(|(name, last)| operation::put(counter_key(name), Bytes::copy_from_slice(&last.to_be_bytes()))));
        records
    }
}

fn put(key: Vec<u8>, record: &impl Message) -> v1::Operation {
    operation::put(key, Bytes::from(record.encode_to_vec()))
}
