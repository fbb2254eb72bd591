//! Versions rise in real time: a commit that was answered before another was asked has the lower version; so within a shard the order
//! of versions is the order of real time, whatever keys were touched.
//!
//! Source: design, words ("version … rises strictly within a group"); strict serializability, Papadimitriou 1979, checked on the
//! order that the system itself states, hence without a search.

use crate::Verdict;

/// One acknowledged commit of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// Place of its invocation in the history.
    pub invoked: u64,
    /// Place of its answer.
    pub completed: u64,
    /// The version that it was given.
    pub version: u64,
}

/// Judges the commits of one shard.
#[must_use]
pub fn check(commits: &[Commit]) -> Verdict {
    let mut by_version: Vec<&Commit> = commits.iter().collect();
    by_version.sort_by_key(|c| c.version);
    let mut violations = Vec::new();
    for pair in by_version.windows(2) {
        if pair[0].version == pair[1].version {
            violations.push(format!("two commits have version {}", pair[0].version));
        }
    }
    // No commit may have been answered before one of a lower version was asked.
    let mut latest_invoked: Option<&Commit> = None;
    for commit in by_version {
        if let Some(lower) = latest_invoked.filter(|lower| commit.completed < lower.invoked) {
            violations.push(format!("version {} was answered before version {} was asked", commit.version, lower.version));
        }
        if latest_invoked.is_none_or(|lower| commit.invoked > lower.invoked) {
            latest_invoked = Some(commit);
        }
    }
    Verdict::from_violations(violations)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(invoked: u64, completed: u64, version: u64) -> Commit {
        Commit { invoked, completed, version }
    }

    #[test]
    fn versions_that_follow_real_time_pass() {
        assert!(check(&[commit(1, 4, 20), commit(2, 3, 10), commit(5, 6, 30)]).passes());
    }

    #[test]
    fn a_version_that_goes_back_is_caught() {
        assert!(!check(&[commit(1, 2, 20), commit(3, 4, 10)]).passes());
        assert!(!check(&[commit(1, 2, 30), commit(3, 10, 20), commit(4, 9, 25)]).passes());
    }

    #[test]
    fn one_version_for_two_commits_is_caught() {
        assert!(!check(&[commit(1, 4, 10), commit(2, 3, 10)]).passes());
    }
}
