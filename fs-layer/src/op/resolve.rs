//! Follows a path, in one round trip: the walk is done where the data is. A key behind a flat folder takes a second one.

use super::Named;
use super::stat::root;
use crate::model::{Entry, FolderKind, NodeKind};
use crate::path::Path;
use crate::record::EntryRecord;
use crate::{Namespace, ROOT, keys, name};
use bytes::Bytes;
use keys::KeyKind;
use metadb_proto::Error;

/// How far a walk came.
struct Walked {
    /// One per segment, up to the first that is missing or is no tree folder.
    entries: Vec<Entry>,
}

impl Namespace {
    /// The entry that a path names: names joined by `/` from the root; behind a flat folder, the rest is one key.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such path, [`Error::Invalid`] for a bad one; and those of the database.
    pub async fn resolve(&self, path: &str) -> Result<Entry, Error> {
        let path = Path::parse(path)?;
        let walked = self.walk(&path).await?;
        let Some(last) = walked.entries.last() else {
            return if path.is_root() { Ok(root()) } else { Err(missing(&path, 0)) };
        };
        let done = walked.entries.len();
        match (path.rest(done), last.kind) {
            (None, _) => Ok(last.clone()),
            (Some(key), NodeKind::Flat) => {
                let named = Named::new("path", FolderKind::Flat, last.id, key)?;
                let row = self.reading().db.get(named.key()).await?;
                named.read(row.as_ref())?.map(|(entry, _)| entry).ok_or_else(|| missing(&path, done))
            }
            (Some(_), NodeKind::Tree | NodeKind::File) => Err(missing(&path, done)),
        }
    }

    /// The folder that a path leads to, and the last name of the path: where something is to be made.
    ///
    /// # Errors
    /// As [`Namespace::resolve`], for the folder.
    pub async fn resolve_place(&self, path: &str) -> Result<(u64, String), Error> {
        let path = Path::parse(path)?;
        if path.is_root() {
            return Err(Error::invalid("path", "a path with a name", "the root"));
        }
        let walked = self.walk(&path).await?;
        let done = walked.entries.len();
        if let (Some(last), Some(key)) = (walked.entries.last(), path.rest(done))
            && last.kind == NodeKind::Flat
        {
            return Ok((last.id, key.to_owned()));
        }
        let above = path.len() - 1;
        let parent = match above.checked_sub(1) {
            None => ROOT,
            Some(index) => match walked.entries.get(index) {
                Some(entry) if entry.kind == NodeKind::Tree => entry.id,
                _ => return Err(missing(&path, done.min(index))),
            },
        };
        let last = path.segment(above).ok_or_else(|| Error::internal("a path lost its last name"))?;
        Ok((parent, last.to_owned()))
    }

    async fn walk(&self, path: &Path<'_>) -> Result<Walked, Error> {
        let segments = path.canonical_segments();
        if segments.is_empty() {
            return if path.is_root() { Ok(Walked { entries: Vec::new() }) } else { Err(missing(path, 0)) };
        }
        let links: Vec<Bytes> = segments.iter().map(|segment| keys::segment(segment).into()).collect();
        let rows = self.reading().db.walk(KeyKind::Entry.prefix(), keys::link(ROOT), links).await?;
        let mut parent = ROOT;
        let mut entries = Vec::with_capacity(rows.len());
        for (row, canonical) in rows.iter().zip(&segments) {
            let entry = EntryRecord::from_row(&row.value)?.into_entry(parent, canonical)?;
            parent = entry.id;
            entries.push(entry);
        }
        Ok(Walked { entries })
    }
}

/// Why a path leads nowhere: the name at `index` is not there, or is none.
fn missing(path: &Path<'_>, index: usize) -> Error {
    let segment = path.segment(index).unwrap_or_default();
    match name::canonical("path", FolderKind::Tree, segment) {
        Err(bad) => bad,
        Ok(_) => Error::not_found(format!("`{segment}`, name {} of the path", index + 1)),
    }
}
