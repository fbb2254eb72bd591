//! Deliberate bugs inside the server, for the harness that must catch them: each is one branch beside the code that it breaks.
//!
//! Outside the simulator [`is`] is a constant `false`: the compiler takes the branch out, there is no setter, no setting and no feature
//! that could turn one on. Inside it the harness plants one per simulation (`seam::simulated::plant`), and the matrix in
//! `docs/testing.md` tells within how many seeds it is caught. Bugs that need no branch in the server (a disk that lies, a client that
//! repeats without its id) are planted around it, in `sim-tests`.

/// A deliberate bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// A vote counts before it is on disk: after a crash the node may vote twice in a term.
    VoteIsNotSynced,
    /// An entry is acknowledged to the leader before it is on disk.
    AppendIsNotSynced,
    /// A leader answers reads without asking how old its last quorum is.
    ReadWithoutLease,
    /// The lease of reads lasts four times as long as the others keep from voting.
    LeaseWithoutMargin,
    /// A node that restarts votes at once, though a leader may count on what it promised before.
    RestartVotesAtOnce,
    /// A leader answers a write when its own log has it, and does not wait until it is applied.
    FollowerServesReads,
    /// A retry is carried out again: what is remembered of its request id is not looked at.
    RememberedIsNotChecked,
    /// A snapshot leaves the remembered requests behind.
    SnapshotWithoutRequests,
    /// A snapshot leaves out its last row of data.
    SnapshotWithoutLastRow,
    /// The log is purged up to what is applied, though it is not flushed.
    PurgeBeyondFlushed,
    /// Each replica gives versions by its own clock.
    ApplyByOwnClock,
    /// A full page of a scan loses its last row, and the next one begins behind it.
    PageDropsLastRow,
    /// A condition that fails does not stop the operations.
    ConditionIsNotChecked,
    /// The second of two operations on one key in a transaction does not see the first.
    TornTransaction,
    /// The rows read after a snapshot was installed are those cached before.
    CacheSurvivesSnapshot,
    /// A checksum of a chunk of a snapshot is computed and not compared.
    ChecksumIsNotCompared,
    /// A clock that is far ahead of all others is believed.
    ClockIsBelieved,
    /// A read is answered without waiting until the index that it must see is applied.
    ReadBeforeApplied,
}

/// Whether a bug is planted. Outside the simulator none is.
#[cfg(not(madsim))]
#[must_use]
#[inline(always)]
pub const fn is(_: Bug) -> bool {
    false
}

/// Whether a bug is planted in this simulation.
#[cfg(madsim)]
#[must_use]
pub fn is(bug: Bug) -> bool {
    crate::seam::simulated::is_planted(bug)
}

// What ships can't have one.
#[cfg(not(madsim))]
const _: () = assert!(!is(Bug::VoteIsNotSynced));
