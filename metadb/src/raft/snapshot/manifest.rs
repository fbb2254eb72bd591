//! What a snapshot consists of: its files, their checksums, and the position it stands at.
//!
//! | what | bytes |
//! | --- | --- |
//! | manifest | format 1 u8, group u32, meta (length u32, bytes as a message has them), chunk bytes u32, files u32, files, CRC32C of all before u32 |
//! | file | column family u8, bytes u64, rows u64, BLAKE3 of it (32), CRC32C of each of its chunks, u32 each |
//!
//! The id of a snapshot is the hash of its manifest: two snapshots of one id have the same content at the same position. Every chunk but
//! the last of a file has the same length, so that how many there are follows from the file's length.

use super::super::SnapshotMeta;
use super::super::codec::{CodecError, Reader, put_sized};
use super::super::messages::{decode_snapshot_meta, encode_snapshot_meta};
use bytes::{BufMut as _, Bytes, BytesMut};
use metadb_engine::Cf;

const FORMAT: u8 = 1;
/// Largest manifest that is believed: some 100,000 files.
pub(crate) const MANIFEST_BYTES_MAX: usize = 12 << 20;
/// Longest chunk that is believed: it must fit into a message.
pub(crate) const CHUNK_BYTES_MAX: u32 = 8 << 20;
/// Longest file that is believed: offsets in it are small numbers for anyone.
const FILE_BYTES_MAX: u64 = 1 << 40;

/// One file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SnapshotFile {
    /// Of which column family its rows are.
    pub(crate) cf: Cf,
    pub(crate) bytes: u64,
    pub(crate) rows: u64,
    pub(crate) hash: [u8; 32],
    /// CRC32C of each chunk.
    pub(crate) chunks: Vec<u32>,
}

/// A whole snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) group_id: u32,
    pub(crate) meta: SnapshotMeta,
    pub(crate) chunk_bytes: u32,
    pub(crate) files: Vec<SnapshotFile>,
}

/// A part of a file, as it travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) offset: u64,
    pub(crate) bytes: usize,
    pub(crate) crc32c: u32,
}

fn cf_number(cf: Cf) -> u8 {
    match cf {
        Cf::Data => 0,
        Cf::Changes => 1,
        Cf::State => 2,
    }
}

impl SnapshotFile {
    /// The chunk at an offset, which is a multiple of the length of chunks; none: the file ends there.
    pub(crate) fn chunk_at(&self, offset: u64, chunk_bytes: u32) -> Option<Chunk> {
        let number = usize::try_from(offset / u64::from(chunk_bytes)).ok()?;
        let crc32c = *self.chunks.get(number)?;
        let left = self.bytes.checked_sub(offset)?;
        let bytes = usize::try_from(left.min(u64::from(chunk_bytes))).ok()?;
        (bytes > 0).then_some(Chunk { offset, bytes, crc32c })
    }
}

fn chunks_of(bytes: u64, chunk_bytes: u32) -> u64 {
    bytes.div_ceil(u64::from(chunk_bytes))
}

impl Manifest {
    /// Bytes of all files.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(FORMAT);
        out.put_u32(self.group_id);
        put_sized(&mut out, &encode_snapshot_meta(&self.meta));
        out.put_u32(self.chunk_bytes);
        out.put_u32(u32::try_from(self.files.len()).expect("files of a snapshot are counted in thousands"));
        for file in &self.files {
            out.put_u8(cf_number(file.cf));
            out.put_u64(file.bytes);
            out.put_u64(file.rows);
            out.put_slice(&file.hash);
            for crc in &file.chunks {
                out.put_u32(*crc);
            }
        }
        out.put_u32(crc32c::crc32c(&out));
        out.freeze()
    }

    /// The inverse of [`Manifest::encode`].
    pub(crate) fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        const WHAT: &str = "manifest of a snapshot";
        let Some((content, crc)) = bytes.split_last_chunk::<4>() else { return Err(CodecError::Short { what: WHAT, missing: 4 }) };
        let crc = u32::from_be_bytes(*crc);
        if crc32c::crc32c(content) != crc {
            return Err(CodecError::Unknown { what: "checksum of the manifest of a snapshot", value: crc.into() });
        }
        let mut reader = Reader::new(bytes.slice(..content.len()), WHAT);
        reader.format()?;
        let group_id = reader.u32()?;
        let meta = decode_snapshot_meta(reader.sized()?)?;
        let chunk_bytes = reader.u32()?;
        if chunk_bytes == 0 || chunk_bytes > CHUNK_BYTES_MAX {
            return Err(reader.unknown(chunk_bytes.into()));
        }
        let mut files: Vec<SnapshotFile> = Vec::new();
        for _ in 0..reader.u32()? {
            let file = read_file(&mut reader, chunk_bytes)?;
            // Column families in order, each once: what an import does with them relies on it.
            if files.last().is_some_and(|last| last.cf > file.cf) {
                return Err(reader.unknown(cf_number(file.cf).into()));
            }
            files.push(file);
        }
        reader.end()?;
        Ok(Manifest { group_id, meta, chunk_bytes, files })
    }
}

fn read_file(reader: &mut Reader, chunk_bytes: u32) -> Result<SnapshotFile, CodecError> {
    let cf = match reader.u8()? {
        0 => Cf::Data,
        1 => Cf::Changes,
        2 => Cf::State,
        other => return Err(reader.unknown(other.into())),
    };
    let (bytes, rows) = (reader.u64()?, reader.u64()?);
    if bytes == 0 || bytes > FILE_BYTES_MAX {
        return Err(reader.unknown(bytes));
    }
    let hash = reader.take(32)?;
    let hash = *hash.first_chunk::<32>().ok_or_else(|| reader.unknown(0))?;
    let mut chunks = Vec::new();
    for _ in 0..chunks_of(bytes, chunk_bytes) {
        chunks.push(reader.u32()?);
    }
    Ok(SnapshotFile { cf, bytes, rows, hash, chunks })
}

/// What tells a snapshot, whose manifest has these bytes, from every other: 32 hex digits.
pub(crate) fn id_of(encoded: &[u8]) -> String {
    blake3::hash(encoded).to_hex()[..32].to_owned()
}
