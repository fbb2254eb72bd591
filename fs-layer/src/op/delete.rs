//! Deletes a file, or a folder without entries.
//!
//! Reads the name. Holds: the name as read; of a folder, that it has no entries. Writes: entry and node are gone; event; releases the file's
//! versions, or the folder's unfinished uploads, for collection.

use super::rename::{is_empty, remove_node};
use super::{Named, event};
use crate::driver::{Context, Operation, Plan, Step, run};
use crate::error::{no_entry, not_empty};
use crate::model::{Entry, NodeKind, Precondition};
use crate::record::EventKind;
use crate::{Namespace, rules};
use metadb_proto::Error;
use shard_router::{condition, operation};

struct Delete<'a> {
    parent: u64,
    name: &'a str,
    precondition: Precondition,
}

impl Namespace {
    /// Deletes a file, or a folder that has no entries. Gives what was deleted.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such name; [`Error::Invalid`], which [`crate::error::is_not_empty`] knows, if the folder has
    /// entries; as the precondition says; and those of the database.
    pub async fn delete(&self, parent: u64, name: &str, precondition: Precondition) -> Result<Entry, Error> {
        run(self, &Delete { parent, name, precondition }).await
    }
}

impl Operation for Delete<'_> {
    const NAME: &'static str = "delete";
    type Answer = Entry;

    async fn attempt(&self, context: &Context<'_>) -> Result<Step<Entry>, Error> {
        let named = Named::new("name", context.folder(self.parent).await?, self.parent, self.name)?;
        let row = context.db.get(named.key()).await?;
        let Some((entry, version)) = named.read(row.as_ref())? else { return Err(no_entry(self.parent, self.name)) };
        rules::check(&self.precondition, named.place(), Some(&entry))?;
        if entry.kind != NodeKind::File && !is_empty(context, entry.id).await? {
            return Err(not_empty("name"));
        }
        let mut plan = Plan::new(entry.clone());
        remove_entry(&mut plan, &named, &entry, version);
        Ok(Step::Commit(plan))
    }
}

/// Removes an entry and its node.
pub(super) fn remove_entry<T>(plan: &mut Plan<T>, named: &Named<'_>, entry: &Entry, row_version: u64) {
    plan.conditions.push(condition::version_is(named.key(), row_version));
    plan.operations.push(operation::delete(named.key()));
    remove_node(plan, entry);
    plan.events.push(event(EventKind::Deleted, entry));
}
