//! `cairn admin shard changes`, `history`, `pause`, `resume` and `cancel`.

use super::find::{Names, Tenant};
use super::order::{LOOK_EVERY, is_done, printed, watch};
use super::told::{Ended, Row, UnderWay};
use crate::cli::connection::Session;
use crate::failure::{Code, Failure};
use crate::output::{self, Output};
use clap::Args;
use metadb_proto::Error;
use metadb_proto::v1::ShardChangeRecord;
use metadb_proto::v1::shard_change_record::State;
use shard_router::operator::Operator;
use std::time::Duration;
use tokio::time::Instant;

/// How long a paused change may take to be in the middle of nothing: a step of a move.
const PAUSE_WITHIN: Duration = Duration::from_secs(30);

/// Which changes are meant.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// Their numbers, as `cairn admin shard changes` shows them.
    #[arg(value_name = "CHANGE", required_unless_present = "tenant", conflicts_with = "tenant")]
    changes: Vec<u64>,
    /// All those of this tenant's shards.
    #[arg(long)]
    tenant: Option<String>,
    /// Do not wait until they do as they are told.
    #[arg(long)]
    no_wait: bool,
}

/// Shows what is under way.
pub(super) async fn changes(session: &Session, output: Output, tenant: Option<&str>) -> Result<(), Failure> {
    let operator = session.operator();
    let (tenant, names) = match tenant {
        Some(name) => {
            let tenant = Tenant::find(&operator, name).await?;
            (Some(tenant.id), tenant.names())
        }
        None => (None, Names::all(&operator).await?),
    };
    let changes = operator.changes(tenant).await?;
    output.show(&UnderWay(changes.iter().map(|change| Row::of(change, &names)).collect()))
}

/// Shows what ended.
pub(super) async fn history(session: &Session, output: Output, tenant: &str, limit: usize) -> Result<(), Failure> {
    let operator = session.operator();
    let tenant = Tenant::find(&operator, tenant).await?;
    let history = operator.shard_history(tenant.id).await?;
    let names = tenant.names();
    output.show(&Ended(history.iter().take(limit).map(|ended| Row::ended(ended, &names)).collect()))
}

impl Which {
    async fn find(&self, operator: &Operator) -> Result<Vec<ShardChangeRecord>, Failure> {
        let tenant = match &self.tenant {
            Some(name) => Some(Tenant::find(operator, name).await?.id),
            None => None,
        };
        let mut changes = operator.changes(tenant).await?;
        for id in &self.changes {
            if !changes.iter().any(|change| change.change_id == *id) {
                let failure = Failure::new(Code::NotFound, format!("change {id} is not under way: it ended, or never was"));
                return Err(failure.hint("`cairn admin shard changes` shows those under way, `cairn admin shard history` those that ended"));
            }
        }
        changes.retain(|change| tenant.is_some() || self.changes.contains(&change.change_id));
        Ok(changes)
    }

    /// Has changes brought to a state; those that are not over meanwhile.
    async fn set(&self, operator: &Operator, state: State) -> Result<Vec<ShardChangeRecord>, Failure> {
        let mut set = Vec::new();
        for change in self.find(operator).await? {
            match operator.set_change(change.tenant_id, change.change_id, state).await {
                Ok(change) => set.push(change),
                Err(Error::NotFound { .. }) => output::note(&format!("change {} ended meanwhile", change.change_id)),
                Err(Error::Invalid { .. }) => {
                    let failure = Failure::new(Code::Conflict, format!("change {} is being taken back", change.change_id));
                    return Err(failure.hint("that can't be stopped; order it anew when it has ended"));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(set)
    }

    pub(super) async fn pause(self, session: &Session, output: Output) -> Result<(), Failure> {
        let operator = session.operator();
        let mut paused = self.set(&operator, State::Paused).await?;
        let until = Instant::now() + PAUSE_WITHIN;
        while !self.no_wait && paused.iter().any(|change| !change.settled) {
            if Instant::now() >= until {
                let failure = Failure::new(Code::Unavailable, "it is still in the middle of a step".to_owned());
                return Err(failure.hint("it will pause behind that; `cairn admin shard changes` shows when"));
            }
            tokio::time::sleep(LOOK_EVERY).await;
            paused = now(&operator, paused).await?;
        }
        show(&operator, output, &paused).await
    }

    pub(super) async fn resume(self, session: &Session, output: Output) -> Result<(), Failure> {
        let operator = session.operator();
        let running = self.set(&operator, State::Running).await?;
        if self.no_wait || running.is_empty() {
            return show(&operator, output, &running).await;
        }
        output::note("the cluster does it by itself: Ctrl-C ends the watching, not the work");
        let ended = watch(&operator, &running).await?;
        output.show(&printed(&ended, &Names::all(&operator).await?))
    }

    pub(super) async fn cancel(self, session: &Session, output: Output) -> Result<(), Failure> {
        let operator = session.operator();
        let cancelling = self.set(&operator, State::Cancelling).await?;
        if self.no_wait || cancelling.is_empty() {
            return show(&operator, output, &cancelling).await;
        }
        let ended = watch(&operator, &cancelling).await?;
        output.show(&printed(&ended, &Names::all(&operator).await?))?;
        let late = ended.iter().filter(|ended| is_done(ended)).count();
        if late == 0 {
            return Ok(());
        }
        let failure = Failure::new(Code::Conflict, format!("{late} of {} changes were done before they could be taken back", ended.len()));
        Err(failure.hint("move the shard back, merge it again, or split it again"))
    }
}

/// The same changes as they are now, without those that ended.
async fn now(operator: &Operator, changes: Vec<ShardChangeRecord>) -> Result<Vec<ShardChangeRecord>, Failure> {
    let mut found = operator.changes(None).await?;
    found.retain(|now| changes.iter().any(|change| change.change_id == now.change_id));
    for change in changes.iter().filter(|change| !found.iter().any(|now| now.change_id == change.change_id)) {
        output::note(&format!("change {} ended meanwhile", change.change_id));
    }
    Ok(found)
}

async fn show(operator: &Operator, output: Output, changes: &[ShardChangeRecord]) -> Result<(), Failure> {
    let names = Names::all(operator).await?;
    output.show(&UnderWay(changes.iter().map(|change| Row::of(change, &names)).collect()))
}
