//! Makes a file, or a new version of one, of the parts of an upload.
//!
//! Reads the upload, all its parts, and the name. Holds: all as read, the precondition, the folder is there. Writes: entry, node, version,
//! event; upload and parts are gone; releases the parts that were not asked for. The contents have their name already: it passes from the part
//! to the version, so that the transaction does not grow with the number of parts.

use super::list_parts::all_parts;
use super::put_file::{Target, check_version};
use super::{no_upload, upload_id};
use crate::driver::{Context, Operation, Plan, Step, run};
use crate::limits::CONTENT_PARTS;
use crate::model::{Completed, Content, FileInfo, NewVersion, PartInfo};
use crate::record::{Record as _, UploadRecord};
use crate::{Namespace, keys};
use metadb_proto::Error;
use shard_router::{condition, operation};
use std::collections::BTreeMap;

struct CompleteUpload<'a> {
    parent: u64,
    name: &'a str,
    upload: &'a str,
    completed: Completed,
}

impl Namespace {
    /// Makes a version of the parts of an upload, in the order of their numbers.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such upload of that name; [`Error::Invalid`] for `parts.number` (not rising), `parts.etag` (no such
    /// part, or with another etag) or too many parts; as [`Namespace::put_file`]; and those of the database.
    pub async fn complete_upload(&self, parent: u64, name: &str, upload: &str, completed: Completed) -> Result<FileInfo, Error> {
        if completed.parts.is_empty() {
            return Err(Error::invalid("parts", "at least 1 part", "none"));
        }
        if let Some(pair) = completed.parts.windows(2).find(|pair| matches!(pair, [(a, _), (b, _)] if a >= b)) {
            return Err(Error::invalid("parts.number", "rising", format!("{pair:?}")));
        }
        run(self, &CompleteUpload { parent, name, upload, completed }).await
    }
}

impl Operation for CompleteUpload<'_> {
    const NAME: &'static str = "complete_upload";
    type Answer = FileInfo;

    async fn attempt(&self, context: &Context<'_>) -> Result<Step<FileInfo>, Error> {
        let kind = context.folder_to_write(self.parent).await?;
        let target = Target { parent: self.parent, name: self.name, kind, precondition: &self.completed.precondition };
        let named = target.named()?;
        let id = upload_id(self.upload)?;
        let upload_key = keys::upload(self.parent, &named.canonical, &id);
        let rows = context.db.multi_get(vec![named.key(), upload_key.clone()]).await?;
        let [entry_row, upload_row] = rows.as_slice() else { return Err(Error::internal("no row per key")) };
        let upload_row = upload_row.as_ref().ok_or_else(|| no_upload(self.upload))?;
        let upload = UploadRecord::from_bytes(upload_row.value.clone())?.into_info(self.parent, &id);

        let (parts, parts_stay) = all_parts(context, &id).await?;
        let (content, left) = choose(parts, &self.completed.parts)?;
        let version = NewVersion {
            size: content.size_bytes(),
            content,
            etag: self.completed.etag.clone(),
            content_type: upload.data.content_type,
            attributes: upload.data.attributes,
            author: upload.data.author,
        };
        check_version(&version)?;
        let Some(mut plan) = target.plan(context, entry_row.as_ref(), &version).await? else { return Ok(Step::Again) };
        plan.conditions.push(condition::version_is(upload_key.clone(), upload_row.version));
        plan.conditions.push(parts_stay);
        plan.released.content_ids.extend(left);
        remove_upload(&mut plan, upload_key, &id);
        Ok(Step::Commit(plan))
    }
}

/// Removes an upload's rows.
pub(super) fn remove_upload<T>(plan: &mut Plan<T>, upload_key: Vec<u8>, id: &[u8; 16]) {
    let (start, end) = keys::upload_parts(id);
    plan.operations.push(operation::delete(upload_key));
    plan.operations.push(operation::delete_range(start, end));
}

/// The content that the parts asked for make, and the contents of the others.
fn choose(parts: Vec<PartInfo>, asked: &[(u32, String)]) -> Result<(Content, Vec<[u8; 16]>), Error> {
    let mut parts: BTreeMap<u32, PartInfo> = parts.into_iter().map(|part| (part.number, part)).collect();
    let mut content = Content::default();
    for (number, etag) in asked {
        let known = parts.remove(number);
        match known {
            Some(part) if part.data.etag == *etag => content.0.extend(part.data.content.0),
            Some(part) => return Err(Error::invalid("parts.etag", format!("{} for part {number}, as put", part.data.etag), etag.clone())),
            None => return Err(Error::invalid("parts.etag", "of a part that was put", format!("part {number}"))),
        }
    }
    if content.0.len() > CONTENT_PARTS {
        return Err(Error::invalid(
            "parts",
            format!("at most {CONTENT_PARTS} content parts"),
            format!("{} content parts", content.0.len()),
        ));
    }
    let left = parts.into_values().flat_map(|part| part.data.content.0).map(|part| part.content_id).collect();
    Ok((content, left))
}
