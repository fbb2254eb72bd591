//! Frees the bytes that nothing names any more: of deleted and overwritten files, of parts that no upload kept.
//!
//! What `fs-layer` wrote down as released is worked off, ticket by ticket; a content that lost its last name can't be named again, so its
//! copies go, on every node that has one; when the last copy is gone, the row goes. A node that can't be reached keeps its place in the row
//! and is asked again later. Beside that, slowly, each node looks for own files that no row knows (`content::orphans`).
//!
//! Every step may be done twice and may stop anywhere, so nobody is elected: for each tenant the nodes take turns, by the clock and
//! rendezvous hashing. A node that is down loses its turns, nothing else. A tenant that gives nothing to do is looked at less and less often.
//!
//! Not here: uploads that were begun and never completed. They are their user's until he aborts them.

use crate::content::{ContentStore, ORPHAN_AGE};
use fs_layer::{ContentInfo, Fs, Namespace};
use futures::StreamExt as _;
use metadb_proto::v1::tenant_record::State;
use metadb_proto::{Error, seam};
use parking_lot::Mutex;
use shard_router::operator::Operator;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Tickets and contents asked for at once: a page small enough to be worked off in a moment.
const PAGE: usize = 256;
/// Tickets, or contents, of one tenant that are worked off at the same time: each waits for consensus or disks most of its time.
const AT_ONCE: usize = 16;
/// Tenants that are worked on at the same time by this node.
const TENANTS_AT_ONCE: usize = 4;
/// How long a tenant is worked on before the others get their turn.
const BUDGET: Duration = Duration::from_secs(10);
/// Turns of a node that an idle tenant is left out, at most.
const IDLE_TURNS: u32 = 8;
/// Idle tenants that a node looks at in one round, at most: thousands of them must cost next to nothing. Ten thousand are then seen within
/// nine minutes by three nodes; a tenant that gave something to do comes before them.
const IDLE_PASSES: usize = 64;
/// How often outcomes of old requests are forgotten, per tenant and node.
const REQUESTS_EVERY: Duration = Duration::from_secs(60);
/// Pause between two walks for orphans: they are rare, and a day old before they count.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);

/// Settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CollectConfig {
    /// How often each tenant is looked at, by whichever node's turn it is.
    pub every: Duration,
    /// How long bytes stay after they were released: downloads that were begun before may end.
    pub after: Duration,
    /// How old a file without a row must be before it is an orphan.
    pub orphan_age: Duration,
}

impl Default for CollectConfig {
    fn default() -> Self {
        CollectConfig { every: Duration::from_secs(10), after: Duration::from_secs(60), orphan_age: ORPHAN_AGE }
    }
}

/// What a pass did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Releases worked off.
    pub releases: u64,
    /// Contents whose copies are all gone.
    pub contents: u64,
    /// Bytes of those, each counted once.
    pub bytes: u64,
    /// Contents that still have a copy on a node that can't be reached now.
    pub left: u64,
    /// Outcomes of old requests forgotten.
    pub requests: u64,
    /// There is more to do, or there will be soon.
    pub more: bool,
}

impl Collected {
    fn did_something(&self) -> bool {
        self.releases + self.contents + self.requests > 0
    }

    fn add(&mut self, other: &Collected) {
        self.releases += other.releases;
        self.contents += other.contents;
        self.bytes += other.bytes;
        self.left += other.left;
        self.requests += other.requests;
        self.more |= other.more;
    }
}

/// What is remembered of a tenant between its passes; all of it may be forgotten.
#[derive(Debug, Clone, Copy, Default)]
struct Memory {
    /// Turns to be left out, and how many were last time.
    skip: u32,
    skipped: u32,
    /// Where the last pass stopped among contents without a name.
    behind: Option<[u8; 16]>,
    requests_forgotten: Option<Instant>,
    /// It gave something to do at its last pass.
    busy: bool,
    /// When that was.
    seen: Option<Instant>,
}

/// Collects, on behalf of one node.
pub struct Collector {
    fs: Fs,
    content: ContentStore,
    config: CollectConfig,
    tenants: Mutex<BTreeMap<u64, Memory>>,
}

impl Collector {
    /// Over a namespace and this node's share of the content store.
    #[must_use]
    pub fn new(fs: Fs, content: ContentStore, config: CollectConfig) -> Self {
        Collector { fs, content, config, tenants: Mutex::default() }
    }

    /// Collects until it is dropped, which may be at any moment.
    pub async fn run(&self) {
        tokio::join!(self.run_rounds(), self.run_sweeps());
    }

