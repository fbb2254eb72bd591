//! The content file, format 1. All numbers are little-endian.
//!
//! ```text
//! header  60 bytes  magic "cairncnt" | format u32 | chunk bytes u32 | cluster id [16] | tenant id u64 | content id [16] | crc32c u32
//! chunk   8 + n     length u32 | crc32c u32 (over the chunk's index as u64, then its bytes) | bytes
//! footer  48 bytes  0xffff_ffff | size u64 | blake3 [32] | crc32c u32
//! ```
//! Every chunk but the last holds exactly [`CHUNK_BYTES`], so that any byte is found without an index. The header's and the footer's
//! checksums cover what stands before them in each.

use super::limits::CHUNK_BYTES;
use bytes::Bytes;

/// The newest format that this build reads and the one it writes.
pub(crate) const FORMAT: u32 = 1;
pub(crate) const HEADER_BYTES: usize = 60;
pub(crate) const FRAME_BYTES: usize = 8;
pub(crate) const FOOTER_BYTES: usize = 48;
const MAGIC: &[u8; 8] = b"cairncnt";
const FOOTER_MARK: u32 = u32::MAX;

/// Why a file is not the content it should be. Never names anything secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(pub(crate) String);

/// Whose content a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) cluster_id: [u8; 16],
    pub(crate) tenant_id: u64,
    pub(crate) content_id: [u8; 16],
}

/// What a complete content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) size_bytes: u64,
    pub(crate) blake3: [u8; 32],
}

/// A chunk and the checksum that travels with it from the first hasher to the last reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) bytes: Bytes,
    pub(crate) crc: u32,
}

impl Chunk {
    pub(crate) fn seal(index: u64, bytes: Bytes) -> Self {
        let crc = chunk_crc(index, &bytes);
        Chunk { bytes, crc }
    }

    /// Checks that these are the bytes that were sealed as chunk `index` of a content of this size.
    pub(crate) fn verify(&self, index: u64, size_bytes: u64) -> Result<(), Malformed> {
        let expected = chunk_len(size_bytes, index);
        if self.bytes.len() as u64 != expected {
            return Err(Malformed(format!("chunk {index} has {} bytes instead of {expected}", self.bytes.len())));
        }
        self.verify_crc(index)
    }

    pub(crate) fn verify_crc(&self, index: u64) -> Result<(), Malformed> {
        let found = chunk_crc(index, &self.bytes);
        if found == self.crc {
            Ok(())
        } else {
            Err(Malformed(format!("chunk {index} has checksum {found:08x} instead of {:08x}", self.crc)))
        }
    }

    /// The 8 bytes that stand before the chunk in the file.
    pub(crate) fn frame(&self) -> [u8; FRAME_BYTES] {
        let mut out = [0; FRAME_BYTES];
        let len = u32::try_from(self.bytes.len()).expect("a chunk's length fits 32 bits by the const assertion in limits");
        out[..4].copy_from_slice(&len.to_le_bytes());
        out[4..].copy_from_slice(&self.crc.to_le_bytes());
        out
    }
}

fn chunk_crc(index: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&index.to_le_bytes()), bytes)
}

/// How many chunks a content has.
pub(crate) fn chunk_count(size_bytes: u64) -> u64 {
    size_bytes.div_ceil(CHUNK_BYTES as u64)
}

/// How many bytes a chunk has.
pub(crate) fn chunk_len(size_bytes: u64, index: u64) -> u64 {
    size_bytes.saturating_sub(index.saturating_mul(CHUNK_BYTES as u64)).min(CHUNK_BYTES as u64)
}

/// Where a chunk's frame begins in the file.
pub(crate) fn chunk_offset(index: u64) -> u64 {
    HEADER_BYTES as u64 + index * (FRAME_BYTES + CHUNK_BYTES) as u64
}

/// Where the footer begins.
pub(crate) fn footer_offset(size_bytes: u64) -> u64 {
    HEADER_BYTES as u64 + size_bytes + chunk_count(size_bytes) * FRAME_BYTES as u64
}

