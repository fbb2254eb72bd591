//! Replicas that can't be trusted: what is remembered of them, durably, beside store and log.
//!
//! A quarantined replica serves nothing, votes for nobody and leads nothing, whatever restarts in between: it may have forgotten a vote
//! or an entry that it acknowledged. It is wiped only when it is told, under the ticket of this very quarantine, that the group's members
//! go without it; then it is no longer known here, and may be made and added anew.
//!
//! A mark is a file of the spool, `quarantine-<group>`: `crc32c u32, ticket u64, scope u8, released u8, reason`, numbers big-endian.

use bytes::{Buf as _, BufMut as _, Bytes};
use metadb_engine::EngineError;
use metadb_engine::Store;
use metadb_engine::disk::Disk;
use metadb_engine::log::{Log, LogOptions};
use metadb_proto::seam;
use std::collections::BTreeMap;
use std::sync::Arc;

const PREFIX: &str = "quarantine-";
const DRAFT: &str = ".draft";
/// Longest reason that is kept, in bytes.
const REASON_BYTES: usize = 1 << 10;
/// The ticket of a mark that does not read back itself.
const UNREADABLE: u64 = 1;

/// What is in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// What the node has of the group.
    Replica = 1,
    /// The node's store or log as a whole: it is replaced when no group counts on this node any more.
    Node = 2,
}

/// Why a replica is not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Names this quarantine.
    pub(crate) ticket: u64,
    pub(crate) scope: Scope,
    /// Whether the group's members go without this node: what is here can be wiped.
    pub(crate) released: bool,
    pub(crate) reason: String,
}

impl Mark {
    /// A new quarantine.
    pub(crate) fn new(scope: Scope, reason: impl Into<String>) -> Self {
        let mut reason: String = reason.into();
        let end = (0..=REASON_BYTES.min(reason.len())).rev().find(|at| reason.is_char_boundary(*at)).unwrap_or(0);
        reason.truncate(end);
        // Neither 0, which is none, nor the one of marks that can't be read.
        Mark { ticket: seam::random_u64().max(UNREADABLE + 1), scope, released: false, reason }
    }

    /// Whether it is what was once written down.
    pub(super) fn reads_back(&self) -> bool {
        self.ticket != UNREADABLE
    }

    fn encode(&self) -> Bytes {
        let mut body = Vec::with_capacity(14 + self.reason.len());
        body.put_u32(0);
        body.put_u64(self.ticket);
        body.put_u8(self.scope as u8);
        body.put_u8(self.released.into());
        body.put_slice(self.reason.as_bytes());
        let crc = crc32c::crc32c(&body[4..]);
        body[..4].copy_from_slice(&crc.to_be_bytes());
        body.into()
    }

    /// From its bytes. Those that don't read back are a quarantine too.
    fn decode(bytes: &[u8]) -> Self {
        let read = || {
            let mut rest = bytes;
            let crc = rest.try_get_u32().ok()?;
            if crc32c::crc32c(rest) != crc {
                return None;
            }
            let ticket = rest.try_get_u64().ok()?;
            let scope = match rest.try_get_u8().ok()? {
                1 => Scope::Replica,
                2 => Scope::Node,
                _ => return None,
            };
            let released = rest.try_get_u8().ok()? != 0;
            Some(Mark { ticket, scope, released, reason: String::from_utf8_lossy(rest).into_owned() })
        };
        let reason = "the mark of its quarantine does not read back".to_owned();
        read().unwrap_or(Mark { ticket: UNREADABLE, scope: Scope::Replica, released: false, reason })
    }
}

fn name(group_id: u32) -> String {
    format!("{PREFIX}{group_id:010}")
}

/// All marks, by group.
pub(crate) fn load(spool: &dyn Disk) -> Result<BTreeMap<u32, Mark>, EngineError> {
    let mut marks = BTreeMap::new();
    for file in spool.list()? {
        let Some(group_id) = file.strip_prefix(PREFIX).and_then(|digits| digits.parse().ok()) else { continue };
        let length = spool.len(&file)?.unwrap_or(0);
        let bytes = spool.read(&file, 0, usize::try_from(length).unwrap_or(usize::MAX))?;
        marks.insert(group_id, Mark::decode(&bytes));
    }
    Ok(marks)
}

/// Keeps a mark, durably, in place of the one before.
pub(crate) fn keep(spool: &dyn Disk, group_id: u32, mark: &Mark) -> Result<(), EngineError> {
    let (name, draft) = (name(group_id), name(group_id) + DRAFT);
    spool.remove(&draft)?;
    spool.append(&draft, &mark.encode())?;
    spool.sync(&draft)?;
    spool.rename(&draft, &name)
}

