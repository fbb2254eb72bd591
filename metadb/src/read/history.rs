//! All versions of a key that are still kept, newest first.

use super::{View, storage_error};
use crate::rows::data::{self, Stored};
use crate::rows::successor;
use metadb_engine::Cf;
use metadb_proto::{Error, Version};

impl View {
    /// The versions of a key at or below `at`, at most `limit` of them; deletions are among them.
    ///
    /// # Errors
    /// As [`View::owns`]; [`Error::Corrupt`], [`Error::Unavailable`] from storage.
    pub fn history(&self, tenant_id: u64, key: &[u8], at: Version, limit: usize) -> Result<Vec<Stored>, Error> {
        self.guarded(
            |ownership| ownership.check_key(tenant_id, key, 0),
            || {
                let stem = data::stem(self.group_id, tenant_id, key);
                let (start, end) = (data::row_key(&stem, at), successor(&stem));
                let rows = self.store.cursor(Cf::Data, &start[..]..&end[..], false).take(limit);
                rows.map(|row| row.and_then(|(key, value)| Stored::read(data::split(&key)?.1, value)))
                    .collect::<Result<_, _>>()
                    .map_err(|error| storage_error(&error))
            },
        )
    }
}
