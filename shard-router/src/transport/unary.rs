//! One gRPC call per request.

use super::{Dial, ended, kv_client};
use crate::policy::Failure;
use metadb_proto::Error;
use metadb_proto::kv::{request, response};
use metadb_proto::v1::kv_client::KvClient;
use tokio::sync::Mutex;
use tonic::transport::Channel;

/// A channel to one node, opened when first needed.
pub(super) struct Unary {
    address: String,
    dial: Dial,
    client: Mutex<Option<KvClient<Channel>>>,
}

impl Unary {
    pub(super) fn new(address: String, dial: Dial) -> Self {
        Unary { address, dial, client: Mutex::new(None) }
    }

    async fn client(&self) -> Result<KvClient<Channel>, Error> {
        let mut client = self.client.lock().await;
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        let opened = kv_client(self.dial.channel(&self.address).await?);
        *client = Some(opened.clone());
        Ok(opened)
    }

    pub(super) async fn call(&self, body: request::Body, effects: bool) -> Result<response::Body, Failure> {
        let mut client = self.client().await.map_err(Failure::NotSent)?;
        let dial = &self.dial;
        let answer = match body {
            request::Body::Get(r) => client.get(dial.request(r)).await.map(|r| response::Body::Get(r.into_inner())),
            request::Body::MultiGet(r) => client.multi_get(dial.request(r)).await.map(|r| response::Body::MultiGet(r.into_inner())),
            request::Body::Scan(r) => client.scan(dial.request(r)).await.map(|r| response::Body::Scan(r.into_inner())),
            request::Body::Walk(r) => client.walk(dial.request(r)).await.map(|r| response::Body::Walk(r.into_inner())),
            request::Body::Transact(r) => client.transact(dial.request(r)).await.map(|r| response::Body::Transact(r.into_inner())),
        };
        answer.map_err(|status| {
            // Our own errors travel as details: those are answers. Anything else comes from the transport.
            if status.details().is_empty() {
                ended(&status, true, effects)
            } else {
                Failure::Answered(Error::from_status(&status, effects))
            }
        })
    }
}
