//! What a node's data plane tells of itself.

use crate::raft::snapshot::depot::SnapshotTotals;
use metadb_proto::Error;
use metadb_proto::kv::{request, response};
use metadb_telemetry::{Counter, Histogram, Metric, Samples, Unit};
use std::sync::LazyLock;
use std::time::Duration;

static REQUESTS: Metric =
    Metric::new_counter("cairn_requests_total", Unit::Count, &["verb", "outcome"], "Requests that the node answered, by how they ended.");
static REQUEST_SECONDS: Metric =
    Metric::new_histogram("cairn_request_seconds", Unit::Seconds, &["verb"], "Time from a request's arrival at the node to its answer.");
static SLOW_REQUESTS: Metric = Metric::new_counter(
    "cairn_slow_requests_total",
    Unit::Count,
    &[],
    "Requests that took longer than the threshold of the slow-request log.",
);
static ENTRY_COMMANDS: Metric =
    Metric::new_histogram("cairn_entry_commands", Unit::Count, &[], "Commands that share one entry of a group's log.");
static ENTRY_BYTES: Metric = Metric::new_histogram("cairn_entry_bytes", Unit::Bytes, &[], "Bytes of an entry proposed to a group.");
static QUEUE_SECONDS: Metric =
    Metric::new_histogram("cairn_queue_seconds", Unit::Seconds, &[], "Time that the oldest command of an entry waited to be proposed.");
static COMMIT_SECONDS: Metric = Metric::new_histogram(
    "cairn_commit_seconds",
    Unit::Seconds,
    &[],
    "Time from proposing an entry to the moment when a majority has it and it is being applied.",
);
static APPLY_SECONDS: Metric = Metric::new_histogram("cairn_apply_seconds", Unit::Seconds, &[], "Time to apply one batch of entries.");
static APPLY_ENTRIES: Metric = Metric::new_histogram("cairn_apply_entries", Unit::Count, &[], "Entries applied in one batch.");
static READ_ROUNDS: Metric = Metric::new_counter(
    "cairn_read_rounds_total",
    Unit::Count,
    &["way"],
    "Confirmations of leadership for linearizable reads: by lease, without a message, or by a quorum.",
);
static READ_ROUND_READERS: Metric =
    Metric::new_histogram("cairn_read_round_readers", Unit::Count, &[], "Readers that share one confirmation of leadership.");
static LEADER_CHANGES: Metric =
    Metric::new_counter("cairn_leader_changes_total", Unit::Count, &[], "Leaders that replicas of this node saw come about.");

static NODE_UPTIME: Metric = Metric::new_gauge("cairn_node_uptime_seconds", Unit::Seconds, &[], "Time since the node opened its state.");
static GROUPS: Metric = Metric::new_gauge("cairn_groups", Unit::Count, &["role"], "Replicas on this node, by role.");
static GROUP_LEADS: Metric = Metric::new_gauge("cairn_group_is_leader", Unit::Flag, &["group"], "Whether this node leads the group.");
static GROUP_LED: Metric =
    Metric::new_gauge("cairn_group_has_leader", Unit::Flag, &["group"], "Whether this replica knows a leader of the group.");
static GROUP_FAILED: Metric = Metric::new_gauge("cairn_group_failed", Unit::Flag, &["group"], "Whether the replica stopped on an error.");
static GROUP_TERM: Metric = Metric::new_gauge("cairn_group_term", Unit::Count, &["group"], "The term of the group.");
static GROUP_LAST: Metric =
    Metric::new_gauge("cairn_group_last_log_index", Unit::Count, &["group"], "The last entry in the replica's log.");
static GROUP_COMMITTED: Metric =
    Metric::new_gauge("cairn_group_committed_index", Unit::Count, &["group"], "The last entry that the replica knows to be committed.");
static GROUP_APPLIED: Metric = Metric::new_gauge("cairn_group_applied_index", Unit::Count, &["group"], "The last entry that was applied.");
static GROUP_FLUSHED: Metric =
    Metric::new_gauge("cairn_group_flushed_index", Unit::Count, &["group"], "The last applied entry that needs no replay after a crash.");