/// Forgets a mark, durably.
pub(crate) fn forget(spool: &dyn Disk, group_id: u32) -> Result<(), EngineError> {
    spool.remove(&name(group_id))
}

/// Opens the log of a node. One in which something that was durable does not read back is set aside, never cut and never repaired: every
/// replica of the node goes into quarantine first, since any of them may have lost a vote or an entry, and a new log is begun.
///
/// # Errors
/// [`EngineError`]: what keeps the log from being opened. [`EngineError::Corrupt`] if the store does not tell which replicas there are.
pub async fn open_log(disk: Arc<dyn Disk>, options: LogOptions, store: &dyn Store, spool: &dyn Disk) -> Result<Log, EngineError> {
    let error = match Log::open(Arc::clone(&disk), options.clone()).await {
        Err(error @ EngineError::Corrupt { .. }) => error,
        opened => return opened,
    };
    let replicas = crate::raft::snapshot::marked_replicas(store).map_err(|_| error.clone())?;
    tracing::error!(%error, ?replicas, "the log does not read back: all replicas of this node go into quarantine and are rebuilt from their peers; the old log is kept beside the new one");
    quarantine_all(spool, &replicas, &format!("the node's log: {error}"))?;
    metadb_engine::log::set_aside(&*disk, &seam::unix_ms().to_string())?;
    Log::open(disk, options).await
}

/// Marks replicas whose log or store is about to be replaced by an empty one. A mark that is there stays.
///
/// # Errors
/// [`EngineError`]: the marks are not durable, and nothing may be replaced.
pub fn quarantine_all(spool: &dyn Disk, replicas: &[u32], reason: &str) -> Result<(), EngineError> {
    let known = load(spool)?;
    for group_id in replicas.iter().filter(|group_id| !known.contains_key(group_id)) {
        keep(spool, *group_id, &Mark::new(Scope::Replica, reason))?;
    }
    Ok(())
}

/// Whether store and log as a whole are condemned, and no group counts on this node any more: they are to be replaced by empty ones.
///
/// # Errors
/// [`EngineError`].
pub fn is_condemned(spool: &dyn Disk) -> Result<bool, EngineError> {
    let marks = load(spool)?;
    Ok(marks.values().any(|mark| mark.scope == Scope::Node) && marks.values().all(|mark| mark.released))
}

/// Whether any replica is in quarantine.
///
/// # Errors
/// [`EngineError`].
pub fn has_any(spool: &dyn Disk) -> Result<bool, EngineError> {
    Ok(!load(spool)?.is_empty())
}

/// After store and log were replaced by empty ones: forgets the quarantines.
///
/// # Errors
/// [`EngineError`].
pub fn begin_anew(spool: &dyn Disk) -> Result<(), EngineError> {
    for group_id in load(spool)?.into_keys() {
        forget(spool, group_id)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use metadb_engine::sim::SimDisk;

    #[test]
    fn marks_outlive_a_crash_and_rot_is_a_mark_too() {
        let disk = SimDisk::new(1);
        let mark = Mark::new(Scope::Node, "a rotten block");
        keep(&*disk, 7, &Mark { released: true, ..mark.clone() }).expect("it keeps");
        keep(&*disk, 7, &mark).expect("it keeps");
        keep(&*disk, 8, &Mark::new(Scope::Replica, "x".repeat(5000))).expect("it keeps");
        disk.crash(metadb_engine::sim::Kind::PowerLoss);
        let marks = load(&*disk).expect("they load");
        assert_eq!(marks[&7], mark);
        assert_eq!(marks[&8].reason.len(), REASON_BYTES);
        for offset in 0..mark.encode().len() as u64 {
            assert!(disk.flip(&name(7), offset, 1));
            assert_eq!(load(&*disk).expect("they load")[&7].ticket, UNREADABLE, "at {offset}");
            assert!(disk.flip(&name(7), offset, 1));
        }
        forget(&*disk, 7).expect("it forgets");
        assert_eq!(load(&*disk).expect("they load").into_keys().collect::<Vec<_>>(), [8]);
    }

    #[test]
    fn a_node_is_replaced_only_when_no_group_counts_on_it() {
        let disk = SimDisk::new(1);
        assert!(!is_condemned(&*disk).expect("it reads"));
        let mut mark = Mark::new(Scope::Node, "a rotten block");
        keep(&*disk, 1, &mark).expect("it keeps");
        keep(&*disk, 2, &Mark { released: true, ..mark.clone() }).expect("it keeps");
        assert!(!is_condemned(&*disk).expect("it reads"));
        mark.released = true;
        keep(&*disk, 1, &mark).expect("it keeps");
        assert!(is_condemned(&*disk).expect("it reads"));
        begin_anew(&*disk).expect("it forgets");
        assert!(!is_condemned(&*disk).expect("it reads"));
    }
}
