//! What splits, merges and moves have in common: what they may be expected to cost is said beforehand, they are written into the directory,
//! and watched until they ended.

use super::find::{Names, with_hint};
use super::told::{Asked, Cost, Ended, Planned, Row};
use crate::cli::connection::Session;
use crate::failure::{Code, Failure};
use crate::output::{self, Output, duration, size};
use clap::Args;
use metadb_proto::v1::shard_change_record::{Kind, State};
use metadb_proto::v1::shard_status::State as Seen;
use metadb_proto::v1::{
    ShardChangeCost, ShardChangeRecord, ShardHistoryRecord, ShardRange, ShardRecord, ShardStatus, shard_history_record,
};
use shard_router::operator::{CHANGES_AT_ONCE, Measure, Operator, Outlook, ShardOrder, Wanted, range_of};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// How often is looked how far it is, and how often numbers are told.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(200);
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How long the cluster may give no answer while it is watched.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a group may take to tell how large its shards are, and what it says while somebody watches.
const MEASURE_WITHIN: Duration = Duration::from_secs(10);
const GLANCE_WITHIN: Duration = Duration::from_secs(1);

/// How a change is made.
#[derive(Debug, Clone, Args)]
pub(in crate::cli::admin) struct How {
    /// Show what it may be expected to cost, and change nothing.
    #[arg(long)]
    pub(in crate::cli::admin) dry_run: bool,
    /// Do not wait: the cluster goes on by itself; `cairn admin shard changes` shows how far it is.
    #[arg(long)]
    pub(super) no_wait: bool,
    /// Why: kept in the history.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(super) reason: String,
}

/// A shard and what shall become of it.
pub(super) type Wish = (ShardRecord, Wanted);

/// Says what changes may be expected to cost, or has them made and watches until they ended; one stage behind the other.
pub(super) async fn carry_out(session: &Session, output: Output, stages: &[Vec<Wish>], how: &How, names: &Names) -> Result<(), Failure> {
    let operator = session.operator();
    let mut ended = Vec::new();
    for (number, wishes) in stages.iter().enumerate() {
        let (orders, expected) = expect(session, &operator, wishes, how).await?;
        if how.dry_run {
            if number + 1 < stages.len() {
                output::note("this first; what comes then depends on it, copies nothing and lets nobody wait");
            }
            return plan(&operator, output, &orders, expected, names).await;
        }
        let mut ordered = Vec::new();
        for orders in orders.chunks(CHANGES_AT_ONCE) {
            ordered.extend(operator.order_changes(orders).await.map_err(told)?);
        }
        if how.no_wait {
            output::note("the cluster goes on by itself; `cairn admin shard changes` shows how far it is");
            let changes = ordered.iter().map(|change| Row::of(change, names)).collect();
            return output.show(&Asked { dry_run: false, done: false, changes });
        }
        let Cost { bytes, total_ms, pause_ms } = expected.into();
        output::note(&format!("to expect: {} in {}, a pause of {pause_ms:.1} ms", size(bytes), duration(total_ms)));
        if number == 0 {
            output::note("the cluster does it by itself: Ctrl-C ends the watching, not the work");
        }
        ended.extend(watch(&operator, &ordered).await?);
        if !ended.iter().all(is_done) {
            break;
        }
    }
    let changes = ended.iter().map(|ended| Row::ended(ended, names)).collect();
    output.show(&Asked { dry_run: false, done: true, changes })?;
    match ended.iter().filter(|ended| !is_done(ended)).count() {
        0 => Ok(()),
        taken_back => {
            let failure = Failure::new(Code::Conflict, format!("{taken_back} of {} changes were taken back", ended.len()));
            Err(failure.hint("somebody cancelled, or the tenant is being deleted: `cairn admin shard history` shows it"))
        }
    }
}

