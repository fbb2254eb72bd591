//! The receiver's side: files grow chunk by chunk in the spool, each chunk compared with the manifest. What is there when a transfer
//! begins anew, after a broken connection or a restart, is compared in the same way, and counts as far as it is right.
//!
//! The manifest's file is durable before the first chunk is written, and a file of rows is synced and read back when it is complete. So
//! nothing is believed because of its name.

use super::depot::{Counts, Depot};
use super::manifest::{MANIFEST_BYTES_MAX, Manifest, SnapshotFile, id_of};
use super::outgoing::Outgoing;
use super::{SnapshotError, incoming_prefix};
use bytes::Bytes;
use metadb_engine::EngineError;
use std::sync::Arc;

/// What the name of a manifest ends in; it follows the snapshot's id.
const MANIFEST_SUFFIX: &str = "manifest";

/// A snapshot as it arrives.
pub(crate) struct Incoming {
    depot: Arc<Depot>,
    pub(crate) id: String,
    pub(crate) manifest: Manifest,
    /// Bytes of each file that are there and right.
    have: Vec<u64>,
}

pub(super) fn manifest_name(group_id: u32, id: &str) -> String {
    format!("{}{id}-{MANIFEST_SUFFIX}", incoming_prefix(group_id))
}

pub(super) fn file_name(group_id: u32, id: &str, file: usize) -> String {
    format!("{}{id}-{file:06}", incoming_prefix(group_id))
}

/// The manifest of a snapshot whose files are here; none: there is no such, or it does not read back.
pub(super) fn stored_manifest(depot: &Depot, group_id: u32, id: &str) -> Result<Option<Manifest>, EngineError> {
    let name = manifest_name(group_id, id);
    if depot.disk.len(&name)?.is_none() {
        return Ok(None);
    }
    let bytes = depot.disk.read(&name, 0, MANIFEST_BYTES_MAX)?;
    if id_of(&bytes) != id {
        return Ok(None);
    }
    Ok(Manifest::decode(bytes).ok().filter(|manifest| manifest.group_id == group_id))
}

/// The ids of snapshots of a group of which something is here.
fn ids(depot: &Depot, group_id: u32) -> Result<Vec<String>, EngineError> {
    let prefix = incoming_prefix(group_id);
    let names = depot.disk.list()?;
    let mut ids: Vec<_> = names.iter().filter_map(|name| Some(name.strip_prefix(&prefix)?.split('-').next()?.to_owned())).collect();
    ids.dedup();
    Ok(ids)
}

/// Removes what was received for a group, but for one snapshot whose manifest is whole. Whether that one is there.
pub(super) fn keep_only(depot: &Depot, group_id: u32, id: Option<&str>) -> Result<bool, EngineError> {
    let mut kept = false;
    for found in ids(depot, group_id)? {
        let keep = match id {
            Some(id) => id == found,
            None => !kept,
        };
        if keep && stored_manifest(depot, group_id, &found)?.is_some() {
            kept = true;
        } else {
            depot.remove_all(&format!("{}{found}-", incoming_prefix(group_id)))?;
        }
    }
    Ok(kept)
}

/// How much of a file is there and right; whatever is behind that is cut off.
pub(super) async fn verified(depot: &Depot, name: &str, file: &SnapshotFile, chunk_bytes: u32) -> Result<u64, EngineError> {
    let Some(length) = depot.disk.len(name)? else { return Ok(0) };
    let mut offset = 0;
    while let Some(chunk) = file.chunk_at(offset, chunk_bytes) {
        let bytes = depot.disk.read(name, offset, chunk.bytes)?;
        if bytes.len() != chunk.bytes || crc32c::crc32c(&bytes) != chunk.crc32c {
            break;
        }
        offset += chunk.bytes as u64;
        tokio::task::yield_now().await;
    }
    if offset < length {
        depot.disk.truncate(name, offset)?;
    }
    Ok(offset)
}

