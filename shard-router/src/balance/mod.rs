//! Evens loads: tenants over groups, replicas over nodes, leaderships over voters. What to move is decided by [`plan`], which is pure; here
//! it is measured and asked for, and the mover and the reconciler carry it through as they do what an operator asks for.
//!
//! Every node runs one balancer. Only that of the node which leads the directory acts, and only while the setting `balance.enabled` is on.
//! It begins nothing while what it asked for before is not done, so a plan is at most [`plan::Bounds`] ahead of what is.

pub mod measure;
pub mod plan;

use crate::operator::{Operator, Outlook, Replace, ShardOrder, Wanted, Wish};
use measure::Loads;
use metadb_proto::settings::registry::BALANCE_ENABLED;
use metadb_proto::settings::{Asker, Settings};
use metadb_proto::v1::{self, NodeRef, ShardChangeRecord};
use metadb_proto::{Error, seam};
use plan::{Bounds, Facts, Floors, Move};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// How fast a balancer is, and what it takes for uneven.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// How often loads are looked at, about.
    pub look: Duration,
    /// How often is planned, about: what is measured must have time to show what was done.
    pub round: Duration,
    /// Looks that a plan rests on at least.
    pub looks: u32,
    /// How long a tenant that was moved stays where it is.
    pub rest: Duration,
    /// What is worth a move.
    pub floors: Floors,
}

impl Default for Pace {
    fn default() -> Self {
        let (look, round, rest) = (Duration::from_secs(5), Duration::from_secs(30), Duration::from_secs(600));
        Pace { look, round, looks: 6, rest, floors: Floors::default() }
    }
}

/// How long a round may take.
const ROUND_WITHIN: Duration = Duration::from_secs(60);

/// One node's balancer.
pub struct Balancer {
    operator: Operator,
    node: NodeRef,
    settings: Settings,
    pace: Pace,
    loads: Loads,
    planned: Option<Instant>,
    /// When tenants were moved.
    moved: BTreeMap<u64, Instant>,
}

impl Balancer {
    /// For this node, with its own rights.
    #[must_use]
    pub fn new(operator: Operator, node: NodeRef, settings: Settings, pace: Pace) -> Self {
        Balancer { operator, node, settings, pace, loads: Loads::default(), planned: None, moved: BTreeMap::new() }
    }

    /// Works until it is dropped.
    pub async fn run(mut self) {
        loop {
            match tokio::time::timeout(ROUND_WITHIN, self.round()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "the balancer could not look"),
                Err(_) => tracing::debug!("the balancer's look took too long"),
            }
            // Smeared, so that nothing else that is regular is always met.
            tokio::time::sleep(self.pace.look.mul_f64(0.9 + (seam::random_u64() % 1000) as f64 / 5000.0)).await;
        }
    }

    /// Looks, and when it is time plans and asks for what is planned.
    async fn round(&mut self) -> Result<(), Error> {
        if !self.settings.get(&BALANCE_ENABLED, Asker::NODE) || !self.operator.leads_directory(&self.node).await.unwrap_or(false) {
            self.loads = Loads::default();
            return Ok(());
        }
        let members = self.operator.membership().await?;
        self.loads.look(&members.statuses);
        let is_time = self.planned.is_none_or(|planned| planned.elapsed() >= self.pace.round);
        if !is_time || self.loads.looks() < self.pace.looks || !self.operator.first_changes(1).await?.is_empty() {
            return Ok(());
        }
        self.planned = Some(Instant::now());
        self.moved.retain(|_, moved| moved.elapsed() < self.pace.rest);
        let mut facts = self.operator.facts(&members, &self.loads).await?;
        for tenant in &mut facts.tenants {
            tenant.settled &= !self.moved.contains_key(&tenant.record.tenant_id);
        }
        for planned in plan::plan(&facts, &self.pace.floors, &bounds(&facts)) {
            match self.operator.carry_out(&planned).await {
                Ok(_) => tracing::info!(?planned, "asked for, to even loads"),
                // What it rests on has changed meanwhile: the next round sees it.
                Err(error) => tracing::info!(?planned, %error, "could not be asked for"),
            }
            if let Move::Tenant { tenant_id, .. } = planned {
                self.moved.insert(tenant_id, Instant::now());
            }
        }
        Ok(())
    }
}

/// Fewer replicas while groups are on their way already.
#[must_use]
pub fn bounds(facts: &Facts) -> Bounds {
    let Bounds { tenants, replicas, leaders } = Bounds::default();
    let on_the_way = facts.groups.iter().filter(|group| group.moves).count();
    Bounds { tenants, replicas: replicas.saturating_sub(on_the_way), leaders }
}

impl Operator {
    /// Has one planned move made. Returns the changes of shards that it comes to.
    ///
    /// # Errors
    /// As [`Operator::order_changes`], [`Operator::wish`] and [`Operator::transfer_leader`].
    pub async fn carry_out(&self, planned: &Move) -> Result<Vec<ShardChangeRecord>, Error> {
        match planned {
            Move::Tenant { tenant_id, to, .. } => {
                let outlook = self.outlook(Some(*tenant_id)).await?;
                self.move_tenant(*tenant_id, *to, &outlook).await
            }
            Move::Replica { group_id, from, to } => {
                let replace = Some(Replace { group_id: *group_id, old: *from, new: *to, is_of_a_plan: true });
                self.wish(&Wish { replace, ..Wish::default() }).await.map(|()| Vec::new())
            }
            Move::Leader { group_id, to, .. } => self.transfer_leader(*group_id, *to).await.map(|()| Vec::new()),
        }
    }

    /// A tenant whose shards are in one group is moved as one shard, so that its transactions find it whole: cut, it is put together first,
    /// and moved by a later plan.
    async fn move_tenant(&self, tenant_id: u64, to_group_id: u32, outlook: &Outlook) -> Result<Vec<ShardChangeRecord>, Error> {
        let shards = self.shards(tenant_id).await?;
        let order = |shard: &v1::ShardRecord, wanted: Wanted| ShardOrder {
            tenant_id,
            key: shard.start.clone(),
            expected: Some(if wanted == Wanted::Merge { outlook.in_place() } else { outlook.of_move(0) }),
            wanted,
            reason: "to even loads, or to keep the tenant where it may be".to_owned(),
        };
        let orders: Vec<ShardOrder> = match shards.as_slice() {
            [only] if only.group_id != to_group_id => vec![order(only, Wanted::MoveWhole { to_group_id })],
            [_] => Vec::new(),
            several if several.iter().all(|shard| shard.group_id == several[0].group_id) => {
                several.chunks_exact(2).map(|pair| order(&pair[0], Wanted::Merge)).collect()
            }
            scattered => {
                let astray = scattered.iter().filter(|shard| shard.group_id != to_group_id);
                astray.map(|shard| order(shard, Wanted::Move { to_group_id })).collect()
            }
        };
        if orders.is_empty() { Ok(Vec::new()) } else { self.order_changes(&orders).await }
    }
}
