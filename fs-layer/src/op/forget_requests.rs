//! Forgets the outcomes of requests that no retry can ask for any more. To be called now and then, for each tenant.

use crate::driver::forgettable;
use crate::{Namespace, keys};
use metadb_proto::Error;
use shard_router::operation;

/// Outcomes forgotten in one transaction: well below what one may delete.
const ROWS: usize = 1000;

impl Namespace {
    /// Forgets the outcomes of requests that were asked long enough ago. Gives how many.
    ///
    /// # Errors
    /// Those of the database; then it may be called again.
    pub async fn forget_requests(&self) -> Result<usize, Error> {
        let db = self.reading().db;
        let (start, end) = forgettable();
        let mut forgotten = 0;
        loop {
            let page = db.scan(start.clone(), end.clone(), ROWS).await?;
            let Some(last) = page.rows.last() else { return Ok(forgotten) };
            db.transact(Vec::new(), vec![operation::delete_range(start.clone(), keys::after(&last.key))]).await?;
            forgotten += page.rows.len();
        }
    }
}
