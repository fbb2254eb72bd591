//! All checkers over all that was recorded.

use crate::workload::Shared;
use checkers::linearizable::{self, Budget};
use checkers::register::Register;
use checkers::{Verdict, acknowledged, leaders, replicas, tree, versions};
use std::collections::BTreeMap;

use crate::watcher::Seen;

/// Bounds of one key's search: a key has about a hundred operations.
const BUDGET: Budget = Budget { steps: 3_000_000, cache_bytes: 256 << 20 };

/// What was read after healing.
#[derive(Debug, Default)]
pub struct Final {
    /// Keys that are written once, by tenant and key.
    pub once: BTreeMap<String, u64>,
    /// Every entry of every folder.
    pub entries: Vec<tree::Entry>,
    /// States of all replicas.
    pub samples: Vec<replicas::Sample>,
}

/// Every violation, with the checker that found it.
#[must_use]
pub fn violations(shared: &Shared, seen: &Seen, last: &Final, size: usize) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut judge = |checker: &str, verdict: Verdict| {
        if let Some(reason) = verdict.reason() {
            found.push(format!("{checker}: {reason}"));
        }
    };
    judge("registers", linearizable::check::<Register>(&shared.registers.lock(), BUDGET));
    judge("acknowledged", acknowledged::check(&shared.once.lock(), &last.once));
    for (tenant_id, commits) in shared.commits.lock().iter() {
        judge(&format!("versions of tenant {tenant_id}"), versions::check(commits));
    }
    judge("tree", tree::check(&shared.files.lock(), &last.entries));
    judge("leaders", leaders::check(&seen.claims));
    let mut samples = seen.samples.clone();
    samples.extend_from_slice(&last.samples);
    judge("replicas", replicas::same_index_same_state(&samples));
    judge("replicas in the end", replicas::identical(&last.samples, size));
    found.extend(seen.problems.iter().map(|problem| format!("replica: {problem}")));
    found.extend(shared.unexpected.lock().iter().map(|error| format!("unexpected: {error}")));
    found
}