static GROUP_VOTERS: Metric = Metric::new_gauge("cairn_group_voters", Unit::Count, &["group"], "Voters of the group.");
static GROUP_SHARDS: Metric = Metric::new_gauge("cairn_group_shards", Unit::Count, &["group"], "Shards that the group owns.");
static GROUP_LAG: Metric = Metric::new_gauge(
    "cairn_group_follower_lag_entries",
    Unit::Count,
    &["group", "peer"],
    "Told by the leader: entries that another replica is not known to have yet.",
);
static GROUP_REPLAYED: Metric = Metric::new_gauge(
    "cairn_group_replayed_entries",
    Unit::Count,
    &["group"],
    "Entries that the replica had to apply again when it was opened: known to be committed, and not flushed before the stop.",
);
static GROUP_IN_FLIGHT: Metric =
    Metric::new_gauge("cairn_group_entries_in_flight", Unit::Count, &["group"], "Entries proposed and not yet applied.");
static GROUP_QUEUE: Metric =
    Metric::new_gauge("cairn_group_queue_commands", Unit::Count, &["group"], "Commands that wait for a place in an entry.");
static GROUP_QUEUE_BYTES: Metric =
    Metric::new_gauge("cairn_group_queue_bytes", Unit::Bytes, &["group"], "Bytes of the commands that wait for a place in an entry.");
static GROUP_SNAPSHOTS: Metric = Metric::new_counter(
    "cairn_group_snapshots_installed_total",
    Unit::Count,
    &["group"],
    "Snapshots of a leader that took the place of the replica's state.",
);
static HOT_HITS: Metric =
    Metric::new_counter("cairn_hot_rows_hits_total", Unit::Count, &["group"], "Latest rows found in the cache of hot rows.");
static HOT_MISSES: Metric =
    Metric::new_counter("cairn_hot_rows_misses_total", Unit::Count, &["group"], "Latest rows that had to be looked up in the store.");
static DISK_FREE: Metric =
    Metric::new_gauge("cairn_disk_free_bytes", Unit::Bytes, &[], "Room on the fullest of the disks that the node writes to.");
static DISK_RESERVE: Metric = Metric::new_gauge("cairn_disk_reserve_bytes", Unit::Bytes, &[], "Room below which the node is read-only.");
static DISK_FULL: Metric =
    Metric::new_gauge("cairn_disk_full", Unit::Flag, &[], "Whether the node is read-only for want of room on a disk.");
static QUARANTINED: Metric = Metric::new_gauge(
    "cairn_replicas_quarantined",
    Unit::Count,
    &[],
    "Replicas that are out of service until they are rebuilt from their peers.",
);
static SNAPSHOTS_SENT: Metric =
    Metric::new_counter("cairn_snapshots_sent_total", Unit::Count, &[], "Snapshots that other nodes said to have taken in.");
static SNAPSHOT_SENT_BYTES: Metric =
    Metric::new_counter("cairn_snapshot_sent_bytes_total", Unit::Bytes, &[], "Bytes of snapshots sent, also of transfers that were cut.");
static SNAPSHOTS_RECEIVED: Metric =
    Metric::new_counter("cairn_snapshots_received_total", Unit::Count, &[], "Snapshots that came whole, with all checksums right.");
static SNAPSHOT_RECEIVED_BYTES: Metric = Metric::new_counter(
    "cairn_snapshot_received_bytes_total",
    Unit::Bytes,
    &[],
    "Bytes of snapshots received, also of transfers that were cut.",
);
static SNAPSHOTS_RESUMED: Metric = Metric::new_counter(
    "cairn_snapshots_resumed_total",
    Unit::Count,
    &[],
    "Transfers to this node that went on where an earlier one had stopped.",
);
static SNAPSHOT_REUSED_BYTES: Metric =
    Metric::new_counter("cairn_snapshot_reused_bytes_total", Unit::Bytes, &[], "Bytes that those transfers did not have to bring again.");
