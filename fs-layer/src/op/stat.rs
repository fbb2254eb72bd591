//! Tells all that is known of a node, by id, by name, or by path. Changes nothing.

use super::Named;
use super::create_folder::folder_info;
use super::put_file::file_info;
use crate::driver::Context;
use crate::error::no_entry;
use crate::limits::ATTEMPTS;
use crate::model::{Entry, FileInfo, NodeKind};
use crate::record::{NodeRecord, Record as _, VersionRecord, kind_of};
use crate::{Namespace, ROOT, keys};
use metadb_proto::Error;

impl Namespace {
    /// All that is known of a node.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such node; and those of the database.
    pub async fn stat(&self, id: u64) -> Result<FileInfo, Error> {
        let context = self.reading();
        let (start, end) = keys::versions(id);
        let (row, versions) = futures::try_join!(context.db.get(keys::node(id)), context.db.scan(start, end, 1))?;
        let Some(row) = row else {
            return if id == ROOT { Ok(folder_info(&root(), &NodeRecord::new())) } else { Err(Error::not_found(format!("node {id}"))) };
        };
        let node = NodeRecord::from_bytes(row.value)?;
        let mut entry = Entry { parent: node.parent, name: node.name.clone(), id, kind: kind_of("node", node.kind)?, ..root() };
        entry.modified_at_ms = node.modified_at_ms;
        if entry.kind != NodeKind::File {
            return Ok(folder_info(&entry, &node));
        }
        let newest = versions.rows.into_iter().next().ok_or_else(|| Error::not_found(format!("node {id}")))?;
        let version = VersionRecord::from_bytes(newest.value)?.into_version()?;
        (entry.version, entry.modified_at_ms) = (version.number, version.created_at_ms);
        Ok(file_info(&entry, &node, &version.data))
    }

    /// All that is known of the node of a name.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such name or folder, [`Error::Invalid`] for a bad name; and those of the database.
    pub async fn stat_entry(&self, parent: u64, name: &str) -> Result<FileInfo, Error> {
        let context = self.reading();
        let named = Named::new("name", context.folder(parent).await?, parent, name)?;
        for _ in 0..ATTEMPTS {
            let row = context.db.get(named.key()).await?;
            let Some((entry, _)) = named.read(row.as_ref())? else { return Err(no_entry(parent, name)) };
            if let Some(info) = details(&context, &entry).await? {
                return Ok(info);
            }
        }
        Err(Error::Conflict { message: format!("`{name}` in folder {parent} changes faster than it can be read") })
    }

    /// All that is known of the node of a path.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such path, [`Error::Invalid`] for a bad one; and those of the database.
    pub async fn stat_path(&self, path: &str) -> Result<FileInfo, Error> {
        for _ in 0..ATTEMPTS {
            let entry = self.resolve(path).await?;
            if entry.id == ROOT {
                return self.stat(ROOT).await;
            }
            if let Some(info) = details(&self.reading(), &entry).await? {
                return Ok(info);
            }
        }
        Err(Error::Conflict { message: format!("`{path}` changes faster than it can be read") })
    }

    /// What an operation that only reads works with.
    pub(super) fn reading(&self) -> Context<'_> {
        Context::new(self.db.with_deadline(self.deadline), &self.tenant, true)
    }
}

/// What the rest of the rows tell of an entry; none if they are gone.
async fn details(context: &Context<'_>, entry: &Entry) -> Result<Option<FileInfo>, Error> {
    if entry.kind != NodeKind::File {
        let row = context.db.get(keys::node(entry.id)).await?;
        return row.map(|row| Ok(folder_info(entry, &NodeRecord::from_bytes(row.value)?))).transpose();
    }
    let rows = context.db.multi_get(vec![keys::node(entry.id), keys::version(entry.id, entry.version)]).await?;
    let mut rows = rows.into_iter();
    let (Some(Some(node)), Some(Some(version))) = (rows.next(), rows.next()) else { return Ok(None) };
    let version = VersionRecord::from_bytes(version.value)?.into_version()?;
    Ok(Some(file_info(entry, &NodeRecord::from_bytes(node.value)?, &version.data)))
}

/// The root, which no entry names.
pub(super) fn root() -> Entry {
    Entry {
        parent: 0,
        name: String::new(),
        id: ROOT,
        kind: NodeKind::Tree,
        size: 0,
        version: 0,
        etag: String::new(),
        content_type: String::new(),
        modified_at_ms: 0,
    }
}
