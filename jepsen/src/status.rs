//! What a node says of itself, asked over its public gRPC door.

use crate::cluster::ClusterError;
use metadb_proto::v1::node_admin_client::NodeAdminClient;
use metadb_proto::v1::{StatusRequest, StatusResponse};
use std::time::Duration;
use tonic::Code;
use tonic::metadata::MetadataValue;

/// A node that is well answers within this; one that is paused never does.
const ANSWER_WITHIN: Duration = Duration::from_millis(1000);

/// Asks the node at `address` (host:port) for its status.
///
/// # Errors
/// [`ClusterError::Refused`] if it denies the token; [`ClusterError::Unreachable`], with what went wrong.
pub async fn ask(address: &str, token: &str) -> Result<StatusResponse, ClusterError> {
    let unreachable = |message: String| ClusterError::Unreachable { message: format!("{address}: {message}") };
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| unreachable(error.to_string()))?
        .connect_timeout(ANSWER_WITHIN)
        .timeout(ANSWER_WITHIN);
    let channel = endpoint.connect().await.map_err(|error| unreachable(root_cause(&error)))?;
    let mut request = tonic::Request::new(StatusRequest::default());
    let bearer: MetadataValue<_> = format!("Bearer {token}").parse().map_err(|_| unreachable("the token is not ASCII".into()))?;
    request.metadata_mut().insert("authorization", bearer);
    let answer = NodeAdminClient::new(channel).status(request).await;
    answer.map(tonic::Response::into_inner).map_err(|status| {
        let code = status.code();
        if matches!(code, Code::Unauthenticated | Code::PermissionDenied) {
            ClusterError::Refused { message: format!("{address}: {}", status.message()) }
        } else if matches!(code, Code::DeadlineExceeded | Code::Cancelled) {
            unreachable(format!("no answer within {} ms", ANSWER_WITHIN.as_millis()))
        } else {
            unreachable(format!("{code}: {}", status.message()))
        }
    })
}

/// The innermost cause: what wraps it says only that there is one.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
