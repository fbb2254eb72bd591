//! The applied state: three ordered column families behind one object-safe trait.

use crate::EngineError;
use crate::disk::{Disk, Space};
use bytes::Bytes;
use futures::future::BoxFuture;
use metadb_telemetry::Samples;
use std::ops::Range;
use std::sync::Arc;

/// A column family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cf {
    /// Every version of every key.
    Data,
    /// Which keys each commit touched, by version.
    Changes,
    /// Per group: applied position, ownership, remembered request ids.
    State,
}

/// All column families, in their order on disk.
pub const COLUMN_FAMILIES: [Cf; 3] = [Cf::Data, Cf::Changes, Cf::State];

/// A key and its value.
pub type Row = (Bytes, Bytes);

/// Rows of a range, one after the other, as of the moment the cursor was made.
pub type Cursor<'a> = Box<dyn Iterator<Item = Result<Row, EngineError>> + Send + 'a>;

/// Reading, either of the latest state or of a [`Store::snapshot`].
pub trait StoreRead: Send + Sync {
    /// The value of a key.
    ///
    /// # Errors
    /// [`EngineError`]; a corrupt block is an error, never a value.
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// The first row at or after `range.start` and before `range.end`. `prefix_bytes`: the leading bytes of `range.start` that any
    /// answer is known to share, which lets a store skip files by a filter; 0: nothing known.
    ///
    /// # Errors
    /// [`EngineError`].
    fn first(&self, cf: Cf, range: Range<&[u8]>, prefix_bytes: usize) -> Result<Option<Row>, EngineError>;

    /// The rows of a range in order, or in reverse. An empty `range.end` means to the end.
    fn cursor(&self, cf: Cf, range: Range<&[u8]>, reverse: bool) -> Cursor<'_>;
}

/// A store of applied state.
pub trait Store: StoreRead + 'static {
    /// Writes a batch: atomic, visible on return, durable only after a later flush.
    ///
    /// # Errors
    /// [`EngineError`]; nothing of the batch is visible then.
    fn write(&self, batch: WriteBatch) -> Result<(), EngineError>;

    /// Makes everything written before the call durable: all of it, across column families, or, after a crash, none of it.
    fn flush(&self) -> BoxFuture<'static, Result<(), EngineError>>;

    /// A view of this moment.
    fn snapshot(&self) -> Arc<dyn StoreRead>;

    /// Writes rows of a view into a sorted file that [`Store::replace`] takes, until the range ends or the file is large enough. Memory is
    /// bounded by a block; writes go on meanwhile. The file is not durable by itself.
    ///
    /// # Errors
    /// [`EngineError`]; the file must be removed then.
    fn export(&self, export: FileExport) -> BoxFuture<'static, Result<Exported, EngineError>>;

    /// Replaces the rows of ranges by those of files, whole files at a time, and leaves the files as they are. What was written before is
    /// flushed first; on return all of it is durable. After a crash in the middle each range holds what it held, or nothing, or what its
    /// files hold: the caller must know that it was at it, and do it again. Nobody else may write to the ranges meanwhile.
    ///
    /// # Errors
    /// [`EngineError`], the ranges being left as by a crash.
    fn replace(&self, disk: Arc<dyn Disk>, parts: Vec<Replacement>) -> BoxFuture<'static, Result<(), EngineError>>;

    /// Reads rows of a family from where they are at rest, past every cache, and checks what they were written with: from a key on, until
    /// about so many bytes were read. Nothing is held between two calls, and nobody waits for it. What fails its checksum is told by
    /// [`Store::trouble`], too.
    ///
    /// # Errors
    /// [`EngineError::Corrupt`]; [`EngineError::Io`] for what could not be read now.
    fn verify(&self, cf: Cf, from: Bytes, max_bytes: u64) -> BoxFuture<'static, Result<Verified<Bytes>, EngineError>>;

    /// Bytes on disk and in memory, about.
    fn size_bytes(&self) -> u64;

    /// About what lies in ranges of a column family, one after the other. An empty end means to the end. It reads no row at rest; of those in
    /// memory it counts the first [`COUNTED_ROWS`].
    ///
    /// # Errors
    /// [`EngineError`].
    fn extents(&self, cf: Cf, ranges: Vec<Range<Bytes>>) -> BoxFuture<'static, Result<Vec<Extent>, EngineError>>;

    /// Tells whoever scrapes how it is; a store that has nothing to tell says nothing.
    fn observe(&self, _samples: &mut Samples) {}

    /// What is wrong with the store or its disk, if anything is: [`EngineError::Corrupt`] once something did not read back,
    /// [`EngineError::Io`] once the device refused something, [`EngineError::Full`] while there is no room for what was written last.
    fn trouble(&self) -> Option<EngineError> {
        None
    }

    /// The room on its disk, if it knows.
    fn space(&self) -> Option<Space> {
        None
    }
}

