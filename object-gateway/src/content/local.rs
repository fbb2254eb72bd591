//! One node's own copies: files that are written once, read often, never changed.
//!
//! ```text
//! FORMAT              which cluster's, in which format
//! data/<2 hex>/<id>   contents, spread by the first byte of their random ids
//! temp/               being written; emptied at start
//! todo/               debts (see `debts`)
//! aside/              copies that failed a checksum, kept for a person to look at
//! ```
//! A content appears under `data` complete and durable or not at all. Blocking calls run on the blocking pool, one chunk at a time, so
//! that no thread waits for a network.

use super::format::{self, Chunk, FOOTER_BYTES, FRAME_BYTES, Footer, HEADER_BYTES, Header, Malformed};
use super::limits::CHUNK_BYTES;
use super::room::Room;
use metadb_proto::{Error, seam};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes after which a file being written is synced, so that the last sync is short.
const SYNC_EVERY_BYTES: u64 = 64 << 20;

/// Why a copy could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LocalError {
    #[error("there is no copy here")]
    Missing,
    #[error("the copy is corrupt: {0}")]
    Corrupt(#[from] Malformed),
    #[error("{0}")]
    Full(String),
    #[error("the disk answered: {0}")]
    Io(io::Error),
}

impl From<io::Error> for LocalError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::NotFound {
            LocalError::Missing
        } else if error.kind() == io::ErrorKind::UnexpectedEof {
            LocalError::Corrupt(Malformed("the file ends early".into()))
        } else if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            LocalError::Full(format!("the disk of this node's contents is full: {error}"))
        } else {
            LocalError::Io(error)
        }
    }
}

/// What a file says of itself.
pub(crate) struct Look {
    pub(crate) header: Header,
    pub(crate) changed_at_ms: u64,
    pub(crate) file_bytes: u64,
}

/// The folder of content files.
pub(crate) struct LocalStore {
    root: PathBuf,
    cluster_id: [u8; 16],
    room: Arc<dyn Room>,
}

impl LocalStore {
    /// Opens or makes the folder, removes what an earlier process left half written.
    pub(crate) fn open(root: &Path, cluster_id: [u8; 16], room: Arc<dyn Room>) -> Result<Self, Error> {
        let store = LocalStore { root: root.to_owned(), cluster_id, room };
        store.prepare().map_err(|e| Error::internal(format!("content folder {}: {e}", root.display())))?;
        store.check_marker()?;
        store.clean().map_err(|e| Error::internal(format!("content folder {}: {e}", root.display())))?;
        Ok(store)
    }

    fn prepare(&self) -> io::Result<()> {
        for name in ["data", "temp", "todo", "aside"] {
            fs::create_dir_all(self.root.join(name))?;
        }
        for shard in 0..=u8::MAX {
            fs::create_dir_all(self.shard(shard))?;
        }
        sync_folder(&self.root.join("data"))?;
        // The folder itself may be new: without this, losing power could take all contents with it.
        sync_folder(&self.root.canonicalize()?.join(".."))
    }

