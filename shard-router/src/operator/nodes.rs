//! Nodes: the first one makes the cluster, the others join it.

use super::{Operator, PATIENCE, counter, group_record, set_counter};
use crate::admin;
use crate::transaction::Transaction;
use metadb_proto::v1::{self, ClusterRecord, GroupRecord, NodeRecord, NodeRef, group_record as group, node_record};
use metadb_proto::{Error, directory, level, seam};
use prost::Message as _;
use tokio::time::Instant;

/// Most nodes that a cluster may have.
const NODES_READ: u32 = 10_000;

impl Operator {
    /// Makes a cluster out of one running node: the directory's first replica and its first records. Asked again with the same cluster id,
    /// it does what is still missing.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a record that lacks something, or if the directory belongs to another cluster already.
    pub async fn bootstrap(&self, cluster: ClusterRecord, node: NodeRecord) -> Result<(), Error> {
        let this = check_node(&node)?;
        if this.node_id == 0 {
            return Err(Error::invalid("node.node_id", "at least 1", "0"));
        }
        if cluster.cluster_id.len() != 32 || !cluster.cluster_id.bytes().all(|c| c.is_ascii_hexdigit()) {
            return Err(Error::invalid("cluster_id", "32 hex digits", cluster.cluster_id));
        }
        if cluster.replicas == 0 {
            return Err(Error::invalid("replicas", "at least 1", "0"));
        }
        let until = Instant::now() + PATIENCE;
        let create = v1::CreateReplicaRequest { group_id: directory::DIRECTORY_GROUP, voters: vec![this.clone()], ..Default::default() };
        self.router().at_node(&this, until, &admin::create_replica(create)).await?;
        self.router().map().write().learn_voters(directory::DIRECTORY_GROUP, vec![this.clone()]);
        let node = NodeRecord { joined_at_ms: seam::unix_ms(), ..node };
        let directory_group = group_record(directory::DIRECTORY_GROUP, group::State::Active, vec![this.clone()]);
        let (cluster, node, directory_group) = (&cluster, &node, &directory_group);
        let written = self.directory().run(|tx| async move {
            if let Some(row) = tx.get(directory::cluster_key()).await? {
                let other = decode::<ClusterRecord>(&row, "cluster")?.cluster_id;
                if other != cluster.cluster_id {
                    return Err(Error::invalid(
                        "cluster_id",
                        format!("{other}, the cluster of this directory"),
                        cluster.cluster_id.clone(),
                    ));
                }
                return Ok(());
            }
            tx.put(directory::cluster_key(), cluster.encode_to_vec());
            tx.put(directory::node_key(node.node.as_ref().map_or(0, |node| node.node_id)), node.encode_to_vec());
            tx.put(directory::group_key(directory::DIRECTORY_GROUP), directory_group.encode_to_vec());
            set_counter(&tx, "node", node.node.as_ref().map_or(0, |node| node.node_id));
            // Not the other counters: absent ones count from 0, and an operator may have come before this and counted already.
            Ok(())
        });
        written.await
    }

    /// Writes a node into the directory. With node id 0 it gets a new one; a node that is known says its own, and what changed about it is
    /// noted. Whoever had the address before can't be there any more: it lost its data folder, or moved away and did not come back. It is
    /// replaced by the node that has the address now. Returns the cluster's id and the node's.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] if the node was removed, or if another node that holds replicas and says its id has the address.
    /// [`Error::Invalid`] if its build does not know the cluster's feature level. [`Error::NotFound`] before the cluster was bootstrapped.
    pub async fn join(&self, node: NodeRecord) -> Result<(String, u64), Error> {
        let this = check_node(&node)?;
        let cluster_id = self.cluster().await?.cluster_id;
        let (node, this) = (&node, &this);
        let joined = self.directory().run(|tx| async move {
            // Read within: the level must not be raised past this build meanwhile.
            if let Some(row) = tx.get(directory::cluster_key()).await? {
                let at = decode::<ClusterRecord>(&row, "cluster")?.feature_level;
                level::check_build(node.oldest_level, node.newest_level, at)?;
            }
            let last = counter(&tx, "node").await?;
            let node_id = if this.node_id == 0 { last + 1 } else { this.node_id };
            let (from, to) = directory::records("node");
            let rows = tx.scan(from, to, NODES_READ).await?;
            let nodes: Vec<NodeRecord> = rows.iter().map(|(_, row)| decode(row, "node")).collect::<Result<_, _>>()?;
            let known = nodes.iter().find(|known| id_of(known) == node_id);
            if known.is_some_and(|known| known.state() == node_record::State::Removed) {
                return Err(Error::AlreadyExists { message: format!("node {node_id} was removed from the cluster") });
            }
            let (from, to) = directory::records("group");
            let groups = tx.scan(from, to, NODES_READ).await?;
            let groups: Vec<GroupRecord> = groups.iter().map(|(_, row)| decode(row, "group")).collect::<Result<_, _>>()?;
            for before in
                nodes.iter().filter(|before| id_of(before) != node_id && before.node.as_ref().is_some_and(|n| n.address == this.address))
            {
                succeed(&tx, (before, &groups), this, node_id)?;
            }
            let fresh = NodeRecord { joined_at_ms: seam::unix_ms(), ..NodeRecord::default() };
            let known = known.cloned().unwrap_or(fresh);
            let record = NodeRecord {
                node: Some(NodeRef { node_id, address: this.address.clone() }),
                doors: node.doors.clone(),
                labels: node.labels.clone(),
                build: node.build.clone(),
                oldest_level: node.oldest_level,
                newest_level: node.newest_level,
                ..known
            };
            tx.put(directory::node_key(node_id), record.encode_to_vec());
            if node_id > last {
                set_counter(&tx, "node", node_id);
            }
            Ok(node_id)
        });
        Ok((cluster_id, joined.await?))
    }

