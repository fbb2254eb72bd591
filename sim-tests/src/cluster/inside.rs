//! Requests that are asked inside a node's process, as its own gateway asks them: no cut of the network hides what such a node answers.

use super::Cluster;
use metadb_proto::kv::{Kv as _, request, response};
use metadb_proto::principal::DIRECTORY_TENANT;
use metadb_proto::{Error, Principal, v1};
use std::time::Duration;
use tokio::time::Instant;

/// How long an answer may take. A process that was stopped meanwhile gives none.
const ANSWERED_WITHIN: Duration = Duration::from_secs(6);
/// Pause between two reads of [`Cluster::read_often`].
const READ_EVERY: Duration = Duration::from_millis(8);
/// How long each of them may wait for the lease: not for the end of a cut.
const READ_WITHIN_MS: u32 = 40;

impl Cluster {
    /// Asks a node from inside its process. None: it does not run, or died meanwhile.
    pub async fn ask_inside(&self, node: usize, body: request::Body) -> Option<Result<response::Body, Error>> {
        let machine = &self.machines[node];
        let (running, at) = (machine.node()?, self.handle.get_node(machine.placed_at())?);
        let asking = at.spawn(async move { running.call(&Principal::Node(running.node_id()), body).await });
        tokio::time::timeout(ANSWERED_WITHIN, asking).await.ok()?.ok()
    }

    /// Has a node asked for reads of groups that it leads, again and again for a while. Whether their indices are right is judged when they
    /// are given; the rows do not matter.
    pub fn read_often(&self, node: usize, groups: Vec<u32>, how_long: Duration) {
        let machine = &self.machines[node];
        let (Some(running), Some(at)) = (machine.node(), self.handle.get_node(machine.placed_at())) else { return };
        let end = Instant::now() + how_long;
        for group_id in groups {
            let running = running.clone();
            at.spawn(async move {
                let header = v1::RequestHeader {
                    tenant_id: DIRECTORY_TENANT,
                    group_id: Some(group_id),
                    deadline_ms: READ_WITHIN_MS,
                    ..v1::RequestHeader::default()
                };
                let get = v1::GetRequest { header: Some(header), key: "anything".into(), ..v1::GetRequest::default() };
                while Instant::now() < end {
                    drop(running.call(&Principal::Node(running.node_id()), request::Body::Get(get.clone())).await);
                    tokio::time::sleep(READ_EVERY).await;
                }
            });
        }
    }
}