    fn check_marker(&self) -> Result<(), Error> {
        let path = self.root.join("FORMAT");
        let wanted = format!("cairn contents\nformat {}\ncluster {}\n", format::FORMAT, hex::encode(self.cluster_id));
        let io_error = |e: io::Error| Error::internal(format!("{}: {e}", path.display()));
        match fs::read_to_string(&path) {
            Ok(found) if found == wanted => Ok(()),
            Ok(found) => Err(Error::invalid("content folder", format!("{wanted:?}"), format!("{found:?} in {}", path.display()))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => write_durably(&path, wanted.as_bytes()).map_err(io_error),
            Err(e) => Err(io_error(e)),
        }
    }

    fn clean(&self) -> io::Result<()> {
        let mut removed = 0_u32;
        for entry in fs::read_dir(self.root.join("temp"))? {
            fs::remove_file(entry?.path())?;
            removed += 1;
        }
        if removed > 0 {
            tracing::info!(removed, "removed contents that were never completed");
        }
        sync_folder(&self.root)
    }

    pub(crate) fn header(&self, tenant_id: u64, content_id: [u8; 16]) -> Header {
        Header { cluster_id: self.cluster_id, tenant_id, content_id }
    }

    /// Refuses what there is no room for.
    pub(crate) fn require_room(&self) -> Result<(), LocalError> {
        self.room.require().map_err(LocalError::Full)
    }

    /// Where debts are kept.
    pub(crate) fn todo_folder(&self) -> PathBuf {
        self.root.join("todo")
    }

    fn shard(&self, shard: u8) -> PathBuf {
        self.root.join("data").join(format!("{shard:02x}"))
    }

    fn path(&self, content_id: &[u8; 16]) -> PathBuf {
        self.shard(content_id[0]).join(hex::encode(content_id))
    }

    fn aside(&self, content_id: &[u8; 16]) -> PathBuf {
        self.root.join("aside").join(format!("{}.{:016x}", hex::encode(content_id), seam::random_u64()))
    }

    /// A copy in the making.
    pub(crate) fn writer(self: &Arc<Self>, tenant_id: u64, content_id: [u8; 16]) -> LocalWriter {
        let temp = self.root.join("temp").join(format!("{}.{:016x}", hex::encode(content_id), seam::random_u64()));
        let file = FileWriter {
            store: Arc::clone(self),
            header: self.header(tenant_id, content_id),
            temp,
            target: self.path(&content_id),
            file: None,
            next_index: 0,
            written: 0,
            unsynced: 0,
        };
        LocalWriter { file: Some(file), pending: None }
    }

    /// Opens a copy after checking that it says of itself to be exactly this content.
    pub(crate) async fn reader(&self, tenant_id: u64, content_id: [u8; 16], expected: Footer) -> Result<LocalReader, LocalError> {
        let (path, header) = (self.path(&content_id), self.header(tenant_id, content_id));
        blocking(move || open_checked(&path, header, expected)).await
    }

    pub(crate) async fn delete(&self, tenant_id: u64, content_id: [u8; 16]) -> Result<bool, LocalError> {
        let (path, header) = (self.path(&content_id), self.header(tenant_id, content_id));
        let aside = self.aside(&content_id);
        blocking(move || {
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(e) => return Err(e.into()),
            };
            match read_header(&file) {
                Ok(found) if found == header => {}
                Ok(_) => return Err(Malformed("the header names another content".into()).into()),
                // It can't say whose it is, and nobody can read it: kept for a person to look at, gone from here.
                Err(LocalError::Corrupt(_)) => fs::hard_link(&path, &aside)?,
                Err(error) => return Err(error),
            }
            fs::remove_file(&path)?;
            sync_folder(path.parent().unwrap_or(&path))?;
            Ok(true)
        })
        .await
    }

    /// Keeps a bad copy for a person to look at: it gets a second name, its own is about to be given to a good one. `false` if there
    /// is none any more.
    pub(crate) async fn set_aside(&self, content_id: [u8; 16]) -> Result<bool, LocalError> {
        let (from, to) = (self.path(&content_id), self.aside(&content_id));
        blocking(move || match fs::hard_link(&from, &to) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e.into()),
        })
        .await
    }

    /// The ids of all contents that begin with this byte.
    pub(crate) async fn ids(&self, shard: u8) -> Result<Vec<[u8; 16]>, LocalError> {
        let folder = self.shard(shard);
        blocking(move || {
            let mut ids = Vec::new();
            for entry in fs::read_dir(folder)? {
                let name = entry?.file_name();
                let id = name.to_str().and_then(|name| hex::decode(name).ok()).and_then(|id| id.try_into().ok());
                ids.extend::<Option<[u8; 16]>>(id);
            }
            Ok(ids)
        })
        .await
    }

    /// What a file says of itself by its first bytes and by the file system, without reading the rest.
    pub(crate) async fn look(&self, content_id: [u8; 16]) -> Result<Look, LocalError> {
        let path = self.path(&content_id);
        blocking(move || {
            let file = File::open(&path)?;
            let meta = file.metadata()?;
            let changed = meta.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let changed_at_ms = u64::try_from(changed.as_millis()).unwrap_or(u64::MAX);
            Ok(Look { header: read_header(&file)?, changed_at_ms, file_bytes: meta.len() })
        })
        .await
    }

    /// Whose content a copy's header says it is.
    pub(crate) async fn tenant_of(&self, content_id: [u8; 16]) -> Result<u64, LocalError> {
        let path = self.path(&content_id);
        blocking(move || Ok(read_header(&File::open(&path)?)?.tenant_id)).await
    }

    /// Verifies every byte of a copy; tells whose it is and what it is.
    pub(crate) async fn verify(&self, content_id: [u8; 16]) -> Result<(u64, Footer), LocalError> {
        let (path, cluster_id) = (self.path(&content_id), self.cluster_id);
        blocking(move || verify_file(&path, cluster_id, content_id)).await
    }

    /// Verifies a part of a copy: from a chunk on, until so many bytes were read; how many they were and at which chunk to go on. A copy
    /// that is read in one piece is verified as [`Local::verify`] does, a longer one by the checksums of its chunks.
    pub(crate) async fn verify_part(&self, content_id: [u8; 16], from: u64, max_bytes: u64) -> Result<(u64, Option<u64>), LocalError> {
        let (path, cluster_id) = (self.path(&content_id), self.cluster_id);
        blocking(move || {
            let file = File::open(&path)?;
            let footer = read_footer(&file, file.metadata()?.len())?;
            if from == 0 && footer.size_bytes <= max_bytes {
                let (_, footer) = verify_file(&path, cluster_id, content_id)?;
                return Ok((footer.size_bytes, None));
            }
            let mut bytes = 0;
            for index in from..format::chunk_count(footer.size_bytes) {
                if bytes >= max_bytes {
                    return Ok((bytes, Some(index)));
                }
                bytes += read_chunk(&file, index, footer.size_bytes)?.bytes.len() as u64;
            }
            Ok((bytes, None))
        })
        .await
    }
}

