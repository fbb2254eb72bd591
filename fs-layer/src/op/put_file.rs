//! Makes a file, or a new version of one.
//!
//! Reads the name and the contents; of a file that is there, its node. Holds: the precondition, the name as read, the parent is there, the
//! contents as read. Writes: entry, node, version, contents, event. A tree folder keeps the versions of its files. A flat one does not, as
//! a bucket without versioning: the version that is replaced goes away with the transaction, and its contents are released.

use super::contents::{self, Naming};
use super::{Named, check_texts, event};
use crate::driver::{Context, Operation, Plan, Step, run};
use crate::error::already_exists;
use crate::model::{Entry, FileInfo, FolderKind, NewVersion, NodeKind, Precondition};
use crate::record::{EntryRecord, EventKind, NodeRecord, Record as _, VersionRecord, kind_number};
use crate::{Namespace, keys, rules};
use metadb_proto::Error;
use metadb_proto::v1::KeyValue;
use shard_router::{condition, operation};

struct PutFile<'a> {
    parent: u64,
    name: &'a str,
    version: NewVersion,
    precondition: Precondition,
}

impl Namespace {
    /// Makes a file, or a new version of the file of that name. Its bytes are durable already.
    ///
    /// # Errors
    /// As the precondition says ([`Error::AlreadyExists`], [`Error::NotFound`], or a conflict that
    /// [`crate::error::is_precondition_failed`] knows); [`Error::NotFound`] if there is no such parent; [`Error::AlreadyExists`] if the name is a
    /// folder's; [`Error::Invalid`] for a bad name or version; and those of the database.
    pub async fn put_file(&self, parent: u64, name: &str, version: NewVersion, precondition: Precondition) -> Result<FileInfo, Error> {
        contents::check(&version.content, version.size)?;
        check_version(&version)?;
        run(self, &PutFile { parent, name, version, precondition }).await
    }
}

/// Checks what is small in a version.
pub(super) fn check_version(version: &NewVersion) -> Result<(), Error> {
    let texts = [("etag", &version.etag), ("content_type", &version.content_type), ("author", &version.author)];
    check_texts(&version.attributes, &texts.map(|(field, text)| (field, text.as_str())))
}

impl Operation for PutFile<'_> {
    const NAME: &'static str = "put_file";
    type Answer = FileInfo;

    async fn attempt(&self, context: &Context<'_>) -> Result<Step<FileInfo>, Error> {
        let kind = context.folder_to_write(self.parent).await?;
        let target = Target { parent: self.parent, name: self.name, kind, precondition: &self.precondition };
        let named = target.named()?;
        let naming = Naming::of(&self.version.content)?.only_known(context.only_known);
        let rows = context.db.multi_get(std::iter::once(named.key()).chain(naming.keys()).collect()).await?;
        let (row, contents) = rows.split_first().ok_or_else(|| Error::internal("no row per key"))?;
        let Some(mut plan) = target.plan(context, row.as_ref(), &self.version).await? else { return Ok(Step::Again) };
        naming.plan(&mut plan, contents)?;
        Ok(Step::Commit(plan))
    }
}

/// The name that gets a version, whichever operation gives it.
pub(super) struct Target<'a> {
    pub(super) parent: u64,
    pub(super) name: &'a str,
    pub(super) kind: FolderKind,
    pub(super) precondition: &'a Precondition,
}

