//! Brings a cluster to what its directory says. Every node runs one; only the one whose node leads the directory acts.
//!
//! The leader may change in the middle of a step, and two reconcilers may act at once for a moment: every step is idempotent, and what is
//! written into the directory is conditional on what was read. Which node leads is therefore a matter of economy, not of safety.

pub mod members;
pub(crate) mod office;
pub mod plan;

use crate::admin;
use crate::operator::Operator;
use crate::{condition, operation};
use members::{Members, Silence};
use metadb_proto::Error;
use metadb_proto::directory;
use metadb_proto::v1::{self, GroupRecord, NodeRef, group_record};
use plan::{Records, Step, first_leader, plan};
use prost::Message as _;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Between two rounds while there is something to do.
const BUSY: Duration = Duration::from_millis(100);
/// Between two rounds when there was nothing to do.
const IDLE: Duration = Duration::from_millis(500);
/// Between two looks at unfinished tenants: the calls that create and delete tenants finish them, this is for those that died.
const TENANT_SWEEP: Duration = Duration::from_secs(5);
/// Between two leaders that are moved, so that clients hardly notice.
const LEADER_MOVE: Duration = Duration::from_secs(2);
/// How long one step may take; a step cut short is taken again.
const STEP: Duration = Duration::from_secs(20);
/// How long the own node may take to tell its state.
const OWN_STATUS: Duration = Duration::from_secs(1);

/// One node's part of the work.
pub struct Reconciler {
    operator: Operator,
    node: NodeRef,
    tenants_seen: Option<Instant>,
    leader_moved: Option<Instant>,
    /// Since when nodes have not answered. A new reconciler begins to count anew: it may have been the one that was cut off.
    silent_since: BTreeMap<u64, Instant>,
}

impl Reconciler {
    /// For this node, with its own rights.
    #[must_use]
    pub fn new(operator: Operator, node: NodeRef) -> Self {
        Reconciler { operator, node, tenants_seen: None, leader_moved: None, silent_since: BTreeMap::new() }
    }

