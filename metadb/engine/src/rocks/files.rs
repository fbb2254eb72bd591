//! Sorted files: written by RocksDB's own writer, taken in by linking them into the store's folder.
//!
//! A file is taken in through a second name in the folder [`LINKS`], which RocksDB takes away: the first name stays with the caller, so
//! that what a crash interrupts can be done again. RocksDB never changes a file that it took in (`write_global_seqno` is off).

use super::{Reader, Shared, family, family_options, name, translate};
use crate::disk::Disk;
use crate::{Cf, EngineError, Exported, FileExport, Replacement};
use rocksdb::{Cache, DBCompressionType, IngestExternalFileOptions, SstFileWriter, WriteBatch, WriteOptions};
use std::path::{Path, PathBuf};

/// Folder in the store's folder for second names of files on their way in.
const LINKS: &str = "ingest";
/// A writer reads nothing back: its blocks need no cache.
const WRITER_CACHE_BYTES: usize = 1 << 20;

fn io(operation: &'static str, path: &Path, error: &std::io::Error) -> EngineError {
    let path = path.display().to_string();
    if matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) {
        return EngineError::Full { path };
    }
    EngineError::Io { operation, path, message: error.to_string() }
}

fn local(disk: &dyn Disk, file: &str) -> Result<PathBuf, EngineError> {
    disk.local_path(file).ok_or_else(|| EngineError::Io {
        operation: "find",
        path: file.to_owned(),
        message: "RocksDB reads and writes sorted files in a real folder only".to_owned(),
    })
}

impl Shared {
    /// Removes what an interrupted replacement left. A name there is never the only one.
    pub(super) fn tidy(&self) {
        let folder = self.place.path.join(LINKS);
        if folder.exists()
            && let Err(error) = std::fs::remove_dir_all(&folder)
        {
            tracing::warn!(folder = %folder.display(), %error, "links left by an interrupted import can't be removed");
        }
    }

    /// See [`crate::Store::export`].
    pub(super) fn export(&self, export: &FileExport) -> Result<Exported, EngineError> {
        let path = local(&*export.disk, &export.name)?;
        let failed = |error: rocksdb::Error| translate("export", &path, &error);
        let mut options = family_options(export.cf, &Cache::new_lru_cache(WRITER_CACHE_BYTES), &self.settings);
        // A file is read once by whoever gets it and then compacted there: what costs little time is enough.
        options.set_bottommost_compression_type(DBCompressionType::Lz4);
        let mut writer = SstFileWriter::create(&options);
        let mut exported = Exported { rows: 0, next: None };
        for row in export.view.cursor(export.cf, &export.range.start..&export.range.end, false) {
            let (key, value) = row?;
            if exported.rows == 0 {
                writer.open(&path).map_err(failed)?;
            } else if writer.file_size() >= export.max_bytes {
                exported.next = Some(key);
                break;
            }
            writer.put(&key, &value).map_err(failed)?;
            exported.rows += 1;
        }
        if exported.rows > 0 {
            writer.finish().map_err(failed)?;
        }
        Ok(exported)
    }

    /// See [`crate::Store::replace`].
    pub(super) fn replace(&self, disk: &dyn Disk, parts: &[Replacement]) -> Result<(), EngineError> {
        self.empty(parts)?;
        let folder = self.place.path.join(LINKS);
        std::fs::create_dir_all(&folder).map_err(|error| io("make", &folder, &error))?;
        for part in parts.iter().filter(|part| !part.files.is_empty()) {
            let mut links = Vec::new();
            let mut linked = true;
            for file in &part.files {
                let (from, to) = (local(disk, file)?, folder.join(format!("{}-{file}", name(part.cf))));
                if to.exists() {
                    std::fs::remove_file(&to).map_err(|error| io("remove", &to, &error))?;
                }
                // Another file system than the store's: RocksDB copies then.
                linked &= std::fs::hard_link(&from, &to).is_ok();
                links.push((from, to));
            }
            let mut options = IngestExternalFileOptions::default();
            options.set_move_files(linked);
            let files = links.into_iter().map(|(from, to)| if linked { to } else { from }).collect();
            let ingested = self.db.ingest_external_file_cf_opts(family(&self.db, part.cf), &options, files);
            // A bad file says nothing about the store.
            ingested.map_err(|error| translate("ingest", &self.place.path, &error))?;
        }
        self.tidy();
        Ok(())
    }

    /// Removes the rows of the ranges, durably, so that what comes in meets nothing newer than itself in a memtable: taking files in would
    /// else stop every writer for a flush.
    fn empty(&self, parts: &[Replacement]) -> Result<(), EngineError> {
        let mut batch = WriteBatch::default();
        for Replacement { cf, range, .. } in parts {
            if Reader::latest(&self.db, &self.place).first(*cf, &range.start..&range.end, 0)?.is_none() {
                continue;
            }
            let end = if range.end.is_empty() { self.behind_last(*cf)? } else { range.end.to_vec() };
            batch.delete_range_cf(family(&self.db, *cf), &range.start[..], &end[..]);
        }
        if !batch.is_empty() {
            let mut options = WriteOptions::default();
            options.disable_wal(true);
            let written = self.db.write_opt(batch, &options).map_err(|error| self.place.failure("write", &error));
            self.place.note(written)?;
        }
        self.flush()
    }

    /// A key behind all keys of a column family: a deletion needs an end.
    fn behind_last(&self, cf: Cf) -> Result<Vec<u8>, EngineError> {
        let last = Reader::latest(&self.db, &self.place).cursor(cf, &[]..&[], true).next().transpose()?;
        let mut key = last.map(|(key, _)| key.to_vec()).unwrap_or_default();
        key.push(0);
        Ok(key)
    }
}
