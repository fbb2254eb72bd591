//! New groups: their records are written here, the reconciler makes the replicas.

use super::membership::{answers, placement_level, read};
use super::{Operator, counter, set_counter};
use crate::reconcile::office;
use crate::reconcile::plan::{Records, new_group};
use crate::residency;
use crate::transaction::Transaction;
use metadb_proto::v1::{GroupRecord, NodeRef, TenantRecord};
use metadb_proto::{Error, directory};
use prost::Message as _;
use std::collections::BTreeSet;

/// Most groups made by one call: a replica costs a node memory and tasks.
const GROUPS_AT_ONCE: u32 = 256;
/// How many voters may be chosen: odd numbers.
const CHOSEN: [usize; 4] = [1, 3, 5, 7];

/// Groups that shall be made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewGroups {
    /// How many.
    pub count: u32,
    /// The nodes that shall hold them; none: those that hold fewest, as many as the cluster has replicas.
    pub on: Vec<u64>,
    /// The pod that they belong to; empty: none.
    pub pod: String,
    /// The only tenant that they are for; 0: any.
    pub own_of_tenant: u64,
}

impl Operator {
    /// Has groups made.
    ///
    /// # Errors
    /// [`Error::Invalid`] for too many at once, nodes that can't hold them, or too few of them, with what to do instead;
    /// [`Error::NotFound`] for a node or a pod that is not there; as [`crate::Client::transact`].
    pub async fn create_groups(&self, wanted: &NewGroups) -> Result<Vec<GroupRecord>, Error> {
        let alive = self.membership().await?.alive();
        let alive = &alive;
        let made = self.directory().run(|tx| async move {
            let groups = next(&tx, wanted, alive).await?;
            write(&tx, &groups);
            Ok(groups)
        });
        made.await
    }

    /// What [`Operator::create_groups`] would make now.
    ///
    /// # Errors
    /// As it.
    pub async fn plan_groups(&self, wanted: &NewGroups) -> Result<Vec<GroupRecord>, Error> {
        let alive = self.membership().await?.alive();
        let alive = &alive;
        self.directory().run(|tx| async move { next(&tx, wanted, alive).await }).await
    }

    /// The group that is a tenant's own, made if there is none.
    ///
    /// # Errors
    /// As [`Operator::create_groups`].
    pub async fn own_group(&self, tenant: &TenantRecord) -> Result<GroupRecord, Error> {
        let alive = self.membership().await?.alive();
        let alive = &alive;
        let made = self.directory().run(|tx| async move {
            let known =
                read(&tx).await?.groups.into_iter().find(|group| group.own_of_tenant == tenant.tenant_id && group.pod == tenant.pod);
            if let Some(known) = known {
                return Ok(vec![known]);
            }
            let wanted = NewGroups { count: 1, pod: tenant.pod.clone(), own_of_tenant: tenant.tenant_id, ..NewGroups::default() };
            let groups = next(&tx, &wanted, alive).await?;
            write(&tx, &groups);
            Ok(groups)
        });
        made.await?.into_iter().next().ok_or_else(|| Error::internal("no group was made"))
    }

    /// Lets other tenants into the groups that are a tenant's own; how many those are.
    ///
    /// # Errors
    /// As [`crate::Client::transact`].
    pub async fn share_groups(&self, tenant_id: u64) -> Result<usize, Error> {
        let shared = self.directory().run(|tx| async move {
            let own: Vec<GroupRecord> = read(&tx).await?.groups.into_iter().filter(|group| group.own_of_tenant == tenant_id).collect();
            let count = own.len();
            write(&tx, &own.into_iter().map(|group| GroupRecord { own_of_tenant: 0, ..group }).collect::<Vec<_>>());
            Ok(count)
        });
        shared.await
    }
}

fn write(tx: &Transaction, groups: &[GroupRecord]) {
    for group in groups {
        tx.put(directory::group_key(group.group_id), group.encode_to_vec());
    }
}

/// The records of new groups, their numbers taken.
async fn next(tx: &Transaction, wanted: &NewGroups, alive: &[u64]) -> Result<Vec<GroupRecord>, Error> {
    let count = wanted.count;
    if count == 0 || count > GROUPS_AT_ONCE {
        return Err(Error::invalid("count", format!("1 to {GROUPS_AT_ONCE}"), count.to_string()));
    }
    let records = read(tx).await?;
    let last = counter(tx, "group").await?;
    let end = last + u64::from(count);
    let end = u32::try_from(end).map_err(|_| Error::invalid("count", "group ids of 32 bits", end.to_string()))?;
    set_counter(tx, "group", u64::from(end));
    plan(&records, wanted, end - count + 1, alive)
}

/// New groups, numbered from `first`.
fn plan(records: &Records, wanted: &NewGroups, first: u32, alive: &[u64]) -> Result<Vec<GroupRecord>, Error> {
    if !wanted.pod.is_empty() || wanted.own_of_tenant != 0 {
        placement_level(&records.cluster)?;
    }
    if !wanted.pod.is_empty() && !records.pods.iter().any(|pod| pod.name == wanted.pod) {
        return Err(Error::not_found(format!(
            "pod {:?}: `cairn admin pod list` shows them, `cairn admin pod create` makes one",
            wanted.pod
        )));
    }
    let (nodes, replicas) = nodes(records, wanted, alive)?;
    let mut known = records.groups.clone();
    for group_id in (first..).take(usize::try_from(wanted.count).unwrap_or(0)) {
        let group = new_group(group_id, &nodes, &known, replicas);
        let (wanted_voters, pod, own_of_tenant) = (wanted.on.clone(), wanted.pod.clone(), wanted.own_of_tenant);
        known.push(GroupRecord { wanted_voters, pod, own_of_tenant, ..group });
    }
    Ok(known.split_off(records.groups.len()))
}

