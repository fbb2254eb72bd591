//! Files in a real folder. Handles stay open, appends go to a known end, a sync makes the name durable with the bytes.
//!
//! The room of retired files is used again: a log that goes round writes each byte once, not zeros first.

use super::{Disk, Space};
use crate::EngineError;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// What the names of retired files begin with.
const SPARE: &str = "spare-";
/// So many retired files are kept for their room; what is retired beyond that is removed.
const SPARES_MAX: usize = 2;
/// Zeros are written ahead while appends are smaller than this on average. Of larger ones the bytes are the cost, and zeros would be as
/// many again.
const SMALL_APPEND_BYTES: usize = 16 << 10;
/// How much is written ahead at a time: a sync writes all of it once.
const AHEAD_BYTES: usize = 64 << 10;
/// Zeros are written in pages: Linux keeps what is written at a time in one folio, and accounts it to the process as a whole whenever a byte
/// of it changes (measured: 24 times what reached the disk, with 1 MiB).
static ZEROS: [u8; 4 << 10] = [0; 4 << 10];

/// A folder on a real disk.
#[derive(Debug)]
pub struct FileDisk {
    path: PathBuf,
    folder: File,
    files: Mutex<BTreeMap<String, Arc<Open>>>,
    /// Retired files whose room waits for a new file.
    spares: Mutex<Vec<String>>,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// The end of the file, moved after the bytes are there. Readers take no lock.
    bytes: AtomicU64,
    /// One writer at a time.
    writing: Mutex<Extent>,
    /// Whether the folder was synced since the file was made or opened.
    named: AtomicBool,
}

/// How far a file reaches beyond its end.
#[derive(Debug, Default)]
struct Extent {
    /// Zeros are written up to here, or bytes of a retired file.
    zeroed: u64,
    /// Zeros may be written up to here.
    reserved: u64,
    /// Bytes of an append, on average over the last few.
    average: usize,
}

impl Open {
    /// Writes zeros ahead of the end. Syncing bytes that replace zeros needs no change of the file's size or blocks, which on ext4 takes a
    /// third off a small sync (measured: 100 to 68 us).
    fn extend(&self, extent: &mut Extent, end: u64, appended: usize) {
        extent.average = extent.average - extent.average / 8 + appended / 8;
        extent.zeroed = extent.zeroed.max(end);
        if extent.reserved <= end || extent.zeroed > end || extent.average >= SMALL_APPEND_BYTES {
            return;
        }
        let until = extent.reserved.min(end + AHEAD_BYTES as u64);
        while extent.zeroed < until {
            let page = usize::try_from(until - extent.zeroed).unwrap_or(usize::MAX).min(ZEROS.len());
            if self.file.write_all_at(&ZEROS[..page], extent.zeroed).is_err() {
                // A disk that is nearly full needs its room for better things.
                (extent.reserved, extent.zeroed) = (0, end);
                if let Err(error) = self.file.set_len(end) {
                    tracing::warn!(%error, "zeros written ahead can't be taken back");
                }
                return;
            }
            extent.zeroed += page as u64;
        }
    }

    fn end(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }
}

impl FileDisk {
    /// Opens a folder, which is made if it is not there.
    ///
    /// # Errors
    /// [`EngineError::Io`].
    pub fn open(path: impl AsRef<Path>) -> Result<Arc<Self>, EngineError> {
        let path = path.as_ref().to_path_buf();
        let folder = make_folder(&path).map_err(|error| failure("open", &path, &error))?;
        let mut disk = Self { path, folder, files: Mutex::default(), spares: Mutex::default() };
        disk.spares = Mutex::new(disk.names()?.into_iter().filter(|name| name.starts_with(SPARE)).collect());
        Ok(Arc::new(disk))
    }

