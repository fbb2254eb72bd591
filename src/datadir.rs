//! The data folder of a node: whom it belongs to, in which format, and that one process at a time uses it.
//!
//! `identity.toml` is written once, atomically, before anything else is; `lock` is held by the running process and freed by the
//! system however it ends. A folder of another cluster or of a newer format is refused before a byte in it is changed.
//!
//! Not here: what the folders inside mean. `log` and `data` are `metadb`'s, `content` is `object-gateway`'s.

use crate::failure::{Code, Failure};
use metadb_proto::principal::ClusterSecret;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

/// The format that this build writes, and the newest that it reads.
pub(crate) const FORMAT: u32 = 1;
/// Hex digits of a cluster id.
pub(crate) const CLUSTER_ID_DIGITS: usize = 32;

const IDENTITY: &str = "identity.toml";
const LOCK: &str = "lock";

/// Whom a folder belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    pub(crate) format: u32,
    pub(crate) cluster_id: String,
    pub(crate) node_id: u64,
    /// Tells whether a cluster secret is the one of this cluster, without telling the secret.
    pub(crate) secret_check: String,
}

/// The only part of an identity that every format has.
#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

impl Identity {
    /// Of a node that just got its id.
    pub(crate) fn new(cluster_id: String, node_id: u64, secret: &ClusterSecret) -> Self {
        let secret_check = secret_check(&cluster_id, secret);
        Identity { format: FORMAT, cluster_id, node_id, secret_check }
    }
}

fn secret_check(cluster_id: &str, secret: &ClusterSecret) -> String {
    let mut hash = Sha256::new();
    hash.update(b"cairn data folder ");
    hash.update(cluster_id.as_bytes());
    hash.update(secret.node_token(0).as_bytes());
    hex::encode(&hash.finalize()[..16])
}

/// An open data folder. The lock ends with it.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    identity: Option<Identity>,
    _lock: File,
}

impl DataDir {
    /// Opens a folder, made if it is not there, and locks it. `cluster_id` is the cluster that the settings ask for, if they do.
    pub(crate) fn open(path: &Path, cluster_id: Option<&str>, secret: &ClusterSecret) -> Result<Self, Failure> {
        // Looked at before anything is made or locked: a folder that is refused stays as it was.
        let identity = read_identity(path)?;
        if let Some(identity) = &identity {
            accept(path, identity, cluster_id, secret)?;
        }
        make_private(path)?;
        let lock = lock(path)?;
        // Another process may have claimed the folder between the look and the lock.
        let identity = read_identity(path)?;
        if let Some(identity) = &identity {
            accept(path, identity, cluster_id, secret)?;
        } else {
            refuse_unknown_contents(path)?;
        }
        Ok(DataDir { path: path.to_owned(), identity, _lock: lock })
    }

    /// Looks at a folder as [`DataDir::open`] would, and changes nothing: not even its lock is taken.
    pub(crate) fn look(path: &Path, cluster_id: Option<&str>, secret: &ClusterSecret) -> Result<Option<Identity>, Failure> {
        let identity = read_identity(path)?;
        match &identity {
            Some(identity) => accept(path, identity, cluster_id, secret)?,
            None if path.exists() => refuse_unknown_contents(path)?,
            None => {}
        }
        Ok(identity)
    }

    /// Whom it belongs to; nobody yet, if it is new.
    pub(crate) fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Gives a new folder to a node of a cluster, durably.
    pub(crate) fn claim(&mut self, identity: Identity) -> Result<(), Failure> {
        let text = toml::to_string(&identity).map_err(|error| Failure::failed(format!("the identity can't be encoded: {error}")))?;
        let text = format!("# Whom this folder belongs to. Written by cairn; a changed or lost line makes the folder unusable.\n{text}");
        write_durably(&self.path.join(IDENTITY), text.as_bytes())?;
        self.identity = Some(identity);
        Ok(())
    }

    /// A folder inside, made if it is not there.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.path.join(name);
        make_private(&path)?;
        Ok(path)
    }
}

/// Writes a file so that after a crash it has either its old content, or none, or the new one. Readable by its owner only.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let failed = |error: std::io::Error| Failure::io("write", path, &error);
    let draft = path.with_extension("draft");
    let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(&draft).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&draft, path).map_err(failed)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

/// Makes a folder that only its owner can look into, and its parents.
pub(crate) fn make_private(path: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| Failure::io("make the folder", path, &error).hint("choose a folder that you may write to, with --data"))
}

fn read_identity(path: &Path) -> Result<Option<Identity>, Failure> {
    let file = path.join(IDENTITY);
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::io("read", &file, &error)),
    };
    let damaged = |error: toml::de::Error| {
        Failure::failed(format!("{} is damaged: {}", file.display(), error.message()))
            .hint("restore the file from a backup, or give the node an empty folder: it then copies everything from the others")
    };
    // The format first: what else a newer build writes here can't be known.
    let FormatOnly { format } = toml::from_str(&text).map_err(damaged)?;
    if format > FORMAT {
        let message = format!("the data folder {} has format {format}, this build reads at most format {FORMAT}", path.display());
        return Err(
            Failure::failed(message).hint("run the newer build that wrote it, or choose another folder with --data; nothing was changed")
        );
    }
    toml::from_str(&text).map(Some).map_err(damaged)
}

fn accept(path: &Path, identity: &Identity, cluster_id: Option<&str>, secret: &ClusterSecret) -> Result<(), Failure> {
    let other_folder = "choose this cluster's own data folder, or an empty one, with --data; nothing was changed";
    if let Some(wanted) = cluster_id.filter(|wanted| *wanted != identity.cluster_id) {
        let message = format!("the data folder {} belongs to cluster {}, not to {wanted}", path.display(), identity.cluster_id);
        return Err(Failure::failed(message).hint(other_folder));
    }
    if secret_check(&identity.cluster_id, secret) != identity.secret_check {
        let message = format!(
            "the data folder {} belongs to node {} of cluster {}, which has another cluster secret",
            path.display(),
            identity.node_id,
            identity.cluster_id
        );
        return Err(Failure::failed(message).hint(other_folder));
    }
    Ok(())
}

/// A folder without an identity must be empty, but for the lock, a draft of the identity that a crash left, and what a new file
/// system comes with.
fn refuse_unknown_contents(path: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::io("read", path, &error);
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if !["lost+found", "identity.draft", LOCK].iter().any(|ours| name == *ours) {
            let message = format!("{} is no data folder of cairn, and it is not empty: it holds {}", path.display(), name.display());
            return Err(Failure::failed(message).hint("choose an empty folder with --data; nothing was changed"));
        }
    }
    Ok(())
}

fn lock(path: &Path) -> Result<File, Failure> {
    let file = path.join(LOCK);
    let mut lock =
        File::options().create(true).read(true).write(true).truncate(false).open(&file).map_err(|e| Failure::io("open", &file, &e))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = lock.read_to_string(&mut holder);
            let holder = holder.trim();
            let who = if holder.is_empty() { "another process".to_owned() } else { format!("process {holder}") };
            return Err(Failure::new(Code::Conflict, format!("the data folder {} is in use by {who}", path.display()))
                .hint("stop that process first, or choose another folder with --data"));
        }
        Err(TryLockError::Error(error)) => return Err(Failure::io("lock", &file, &error)),
    }
    // For the person who meets the lock; nothing depends on it.
    let _ = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| writeln!(lock, "{}", std::process::id()));
    Ok(lock)
}

#[cfg(test)]
mod tests;
