//! Naming contents: what every operation shares that names bytes written before. Not an operation of its own.
//!
//! A content row counts its names, so the same bytes may be named again (a copy) for nothing. A content whose last name is gone is on its way
//! out and can't be named again.

use crate::driver::Plan;
use crate::keys;
use crate::limits::{CONTENT_PARTS, COPIES, NEW_CONTENT_PARTS};
use crate::model::{Content, ContentPart};
use crate::record::{ContentRecord, Record as _};
use metadb_proto::Error;
use metadb_proto::v1::KeyValue;
use shard_router::{condition, operation};
use std::collections::BTreeMap;

/// Checks a content against the limits and the size that it is said to have.
pub(super) fn check(content: &Content, size: u64) -> Result<(), Error> {
    if content.0.len() > CONTENT_PARTS {
        return Err(Error::invalid("content", format!("at most {CONTENT_PARTS} parts"), format!("{} parts", content.0.len())));
    }
    if content.size_bytes() != size {
        return Err(Error::invalid("size", format!("{}, as its content", content.size_bytes()), size.to_string()));
    }
    match content.0.iter().map(|part| part.nodes.len()).find(|copies| !(1..=COPIES).contains(copies)) {
        Some(copies) => Err(Error::invalid("content.nodes", format!("1 to {COPIES} nodes"), format!("{copies} nodes"))),
        None => Ok(()),
    }
}

/// The contents that get a name, each once, with how many names it gets.
pub(super) struct Naming<'a> {
    parts: BTreeMap<[u8; 16], (&'a ContentPart, u64)>,
    only_known: bool,
}

impl<'a> Naming<'a> {
    pub(super) fn of(content: &'a Content) -> Result<Self, Error> {
        let mut parts: BTreeMap<[u8; 16], (&ContentPart, u64)> = BTreeMap::new();
        for part in &content.0 {
            parts.entry(part.content_id).or_insert((part, 0)).1 += 1;
        }
        if parts.len() > NEW_CONTENT_PARTS {
            let limit = format!("at most {NEW_CONTENT_PARTS} parts at once; more through an upload");
            return Err(Error::invalid("content", limit, format!("{} parts", parts.len())));
        }
        Ok(Naming { parts, only_known: false })
    }

    /// With `true`, only contents that have a name already are named. Who read of a content and names it again needs this: a content that
    /// lost its last name since may be forgotten altogether, and its bytes with it.
    pub(super) fn only_known(self, only_known: bool) -> Self {
        Naming { only_known, ..self }
    }

    /// The rows to read.
    pub(super) fn keys(&self) -> impl Iterator<Item = Vec<u8>> {
        self.parts.keys().map(keys::content)
    }

    /// Adds to a plan what names the contents, given their rows as read.
    pub(super) fn plan<T>(&self, plan: &mut Plan<T>, rows: &[Option<KeyValue>]) -> Result<(), Error> {
        assert_eq!(rows.len(), self.parts.len(), "a row was asked per content");
        for ((id, (part, more)), row) in self.parts.iter().zip(rows) {
            let key = keys::content(id);
            let record = match row {
                None if self.only_known => return Err(unnamed_meanwhile(id)),
                None => {
                    plan.conditions.push(condition::absent(key.clone()));
                    ContentRecord::of(part, *more)
                }
                Some(row) => {
                    plan.conditions.push(condition::version_is(key.clone(), row.version));
                    let record = ContentRecord::from_bytes(row.value.clone())?;
                    if self.only_known && record.names == 0 {
                        return Err(unnamed_meanwhile(id));
                    }
                    named_again(part, *more, record)?
                }
            };
            plan.operations.push(operation::put(key, record.to_bytes()));
        }
        Ok(())
    }
}

fn unnamed_meanwhile(id: &[u8; 16]) -> Error {
    Error::Conflict { message: format!("content {} lost its last name meanwhile", hex::encode(id)) }
}

fn named_again(part: &ContentPart, more: u64, record: ContentRecord) -> Result<ContentRecord, Error> {
    let names = record.names;
    let known = record.clone().into_info()?.part;
    if (known.size_bytes, known.blake3) != (part.size_bytes, part.blake3) {
        let value = format!("{} bytes, {}", part.size_bytes, hex::encode(part.blake3));
        return Err(Error::invalid("content", format!("{} bytes, {}, as known", known.size_bytes, hex::encode(known.blake3)), value));
    }
    if names == 0 {
        return Err(Error::invalid("content", "named, or new", format!("{}, which lost its last name", hex::encode(part.content_id))));
    }
    Ok(ContentRecord { names: names.saturating_add(more), ..record })
}
