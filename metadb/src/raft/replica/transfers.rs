//! What a replica shows of snapshots on their way from and to it, and of what it replayed.

use super::Replica;
use crate::raft::snapshot::depot::Depot;
use crate::raft::snapshot::outgoing::Traffic;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::time::Instant;

impl Replica {
    /// Wakes the transfer of a snapshot that must give way to a later one.
    pub(in crate::raft) fn later_offer(&self) -> &tokio::sync::Notify {
        &self.later_offer
    }

    pub(in crate::raft) fn depot(&self) -> &Arc<Depot> {
        &self.depot
    }

    /// The snapshots on their way from and to it.
    pub(crate) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// When a transfer of a snapshot to this replica last ended, or the replica was opened.
    pub(in crate::raft) fn received_at(&self) -> &Mutex<Instant> {
        &self.received_at
    }

    /// How many entries the log held, and the state did not, when it was opened.
    pub(crate) fn replayed_entries(&self) -> u64 {
        self.replayed_entries
    }
}