/// The nodes that may hold the groups, and how many each group gets.
fn nodes(records: &Records, wanted: &NewGroups, alive: &[u64]) -> Result<(Vec<NodeRef>, usize), Error> {
    let group = GroupRecord { group_id: u32::MAX, pod: wanted.pod.clone(), ..GroupRecord::default() };
    let fit = records.nodes.iter().filter(|node| office::takes(node) && residency::may_be_on(&group, node, &records.pods));
    let mut fit: Vec<NodeRef> = fit.filter_map(|record| record.node.clone()).collect();
    if wanted.on.is_empty() {
        let replicas = records.cluster.replicas as usize;
        if fit.len() < replicas {
            let where_to = if wanted.pod.is_empty() { String::new() } else { format!(" of pod {:?}", wanted.pod) };
            let limit =
                format!("at least {replicas}{where_to} that are not drained, one per replica: start another one with `cairn node --join`");
            return Err(Error::invalid("nodes", limit, fit.len().to_string()));
        }
        return Ok((fit, replicas));
    }
    let distinct: BTreeSet<u64> = wanted.on.iter().copied().collect();
    if distinct.len() != wanted.on.len() || !CHOSEN.contains(&wanted.on.len()) {
        let named = wanted.on.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        return Err(Error::invalid("on", "1, 3, 5 or 7 different nodes", named));
    }
    for id in &wanted.on {
        if !records.nodes.iter().any(|record| record.node.as_ref().is_some_and(|node| node.node_id == *id)) {
            return Err(Error::not_found(format!("node {id}: `cairn admin node list` shows them")));
        }
        if !fit.iter().any(|node| node.node_id == *id) {
            let limit = "nodes that stay, are not drained, and are in the pod of the group";
            return Err(Error::invalid("on", limit, id.to_string()));
        }
        answers(*id, alive)?;
    }
    fit.retain(|node| distinct.contains(&node.node_id));
    Ok((fit, wanted.on.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use metadb_proto::level;
    use metadb_proto::v1::{ClusterRecord, LabelRule, NodeRecord, PodRecord, node_record};

    /// Four nodes; the first three are in the pod `eu`.
    fn records() -> Records {
        let node = |node_id: u64| NodeRecord {
            node: Some(NodeRef { node_id, address: format!("n{node_id}:1") }),
            labels: [("pod".to_owned(), if node_id < 4 { "eu" } else { "us" }.to_owned())].into(),
            ..Default::default()
        };
        let pod = |name: &str| {
            let rule = LabelRule { label: "pod".into(), values: vec![name.into()] };
            PodRecord { name: name.into(), rules: vec![rule], ..Default::default() }
        };
        let cluster = ClusterRecord { replicas: 3, feature_level: level::PLACEMENT.into(), ..Default::default() };
        Records { cluster, nodes: (1..=4).map(node).collect(), pods: vec![pod("eu"), pod("us")], ..Records::default() }
    }

    fn voters(groups: &[GroupRecord]) -> Vec<Vec<u64>> {
        groups.iter().map(|group| group.voters.iter().map(|node| node.node_id).collect()).collect()
    }

    #[test]
    fn a_group_of_a_pod_is_on_nodes_of_the_pod() {
        let eu = NewGroups { count: 2, pod: "eu".into(), ..NewGroups::default() };
        let made = plan(&records(), &eu, 9, &[]).expect("made");
        assert_eq!(voters(&made), [[1, 2, 3], [1, 2, 3]]);
        assert_eq!((made[1].group_id, made[1].pod.as_str()), (10, "eu"));
        let us = plan(&records(), &NewGroups { pod: "us".into(), ..eu.clone() }, 9, &[]).expect_err("one node").to_string();
        assert!(us.contains("at least 3 of pod \"us\""), "{us}");
        let none = plan(&records(), &NewGroups { pod: "asia".into(), ..eu }, 9, &[]);
        assert!(matches!(none, Err(Error::NotFound { .. })));
    }

    #[test]
    fn nodes_that_are_named_must_be_there_and_fit() {
        let on = |on: &[u64], pod: &str| NewGroups { count: 1, on: on.to_vec(), pod: pod.into(), ..NewGroups::default() };
        let made = plan(&records(), &on(&[4, 2, 1], ""), 1, &[1, 2, 4]).expect("made");
        assert_eq!((voters(&made), &made[0].wanted_voters), (vec![vec![1, 2, 4]], &vec![4, 2, 1]));
        for (wrong, told) in [
            (on(&[1, 2], ""), "1, 3, 5"),
            (on(&[1, 1, 2], ""), "different"),
            (on(&[2, 1, 4], "eu"), "in the pod"),
            (on(&[3], ""), "answers"),
        ] {
            let refused = plan(&records(), &wrong, 1, &[1, 2, 4]).expect_err("refused").to_string();
            assert!(refused.contains(told), "{refused}");
        }
        assert!(matches!(plan(&records(), &on(&[77], ""), 1, &[77]), Err(Error::NotFound { .. })));
        let mut drained = records();
        drained.nodes[0].set_state(node_record::State::Draining);
        assert!(plan(&drained, &on(&[1], ""), 1, &[1]).is_err());
        let made = plan(&drained, &on(&[], ""), 1, &[]).expect("three are left");
        assert_eq!(voters(&made), [[2, 3, 4]]);
    }
}
