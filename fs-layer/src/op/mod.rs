//! The operations, one file each: what it means, what it reads, what must hold, what it writes.

mod abort_upload;
mod answers;
mod collect;
mod complete_upload;
mod content;
mod contents;
mod create_folder;
mod create_upload;
mod delete;
mod delete_many;
mod forget_requests;
mod list;
mod list_parts;
mod list_uploads;
mod list_versions;
mod put_file;
mod put_part;
mod record_copies;
mod rename;
mod resolve;
mod stat;

use crate::limits::{ATTRIBUTES_BYTES, TEXT_BYTES};
use crate::model::{Entry, FolderKind};
use crate::name;
use crate::record::{EntryRecord, EventKind, EventRecord, kind_number};
use crate::rules::Place;
use metadb_proto::Error;
use metadb_proto::v1::KeyValue;
use std::collections::BTreeMap;

/// A name whose folder is known: checked, with its canonical form.
struct Named<'a> {
    parent: u64,
    name: &'a str,
    canonical: String,
}

impl<'a> Named<'a> {
    fn new(field: &str, kind: FolderKind, parent: u64, name: &'a str) -> Result<Self, Error> {
        Ok(Named { parent, name, canonical: name::canonical(field, kind, name)? })
    }

    fn key(&self) -> Vec<u8> {
        crate::keys::entry(self.parent, &self.canonical)
    }

    fn place(&self) -> Place<'_> {
        Place { parent: self.parent, name: self.name, canonical: &self.canonical }
    }

    /// The entry in a row of this name, and the row's version.
    fn read(&self, row: Option<&KeyValue>) -> Result<Option<(Entry, u64)>, Error> {
        row.map(|row| Ok((EntryRecord::from_row(&row.value)?.into_entry(self.parent, &self.canonical)?, row.version))).transpose()
    }
}

/// The entry in a row whose key tells its name.
fn entry_of(parent: u64, row: &KeyValue) -> Result<Entry, Error> {
    EntryRecord::from_row(&row.value)?.into_entry(parent, &crate::keys::entry_name(&row.key)?)
}

/// An event about a node as its entry shows it.
fn event(kind: EventKind, entry: &Entry) -> EventRecord {
    EventRecord {
        id: entry.id,
        node_kind: kind_number(entry.kind),
        parent: entry.parent,
        name: entry.name.clone(),
        version: entry.version,
        ..EventRecord::new(kind)
    }
}

/// Checks user metadata and short texts against their limits.
fn check_texts(attributes: &BTreeMap<String, String>, texts: &[(&str, &str)]) -> Result<(), Error> {
    let bytes: usize = attributes.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > ATTRIBUTES_BYTES {
        return Err(Error::invalid("attributes", format!("at most {ATTRIBUTES_BYTES} bytes"), format!("{bytes} bytes")));
    }
    for (field, text) in texts {
        if text.len() > TEXT_BYTES {
            return Err(Error::invalid(*field, format!("at most {TEXT_BYTES} bytes"), format!("{} bytes", text.len())));
        }
    }
    Ok(())
}

/// An upload's id from its text.
fn upload_id(text: &str) -> Result<[u8; 16], Error> {
    let bytes = hex::decode(text).ok().and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    bytes.ok_or_else(|| no_upload(text))
}

fn no_upload(text: &str) -> Error {
    Error::not_found(format!("upload `{}`", text.chars().take(64).collect::<String>()))
}
