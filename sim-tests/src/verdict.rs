//! All checkers over all that was recorded.

use crate::cluster::Cluster;
use crate::nemesis::DRIFT_MAX;
use crate::workload::Shared;
use crate::workload::bank::{ACCOUNTS, MONEY};
use checkers::linearizable::{self, Budget};
use checkers::register::{self, Register};
use checkers::{Verdict, acknowledged, bank, leaders, lists, replicas, tree, versions};
use metadb_proto::v1::shard_change_record::Kind;
use metadb_proto::v1::shard_history_record::Outcome;
use std::collections::BTreeMap;

use crate::watcher::Seen;

/// Bounds of one key's search: a key has about a hundred operations.
const BUDGET: Budget = Budget { steps: 3_000_000, cache_bytes: 256 << 20 };

/// What was read after healing.
#[derive(Debug, Default)]
pub struct Final {
    /// Keys that are written once, by tenant and key.
    pub once: BTreeMap<String, u64>,
    /// Every list.
    pub lists: BTreeMap<String, Vec<u64>>,
    /// Every entry of every folder.
    pub entries: Vec<tree::Entry>,
    /// Changes of shards, by kind and outcome.
    pub changes: BTreeMap<(Kind, Outcome), u64>,
    /// States of all replicas.
    pub samples: Vec<replicas::Sample>,
}

/// Every violation, with the checker that found it. In a wild seed plain reads are excused, and versions need not be near true time.
#[must_use]
pub fn violations(shared: &Shared, seen: &Seen, last: &Final, cluster: &Cluster) -> Vec<String> {
    let (size, wild) = (cluster.size(), cluster.is_wild());
    let drift_ms = u64::try_from(DRIFT_MAX.as_millis()).unwrap_or(u64::MAX);
    let mut found: Vec<String> = Vec::new();
    let mut judge = |checker: &str, verdict: Verdict| {
        if let Some(reason) = verdict.reason() {
            found.push(format!("{checker}: {reason}"));
        }
    };
    let registers = shared.registers.lock().clone();
    let registers = if wild {
        let (registers, reads) = register::excuse_reads(registers);
        judge("excused reads", reads);
        registers
    } else {
        registers
    };
    judge("registers", linearizable::check::<Register>(&registers, BUDGET));
    judge("acknowledged", acknowledged::check(&shared.once.lock(), &last.once));
    for (tenant_id, commits) in shared.commits.lock().iter() {
        judge(&format!("versions of tenant {tenant_id}"), versions::check(commits));
        if !wild {
            judge(&format!("clock of tenant {tenant_id}"), versions::near_true_time(commits, drift_ms));
        }
    }
    judge("bank", bank::check(&shared.statements.lock(), ACCOUNTS, MONEY));
    judge("lists", lists::check(&shared.lists.lock(), &last.lists));
    judge("tree", tree::check(&shared.files.lock(), &last.entries));
    judge("leaders", leaders::check(&seen.claims));
    judge("raft", seen.judge.verdict());
    judge("ownership", seen.owners.verdict());
    let mut samples = seen.samples.clone();
    samples.extend_from_slice(&last.samples);
    judge("replicas", replicas::same_index_same_state(&samples));
    judge("replicas in the end", replicas::identical(&last.samples, size));
    found.extend(seen.problems.iter().map(|problem| format!("replica: {problem}")));
    found.extend(shared.unexpected.lock().iter().map(|error| format!("unexpected: {error}")));
    found
}
