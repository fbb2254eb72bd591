//! One group as this node has it: proposing, reading the latest, members, leadership.
//!
//! Invariants: an error that is not [`Error::UnknownOutcome`] means that nothing was done; every queue is bounded and a full one is
//! [`Error::Exhausted`]; nothing waits past its deadline. Not here: what a command does ([`crate::machine`]), who owns a key range.

mod arrival;
mod barrier;
mod compare;
mod level;
mod members;
mod proposer;

pub(crate) use level::LevelInForce;
pub use members::Wanted;

use crate::command::Command;
use crate::host::{Admission, Host};
use crate::machine::{Outcome, View};
use crate::metrics::{self, GroupNumbers};
use crate::raft::applier::Point;
use crate::raft::receive::Session;
use crate::raft::replica::Replica;
use crate::raft::snapshot::outgoing::Transfer;
use crate::witness::Course;
use bytes::Bytes;
use metadb_proto::Error;
use metadb_proto::v1::{self, PeerVerb, SnapshotOffer};
use metadb_telemetry::Samples;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long a request waits for a group to have a leader, at most: an election and its beginning, if nothing goes wrong. Then its caller
/// may know better.
const LEADERLESS_WAIT: Duration = Duration::from_millis(1500);

/// How long a stop waits for requests that were begun.
const ANSWERED_WITHIN: Duration = Duration::from_millis(500);

/// A handle to one group. Cheap to clone through its [`Arc`].
pub struct Group {
    group_id: u32,
    node_id: u64,
    replica: Arc<Replica>,
    level: LevelInForce,
    /// Requests that are not answered yet.
    under_way: AtomicUsize,
    /// Told when one is answered.
    answered: Notify,
    /// Held while members change.
    changing: Arc<tokio::sync::Mutex<()>>,
    proposer: proposer::Proposer,
    barrier: barrier::Barrier,
    admission: Admission,
    comparing: Mutex<compare::Told>,
    arrivals: arrival::Arrivals,
}

impl Group {
    /// Starts the tasks around a replica.
    pub(crate) fn start(node_id: u64, replica: Replica, level: LevelInForce, host: &Arc<Host>) -> Arc<Self> {
        let replica = Arc::new(replica);
        Arc::new(Group {
            group_id: replica.group_id(),
            node_id,
            proposer: proposer::Proposer::start(Arc::clone(&replica), level.clone()),
            level,
            barrier: barrier::Barrier::start(Arc::clone(&replica)),
            admission: Admission::new(Arc::clone(host), replica.group_id()),
            under_way: AtomicUsize::new(0),
            answered: Notify::new(),
            changing: Arc::default(),
            comparing: Mutex::default(),
            arrivals: arrival::Arrivals::default(),
            replica,
        })
    }

    /// Which group.
    #[must_use]
    pub fn group_id(&self) -> u32 {
        self.group_id
    }

    /// Its door: what is asked by tenants passes it first.
    pub(crate) fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Has a command committed and applied, and says what it did.
    ///
    /// # Errors
    /// [`Error::Moved`] to the leader; [`Error::Exhausted`] if the queue is full; [`Error::Unavailable`] if there is no leader now or the
    /// deadline passed before anything was done; [`Error::UnknownOutcome`] if the deadline passed, or leadership was lost, after the
    /// command was handed to Raft.
    pub async fn propose(&self, command: Command, deadline: Instant) -> Result<Outcome, Error> {
        self.propose_witnessed(command, deadline, &mut Course::default()).await
    }

    /// As [`Group::propose`]; tells where the time went.
    pub(crate) async fn propose_witnessed(&self, command: Command, deadline: Instant, course: &mut Course) -> Result<Outcome, Error> {
        let _under_way = UnderWay::begin(self);
        self.until_settled(deadline).await?;
        self.level.allows(command.level())?;
        self.replica.room().admit(&command)?;
        let proposed = self.proposer.propose(command, deadline, course.trace).await;
        let (outcome, times) = match proposed {
            Err(error) => return Err(self.or_moved(error, deadline).await),
            Ok(done) => done,
        };
        (course.queue, course.commit, course.apply) = (times.queue, times.commit, times.apply);
        Ok(outcome)
    }

