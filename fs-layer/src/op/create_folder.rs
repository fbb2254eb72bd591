//! Makes a folder.
//!
//! Reads the name. Holds: the parent is there, the name is free. Writes: node, entry, event.

use super::{Named, event};
use crate::driver::{Context, Operation, Plan, Step, run};
use crate::error::already_exists;
use crate::model::{Content, Entry, FileInfo, FolderKind, NodeKind};
use crate::record::{EntryRecord, EventKind, NodeRecord, Record as _, kind_number};
use crate::{Namespace, keys};
use metadb_proto::Error;
use shard_router::{condition, operation};
use std::collections::BTreeMap;

struct CreateFolder<'a> {
    parent: u64,
    name: &'a str,
    kind: FolderKind,
    owner: &'a str,
}

impl Namespace {
    /// Makes a folder in a tree folder.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] if the name is taken, [`Error::NotFound`] if there is no such parent, [`Error::Invalid`] for a bad name or a
    /// parent that takes no folders; and those of the database.
    pub async fn create_folder(&self, parent: u64, name: &str, kind: FolderKind) -> Result<FileInfo, Error> {
        run(self, &CreateFolder { parent, name, kind, owner: &self.author }).await
    }
}

impl Operation for CreateFolder<'_> {
    const NAME: &'static str = "create_folder";
    type Answer = FileInfo;

    async fn attempt(&self, context: &Context<'_>) -> Result<Step<FileInfo>, Error> {
        let parent_kind = context.folder_to_write(self.parent).await?;
        if parent_kind == FolderKind::Flat {
            return Err(Error::invalid("parent", "a tree folder, to hold a folder", format!("flat folder {}", self.parent)));
        }
        let named = Named::new("name", parent_kind, self.parent, self.name)?;
        if context.db.get(named.key()).await?.is_some() {
            return Err(already_exists(self.parent, self.name));
        }
        let entry = Entry {
            parent: self.parent,
            name: self.name.to_owned(),
            id: context.next_id().await?,
            kind: self.kind.into(),
            size: 0,
            version: 0,
            etag: String::new(),
            content_type: String::new(),
            modified_at_ms: context.now_ms,
        };
        let node = NodeRecord {
            kind: kind_number(entry.kind),
            parent: self.parent,
            name: entry.name.clone(),
            owner: self.owner.to_owned(),
            created_at_ms: context.now_ms,
            modified_at_ms: context.now_ms,
            ..NodeRecord::new()
        };
        let mut plan = Plan::new(folder_info(&entry, &node));
        plan.conditions = vec![condition::absent(named.key()), condition::exists(keys::node(self.parent))];
        plan.operations = vec![
            operation::put(named.key(), EntryRecord::of(&entry, &named.canonical).to_row()),
            operation::put(keys::node(entry.id), node.to_bytes()),
        ];
        plan.events.push(event(EventKind::FolderCreated, &entry));
        Ok(Step::Commit(plan))
    }
}

/// All that is known of a folder.
pub(super) fn folder_info(entry: &Entry, node: &NodeRecord) -> FileInfo {
    debug_assert_ne!(entry.kind, NodeKind::File, "files have versions");
    FileInfo {
        id: entry.id,
        kind: entry.kind,
        parent: entry.parent,
        name: entry.name.clone(),
        owner: node.owner.clone(),
        created_at_ms: node.created_at_ms,
        modified_at_ms: node.modified_at_ms,
        version: 0,
        size: 0,
        etag: String::new(),
        content_type: String::new(),
        attributes: BTreeMap::new(),
        author: String::new(),
        content: Content::default(),
    }
}