/// Orders, each with what it may be expected to cost; and what all of them together may.
async fn expect(session: &Session, operator: &Operator, wishes: &[Wish], how: &How) -> Result<(Vec<ShardOrder>, ShardChangeCost), Failure> {
    let outlook = operator.outlook(one_tenant(wishes.iter().map(|(shard, _)| shard.tenant_id))).await?;
    let sizes = sizes(operator, wishes).await?;
    Ok(orders(wishes, &sizes, &outlook, &reason(session, how)))
}

async fn plan(operator: &Operator, output: Output, orders: &[ShardOrder], expected: ShardChangeCost, names: &Names) -> Result<(), Failure> {
    let mut planned = Vec::new();
    for orders in orders.chunks(CHANGES_AT_ONCE) {
        planned.extend(operator.plan_changes(orders).await.map_err(told)?);
    }
    let changes = planned.iter().map(|change| Row::of(change, names)).collect();
    output.show(&Planned { dry_run: true, changes, expected: expected.into() })
}

/// Says what to do about what the directory refused.
fn told(error: metadb_proto::Error) -> Failure {
    if let metadb_proto::Error::Unavailable { message, .. } = &error {
        if message.contains("changed already") {
            let hint = "`cairn admin shard changes` shows what is under way; wait for it, or `cairn admin shard cancel` it";
            return Failure::from(error).hint(hint);
        }
        if message.contains("upgrade") {
            return Failure::from(error).hint("`cairn admin status` shows which build each node runs");
        }
    }
    with_hint(error, "`cairn admin group list` shows the groups, `cairn admin tenant list` the tenants")
}

fn reason(session: &Session, how: &How) -> String {
    if how.reason.is_empty() { format!("by {}", session.who()) } else { how.reason.clone() }
}

fn one_tenant(mut ids: impl Iterator<Item = u64>) -> Option<u64> {
    let first = ids.next()?;
    ids.all(|id| id == first).then_some(first)
}

/// Bytes of shards, by tenant and start.
type Sizes = BTreeMap<(u64, bytes::Bytes), u64>;

/// How much of each shard that moves there is.
async fn sizes(operator: &Operator, wishes: &[Wish]) -> Result<Sizes, Failure> {
    let mut moving = BTreeMap::<u32, Vec<ShardRange>>::new();
    for (shard, wanted) in wishes {
        if let Wanted::Move { .. } = wanted {
            moving.entry(shard.group_id).or_default().push(range_of(shard));
        }
    }
    let mut sizes = Sizes::new();
    for (group_id, ranges) in moving {
        let found = operator.shards_in(group_id, &ranges, Measure::Sizes, MEASURE_WITHIN).await;
        let found = found.map_err(|error| Failure::from(error).during(&format!("asking group {group_id} how large its shards are")))?;
        sizes.extend(found.into_iter().filter_map(|shard| shard.range.map(|range| ((range.tenant_id, range.start), shard.bytes))));
    }
    Ok(sizes)
}

fn orders(wishes: &[Wish], sizes: &Sizes, outlook: &Outlook, reason: &str) -> (Vec<ShardOrder>, ShardChangeCost) {
    let bytes = |shard: &ShardRecord| sizes.get(&(shard.tenant_id, shard.start.clone())).copied().unwrap_or(0);
    let moves = |(_, wanted): &&Wish| matches!(wanted, Wanted::Move { .. });
    let moving = wishes.iter().filter(moves).count() as u64;
    let moved_bytes = wishes.iter().filter(moves).map(|(shard, _)| bytes(shard)).sum();
    let whole = if moving == 0 { outlook.in_place() } else { outlook.of_moves(moving, moved_bytes) };
    let order = |(shard, wanted): &Wish| {
        let mut expected = outlook.in_place();
        if let Wanted::Move { .. } = wanted {
            expected = outlook.of_move(bytes(shard));
            // Those that run at a time share the bound.
            expected.total_ms = expected.total_ms.saturating_mul(moving.min(outlook.at_once.max(1))).min(whole.total_ms);
        }
        ShardOrder {
            tenant_id: shard.tenant_id,
            key: shard.start.clone(),
            wanted: wanted.clone(),
            reason: reason.to_owned(),
            expected: Some(expected),
        }
    };
    (wishes.iter().map(order).collect(), whole)
}

