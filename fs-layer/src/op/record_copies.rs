//! Records which nodes hold a copy of a content: the third copy, a repair.
//!
//! Reads the content. Holds: it is as read. Writes: the content.

use crate::driver::{Context, Operation, Plan, Step, run};
use crate::limits::COPIES;
use crate::model::ContentInfo;
use crate::record::{ContentRecord, Record as _};
use crate::{Namespace, keys};
use metadb_proto::Error;
use shard_router::{condition, operation};
use std::collections::BTreeSet;

struct RecordCopies<'a> {
    id: &'a [u8; 16],
    gained: &'a [u64],
    lost: &'a [u64],
}

impl Namespace {
    /// Records that these nodes hold a copy of a content, beside those that are known to. Gives what is known then.
    ///
    /// # Errors
    /// [`Error::NotFound`] if nothing names the content (yet); [`Error::Invalid`] for too many copies; and those of the database.
    pub async fn record_copies(&self, id: &[u8; 16], nodes: &[u64]) -> Result<ContentInfo, Error> {
        run(self, &RecordCopies { id, gained: nodes, lost: &[] }).await
    }

    /// Records that these nodes hold no copy of a content any more. The last copy known is never forgotten.
    ///
    /// # Errors
    /// As [`Namespace::record_copies`].
    pub async fn forget_copies(&self, id: &[u8; 16], nodes: &[u64]) -> Result<ContentInfo, Error> {
        run(self, &RecordCopies { id, gained: &[], lost: nodes }).await
    }
}

impl Operation for RecordCopies<'_> {
    const NAME: &'static str = "record_copies";
    type Answer = ContentInfo;

    async fn attempt(&self, context: &Context<'_>) -> Result<Step<ContentInfo>, Error> {
        let key = keys::content(self.id);
        let row = context.db.get(key.clone()).await?.ok_or_else(|| Error::not_found(format!("content {}", hex::encode(self.id))))?;
        let mut info = ContentRecord::from_bytes(row.value)?.into_info()?;
        let mut nodes: BTreeSet<u64> = info.part.nodes.iter().chain(self.gained).copied().collect();
        for node in self.lost {
            if nodes.len() > 1 {
                nodes.remove(node);
            }
        }
        if nodes.len() > COPIES {
            return Err(Error::invalid("nodes", format!("at most {COPIES} nodes"), format!("{} nodes", nodes.len())));
        }
        let nodes: Vec<u64> = nodes.into_iter().collect();
        if nodes == info.part.nodes {
            return Ok(Step::Done(info));
        }
        info.part.nodes = nodes;
        let record = ContentRecord::of(&info.part, info.names);
        let mut plan = Plan::new(info);
        plan.conditions.push(condition::version_is(key.clone(), row.version));
        plan.operations.push(operation::put(key, record.to_bytes()));
        Ok(Step::Commit(plan))
    }
}
