//! What a router is told at its start, and the limits that hold inside it.

use metadb_proto::kv::Kv;
use metadb_proto::{Error, Principal, limits};
use std::sync::Arc;
use std::time::Duration;

/// The node that lives in the same process: asked directly, without a socket.
#[derive(Clone)]
pub struct Local {
    /// Its id.
    pub node_id: u64,
    /// Itself.
    pub kv: Arc<dyn Kv>,
    /// On whose behalf the router asks it.
    pub principal: Principal,
}

/// How requests travel to other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// One stream per node; what the process asks of a node at a moment travels in one frame.
    #[default]
    Framed,
    /// One gRPC call per request, as a foreign client does it.
    Unary,
}

/// Settings of a [`crate::Router`].
#[derive(Clone)]
pub struct RouterConfig {
    /// Nodes to ask first, as host:port of their gRPC doors.
    pub seeds: Vec<String>,
    /// What is presented as `authorization: Bearer <token>`. Never printed.
    pub token: String,
    /// The node of this process, if there is one.
    pub local: Option<Local>,
    /// How requests travel to other nodes.
    pub transport: Transport,
    /// How long a request may take when the client names no deadline.
    pub deadline: Duration,
    /// How long one attempt may stay unanswered before another replica is asked. Retries carry the same request id.
    pub attempt_timeout: Duration,
    /// How long connecting to a node may take.
    pub connect_timeout: Duration,
    /// Most requests that wait for an answer of one node; more queue up.
    pub in_flight_per_node: usize,
    /// Most tenants whose routes are remembered. A tenant with one shard takes about 200 bytes.
    pub cached_tenants: usize,
}

impl Default for RouterConfig {
    fn default() -> Self {
        RouterConfig {
            seeds: Vec::new(),
            token: String::new(),
            local: None,
            transport: Transport::Framed,
            deadline: limits::DEFAULT_DEADLINE,
            attempt_timeout: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(1),
            in_flight_per_node: 8192,
            cached_tenants: 50_000,
        }
    }
}

impl RouterConfig {
    /// Checks that the settings make sense together.
    ///
    /// # Errors
    /// [`Error::Invalid`], naming the setting.
    pub fn validate(&self) -> Result<(), Error> {
        if self.seeds.is_empty() && self.local.is_none() {
            return Err(Error::invalid("seeds", "at least one address, unless a node lives in the process", "none"));
        }
        if self.deadline > limits::MAX_DEADLINE || self.deadline.is_zero() {
            let limit = format!("more than 0, at most {} ms", limits::MAX_DEADLINE.as_millis());
            return Err(Error::invalid("deadline", limit, format!("{} ms", self.deadline.as_millis())));
        }
        for (field, value) in [("in_flight_per_node", self.in_flight_per_node), ("cached_tenants", self.cached_tenants)] {
            if value == 0 {
                return Err(Error::invalid(field, "at least 1", "0"));
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for RouterConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RouterConfig")
            .field("seeds", &self.seeds)
            .field("local", &self.local.as_ref().map(|local| local.node_id))
            .field("transport", &self.transport)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
