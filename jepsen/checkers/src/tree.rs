//! A tree of files under create, rename and delete: each acknowledged file is reachable under exactly one name, that of the last thing
//! done to it; a deleted one under none; no folder is its own ancestor, none hangs in the air.
//!
//! Source: POSIX rename ("shall be atomic"); the directory-cycle and lost-file anomalies of renames in distributed file systems (as
//! checked by CrashMonkey, OSDI 2018, and by the model checkers of Ceph and 3FS).
//!
//! The history tells for each file (by a mark that it carries in its record and never loses) which names it was given. Operations on
//! one file need not be one after the other: the final name must be one given by an operation after which no acknowledged operation on
//! the same file was asked. One of unknown outcome may take effect at any time, or never.

use crate::Verdict;
use crate::history::{History, Operation, Outcome};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The id of the root folder.
pub const ROOT: u64 = 1;

/// A name in a folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The folder's id.
    pub folder: u64,
    /// The name.
    pub name: String,
}

/// What was asked of a file or folder; the operation's key is its mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Call {
    /// Made under a name.
    Create(Place),
    /// Given another name; the old one must go.
    Rename {
        /// The name that it had.
        from: Place,
        /// The name that it gets.
        to: Place,
    },
    /// Deleted under a name.
    Delete(Place),
}

/// One entry of the tree as it is in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where.
    pub place: Place,
    /// The file's or folder's id.
    pub id: u64,
    /// Its mark.
    pub mark: String,
    /// Whether it is a folder.
    pub folder: bool,
}

/// Judges the entries of every folder that was ever made, reachable or not, against what was asked.
#[must_use]
pub fn check(history: &History<Call, ()>, entries: &[Entry]) -> Verdict {
    let mut violations = shape(entries);
    let mut found: BTreeMap<&str, Vec<&Place>> = BTreeMap::new();
    for entry in entries {
        found.entry(&entry.mark).or_default().push(&entry.place);
    }
    let by_mark = history.by_key();
    for (mark, operations) in &by_mark {
        let places = found.get(mark).map(Vec::as_slice).unwrap_or_default();
        violations.extend(fate(mark, operations, places));
    }
    violations.extend(found.keys().filter(|mark| !by_mark.contains_key(*mark)).map(|mark| format!("{mark}: nobody made it")));
    Verdict::from_violations(violations)
}

/// One id, one name; every way up ends at the root.
fn shape(entries: &[Entry]) -> Vec<String> {
    let mut violations = Vec::new();
    let mut places: BTreeMap<u64, &Place> = BTreeMap::new();
    let mut names = BTreeSet::new();
    for entry in entries {
        if !names.insert(&entry.place) {
            violations.push(format!("two entries at {:?}", entry.place));
        }
        if let Some(other) = places.insert(entry.id, &entry.place) {
            violations.push(format!("id {} is at {:?} and at {other:?}", entry.id, entry.place));
        }
    }
    let folders: BTreeSet<u64> = entries.iter().filter(|e| e.folder).map(|e| e.id).collect();
    for entry in entries {
        let mut above = entry.place.folder;
        let mut passed = BTreeSet::from([entry.id]);
        while above != ROOT {
            let Some(place) = places.get(&above).filter(|_| folders.contains(&above)) else {
                violations.push(format!("{:?} is an orphan: no entry leads to folder {above}", entry.place));
                break;
            };
            if !passed.insert(above) {
                violations.push(format!("{:?} is below a cycle through folder {above}", entry.place));
                break;
            }
            above = place.folder;
        }
    }
    violations
}

/// Where one file may be: nowhere is `None`.
fn fate(mark: &str, operations: &[&Operation<Call, ()>], places: &[&Place]) -> Option<String> {
    let acknowledged = |o: &&&Operation<Call, ()>| matches!(o.outcome, Outcome::Ok(()));
    let certain: Vec<_> = operations.iter().filter(acknowledged).collect();
    let mut possible: BTreeSet<Option<&Place>> = BTreeSet::new();
    if certain.is_empty() {
        possible.insert(None);
    }
    for operation in operations.iter().filter(|o| !matches!(o.outcome, Outcome::Fail)) {
        if certain.iter().any(|later| operation.precedes(later)) {
            continue;
        }
        possible.insert(match &operation.call {
            Call::Create(place) | Call::Rename { to: place, .. } => Some(place),
            Call::Delete(_) => None,
        });
    }
    match places {
        [] if possible.contains(&None) => None,
        [] => Some(format!("{mark}: acknowledged, and it is nowhere; it should be at one of {possible:?}")),
        [place] if possible.contains(&Some(*place)) => None,
        [place] => Some(format!("{mark}: is at {place:?}, and may only be at {possible:?}")),
        several => Some(format!("{mark}: has {} names: {several:?}", several.len())),
    }
}

#[cfg(test)]
mod tests;