    /// Tells whoever scrapes how this replica is.
    pub(crate) fn observe(&self, samples: &mut Samples) {
        let seen = self.replica.observe();
        let lag = |(peer, matched): (&u64, &u64)| (*peer, seen.last_log_index.saturating_sub(*matched));
        let lags = seen.matched.iter().filter(|(peer, _)| **peer != self.node_id).map(lag).collect();
        let (hot_hits, hot_misses) = self.replica.view().hot().looked_up();
        let load = self.proposer.load();
        let numbers = GroupNumbers {
            lags,
            in_flight: load.in_flight,
            queue_commands: load.queue_commands,
            queue_bytes: load.queue_bytes,
            snapshots_installed: self.replica.snapshots_installed(),
            hot_hits,
            hot_misses,
        };
        metrics::observe_group(&self.status(), &numbers, samples);
    }

    /// The state, at least as new as every write that was answered before this call. All who wait at a moment share one round.
    ///
    /// # Errors
    /// [`Error::Moved`] to the leader; [`Error::Unavailable`] if leadership can't be confirmed before the deadline.
    pub async fn read_barrier(&self, deadline: Instant) -> Result<Arc<View>, Error> {
        let _under_way = UnderWay::begin(self);
        self.until_settled(deadline).await?;
        if let Err(error) = self.barrier.pass(deadline).await {
            return Err(self.or_moved(error, deadline).await);
        }
        Ok(self.replica.view())
    }

    /// Whether the wall clock of this node is to be believed.
    pub(crate) fn clock_is_right(&self) -> bool {
        self.replica.clocks().problem().is_none()
    }

