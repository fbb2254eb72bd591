//! Begins an upload: a file to be, put part by part.
//!
//! Reads the folder. Holds: it is there. Writes: upload, event.

use super::{Named, check_texts};
use crate::driver::{Context, Operation, Plan, Step, run};
use crate::model::{NewUpload, UploadInfo};
use crate::record::{EventKind, EventRecord, Record as _, UploadRecord};
use crate::{Namespace, keys};
use metadb_proto::{Error, seam};
use shard_router::{condition, operation};

struct CreateUpload<'a> {
    parent: u64,
    name: &'a str,
    id: [u8; 16],
    upload: NewUpload,
}

impl Namespace {
    /// Begins an upload of a file. The name stays as it is until the upload is completed.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such folder, [`Error::Invalid`] for a bad name or bad attributes; and those of the database.
    pub async fn create_upload(&self, parent: u64, name: &str, upload: NewUpload) -> Result<UploadInfo, Error> {
        check_texts(&upload.attributes, &[("content_type", &upload.content_type), ("author", &upload.author)])?;
        run(self, &CreateUpload { parent, name, id: seam::random_id(), upload }).await
    }
}

impl Operation for CreateUpload<'_> {
    const NAME: &'static str = "create_upload";
    type Answer = UploadInfo;

    async fn attempt(&self, context: &Context<'_>) -> Result<Step<UploadInfo>, Error> {
        let named = Named::new("name", context.folder_to_write(self.parent).await?, self.parent, self.name)?;
        let info = UploadInfo {
            upload_id: hex::encode(self.id),
            parent: self.parent,
            name: self.name.to_owned(),
            created_at_ms: context.now_ms,
            data: self.upload.clone(),
        };
        let key = keys::upload(self.parent, &named.canonical, &self.id);
        let mut plan = Plan::new(info.clone());
        plan.conditions = vec![condition::absent(key.clone()), condition::exists(keys::node(self.parent))];
        plan.operations.push(operation::put(key, UploadRecord::of(&info).to_bytes()));
        plan.events.push(upload_event(EventKind::UploadCreated, &info));
        Ok(Step::Commit(plan))
    }
}

/// An event about an upload.
pub(super) fn upload_event(kind: EventKind, info: &UploadInfo) -> EventRecord {
    EventRecord { parent: info.parent, name: info.name.clone(), ..EventRecord::new(kind) }
}