    /// Works until it is dropped.
    pub async fn run(mut self) {
        loop {
            let wait = match self.round().await {
                Ok(0) => IDLE,
                Ok(_) => BUSY,
                Err(error) => {
                    tracing::debug!(%error, "the reconciler's round failed");
                    IDLE
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// One round: looks, plans, does. Returns how many steps were done.
    ///
    /// # Errors
    /// Whatever kept it from looking; a step that fails is logged and comes again.
    pub async fn round(&mut self) -> Result<usize, Error> {
        if !self.operator.leads_directory(&self.node).await.unwrap_or(false) {
            self.silent_since.clear();
            return Ok(0);
        }
        let records = self.records().await?;
        let statuses = self.operator.ask_members(&records.nodes).await;
        let silence = self.silence(&records, &statuses);
        let mut done = 0;
        for step in plan(&records, &statuses, &silence) {
            match tokio::time::timeout(STEP, self.take(&step)).await {
                Ok(Ok(taken)) => done += usize::from(taken),
                Ok(Err(error)) => tracing::warn!(%step, %error, "step failed; it comes again"),
                Err(_) => tracing::warn!(%step, "step took too long; it comes again"),
            }
        }
        Ok(done)
    }

    /// For how long the nodes have been silent that did not answer now.
    fn silence(&mut self, records: &Records, statuses: &BTreeMap<u64, v1::StatusResponse>) -> Silence {
        let now = Instant::now();
        let known = records.nodes.iter().filter_map(|node| node.node.as_ref()).map(|node| node.node_id);
        let silent: Vec<u64> = known.filter(|id| !statuses.contains_key(id)).collect();
        self.silent_since.retain(|id, _| silent.contains(id));
        silent.into_iter().map(|id| (id, now - *self.silent_since.entry(id).or_insert(now))).collect()
    }

    async fn records(&mut self) -> Result<Records, Error> {
        let operator = &self.operator;
        let (cluster, nodes, groups) = (operator.cluster().await?, operator.nodes().await?, operator.groups().await?);
        let pods = operator.pods().await?;
        let mut tenants = Vec::new();
        if self.tenants_seen.is_none_or(|seen| seen.elapsed() >= TENANT_SWEEP) {
            tenants = operator.unfinished_tenants().await?;
            self.tenants_seen = Some(Instant::now());
        }
        Ok(Records { cluster, nodes, groups, tenants, pods })
    }

    /// Takes one step; false if there was a reason to leave it.
    async fn take(&mut self, step: &Step) -> Result<bool, Error> {
        let until = Instant::now() + STEP;
        match step {
            Step::AddLearners { group_id, added, members, through } => {
                self.add_learners((*group_id, *through), added, members, until).await?
            }
            Step::SetMembers { group_id, members } => self.set_members(*group_id, members, until).await?,
            Step::HandOver { group_id, node_id } => self.operator.transfer_leader(*group_id, *node_id).await?,
            Step::RecordMembers { before, after } => self.record_members(before.as_ref(), after).await?,
            Step::GiveUpNode { node, silent } => self.operator.give_up(node, *silent).await?,
            Step::FinishRemoval { node } => self.operator.finish_removal(node).await?,
            Step::DefineGroups { groups } => self.define_groups(groups).await?,
            Step::FormGroup { group, on } => self.form_group(group, on, until).await?,
            Step::MakeReplica { group_id, node, through } => {
                let create = v1::CreateReplicaRequest { group_id: *group_id, silent_through: *through, ..Default::default() };
                self.operator.router().at_node(node, until, &admin::create_replica(create)).await?;
            }
            Step::DropReplica { replica, node, members } => {
                // The order is the whole point: a leader that a quorum follows confirms that the group goes without it.
                self.set_members(replica.group_id, members, until).await?;
                self.operator.router().at_node(node, until, &admin::drop_replica(*replica)).await?;
            }
            Step::RaiseTenants { tenants } => self.operator.raise_tenants(tenants, until).await?,
            Step::FinishDelete { tenant } => self.operator.finish_delete(tenant, until).await?,
            Step::RaiseLevel { level } => self.operator.raise_level(*level).await?,
            Step::TellLevel { node, level } => {
                let call = admin::raise_level(v1::RaiseLevelRequest { feature_level: u32::from(*level) });
                self.operator.router().at_node(node, until, &call).await?;
            }
            Step::Rebuild { group_id, node, ticket, voters, learners } => {
                let members = v1::ChangeMembersRequest {
                    group_id: *group_id,
                    voters: voters.clone(),
                    learners: learners.clone(),
                    ..Default::default()
                };
                let wipe = v1::RebuildReplicaRequest { group_id: *group_id, ticket: *ticket };
                self.rebuild(node, members, wipe, until).await?;
            }
            Step::LeaveFull { group_id, node_id } => self.operator.transfer_leader(*group_id, *node_id).await?,
            Step::MoveLeader { group_id, node_id } => {
                if self.leader_moved.is_some_and(|moved| moved.elapsed() < LEADER_MOVE) {
                    return Ok(false);
                }
                self.leader_moved = Some(Instant::now());
                self.operator.transfer_leader(*group_id, *node_id).await?;
            }
        }
        tracing::info!(%step, "done");
        Ok(true)
    }

    async fn add_learners(
        &self,
        (group_id, silent_through): (u32, u64),
        added: &[NodeRef],
        members: &Members,
        until: Instant,
    ) -> Result<(), Error> {
        let create = admin::create_replica(v1::CreateReplicaRequest { group_id, silent_through, ..Default::default() });
        for node in added {
            self.operator.router().at_node(node, until, &create).await?;
        }
        self.set_members(group_id, members, until).await
    }

    /// The order is the whole point: the leader confirms that the group goes without the replica, and only then it is wiped.
    async fn rebuild(
        &self,
        node: &NodeRef,
        members: v1::ChangeMembersRequest,
        wipe: v1::RebuildReplicaRequest,
        until: Instant,
    ) -> Result<(), Error> {
        let router = self.operator.router();
        router.at_leader(members.group_id, until, &admin::change_members(members)).await?;
        router.at_node(node, until, &admin::rebuild_replica(wipe)).await.map(|_| ())
    }

    async fn set_members(&self, group_id: u32, members: &Members, until: Instant) -> Result<(), Error> {
        let Members { voters, learners, seen_at } = members.clone();
        let change = v1::ChangeMembersRequest { group_id, voters, learners, if_membership_index: Some(seen_at) };
        self.operator.router().at_leader(group_id, until, &admin::change_members(change)).await.map(|_| ())
    }

    async fn record_members(&self, before: Option<&GroupRecord>, after: &GroupRecord) -> Result<(), Error> {
        let key = directory::group_key(after.group_id);
        let unchanged = match before {
            Some(before) => condition::value_is(key.clone(), before.encode_to_vec()),
            None => condition::absent(key.clone()),
        };
        self.operator.directory().transact(vec![unchanged], vec![operation::put(key, after.encode_to_vec())]).await?;
        self.operator.router().map().write().learn_voters(after.group_id, after.voters.clone());
        Ok(())
    }

    async fn define_groups(&self, groups: &[GroupRecord]) -> Result<(), Error> {
        let key = |group: &GroupRecord| directory::group_key(group.group_id);
        let last = groups.iter().map(|group| u64::from(group.group_id)).max().unwrap_or(0);
        let written = self.operator.directory().run(|tx| async move {
            for group in groups {
                tx.require(condition::absent(key(group)));
                tx.put(key(group), group.encode_to_vec());
            }
            if crate::operator::counter(&tx, "group").await? < last {
                crate::operator::set_counter(&tx, "group", last);
            }
            Ok(())
        });
        // A group that someone else defined meanwhile is seen at the next round.
        tokio::time::timeout(OWN_STATUS, written).await.unwrap_or(Ok(()))
    }

    async fn form_group(&self, group: &GroupRecord, on: &[NodeRef], until: Instant) -> Result<(), Error> {
        let router = self.operator.router();
        let first = on.iter().map(|voter| voter.node_id).min().unwrap_or(0);
        let create = v1::CreateReplicaRequest { group_id: group.group_id, voters: group.voters.clone(), first, ..Default::default() };
        let create = admin::create_replica(create);
        futures::future::try_join_all(on.iter().map(|voter| router.at_node(voter, until, &create))).await?;
        router.map().write().learn_voters(group.group_id, group.voters.clone());
        if let Some(first) = first_leader(group).filter(|first| on.contains(first)) {
            let hand_over = admin::transfer_leader(v1::TransferLeaderRequest { group_id: group.group_id, node_id: first.node_id });
            // It only spreads leaders from the start; later rounds do it too.
            if let Err(error) = router.at_leader(group.group_id, until.min(Instant::now() + OWN_STATUS * 3), &hand_over).await {
                tracing::debug!(group_id = group.group_id, %error, "the first leader stays where it is");
            }
        }
        let mut active = group.clone();
        active.set_state(group_record::State::Active);
        let key = directory::group_key(group.group_id);
        let unchanged = condition::value_is(key.clone(), group.encode_to_vec());
        self.operator.directory().transact(vec![unchanged], vec![operation::put(key, active.encode_to_vec())]).await.map(|_| ())
    }
}