    /// The state as far as this replica has it.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.replica.view()
    }

    /// The leader, if one is known now.
    #[must_use]
    pub fn leader(&self) -> Option<v1::NodeRef> {
        self.replica.leader()
    }

    /// Whether this node leads the group, as far as it knows.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.replica.is_leader()
    }

    /// How many snapshots this replica took from a leader since it was opened.
    #[must_use]
    pub fn snapshots_installed(&self) -> u64 {
        self.replica.snapshots_installed()
    }

    /// What this replica knows of the group, without the hash of its state.
    #[must_use]
    pub fn status(&self) -> v1::GroupStatus {
        let seen = self.replica.observe();
        let view = self.replica.view();
        let (reads, writes) = self.admission.status();
        v1::GroupStatus {
            group_id: self.group_id,
            role: seen.role.into(),
            leader: seen.leader,
            term: seen.term,
            last_log_index: seen.last_log_index,
            committed_index: seen.committed_index,
            applied_index: seen.applied_index,
            flushed_index: self.replica.flushed_index(),
            purged_index: seen.purged_index,
            applied_version: view.version().0,
            voters: seen.agreed_voters,
            learners: seen.learners,
            shards: view.shards(),
            problem: self.replica.problem().unwrap_or_default(),
            sending_snapshots: self.replica.traffic().sending().into_iter().map(|(to, transfer)| told(to, transfer)).collect(),
            receiving_snapshot: self.replica.traffic().receiving.lock().map(|transfer| told(0, transfer)),
            snapshots_installed: self.replica.snapshots_installed(),
            replayed_entries: self.replica.replayed_entries(),
            reads: Some(reads),
            writes: Some(writes),
            membership_index: seen.membership_index,
            joint: seen.joint,
            matched: seen.matched.into_iter().collect(),
            answering: seen.answering.into_iter().collect(),
            comparison: self.comparison_status(),
            ..Default::default()
        }
    }

    /// The status with the hash of the state, and the index that the hash was taken at. Reads every row of the group.
    ///
    /// # Errors
    /// [`Error::Internal`] if the state can't be read.
    pub async fn status_with_hash(&self) -> Result<v1::GroupStatus, Error> {
        let (applied_index, state_hash) = self.replica.state_hash().await?;
        Ok(v1::GroupStatus { applied_index, state_hash, ..self.status() })
    }

    /// Gives the group its first voters, unless it has members. A replica that was made anew belongs to a group that has: a second birth
    /// would make a second group.
    pub(crate) async fn initialise(&self, voters: &[v1::NodeRef]) -> Result<(), Error> {
        if self.replica.is_silent() || self.replica.is_initialised().await? {
            return Ok(());
        }
        self.replica.initialise(members::by_id(voters)?).await
    }

    /// Brings the members to what is asked; new ones catch up as learners first. Asked again, it does nothing.
    ///
    /// # Errors
    /// [`Error::Moved`] to the leader; [`Error::Invalid`] for impossible members; [`Error::Conflict`] if the members are not those that the
    /// caller saw; [`Error::Unavailable`] if a learner did not catch up before the deadline or another change is under way: what was
    /// reached stays, and asking again goes on from there.
    pub async fn change_members(&self, wanted: Wanted, deadline: Instant) -> Result<(), Error> {
        self.until_settled(deadline).await?;
        members::change(&self.replica, wanted.clone(), &self.changing, deadline).await?;
        self.confirm_members(&wanted.voters, &wanted.learners).await
    }

    /// Makes sure that the members are these now: committed, and told by a leader that a quorum follows. Whoever is told so may wipe a
    /// replica that is no member.
    async fn confirm_members(&self, voters: &[v1::NodeRef], learners: &[v1::NodeRef]) -> Result<(), Error> {
        let index = self.replica.read_index().await?;
        self.replica.applied_through(index).await;
        let (found_voters, found_learners) = self.replica.applied_members();
        let are = |found: Vec<u64>, wanted: &[v1::NodeRef]| {
            let found: BTreeSet<u64> = found.into_iter().collect();
            found == wanted.iter().map(|node| node.node_id).collect()
        };
        if are(found_voters, voters) && are(found_learners, learners) {
            return Ok(());
        }
        Err(Error::unavailable(format!("the members of group {} were changed by someone else", self.group_id), Duration::from_millis(200)))
    }

    /// Hands leadership to a voter and waits until it leads.
    ///
    /// # Errors
    /// [`Error::Moved`] to the leader; [`Error::Invalid`] if the node is no voter; [`Error::Unavailable`] if it does not answer or did not
    /// take over before the deadline.
    pub async fn transfer_leader(&self, node_id: u64, deadline: Instant) -> Result<(), Error> {
        if self.leader().is_some_and(|leader| leader.node_id == node_id) {
            return Ok(());
        }
        self.redirect_unless_leader()?;
        members::transfer(&self.replica, node_id, deadline).await
    }

    /// Whether requests wait here for the next leader.
    #[cfg(test)]
    pub(crate) fn hands_over(&self) -> bool {
        self.replica.is_handing_over()
    }

    /// Shows the other replicas that their leader lives.
    pub(crate) async fn beat(&self) {
        self.replica.beat().await;
    }

    /// Before a stop: hands leadership to whoever answers and has most of the log, if this node leads and there is someone else.
    pub(crate) async fn step_aside(&self, deadline: Instant) {
        while Instant::now() < deadline {
            let seen = self.replica.observe();
            let heir = members::heirs(&seen, self.node_id)
                .into_iter()
                .find(|heir| seen.answering.contains(heir) && members::can_lead(&seen, *heir));
            let Some(heir) = heir.filter(|_| seen.role == v1::Role::Leader) else { return };
            match members::transfer(&self.replica, heir, deadline).await {
                Ok(()) => return,
                Err(error) => tracing::warn!(group_id = self.group_id, heir, %error, "leadership was not handed over before the stop"),
            }
        }
    }

    /// Answers a message of another replica.
    pub(crate) async fn serve(&self, verb: PeerVerb, payload: Bytes) -> Result<Bytes, Error> {
        self.replica.serve(verb, payload).await
    }

    /// Takes a snapshot from the leader.
    pub(crate) async fn receive_snapshot(&self, offer: SnapshotOffer, session: &mut impl Session) -> Result<Bytes, Error> {
        self.replica.receive_snapshot(offer, session).await
    }

    /// Removes files of snapshots that nobody came back for; whether one was let go that held the log.
    pub(crate) fn expire_snapshots(&self) -> bool {
        self.replica.expire_snapshots()
    }

    /// How far entries were applied; what is flushed after this call covers it.
    pub(crate) fn applied(&self) -> Point {
        self.replica.applied()
    }

    /// Notes that everything up to a point is durable; keeps about `log_budget` bytes of log for followers that lag.
    pub(crate) async fn note_flushed(&self, point: Point, log_budget: u64) {
        if let Err(error) = self.replica.note_flushed(point, log_budget).await {
            tracing::warn!(group_id = self.group_id, %error, "the log was not purged");
        }
    }

    /// Why the replica stopped by itself, if it did.
    pub(crate) fn problem(&self) -> Option<String> {
        self.replica.problem()
    }

    /// Why the replica's state is not to be trusted, if it is not.
    pub(crate) fn distrusted(&self) -> Option<String> {
        self.replica.distrusted()
    }

    /// Whether nothing can change the replica's state any more, after it was shut down.
    pub(crate) fn is_gone(&self) -> bool {
        self.replica.is_gone()
    }

    /// Stops the replica. What it acknowledged stays in the log. Requests that were begun are answered first, within a moment: after it
    /// handed leadership over it still applies what it proposed before, and its callers need not ask again.
    pub(crate) async fn shutdown(&self) {
        let answered = async {
            while self.under_way.load(Ordering::SeqCst) > 0 {
                self.answered.notified().await;
            }
        };
        if tokio::time::timeout(ANSWERED_WITHIN, answered).await.is_err() {
            tracing::info!(group_id = self.group_id, "requests under way were cut off");
        }
        self.replica.shutdown().await;
    }

    /// Waits while it is not known who leads, a moment at most: whoever waits here is told where to go as soon as that is known, while one
    /// that comes again finds out by chance. Ok: this node may be the leader, and the core knows.
    async fn until_settled(&self, deadline: Instant) -> Result<(), Error> {
        self.redirect_unless_leader()?;
        if self.leader().is_none() || self.replica.is_handing_over() {
            self.until_led(deadline, |leader, handing_over| leader.is_some() && !handing_over).await;
            self.redirect_unless_leader()?;
        }
        self.replica.until_confirmed().await;
        Ok(())
    }

    async fn until_led(&self, deadline: Instant, fits: impl Fn(Option<u64>, bool) -> bool + Send + Sync) {
        // Half of the time that is left is for whoever is asked next: a caller in a hurry must come to an answer too.
        let patience = (deadline.saturating_duration_since(Instant::now()) / 2).min(LEADERLESS_WAIT);
        let replica = &self.replica;
        let known = replica.until_leader(|leader| fits(leader.map(|leader| leader.node_id), replica.is_handing_over()));
        // Whether it came about is looked at by the caller.
        let _ = tokio::time::timeout(patience, known).await;
    }

    /// Waits, a moment at most, until another node leads than the one that a caller could not reach.
    pub(crate) async fn outlive(&self, lost: u64, deadline: Instant) {
        if lost != self.node_id && self.leader().is_some_and(|leader| leader.node_id == lost) {
            self.until_led(deadline, |leader, _| leader.is_some_and(|leader| leader != lost)).await;
        }
    }

    /// What to tell a caller who was told that nothing was done: where to go, if that is because leadership is being handed over.
    async fn or_moved(&self, error: Error, deadline: Instant) -> Error {
        if matches!(error, Error::Unavailable { .. }) && self.replica.is_handing_over() {
            return self.until_settled(deadline).await.err().unwrap_or(error);
        }
        error
    }

    /// A follower that knows its leader answers at once; whoever may be the leader asks Raft.
    fn redirect_unless_leader(&self) -> Result<(), Error> {
        if let Some(problem) = self.replica.problem() {
            let message = format!("the replica of group {} on this node failed: {problem}", self.group_id);
            return Err(Error::unavailable(message, Duration::from_millis(500)));
        }
        match self.leader() {
            Some(leader) if leader.node_id != self.node_id => {
                let message = format!("node {} leads group {}", leader.node_id, self.group_id);
                Err(Error::Moved {
                    message,
                    redirect: v1::Redirect { group_id: self.group_id, leader: Some(leader), epoch: 0, ..Default::default() },
                })
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn told(node_id: u64, transfer: Transfer) -> v1::SnapshotTransfer {
    let Transfer { total_bytes, done_bytes, reused_bytes } = transfer;
    v1::SnapshotTransfer { node_id, total_bytes, done_bytes, reused_bytes }
}

/// A request that is counted while it is under way.
struct UnderWay<'a>(&'a Group);

impl<'a> UnderWay<'a> {
    fn begin(group: &'a Group) -> Self {
        group.under_way.fetch_add(1, Ordering::SeqCst);
        UnderWay(group)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if self.0.under_way.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.answered.notify_one();
        }
    }
}
