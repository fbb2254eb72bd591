//! The applied state: three ordered column families behind one object-safe trait.

use crate::EngineError;
use crate::disk::Space;
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

    /// Bytes on disk and in memory, about.
    fn size_bytes(&self) -> u64;

    /// Tells whoever scrapes how it is; a store that has nothing to tell says nothing.
    fn observe(&self, _samples: &mut Samples) {}

    /// What is wrong with the store or its disk, if anything is: [`EngineError::Corrupt`] once something did not read back,
    /// [`EngineError::Full`] while there is no room for what was written last.
    fn trouble(&self) -> Option<EngineError> {
        None
    }

    /// The room on its disk, if it knows.
    fn space(&self) -> Option<Space> {
        None
    }
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