    fn names(&self) -> Result<Vec<String>, EngineError> {
        let failed = |error: io::Error| failure("list", &self.path, &error);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_type().map_err(failed)?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Gives a new file the room of a retired one, if there is one; its name is durable with the first sync.
    fn take_spare(&self, name: &str) -> io::Result<Option<(File, u64)>> {
        let Some(spare) = self.spares.lock().pop() else { return Ok(None) };
        let path = self.path.join(name);
        fs::rename(self.path.join(spare), &path)?;
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let room = file.metadata()?.len();
        Ok(Some((file, room)))
    }

    /// Removes the retired files: a full disk needs their room for better things.
    fn drop_spares(&self) {
        for spare in std::mem::take(&mut *self.spares.lock()) {
            if let Err(error) = fs::remove_file(self.path.join(&spare)) {
                tracing::warn!(spare, %error, "a retired file can't be removed");
            }
        }
    }

    fn full_path(&self, operation: &'static str, name: &str) -> Result<PathBuf, EngineError> {
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
            let message = "not a name of one path element".to_owned();
            return Err(EngineError::Io { operation, path: name.to_owned(), message });
        }
        Ok(self.path.join(name))
    }

    /// The open file of a name, made if asked for; none: it is not there.
    fn handle(&self, operation: &'static str, name: &str, make: bool) -> Result<Option<Arc<Open>>, EngineError> {
        let mut files = self.files.lock();
        if let Some(open) = files.get(name) {
            return Ok(Some(Arc::clone(open)));
        }
        let path = self.full_path(operation, name)?;
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound && make => {
                let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
                file.map_err(|error| failure(operation, &path, &error))?
            }
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failure(operation, &path, &error)),
        };
        let bytes = file.metadata().map_err(|error| failure(operation, &path, &error))?.len();
        let open = Arc::new(Open { file, bytes: AtomicU64::new(bytes), writing: Mutex::default(), named: AtomicBool::new(false) });
        files.insert(name.to_owned(), Arc::clone(&open));
        Ok(Some(open))
    }

    fn existing(&self, operation: &'static str, name: &str) -> Result<Arc<Open>, EngineError> {
        self.handle(operation, name, false)?.ok_or_else(|| EngineError::Io {
            operation,
            path: self.path.join(name).display().to_string(),
            message: "no such file".to_owned(),
        })
    }

    fn failed(&self, operation: &'static str, name: &str) -> impl Fn(io::Error) -> EngineError {
        let path = self.path.join(name);
        move |error| failure(operation, &path, &error)
    }

    fn sync_folder(&self, operation: &'static str) -> Result<(), EngineError> {
        self.folder.sync_all().map_err(|error| failure(operation, &self.path, &error))
    }
}

/// Makes a folder and those above it, each name durable, and opens it.
fn make_folder(path: &Path) -> io::Result<File> {
    if !path.is_dir() {
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            Some(_) | None => Path::new("."),
        };
        let parent = make_folder(parent)?;
        match fs::create_dir(path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            Err(_) | Ok(()) => parent.sync_all()?,
        }
    }
    File::open(path)
}

/// The room on the file system of a folder.
pub fn space_of(path: &Path) -> Option<Space> {
    let found = rustix::fs::statvfs(path).ok()?;
    Some(Space { free_bytes: found.f_bavail * found.f_frsize, total_bytes: found.f_blocks * found.f_frsize })
}

fn failure(operation: &'static str, path: &Path, error: &io::Error) -> EngineError {
    let path = path.display().to_string();
    if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
        return EngineError::Full { path };
    }
    EngineError::Io { operation, path, message: error.to_string() }
}

impl Disk for FileDisk {
    fn list(&self) -> Result<Vec<String>, EngineError> {
        let mut names = self.names()?;
        names.retain(|name| !name.starts_with(SPARE));
        Ok(names)
    }

    fn len(&self, name: &str) -> Result<Option<u64>, EngineError> {
        Ok(self.handle("open", name, false)?.map(|open| open.end()))
    }

