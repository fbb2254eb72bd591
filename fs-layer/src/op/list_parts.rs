//! Lists the parts of an upload. Changes nothing.

use super::{Named, no_upload, upload_id};
use crate::driver::Context;
use crate::limits::{LIST_DEFAULT, PART_NUMBER};
use crate::model::{PartInfo, PartListing, UploadInfo};
use crate::record::{PartRecord, Record as _, UploadRecord};
use crate::{Namespace, keys};
use metadb_proto::Error;
use metadb_proto::v1::{Condition, KeyValue};
use shard_router::condition;

impl Namespace {
    /// What an upload was begun with.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such upload of that name; and those of the database.
    pub async fn upload(&self, parent: u64, name: &str, upload: &str) -> Result<UploadInfo, Error> {
        let context = self.reading();
        let named = Named::new("name", context.folder(parent).await?, parent, name)?;
        let id = upload_id(upload)?;
        let row = context.db.get(keys::upload(parent, &named.canonical, &id)).await?.ok_or_else(|| no_upload(upload))?;
        Ok(UploadRecord::from_bytes(row.value)?.into_info(parent, &id))
    }

    /// At most `limit` (0: the default) parts of an upload, behind part number `after`.
    ///
    /// # Errors
    /// As [`Namespace::upload`].
    pub async fn list_parts(&self, parent: u64, name: &str, upload: &str, after: u32, limit: usize) -> Result<PartListing, Error> {
        self.upload(parent, name, upload).await?;
        let id = upload_id(upload)?;
        if after >= PART_NUMBER {
            return Ok(PartListing::default());
        }
        let limit = if limit == 0 { LIST_DEFAULT } else { limit };
        // One more than asked tells whether there is more.
        let mut page =
            self.reading().db.scan(keys::upload_part(&id, after + 1), keys::upload_parts(&id).1, limit.saturating_add(1)).await?;
        let more = page.rows.len() > limit || (page.more && page.rows.len() < limit);
        page.rows.truncate(limit);
        Ok(PartListing { parts: page.rows.into_iter().map(part_of).collect::<Result<_, _>>()?, more })
    }
}

fn part_of(row: KeyValue) -> Result<PartInfo, Error> {
    PartRecord::from_bytes(row.value)?.into_info()
}

/// All parts of an upload, and the condition that they stay as they are.
pub(super) async fn all_parts(context: &Context<'_>, id: &[u8; 16]) -> Result<(Vec<PartInfo>, Condition), Error> {
    let (start, end) = keys::upload_parts(id);
    let (mut parts, mut highest, mut from) = (Vec::new(), 0, start.clone());
    loop {
        let page = context.db.scan(from, end.clone(), usize::MAX).await?;
        from = page.rows.last().map_or_else(|| end.clone(), |row| keys::after(&row.key));
        for row in page.rows {
            highest = highest.max(row.version);
            parts.push(part_of(row)?);
        }
        if !page.more {
            let count = u64::try_from(parts.len()).unwrap_or(u64::MAX);
            return Ok((parts, condition::range_unchanged(start, end, count, highest)));
        }
    }
}