static SNAPSHOT_ROTTEN: Metric = Metric::new_counter(
    "cairn_snapshot_rotten_parts_total",
    Unit::Count,
    &[],
    "Chunks and files of snapshots that failed their checksums; none of them is taken in.",
);
static SCRUB_RUNNING: Metric = Metric::new_gauge("cairn_scrub_running", Unit::Flag, &[], "Whether the node reads what it has at rest.");
static SCRUB_BYTES: Metric = Metric::new_counter("cairn_scrub_bytes_total", Unit::Bytes, &[], "Bytes at rest that were read by scrubs.");
static SCRUB_ROT: Metric =
    Metric::new_counter("cairn_scrub_rot_total", Unit::Count, &[], "Things at rest that scrubs found not to read back.");
static SCRUB_UNREAD: Metric =
    Metric::new_counter("cairn_scrub_unread_total", Unit::Count, &[], "Steps of scrubs that could not read, and were left out.");
static SCRUB_ENDED: Metric = Metric::new_gauge(
    "cairn_scrub_ended_seconds",
    Unit::Seconds,
    &[],
    "When the node last ended a scrub, since the Unix epoch; 0: it never did.",
);
static COMPARED: Metric = Metric::new_counter(
    "cairn_comparisons_total",
    Unit::Count,
    &["outcome"],
    "Slices of their states that groups led here compared: equal, differ, undecided, or alone, when no other replica answered.",
);
static COMPARED_BYTES: Metric =
    Metric::new_counter("cairn_compared_bytes_total", Unit::Bytes, &[], "Bytes of rows that replicas of this node hashed to be compared.");
static DIFFERED: Metric = Metric::new_counter(
    "cairn_replicas_differed_total",
    Unit::Count,
    &[],
    "Replicas of this node that went into quarantine because their state was not that of most others.",
);
static GROUP_UNDECIDED: Metric = Metric::new_gauge(
    "cairn_group_undecided",
    Unit::Flag,
    &["group"],
    "Told by the leader: replicas differ, and no state is that of a majority.",
);
static PEER_UP: Metric = Metric::new_gauge("cairn_peer_up", Unit::Flag, &["peer"], "Whether the stream to another node is open.");
static PEER_CONNECTS: Metric =
    Metric::new_counter("cairn_peer_connects_total", Unit::Count, &["peer"], "Streams to another node that were opened.");
static PEER_SENT: Metric =
    Metric::new_counter("cairn_peer_sent_bytes_total", Unit::Bytes, &["peer"], "Bytes of Raft messages sent to another node.");
static PEER_RECEIVED: Metric =
    Metric::new_counter("cairn_peer_received_bytes_total", Unit::Bytes, &["peer"], "Bytes of answers received from another node.");
static PEER_FRAMES: Metric = Metric::new_counter("cairn_peer_frames_total", Unit::Count, &["peer"], "Frames sent to another node.");
static PEER_MESSAGES: Metric =
    Metric::new_counter("cairn_peer_messages_total", Unit::Count, &["peer"], "Raft messages sent to another node, in those frames.");
static PEER_HEARTBEATS: Metric = Metric::new_counter(
    "cairn_peer_heartbeats_total",
    Unit::Count,
    &["peer"],
    "Heartbeats of groups that shared a message to another node.",
);
static PEER_HEARTBEAT_MESSAGES: Metric = Metric::new_counter(
    "cairn_peer_heartbeat_messages_total",
    Unit::Count,
    &["peer"],
    "Messages to another node that carried those heartbeats.",
);

