//! What a replica shows of snapshots on their way from and to it, and of what it replayed.

use super::{Observed, Replica};
use crate::node::room::Room;
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

    /// Up to where the log may be purged, for all that snapshots need of it. A full disk needs the room more.
    pub(super) fn hold_log(&self, upto: u64, seen: &Observed) -> u64 {
        if self.room.room() != Room::Plenty {
            return upto;
        }
        self.traffic.hold_log(upto, seen.followers(), self.depot.limits.stall)
    }

    /// How many entries were known to be committed, and not in the state, when it was opened.
    pub(crate) fn replayed_entries(&self) -> u64 {
        self.replayed_entries
    }
}