fn verify_file(path: &Path, cluster_id: [u8; 16], content_id: [u8; 16]) -> Result<(u64, Footer), LocalError> {
    let file = File::open(path)?;
    let header = read_header(&file)?;
    if header.cluster_id != cluster_id || header.content_id != content_id {
        return Err(Malformed("the header names another content".into()).into());
    }
    let footer = read_footer(&file, file.metadata()?.len())?;
    let mut hasher = blake3::Hasher::new();
    for index in 0..format::chunk_count(footer.size_bytes) {
        hasher.update(&read_chunk(&file, index, footer.size_bytes)?.bytes);
    }
    if hasher.finalize().as_bytes() != &footer.blake3 {
        return Err(Malformed("the bytes do not have the BLAKE3 of the footer".into()).into());
    }
    Ok((header.tenant_id, footer))
}

fn open_checked(path: &Path, header: Header, expected: Footer) -> Result<LocalReader, LocalError> {
    let file = File::open(path)?;
    check_header(&file, header)?;
    let found = read_footer(&file, file.metadata()?.len())?;
    if found != expected {
        return Err(Malformed(format!(
            "the footer tells {} bytes with another checksum than the expected {} bytes",
            found.size_bytes, expected.size_bytes
        ))
        .into());
    }
    Ok(LocalReader { file: Arc::new(file), size_bytes: expected.size_bytes })
}

fn read_header(file: &File) -> Result<Header, LocalError> {
    let mut bytes = [0; HEADER_BYTES];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(Header::decode(&bytes)?)
}

fn check_header(file: &File, expected: Header) -> Result<(), LocalError> {
    if read_header(file)? == expected { Ok(()) } else { Err(Malformed("the header names another content".into()).into()) }
}

fn read_footer(file: &File, file_len: u64) -> Result<Footer, LocalError> {
    let at = file_len.checked_sub(FOOTER_BYTES as u64).ok_or_else(|| Malformed("the file ends early".into()))?;
    let mut bytes = [0; FOOTER_BYTES];
    file.read_exact_at(&mut bytes, at)?;
    let footer = Footer::decode(&bytes)?;
    if format::file_len(footer.size_bytes) != file_len {
        return Err(Malformed(format!("the file has {file_len} bytes, its footer means {}", format::file_len(footer.size_bytes))).into());
    }
    Ok(footer)
}

fn read_chunk(file: &File, index: u64, size_bytes: u64) -> Result<Chunk, LocalError> {
    let expected = usize::try_from(format::chunk_len(size_bytes, index)).unwrap_or(CHUNK_BYTES);
    let mut bytes = vec![0; FRAME_BYTES + expected];
    file.read_exact_at(&mut bytes, format::chunk_offset(index))?;
    let mut frame = [0; FRAME_BYTES];
    frame.copy_from_slice(&bytes[..FRAME_BYTES]);
    let (len, crc) = format::decode_frame(&frame);
    if len as usize != expected {
        return Err(Malformed(format!("chunk {index} is framed with {len} bytes instead of {expected}")).into());
    }
    let chunk = Chunk { bytes: bytes::Bytes::from(bytes).slice(FRAME_BYTES..), crc };
    chunk.verify(index, size_bytes)?;
    Ok(chunk)
}