    async fn run_rounds(&self) {
        loop {
            sleep(jittered(self.config.every)).await;
            match self.round().await {
                Ok(done) if done.did_something() => tracing::info!(
                    releases = done.releases,
                    contents = done.contents,
                    bytes = done.bytes,
                    left = done.left,
                    requests = done.requests,
                    "collected"
                ),
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "the tenants can't be listed now, nothing is collected"),
            }
        }
    }

    async fn run_sweeps(&self) {
        loop {
            sleep(jittered(SWEEP_EVERY)).await;
            match self.content.sweep_orphans(self.config.orphan_age).await {
                Ok(report) if report.removed > 0 => tracing::info!(?report, "removed contents that nothing names"),
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "the walk for orphans ended early, another one follows"),
            }
        }
    }

    /// One round over the tenants whose turn it is.
    async fn round(&self) -> Result<Collected, Error> {
        let tenants = Operator::new(self.fs.router().clone()).tenants().await?;
        let active: BTreeSet<u64> =
            tenants.iter().filter(|tenant| tenant.state() == State::Active).map(|tenant| tenant.tenant_id).collect();
        self.tenants.lock().retain(|tenant_id, _| active.contains(tenant_id));
        let every_ms = u64::try_from(self.config.every.as_millis()).unwrap_or(u64::MAX).max(1);
        let turn = seam::unix_ms() / every_ms;
        let mine = active.into_iter().filter(|tenant_id| self.content.is_first_for(&key(*tenant_id, turn)));
        let due = due(&mut self.tenants.lock(), mine);
        let mut passes = futures::stream::iter(due).map(|tenant_id| self.pass_in_turn(tenant_id)).buffer_unordered(TENANTS_AT_ONCE);
        let mut all = Collected::default();
        while let Some(done) = passes.next().await {
            all.add(&done);
        }
        Ok(all)
    }

    async fn pass_in_turn(&self, tenant_id: u64) -> Collected {
        let done = match self.pass(tenant_id).await {
            Ok(done) => done,
            Err(error) => {
                tracing::debug!(tenant_id, %error, "collecting goes on at the next turn");
                // So that those who can't be collected now do not always come before the others.
                self.remember(tenant_id, |memory| memory.seen = Some(Instant::now()));
                return Collected::default();
            }
        };
        self.remember(tenant_id, |memory| {
            memory.busy = done.did_something() || done.more;
            memory.seen = Some(Instant::now());
            memory.skipped = if memory.busy { 0 } else { (memory.skipped * 2 + 1).min(IDLE_TURNS) };
            memory.skip = memory.skipped;
        });
        done
    }

    /// One pass over a tenant, whoever's turn it is. Two at once do no harm.
    ///
    /// # Errors
    /// Those of the database. What was done until then stays done.
    pub async fn pass(&self, tenant_id: u64) -> Result<Collected, Error> {
        let namespace = self.fs.namespace(tenant_id);
        let until = Instant::now() + BUDGET;
        let mut done = Collected::default();
        self.work_off(&namespace, until, &mut done).await?;
        self.remove(&namespace, until, &mut done).await?;
        let forgotten = self.tenants.lock().get(&tenant_id).and_then(|memory| memory.requests_forgotten);
        if forgotten.is_none_or(|at| at.elapsed() >= REQUESTS_EVERY) {
            done.requests = namespace.forget_requests().await? as u64;
            self.remember(tenant_id, |memory| memory.requests_forgotten = Some(Instant::now()));
        }
        Ok(done)
    }

    /// What was released long enough ago gives up its names.
    async fn work_off(&self, namespace: &Namespace, until: Instant, done: &mut Collected) -> Result<(), Error> {
        let after_ms = u64::try_from(self.config.after.as_millis()).unwrap_or(u64::MAX);
        loop {
            let page = namespace.released(PAGE).await?;
            let (full, now) = (page.len() == PAGE, seam::unix_ms());
            let mut due: Vec<_> = page.into_iter().map(|released| (released.released_at_ms(), released.ticket)).collect();
            let all = due.len();
            due.retain(|(released_at_ms, _)| now.saturating_sub(*released_at_ms) >= after_ms);
            let young = due.len() < all;
            let mut steps = futures::stream::iter(due).map(|(_, ticket)| work_off_one(namespace, ticket, until)).buffer_unordered(AT_ONCE);
            let mut finished = true;
            while let Some(worked_off) = steps.next().await {
                match worked_off {
                    Ok(true) => done.releases += 1,
                    Ok(false) => finished = false,
                    // Another collector is at it.
                    Err(Error::Conflict { .. }) => finished = false,
                    Err(error) => return Err(error),
                }
            }
            done.more |= young || !finished;
            if !full || young || !finished || Instant::now() >= until {
                done.more |= full;
                return Ok(());
            }
        }
    }

    /// Contents without a name lose their copies, and then their row.
    async fn remove(&self, namespace: &Namespace, until: Instant, done: &mut Collected) -> Result<(), Error> {
        let tenant_id = namespace.tenant_id();
        let mut behind = self.tenants.lock().get(&tenant_id).and_then(|memory| memory.behind);
        loop {
            let (page, next) = namespace.unnamed_after(behind, PAGE).await?;
            let unnamed = page.into_iter().filter(|info| info.names == 0);
            let mut removals = futures::stream::iter(unnamed).map(|info| self.remove_one(namespace, info)).buffer_unordered(AT_ONCE);
            while let Some(removed) = removals.next().await {
                let one = removed?;
                done.add(&one);
            }
            behind = next;
            self.remember(tenant_id, |memory| memory.behind = next);
            if next.is_none() {
                return Ok(());
            }
            if Instant::now() >= until {
                done.more = true;
                return Ok(());
            }
        }
    }

    async fn remove_one(&self, namespace: &Namespace, info: ContentInfo) -> Result<Collected, Error> {
        let (id, part) = (info.part.content_id, &info.part);
        let removal = self.content.remove_copies(namespace.tenant_id(), part).await;
        if removal.left.is_empty() {
            let forgotten = namespace.forget_content_gone_from(&id, &removal.gone).await?;
            if !forgotten {
                // Another collector was first, or a copy came to be meanwhile: then it is found again.
                return Ok(Collected::default());
            }
            self.content.note_collected(part.size_bytes);
            tracing::debug!(tenant_id = namespace.tenant_id(), content = hex::encode(id), bytes = part.size_bytes, "a content is gone");
            return Ok(Collected { contents: 1, bytes: part.size_bytes, ..Collected::default() });
        }
        if !removal.gone.is_empty() {
            match namespace.forget_copies(&id, &removal.gone).await {
                Ok(_) | Err(Error::NotFound { .. } | Error::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Collected { left: 1, ..Collected::default() })
    }

    fn remember(&self, tenant_id: u64, change: impl FnOnce(&mut Memory)) {
        change(self.tenants.lock().entry(tenant_id).or_default());
    }
}

impl std::fmt::Debug for Collector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Collector({:?}, {:?})", self.content, self.config)
    }
}

