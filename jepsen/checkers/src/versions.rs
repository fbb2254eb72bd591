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
    /// True Unix time when it was answered, in milliseconds.
    pub unix_ms: u64,
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

/// No version is farther ahead of true time than clocks may be: else one node's clock has dragged the whole group into the future.
///
/// Source: Kulkarni et al., "Logical Physical Clocks", 2014, the bound on the distance of a hybrid clock from physical time.
#[must_use]
pub fn near_true_time(commits: &[Commit], most_ms: u64) -> Verdict {
    let ahead = |commit: &Commit| (commit.version >> 16).saturating_sub(commit.unix_ms);
    let far = commits.iter().filter(|commit| ahead(commit) > most_ms);
    Verdict::from_violations(far.map(|commit| format!("version {} is {} ms ahead of true time", commit.version, ahead(commit))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(invoked: u64, completed: u64, version: u64) -> Commit {
        Commit { invoked, completed, version, unix_ms: 1_000 }
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
    fn a_version_from_the_future_is_caught() {
        assert!(near_true_time(&[commit(1, 2, 900 << 16), commit(3, 4, 1_500 << 16)], 500).passes());
        assert!(!near_true_time(&[commit(1, 2, 1_501 << 16)], 500).passes());
    }

    #[test]
    fn one_version_for_two_commits_is_caught() {
        assert!(!check(&[commit(1, 4, 10), commit(2, 3, 10)]).passes());
    }
}
