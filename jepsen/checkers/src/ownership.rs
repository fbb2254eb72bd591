//! At most one group serves a key at any step.
//!
//! A group serves what the furthest of its replicas says: the others are only behind. What a replica says of a version that another one has
//! passed is not news.

use crate::Verdict;
use std::collections::BTreeMap;

/// A tenant's range: tenant, start, and the exclusive end, empty being the end of the tenant.
pub type Range = (u64, Vec<u8>, Vec<u8>);

/// Who serves what, as the groups say it one after the other.
#[derive(Debug, Default)]
pub struct Owners {
    /// By group: the version that it was said at, and what.
    served: BTreeMap<u32, (u64, Vec<Range>)>,
    steps: u64,
    violations: Vec<String>,
}

impl Owners {
    /// A replica of a group says what the group serves. False: another group serves some of it.
    pub fn step(&mut self, group_id: u32, version: u64, ranges: Vec<Range>) -> bool {
        if self.served.get(&group_id).is_some_and(|(known, _)| *known >= version) {
            return true;
        }
        self.steps += 1;
        let others = self.served.iter().filter(|(other, _)| **other != group_id);
        let twice = others.flat_map(|(other, (_, theirs))| theirs.iter().map(move |theirs| (other, theirs)));
        let twice =
            twice.flat_map(|(other, theirs)| ranges.iter().filter(|ours| overlap(ours, theirs)).map(move |ours| (*other, ours.clone())));
        let violations: Vec<String> =
            twice.map(|(other, ours)| format!("groups {other} and {group_id} both serve {ours:?} at version {version}")).collect();
        let is_fine = violations.is_empty();
        self.violations.extend(violations);
        self.served.insert(group_id, (version, ranges));
        is_fine
    }

    /// How often something new was said.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// What was wrong.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        Verdict::from_violations(self.violations.clone())
    }
}

fn overlap(a: &Range, b: &Range) -> bool {
    let ((tenant, start, end), (other, other_start, other_end)) = (a, b);
    tenant == other && (end.is_empty() || other_start < end) && (other_end.is_empty() || start < other_end)
}

/// Whether ranges of one tenant, by start, tile it: each begins where the one before ends, the first at the beginning, the last at the end.
#[must_use]
pub fn tile(ranges: &[Range]) -> bool {
    let mut at: Option<&[u8]> = Some(&[]);
    for (_, start, end) in ranges {
        if at != Some(&start[..]) {
            return false;
        }
        at = (!end.is_empty()).then_some(&end[..]);
    }
    !ranges.is_empty() && at.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: &str, end: &str) -> Range {
        (7, start.into(), end.into())
    }

    #[test]
    fn two_groups_that_serve_a_key_are_caught_and_a_replica_that_is_behind_is_not() {
        let mut owners = Owners::default();
        assert!(owners.step(1, 1, vec![range("", "")]));
        assert!(owners.step(2, 1, vec![(8, Vec::new(), Vec::new())]));
        assert!(owners.step(1, 5, vec![range("", "m")]));
        assert!(owners.step(2, 6, vec![range("m", "")]));
        assert!(owners.step(1, 1, vec![range("", "")]), "an old word of a replica that is behind");
        assert!(owners.verdict().passes());
        assert!(!owners.step(2, 7, vec![range("l", "")]));
        assert!(!owners.verdict().passes());
        assert_eq!(owners.steps(), 5);
    }

    #[test]
    fn a_gap_or_an_overlap_is_no_tiling() {
        assert!(tile(&[range("", "")]) && tile(&[range("", "c"), range("c", "")]));
        for wrong in [&[][..], &[range("", "c")], &[range("a", "")], &[range("", "c"), range("d", "")], &[range("", ""), range("c", "")]] {
            assert!(!tile(wrong), "{wrong:?}");
        }
    }
}