/// An open copy.
#[derive(Debug, Clone)]
pub(crate) struct LocalReader {
    file: Arc<File>,
    size_bytes: u64,
}

impl LocalReader {
    /// One chunk, verified.
    pub(crate) async fn chunk(&self, index: u64) -> Result<Chunk, LocalError> {
        let this = self.clone();
        blocking(move || read_chunk(&this.file, index, this.size_bytes)).await
    }
}

/// A copy in the making. Dropped before `finish`, it leaves nothing.
pub(crate) struct LocalWriter {
    /// `None` while a blocking call has it, and after one failed.
    file: Option<FileWriter>,
    /// The newest chunk: a content of one chunk is then written, synced and named in a single blocking call.
    pending: Option<Chunk>,
}

impl LocalWriter {
    pub(crate) async fn push(&mut self, chunk: Chunk) -> Result<(), LocalError> {
        let Some(previous) = self.pending.replace(chunk) else { return Ok(()) };
        let mut file = self.take()?;
        let written = blocking(move || {
            file.append(&previous)?;
            Ok(file)
        });
        self.file = Some(written.await?);
        Ok(())
    }

    /// Makes the copy durable under its name.
    pub(crate) async fn finish(mut self, footer: Footer) -> Result<(), LocalError> {
        let (mut file, last) = (self.take()?, self.pending.take());
        blocking(move || {
            if let Some(chunk) = last {
                file.append(&chunk)?;
            }
            file.commit(footer)
        })
        .await
    }

    fn take(&mut self) -> Result<FileWriter, LocalError> {
        self.file.take().ok_or_else(|| LocalError::Io(io::Error::other("an earlier write failed")))
    }
}

struct FileWriter {
    store: Arc<LocalStore>,
    header: Header,
    temp: PathBuf,
    target: PathBuf,
    file: Option<File>,
    next_index: u64,
    written: u64,
    unsynced: u64,
}

impl FileWriter {
    fn file(&mut self) -> io::Result<&mut File> {
        if self.file.is_none() {
            let mut file = File::options().write(true).create_new(true).open(&self.temp)?;
            file.write_all(&self.header.encode())?;
            self.file = Some(file);
        }
        self.file.as_mut().ok_or_else(|| io::Error::other("unreachable: the file was just opened"))
    }

    fn append(&mut self, chunk: &Chunk) -> Result<(), LocalError> {
        if self.written != self.next_index * CHUNK_BYTES as u64 || chunk.bytes.is_empty() || chunk.bytes.len() > CHUNK_BYTES {
            return Err(Malformed(format!("chunk {} follows a short one, is empty or too long", self.next_index)).into());
        }
        chunk.verify_crc(self.next_index)?;
        self.store.require_room()?;
        let file = self.file()?;
        file.write_all(&chunk.frame())?;
        file.write_all(&chunk.bytes)?;
        self.next_index += 1;
        self.written += chunk.bytes.len() as u64;
        self.unsynced += chunk.bytes.len() as u64;
        if self.unsynced >= SYNC_EVERY_BYTES {
            self.unsynced = 0;
            self.file()?.sync_data()?;
        }
        Ok(())
    }

    fn commit(mut self, footer: Footer) -> Result<(), LocalError> {
        if footer.size_bytes != self.written {
            return Err(Malformed(format!("{} bytes came, the end tells {}", self.written, footer.size_bytes)).into());
        }
        let file = self.file()?;
        file.write_all(&footer.encode())?;
        file.sync_all()?;
        fs::rename(&self.temp, &self.target)?;
        sync_folder(self.target.parent().unwrap_or(&self.target))?;
        Ok(())
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        // Gone already once it was renamed; what stays behind after a crash is removed at the next start.
        if self.file.is_some() {
            let _ = fs::remove_file(&self.temp);
        }
    }
}

/// Writes a small file so that it exists whole and durably, or fails.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    sync_folder(path.parent().unwrap_or(path))
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Runs file work on the blocking pool.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, LocalError> + Send + 'static) -> Result<T, LocalError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(LocalError::Io(io::Error::other(e))))
}
