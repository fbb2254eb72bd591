//! Which nodes hold replicas, and how many: an operator's wishes, written into the directory. The reconciler does what they ask, however
//! long it takes and whoever leads by then; asking for it again, or for the opposite, is always allowed.

use super::drain::{self, Drain};
use super::nodes::decode;
use super::{Operator, PATIENCE};
use crate::reconcile::members::Placement;
use crate::reconcile::office;
use crate::reconcile::plan::{self, Records};
use crate::residency;
use crate::transaction::Transaction;
use metadb_proto::v1::{ClusterRecord, GroupRecord, NodeRecord, StatusResponse, node_record};
use metadb_proto::{Error, directory, level, seam};
use prost::Message as _;
use std::collections::BTreeMap;
use std::time::Duration;

/// How many replicas a group may have: odd numbers, since an even one tolerates no more failures and needs more votes.
const REPLICAS: [u32; 4] = [1, 3, 5, 7];
/// Shortest silence after which a node may be given up without being asked: a restart of a machine takes less.
const GIVE_UP_AT_LEAST: Duration = Duration::from_secs(5);
/// Most nodes that are read in one transaction.
const NODES_READ: u32 = 10_000;

/// What an operator wants of the members of a cluster. Everything absent stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// How many replicas each group shall have.
    pub replicas: Option<u32>,
    /// A node that shall leave, and the node that shall get its replicas, if a certain one shall.
    pub leave: Option<(u64, Option<u64>)>,
    /// A node that shall hold replicas: one that was asked to leave stays.
    pub stay: Option<u64>,
    /// A node that shall lead nothing, and hold nothing, and stay a node.
    pub drain: Option<Drain>,
    /// A node that is drained and shall lead and hold again.
    pub undrain: Option<u64>,
    /// The voters of one group; none: as many as the cluster has replicas, where there is room.
    pub voters: Option<(u32, Vec<u64>)>,
    /// One replica that shall be on another node.
    pub replace: Option<Replace>,
    /// The learners of one group beside them.
    pub learners: Option<(u32, Vec<u64>)>,
    /// After how long a silent node is drained without being asked; zero: never.
    pub give_up_after: Option<Duration>,
}

/// A replica that shall be on another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replace {
    /// Of which group.
    pub group_id: u32,
    /// The node that has it, alive or dead.
    pub old: u64,
    /// The node that shall have it.
    pub new: u64,
    /// Nobody asked for just this: it is refused where an operator chose the members.
    pub is_of_a_plan: bool,
}

/// A cluster's records and what its nodes say.
#[derive(Debug, Clone)]
pub struct Membership {
    /// What the directory says.
    pub records: Records,
    /// What the nodes say that answered.
    pub statuses: BTreeMap<u64, StatusResponse>,
}

impl Membership {
    /// Where each group's replicas are, and where they shall be.
    #[must_use]
    pub fn placements(&self) -> Vec<Placement> {
        plan::placements(&self.records, &self.statuses)
    }

    /// As it would be if a wish were granted.
    ///
    /// # Errors
    /// As [`Operator::wish`].
    pub fn with(&self, wish: &Wish) -> Result<Self, Error> {
        let mut records = self.records.clone();
        let alive = self.alive();
        grant(&mut records, wish, &alive)?;
        Ok(Membership { records, statuses: self.statuses.clone() })
    }

    pub(super) fn alive(&self) -> Vec<u64> {
        self.statuses.keys().copied().collect()
    }
}

impl Operator {
    /// The directory's records of members, and what the nodes say.
    ///
    /// # Errors
    /// As [`crate::Client::scan`] on the directory; a node that does not answer is no error.
    pub async fn membership(&self) -> Result<Membership, Error> {
        let (cluster, nodes, groups, pods) = (self.cluster().await?, self.nodes().await?, self.groups().await?, self.pods().await?);
        let statuses = self.ask_members(&nodes).await;
        Ok(Membership { records: Records { cluster, nodes, groups, pods, tenants: Vec::new() }, statuses })
    }

