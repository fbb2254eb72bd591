//! What to do after a failed attempt: a pure decision.
//!
//! Rules that hold whatever happens:
//! - Once an attempt with effects may have been executed, its outcome is *open*. Only an answer closes it; until then every end is
//!   [`Error::UnknownOutcome`].
//! - An open request is repeated only if it carries a request id, which makes the repetition exactly-once.
//! - No wait goes past the deadline: what can't be tried again in time is given up now.
//! - Who is told to slow down waits at least as long as it was told, and repeats only within the process's budget.
//!
//! It does not sleep, send or remember: that is the driver's (`call.rs`).

use metadb_proto::{Error, v1};
use std::time::Duration;

/// First wait before another attempt.
const BACKOFF_FIRST: Duration = Duration::from_millis(4);
/// Longest wait before another attempt: a quarter of an election, so that a new leader is found soon after it is there.
const BACKOFF_LONGEST: Duration = Duration::from_millis(200);
/// Redirects followed at once. More in a row than that means that nodes do not agree yet: wait between them.
const REDIRECTS_AT_ONCE: u32 = 3;
/// After this many failures in a row the routes are read again from the directory.
const FAILURES_PER_REFRESH: u32 = 4;
/// How often "not found" is taken for a stale route before it is believed.
const NOT_FOUND_REFRESHES: u32 = 2;
/// How many replicas are asked when one's bytes are corrupt.
const CORRUPT_ATTEMPTS: u32 = 3;
/// What a caller is told to wait when nothing better is known.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// How an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The node answered with an error.
    Answered(Error),
    /// The request did not leave this process.
    NotSent(Error),
    /// The request may have been sent; no answer came.
    Lost(Error),
}

impl Failure {
    /// The error in it.
    #[must_use]
    pub fn error(&self) -> &Error {
        match self {
            Failure::Answered(error) | Failure::NotSent(error) | Failure::Lost(error) => error,
        }
    }
}

/// A failed attempt and what led to it.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// How it failed.
    pub failure: &'a Failure,
    /// How many attempts were made, this one included.
    pub attempts: u32,
    /// How many redirects in a row led here.
    pub redirects: u32,
    /// Until the caller's deadline.
    pub time_left: Duration,
    /// Whether the request changes something.
    pub effects: bool,
    /// Whether it may be sent again while its outcome is open.
    pub repeatable: bool,
    /// Whether an attempt before this one may have been executed.
    pub open: bool,
    /// The group that was asked, if one was named.
    pub group_id: Option<u32>,
    /// Whether the process may still repeat what was refused for overload.
    pub may_repeat: bool,
    /// Random bits for the jitter.
    pub random: u64,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Ask the same node again.
    RetryHere {
        /// After this long.
        after: Duration,
    },
    /// Ask this node, in this group.
    GoTo {
        /// After this long.
        after: Duration,
        /// Where the answer before sent us.
        redirect: v1::Redirect,
    },
    /// Ask another replica of the group.
    TryAnother {
        /// After this long.
        after: Duration,
    },
    /// What the answer said of the owner was learnt: ask whom the routes name now.
    Follow {
        /// After this long.
        after: Duration,
    },
    /// Read the routes again, then ask whom they name.
    Refresh {
        /// After this long.
        after: Duration,
    },
    /// Tell the caller.
    GiveUp {
        /// What to tell.
        error: Error,
    },
}

/// A decision, and whether the outcome is open from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What to do next.
    pub decision: Decision,
    /// Whether an attempt so far may have been executed.
    pub open: bool,
}

/// Decides.
#[must_use]
pub fn decide(attempt: &Attempt<'_>) -> Verdict {
    let may_have_happened = match attempt.failure {
        Failure::Lost(_) | Failure::Answered(Error::UnknownOutcome { .. }) => true,
        Failure::Answered(_) | Failure::NotSent(_) => false,
    };
    let open = attempt.open || (attempt.effects && may_have_happened);
    let wanted = if open && !attempt.repeatable { None } else { next(attempt) };
    let decision = match wanted {
        Some(decision) if wait_of(&decision) < attempt.time_left => decision,
        _ => Decision::GiveUp { error: surrender(attempt.failure.error(), open) },
    };
    Verdict { decision, open }
}