    fn read(&self, name: &str, offset: u64, bytes: usize) -> Result<Bytes, EngineError> {
        let open = self.existing("read", name)?;
        let end = open.end();
        let wanted = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX).min(bytes);
        let mut buffer = vec![0; wanted];
        open.file.read_exact_at(&mut buffer, offset).map_err(self.failed("read", name))?;
        Ok(buffer.into())
    }

    fn read_cold(&self, name: &str, offset: u64, bytes: usize) -> Result<Bytes, EngineError> {
        let open = self.existing("read", name)?;
        let (length, drop) = (std::num::NonZeroU64::new(bytes as u64), rustix::fs::Advice::DontNeed);
        // Advice only: a file system that knows no cache, or refuses, is read as it is.
        let _ = rustix::fs::fadvise(&open.file, offset, length, drop);
        let read = self.read(name, offset, bytes);
        let _ = rustix::fs::fadvise(&open.file, offset, length, drop);
        read
    }

    fn reserve(&self, name: &str, bytes: u64) {
        let mut files = self.files.lock();
        if !files.contains_key(name) && self.full_path("reserve", name).is_ok_and(|path| !path.exists()) {
            match self.take_spare(name) {
                Ok(Some((file, room))) => {
                    let writing = Mutex::new(Extent { zeroed: room, reserved: bytes, average: 0 });
                    let open = Open { file, bytes: AtomicU64::new(0), writing, named: AtomicBool::new(false) };
                    files.insert(name.to_owned(), Arc::new(open));
                    return;
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(name, %error, "a retired file can't be used again"),
            }
        }
        drop(files);
        if let Ok(Some(open)) = self.handle("reserve", name, true) {
            open.writing.lock().reserved = bytes;
        }
    }

    fn retire(&self, name: &str) -> Result<(), EngineError> {
        let mut spares = self.spares.lock();
        if spares.len() >= SPARES_MAX || name.starts_with(SPARE) {
            drop(spares);
            return self.remove(name);
        }
        let spare = format!("{SPARE}{name}");
        self.rename(name, &spare)?;
        self.files.lock().remove(&spare);
        spares.push(spare);
        Ok(())
    }

    fn mark(&self, name: &str, bytes: &[u8]) {
        let Ok(Some(open)) = self.handle("mark", name, false) else { return };
        let extent = open.writing.lock();
        let end = open.end();
        // Not on a disk that is nearly full.
        if extent.reserved > end
            && let Err(error) = open.file.write_all_at(bytes, end)
        {
            tracing::warn!(name, %error, "a mark behind the end of a file can't be written");
        }
    }

    fn append(&self, name: &str, bytes: &[u8]) -> Result<(), EngineError> {
        let Some(open) = self.handle("append", name, true)? else { return Err(self.failed("append", name)(ErrorKind::NotFound.into())) };
        let mut extent = open.writing.lock();
        let end = open.end();
        if let Err(error) = open.file.write_all_at(bytes, end) {
            extent.reserved = 0;
            extent.zeroed = end;
            let cut = open.file.set_len(end);
            self.drop_spares();
            return Err(self.failed("append", name)(cut.err().unwrap_or(error)));
        }
        let end = end + bytes.len() as u64;
        open.extend(&mut extent, end, bytes.len());
        open.bytes.store(end, Ordering::Release);
        Ok(())
    }

    fn sync(&self, name: &str) -> Result<(), EngineError> {
        let open = self.existing("sync", name)?;
        open.file.sync_data().map_err(self.failed("sync", name))?;
        if !open.named.load(Ordering::Acquire) {
            self.sync_folder("sync")?;
            open.named.store(true, Ordering::Release);
        }
        Ok(())
    }

    fn truncate(&self, name: &str, bytes: u64) -> Result<(), EngineError> {
        let open = self.existing("truncate", name)?;
        let mut extent = open.writing.lock();
        let end = bytes.min(open.end());
        open.file.set_len(end).map_err(self.failed("truncate", name))?;
        open.bytes.store(end, Ordering::Release);
        *extent = Extent::default();
        open.file.sync_all().map_err(self.failed("truncate", name))?;
        self.sync_folder("truncate")
    }

    fn remove(&self, name: &str) -> Result<(), EngineError> {
        let path = self.full_path("remove", name)?;
        self.files.lock().remove(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failure("remove", &path, &error)),
            Err(_) => Ok(()),
            Ok(()) => self.sync_folder("remove"),
        }
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), EngineError> {
        let (old, new) = (self.full_path("rename", from)?, self.full_path("rename", to)?);
        let mut files = self.files.lock();
        fs::rename(&old, &new).map_err(self.failed("rename", from))?;
        files.remove(to);
        if let Some(open) = files.remove(from) {
            files.insert(to.to_owned(), open);
        }
        drop(files);
        self.sync_folder("rename")
    }

    fn space(&self) -> Option<Space> {
        space_of(&self.path)
    }

    fn local_path(&self, name: &str) -> Option<PathBuf> {
        self.full_path("name", name).ok()
    }

    fn simulated_sync_latency(&self) -> Option<Duration> {
        None
    }
}