    /// Writes what is wanted into the directory. The reconciler brings the cluster there.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a node or a group that the directory does not have; [`Error::Invalid`] for what can't be: too few nodes
    /// that answer would remain, a number of replicas that groups can't have. It tells what to do instead. As [`crate::Client::transact`].
    pub async fn wish(&self, wish: &Wish) -> Result<(), Error> {
        let alive = self.membership().await?.alive();
        let alive = &alive;
        self.directory()
            .run(|tx| async move {
                let before = read(&tx).await?;
                let mut after = before.clone();
                grant(&mut after, wish, alive)?;
                write(&tx, &before, &after);
                Ok(())
            })
            .await
    }

    /// Has a node drained that is silent, as an operator would.
    pub(crate) async fn give_up(&self, node: &NodeRecord, silent: Duration) -> Result<(), Error> {
        let reason = format!("it had not answered for {} s", silent.as_secs());
        let change = |now: &mut NodeRecord| leave(now, 0, reason.clone());
        self.change_node(node, change).await
    }

    /// Notes that a node that leaves holds nothing any more.
    pub(crate) async fn finish_removal(&self, node: &NodeRecord) -> Result<(), Error> {
        let change = |now: &mut NodeRecord| {
            now.set_state(node_record::State::Removed);
            now.state_since_ms = seam::unix_ms();
        };
        self.change_node(node, change).await
    }

    /// Changes a node's record, if it is still as it was seen.
    async fn change_node(&self, seen: &NodeRecord, change: impl Fn(&mut NodeRecord) + Send + Sync) -> Result<(), Error> {
        let key = directory::node_key(seen.node.as_ref().map_or(0, |node| node.node_id));
        let (key, change) = (&key, &change);
        let changed = self.directory().with_deadline(PATIENCE).run(|tx| async move {
            let Some(row) = tx.get(key.clone()).await? else { return Ok(()) };
            let mut now: NodeRecord = decode(&row, "node")?;
            if now == *seen {
                change(&mut now);
                tx.put(key.clone(), now.encode_to_vec());
            }
            Ok(())
        });
        changed.await
    }
}

pub(super) async fn read(tx: &Transaction) -> Result<Records, Error> {
    let cluster = tx.get(directory::cluster_key()).await?.ok_or_else(|| Error::not_found("the cluster's record"))?;
    let (from, to) = directory::records("node");
    let nodes = tx.scan(from, to, NODES_READ).await?;
    let (from, to) = directory::records("group");
    let groups = tx.scan(from, to, NODES_READ).await?;
    let (from, to) = directory::records("pod");
    let pods = tx.scan(from, to, NODES_READ).await?;
    Ok(Records {
        cluster: decode(&cluster, "cluster")?,
        nodes: nodes.iter().map(|(_, row)| decode(row, "node")).collect::<Result<_, _>>()?,
        groups: groups.iter().map(|(_, row)| decode(row, "group")).collect::<Result<_, _>>()?,
        pods: pods.iter().map(|(_, row)| decode(row, "pod")).collect::<Result<_, _>>()?,
        tenants: Vec::new(),
    })
}

/// Writes what differs.
fn write(tx: &Transaction, before: &Records, after: &Records) {
    if before.cluster != after.cluster {
        tx.put(directory::cluster_key(), after.cluster.encode_to_vec());
    }
    for node in after.nodes.iter().filter(|node| !before.nodes.contains(node)) {
        tx.put(directory::node_key(node.node.as_ref().map_or(0, |node| node.node_id)), node.encode_to_vec());
    }
    for group in after.groups.iter().filter(|group| !before.groups.contains(group)) {
        tx.put(directory::group_key(group.group_id), group.encode_to_vec());
    }
}

