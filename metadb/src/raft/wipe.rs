//! Takes everything of one group from a node: rows, marks, log, spool. Done only after the node was removed from the group's members:
//! what a replica voted and acknowledged must not be forgotten while it counts.

use bytes::Bytes;
use metadb_engine::disk::Disk;
use metadb_engine::log::{Log, LogOp};
use metadb_engine::{COLUMN_FAMILIES, EngineError, Store, WriteBatch};
use std::sync::Arc;

/// Removes a group durably. Done again, it does nothing.
pub(crate) async fn wipe(store: &Arc<dyn Store>, log: &Log, spool: &Arc<dyn Disk>, group_id: u32) -> Result<(), EngineError> {
    let (done, forgotten) = tokio::sync::oneshot::channel();
    log.submit(
        vec![LogOp::Forget { group: group_id }],
        Box::new(move |result| {
            // A caller that went away asks again.
            let _ = done.send(result);
        }),
    );
    forgotten.await.unwrap_or_else(|_| Err(EngineError::Stopped { message: "the log's writer is gone".to_owned() }))?;
    let start = Bytes::copy_from_slice(&group_id.to_be_bytes());
    let end = crate::rows::successor(&start);
    let mut batch = WriteBatch::default();
    for cf in COLUMN_FAMILIES {
        if end.is_empty() {
            // The highest group id there is: nothing sorts behind its rows, so they go one by one.
            for row in store.cursor(cf, &start[..]..&[], false) {
                batch.delete(cf, row?.0);
            }
        } else {
            batch.delete_range(cf, start.clone(), end.clone());
        }
    }
    store.write(batch)?;
    store.flush().await?;
    let prefixes = super::snapshot::file_prefixes(group_id);
    for name in spool.list()?.iter().filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix))) {
        spool.remove(name)?;
    }
    Ok(())
}
