//! A replica's part in comparing states: what it found, and whether it is still to be trusted.

use super::Replica;
use crate::raft::compare::verdict::Hash;
use crate::raft::compare::{self, Slices};
use crate::rows::comparison::{self, Comparison};
use bytes::Bytes;
use metadb_engine::{Cf, EngineError};
use metadb_proto::v1::NodeRef;
use std::collections::BTreeMap;

impl Replica {
    /// The slices of its state that were hashed.
    pub(crate) fn slices(&self) -> &Slices {
        &self.slices
    }

    /// Where the comparison is, as far as this replica has applied the log; none: nothing was ever compared.
    pub(crate) fn comparison(&self) -> Result<Option<Comparison>, EngineError> {
        let row = self.store.get(Cf::State, &comparison::key(self.group_id))?;
        row.as_deref().map(Comparison::decode).transpose()
    }

    /// What other replicas found behind an entry.
    pub(crate) async fn ask_for_hashes(&self, nodes: &[NodeRef], position: &Bytes) -> BTreeMap<u64, Hash> {
        compare::ask(&self.links, self.group_id, nodes, position).await
    }

    /// Tells another replica that it differs. Whether it took note.
    pub(crate) async fn tell_that_it_differs(&self, node: &NodeRef, position: &Bytes, right: &Hash) -> bool {
        compare::distrust(&self.links, self.group_id, node, position, right).await
    }

    /// Notes that this replica's state is not that of the others.
    pub(crate) fn distrust(&self, reason: String) {
        tracing::error!(group_id = self.group_id, reason, "this replica is not to be trusted");
        self.distrusted.lock().get_or_insert(reason);
    }

    /// Why its state is not to be trusted, if it is not.
    pub(crate) fn distrusted(&self) -> Option<String> {
        self.distrusted.lock().clone()
    }
}
