//! The one driver of every operation that changes something: deadline, retry, exactly-once, events.
//!
//! An operation reads and answers with a plan: what must still hold, and what to write. The driver adds the event, what was released and, if
//! the caller named the request, its outcome, and sends all as one transaction. If what was read changed meanwhile, the operation
//! reads again: at most [`ATTEMPTS`] times and within the deadline.

use crate::db::Db;
use crate::error::no_folder;
use crate::limits::{ATTEMPTS, BACKOFF_MAX, BACKOFF_MIN, REQUEST_SLOT, REQUEST_SLOTS_KEPT};
use crate::metrics;
use crate::model::{FolderKind, Released};
use crate::namespace::{Namespace, Tenant};
use crate::record::{EventRecord, NodeRecord, Record as _, ReleasedRecord, RequestRecord, kind_number, kind_of};
use crate::{NodeKind, ROOT, keys};
use bytes::Bytes;
use keys::KeyKind;
use metadb_proto::{Error, seam, v1};
use shard_router::{condition, operation};
use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;

/// An operation: what it means, and nothing else.
pub(crate) trait Operation: Sync {
    /// As it is called in errors and in remembered outcomes.
    const NAME: &'static str;
    /// What it answers.
    type Answer: Answer;

    /// Reads, decides and says what to write. Called again if what was read has changed.
    fn attempt(&self, context: &Context<'_>) -> impl Future<Output = Result<Step<Self::Answer>, Error>> + Send;
}

/// An answer that can be remembered for a retry.
pub(crate) trait Answer: Sized + Send {
    fn to_bytes(&self) -> Bytes;
    fn from_bytes(bytes: Bytes) -> Result<Self, Error>;
}

/// What an attempt came to.
pub(crate) enum Step<T> {
    /// Nothing to write.
    Done(T),
    /// Write this.
    Commit(Plan<T>),
    /// Two reads disagree: something changed between them.
    Again,
}

/// A transaction to be, and the answer once it is committed.
pub(crate) struct Plan<T> {
    pub(crate) conditions: Vec<v1::Condition>,
    pub(crate) operations: Vec<v1::Operation>,
    pub(crate) events: Vec<EventRecord>,
    pub(crate) released: Released,
    pub(crate) answer: T,
}

impl<T> Plan<T> {
    /// One that writes nothing yet.
    pub(crate) fn new(answer: T) -> Self {
        Plan { conditions: Vec::new(), operations: Vec::new(), events: Vec::new(), released: Released::default(), answer }
    }
}

/// What an attempt works with.
pub(crate) struct Context<'a> {
    pub(crate) db: Db,
    pub(crate) now_ms: u64,
    /// See [`Namespace::naming_known_contents`].
    pub(crate) only_known: bool,
    tenant: &'a Tenant,
    /// What is remembered of folders may be used: it was not yet the reason of a failed attempt.
    trusting: bool,
}

impl<'a> Context<'a> {
    pub(crate) fn new(db: Db, tenant: &'a Tenant, trusting: bool) -> Self {
        Context { db, now_ms: seam::unix_ms(), only_known: false, tenant, trusting }
    }

    /// An id that was never given before.
    pub(crate) async fn next_id(&self) -> Result<u64, Error> {
        self.tenant.ids.next(&self.db).await
    }

    /// What kind of folder this is. Kinds never change, so one may be remembered of a folder that is gone: who writes conditions on
    /// the folder's row.
    pub(crate) async fn folder(&self, id: u64) -> Result<FolderKind, Error> {
        if id == ROOT {
            return Ok(FolderKind::Tree);
        }
        if self.trusting
            && let Some(kind) = self.tenant.kinds.get(id)
        {
            return Ok(kind);
        }
        let kind = self.read_folder(id).await;
        match kind {
            Ok(kind) => self.tenant.kinds.put(id, kind),
            Err(_) => self.tenant.kinds.forget(id),
        }
        kind
    }

    async fn read_folder(&self, id: u64) -> Result<FolderKind, Error> {
        let row = self.db.get(keys::node(id)).await?.ok_or_else(|| no_folder(id))?;
        let kind = kind_of("node", NodeRecord::from_bytes(row.value)?.kind)?;
        kind.folder().ok_or_else(|| Error::invalid("folder", "a folder", format!("node {id}, a file")))
    }

    /// As [`Context::folder`], for one that is about to get an entry: makes the root if the tenant has none yet.
    pub(crate) async fn folder_to_write(&self, id: u64) -> Result<FolderKind, Error> {
        if id == ROOT && !self.tenant.root_made() {
            let root = NodeRecord {
                kind: kind_number(NodeKind::Tree),
                created_at_ms: self.now_ms,
                modified_at_ms: self.now_ms,
                ..NodeRecord::new()
            };
            let put = operation::put(keys::node(ROOT), root.to_bytes());
            self.db.transact(vec![condition::absent(keys::node(ROOT))], vec![put]).await?;
            self.tenant.set_root_made();
        }
        self.folder(id).await
    }

    /// Reads that a folder is there, whatever is remembered.
    pub(crate) async fn must_exist(&self, id: u64) -> Result<(), Error> {
        if id == ROOT { Ok(()) } else { self.read_folder(id).await.map(|_| ()) }
    }
}

