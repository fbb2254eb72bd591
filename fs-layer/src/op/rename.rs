//! Gives a file or folder another name, in the same or another folder: one transaction, whatever lies beneath it, because entries name
//! their folder by id.
//!
//! Reads both names, the node, and for a folder that goes to another folder all folders above where it goes. Holds: both names as read;
//! the node as read; of every folder above, that it is still where it was, so that two renames at once can't make a cycle; a folder that
//! is replaced has no entries. Writes: both entries, the node, event; releases the file that was replaced.

use super::{Named, event};
use crate::driver::{Context, Operation, Plan, Step, run};
use crate::error::{no_entry, no_folder};
use crate::limits::DEPTH;
use crate::model::{Entry, FolderKind, NodeKind};
use crate::record::{EntryRecord, EventKind, NodeRecord, Record as _};
use crate::rules::{self, Renaming};
use crate::{Namespace, ROOT, keys};
use metadb_proto::{Error, v1};
use shard_router::{condition, operation};

struct Rename<'a> {
    from_parent: u64,
    from_name: &'a str,
    to_parent: u64,
    to_name: &'a str,
    replace: bool,
}

impl Namespace {
    /// Renames a file or folder. With `replace`, a file may take the name of a file, and a folder that of an empty folder of its kind.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such name or folder; [`Error::AlreadyExists`] if the new name is taken and `replace` is not given;
    /// [`Error::Invalid`] for a bad name, a folder moved beneath itself or into a flat folder, or a replacement that the rules refuse; and
    /// those of the database.
    pub async fn rename(&self, from_parent: u64, from_name: &str, to_parent: u64, to_name: &str, replace: bool) -> Result<Entry, Error> {
        run(self, &Rename { from_parent, from_name, to_parent, to_name, replace }).await
    }
}

/// What an attempt read, and the conditions that hold it.
struct Read<'a> {
    from: Named<'a>,
    to: Named<'a>,
    to_kind: FolderKind,
    source: (Entry, u64),
    target: Option<(Entry, u64)>,
    target_empty: bool,
    ancestors: Vec<u64>,
    conditions: Vec<v1::Condition>,
}

impl Operation for Rename<'_> {
    const NAME: &'static str = "rename";
    type Answer = Entry;

    async fn attempt(&self, context: &Context<'_>) -> Result<Step<Entry>, Error> {
        let Some(read) = self.read(context).await? else { return Ok(Step::Again) };
        let (source, source_version) = &read.source;
        let renaming = match self.decide(&read) {
            Ok(renaming) => renaming,
            // The folders above were read one by one: what they came to is a reason only if they all were so at once.
            Err(_) if read.ancestors.len() > 1 && !holds(context, &read.conditions).await? => return Ok(Step::Again),
            Err(refused) => return Err(refused),
        };
        if renaming == Renaming::Nothing {
            return Ok(Step::Done(source.clone()));
        }
        let Some(row) = context.db.get(keys::node(source.id)).await? else { return Ok(Step::Again) };
        let node = NodeRecord { parent: self.to_parent, name: self.to_name.to_owned(), ..NodeRecord::from_bytes(row.value)? };
        let entry = Entry { parent: self.to_parent, name: self.to_name.to_owned(), ..source.clone() };

        let mut plan = Plan::new(entry.clone());
        plan.conditions = read.conditions;
        plan.conditions.push(condition::version_is(read.from.key(), *source_version));
        plan.conditions.push(condition::version_is(keys::node(source.id), row.version));
        if renaming != Renaming::Respell {
            plan.operations.push(operation::delete(read.from.key()));
        }
        let mut told = event(EventKind::Renamed, &entry);
        (told.from_parent, told.from_name) = (source.parent, source.name.clone());
        match (renaming, &read.target) {
            (Renaming::Replace, Some((target, version))) => {
                told.replaced_id = target.id;
                plan.conditions.push(condition::version_is(read.to.key(), *version));
                remove_node(&mut plan, target);
            }
            (Renaming::Move, _) => plan.conditions.push(condition::absent(read.to.key())),
            (Renaming::Replace | Renaming::Respell | Renaming::Nothing, _) => {}
        }
        plan.operations.push(operation::put(read.to.key(), EntryRecord::of(&entry, &read.to.canonical).to_row()));
        plan.operations.push(operation::put(keys::node(source.id), node.to_bytes()));
        plan.events.push(told);
        Ok(Step::Commit(plan))
    }
}