pub(super) fn leave(node: &mut NodeRecord, replaced_by: u64, reason: String) {
    if matches!(node.state(), node_record::State::Active | node_record::State::Draining) {
        node.set_state(node_record::State::Leaving);
        node.state_since_ms = seam::unix_ms();
        node.reason = reason;
        node.keeps_replicas = false;
    }
    node.replaced_by = replaced_by;
}

/// Changes the records as an operator wishes, or says why that can't be.
fn grant(records: &mut Records, wish: &Wish, alive: &[u64]) -> Result<(), Error> {
    let at = records.cluster.feature_level.max(1);
    if at < u32::from(level::MEMBERS) {
        // An older build would overlook the wish, and lose it with the next record that it writes.
        let limit = format!("at least {}, for changes of members: every node must run a build that knows it", level::MEMBERS);
        return Err(Error::invalid("feature level", limit, at.to_string()));
    }
    if let Some(after) = wish.give_up_after {
        if !after.is_zero() && after < GIVE_UP_AT_LEAST {
            let limit = format!("0 (never), or at least {} s: a node that restarts is silent too", GIVE_UP_AT_LEAST.as_secs());
            return Err(Error::invalid("give_up_after", limit, format!("{} ms", after.as_millis())));
        }
        records.cluster.replace_dead_after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
    }
    if let Some(replicas) = wish.replicas {
        if !REPLICAS.contains(&replicas) {
            return Err(Error::invalid("replicas", "1, 3, 5 or 7", replicas.to_string()));
        }
        records.cluster.replicas = replicas;
    }
    if let Some((node_id, replaced_by)) = wish.leave {
        if let Some(new) = replaced_by {
            check_successor(records, node_id, new, alive)?;
        }
        leave(find_node(records, node_id)?, replaced_by.unwrap_or(0), "an operator asked for it".to_owned());
    }
    if let Some(node_id) = wish.stay {
        stay(find_node(records, node_id)?)?;
    }
    if let Some(wanted) = &wish.drain {
        drain::drain(records, wanted, alive)?;
    }
    if let Some(node_id) = wish.undrain {
        drain::undrain(records, node_id)?;
    }
    for (wanted, is_voters) in [(&wish.voters, true), (&wish.learners, false)] {
        let Some((group_id, nodes)) = wanted else { continue };
        nodes.iter().try_for_each(|id| check_member(records, *group_id, *id))?;
        let group = find_group(records, *group_id)?;
        group.choice_passes &= !is_voters;
        if is_voters { &mut group.wanted_voters } else { &mut group.wanted_learners }.clone_from(nodes);
    }
    if let Some(wanted) = &wish.replace {
        replace(records, wanted, alive)?;
    }
    let goes = wish.leave.is_some() || wish.drain.as_ref().is_some_and(|drain| !drain.leaders_only);
    if wish.replicas.is_some() || goes {
        enough_nodes(records, alive)?;
        enough_in_pods(records, alive)?;
    }
    Ok(())
}

/// Has a replica be on another node, and leaves the rest of the group where it is.
fn replace(records: &mut Records, wanted: &Replace, alive: &[u64]) -> Result<(), Error> {
    placement_level(&records.cluster)?;
    let Replace { group_id, old, new, is_of_a_plan } = *wanted;
    let (voters, chosen) = {
        let group = find_group(records, group_id)?;
        (group.voters.iter().map(|voter| voter.node_id).collect::<Vec<_>>(), !group.wanted_voters.is_empty() && !group.choice_passes)
    };
    if is_of_a_plan && !find_group(records, group_id)?.wanted_voters.is_empty() {
        let message =
            format!("the members of group {group_id} were chosen since the plan was made: `cairn admin group members {group_id}`");
        return Err(Error::Conflict { message });
    }
    find_node(records, old)?;
    if !voters.contains(&old) {
        let limit = format!("a node that votes in group {group_id}: `cairn admin group members {group_id}` shows them");
        return Err(Error::invalid("old", limit, old.to_string()));
    }
    if voters.contains(&new) {
        let limit = format!("a node that does not vote in group {group_id} yet");
        return Err(Error::invalid("new", limit, new.to_string()));
    }
    check_member(records, group_id, new)?;
    answers(new, alive)?;
    let others = voters.iter().filter(|id| alive.contains(id)).count();
    if others * 2 <= voters.len() {
        let limit = format!("a group most of whose voters answer: start those of group {group_id} that are down first");
        return Err(Error::invalid("group", limit, format!("{group_id}, {others} of {} answer", voters.len())));
    }
    let group = find_group(records, group_id)?;
    // Of two replicas that are replaced one after the other, the first is not forgotten.
    let base = if group.wanted_voters.is_empty() { voters } else { group.wanted_voters.clone() };
    if !base.contains(&old) || base.contains(&new) {
        let limit = format!("two nodes that group {group_id} is not leaving or going to already: `cairn admin group members {group_id}`");
        return Err(Error::invalid("old, new", limit, format!("{old}, {new}; it is on its way to {base:?}")));
    }
    group.wanted_voters = base.into_iter().filter(|id| *id != old && *id != new).chain([new]).collect();
    group.choice_passes = !chosen;
    Ok(())
}

