//! Records: the values of rows, one file each. Every field has a frozen number; a record begins with its schema number, so that old rows
//! can be upgraded when read. The encoding is Protocol Buffers: a field that a build does not know is skipped.

mod content;
mod entry;
mod event;
mod node;
mod part;
mod released;
mod request;
mod upload;
mod version;

pub use content::ContentRecord;
pub use entry::EntryRecord;
pub use event::{EventKind, EventRecord};
pub use node::NodeRecord;
pub use part::PartRecord;
pub use released::ReleasedRecord;
pub use request::RequestRecord;
pub use upload::UploadRecord;
pub use version::{VersionPart, VersionRecord};

use crate::error::bad_row;
use crate::model::NodeKind;
use bytes::Bytes;
use metadb_proto::Error;

/// A value of a row.
pub trait Record: prost::Message + Default {
    /// Its name in errors.
    const NAME: &'static str;
    /// The schema that this build writes; it reads all up to it.
    const SCHEMA: u32;

    /// The schema that it was written with.
    fn schema(&self) -> u32;

    /// As it is stored.
    fn to_bytes(&self) -> Bytes {
        debug_assert_eq!(self.schema(), Self::SCHEMA, "records are written with the newest schema");
        self.encode_to_vec().into()
    }

    /// From what is stored.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it can't be read or is newer than this build.
    fn from_bytes(bytes: Bytes) -> Result<Self, Error> {
        let record = Self::decode(bytes).map_err(|e| bad_row(Self::NAME, e))?;
        if record.schema() == 0 || record.schema() > Self::SCHEMA {
            return Err(bad_row(Self::NAME, format!("schema {}, this build reads 1 to {}", record.schema(), Self::SCHEMA)));
        }
        Ok(record)
    }
}

macro_rules! record {
    ($record:ty, $name:literal, $schema:literal) => {
        impl crate::record::Record for $record {
            const NAME: &'static str = $name;
            const SCHEMA: u32 = $schema;

            fn schema(&self) -> u32 {
                self.schema
            }
        }
    };
}
use record;

/// A node's kind as it is stored. Numbers are frozen.
pub(crate) fn kind_number(kind: NodeKind) -> u32 {
    match kind {
        NodeKind::Tree => 1,
        NodeKind::Flat => 2,
        NodeKind::File => 3,
    }
}

/// A node's kind from its number.
pub(crate) fn kind_of(what: &str, number: u32) -> Result<NodeKind, Error> {
    match number {
        1 => Ok(NodeKind::Tree),
        2 => Ok(NodeKind::Flat),
        3 => Ok(NodeKind::File),
        other => Err(bad_row(what, format!("node kind {other}"))),
    }
}

#[cfg(test)]
mod tests;
