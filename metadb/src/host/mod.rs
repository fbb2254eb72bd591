//! Being a good host: what each tenant may take of a node, and who goes first when there is not enough for all.
//!
//! Every request passes [`admission`] on its way to a group: the framed stream, unary calls and calls in the process alike. Up to a limit
//! of requests in flight nobody waits, and a tenant that is alone may use everything. Past it requests wait in a line per tenant and are
//! taken by weight ([`fair`]). The limit is what makes the queue of the proposer short: what waits, waits here, where it is fair, and not
//! there, where it is first come first served. Each group has its own limits, so that one that lost its quorum holds nobody else up.
//!
//! Reads and writes wait in different lanes: a write holds its place for a sync and a round trip, a read for the processor only.

pub(crate) mod admission;
mod bucket;
mod ceiling;
mod fair;
mod load;

pub(crate) use admission::Admission;
pub(crate) use load::Load;

use ceiling::Ceilings;
use metadb_proto::settings::Settings;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// What all groups of a node share.
pub(crate) struct Host {
    settings: Settings,
    ceilings: Ceilings,
    /// Bytes of requests that wait at all doors of the node.
    waiting_bytes: AtomicUsize,
}

impl Host {
    /// A host with these settings.
    pub(crate) fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Host { settings, ceilings: Ceilings::new(), waiting_bytes: AtomicUsize::new(0) })
    }
}
