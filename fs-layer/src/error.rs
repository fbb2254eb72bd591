//! Errors of the namespace: `metadb_proto::Error` with fixed fields and messages, so that a door can tell apart what its protocol tells
//! apart. Translation to a wire happens in the doors.

use metadb_proto::Error;

const NOT_EMPTY_LIMIT: &str = "an empty folder";
const PRECONDITION: &str = "precondition failed: ";

/// A folder that must be empty is not.
pub(crate) fn not_empty(field: &str) -> Error {
    Error::invalid(field, NOT_EMPTY_LIMIT, "a folder with entries")
}

/// Whether an operation was refused because a folder has entries.
#[must_use]
pub fn is_not_empty(error: &Error) -> bool {
    matches!(error, Error::Invalid { limit, .. } if limit == NOT_EMPTY_LIMIT)
}

/// The caller's precondition did not hold.
pub(crate) fn precondition_failed(what: impl std::fmt::Display) -> Error {
    Error::Conflict { message: format!("{PRECONDITION}{what}") }
}

/// Whether an operation was refused because the caller's [`crate::Precondition`] on a version or an etag did not hold. (One that the name be
/// absent gives [`Error::AlreadyExists`].)
#[must_use]
pub fn is_precondition_failed(error: &Error) -> bool {
    matches!(error, Error::Conflict { message } if message.starts_with(PRECONDITION))
}

/// A row that can't be read: written by a newer build, or broken.
pub(crate) fn bad_row(what: &str, why: impl std::fmt::Display) -> Error {
    Error::Corrupt { message: format!("{what} row: {why}") }
}

/// There is no such name.
pub(crate) fn no_entry(parent: u64, name: &str) -> Error {
    Error::not_found(format!("`{name}` in folder {parent}"))
}

/// There is no such folder.
pub(crate) fn no_folder(id: u64) -> Error {
    Error::not_found(format!("folder {id}"))
}

/// There is something of that name already.
pub(crate) fn already_exists(parent: u64, name: &str) -> Error {
    Error::AlreadyExists { message: format!("`{name}` in folder {parent}") }
}