/// What is worth trying, if anything; the deadline is not looked at.
fn next(attempt: &Attempt<'_>) -> Option<Decision> {
    let backoff = backoff(attempt.attempts, attempt.random);
    let another = || {
        if attempt.attempts.is_multiple_of(FAILURES_PER_REFRESH) {
            Decision::Refresh { after: backoff }
        } else {
            Decision::TryAnother { after: backoff }
        }
    };
    let error = match attempt.failure {
        Failure::NotSent(_) | Failure::Lost(_) => return Some(another()),
        Failure::Answered(error) => error,
    };
    match error {
        Error::Moved { redirect, .. } => Some(follow(attempt, redirect, backoff)),
        Error::Unavailable { retry_after, .. } => {
            let after = backoff.max(jittered(*retry_after, attempt.random));
            // The leader may have changed meanwhile: every other time ask elsewhere.
            Some(if attempt.attempts.is_multiple_of(FAILURES_PER_REFRESH) {
                Decision::Refresh { after }
            } else if attempt.attempts.is_multiple_of(2) {
                Decision::TryAnother { after }
            } else {
                Decision::RetryHere { after }
            })
        }
        // Never before the time that was told; somewhat after it, so that those who were refused together do not come together.
        Error::Exhausted { retry_after, .. } if attempt.may_repeat => {
            Some(Decision::RetryHere { after: backoff.max(*retry_after + jittered(*retry_after / 2, attempt.random)) })
        }
        Error::UnknownOutcome { .. } => Some(Decision::RetryHere { after: backoff }),
        Error::NotFound { .. } if attempt.attempts <= NOT_FOUND_REFRESHES => Some(Decision::Refresh { after: backoff }),
        Error::Corrupt { .. } if attempt.attempts < CORRUPT_ATTEMPTS => Some(Decision::TryAnother { after: backoff }),
        Error::Conflict { .. }
        | Error::Exhausted { .. }
        | Error::NotFound { .. }
        | Error::Corrupt { .. }
        | Error::Invalid { .. }
        | Error::AlreadyExists { .. }
        | Error::Denied { .. }
        | Error::Unauthenticated { .. }
        | Error::Suspended { .. }
        | Error::Internal { .. } => None,
    }
}

fn follow(attempt: &Attempt<'_>, redirect: &v1::Redirect, backoff: Duration) -> Decision {
    let after = if attempt.redirects < REDIRECTS_AT_ONCE { Duration::ZERO } else { backoff };
    if redirect.leader.is_some() {
        return Decision::GoTo { after, redirect: redirect.clone() };
    }
    if redirect.keys.is_some() && attempt.group_id.is_some() {
        return Decision::Follow { after };
    }
    let same_group = attempt.group_id == Some(redirect.group_id);
    if same_group && !attempt.attempts.is_multiple_of(FAILURES_PER_REFRESH) {
        return Decision::TryAnother { after: backoff };
    }
    Decision::Refresh { after: if same_group { backoff } else { after } }
}

fn wait_of(decision: &Decision) -> Duration {
    match decision {
        Decision::RetryHere { after }
        | Decision::GoTo { after, .. }
        | Decision::Follow { after }
        | Decision::TryAnother { after }
        | Decision::Refresh { after } => *after,
        Decision::GiveUp { .. } => Duration::ZERO,
    }
}

/// What the caller is told in the end.
pub(crate) fn surrender(error: &Error, open: bool) -> Error {
    if matches!(error, Error::UnknownOutcome { .. }) && open {
        return error.clone();
    }
    if open {
        return Error::UnknownOutcome { message: error.to_string() };
    }
    // The caller can't follow a redirect, nor has a read an outcome.
    if matches!(error, Error::Moved { .. } | Error::UnknownOutcome { .. }) {
        return Error::unavailable(error.to_string(), RETRY_AFTER);
    }
    error.clone()
}

/// Doubles from [`BACKOFF_FIRST`] to [`BACKOFF_LONGEST`], then a random part of the upper half, so that those who failed together do not
/// come back together.
#[must_use]
pub fn backoff(attempts: u32, random: u64) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    jittered((BACKOFF_FIRST * (1 << doublings)).min(BACKOFF_LONGEST), random)
}

/// From half of `most` to all of it.
fn jittered(most: Duration, random: u64) -> Duration {
    let half = most / 2;
    let micros = u64::try_from(half.as_micros()).unwrap_or(u64::MAX).saturating_add(1);
    half + Duration::from_micros(random % micros)
}

#[cfg(test)]
mod tests;
