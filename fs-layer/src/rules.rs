//! What a rename or a delete may do, decided from what was read. No I/O.

use crate::error::{already_exists, no_entry, not_empty, precondition_failed};
use crate::model::{Entry, FolderKind, NodeKind, Precondition};
use metadb_proto::Error;

/// A name in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// The folder.
    pub parent: u64,
    /// The name as given.
    pub name: &'a str,
    /// The name as compared.
    pub canonical: &'a str,
}

/// All that the rules of renaming look at.
#[derive(Debug, Clone, Copy)]
pub struct Rename<'a> {
    /// What is renamed.
    pub source: &'a Entry,
    /// Where it is.
    pub from: Place<'a>,
    /// Where it shall be.
    pub to: Place<'a>,
    /// What kind of folder it shall be in.
    pub to_kind: FolderKind,
    /// What has that name now.
    pub target: Option<&'a Entry>,
    /// Whether that, if it is a folder, has no entries.
    pub target_empty: bool,
    /// Whether it may be replaced.
    pub replace: bool,
    /// The folder it shall be in and all above it; looked at only if a folder goes to another folder.
    pub ancestors: &'a [u64],
}

/// What a rename does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renaming {
    /// It has that name already.
    Nothing,
    /// The same entry, spelled otherwise.
    Respell,
    /// To a name that is free.
    Move,
    /// To the name of the target, which goes away.
    Replace,
}

/// Whether a rename changes the folder of a folder, so that it could make a cycle.
#[must_use]
pub fn needs_ancestors(source: &Entry, from_parent: u64, to_parent: u64) -> bool {
    source.kind != NodeKind::File && from_parent != to_parent
}

/// Decides a rename.
///
/// # Errors
/// [`Error::Invalid`] or [`Error::AlreadyExists`], as the rules say.
pub fn rename(rename: &Rename<'_>) -> Result<Renaming, Error> {
    let Rename { source, from, to, to_kind, target, target_empty, replace, ancestors } = *rename;
    if from.parent == to.parent && from.canonical == to.canonical {
        return Ok(if source.name == to.name { Renaming::Nothing } else { Renaming::Respell });
    }
    if source.kind != NodeKind::File && to_kind == FolderKind::Flat {
        return Err(Error::invalid("to_parent", "a tree folder, to take a folder", format!("flat folder {}", to.parent)));
    }
    if needs_ancestors(source, from.parent, to.parent) && ancestors.contains(&source.id) {
        return Err(Error::invalid("to_parent", "not the folder that is moved, nor beneath it", format!("folder {}", to.parent)));
    }
    let Some(target) = target else { return Ok(Renaming::Move) };
    if !replace {
        return Err(already_exists(to.parent, to.name));
    }
    match (source.kind, target.kind) {
        (NodeKind::File, NodeKind::File) => Ok(Renaming::Replace),
        (NodeKind::Tree, NodeKind::Tree) | (NodeKind::Flat, NodeKind::Flat) if target_empty => Ok(Renaming::Replace),
        (NodeKind::Tree, NodeKind::Tree) | (NodeKind::Flat, NodeKind::Flat) => Err(not_empty("to_name")),
        (from, to) => Err(Error::invalid("to_name", format!("free, or of a {}", word(from)), format!("the name of a {}", word(to)))),
    }
}

fn word(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::Tree => "tree folder",
        NodeKind::Flat => "flat folder",
        NodeKind::File => "file",
    }
}

/// Whether a precondition holds of what has a name now.
///
/// # Errors
/// [`Error::AlreadyExists`], [`Error::NotFound`], or a conflict that [`crate::error::is_precondition_failed`] knows.
pub fn check(precondition: &Precondition, place: Place<'_>, entry: Option<&Entry>) -> Result<(), Error> {
    let newest = || entry.filter(|entry| entry.kind == NodeKind::File).ok_or_else(|| no_entry(place.parent, place.name));
    match precondition {
        Precondition::None => Ok(()),
        Precondition::Absent if entry.is_none() => Ok(()),
        Precondition::Absent => Err(already_exists(place.parent, place.name)),
        Precondition::Exists => newest().map(|_| ()),
        Precondition::VersionIs(version) => match newest()?.version {
            now if now == *version => Ok(()),
            now => Err(precondition_failed(format!("`{}` is at version {now}, not {version}", place.name))),
        },
        Precondition::EtagIs(etag) => match newest()? {
            now if now.etag == *etag => Ok(()),
            now => Err(precondition_failed(format!("`{}` has etag {}, not {etag}", place.name, now.etag))),
        },
    }
}

#[cfg(test)]
mod tests;
