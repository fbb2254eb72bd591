//! Election safety: at most one leader in a term of a group.
//!
//! Source: Ongaro and Ousterhout, "In search of an understandable consensus algorithm", 2014, figure 3.

use crate::Verdict;
use std::collections::BTreeMap;

/// Somebody said to lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Which group.
    pub group_id: u32,
    /// In which term.
    pub term: u64,
    /// Which node.
    pub node_id: u64,
}

/// Compares all claims with each other, from whatever time they are.
#[must_use]
pub fn check(claims: &[Claim]) -> Verdict {
    let mut leaders: BTreeMap<(u32, u64), u64> = BTreeMap::new();
    let mut violations = Vec::new();
    for claim in claims {
        let first = *leaders.entry((claim.group_id, claim.term)).or_insert(claim.node_id);
        if first != claim.node_id {
            violations.push(format!("group {}, term {}: nodes {first} and {} both lead", claim.group_id, claim.term, claim.node_id));
        }
    }
    Verdict::from_violations(violations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_leaders_of_one_term_are_caught() {
        let claim = |group_id, term, node_id| Claim { group_id, term, node_id };
        assert!(check(&[claim(1, 1, 1), claim(1, 2, 2), claim(2, 1, 3), claim(1, 1, 1)]).passes());
        assert!(!check(&[claim(1, 1, 1), claim(1, 2, 2), claim(1, 1, 3)]).passes());
    }
}