/// Tells how far changes are until all of them ended; what became of them.
pub(in crate::cli::admin) async fn watch(operator: &Operator, ordered: &[ShardChangeRecord]) -> Result<Vec<ShardHistoryRecord>, Failure> {
    let tenant = one_tenant(ordered.iter().map(|change| change.tenant_id));
    let mut left: BTreeMap<u64, ShardChangeRecord> = ordered.iter().map(|change| (change.change_id, change.clone())).collect();
    let mut ended = Vec::new();
    let (mut heard, mut said) = (Instant::now(), Said::default());
    loop {
        match look(operator, tenant, &mut left, &mut ended).await {
            Ok(()) if left.is_empty() => break,
            Ok(()) => {
                heard = Instant::now();
                said.tell(&far(operator, &left, ordered.len()).await);
            }
            Err(error) if heard.elapsed() > PATIENCE => return Err(Failure::from(error).during("watching the change, which goes on")),
            Err(_) => {}
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    ended.sort_by_key(|ended: &ShardHistoryRecord| ended.change.as_ref().map_or(0, |change| change.change_id));
    Ok(ended)
}

/// Looks which changes are still there, and what became of the others.
async fn look(
    operator: &Operator,
    tenant: Option<u64>,
    left: &mut BTreeMap<u64, ShardChangeRecord>,
    ended: &mut Vec<ShardHistoryRecord>,
) -> Result<(), metadb_proto::Error> {
    let now: BTreeMap<u64, ShardChangeRecord> =
        operator.changes(tenant).await?.into_iter().map(|change| (change.change_id, change)).collect();
    let mut gone: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for (change_id, change) in left.iter_mut() {
        match now.get(change_id) {
            Some(now) => change.clone_from(now),
            None => gone.entry(change.tenant_id).or_default().push(*change_id),
        }
    }
    for (tenant_id, change_ids) in gone {
        // At once: of each tenant only the last ones are kept.
        let history = operator.shard_history(tenant_id).await?;
        let id = |ended: &ShardHistoryRecord| ended.change.as_ref().map_or(0, |change| change.change_id);
        ended.extend(history.into_iter().filter(|ended| change_ids.contains(&id(ended))));
        left.retain(|change_id, _| !change_ids.contains(change_id));
    }
    Ok(())
}

/// How far it is: what is going on, and a number that says how much of it.
async fn far(operator: &Operator, left: &BTreeMap<u64, ShardChangeRecord>, total: usize) -> (String, String) {
    let Some(change) = left.values().next().filter(|_| left.len() == 1) else {
        let count = |state: State| left.values().filter(|change| change.state() == state).count();
        let trouble = left.values().filter(|change| !change.problem.is_empty()).count();
        let more = [(count(State::Paused), "paused"), (count(State::Cancelling), "being taken back"), (trouble, "in trouble")];
        let more: String = more.iter().filter(|(number, _)| *number > 0).map(|(number, what)| format!(", {number} {what}")).collect();
        let text = format!("{} of {total} to do{more}", left.len());
        return (more, text);
    };
    let id = change.change_id;
    let mut phase = match change.state() {
        State::Paused => format!("paused; `cairn admin shard resume {id}` lets it go on"),
        State::Cancelling => "being taken back".to_owned(),
        State::Running | State::Unspecified => String::new(),
    };
    let mut number = String::new();
    if phase.is_empty() {
        (phase, number) =
            if change.kind() == Kind::Move { phase_of_move(operator, change).await } else { ("about to be done".into(), String::new()) };
    }
    if !change.problem.is_empty() {
        phase = format!("{phase}; attempt {}, the one before ended: {}", change.attempts, change.problem);
    }
    let number = if number.is_empty() { String::new() } else { format!(": {number}") };
    (format!("change {id}: {phase}"), format!("change {id}: {phase}{number}"))
}

async fn phase_of_move(operator: &Operator, change: &ShardChangeRecord) -> (String, String) {
    let range = ShardRange { tenant_id: change.tenant_id, start: change.start.clone(), end: change.end.clone() };
    let glance = async |group_id: u32, measure: Measure| -> Option<ShardStatus> {
        let shards = operator.shards_in(group_id, std::slice::from_ref(&range), measure, GLANCE_WITHIN).await.ok()?;
        shards.into_iter().find(|shard| shard.range.as_ref() == Some(&range))
    };
    let there = glance(change.to_group_id, Measure::Sizes).await;
    let Some(there) = there.filter(|shard| matches!(shard.state(), Seen::Expected | Seen::Owned)) else {
        return ("about to begin".to_owned(), String::new());
    };
    let copied = format!("{} of about {}", size(there.bytes), size(change.expected.map_or(0, |cost| cost.bytes)));
    let is_fenced = async || glance(change.group_id, Measure::Nothing).await.is_some_and(|shard| shard.state() == Seen::Fenced);
    match (there.state(), there.through_version) {
        (Seen::Owned, _) => (format!("group {} has it", change.to_group_id), String::new()),
        (_, 0) => ("copying".to_owned(), copied),
        _ if is_fenced().await => ("the end: it stands still".to_owned(), String::new()),
        _ => ("catching up with what is written".to_owned(), copied),
    }
}

/// What was told last.
#[derive(Default)]
struct Said {
    phase: String,
    text: String,
    at: Option<Instant>,
}

impl Said {
    /// Tells it if it is something new, and numbers not too often.
    fn tell(&mut self, (phase, text): &(String, String)) {
        let is_due = self.at.is_none_or(|at| at.elapsed() >= TELL_EVERY);
        if self.phase != *phase || (self.text != *text && is_due) {
            output::note(text);
            (self.phase, self.text, self.at) = (phase.clone(), text.clone(), Some(Instant::now()));
        }
    }
}

/// Whether any of these was done all the same.
pub(super) fn is_done(ended: &ShardHistoryRecord) -> bool {
    ended.outcome() == shard_history_record::Outcome::Done
}

/// What ended, as it is printed.
pub(super) fn printed(ended: &[ShardHistoryRecord], names: &Names) -> Ended {
    Ended(ended.iter().map(|ended| Row::ended(ended, names)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(start: &'static str, wanted: Wanted) -> Wish {
        (ShardRecord { tenant_id: 7, start: start.into(), ..Default::default() }, wanted)
    }

    #[test]
    fn moves_at_the_same_time_share_the_bound_and_splits_copy_nothing() {
        const MIB: u64 = 1 << 20;
        let outlook = Outlook { bytes_per_s: MIB, at_once: 12, ..Outlook::default() };
        let sizes = Sizes::from([((7, "a".into()), 10 * MIB), ((7, "b".into()), 30 * MIB)]);
        let to = || Wanted::Move { to_group_id: 3 };
        let (alone, whole) = orders(&[wish("a", to())], &sizes, &outlook, "r");
        assert_eq!(alone[0].expected, Some(whole));
        assert_eq!((whole.bytes, whole.total_ms), (10 * MIB, 10_100));
        let (both, whole) = orders(&[wish("a", to()), wish("b", to())], &sizes, &outlook, "r");
        let times: Vec<u64> = both.iter().filter_map(|order| order.expected).map(|cost| cost.total_ms).collect();
        assert_eq!((times, whole.total_ms, whole.bytes), (vec![20_200, 40_100], 40_100, 40 * MIB));
        let (split, whole) = orders(&[wish("a", Wanted::Split { at: "b".into() })], &sizes, &outlook, "r");
        assert_eq!((whole.bytes, whole.pause_micros, split[0].reason.as_str()), (0, 0, "r"));
    }

    #[test]
    fn one_tenant_is_one() {
        assert_eq!((one_tenant([7, 7].into_iter()), one_tenant([7, 8].into_iter()), one_tenant([].into_iter())), (Some(7), None, None));
    }
}
