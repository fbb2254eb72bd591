//! What follows from the hashes that replicas found: a pure function.

use metadb_proto::planted::{self, Bug};
use std::collections::{BTreeMap, BTreeSet};

/// BLAKE3 of a slice.
pub(crate) type Hash = [u8; 32];

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All that answered have the same. `whole`: every voter did.
    Equal { whole: bool },
    /// More than half of all voters have this one, and these replicas another.
    Differ { right: Hash, wrong: Vec<u64> },
    /// They differ, and nothing says which is right.
    Undecided(String),
    /// There was nothing to compare with.
    Alone,
}

/// `voters`: all of them. `found`: by replica, learners among them; those that did not answer are missing.
pub(crate) fn verdict(voters: &BTreeSet<u64>, found: &BTreeMap<u64, Hash>) -> Verdict {
    let whole = voters.iter().all(|voter| found.contains_key(voter));
    let mut by_hash: BTreeMap<&Hash, Vec<u64>> = BTreeMap::new();
    found.iter().for_each(|(node, hash)| by_hash.entry(hash).or_default().push(*node));
    if by_hash.len() > 1 && planted::is(Bug::DifferenceIsIgnored) {
        return Verdict::Equal { whole };
    }
    match by_hash.len() {
        _ if found.len() < 2 => Verdict::Alone,
        1 => Verdict::Equal { whole },
        _ => {
            let votes = |nodes: &[u64]| nodes.iter().filter(|node| voters.contains(node)).count();
            let right = by_hash.iter().find(|(_, nodes)| votes(nodes) * 2 > voters.len()).map(|(hash, _)| **hash);
            match right {
                Some(right) => {
                    let wrong = found.iter().filter(|(_, hash)| **hash != right).map(|(node, _)| *node).collect();
                    Verdict::Differ { right, wrong }
                }
                None => {
                    let of = |nodes: &Vec<u64>| nodes.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
                    let states: Vec<String> = by_hash.values().map(of).collect();
                    Verdict::Undecided(format!(
                        "nodes {} have different states, and none of them is that of a majority",
                        states.join(" / ")
                    ))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(voters: &[u64], found: &[(u64, u8)]) -> Verdict {
        verdict(&voters.iter().copied().collect(), &found.iter().map(|(node, hash)| (*node, [*hash; 32])).collect())
    }

    fn differ(right: u8, wrong: &[u64]) -> Verdict {
        Verdict::Differ { right: [right; 32], wrong: wrong.to_vec() }
    }

    #[test]
    fn what_most_voters_have_is_right_whoever_leads() {
        assert_eq!(of(&[1, 2, 3], &[(1, 7), (2, 7), (3, 7)]), Verdict::Equal { whole: true });
        assert_eq!(of(&[1, 2, 3], &[(1, 7), (2, 7), (3, 8)]), differ(7, &[3]));
        assert_eq!(of(&[1, 2, 3], &[(1, 9), (2, 7), (3, 7)]), differ(7, &[1]));
        assert_eq!(of(&[1, 2, 3, 4, 5], &[(1, 7), (2, 7), (3, 7), (4, 8), (5, 9)]), differ(7, &[4, 5]));
    }

    #[test]
    fn without_a_majority_nothing_is_right() {
        for undecided in [
            of(&[1, 2], &[(1, 7), (2, 8)]),
            of(&[1, 2, 3], &[(1, 7), (3, 8)]),
            of(&[1, 2, 3], &[(1, 7), (2, 8), (3, 9)]),
            of(&[1, 2, 3, 4], &[(1, 7), (2, 7), (3, 8), (4, 8)]),
            of(&[1, 2, 3, 4, 5], &[(1, 7), (2, 7), (3, 8)]),
        ] {
            assert!(matches!(undecided, Verdict::Undecided(_)), "{undecided:?}");
        }
        let Verdict::Undecided(told) = of(&[1, 2, 3, 4], &[(1, 7), (2, 8), (3, 8), (4, 7)]) else { panic!("half is no majority") };
        assert!(told.contains("1, 4 / 2, 3"), "{told}");
    }

    #[test]
    fn learners_do_not_vote_and_are_judged_all_the_same() {
        assert_eq!(of(&[1, 2, 3], &[(1, 7), (2, 7), (3, 7), (4, 8)]), differ(7, &[4]));
        assert!(matches!(of(&[1, 2], &[(1, 7), (3, 8), (4, 8)]), Verdict::Undecided(_)), "learners are no majority");
        assert_eq!(of(&[1], &[(1, 7), (4, 8)]), differ(7, &[4]));
    }

    #[test]
    fn who_is_silent_is_neither_right_nor_wrong() {
        assert_eq!(of(&[1, 2, 3], &[(1, 7), (2, 7)]), Verdict::Equal { whole: false });
        assert_eq!(of(&[1, 2, 3], &[(1, 7)]), Verdict::Alone);
        assert_eq!(of(&[1], &[(1, 7)]), Verdict::Alone);
        assert_eq!(of(&[1, 2, 3, 4, 5], &[(1, 7), (2, 7), (3, 7), (4, 8)]), differ(7, &[4]));
    }
}