/// Whether the cluster's nodes understand records of where things shall be.
pub(super) fn placement_level(cluster: &ClusterRecord) -> Result<(), Error> {
    let at = cluster.feature_level.max(1);
    if at < u32::from(level::PLACEMENT) {
        let limit = format!("at least {}, for drains and pods: every node must run a build that knows them", level::PLACEMENT);
        return Err(Error::invalid("feature level", limit, at.to_string()));
    }
    Ok(())
}

pub(super) fn find_node(records: &mut Records, node_id: u64) -> Result<&mut NodeRecord, Error> {
    let found = records.nodes.iter_mut().find(|record| record.node.as_ref().is_some_and(|node| node.node_id == node_id));
    found.ok_or_else(|| Error::not_found(format!("node {node_id}")))
}

pub(super) fn find_group(records: &mut Records, group_id: u32) -> Result<&mut GroupRecord, Error> {
    let found = records.groups.iter_mut().find(|group| group.group_id == group_id);
    found.ok_or_else(|| Error::not_found(format!("group {group_id}")))
}

fn stay(node: &mut NodeRecord) -> Result<(), Error> {
    match node.state() {
        node_record::State::Active => Ok(()),
        node_record::State::Removed => {
            let id = node.node.as_ref().map_or(0, |node| node.node_id);
            Err(Error::invalid(
                "node",
                "active or leaving: one that was removed joins anew, with an empty data folder",
                format!("{id}, removed"),
            ))
        }
        node_record::State::Leaving | node_record::State::Draining => {
            activate(node);
            Ok(())
        }
    }
}

pub(super) fn activate(node: &mut NodeRecord) {
    node.set_state(node_record::State::Active);
    node.state_since_ms = seam::unix_ms();
    (node.replaced_by, node.keeps_replicas, node.reason) = (0, false, String::new());
}

/// Whether a node may get a replica of a group.
pub(super) fn check_member(records: &mut Records, group_id: u32, node_id: u64) -> Result<(), Error> {
    check_stays(records, node_id)?;
    let group = find_group(records, group_id)?.clone();
    let pods = records.pods.clone();
    if residency::may_be_on(&group, find_node(records, node_id)?, &pods) {
        return Ok(());
    }
    let limit = format!("a node of pod {0:?}, which group {group_id} belongs to: `cairn admin pod show {0}` lists them", group.pod);
    Err(Error::invalid("node", limit, format!("{node_id}, whose labels are others")))
}

fn check_stays(records: &mut Records, node_id: u64) -> Result<(), Error> {
    let refused = |limit: &str, what: &str| Err(Error::invalid("node", limit, format!("{node_id}, which {what}")));
    match find_node(records, node_id)?.state() {
        node_record::State::Active => Ok(()),
        node_record::State::Leaving | node_record::State::Removed => refused("a node that stays", "leaves or was removed"),
        node_record::State::Draining => {
            refused("a node that is not drained; `cairn admin node undrain` ends that", "is drained and gets nothing new")
        }
    }
}

