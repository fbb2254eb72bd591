//! No acknowledged write is lost, and no refused one is there: every value whose write was acknowledged is read back after the faults,
//! every value whose write was refused is not, and nothing is there that nobody wrote.
//!
//! Source: design, failure rules ("an acknowledged write survives any minority of nodes being lost, and all nodes losing power at
//! once"); the set workload of Jepsen. For keys that are written once: then no search is needed, however many there are.

use crate::Verdict;
use crate::history::Outcome;
use std::collections::BTreeMap;

/// What was asked of a key that is written once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write<V> {
    /// The value that was to be written.
    pub value: V,
    /// What the writer was told.
    pub outcome: Outcome<()>,
}

/// Compares what was written, by key, with what is there in the end.
pub fn check<V: PartialEq + std::fmt::Debug>(writes: &BTreeMap<String, Write<V>>, present: &BTreeMap<String, V>) -> Verdict {
    let mut violations = Vec::new();
    for (key, write) in writes {
        match (&write.outcome, present.get(key)) {
            (Outcome::Ok(()), None) => violations.push(format!("{key}: acknowledged {:?}, and it is gone", write.value)),
            (Outcome::Fail, Some(value)) => violations.push(format!("{key}: refused, and {value:?} is there")),
            (Outcome::Ok(()) | Outcome::Unknown, Some(value)) if *value != write.value => {
                violations.push(format!("{key}: wrote {:?}, {value:?} is there", write.value));
            }
            (Outcome::Ok(()) | Outcome::Unknown, Some(_)) | (Outcome::Fail | Outcome::Unknown, None) => {}
        }
    }
    violations.extend(present.keys().filter(|key| !writes.contains_key(*key)).map(|key| format!("{key}: nobody wrote it")));
    Verdict::from_violations(violations)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(outcome: Outcome<()>, present: Option<u64>) -> bool {
        let writes = BTreeMap::from([("k".to_owned(), Write { value: 1, outcome })]);
        check(&writes, &present.map(|value| ("k".to_owned(), value)).into_iter().collect()).passes()
    }

    #[test]
    fn a_lost_acknowledged_write_is_caught() {
        assert!(judge(Outcome::Ok(()), Some(1)));
        assert!(!judge(Outcome::Ok(()), None));
    }

    #[test]
    fn a_refused_write_that_is_there_is_caught() {
        assert!(judge(Outcome::Fail, None));
        assert!(!judge(Outcome::Fail, Some(1)));
    }

    #[test]
    fn an_unknown_write_may_be_there_or_not_but_not_otherwise() {
        assert!(judge(Outcome::Unknown, Some(1)) && judge(Outcome::Unknown, None));
        assert!(!judge(Outcome::Unknown, Some(2)));
    }

    #[test]
    fn a_changed_or_invented_value_is_caught() {
        assert!(!judge(Outcome::Ok(()), Some(2)));
        assert!(!check(&BTreeMap::new(), &BTreeMap::from([("k".to_owned(), 1)])).passes());
    }
}
