//! The door for operators and other nodes: a node's replicas, their members, and what they own.

use super::entrance::{Entrance, principal};
use crate::command::Command;
use crate::group::{Group, Wanted};
use crate::machine::Outcome;
use metadb_proto::principal::Action;
use metadb_proto::v1::node_admin_server::{NodeAdmin, NodeAdminServer};
use metadb_proto::v1::{
    self, AdoptShardRequest, AdoptShardResponse, AdoptShardsRequest, AdoptShardsResponse, ChangeMembersRequest, ChangeMembersResponse,
    ChangeShardsRequest, ChangeShardsResponse, CreateReplicaRequest, CreateReplicaResponse, DropReplicaRequest, DropReplicaResponse,
    DropShardRequest, DropShardResponse, FlushRequest, FlushResponse, ImportRowsRequest, ImportRowsResponse, ListShardsRequest,
    ListShardsResponse, RaiseLevelRequest, RaiseLevelResponse, ReadShardRequest, ReadShardResponse, RebuildReplicaRequest,
    RebuildReplicaResponse, ScrubRequest, ScrubResponse, ShardChangeResult, StatusRequest, StatusResponse, TransferLeaderRequest,
    TransferLeaderResponse,
};
use metadb_proto::{Error, Version, limits};
use std::sync::Arc;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

/// The service.
pub(super) struct NodeAdminDoor(pub(super) Entrance);

impl NodeAdminDoor {
    /// As tonic serves it.
    pub(super) fn server(self) -> super::served::NodeAdmin<Self> {
        NodeAdminServer::new(self).max_decoding_message_size(limits::MESSAGE_BYTES).max_encoding_message_size(limits::MESSAGE_BYTES)
    }

    async fn admit<T>(&self, request: Request<T>, action: Action) -> Result<T, Error> {
        principal(&self.0, request.metadata()).await?.authorize(action)?;
        Ok(request.into_inner())
    }

    fn group(&self, group_id: u32) -> Result<Arc<Group>, Error> {
        self.0.node.require_group(group_id)
    }

    async fn own(&self, group_id: u32, command: Command) -> Result<u64, Error> {
        match self.group(group_id)?.propose(command, deadline()).await? {
            Outcome::Shard(result) => result.map(|Version(version)| version),
            Outcome::Transact(_) | Outcome::Compare(_) => Err(Error::internal("a change of ownership was answered like something else")),
        }
    }
}

fn deadline() -> Instant {
    Instant::now() + limits::DEFAULT_DEADLINE
}

