//! Keys of a tenant's namespace: one enum of all kinds, with number and layout. Numbers are frozen.
//!
//! A key is the tuple encoding of the kind's number and what follows it, so rows of a kind lie together in the order told here.
//! An entry's key is `prefix of the kind + link + segment`, as `metadb.v1.WalkRequest` follows it: the link is the tuple-encoded id of the
//! folder, the segment the tuple-encoded canonical name.

use crate::error::bad_row;
use metadb_proto::{Error, tuple};

/// Every kind of key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u64)]
pub enum KeyKind {
    /// `(1, node id)` → [`crate::record::NodeRecord`].
    Node = 1,
    /// `(2, folder id, canonical name as bytes)` → link, then [`crate::record::EntryRecord`].
    Entry = 2,
    /// `(3, node id, u64::MAX - version number)` → [`crate::record::VersionRecord`]. Newest first.
    Version = 3,
    /// `(4, folder id, principal)` → rights. Reserved.
    Acl = 4,
    /// `(5, versionstamp)` → [`crate::record::EventRecord`]. In commit order.
    Event = 5,
    /// `(6, content id as 16 bytes)` → [`crate::record::ContentRecord`].
    Content = 6,
    /// `(7, folder id, canonical name as bytes, upload id as 16 bytes)` → [`crate::record::UploadRecord`].
    Upload = 7,
    /// `(8, upload id as 16 bytes, part number)` → [`crate::record::PartRecord`].
    UploadPart = 8,
    /// `(9, versionstamp)` → [`crate::record::ReleasedRecord`]. In commit order.
    Released = 9,
    /// `(10, slot of time, request id as bytes)` → [`crate::record::RequestRecord`].
    Request = 10,
    /// `(11, name)` → 64-bit little-endian counter. The only one: `node`, the highest id drawn.
    Counter = 11,
    /// `(12, content id as 16 bytes)` → nothing. Contents that lost their last name.
    Unnamed = 12,
}

impl KeyKind {
    fn number(self) -> u64 {
        self as u64
    }

    /// All keys of the kind begin with this.
    #[must_use]
    pub fn prefix(self) -> Vec<u8> {
        tuple::pack(&(self.number(),))
    }
}

/// Type code of a versionstamp in a tuple.
const VERSIONSTAMP: u8 = 0x33;
/// Type code of bytes in a tuple, and their end.
const BYTES: u8 = 0x01;
const BYTES_END: u8 = 0x00;

/// Key of a node.
#[must_use]
pub fn node(id: u64) -> Vec<u8> {
    tuple::pack(&(KeyKind::Node.number(), id))
}

/// Key of an entry.
#[must_use]
pub fn entry(parent: u64, canonical: &str) -> Vec<u8> {
    tuple::pack(&(KeyKind::Entry.number(), parent, canonical.as_bytes()))
}

/// What leads a walk from a folder to its entries.
#[must_use]
pub fn link(folder: u64) -> Vec<u8> {
    tuple::pack(&(folder,))
}

/// A canonical name as a segment of a walk.
#[must_use]
pub fn segment(canonical: &str) -> Vec<u8> {
    tuple::pack(&(canonical.as_bytes(),))
}

/// All entries of a folder: from the first key, inclusive, to the second, exclusive.
#[must_use]
pub fn entries(parent: u64) -> (Vec<u8>, Vec<u8>) {
    under(&tuple::pack(&(KeyKind::Entry.number(), parent)))
}

/// The first key that an entry of a folder can have whose canonical name is at or behind `from`. `from` may end in NUL to mean "behind".
#[must_use]
pub fn entries_from(parent: u64, from: &[u8]) -> Vec<u8> {
    from_bytes(tuple::pack(&(KeyKind::Entry.number(), parent)), from)
}

/// The canonical name in an entry's key.
///
/// # Errors
/// [`Error::Corrupt`] if it is none.
pub fn entry_name(key: &[u8]) -> Result<String, Error> {
    let (_, _, name): (u64, u64, Vec<u8>) = tuple::unpack(key).map_err(|e| bad_row("entry", format!("key {}: {e:?}", hex::encode(key))))?;
    String::from_utf8(name).map_err(|e| bad_row("entry", e))
}

/// Key of a version.
#[must_use]
pub fn version(node: u64, number: u64) -> Vec<u8> {
    tuple::pack(&(KeyKind::Version.number(), node, u64::MAX - number))
}

/// All versions of a file, newest first.
#[must_use]
pub fn versions(node: u64) -> (Vec<u8>, Vec<u8>) {
    under(&tuple::pack(&(KeyKind::Version.number(), node)))
}

/// Key of a content.
#[must_use]
pub fn content(id: &[u8; 16]) -> Vec<u8> {
    tuple::pack(&(KeyKind::Content.number(), id.as_slice()))
}

/// Key of an upload.
#[must_use]
pub fn upload(parent: u64, canonical: &str, upload_id: &[u8; 16]) -> Vec<u8> {
    tuple::pack(&(KeyKind::Upload.number(), parent, canonical.as_bytes(), upload_id.as_slice()))
}

/// All uploads in a folder, by name and upload id.
#[must_use]
pub fn uploads(parent: u64) -> (Vec<u8>, Vec<u8>) {
    under(&tuple::pack(&(KeyKind::Upload.number(), parent)))
}

/// The first key that an upload in a folder can have whose canonical name is at or behind `from`.
#[must_use]
pub fn uploads_from(parent: u64, from: &[u8]) -> Vec<u8> {
    from_bytes(tuple::pack(&(KeyKind::Upload.number(), parent)), from)
}

