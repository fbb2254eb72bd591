//! The operations over a database in memory, reached through the router's transport within one process.

mod concurrent;
mod door;
mod files;
mod folders;
mod memory;
mod requests;
mod uploads;

use crate::model::{Content, ContentPart, NewVersion};
use crate::{Fs, Namespace};
use memory::Memory;
use metadb_proto::Principal;
use shard_router::{Local, Router, RouterConfig};
use std::sync::Arc;

const TENANT: u64 = 7;

/// A namespace over a fresh database.
fn fresh() -> (Namespace, Arc<Memory>) {
    let (fs, memory) = fresh_fs();
    (fs.namespace(TENANT).with_author("tester"), memory)
}

/// The namespaces over a fresh database.
fn fresh_fs() -> (Fs, Arc<Memory>) {
    let memory = Memory::with_tenant(TENANT);
    (over(Arc::clone(&memory)), memory)
}

/// The namespaces of one more process over a database.
fn over(kv: Arc<Memory>) -> Fs {
    let local = Local { node_id: 1, kv, principal: Principal::Node(1) };
    Fs::new(Router::new(RouterConfig { local: Some(local), ..RouterConfig::default() }))
}

/// A version with one content of its own.
fn version(etag: &str) -> NewVersion {
    let part = ContentPart { content_id: metadb_proto::seam::random_id(), size_bytes: 10, blake3: [9; 32], nodes: vec![1, 2] };
    NewVersion { content: Content(vec![part]), size: 10, etag: etag.into(), content_type: "text/plain".into(), ..NewVersion::default() }
}