/// How long the whole file is.
pub(crate) fn file_len(size_bytes: u64) -> u64 {
    footer_offset(size_bytes) + FOOTER_BYTES as u64
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&u32::try_from(CHUNK_BYTES).expect("checked by the const assertion in limits").to_le_bytes());
        out.extend_from_slice(&self.cluster_id);
        out.extend_from_slice(&self.tenant_id.to_le_bytes());
        out.extend_from_slice(&self.content_id);
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out.try_into().expect("the fields add up to HEADER_BYTES")
    }

    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, Malformed> {
        if &bytes[..8] != MAGIC {
            return Err(Malformed("the header does not begin with the content magic".into()));
        }
        if crc32c::crc32c(&bytes[..HEADER_BYTES - 4]) != u32_at(bytes, HEADER_BYTES - 4) {
            return Err(Malformed("the header's checksum is wrong".into()));
        }
        let (format, chunk_bytes) = (u32_at(bytes, 8), u32_at(bytes, 12));
        if format != FORMAT || chunk_bytes as usize != CHUNK_BYTES {
            return Err(Malformed(format!("format {format} with chunks of {chunk_bytes} bytes, this build reads format {FORMAT}")));
        }
        Ok(Header { cluster_id: array_at(bytes, 16), tenant_id: u64::from_le_bytes(array_at(bytes, 32)), content_id: array_at(bytes, 40) })
    }
}

impl Footer {
    pub(crate) fn encode(&self) -> [u8; FOOTER_BYTES] {
        let mut out = Vec::with_capacity(FOOTER_BYTES);
        out.extend_from_slice(&FOOTER_MARK.to_le_bytes());
        out.extend_from_slice(&self.size_bytes.to_le_bytes());
        out.extend_from_slice(&self.blake3);
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out.try_into().expect("the fields add up to FOOTER_BYTES")
    }

    pub(crate) fn decode(bytes: &[u8; FOOTER_BYTES]) -> Result<Self, Malformed> {
        if u32_at(bytes, 0) != FOOTER_MARK || crc32c::crc32c(&bytes[..FOOTER_BYTES - 4]) != u32_at(bytes, FOOTER_BYTES - 4) {
            return Err(Malformed("the footer is missing or its checksum is wrong".into()));
        }
        Ok(Footer { size_bytes: u64::from_le_bytes(array_at(bytes, 4)), blake3: array_at(bytes, 12) })
    }
}

/// Length and checksum from a chunk's frame.
pub(crate) fn decode_frame(frame: &[u8; FRAME_BYTES]) -> (u32, u32) {
    (u32_at(frame, 0), u32_at(frame, 4))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header { cluster_id: [1; 16], tenant_id: 7, content_id: [2; 16] };
    const FOOTER: Footer = Footer { size_bytes: 5, blake3: [3; 32] };

    #[test]
    fn header_and_footer_come_back_and_any_flipped_bit_is_found() {
        assert_eq!(Header::decode(&HEADER.encode()), Ok(HEADER));
        assert_eq!(Footer::decode(&FOOTER.encode()), Ok(FOOTER));
        for bit in 0..HEADER_BYTES * 8 {
            let mut bytes = HEADER.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&bytes).is_err(), "bit {bit}");
        }
        for bit in 0..FOOTER_BYTES * 8 {
            let mut bytes = FOOTER.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Footer::decode(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn the_format_on_disk_is_frozen() {
        assert_eq!(
            hex::encode(HEADER.encode()),
            "636169726e636e74010000000000100001010101010101010101010101010101070000000000000002020202020202020202020202020202cf6e1a0a"
        );
        assert_eq!(Chunk::seal(0, Bytes::from_static(b"hello")).frame()[..4], [5, 0, 0, 0]);
    }

    #[test]
    fn a_chunk_in_the_wrong_place_is_found() {
        let chunk = Chunk::seal(3, Bytes::from_static(b"x"));
        assert!(chunk.verify_crc(3).is_ok() && chunk.verify_crc(4).is_err());
        assert!(chunk.verify(3, 3 * CHUNK_BYTES as u64 + 1).is_ok() && chunk.verify(3, 3 * CHUNK_BYTES as u64 + 2).is_err());
    }

    #[test]
    fn sizes_around_a_chunk() {
        let chunk = CHUNK_BYTES as u64;
        for (size, count, last) in [(0, 0, 0), (1, 1, 1), (chunk - 1, 1, chunk - 1), (chunk, 1, chunk), (chunk + 1, 2, 1)] {
            assert_eq!(chunk_count(size), count);
            assert_eq!(count.checked_sub(1).map_or(0, |i| chunk_len(size, i)), last);
            assert_eq!(file_len(size), 60 + 48 + size + 8 * count);
        }
    }
}
