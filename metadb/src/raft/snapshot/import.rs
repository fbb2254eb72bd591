//! From received files to the state of a replica, and what is left of that when a node starts.
//!
//! The order makes a crash at every point safe: all files are verified and synced, then the *installing* mark is flushed, then the old
//! rows go and the files come in, then the mark goes, flushed, then the files. Who finds the mark does it again, from the same files.

use super::depot::Depot;
use super::incoming::{file_name, keep_only, manifest_name, stored_manifest, verified};
use super::manifest::Manifest;
use super::{INSTALLING_KIND, REPLICA_KIND, SnapshotError, group_key, incoming_prefix, travelling};
use bytes::Bytes;
use metadb_engine::{COLUMN_FAMILIES, Cf, EngineError, Replacement, Store, WriteBatch};
use std::sync::Arc;

/// Replaces all rows of a group by those of a received snapshot that was verified, durably, and removes its files.
pub(crate) async fn import(store: &Arc<dyn Store>, depot: &Arc<Depot>, group_id: u32, id: &str) -> Result<(), SnapshotError> {
    let manifest = stored_manifest(depot, group_id, id)?.ok_or(SnapshotError::Gone)?;
    let mark = group_key(group_id, Some(INSTALLING_KIND));
    let mut batch = WriteBatch::default();
    batch.put(Cf::State, mark.clone(), Bytes::copy_from_slice(id.as_bytes()));
    batch.put(Cf::State, group_key(group_id, Some(REPLICA_KIND)), Bytes::new());
    store.write(batch)?;
    store.flush().await?;
    store.replace(Arc::clone(&depot.disk), parts(&manifest, id)).await?;
    let mut batch = WriteBatch::default();
    batch.delete(Cf::State, mark);
    store.write(batch)?;
    store.flush().await?;
    discard(depot, group_id, id)?;
    Ok(())
}

/// Every file is what the manifest says, and durable. Whatever is not is cut off, so that a new transfer brings it again.
pub(crate) async fn verify(depot: &Depot, group_id: u32, id: &str) -> Result<(), SnapshotError> {
    let manifest = stored_manifest(depot, group_id, id)?.ok_or(SnapshotError::Gone)?;
    let mut wrong = None;
    for (number, file) in manifest.files.iter().enumerate() {
        let name = file_name(group_id, id, number);
        let right = verified(depot, &name, file, manifest.chunk_bytes).await?;
        if right == file.bytes {
            depot.disk.sync(&name)?;
        } else {
            depot.tell_rotten(&name, right);
            wrong.get_or_insert(SnapshotError::Corrupt { name, offset: right });
        }
    }
    wrong.map_or(Ok(()), Err)
}

fn parts(manifest: &Manifest, id: &str) -> Vec<Replacement> {
    let part = |cf| {
        let (start, end) = travelling(cf, manifest.group_id);
        let of_family = manifest.files.iter().enumerate().filter(|(_, file)| file.cf == cf);
        let files = of_family.map(|(number, _)| file_name(manifest.group_id, id, number)).collect();
        Replacement { cf, range: start..end, files }
    };
    COLUMN_FAMILIES.into_iter().map(part).collect()
}

/// Removes what was received of a snapshot, the manifest last: as long as it is there, so may the files be.
pub(crate) fn discard(depot: &Depot, group_id: u32, id: &str) -> Result<(), EngineError> {
    let manifest = manifest_name(group_id, id);
    let prefix = format!("{}{id}-", incoming_prefix(group_id));
    for name in depot.disk.list()?.iter().filter(|name| name.starts_with(&prefix) && **name != manifest) {
        depot.disk.remove(name)?;
    }
    depot.disk.remove(&manifest)
}

/// Removes whatever was received for a group.
pub(crate) fn discard_all(depot: &Depot, group_id: u32) -> Result<(), EngineError> {
    depot.remove_all(&incoming_prefix(group_id))
}

/// Finishes an import that a crash interrupted. What an interrupted transfer left is kept, so that it can go on: whether there is any.
pub(crate) async fn recover(store: &Arc<dyn Store>, depot: &Arc<Depot>, group_id: u32) -> Result<bool, SnapshotError> {
    let Some(id) = store.get(Cf::State, &group_key(group_id, Some(INSTALLING_KIND)))? else {
        return Ok(keep_only(depot, group_id, None)?);
    };
    let id = String::from_utf8_lossy(&id).into_owned();
    tracing::info!(group_id, id, "a snapshot was being imported when the node stopped; importing it again");
    verify(depot, group_id, &id).await?;
    import(store, depot, group_id, &id).await?;
    discard_all(depot, group_id)?;
    Ok(false)
}