/// Runs an operation to its end, and counts it.
pub(crate) async fn run<O: Operation>(namespace: &Namespace, op: &O) -> Result<O::Answer, Error> {
    let started = Instant::now();
    let result = run_to_its_end(namespace, op).await;
    metrics::ended(O::NAME, started.elapsed(), &result);
    result
}

async fn run_to_its_end<O: Operation>(namespace: &Namespace, op: &O) -> Result<O::Answer, Error> {
    let deadline = Instant::now() + namespace.deadline;
    let mut backoff = BACKOFF_MIN;
    for attempt in 0..ATTEMPTS {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        metrics::attempted(O::NAME);
        let db = namespace.db.with_deadline(left);
        let request = namespace.request_id.map(|id| Request::new(id, O::NAME));
        if let Some(answer) = remembered(request.as_ref(), &db).await? {
            return O::Answer::from_bytes(answer);
        }
        let context = Context { only_known: namespace.only_known, ..Context::new(db.clone(), &namespace.tenant, attempt == 0) };
        let step = match op.attempt(&context).await {
            // What was read may be what the first sending of this very request did meanwhile: then its answer counts.
            step @ (Err(_) | Ok(Step::Done(_))) => match remembered(request.as_ref(), &db).await? {
                Some(answer) => return O::Answer::from_bytes(answer),
                None => step?,
            },
            Ok(step) => step,
        };
        match step {
            Step::Done(answer) => return Ok(answer),
            Step::Commit(plan) => {
                let (plan, answer) = finish(namespace, plan, request.as_ref(), context.now_ms);
                if db.transact(plan.conditions, plan.operations).await?.committed {
                    return Ok(answer);
                }
            }
            Step::Again => {}
        }
        tokio::time::sleep(jittered(backoff).min(left)).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
    Err(Error::Conflict { message: format!("{} lost against others until its attempts or its time were used up", O::NAME) })
}

/// Adds to a plan what every operation writes.
fn finish<T: Answer>(namespace: &Namespace, mut plan: Plan<T>, request: Option<&Request>, now_ms: u64) -> (Plan<()>, T) {
    for mut event in plan.events {
        event.at_ms = now_ms;
        event.author.clone_from(&namespace.author);
        plan.operations.push(put_versionstamped(KeyKind::Event, event.to_bytes()));
    }
    if let Some(released) = ReleasedRecord::of(&plan.released) {
        plan.operations.push(put_versionstamped(KeyKind::Released, released.to_bytes()));
    }
    if let Some(request) = request {
        plan.conditions.extend(request.keys().map(condition::absent));
        plan.operations.push(operation::put(
            keys::request(request.slot, &request.id),
            RequestRecord::of(request.operation, plan.answer.to_bytes()).to_bytes(),
        ));
    }
    let bare = Plan { conditions: plan.conditions, operations: plan.operations, events: Vec::new(), released: plan.released, answer: () };
    (bare, plan.answer)
}

fn put_versionstamped(kind: KeyKind, value: Bytes) -> v1::Operation {
    let (prefix, suffix) = keys::versionstamped(kind);
    operation::put_versionstamped(prefix, suffix, value)
}

/// Between half of it and all of it, so that those who collided spread.
fn jittered(backoff: Duration) -> Duration {
    let half = backoff / 2;
    let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1);
    half + Duration::from_nanos(seam::random_u64() % nanos)
}

/// What a request of this id was answered, if it was done before.
async fn remembered(request: Option<&Request>, db: &Db) -> Result<Option<Bytes>, Error> {
    match request {
        Some(request) => request.remembered(db).await,
        None => Ok(None),
    }
}

/// A request that its caller named, so that a retry of it is told what the first one did.
pub(crate) struct Request {
    id: [u8; 16],
    slot: u64,
    operation: &'static str,
}

impl Request {
    fn new(id: [u8; 16], operation: &'static str) -> Self {
        Request { id, slot: slot_now(), operation }
    }

    /// Where its outcome can be: a retry may come in the next slot, and clocks may differ by one.
    fn keys(&self) -> impl Iterator<Item = Vec<u8>> {
        (self.slot.saturating_sub(1)..=self.slot + 1).map(|slot| keys::request(slot, &self.id))
    }

    async fn remembered(&self, db: &Db) -> Result<Option<Bytes>, Error> {
        let Some(row) = db.multi_get(self.keys().collect()).await?.into_iter().flatten().next() else { return Ok(None) };
        let record = RequestRecord::from_bytes(row.value)?;
        if record.operation != self.operation {
            return Err(Error::invalid(
                "request_id",
                format!("not used before, or for {}", self.operation),
                format!("used for {}", record.operation),
            ));
        }
        Ok(Some(record.answer))
    }
}

fn slot_now() -> u64 {
    let slot_ms = u64::try_from(REQUEST_SLOT.as_millis()).expect("a slot is minutes");
    seam::unix_ms() / slot_ms
}

/// Outcomes of slots that no retry can ask for any more.
pub(crate) fn forgettable() -> (Vec<u8>, Vec<u8>) {
    keys::requests_before(slot_now().saturating_sub(REQUEST_SLOTS_KEPT))
}
