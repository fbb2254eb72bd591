//! Works off what was released, in steps of bounded size that may stop anywhere: files come to versions, versions and uploads to contents,
//! contents lose a name each. A content without a name is listed in [`Namespace::unnamed`] until its copies are gone.
//!
//! A step reads a `released` row and some of what it tells. Holds: all as read. Writes: what was worked off is gone, the row tells the rest.

use super::complete_upload::remove_upload;
use super::list_parts::all_parts;
use crate::driver::{Context, Operation, Plan, Step, run};
use crate::limits::LIST_DEFAULT;
use crate::model::{ContentInfo, Released};
use crate::record::{ContentRecord, Record as _, ReleasedRecord, VersionRecord};
use crate::{Namespace, keys};
use keys::KeyKind;
use metadb_proto::{Error, Version};
use shard_router::{condition, operation};
use std::collections::BTreeMap;

/// Contents that lose a name in one step.
const CONTENTS_A_STEP: usize = 1000;
/// Versions that are turned into their contents in one step: each may have ten thousand.
const VERSIONS_A_STEP: usize = 1;

struct Collect<'a> {
    ticket: &'a [u8],
}

impl Released {
    /// When it was released, Unix milliseconds: its ticket holds the version of the transaction that did it.
    #[must_use]
    pub fn released_at_ms(&self) -> u64 {
        let version = self.ticket.strip_prefix(keys::versionstamped(KeyKind::Released).0.as_slice()).and_then(<[u8]>::first_chunk);
        version.map_or(0, |version| Version(u64::from_be_bytes(*version)).unix_ms())
    }
}

impl Namespace {
    /// The oldest `limit` (0: the default) of what was released and not yet worked off.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn released(&self, limit: usize) -> Result<Vec<Released>, Error> {
        let (start, end) = keys::all(KeyKind::Released);
        let page = self.reading().db.scan(start, end, if limit == 0 { LIST_DEFAULT } else { limit }).await?;
        page.rows.into_iter().map(|row| ReleasedRecord::from_bytes(row.value)?.into_released(row.key.to_vec())).collect()
    }

    /// Does one step of working off what was released. True: there is more to do of this ticket.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn collect(&self, ticket: &[u8]) -> Result<bool, Error> {
        if !ticket.starts_with(&keys::versionstamped(KeyKind::Released).0) {
            return Err(Error::invalid("ticket", "as `released` gave it", hex::encode(ticket.get(..32).unwrap_or(ticket))));
        }
        run(self, &Collect { ticket }).await
    }

    /// At most `limit` (0: the default) contents that nothing names any more. Their copies may go, then `forget_content`.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn unnamed(&self, limit: usize) -> Result<Vec<ContentInfo>, Error> {
        self.unnamed_after(None, limit).await.map(|(contents, _)| contents)
    }

    /// As [`Namespace::unnamed`], behind this content; and the content to go on behind, if there are more.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn unnamed_after(&self, after: Option<[u8; 16]>, limit: usize) -> Result<(Vec<ContentInfo>, Option<[u8; 16]>), Error> {
        let context = self.reading();
        let (mut start, end) = keys::all(KeyKind::Unnamed);
        if let Some(after) = after {
            start = keys::after(&keys::unnamed(&after));
        }
        let page = context.db.scan(start, end, if limit == 0 { LIST_DEFAULT } else { limit }).await?;
        let ids: Vec<[u8; 16]> = page.rows.iter().map(|row| keys::unnamed_of(&row.key)).collect::<Result<_, _>>()?;
        let last = ids.last().copied().filter(|_| page.more);
        let rows = context.db.multi_get(ids.iter().map(keys::content).collect()).await?;
        let contents = rows.into_iter().flatten().map(|row| ContentRecord::from_bytes(row.value)?.into_info());
        Ok((contents.collect::<Result<_, _>>()?, last))
    }

    /// Forgets a content that nothing names any more, its copies being gone. Asked again, it answers the same.
    ///
    /// # Errors
    /// [`Error::Invalid`] if something names it; and those of the database.
    pub async fn forget_content(&self, id: &[u8; 16]) -> Result<(), Error> {
        self.forget_content_on(id, None).await.map(|_| ())
    }

    /// As [`Namespace::forget_content`], unless it is known to have a copy on other nodes than these, where it is gone. Tells whether this
    /// call forgot it.
    ///
    /// # Errors
    /// As [`Namespace::forget_content`].
    pub async fn forget_content_gone_from(&self, id: &[u8; 16], nodes: &[u64]) -> Result<bool, Error> {
        self.forget_content_on(id, Some(nodes)).await
    }

    async fn forget_content_on(&self, id: &[u8; 16], nodes: Option<&[u64]>) -> Result<bool, Error> {
        let db = self.reading().db;
        let Some(row) = db.get(keys::content(id)).await? else { return Ok(false) };
        let info = ContentRecord::from_bytes(row.value)?.into_info()?;
        if info.names != 0 {
            return Err(Error::invalid("content", "without a name", format!("{} with {} names", hex::encode(id), info.names)));
        }
        if nodes.is_some_and(|nodes| info.part.nodes.iter().any(|node| !nodes.contains(node))) {
            return Ok(false);
        }
        // Without names it can't be named again. Another forgetter may be first, or a copy that was owed came to be: then it is listed again.
        let gone = vec![operation::delete(keys::content(id)), operation::delete(keys::unnamed(id))];
        db.transact(vec![condition::version_is(keys::content(id), row.version)], gone).await.map(|done| done.committed)
    }
}

