//! The gRPC doors of a node: tonic services over [`crate::node::Node`]. They establish the principal, call, and translate errors; they
//! decide nothing.

mod entrance;
mod kv;
mod node_admin;
mod peer;

use crate::node::Node;
use entrance::Entrance;
use metadb_proto::principal::Authenticate;
use metadb_proto::v1::kv_server::{Kv, KvServer};
use metadb_proto::v1::node_admin_server::{NodeAdmin, NodeAdminServer};
use metadb_proto::v1::peer_server::{Peer, PeerServer};
use std::sync::Arc;

/// The generated servers. Those of the simulator name their interceptor too.
#[cfg(not(madsim))]
mod served {
    pub(super) type Kv<T> = super::KvServer<T>;
    pub(super) type NodeAdmin<T> = super::NodeAdminServer<T>;
    pub(super) type Peer<T> = super::PeerServer<T>;
}
#[cfg(madsim)]
mod served {
    use tonic::codegen::IdentityInterceptor;
    pub(super) type Kv<T> = super::KvServer<T, IdentityInterceptor>;
    pub(super) type NodeAdmin<T> = super::NodeAdminServer<T, IdentityInterceptor>;
    pub(super) type Peer<T> = super::PeerServer<T, IdentityInterceptor>;
}

/// The doors of a node.
pub struct Doors {
    entrance: Entrance,
}

impl Doors {
    /// Doors to a node; whoever comes in is established by the authenticator.
    pub fn new(node: Arc<Node>, authenticator: Arc<dyn Authenticate>) -> Self {
        Doors { entrance: Entrance { node, authenticator } }
    }

    /// The door for data.
    #[must_use]
    pub fn kv(&self) -> served::Kv<impl Kv + use<>> {
        kv::KvDoor(self.entrance.clone()).server()
    }

    /// The door for operators: replicas, members, ownership.
    #[must_use]
    pub fn node_admin(&self) -> served::NodeAdmin<impl NodeAdmin + use<>> {
        node_admin::NodeAdminDoor(self.entrance.clone()).server()
    }

    /// The door for other nodes: Raft.
    #[must_use]
    pub fn peer(&self) -> served::Peer<impl Peer + use<>> {
        peer::PeerDoor(self.entrance.clone()).server()
    }
}
