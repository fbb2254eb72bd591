//! Puts a part of an upload, or puts it anew.
//!
//! Reads the upload, the part and the contents. Holds: the upload is there, part and contents as read. Writes: part, contents; releases the
//! contents of the part that it replaces.

use super::contents::{self, Naming};
use super::{Named, check_texts, no_upload, upload_id};
use crate::driver::{Context, Operation, Plan, Step, run};
use crate::limits::PART_NUMBER;
use crate::model::{NewPart, PartInfo};
use crate::record::{PartRecord, Record as _};
use crate::{Namespace, keys};
use metadb_proto::Error;
use shard_router::{condition, operation};
use std::collections::BTreeMap;

struct PutPart<'a> {
    parent: u64,
    name: &'a str,
    upload: &'a str,
    number: u32,
    part: NewPart,
}

impl Namespace {
    /// Puts a part of an upload. Its bytes are durable already.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such upload of that name, [`Error::Invalid`] for a bad part; and those of the database.
    pub async fn put_part(&self, parent: u64, name: &str, upload: &str, number: u32, part: NewPart) -> Result<PartInfo, Error> {
        if !(1..=PART_NUMBER).contains(&number) {
            return Err(Error::invalid("part_number", format!("1 to {PART_NUMBER}"), number.to_string()));
        }
        contents::check(&part.content, part.size)?;
        check_texts(&BTreeMap::new(), &[("etag", &part.etag)])?;
        run(self, &PutPart { parent, name, upload, number, part }).await
    }
}

impl Operation for PutPart<'_> {
    const NAME: &'static str = "put_part";
    type Answer = PartInfo;

    async fn attempt(&self, context: &Context<'_>) -> Result<Step<PartInfo>, Error> {
        let named = Named::new("name", context.folder(self.parent).await?, self.parent, self.name)?;
        let id = upload_id(self.upload)?;
        let upload_key = keys::upload(self.parent, &named.canonical, &id);
        let part_key = keys::upload_part(&id, self.number);
        let naming = Naming::of(&self.part.content)?.only_known(context.only_known);
        let rows = context.db.multi_get([upload_key.clone(), part_key.clone()].into_iter().chain(naming.keys()).collect()).await?;
        let [upload, before, contents @ ..] = rows.as_slice() else { return Err(Error::internal("no row per key")) };
        if upload.is_none() {
            return Err(no_upload(self.upload));
        }
        let info = PartInfo { number: self.number, created_at_ms: context.now_ms, data: self.part.clone() };
        let mut plan = Plan::new(info.clone());
        plan.conditions.push(condition::exists(upload_key));
        match before {
            None => plan.conditions.push(condition::absent(part_key.clone())),
            Some(row) => {
                plan.conditions.push(condition::version_is(part_key.clone(), row.version));
                let before = PartRecord::from_bytes(row.value.clone())?.into_info()?;
                plan.released.content_ids = before.data.content.0.iter().map(|part| part.content_id).collect();
            }
        }
        plan.operations.push(operation::put(part_key, PartRecord::of(&info).to_bytes()));
        naming.plan(&mut plan, contents)?;
        Ok(Step::Commit(plan))
    }
}
