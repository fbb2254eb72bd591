//! What every door needs: the node behind it, and who stands before it.

use crate::node::Node;
use metadb_proto::principal::Authenticate;
use metadb_proto::{Error, Principal};
use std::sync::Arc;
use tonic::metadata::MetadataMap;

/// What a door is made of.
#[derive(Clone)]
pub(super) struct Entrance {
    pub(super) node: Arc<Node>,
    pub(super) authenticator: Arc<dyn Authenticate>,
}

/// Who presents these metadata.
pub(super) async fn principal(entrance: &Entrance, metadata: &MetadataMap) -> Result<Principal, Error> {
    let missing = || Error::Unauthenticated { message: "the metadata entry `authorization` is missing or no text".to_owned() };
    let authorization = metadata.get("authorization").and_then(|value| value.to_str().ok()).ok_or_else(missing)?;
    entrance.authenticator.authenticate(authorization).await
}
