//! Ids of nodes: drawn from the tenant's counter in blocks, never given twice. Ids of a block that its process did not use are lost.

use crate::db::Db;
use crate::limits::ID_BLOCK;
use crate::{ROOT, keys};
use metadb_proto::Error;
use std::ops::Range;
use std::time::Duration;

/// Unused ids of one tenant in this process.
pub(crate) struct Ids {
    block: tokio::sync::Mutex<Range<u64>>,
}

impl Ids {
    pub(crate) fn new() -> Self {
        Ids { block: tokio::sync::Mutex::new(0..0) }
    }

    /// An id that was never given before. Who waits for a new block waits with the one who draws it.
    pub(crate) async fn next(&self, db: &Db) -> Result<u64, Error> {
        let mut block = self.block.lock().await;
        if block.is_empty() {
            *block = draw(db).await?;
        }
        let id = block.start;
        block.start += 1;
        assert!(id > ROOT, "the counter gives ids behind the root's");
        Ok(id)
    }
}

async fn draw(db: &Db) -> Result<Range<u64>, Error> {
    let delta = i64::try_from(ID_BLOCK).expect("a block is small");
    let drawn = db.transact(Vec::new(), vec![shard_router::operation::add(keys::counter("node"), delta)]).await.map_err(harmless)?;
    let row = drawn.results.into_iter().next().and_then(|result| result.row).ok_or_else(|| Error::internal("add gave no row"))?;
    let value = row.value.as_ref().try_into().map_err(|_| Error::Corrupt { message: "the counter of ids is not 8 bytes".into() })?;
    let last = u64::from_le_bytes(value);
    let first = last.checked_sub(ID_BLOCK).ok_or_else(|| Error::Corrupt { message: format!("the counter of ids is {last}") })?;
    Ok(first + ROOT + 1..last + ROOT + 1)
}

/// Nothing of the operation was done yet; a block may be lost, which is harmless.
fn harmless(error: Error) -> Error {
    if let Error::UnknownOutcome { message } = error {
        return Error::unavailable(format!("drawing ids: {message}"), Duration::from_millis(50));
    }
    error
}