/// Who is looked at of those whose turn it is: all that gave something to do, and of the idle ones those not seen for longest.
fn due(tenants: &mut BTreeMap<u64, Memory>, turn: impl Iterator<Item = u64>) -> Vec<u64> {
    let (mut busy, mut idle) = (Vec::new(), Vec::new());
    for tenant_id in turn {
        let memory = tenants.entry(tenant_id).or_default();
        match (memory.skip, memory.busy) {
            (0, true) => busy.push(tenant_id),
            (0, false) => idle.push((memory.seen, tenant_id)),
            _ => memory.skip -= 1,
        }
    }
    // Who was never seen comes first.
    idle.sort_unstable();
    busy.extend(idle.into_iter().take(IDLE_PASSES).map(|(_, tenant_id)| tenant_id));
    busy
}

/// Does the steps of one ticket. `false` if the time was up before.
async fn work_off_one(namespace: &Namespace, ticket: Vec<u8>, until: Instant) -> Result<bool, Error> {
    while namespace.collect(&ticket).await? {
        if Instant::now() >= until {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What the nodes are ranked by: another order for each tenant and turn.
fn key(tenant_id: u64, turn: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&tenant_id.to_be_bytes());
    key[8..].copy_from_slice(&turn.to_be_bytes());
    key
}

/// Three quarters of it to five quarters, so that nodes spread.
fn jittered(pause: Duration) -> Duration {
    let half_ms = u64::try_from(pause.as_millis() / 2).unwrap_or(u64::MAX).max(1);
    pause * 3 / 4 + Duration::from_millis(seam::random_u64() % half_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_tenants_come_first_and_idle_ones_in_turn() {
        let mut tenants = BTreeMap::new();
        let count = 3 * IDLE_PASSES as u64;
        tenants.insert(7, Memory { busy: true, ..Memory::default() });
        let mut seen = BTreeSet::new();
        for _ in 0..3 {
            let chosen = due(&mut tenants, 0..count);
            assert!(chosen[0] == 7 && chosen.len() == IDLE_PASSES + 1, "{chosen:?}");
            for tenant_id in chosen.iter().skip(1) {
                tenants.entry(*tenant_id).or_default().seen = Some(Instant::now());
            }
            seen.extend(chosen);
        }
        assert_eq!(seen.len() as u64, count, "none is left out for ever");
        tenants.insert(8, Memory { skip: 1, ..Memory::default() });
        assert!(due(&mut tenants, 8..9).is_empty());
        assert_eq!(due(&mut tenants, 8..9), [8]);
    }
}