/// Everything that this crate counts.
pub static ALL: &[&Metric] = &[
    &REQUESTS,
    &REQUEST_SECONDS,
    &SLOW_REQUESTS,
    &ENTRY_COMMANDS,
    &ENTRY_BYTES,
    &QUEUE_SECONDS,
    &COMMIT_SECONDS,
    &APPLY_SECONDS,
    &APPLY_ENTRIES,
    &READ_ROUNDS,
    &READ_ROUND_READERS,
    &LEADER_CHANGES,
    &NODE_UPTIME,
    &DISK_FREE,
    &DISK_RESERVE,
    &DISK_FULL,
    &QUARANTINED,
    &SCRUB_RUNNING,
    &SCRUB_BYTES,
    &SCRUB_ROT,
    &SCRUB_UNREAD,
    &SCRUB_ENDED,
    &COMPARED,
    &COMPARED_BYTES,
    &DIFFERED,
    &GROUPS,
    &GROUP_LEADS,
    &GROUP_LED,
    &GROUP_FAILED,
    &GROUP_TERM,
    &GROUP_LAST,
    &GROUP_COMMITTED,
    &GROUP_APPLIED,
    &GROUP_FLUSHED,
    &GROUP_VOTERS,
    &GROUP_SHARDS,
    &GROUP_LAG,
    &GROUP_REPLAYED,
    &GROUP_UNDECIDED,
    &GROUP_IN_FLIGHT,
    &GROUP_QUEUE,
    &GROUP_QUEUE_BYTES,
    &GROUP_SNAPSHOTS,
    &HOT_HITS,
    &HOT_MISSES,
    &SNAPSHOTS_SENT,
    &SNAPSHOT_SENT_BYTES,
    &SNAPSHOTS_RECEIVED,
    &SNAPSHOT_RECEIVED_BYTES,
    &SNAPSHOTS_RESUMED,
    &SNAPSHOT_REUSED_BYTES,
    &SNAPSHOT_ROTTEN,
    &PEER_UP,
    &PEER_CONNECTS,
    &PEER_SENT,
    &PEER_RECEIVED,
    &PEER_FRAMES,
    &PEER_MESSAGES,
    &PEER_HEARTBEATS,
    &PEER_HEARTBEAT_MESSAGES,
];

/// The kinds of requests, as labels have them.
pub(crate) const VERBS: [&str; 5] = ["get", "multi_get", "scan", "walk", "transact"];
/// How requests end, as labels have it.
const OUTCOMES: [&str; 15] = [
    "ok",
    "not_committed",
    "conflict",
    "moved",
    "unavailable",
    "exhausted",
    "unknown_outcome",
    "invalid",
    "not_found",
    "already_exists",
    "denied",
    "unauthenticated",
    "corrupt",
    "internal",
    "suspended",
];

/// The place of a request in [`VERBS`].
pub(crate) fn verb(body: &request::Body) -> usize {
    match body {
        request::Body::Get(_) => 0,
        request::Body::MultiGet(_) => 1,
        request::Body::Scan(_) => 2,
        request::Body::Walk(_) => 3,
        request::Body::Transact(_) => 4,
    }
}

fn outcome(result: &Result<response::Body, Error>) -> usize {
    match result {
        Ok(response::Body::Transact(answer)) if !answer.committed => 1,
        Ok(_) => 0,
        Err(Error::Conflict { .. }) => 2,
        Err(Error::Moved { .. }) => 3,
        Err(Error::Unavailable { .. }) => 4,
        Err(Error::Exhausted { .. }) => 5,
        Err(Error::UnknownOutcome { .. }) => 6,
        Err(Error::Invalid { .. }) => 7,
        Err(Error::NotFound { .. }) => 8,
        Err(Error::AlreadyExists { .. }) => 9,
        Err(Error::Denied { .. }) => 10,
        Err(Error::Unauthenticated { .. }) => 11,
        Err(Error::Corrupt { .. }) => 12,
        Err(Error::Internal { .. }) => 13,
        Err(Error::Suspended { .. }) => 14,
    }
}

/// The handles that requests are counted with: looked up once, so that a request costs four atomic additions.
pub(crate) struct Handles {
    requests: [[Counter; OUTCOMES.len()]; VERBS.len()],
    seconds: [Histogram; VERBS.len()],
    pub(crate) slow: Counter,
    pub(crate) entry_commands: Histogram,
    pub(crate) entry_bytes: Histogram,
    pub(crate) queue: Histogram,
    pub(crate) commit: Histogram,
    pub(crate) apply: Histogram,
    pub(crate) apply_entries: Histogram,
    pub(crate) rounds_by_lease: Counter,
    pub(crate) rounds_by_quorum: Counter,
    pub(crate) round_readers: Histogram,
    pub(crate) leader_changes: Counter,
    pub(crate) compared_equal: Counter,
    pub(crate) compared_differ: Counter,
    pub(crate) compared_undecided: Counter,
    pub(crate) compared_alone: Counter,
    pub(crate) compared_bytes: Counter,
}

