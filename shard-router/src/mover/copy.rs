//! Brings rows of a shard from the group that owns it to the group that expects it, page by page; the next page is read while one is written.

use super::Work;
use crate::{admin, metrics};
use metadb_proto::Error;
use metadb_proto::planted::{self, Bug};
use metadb_proto::settings::{Asker, registry};
use metadb_proto::v1::{ImportRowsRequest, ReadShardRequest, ReadShardResponse, ShardChangeRecord, ShardRange, TakeOverShard};
use prost::Message as _;
use std::time::Duration;
use tokio::time::Instant;

/// How long one page may take to be read, or to be written.
const PAGE_WITHIN: Duration = Duration::from_secs(20);

/// What was brought.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Brought {
    pub(super) bytes: u64,
    pub(super) pages: u64,
    /// Up to here everything is there.
    pub(super) through: u64,
    /// The version of the last import, which is that of the take-over if there was one.
    pub(super) version: u64,
}

pub(super) fn range_of(record: &ShardChangeRecord) -> ShardRange {
    ShardRange { tenant_id: record.tenant_id, start: record.start.clone(), end: record.end.clone() }
}

impl Work {
    async fn read(
        &self,
        record: &ShardChangeRecord,
        after_version: u64,
        continuation: bytes::Bytes,
        until: Instant,
    ) -> Result<ReadShardResponse, Error> {
        let (group_id, range) = (record.group_id, Some(range_of(record)));
        let read = ReadShardRequest { group_id, range, after_version, continuation, max_bytes: 0 };
        self.operator.router().at_leader(group_id, until, &admin::read_shard(read)).await
    }

    /// Brings all rows, or those that were committed above a version, however long it takes as long as every page gets on. With the version of
    /// a fence, at once and with the take-over at the end, until its time is up.
    pub(super) async fn bring(
        &self,
        record: &ShardChangeRecord,
        after_version: u64,
        fence: Option<(u64, Instant)>,
    ) -> Result<Brought, Error> {
        let fence_version = fence.map(|(version, _)| version);
        let until = || fence.map_or_else(|| Instant::now() + PAGE_WITHIN, |(_, until)| until);
        let mut brought = Brought::default();
        let mut page = self.read(record, after_version, bytes::Bytes::new(), until()).await?;
        loop {
            let ReadShardResponse { rows, outcomes, continuation, through_version } = page;
            let is_last = continuation.is_empty();
            let take_over =
                fence_version.filter(|_| is_last).map(|fence_version| TakeOverShard { from_group_id: record.group_id, fence_version });
            let (group_id, range, epoch) = (record.to_group_id, Some(range_of(record)), record.epoch);
            let rows = if fence_version.is_some() && planted::is(Bug::MoveForgetsLastRows) { Vec::new() } else { rows };
            let outcomes = if planted::is(Bug::MoveForgetsRequests) { Vec::new() } else { outcomes };
            let import = ImportRowsRequest { group_id, range, epoch, rows, outcomes, through_version, take_over };
            let bytes = import.encoded_len() as u64;
            if fence_version.is_none() {
                self.pace.turn(bytes, self.bytes_per_s()).await;
            }
            let import = admin::import_rows(import);
            let imported = async {
                let asked = Instant::now();
                let imported = self.operator.router().at_leader(group_id, until(), &import).await;
                self.pace.took(asked.elapsed(), self.bytes_per_s());
                imported
            };
            let next = async {
                if is_last { Ok(ReadShardResponse::default()) } else { self.read(record, after_version, continuation, until()).await }
            };
            let (imported, next) = futures::future::try_join(imported, next).await?;
            metrics::shard_copied(bytes);
            brought =
                Brought { bytes: brought.bytes + bytes, pages: brought.pages + 1, through: through_version, version: imported.version };
            if is_last {
                return Ok(brought);
            }
            page = next;
        }
    }

    fn bytes_per_s(&self) -> u64 {
        self.settings.get(&registry::SHARDS_MOVE_MIB_PER_S, Asker::NODE) << 20
    }
}
