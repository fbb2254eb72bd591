//! Nodes that are drained: emptied of leaders, and of replicas, without leaving the cluster.

use super::membership::{activate, find_node, placement_level};
use crate::reconcile::office;
use crate::reconcile::plan::Records;
use metadb_proto::v1::node_record;
use metadb_proto::{Error, seam};

/// A node that shall be drained.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drain {
    /// Which.
    pub node_id: u64,
    /// Only of what it leads; its replicas stay.
    pub leaders_only: bool,
    /// Why, for people.
    pub reason: String,
}

/// Longest reason, in bytes.
const REASON_BYTES: usize = 256;

/// Has a node drained, if there is somebody to take over. Whether there is room for its replicas is for the caller to judge.
pub(super) fn drain(records: &mut Records, wanted: &Drain, alive: &[u64]) -> Result<(), Error> {
    placement_level(&records.cluster)?;
    if wanted.reason.len() > REASON_BYTES {
        return Err(Error::invalid("reason", format!("at most {REASON_BYTES} bytes"), format!("{} bytes", wanted.reason.len())));
    }
    let node_id = wanted.node_id;
    let refused = |what: &str| Err(Error::invalid("node", "active, or drained already", format!("{node_id}, which {what}")));
    match find_node(records, node_id)?.state() {
        node_record::State::Active | node_record::State::Draining => {}
        node_record::State::Leaving => return refused("leaves for good: `cairn admin node add` takes that back"),
        node_record::State::Removed => return refused("was removed"),
    }
    heirs(records, wanted, alive)?;
    let node = find_node(records, node_id)?;
    if node.state() == node_record::State::Active {
        node.set_state(node_record::State::Draining);
        node.state_since_ms = seam::unix_ms();
    }
    node.keeps_replicas = wanted.leaders_only;
    node.reason.clone_from(&wanted.reason);
    Ok(())
}

/// Whether every group that keeps its replica on the node has another voter that may lead.
fn heirs(records: &Records, wanted: &Drain, alive: &[u64]) -> Result<(), Error> {
    if !wanted.leaders_only {
        return Ok(());
    }
    let may_lead = |id: u64| {
        let takes = records.nodes.iter().any(|record| office::takes(record) && record.node.as_ref().is_some_and(|node| node.node_id == id));
        id != wanted.node_id && takes && alive.contains(&id)
    };
    let voters = |id: u64| records.groups.iter().filter(move |group| group.voters.iter().any(|voter| voter.node_id == id));
    let orphan = voters(wanted.node_id).find(|group| !group.voters.iter().any(|voter| may_lead(voter.node_id)));
    orphan.map_or(Ok(()), |group| {
        let limit = "in groups that another node can lead: undrain or start one of their voters, or drain it of its replicas too";
        Err(Error::invalid("node", limit, format!("{}, the only one that can lead group {}", wanted.node_id, group.group_id)))
    })
}

/// Ends that a node is drained. It holds again when a group lacks a replica.
pub(super) fn undrain(records: &mut Records, node_id: u64) -> Result<(), Error> {
    let node = find_node(records, node_id)?;
    let refused = |what: &str| Err(Error::invalid("node", "drained, or active already", format!("{node_id}, which {what}")));
    match node.state() {
        node_record::State::Active => Ok(()),
        node_record::State::Draining => {
            activate(node);
            Ok(())
        }
        node_record::State::Leaving => refused("leaves for good: `cairn admin node add` takes that back"),
        node_record::State::Removed => refused("was removed: it joins anew, with an empty data folder"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metadb_proto::level;
    use metadb_proto::v1::{ClusterRecord, GroupRecord, NodeRecord, NodeRef};

    fn records(nodes: u64, voters: &[u64]) -> Records {
        let node = |node_id| NodeRef { node_id, address: format!("n{node_id}:1") };
        let cluster = ClusterRecord { replicas: 3, feature_level: level::PLACEMENT.into(), ..Default::default() };
        let group = GroupRecord { group_id: 7, voters: voters.iter().copied().map(node).collect(), ..Default::default() };
        let nodes = (1..=nodes).map(|id| NodeRecord { node: Some(node(id)), ..Default::default() }).collect();
        Records { cluster, nodes, groups: vec![group], ..Records::default() }
    }

    fn leaders_of(node_id: u64) -> Drain {
        Drain { node_id, leaders_only: true, reason: "a new disk".into() }
    }

    #[test]
    fn of_leaders_only_while_another_voter_can_lead() {
        let mut three = records(3, &[1, 2, 3]);
        drain(&mut three, &leaders_of(1), &[1, 2, 3]).expect("two are left");
        drain(&mut three, &leaders_of(1), &[1, 2, 3]).expect("asked again");
        drain(&mut three, &leaders_of(2), &[1, 2, 3]).expect("one is left");
        let refused = drain(&mut three, &leaders_of(3), &[1, 2, 3]).expect_err("nobody would lead").to_string();
        assert!(refused.contains("group 7") && refused.contains("undrain"), "{refused}");
        assert_eq!(three.nodes[2].state(), node_record::State::Active, "a refusal changes nothing");
        assert_eq!((three.nodes[0].keeps_replicas, three.nodes[0].reason.as_str()), (true, "a new disk"));
        let silent = drain(&mut records(3, &[1, 2, 3]), &leaders_of(1), &[1]).expect_err("the others are silent");
        assert!(silent.to_string().contains("start one"), "{silent}");
    }

    #[test]
    fn what_leaves_or_is_not_there_is_refused_with_what_to_do() {
        let mut three = records(3, &[1, 2, 3]);
        assert!(matches!(drain(&mut three, &leaders_of(9), &[1, 2, 3]), Err(Error::NotFound { .. })));
        assert!(matches!(undrain(&mut three, 9), Err(Error::NotFound { .. })));
        three.nodes[0].set_state(node_record::State::Leaving);
        for told in [drain(&mut three, &leaders_of(1), &[1, 2, 3]), undrain(&mut three, 1)] {
            assert!(told.expect_err("it leaves").to_string().contains("node add"));
        }
        three.nodes[0].set_state(node_record::State::Removed);
        assert!(drain(&mut three, &leaders_of(1), &[1, 2, 3]).is_err() && undrain(&mut three, 1).is_err());
        three.cluster.feature_level -= 1;
        let old = drain(&mut three, &leaders_of(2), &[1, 2, 3]).expect_err("an old node would overlook it").to_string();
        assert!(old.contains("every node must run"), "{old}");
    }

    #[test]
    fn a_node_that_is_drained_of_leaders_can_be_drained_of_all_and_taken_back() {
        let mut three = records(3, &[1, 2, 3]);
        drain(&mut three, &leaders_of(1), &[1, 2, 3]).expect("of leaders");
        assert!(office::keeps(&three.nodes[0]) && !office::takes(&three.nodes[0]));
        drain(&mut three, &Drain { leaders_only: false, ..leaders_of(1) }, &[1, 2, 3]).expect("of all");
        assert!(!office::keeps(&three.nodes[0]));
        undrain(&mut three, 1).expect("back");
        assert!(office::takes(&three.nodes[0]) && three.nodes[0].reason.is_empty() && !three.nodes[0].keeps_replicas);
    }
}