fn check_successor(records: &mut Records, old: u64, new: u64, alive: &[u64]) -> Result<(), Error> {
    if old == new {
        return Err(Error::invalid("new", format!("another node than {old}"), new.to_string()));
    }
    check_stays(records, new)?;
    answers(new, alive)
}

pub(super) fn answers(node_id: u64, alive: &[u64]) -> Result<(), Error> {
    if alive.contains(&node_id) {
        return Ok(());
    }
    let limit = "a node that answers: start it, and ask again when `cairn admin node list` shows it up";
    Err(Error::invalid("new", limit, node_id.to_string()))
}

/// Whether the groups of each pod have enough of its nodes to be on.
pub(super) fn enough_in_pods(records: &Records, alive: &[u64]) -> Result<(), Error> {
    let replicas = records.cluster.replicas as usize;
    for pod in records.pods.iter().filter(|pod| records.groups.iter().any(|group| group.pod == pod.name)) {
        let nodes = records.nodes.iter().filter(|node| office::takes(node) && residency::is_in(node, pod));
        let answering = nodes.filter(|record| record.node.as_ref().is_some_and(|node| alive.contains(&node.node_id))).count();
        if answering < replicas {
            let limit = format!(
                "at least {replicas} in pod {:?}, one per replica of its groups: start another node with its labels first",
                pod.name
            );
            return Err(Error::invalid("nodes that stay and answer", limit, answering.to_string()));
        }
    }
    Ok(())
}

