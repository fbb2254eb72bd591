//! `cairn admin group create`.

use crate::cli::connection::Session;
use crate::failure::{Code, Failure};
use crate::output::{self, Output, Show};
use clap::Args;
use metadb_proto::v1::{GroupRecord, group_record};
use serde::Serialize;
use shard_router::operator::{NewGroups, Operator};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

/// How often is looked whether groups are ready.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long is waited for them.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(super) struct Create {
    /// How many.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    count: u32,
    /// The pod that they belong to.
    #[arg(long)]
    pod: Option<String>,
    /// The nodes that hold them, by id: 1, 3, 5 or 7 of them.
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    on: Vec<u64>,
    /// Show what would be made, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not wait until they can take shards.
    #[arg(long)]
    no_wait: bool,
}

/// Groups, as they are printed.
#[derive(Debug, Serialize)]
struct Made {
    dry_run: bool,
    ready: bool,
    groups: Vec<Group>,
}

#[derive(Debug, Serialize)]
struct Group {
    id: u32,
    voters: Vec<u64>,
    pod: Option<String>,
}

impl Show for Made {
    fn columns(&self) -> Vec<&'static str> {
        vec!["GROUP", "VOTERS", "POD", "STATE"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let state = match (self.dry_run, self.ready) {
            (true, _) => "would be made",
            (false, true) => "ready",
            (false, false) => "is being made",
        };
        let row = |group: &Group| {
            let voters = group.voters.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            vec![group.id.to_string(), voters, group.pod.clone().unwrap_or_default(), state.to_owned()]
        };
        self.groups.iter().map(row).collect()
    }
}

impl Create {
    pub(super) async fn run(self, session: &Session, output: Output) -> Result<(), Failure> {
        let operator = session.operator();
        let wanted = NewGroups { count: self.count, on: self.on, pod: self.pod.unwrap_or_default(), own_of_tenant: 0 };
        let show = |groups: Vec<GroupRecord>, dry_run, ready| {
            let group = |record: GroupRecord| Group {
                id: record.group_id,
                voters: record.voters.iter().map(|node| node.node_id).collect(),
                pod: Some(record.pod).filter(|pod| !pod.is_empty()),
            };
            output.show(&Made { dry_run, ready, groups: groups.into_iter().map(group).collect() })
        };
        if self.dry_run {
            return show(operator.plan_groups(&wanted).await?, true, false);
        }
        let made = operator.create_groups(&wanted).await?;
        if self.no_wait {
            output::note("the cluster makes them by itself; `cairn admin group list` shows when they are active");
        } else {
            until_ready(&operator, &made.iter().map(|group| group.group_id).collect()).await?;
        }
        show(made, false, !self.no_wait)
    }
}

/// Waits until groups can take shards.
pub(in crate::cli::admin) async fn until_ready(operator: &Operator, wanted: &BTreeSet<u32>) -> Result<(), Failure> {
    let until = Instant::now() + PATIENCE;
    loop {
        let active = operator.groups().await?.into_iter().filter(|group| group.state() == group_record::State::Active);
        let ready = active.filter(|group| wanted.contains(&group.group_id)).count();
        if ready == wanted.len() {
            return Ok(());
        }
        if Instant::now() >= until {
            let message =
                format!("{ready} of {} groups are ready after {} s; the cluster goes on making them", wanted.len(), PATIENCE.as_secs());
            return Err(Failure::new(Code::Unavailable, message).hint("`cairn admin group list` shows when they are active"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
