//! Opens store, log and spool of a node, and takes one of them out of the way that does not read back.
//!
//! Nothing is ever repaired or cut: what does not read back is set aside whole, after every replica that had a part in it went into
//! quarantine, durably. The replicas are then rebuilt from their peers. If there are none, what was set aside is the last copy.

use crate::config::NodeConfig;
use crate::datadir::DataDir;
use crate::failure::Failure;
use metadb::node::quarantine;
use metadb_engine::EngineError;
use metadb_engine::disk::{Disk, FileDisk};
use metadb_engine::log::{Log, LogOptions};
use metadb_engine::rocks::{RocksOptions, RocksStore};
use metadb_proto::seam;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::sync::Arc;

/// What the names of folders begin with that were set aside.
const ASIDE: &str = "aside-";
const STORE: &str = "data";
const LOG: &str = "log";

/// The parts of a node that are on disk.
pub(super) struct Opened {
    pub(super) store: Arc<RocksStore>,
    pub(super) log: Log,
    pub(super) spool: Arc<FileDisk>,
}

/// Opens them.
pub(super) async fn open(config: &NodeConfig, folder: &DataDir) -> Result<Opened, Failure> {
    let spool = FileDisk::open(folder.folder("spool")?).map_err(|error| failed("opening the spool", &error))?;
    let reading = |error| failed("reading the quarantine", &error);
    if quarantine::is_condemned(&*spool).map_err(reading)? {
        tracing::warn!("the storage of this node does not read back and no group counts on it: it is set aside, and the node begins anew");
        set_aside(&config.data, &[STORE, LOG])?;
        quarantine::begin_anew(&*spool).map_err(reading)?;
    } else if !quarantine::has_any(&*spool).map_err(reading)? {
        clear_aside(&config.data);
    }
    let disk = FileDisk::open(folder.folder(LOG)?).map_err(|error| failed("opening the log", &error))?;
    let store = match open_store(config, folder) {
        Err(error @ EngineError::Corrupt { .. }) => {
            rescue(&error, &disk, &spool).await?;
            set_aside(&config.data, &[STORE])?;
            open_store(config, folder)
        }
        opened => opened,
    };
    let store = store.map_err(|error| failed("opening the data", &error))?;
    let log = quarantine::open_log(disk, LogOptions::default(), &*store, &*spool).await;
    Ok(Opened { store, log: log.map_err(|error| failed("opening the log", &error))?, spool })
}

fn open_store(config: &NodeConfig, folder: &DataDir) -> Result<Arc<RocksStore>, EngineError> {
    let mib = |mib: u64| usize::try_from(mib << 20).unwrap_or(usize::MAX);
    let options = RocksOptions {
        block_cache_bytes: mib(config.storage.block_cache_mib),
        memtable_bytes: mib(config.storage.write_buffer_mib),
        ..RocksOptions::default()
    };
    let io = |failure: Failure| EngineError::Io { operation: "open", path: STORE.to_owned(), message: failure.to_string() };
    RocksStore::open(&folder.folder(STORE).map_err(io)?, &options)
}

/// Before a store that does not open is set aside: the log tells which replicas there were.
async fn rescue(error: &EngineError, disk: &Arc<FileDisk>, spool: &FileDisk) -> Result<(), Failure> {
    let log = Log::open(Arc::clone(disk) as Arc<dyn Disk>, LogOptions::default()).await;
    let log = log.map_err(|_| failed("opening the data", error))?;
    let replicas = log.groups();
    log.close().await.map_err(|error| failed("closing the log", &error))?;
    tracing::error!(%error, ?replicas, "the data of this node do not read back: they are set aside, and all replicas go into quarantine");
    quarantine::quarantine_all(spool, &replicas, &format!("the node's data: {error}"))
        .map_err(|error| failed("writing the quarantine", &error))
}

/// Gives folders of the data folder names under which nothing finds them.
fn set_aside(data: &Path, names: &[&str]) -> Result<(), Failure> {
    let stamp = seam::unix_ms();
    for name in names {
        let (from, to) = (data.join(name), data.join(format!("{ASIDE}{stamp}-{name}")));
        match std::fs::rename(&from, &to) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Failure::io("set aside", &from, &error)),
            Err(_) => {}
            Ok(()) => tracing::warn!(kept = %to.display(), "set aside"),
        }
    }
    let synced = std::fs::File::open(data).and_then(|folder| folder.sync_all());
    synced.map_err(|error| Failure::io("sync", data, &error))
}

/// Removes what was set aside at an earlier start: nothing is in quarantine any more, so every group has a majority without it.
fn clear_aside(data: &Path) {
    let entries = std::fs::read_dir(data).into_iter().flatten().filter_map(Result::ok);
    for path in entries.map(|entry| entry.path()) {
        let is_aside = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(ASIDE));
        if is_aside && path.is_dir() {
            tracing::info!(path = %path.display(), "removes what was set aside before; the node is whole");
            if let Err(error) = std::fs::remove_dir_all(&path) {
                tracing::warn!(path = %path.display(), %error, "what was set aside can't be removed");
            }
        }
    }
}

/// Puts a new process in the place of this one, with its arguments and environment. Returns only if that can't be done.
pub(super) fn start_again() -> Failure {
    let error = match std::env::current_exe() {
        Ok(program) => std::process::Command::new(program).args(std::env::args_os().skip(1)).exec(),
        Err(error) => error,
    };
    Failure::failed(format!("the storage of this node is to be replaced, and the node can't start itself anew: {error}"))
        .hint("start it again: it sets the bad storage aside and is rebuilt from its peers")
}

fn failed(what: &str, error: &EngineError) -> Failure {
    let failure = Failure::failed(format!("{what}: {error}"));
    match error {
        EngineError::Full { .. } => failure.hint("make room on the disk, then start the node again"),
        EngineError::Corrupt { .. } => failure.hint(
            "neither data nor log of this node read back: move its data folder away and start with an empty one under another address, and \
             replace the node; what is in the old folder may be the last copy if the other nodes are lost too",
        ),
        EngineError::Foreign { .. } | EngineError::Io { .. } | EngineError::Stopped { .. } => failure,
    }
}
