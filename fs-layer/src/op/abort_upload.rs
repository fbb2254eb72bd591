//! Gives an upload up.
//!
//! Reads the upload and its parts. Holds: both as read. Writes: upload and parts are gone, event; releases the contents of the parts.

use super::complete_upload::remove_upload;
use super::create_upload::upload_event;
use super::list_parts::all_parts;
use super::{Named, no_upload, upload_id};
use crate::driver::{Context, Operation, Plan, Step, run};
use crate::record::{EventKind, Record as _, UploadRecord};
use crate::{Namespace, keys};
use metadb_proto::Error;
use shard_router::condition;

struct AbortUpload<'a> {
    parent: u64,
    name: &'a str,
    upload: &'a str,
}

impl Namespace {
    /// Gives an upload up; its parts are released.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such upload of that name; and those of the database.
    pub async fn abort_upload(&self, parent: u64, name: &str, upload: &str) -> Result<(), Error> {
        run(self, &AbortUpload { parent, name, upload }).await
    }
}

impl Operation for AbortUpload<'_> {
    const NAME: &'static str = "abort_upload";
    type Answer = ();

    async fn attempt(&self, context: &Context<'_>) -> Result<Step<()>, Error> {
        let named = Named::new("name", context.folder(self.parent).await?, self.parent, self.name)?;
        let id = upload_id(self.upload)?;
        let key = keys::upload(self.parent, &named.canonical, &id);
        let row = context.db.get(key.clone()).await?.ok_or_else(|| no_upload(self.upload))?;
        let info = UploadRecord::from_bytes(row.value)?.into_info(self.parent, &id);
        let (parts, parts_stay) = all_parts(context, &id).await?;
        let mut plan = Plan::new(());
        plan.conditions = vec![condition::version_is(key.clone(), row.version), parts_stay];
        plan.released.content_ids = parts.into_iter().flat_map(|part| part.data.content.0).map(|part| part.content_id).collect();
        plan.events.push(upload_event(EventKind::UploadAborted, &info));
        remove_upload(&mut plan, key, &id);
        Ok(Step::Commit(plan))
    }
}