/// Those of this process.
pub(crate) static HANDLES: LazyLock<Handles> = LazyLock::new(|| Handles {
    requests: VERBS.map(|verb| OUTCOMES.map(|outcome| REQUESTS.counter(&[verb, outcome]))),
    seconds: VERBS.map(|verb| REQUEST_SECONDS.histogram(&[verb])),
    slow: SLOW_REQUESTS.counter(&[]),
    entry_commands: ENTRY_COMMANDS.histogram(&[]),
    entry_bytes: ENTRY_BYTES.histogram(&[]),
    queue: QUEUE_SECONDS.histogram(&[]),
    commit: COMMIT_SECONDS.histogram(&[]),
    apply: APPLY_SECONDS.histogram(&[]),
    apply_entries: APPLY_ENTRIES.histogram(&[]),
    rounds_by_lease: READ_ROUNDS.counter(&["lease"]),
    rounds_by_quorum: READ_ROUNDS.counter(&["quorum"]),
    round_readers: READ_ROUND_READERS.histogram(&[]),
    leader_changes: LEADER_CHANGES.counter(&[]),
    compared_equal: COMPARED.counter(&["equal"]),
    compared_differ: COMPARED.counter(&["differ"]),
    compared_undecided: COMPARED.counter(&["undecided"]),
    compared_alone: COMPARED.counter(&["alone"]),
    compared_bytes: COMPARED_BYTES.counter(&[]),
});

impl Handles {
    /// Counts a request that was answered.
    pub(crate) fn answered(&self, verb: usize, took: Duration, result: &Result<response::Body, Error>) {
        self.requests[verb][outcome(result)].increment(1);
        self.seconds[verb].record(took);
    }
}

/// What a scrape asks of a group beyond its status.
#[derive(Debug, Clone, Default)]
pub(crate) struct GroupNumbers {
    pub(crate) lags: Vec<(u64, u64)>,
    pub(crate) in_flight: usize,
    pub(crate) queue_commands: usize,
    pub(crate) queue_bytes: usize,
    pub(crate) snapshots_installed: u64,
    pub(crate) hot_hits: u64,
    pub(crate) hot_misses: u64,
}

/// Tells of a group.
pub(crate) fn observe_group(status: &metadb_proto::v1::GroupStatus, numbers: &GroupNumbers, samples: &mut Samples) {
    use metadb_proto::v1::Role;
    let group: &dyn std::fmt::Display = &status.group_id;
    let leads = status.role() == Role::Leader;
    samples.with(&GROUP_LEADS, &[group], leads);
    samples.with(&GROUP_LED, &[group], status.leader.is_some());
    samples.with(&GROUP_FAILED, &[group], status.role() == Role::Failed || !status.problem.is_empty());
    samples.with(&GROUP_TERM, &[group], status.term);
    samples.with(&GROUP_LAST, &[group], status.last_log_index);
    samples.with(&GROUP_COMMITTED, &[group], status.committed_index);
    samples.with(&GROUP_APPLIED, &[group], status.applied_index);
    samples.with(&GROUP_FLUSHED, &[group], status.flushed_index);
    samples.with(&GROUP_VOTERS, &[group], status.voters.len());
    samples.with(&GROUP_SHARDS, &[group], status.shards);
    for (peer, lag) in &numbers.lags {
        samples.with(&GROUP_LAG, &[group, peer], *lag);
    }
    let undecided = status.comparison.as_ref().is_some_and(|comparison| !comparison.undecided.is_empty());
    samples.with(&GROUP_UNDECIDED, &[group], undecided);
    samples.with(&GROUP_REPLAYED, &[group], status.replayed_entries);
    samples.with(&GROUP_IN_FLIGHT, &[group], numbers.in_flight);
    samples.with(&GROUP_QUEUE, &[group], numbers.queue_commands);
    samples.with(&GROUP_QUEUE_BYTES, &[group], numbers.queue_bytes);
    samples.with(&GROUP_SNAPSHOTS, &[group], numbers.snapshots_installed);
    samples.with(&HOT_HITS, &[group], numbers.hot_hits);
    samples.with(&HOT_MISSES, &[group], numbers.hot_misses);
}

