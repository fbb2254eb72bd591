//! Reads the segments that are written to no more back from the device, and checks every record of them: rot is found before it is met.
//!
//! As far as a segment counts, that is: what the next segment gave up behind its last batch is never read again. Rot in an entry that was
//! purged is told too, since opening the log would meet it.
//!
//! Not here: the newest segment, whose bytes are read back when it is sealed; when and how fast it is done.

use super::format::{self, BatchHeader, corrupt};
use super::{Log, Shared, recover};
use crate::{EngineError, Verified};
use std::sync::Arc;

/// One read of the disk asks for this much, or for one batch if that is larger.
const CHUNK_BYTES: usize = 1 << 20;

/// A place in the log between two batches. The default is the beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPlace {
    /// The number of a segment.
    pub segment: u64,
    /// Where in it; 0: its beginning.
    pub offset: u64,
}

impl Log {
    /// Checks sealed segments from a place on, until about so many bytes were read. Nobody waits for it. What fails its checksum is told
    /// by [`Log::trouble`], too.
    ///
    /// # Errors
    /// [`EngineError::Corrupt`], [`EngineError::Io`].
    pub async fn verify(&self, from: LogPlace, max_bytes: u64) -> Result<Verified<LogPlace>, EngineError> {
        let shared = Arc::clone(&self.shared);
        #[cfg(not(madsim))]
        if shared.disk.simulated_sync_latency().is_none() {
            let done = tokio::task::spawn_blocking(move || shared.verify(from, max_bytes)).await;
            return done.unwrap_or_else(|panic| Err(EngineError::Stopped { message: format!("verify: {panic}") }));
        }
        shared.verify(from, max_bytes)
    }
}

impl Shared {
    fn verify(&self, from: LogPlace, max_bytes: u64) -> Result<Verified<LogPlace>, EngineError> {
        let mut bytes = 0;
        let mut at = from;
        loop {
            let numbers = self.index.lock().all_segments();
            let sealed = numbers.split_last().map_or(&[][..], |(_, sealed)| sealed);
            let Some(number) = sealed.iter().copied().find(|number| *number >= at.segment) else {
                return Ok(Verified { bytes, next: None });
            };
            if number != at.segment {
                at = LogPlace { segment: number, offset: 0 };
            }
            if bytes >= max_bytes {
                return Ok(Verified { bytes, next: Some(at) });
            }
            match self.segment(at, &numbers, max_bytes - bytes) {
                Ok(read) => {
                    bytes += read.bytes;
                    at = read.next.unwrap_or(LogPlace { segment: number + 1, offset: 0 });
                }
                // It went while it was read: its entries are needed no more, and its file may hold another segment already.
                Err(_) if !self.index.lock().has_segment(number) => at = LogPlace { segment: number + 1, offset: 0 },
                Err(error) => {
                    if matches!(error, EngineError::Corrupt { .. }) {
                        self.counters.corrupt.lock().get_or_insert_with(|| error.clone());
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Checks one segment from a place on. `numbers`: all that are held.
    fn segment(&self, from: LogPlace, numbers: &[u64], max_bytes: u64) -> Result<Verified<LogPlace>, EngineError> {
        let number = from.segment;
        let whole = |bytes| Ok(Verified { bytes, next: None });
        recover::header(&*self.disk, number)?;
        let mut trusted = None;
        for later in numbers.iter().filter(|later| **later > number) {
            let header = recover::header(&*self.disk, *later)?;
            if header.previous == number {
                trusted = Some(header.previous_trusted);
                break;
            }
        }
        // No later segment follows it: it was given up before anything in it was durable.
        let Some(trusted) = trusted else { return whole(0) };
        let mut at = from.offset.max(format::SEGMENT_HEADER_BYTES as u64);
        let (mut bytes, mut wanted) = (0, CHUNK_BYTES);
        while at < trusted {
            if bytes >= max_bytes {
                return Ok(Verified { bytes, next: Some(LogPlace { segment: number, offset: at }) });
            }
            let left = usize::try_from(trusted - at).unwrap_or(usize::MAX);
            let chunk = self.disk.read_cold(&format::segment_name(number), at, left.min(wanted))?;
            let start = usize::try_from(at).unwrap_or(usize::MAX);
            let checked = batches(number, &chunk, start, left)?;
            if checked.bytes == 0 && checked.needed <= chunk.len() {
                return Err(corrupt(number, start, "ends inside a batch"));
            }
            wanted = checked.needed.max(CHUNK_BYTES);
            at += checked.bytes as u64;
            bytes += checked.bytes as u64;
        }
        whole(bytes)
    }
}

struct Checked {
    /// Bytes of the whole batches.
    bytes: usize,
    /// How many the next one has, if it was not whole.
    needed: usize,
}

/// Checks the whole batches that start `chunk`, which lies at `offset` of a segment that goes on for `left` bytes.
fn batches(number: u64, chunk: &[u8], offset: usize, left: usize) -> Result<Checked, EngineError> {
    let mut bytes = 0;
    while bytes < chunk.len() {
        let (rest, at) = (&chunk[bytes..], offset + bytes);
        if rest.len() < format::BATCH_HEADER_BYTES && chunk.len() < left {
            return Ok(Checked { bytes, needed: CHUNK_BYTES });
        }
        let header = BatchHeader::read(number, rest, at);
        let header = header.ok_or_else(|| corrupt(number, at, "the header of a batch fails its checksum"))?;
        let length = format::BATCH_HEADER_BYTES + header.bytes;
        if length > left - bytes {
            return Err(corrupt(number, at, "a batch reaches beyond the end of its segment"));
        }
        if length > rest.len() {
            return Ok(Checked { bytes, needed: length });
        }
        format::batch_records(number, rest, at, &header).map_err(|(at, message)| corrupt(number, at, message))?;
        bytes += length;
    }
    Ok(Checked { bytes, needed: 0 })
}
