//! What a node may be given and may keep, by what the directory says of it.
//!
//! An active node may get anything. One that leaves or is drained gets nothing new and leads nothing; it keeps what it holds only if it is
//! drained of leaders alone.

use metadb_proto::v1::{NodeRecord, node_record::State};

/// Whether it may lead, and get what it does not hold.
pub(crate) fn takes(node: &NodeRecord) -> bool {
    node.state() == State::Active
}

/// Whether it may go on to hold what it holds.
pub(crate) fn keeps(node: &NodeRecord) -> bool {
    takes(node) || node.state() == State::Draining && node.keeps_replicas
}