/// What is known of the stream to a peer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PeerNumbers {
    pub(crate) node_id: u64,
    pub(crate) up: bool,
    pub(crate) connects: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
    pub(crate) frames: u64,
    pub(crate) messages: u64,
    pub(crate) heartbeats: u64,
    pub(crate) heartbeat_messages: u64,
}

/// Tells of the stream to a peer.
pub(crate) fn observe_peer(peer: &PeerNumbers, samples: &mut Samples) {
    let id: &dyn std::fmt::Display = &peer.node_id;
    samples.with(&PEER_UP, &[id], peer.up);
    samples.with(&PEER_CONNECTS, &[id], peer.connects);
    samples.with(&PEER_SENT, &[id], peer.sent_bytes);
    samples.with(&PEER_RECEIVED, &[id], peer.received_bytes);
    samples.with(&PEER_FRAMES, &[id], peer.frames);
    samples.with(&PEER_MESSAGES, &[id], peer.messages);
    samples.with(&PEER_HEARTBEATS, &[id], peer.heartbeats);
    samples.with(&PEER_HEARTBEAT_MESSAGES, &[id], peer.heartbeat_messages);
}

/// Tells of the node as a whole.
pub(crate) fn observe_node(uptime: Duration, roles: &[(&'static str, usize)], samples: &mut Samples) {
    samples.set(&NODE_UPTIME, uptime);
    for (role, count) in roles {
        samples.with(&GROUPS, &[role], *count);
    }
}

/// Tells of the node's disks, and of what does not read back on them.
pub(crate) fn observe_disks(disk: Option<&metadb_proto::v1::DiskStatus>, is_full: bool, quarantined: usize, samples: &mut Samples) {
    if let Some(disk) = disk {
        samples.set(&DISK_FREE, disk.free_bytes);
        samples.set(&DISK_RESERVE, disk.reserve_bytes);
    }
    samples.set(&DISK_FULL, is_full);
    samples.set(&QUARANTINED, quarantined);
}

/// Tells of the snapshots from and to the node.
pub(crate) fn observe_snapshots(totals: &SnapshotTotals, samples: &mut Samples) {
    samples.set(&SNAPSHOTS_SENT, totals.sent);
    samples.set(&SNAPSHOT_SENT_BYTES, totals.sent_bytes);
    samples.set(&SNAPSHOTS_RECEIVED, totals.received);
    samples.set(&SNAPSHOT_RECEIVED_BYTES, totals.received_bytes);
    samples.set(&SNAPSHOTS_RESUMED, totals.resumed);
    samples.set(&SNAPSHOT_REUSED_BYTES, totals.reused_bytes);
    samples.set(&SNAPSHOT_ROTTEN, totals.rotten_parts);
}

/// What a scrape asks of the scrub.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScrubNumbers {
    pub(crate) running: bool,
    pub(crate) bytes: u64,
    pub(crate) rot: u64,
    pub(crate) unread: u64,
    pub(crate) ended_ms: u64,
}

/// Tells of the scrub.
pub(crate) fn observe_scrub(numbers: &ScrubNumbers, samples: &mut Samples) {
    samples.set(&SCRUB_RUNNING, numbers.running);
    samples.set(&SCRUB_BYTES, numbers.bytes);
    samples.set(&SCRUB_ROT, numbers.rot);
    samples.set(&SCRUB_UNREAD, numbers.unread);
    samples.set(&SCRUB_ENDED, Duration::from_millis(numbers.ended_ms));
}

/// Tells of replicas whose state differed.
pub(crate) fn observe_differed(differed: u64, samples: &mut Samples) {
    samples.set(&DIFFERED, differed);
}
