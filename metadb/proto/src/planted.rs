//! Deliberate bugs inside the server, for the harness that must catch them: each is one branch beside the code that it breaks.
//!
//! Outside the simulator [`is`] is a constant `false`: the compiler takes the branch out, there is no setter, no setting and no feature
//! that could turn one on. Inside it the harness plants one per simulation (`seam::simulated::plant`), and the matrix in
//! `docs/testing.md` tells within how many seeds it is caught. Bugs that need no branch in the server (a disk that lies, a client that
//! repeats without its id) are planted around it, in `sim-tests`.

macro_rules! bugs {
    ($($(#[doc = $text:literal])+ $bug:ident $name:literal,)+) => {
        /// A deliberate bug.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Bug {
            $($(#[doc = $text])+ $bug,)+
        }

        impl Bug {
            /// All of them.
            pub const ALL: &'static [Bug] = &[$(Bug::$bug,)+];

            /// Its name on a command line.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Bug::$bug => $name,)+
                }
            }
        }
    };
}

bugs! {
    /// A vote counts before it is on disk: after a crash the node may vote twice in a term.
    VoteIsNotSynced "vote-is-not-synced",
    /// An entry is acknowledged before it is on disk.
    AppendIsNotSynced "append-is-not-synced",
    /// A leader answers reads without asking when it last heard from a quorum.
    ReadWithoutLease "read-without-lease",
    /// A follower's answer to an append counts for one that left later and ends at the same place: the lease is renewed by an old word.
    EarlyAnswerRenewsLease "early-answer-renews-lease",
    /// A read is answered before the entries that it must see are applied.
    ReadBeforeApplied "read-before-applied",
    /// A node that restarts votes at once, though a leader may count on what it acknowledged before.
    RestartVotesAtOnce "restart-votes-at-once",
    /// A retry is carried out again: what is remembered of its request id is not looked at.
    RememberedIsNotChecked "remembered-is-not-checked",
    /// A snapshot leaves the remembered requests behind.
    SnapshotWithoutRequests "snapshot-without-requests",
    /// A snapshot leaves out one row of data.
    SnapshotWithoutRow "snapshot-without-row",
    /// The state is told to be durable, and the log purged behind it, without a flush.
    FlushIsSkipped "flush-is-skipped",
    /// Each replica gives versions by its own clock.
    ApplyByOwnClock "apply-by-own-clock",
    /// A full page of a scan loses its last row, and the next page begins behind it.
    PageDropsLastRow "page-drops-last-row",
    /// A page is read at the newest version, whatever version was asked for.
    PageOfAnotherMoment "page-of-another-moment",
    /// A condition that fails does not stop the operations.
    ConditionIsNotChecked "condition-is-not-checked",
    /// One transaction in five loses its last operation.
    TransactionIsTorn "transaction-is-torn",
    /// A read that allows some staleness is answered by any replica, however stale.
    StalenessIsNotBounded "staleness-is-not-bounded",
    /// A wall clock that is far from all others is believed.
    ClockIsBelieved "clock-is-believed",
    /// A scrub leaves out one column family.
    ScrubSkipsFamily "scrub-skips-family",
    /// Replicas whose states differ are taken for equal.
    DifferenceIsIgnored "difference-is-ignored",
    /// A replica notes which keys a commit touched only where somebody waits for the commit.
    ChangesWhereAsked "changes-where-asked",
    /// The last rows of a shard that moves stay where they were.
    MoveForgetsLastRows "move-forgets-last-rows",
    /// A shard is taken over while the group that it comes from still writes it.
    MoveWithoutFence "move-without-fence",
    /// The remembered requests stay behind when a shard moves.
    MoveForgetsRequests "move-forgets-requests",
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