/// Whether all replicas have a node to be on.
fn enough_nodes(records: &Records, alive: &[u64]) -> Result<(), Error> {
    let ClusterRecord { replicas, .. } = records.cluster;
    let staying = records.nodes.iter().filter(|node| office::takes(node));
    let answering = staying.filter(|record| record.node.as_ref().is_some_and(|node| alive.contains(&node.node_id))).count();
    if answering >= replicas as usize {
        return Ok(());
    }
    let limit = format!(
        "at least {replicas}, one per replica: start another node with `cairn node --join`, or ask for fewer replicas in the same command"
    );
    Err(Error::invalid("nodes that stay and answer", limit, answering.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use metadb_proto::v1::NodeRef;

    fn records(nodes: u64, replicas: u32) -> Records {
        let node = |node_id| NodeRecord { node: Some(NodeRef { node_id, address: format!("n{node_id}:1") }), ..Default::default() };
        let cluster = ClusterRecord { replicas, feature_level: level::MEMBERS.into(), ..Default::default() };
        Records { cluster, nodes: (1..=nodes).map(node).collect(), groups: vec![GroupRecord::default()], ..Records::default() }
    }

    fn state(records: &Records, at: usize) -> node_record::State {
        records.nodes[at].state()
    }

    #[test]
    fn nothing_is_wished_while_a_node_may_overlook_it() {
        let mut old = records(4, 3);
        old.cluster.feature_level = u32::from(level::MEMBERS) - 1;
        let refused = grant(&mut old, &Wish { leave: Some((4, None)), ..Wish::default() }, &[1, 2, 3, 4]).expect_err("an old cluster");
        assert!(refused.to_string().contains("every node must run"), "{refused}");
        assert_eq!(old.nodes[3].state(), node_record::State::Active);
    }

    #[test]
    fn a_replica_that_is_replaced_forgets_no_other_and_a_plan_gives_way_to_a_choice() {
        let node = |node_id| NodeRef { node_id, address: format!("n{node_id}:1") };
        let mut records = records(6, 3);
        records.cluster.feature_level = level::PLACEMENT.into();
        records.groups = vec![GroupRecord { group_id: 3, voters: vec![node(1), node(2), node(3)], ..Default::default() }];
        let all = [1, 2, 3, 4, 5, 6];
        let ask = |records: &mut Records, old, new, is_of_a_plan| {
            let replace = Some(Replace { group_id: 3, old, new, is_of_a_plan });
            grant(records, &Wish { replace, ..Wish::default() }, &all)
        };
        ask(&mut records, 2, 4, true).expect("nobody chose");
        assert_eq!((&records.groups[0].wanted_voters[..], records.groups[0].choice_passes), (&[1, 3, 4][..], true));
        assert!(matches!(ask(&mut records, 1, 5, true), Err(Error::Conflict { .. })));
        ask(&mut records, 1, 5, false).expect("an operator does");
        assert_eq!((&records.groups[0].wanted_voters[..], records.groups[0].choice_passes), (&[3, 4, 5][..], true));
        let before = records.groups.clone();
        assert!(ask(&mut records, 2, 6, false).is_err(), "it goes already");
        assert!(ask(&mut records, 3, 4, false).is_err(), "it comes already");
        assert_eq!(records.groups, before);
    }

    #[test]
    fn a_node_may_leave_only_if_enough_stay_that_answer() {
        let leave = Wish { leave: Some((3, None)), ..Wish::default() };
        let refused = grant(&mut records(3, 3), &leave, &[1, 2, 3]).expect_err("two stay");
        assert!(refused.to_string().contains("at least 3") && refused.to_string().contains("--join"), "{refused}");
        assert!(grant(&mut records(4, 3), &leave, &[1, 2, 3]).is_err(), "four stay, one of them is silent");
        let mut four = records(4, 3);
        grant(&mut four, &leave, &[1, 2, 4]).expect("a dead node may leave");
        assert_eq!(state(&four, 2), node_record::State::Leaving);
        let mut three = records(3, 3);
        grant(&mut three, &Wish { replicas: Some(1), ..leave }, &[1, 2, 3]).expect("with fewer replicas");
        assert_eq!(three.cluster.replicas, 1);
    }

    #[test]
    fn a_node_is_taken_back_while_it_leaves_and_not_after() {
        let (mut four, all) = (records(4, 3), [1, 2, 3, 4]);
        grant(&mut four, &Wish { leave: Some((4, Some(3))), ..Wish::default() }, &all).expect("leaves");
        assert_eq!(four.nodes[3].replaced_by, 3);
        grant(&mut four, &Wish { stay: Some(4), ..Wish::default() }, &all).expect("stays");
        assert_eq!((state(&four, 3), four.nodes[3].replaced_by), (node_record::State::Active, 0));
        four.nodes[3].set_state(node_record::State::Removed);
        assert!(grant(&mut four, &Wish { stay: Some(4), ..Wish::default() }, &all).is_err());
        assert!(grant(&mut four, &Wish { voters: Some((0, vec![4])), ..Wish::default() }, &all).is_err());
    }

    #[test]
    fn a_successor_is_another_node_that_stays_and_answers() {
        let replace =
            |old, new, alive: &[u64]| grant(&mut records(4, 3), &Wish { leave: Some((old, Some(new))), ..Wish::default() }, alive);
        replace(2, 4, &[1, 3, 4]).expect("a dead one is replaced");
        assert!(replace(2, 2, &[1, 2, 3, 4]).is_err());
        assert!(replace(2, 4, &[1, 2, 3]).is_err(), "the new one does not answer");
        assert!(matches!(replace(2, 9, &[1, 2, 3]), Err(Error::NotFound { .. })));
    }

    #[test]
    fn numbers_of_replicas_are_odd_and_patience_is_not_too_short() {
        for replicas in [0, 2, 4, 9] {
            assert!(grant(&mut records(9, 3), &Wish { replicas: Some(replicas), ..Wish::default() }, &[1, 2, 3]).is_err());
        }
        let after = |ms| grant(&mut records(3, 3), &Wish { give_up_after: Some(Duration::from_millis(ms)), ..Wish::default() }, &[]);
        assert!(after(100).is_err());
        after(0).expect("never");
        after(300_000).expect("five minutes");
    }
}