/// The canonical name and the upload id in an upload's key.
///
/// # Errors
/// [`Error::Corrupt`] if it is none.
pub fn upload_of(key: &[u8]) -> Result<(String, [u8; 16]), Error> {
    let (_, _, name, id): (u64, u64, Vec<u8>, Vec<u8>) = tuple::unpack(key).map_err(|e| bad_row("upload", format!("key: {e:?}")))?;
    let id = <[u8; 16]>::try_from(id.as_slice()).map_err(|e| bad_row("upload", e))?;
    Ok((String::from_utf8(name).map_err(|e| bad_row("upload", e))?, id))
}

/// Key of a part of an upload.
#[must_use]
pub fn upload_part(upload_id: &[u8; 16], number: u32) -> Vec<u8> {
    tuple::pack(&(KeyKind::UploadPart.number(), upload_id.as_slice(), number))
}

/// All parts of an upload, by number.
#[must_use]
pub fn upload_parts(upload_id: &[u8; 16]) -> (Vec<u8>, Vec<u8>) {
    under(&tuple::pack(&(KeyKind::UploadPart.number(), upload_id.as_slice())))
}

/// Key of a request's outcome.
#[must_use]
pub fn request(slot: u64, request_id: &[u8]) -> Vec<u8> {
    tuple::pack(&(KeyKind::Request.number(), slot, request_id))
}

/// All outcomes of slots before this one.
#[must_use]
pub fn requests_before(slot: u64) -> (Vec<u8>, Vec<u8>) {
    (KeyKind::Request.prefix(), tuple::pack(&(KeyKind::Request.number(), slot)))
}

/// Key of the mark that a content lost its last name.
#[must_use]
pub fn unnamed(id: &[u8; 16]) -> Vec<u8> {
    tuple::pack(&(KeyKind::Unnamed.number(), id.as_slice()))
}

/// The content whose mark this is.
///
/// # Errors
/// [`Error::Corrupt`] if it is none.
pub fn unnamed_of(key: &[u8]) -> Result<[u8; 16], Error> {
    let (_, id): (u64, Vec<u8>) = tuple::unpack(key).map_err(|e| bad_row("unnamed", format!("key: {e:?}")))?;
    id.as_slice().try_into().map_err(|e| bad_row("unnamed", e))
}

/// Key of a counter.
#[must_use]
pub fn counter(name: &str) -> Vec<u8> {
    tuple::pack(&(KeyKind::Counter.number(), name))
}

/// What stands before and behind the version in a key of a versionstamped kind.
#[must_use]
pub fn versionstamped(kind: KeyKind) -> (Vec<u8>, Vec<u8>) {
    let mut prefix = kind.prefix();
    prefix.push(VERSIONSTAMP);
    // The two bytes that a client may number its stamps with.
    (prefix, vec![0, 0])
}

/// All keys of a kind.
#[must_use]
pub fn all(kind: KeyKind) -> (Vec<u8>, Vec<u8>) {
    under(&kind.prefix())
}

/// The first key behind this one.
#[must_use]
pub fn after(key: &[u8]) -> Vec<u8> {
    let mut next = key.to_vec();
    next.push(0);
    next
}

fn under(prefix: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut end = prefix.to_vec();
    end.push(0xff);
    (prefix.to_vec(), end)
}

/// `prefix` and then bytes as a tuple begins them, without their end: at or before every key whose bytes are at or behind `from`.
fn from_bytes(mut prefix: Vec<u8>, from: &[u8]) -> Vec<u8> {
    prefix.push(BYTES);
    for byte in from {
        prefix.push(*byte);
        if *byte == BYTES_END {
            prefix.push(0xff);
        }
    }
    prefix
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn layouts_are_frozen() {
        let id = [7; 16];
        let sevens = "07".repeat(16);
        let all = [
            (node(1), "15011501".to_owned()),
            (entry(258, "a/b"), "1502160102 01612f62 00".replace(' ', "")),
            (version(2, 1), "1503 1502 1cfffffffffffffffe".replace(' ', "")),
            (content(&id), format!("150601{sevens}00")),
            (upload(1, "k", &id), format!("15071501016b0001{sevens}00")),
            (upload_part(&id, 5), format!("150801{sevens}001505")),
            (request(3, &id), format!("150a150301{sevens}00")),
            (counter("node"), "150b026e6f646500".to_owned()),
            (versionstamped(KeyKind::Event).0, "150533".to_owned()),
            (versionstamped(KeyKind::Released).0, "150933".to_owned()),
        ];
        for (key, golden) in all {
            assert_eq!(hex::encode(key), golden);
        }
    }

    #[test]
    fn a_walk_builds_the_key_of_an_entry() {
        let walked = [KeyKind::Entry.prefix(), link(300), segment("näme")].concat();
        assert_eq!(walked, entry(300, "näme"));
        assert_eq!(entry_name(&walked).expect("a key"), "näme");
    }

    proptest! {
        #[test]
        fn entries_sort_by_the_bytes_of_their_names(a in "[^\0]{0,8}", b in "[^\0]{0,8}", parent in 1u64..) {
            let (x, y) = (entry(parent, &a), entry(parent, &b));
            prop_assert_eq!(x.cmp(&y), a.as_bytes().cmp(b.as_bytes()));
            prop_assert_eq!(y >= entries_from(parent, a.as_bytes()), b.as_bytes() >= a.as_bytes());
            let behind = [a.as_bytes(), &[0]].concat();
            prop_assert_eq!(y >= entries_from(parent, &behind), b.as_bytes() > a.as_bytes());
            let (start, end) = entries(parent);
            prop_assert!(start <= x && x < end);
        }

        #[test]
        fn newer_versions_come_first(node in 1u64.., a in 1u64..1 << 60, b in 1u64..1 << 60) {
            prop_assert_eq!(version(node, a).cmp(&version(node, b)), b.cmp(&a));
        }
    }
}