impl<'a> Rename<'a> {
    fn decide(&self, read: &Read<'_>) -> Result<Renaming, Error> {
        rules::rename(&rules::Rename {
            source: &read.source.0,
            from: read.from.place(),
            to: read.to.place(),
            to_kind: read.to_kind,
            target: read.target.as_ref().map(|(entry, _)| entry),
            target_empty: read.target_empty,
            replace: self.replace,
            ancestors: &read.ancestors,
        })
    }

    /// None if what was read does not fit together any more.
    async fn read(&self, context: &Context<'_>) -> Result<Option<Read<'a>>, Error> {
        let from_kind = context.folder(self.from_parent).await?;
        let to_kind = context.folder_to_write(self.to_parent).await?;
        let from = Named::new("from_name", from_kind, self.from_parent, self.from_name)?;
        let to = Named::new("to_name", to_kind, self.to_parent, self.to_name)?;
        let same = from.key() == to.key();
        let mut asked = vec![from.key()];
        asked.extend((!same).then(|| to.key()));
        let rows = context.db.multi_get(asked).await?;
        let source = from.read(rows.first().and_then(Option::as_ref))?.ok_or_else(|| no_entry(self.from_parent, self.from_name))?;
        let target = to.read(rows.get(1).and_then(Option::as_ref))?;

        let target_empty = match &target {
            Some((target, _)) if target.kind != NodeKind::File && self.replace => is_empty(context, target.id).await?,
            _ => false,
        };
        let (ancestors, conditions) = if rules::needs_ancestors(&source.0, self.from_parent, self.to_parent) {
            let Some(read) = ancestors(context, self.to_parent).await? else { return Ok(None) };
            read
        } else {
            (Vec::new(), vec![condition::exists(keys::node(self.to_parent))])
        };
        Ok(Some(Read { from, to, to_kind, source, target, target_empty, ancestors, conditions }))
    }
}

/// Whether conditions hold all at once.
async fn holds(context: &Context<'_>, conditions: &[v1::Condition]) -> Result<bool, Error> {
    Ok(context.db.transact(conditions.to_vec(), Vec::new()).await?.committed)
}

/// A folder and all above it, nearest first, and conditions that they stay so; none if one went away meanwhile.
async fn ancestors(context: &Context<'_>, folder: u64) -> Result<Option<(Vec<u64>, Vec<v1::Condition>)>, Error> {
    let (mut ids, mut conditions) = (Vec::new(), Vec::new());
    let mut id = folder;
    while id != 0 {
        if ids.len() > DEPTH {
            return Err(Error::invalid("to_parent", format!("at most {DEPTH} folders deep"), "a deeper folder"));
        }
        let row = match context.db.get(keys::node(id)).await? {
            Some(row) => row,
            None if ids.is_empty() => return Err(no_folder(id)),
            None => return Ok(None),
        };
        ids.push(id);
        conditions.push(condition::version_is(keys::node(id), row.version));
        id = if id == ROOT { 0 } else { NodeRecord::from_bytes(row.value)?.parent };
    }
    Ok(Some((ids, conditions)))
}

/// Whether a folder has no entries now; to be held by a condition.
pub(super) async fn is_empty(context: &Context<'_>, folder: u64) -> Result<bool, Error> {
    let (start, end) = keys::entries(folder);
    Ok(context.db.scan(start, end, 1).await?.rows.is_empty())
}

/// Removes a node whose entry goes away: a file is released, a folder must be empty.
pub(super) fn remove_node<T>(plan: &mut Plan<T>, entry: &Entry) {
    plan.operations.push(operation::delete(keys::node(entry.id)));
    if entry.kind == NodeKind::File {
        plan.released.node_ids.push(entry.id);
    } else {
        let (start, end) = keys::entries(entry.id);
        plan.conditions.push(condition::range_empty(start, end));
        plan.released.folder_ids.push(entry.id);
    }
}