impl<'a> Target<'a> {
    pub(super) fn named(&self) -> Result<Named<'a>, Error> {
        Named::new("name", self.kind, self.parent, self.name)
    }

    /// The plan that gives it this version, without its contents; none if what was read does not fit together any more.
    pub(super) async fn plan(
        &self,
        context: &Context<'_>,
        row: Option<&KeyValue>,
        version: &NewVersion,
    ) -> Result<Option<Plan<FileInfo>>, Error> {
        let named = self.named()?;
        let existing = named.read(row)?;
        rules::check(self.precondition, named.place(), existing.as_ref().map(|(entry, _)| entry))?;
        match existing {
            None => self.create(context, &named, version).await.map(Some),
            Some((entry, _)) if entry.kind != NodeKind::File => Err(already_exists(self.parent, self.name)),
            Some((entry, row_version)) => self.replace(context, &named, (entry, row_version), version).await,
        }
    }

    async fn create(&self, context: &Context<'_>, named: &Named<'_>, version: &NewVersion) -> Result<Plan<FileInfo>, Error> {
        let node = NodeRecord {
            kind: kind_number(NodeKind::File),
            parent: self.parent,
            name: self.name.to_owned(),
            owner: version.author.clone(),
            created_at_ms: context.now_ms,
            ..NodeRecord::new()
        };
        let id = context.next_id().await?;
        let mut plan = write(context, named, id, node, version)?;
        plan.conditions = vec![condition::absent(named.key()), condition::exists(keys::node(self.parent))];
        Ok(plan)
    }

    async fn replace(
        &self,
        context: &Context<'_>,
        named: &Named<'_>,
        (entry, row_version): (Entry, u64),
        version: &NewVersion,
    ) -> Result<Option<Plan<FileInfo>>, Error> {
        let replaced = keys::version(entry.id, entry.version);
        let rows = context.db.multi_get(vec![keys::node(entry.id), replaced.clone()]).await?;
        let [Some(row), Some(before)] = rows.as_slice() else { return Ok(None) };
        let node = NodeRecord::from_bytes(row.value.clone())?;
        if node.head_version != entry.version {
            return Ok(None);
        }
        // The file keeps the spelling that it has.
        let kept = Named { parent: named.parent, name: &entry.name, canonical: named.canonical.clone() };
        let mut plan = write(context, &kept, entry.id, node, version)?;
        plan.conditions = vec![condition::version_is(named.key(), row_version), condition::version_is(keys::node(entry.id), row.version)];
        if self.kind == FolderKind::Flat {
            let before = VersionRecord::from_bytes(before.value.clone())?.into_version()?;
            plan.operations.push(operation::delete(replaced));
            plan.released.content_ids = before.data.content.0.iter().map(|part| part.content_id).collect();
        }
        Ok(Some(plan))
    }
}

/// Writes the rows of a node's next version.
fn write(context: &Context<'_>, named: &Named<'_>, id: u64, node: NodeRecord, version: &NewVersion) -> Result<Plan<FileInfo>, Error> {
    let number = node.head_version.checked_add(1).ok_or_else(|| Error::internal("a file has 2^64 versions"))?;
    let node = NodeRecord { head_version: number, size: version.size, modified_at_ms: context.now_ms, ..node };
    let entry = Entry {
        parent: named.parent,
        name: named.name.to_owned(),
        id,
        kind: NodeKind::File,
        size: version.size,
        version: number,
        etag: version.etag.clone(),
        content_type: version.content_type.clone(),
        modified_at_ms: context.now_ms,
    };
    let mut plan = Plan::new(file_info(&entry, &node, version));
    plan.operations = vec![
        operation::put(named.key(), EntryRecord::of(&entry, &named.canonical).to_row()),
        operation::put(keys::node(id), node.to_bytes()),
        operation::put(keys::version(id, number), VersionRecord::of(version, number, context.now_ms).to_bytes()),
    ];
    plan.events.push(event(if number == 1 { EventKind::FileCreated } else { EventKind::FileReplaced }, &entry));
    Ok(plan)
}

/// All that is known of a file.
pub(super) fn file_info(entry: &Entry, node: &NodeRecord, version: &NewVersion) -> FileInfo {
    FileInfo {
        id: entry.id,
        kind: NodeKind::File,
        parent: entry.parent,
        name: entry.name.clone(),
        owner: node.owner.clone(),
        created_at_ms: node.created_at_ms,
        modified_at_ms: entry.modified_at_ms,
        version: entry.version,
        size: version.size,
        etag: version.etag.clone(),
        content_type: version.content_type.clone(),
        attributes: version.attributes.clone(),
        author: version.author.clone(),
        content: version.content.clone(),
    }
}