    /// Notes that the cluster is at a feature level from now on, or at a higher one already. It never sinks.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a node of the directory does not know the level; as [`crate::Client::transact`].
    pub async fn raise_level(&self, level: u16) -> Result<(), Error> {
        let wanted = u32::from(level);
        let raised = self.directory().run(|tx| async move {
            let row = tx.get(directory::cluster_key()).await?.ok_or_else(|| Error::not_found("the cluster's record"))?;
            let cluster = decode::<ClusterRecord>(&row, "cluster")?;
            if cluster.feature_level >= wanted {
                return Ok(());
            }
            let (start, end) = directory::records("node");
            // The whole range is a condition: a node of an older build must not join meanwhile.
            for (_, row) in tx.scan(start, end, 0).await? {
                let node = decode::<NodeRecord>(&row, "node")?;
                if node.state() == node_record::State::Removed {
                    continue;
                }
                level::check_build(node.oldest_level, node.newest_level, wanted)?;
            }
            tx.put(directory::cluster_key(), ClusterRecord { feature_level: wanted, ..cluster }.encode_to_vec());
            Ok(())
        });
        raised.await
    }

    /// All nodes.
    ///
    /// # Errors
    /// As [`crate::Client::scan`].
    pub async fn nodes(&self) -> Result<Vec<NodeRecord>, Error> {
        self.all("node").await
    }
}

fn id_of(record: &NodeRecord) -> u64 {
    record.node.as_ref().map_or(0, |node| node.node_id)
}

/// What becomes of the node that had an address before another one.
fn succeed(tx: &Transaction, (before, groups): (&NodeRecord, &[GroupRecord]), this: &NodeRef, node_id: u64) -> Result<(), Error> {
    let id = id_of(before);
    if before.state() == node_record::State::Removed || before.replaced_by == node_id {
        return Ok(());
    }
    let held = groups.iter().flat_map(|group| group.voters.iter().chain(&group.learners)).any(|node| node.node_id == id);
    if !held {
        // It never came up under this id, or gave all away.
        tx.delete(directory::node_key(id));
        return Ok(());
    }
    if this.node_id != 0 {
        // It has an identity of its own: two folders claim one address, and only a person knows which is right.
        return Err(Error::AlreadyExists { message: format!("node {id} has the address {}", this.address) });
    }
    let mut before = before.clone();
    super::membership::leave(&mut before, node_id, format!("node {node_id} has its address: its data folder was lost"));
    tx.put(directory::node_key(id), before.encode_to_vec());
    Ok(())
}

fn check_node(node: &NodeRecord) -> Result<NodeRef, Error> {
    let this = node.node.clone().ok_or_else(|| Error::invalid("node", "present", "absent"))?;
    if this.address.rsplit_once(':').is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err()) {
        return Err(Error::invalid("node.address", "host:port", this.address));
    }
    Ok(this)
}

pub(super) fn decode<R: prost::Message + Default>(value: &[u8], what: &str) -> Result<R, Error> {
    R::decode(value).map_err(|error| Error::Corrupt { message: format!("{what} record of the directory: {error}") })
}