/// Rows in memory that are counted, at most, by one [`Store::extents`]: a tenth of a second's work, off the async threads.
pub const COUNTED_ROWS: u64 = 250_000;

/// What lies in a range, about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    /// Bytes of keys and values, not compressed.
    pub bytes: u64,
    /// Rows.
    pub rows: u64,
}

/// An order to write a sorted file.
pub struct FileExport {
    /// Whose rows.
    pub view: Arc<dyn StoreRead>,
    /// Of which column family.
    pub cf: Cf,
    /// Of which keys; an empty end means to the end.
    pub range: Range<Bytes>,
    /// Where the file goes.
    pub disk: Arc<dyn Disk>,
    /// Its name there; no such file may be there.
    pub name: String,
    /// The file takes no further row once it has about so many bytes.
    pub max_bytes: u64,
}

/// What an export wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Rows in the file; without any, there is no file.
    pub rows: u64,
    /// Where the next file begins; none: the range is exhausted.
    pub next: Option<Bytes>,
}

/// What a step of verifying read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified<P> {
    /// How many bytes, about.
    pub bytes: u64,
    /// Where the next step begins; none: the end was reached.
    pub next: Option<P>,
}

/// New content for a range.
#[derive(Debug, Clone)]
pub struct Replacement {
    /// Of which column family.
    pub cf: Cf,
    /// Which keys; an empty end means to the end.
    pub range: Range<Bytes>,
    /// Names of sorted files of that column family, in the order of their keys, all of them inside the range and none overlapping.
    pub files: Vec<String>,
}

/// Changes that become visible together.
#[derive(Debug, Clone, Default)]
pub struct WriteBatch {
    ops: Vec<(Cf, BatchOp)>,
    bytes: usize,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchOp {
    /// Writes a row.
    Put(Bytes, Bytes),
    /// Removes a row, if it is there.
    Delete(Bytes),
    /// Removes the rows from the first key, inclusive, to the second, exclusive.
    DeleteRange(Bytes, Bytes),
}

impl WriteBatch {
    /// Writes a row.
    pub fn put(&mut self, cf: Cf, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        let (key, value) = (key.into(), value.into());
        self.bytes += key.len() + value.len();
        self.ops.push((cf, BatchOp::Put(key, value)));
    }

    /// Removes a row.
    pub fn delete(&mut self, cf: Cf, key: impl Into<Bytes>) {
        let key = key.into();
        self.bytes += key.len();
        self.ops.push((cf, BatchOp::Delete(key)));
    }

    /// Removes a range of rows.
    pub fn delete_range(&mut self, cf: Cf, start: impl Into<Bytes>, end: impl Into<Bytes>) {
        let (start, end) = (start.into(), end.into());
        self.bytes += start.len() + end.len();
        self.ops.push((cf, BatchOp::DeleteRange(start, end)));
    }

    /// The changes, in the order in which they take effect.
    #[must_use]
    pub fn ops(&self) -> &[(Cf, BatchOp)] {
        &self.ops
    }

    /// Bytes of keys and values in it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}