impl Operation for Collect<'_> {
    const NAME: &'static str = "collect";
    type Answer = bool;

    async fn attempt(&self, context: &Context<'_>) -> Result<Step<bool>, Error> {
        let Some(row) = context.db.get(self.ticket.to_vec()).await? else { return Ok(Step::Done(false)) };
        let mut left = ReleasedRecord::from_bytes(row.value)?.into_released(self.ticket.to_vec())?;
        let mut plan = Plan::new(true);
        plan.conditions.push(condition::version_is(self.ticket.to_vec(), row.version));
        if !left.content_ids.is_empty() {
            contents(context, &mut plan, &mut left).await?;
        } else if let Some(node) = left.node_ids.last().copied() {
            versions(context, &mut plan, &mut left, node).await?;
        } else if let Some(folder) = left.folder_ids.last().copied() {
            uploads(context, &mut plan, &mut left, folder).await?;
        }
        match ReleasedRecord::of(&left) {
            Some(record) => plan.operations.push(operation::put(self.ticket.to_vec(), record.to_bytes())),
            None => {
                plan.answer = false;
                plan.operations.push(operation::delete(self.ticket.to_vec()));
            }
        }
        Ok(Step::Commit(plan))
    }
}

/// Some contents lose a name each.
async fn contents(context: &Context<'_>, plan: &mut Plan<bool>, left: &mut Released) -> Result<(), Error> {
    let taken = left.content_ids.split_off(left.content_ids.len().saturating_sub(CONTENTS_A_STEP));
    let mut lost: BTreeMap<[u8; 16], u64> = BTreeMap::new();
    for id in taken {
        *lost.entry(id).or_default() += 1;
    }
    let rows = context.db.multi_get(lost.keys().map(keys::content).collect()).await?;
    for ((id, names), row) in lost.into_iter().zip(rows) {
        // Gone already: nothing to take a name from. It would be a bug, but no reason to keep everything behind it.
        let Some(row) = row else {
            tracing::error!(content = hex::encode(id), "a released content has no row");
            continue;
        };
        let record = ContentRecord::from_bytes(row.value)?;
        let record = ContentRecord { names: record.names.saturating_sub(names), ..record };
        plan.conditions.push(condition::version_is(keys::content(&id), row.version));
        if record.names == 0 {
            plan.operations.push(operation::put(keys::unnamed(&id), bytes::Bytes::new()));
        }
        plan.operations.push(operation::put(keys::content(&id), record.to_bytes()));
    }
    Ok(())
}

/// Some versions of a deleted file come to their contents.
async fn versions(context: &Context<'_>, plan: &mut Plan<bool>, left: &mut Released, node: u64) -> Result<(), Error> {
    let (start, end) = keys::versions(node);
    let page = context.db.scan(start, end, VERSIONS_A_STEP).await?;
    for row in page.rows {
        plan.conditions.push(condition::version_is(row.key.clone(), row.version));
        plan.operations.push(operation::delete(row.key));
        let version = VersionRecord::from_bytes(row.value)?.into_version()?;
        left.content_ids.extend(version.data.content.0.iter().map(|part| part.content_id));
    }
    if !page.more {
        left.node_ids.pop();
    }
    Ok(())
}

/// An unfinished upload of a deleted folder comes to its contents.
async fn uploads(context: &Context<'_>, plan: &mut Plan<bool>, left: &mut Released, folder: u64) -> Result<(), Error> {
    let (start, end) = keys::uploads(folder);
    let page = context.db.scan(start, end, 1).await?;
    for row in page.rows {
        let (_, id) = keys::upload_of(&row.key)?;
        let (parts, parts_stay) = all_parts(context, &id).await?;
        plan.conditions.push(condition::version_is(row.key.clone(), row.version));
        plan.conditions.push(parts_stay);
        left.content_ids.extend(parts.iter().flat_map(|part| &part.data.content.0).map(|part| part.content_id));
        remove_upload(plan, row.key.to_vec(), &id);
    }
    if !page.more {
        left.folder_ids.pop();
    }
    Ok(())
}