impl Incoming {
    /// Begins to receive a snapshot, or goes on with it. What else was received for the group is removed.
    pub(crate) async fn open(depot: &Arc<Depot>, encoded: Bytes) -> Result<Self, SnapshotError> {
        let id = id_of(&encoded);
        let manifest = Manifest::decode(encoded.clone())?;
        let group_id = manifest.group_id;
        if !keep_only(depot, group_id, Some(&id))? {
            let name = manifest_name(group_id, &id);
            depot.disk.append(&name, &encoded)?;
            depot.disk.sync(&name)?;
        }
        let mut have = Vec::new();
        for (number, file) in manifest.files.iter().enumerate() {
            let name = file_name(group_id, &id, number);
            have.push(verified(depot, &name, file, manifest.chunk_bytes).await?);
        }
        Ok(Incoming { depot: Arc::clone(depot), id, manifest, have })
    }

    /// Bytes of each file that are here.
    pub(crate) fn have(&self) -> &[u64] {
        &self.have
    }

    /// Bytes that are here, of all files.
    pub(crate) fn done_bytes(&self) -> u64 {
        self.have.iter().sum()
    }

    fn name(&self, file: usize) -> String {
        file_name(self.manifest.group_id, &self.id, file)
    }

    /// Takes a chunk, which must follow what is there. A whole file is synced and read back.
    pub(crate) async fn append(&mut self, file: usize, offset: u64, bytes: &[u8]) -> Result<(), SnapshotError> {
        let name = self.name(file);
        let corrupt = || SnapshotError::Corrupt { name: name.clone(), offset };
        let expected = self.manifest.files.get(file).filter(|_| self.have[file] == offset);
        let Some(chunk) = expected.and_then(|expected| expected.chunk_at(offset, self.manifest.chunk_bytes)) else {
            return Err(SnapshotError::OutOfOrder { file, offset });
        };
        if bytes.len() != chunk.bytes || crc32c::crc32c(bytes) != chunk.crc32c {
            self.depot.tell_rotten(&name, offset);
            return Err(corrupt());
        }
        self.depot.disk.append(&name, bytes)?;
        Counts::add(&self.depot.counts.received, bytes.len() as u64);
        self.have[file] += bytes.len() as u64;
        if self.have[file] == self.manifest.files[file].bytes {
            self.depot.disk.sync(&name)?;
            if self.hash(&name).await? != self.manifest.files[file].hash {
                self.depot.tell_rotten(&name, 0);
                self.depot.disk.remove(&name)?;
                self.have[file] = 0;
                return Err(corrupt());
            }
        }
        Ok(())
    }

    async fn hash(&self, name: &str) -> Result<[u8; 32], EngineError> {
        let (mut hasher, mut offset) = (blake3::Hasher::new(), 0);
        loop {
            let bytes = self.depot.disk.read(name, offset, self.manifest.chunk_bytes as usize)?;
            if bytes.is_empty() {
                return Ok(*hasher.finalize().as_bytes());
            }
            hasher.update(&bytes);
            offset += bytes.len() as u64;
            tokio::task::yield_now().await;
        }
    }

    /// Whether all of it is here.
    pub(crate) fn is_complete(&self) -> bool {
        self.have.iter().zip(&self.manifest.files).all(|(have, file)| *have == file.bytes)
    }
}

/// Takes all of a snapshot with no network between; its id.
pub(crate) async fn take_all(depot: &Arc<Depot>, from: &Outgoing) -> Result<String, SnapshotError> {
    let manifest = from.manifest().await?;
    let mut incoming = Incoming::open(depot, manifest.encode()).await?;
    for (number, file) in manifest.files.iter().enumerate() {
        while let Some(chunk) = file.chunk_at(incoming.have()[number], manifest.chunk_bytes) {
            incoming.append(number, chunk.offset, &from.read(number, chunk)?).await?;
        }
    }
    Ok(incoming.id)
}
