//! Lists the uploads under way in a folder. Changes nothing.

use super::upload_id;
use crate::limits::{LIST_DEFAULT, LIST_PAGE};
use crate::model::{UploadListing, UploadOptions};
use crate::name::canonical_text;
use crate::record::{Record as _, UploadRecord};
use crate::{Namespace, keys};
use metadb_proto::Error;

impl Namespace {
    /// A page of the uploads under way in a folder, by name and then by upload id.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such folder, [`Error::Invalid`] for bad options; and those of the database.
    pub async fn list_uploads(&self, parent: u64, options: UploadOptions) -> Result<UploadListing, Error> {
        let context = self.reading();
        let kind = context.folder(parent).await?;
        let [prefix, after_name] = [&options.prefix, &options.after_name].map(|text| canonical_text(kind, text));
        if prefix.contains('\0') || after_name.contains('\0') {
            return Err(Error::invalid("prefix", "without NUL", "a text with NUL"));
        }
        let behind = if after_name.is_empty() {
            Vec::new()
        } else if options.after_upload_id.is_empty() {
            keys::uploads_from(parent, &[after_name.as_bytes(), &[0]].concat())
        } else {
            keys::after(&keys::upload(parent, &after_name, &upload_id(&options.after_upload_id)?))
        };
        let start = behind.max(keys::uploads_from(parent, prefix.as_bytes()));
        let limit = if options.limit == 0 { LIST_DEFAULT } else { options.limit.min(LIST_PAGE - 1) };
        // One more than asked tells whether there is more.
        let mut page = context.db.scan(start, keys::uploads(parent).1, limit.saturating_add(1)).await?;
        let more = page.rows.len() > limit || (page.more && page.rows.len() < limit);
        let beyond = page.rows.get(limit).map(|row| keys::upload_of(&row.key)).transpose()?;
        page.rows.truncate(limit);
        let mut listing = UploadListing {
            uploads: Vec::with_capacity(page.rows.len()),
            more: more && beyond.is_none_or(|(name, _)| name.starts_with(&prefix)),
        };
        for row in page.rows {
            let (name, id) = keys::upload_of(&row.key)?;
            if !name.starts_with(&prefix) {
                listing.more = false;
                break;
            }
            listing.uploads.push(UploadRecord::from_bytes(row.value)?.into_info(parent, &id));
        }
        if listing.uploads.is_empty() {
            context.must_exist(parent).await?;
        }
        Ok(listing)
    }
}