#[tonic::async_trait]
impl NodeAdmin for NodeAdminDoor {
    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        // A hash reads every row of a group, whoever's they are: that is more than to look.
        let hashes = !request.get_ref().group_ids.is_empty();
        let who = principal(&self.0, request.metadata()).await?;
        who.authorize(if hashes { Action::Operate } else { Action::Inspect })?;
        let request = request.into_inner();
        let mut status = self.0.node.status(&request.group_ids).await?;
        if who.authorize(Action::Operate).is_err() {
            // Who else is here, and how busy, is nobody's business.
            status.busiest_tenants.clear();
            status.busiest_shards.clear();
        }
        Ok(Response::new(status))
    }

    async fn create_replica(&self, request: Request<CreateReplicaRequest>) -> Result<Response<CreateReplicaResponse>, Status> {
        let request = self.admit(request, Action::Operate).await?;
        if request.voters.is_empty() {
            self.0.node.create_silent_replica(request.group_id, request.silent_through).await?;
        } else {
            self.0.node.create_first_replica(request.group_id, request.voters, request.first).await?;
        }
        Ok(Response::new(CreateReplicaResponse {}))
    }

    async fn change_members(&self, request: Request<ChangeMembersRequest>) -> Result<Response<ChangeMembersResponse>, Status> {
        let request = self.admit(request, Action::Operate).await?;
        let group = self.group(request.group_id)?;
        let ChangeMembersRequest { voters, learners, if_membership_index, .. } = request;
        group.change_members(Wanted { voters, learners, if_membership_index }, deadline()).await?;
        Ok(Response::new(ChangeMembersResponse {}))
    }

    async fn transfer_leader(&self, request: Request<TransferLeaderRequest>) -> Result<Response<TransferLeaderResponse>, Status> {
        let request = self.admit(request, Action::Operate).await?;
        self.group(request.group_id)?.transfer_leader(request.node_id, deadline()).await?;
        Ok(Response::new(TransferLeaderResponse {}))
    }

    async fn adopt_shard(&self, request: Request<AdoptShardRequest>) -> Result<Response<AdoptShardResponse>, Status> {
        let request = self.admit(request, Action::Operate).await?;
        let version = self.own(request.group_id, Command::AdoptShard(request)).await?;
        Ok(Response::new(AdoptShardResponse { version }))
    }

    async fn adopt_shards(&self, request: Request<AdoptShardsRequest>) -> Result<Response<AdoptShardsResponse>, Status> {
        let AdoptShardsRequest { group_id, ranges, epoch } = self.admit(request, Action::Operate).await?;
        if ranges.len() > limits::ADOPTED_AT_ONCE {
            let limit = format!("at most {}", limits::ADOPTED_AT_ONCE);
            return Err(Error::invalid("ranges", limit, ranges.len().to_string()).into());
        }
        // Proposed at the same moment, they share entries of the log.
        let adoptions = ranges.into_iter().map(|range| AdoptShardRequest { group_id, range: Some(range), epoch });
        let adopted = adoptions.map(|adoption| self.own(group_id, Command::AdoptShard(adoption)));
        let versions = futures::future::try_join_all(adopted).await?;
        Ok(Response::new(AdoptShardsResponse { version: versions.into_iter().max().unwrap_or(0) }))
    }

    async fn drop_shard(&self, request: Request<DropShardRequest>) -> Result<Response<DropShardResponse>, Status> {
        let request = self.admit(request, Action::Operate).await?;
        let version = self.own(request.group_id, Command::DropShard(request)).await?;
        Ok(Response::new(DropShardResponse { version }))
    }

    async fn change_shards(&self, request: Request<ChangeShardsRequest>) -> Result<Response<ChangeShardsResponse>, Status> {
        let ChangeShardsRequest { group_id, changes } = self.admit(request, Action::Operate).await?;
        if changes.len() > limits::CHANGED_AT_ONCE {
            let limit = format!("at most {}", limits::CHANGED_AT_ONCE);
            return Err(Error::invalid("changes", limit, changes.len().to_string()).into());
        }
        // Proposed at the same moment, they share entries of the log.
        let changes = changes.into_iter().map(|change| v1::ChangeShard { group_id, change: Some(change) });
        let done = futures::future::join_all(changes.map(|change| self.own(group_id, Command::ChangeShard(change)))).await;
        if let Some(Err(error @ Error::Moved { redirect, .. })) = done.first()
            && redirect.group_id == group_id
        {
            // Another node leads: so it is for all of them.
            return Err(error.clone().into());
        }
        let results = done.into_iter().map(|result| match result {
            Ok(version) => ShardChangeResult { version, error: None },
            Err(error) => ShardChangeResult { version: 0, error: Some(error.to_proto()) },
        });
        Ok(Response::new(ChangeShardsResponse { results: results.collect() }))
    }

    async fn import_rows(&self, request: Request<ImportRowsRequest>) -> Result<Response<ImportRowsResponse>, Status> {
        let request = self.admit(request, Action::Operate).await?;
        let version = self.own(request.group_id, Command::ImportRows(request)).await?;
        Ok(Response::new(ImportRowsResponse { version }))
    }

    async fn read_shard(&self, request: Request<ReadShardRequest>) -> Result<Response<ReadShardResponse>, Status> {
        let request = self.admit(request, Action::Operate).await?;
        let view = self.group(request.group_id)?.read_barrier(deadline()).await?;
        Ok(Response::new(view.read_shard(&request)?))
    }

    async fn list_shards(&self, request: Request<ListShardsRequest>) -> Result<Response<ListShardsResponse>, Status> {
        let request = self.admit(request, Action::Operate).await?;
        let view = self.group(request.group_id)?.read_barrier(deadline()).await?;
        let (with_sizes, with_middles) = (request.with_sizes, request.with_middles);
        let mut list = view.list_shards(request)?;
        if with_sizes || with_middles {
            view.measure(&mut list.shards, with_middles).await?;
        }
        Ok(Response::new(list))
    }

    async fn raise_level(&self, request: Request<RaiseLevelRequest>) -> Result<Response<RaiseLevelResponse>, Status> {
        let request = self.admit(request, Action::Operate).await?;
        let feature_level = self.0.node.raise_level(request)?.into();
        Ok(Response::new(RaiseLevelResponse { feature_level }))
    }

    async fn rebuild_replica(&self, request: Request<RebuildReplicaRequest>) -> Result<Response<RebuildReplicaResponse>, Status> {
        let request = self.admit(request, Action::Operate).await?;
        self.0.node.rebuild_replica(request.group_id, request.ticket).await?;
        Ok(Response::new(RebuildReplicaResponse {}))
    }

    async fn drop_replica(&self, request: Request<DropReplicaRequest>) -> Result<Response<DropReplicaResponse>, Status> {
        let request = self.admit(request, Action::Operate).await?;
        self.0.node.drop_replica(&request).await?;
        Ok(Response::new(DropReplicaResponse {}))
    }

    async fn scrub(&self, request: Request<ScrubRequest>) -> Result<Response<ScrubResponse>, Status> {
        let request = self.admit(request, Action::Operate).await?;
        let scrub = Some(self.0.node.begin_scrub(request.bytes_per_s));
        Ok(Response::new(ScrubResponse { scrub }))
    }

    async fn flush(&self, request: Request<FlushRequest>) -> Result<Response<FlushResponse>, Status> {
        self.admit(request, Action::Operate).await?;
        self.0.node.flush().await?;
        Ok(Response::new(FlushResponse {}))
    }
}
