//! What is read when all faults are over: every register once more, all keys written once, and the whole tree.

use super::{Client, once, registers};
use crate::verdict::Final;
use bytes::Bytes;
use checkers::tree::{Entry, Place, ROOT};
use fs_layer::{Fs, ListOptions, Namespace, NodeKind};
use metadb_proto::Error;
use shard_router::Scan;
use std::collections::BTreeSet;

/// Reads everything; what can't be read is told.
pub async fn all(client: &Client, last: &mut Final) -> Vec<String> {
    let mut problems = Vec::new();
    let keys: BTreeSet<String> = client.shared.registers.lock().operations().iter().map(|o| o.key.clone()).collect();
    for key in keys {
        if let Some((tenant, key)) = key.split_once('/')
            && let Ok(tenant_id) = tenant.parse()
        {
            registers::read(client, tenant_id, key).await;
        }
    }
    for tenant_id in &client.tenants {
        problems.extend(written_once(client, *tenant_id, last).await.err().map(|error| format!("scan of tenant {tenant_id}: {error}")));
    }
    match Box::pin(super::lists::read_all(client)).await {
        Ok(lists) => last.lists = lists,
        Err(error) => problems.push(format!("lists: {error}")),
    }
    let namespace = Fs::new(client.routers[0].clone()).namespace(client.tenants[0]);
    problems.extend(Box::pin(walk(client, &namespace, last)).await.err().map(|error| format!("tree: {error}")));
    problems
}

async fn written_once(client: &Client, tenant_id: u64, last: &mut Final) -> Result<(), Error> {
    let tenant = client.routers[0].tenant(tenant_id);
    let (start, end) = (Bytes::from_static(once::PREFIX.as_bytes()), Bytes::from_static(b"once0"));
    let mut continuation = Bytes::new();
    loop {
        // Pages that are not whole: continuation is part of what is tested.
        let scan = Scan { start: start.clone(), end: end.clone(), limit: 37, continuation, ..Scan::default() };
        let page = tenant.scan(scan).await?;
        for row in page.rows {
            let value = <[u8; 8]>::try_from(row.value.as_ref()).map_or(u64::MAX, u64::from_le_bytes);
            last.once.insert(format!("{tenant_id}/{}", String::from_utf8_lossy(&row.key)), value);
        }
        continuation = page.continuation;
        if continuation.is_empty() {
            return Ok(());
        }
    }
}

/// Lists every folder that was ever acknowledged or is found on the way, and takes each entry's mark from its node.
async fn walk(client: &Client, namespace: &Namespace, last: &mut Final) -> Result<(), Error> {
    let mut open: BTreeSet<u64> = client.shared.folders.lock().iter().copied().chain([ROOT]).collect();
    let mut done = BTreeSet::new();
    while let Some(folder) = open.pop_first() {
        if !done.insert(folder) {
            continue;
        }
        let mut continuation = None;
        loop {
            let options = ListOptions { continuation: continuation.take(), limit: 23, ..ListOptions::default() };
            let listing = match namespace.list(folder, options).await {
                Ok(listing) => listing,
                Err(Error::NotFound { .. }) => break,
                Err(error) => return Err(error),
            };
            for entry in listing.entries {
                let is_folder = entry.kind != NodeKind::File;
                if is_folder {
                    open.insert(entry.id);
                }
                let node = Box::pin(namespace.stat(entry.id)).await?;
                let place = Place { folder, name: entry.name };
                if (node.parent, &node.name) != (place.folder, &place.name) {
                    let told =
                        format!("entry {place:?} leads to node {}, which says that it is at {}, {:?}", node.id, node.parent, node.name);
                    client.shared.unexpected.lock().push(told);
                }
                last.entries.push(Entry { place, id: entry.id, mark: node.owner, folder: is_folder });
            }
            continuation = listing.continuation;
            if continuation.is_none() {
                break;
            }
        }
    }
    Ok(())
}
