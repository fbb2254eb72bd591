//! Settings that hold while a cluster runs, and feature flags, which are settings of kind flag.
//!
//! A setting is defined once, in [`registry`]. Values are rows of the directory, each for one scope. For a request on a node several may
//! hold; **the most special scope wins**, in this order:
//!
//! | | scope | holds |
//! | --- | --- | --- |
//! | 1 | user | for requests with this access key |
//! | 2 | tenant | for requests of this tenant |
//! | 3 | host group | on nodes with this label `host_group` |
//! | 4 | pod | on nodes with this label `pod` |
//! | 5 | data centre | on nodes with this label `data_centre` |
//! | 6 | cluster | everywhere |
//! | 7 | | the default of the definition |
//!
//! A node reads through [`Settings`], which costs a few nanoseconds and never waits. Who keeps it fresh is `shard_router::settings`.
//!
//! Not here: who may set something (the directory's rights), and free text (a value is a flag, a number or a word of a list).

pub mod definition;
pub mod gate;
pub mod registry;
pub mod scope;
pub mod table;

pub use definition::{Definition, Kind, Reach, Setting, Typed, Value};
pub use scope::{Asker, Labels, Scope, ScopeKind};
pub use table::{Candidate, Table, explain};

use crate::{Error, v1};
use arc_swap::{ArcSwap, Guard};
use std::sync::Arc;

/// The setting with this name.
///
/// # Errors
/// [`Error::Invalid`] if there is none, naming those that are near.
pub fn definition(name: &str) -> Result<&'static Definition, Error> {
    let unknown = || {
        let part = name.split('.').next().unwrap_or_default();
        let near: Vec<_> = registry::DEFINITIONS.iter().map(|d| d.name).filter(|n| n.split('.').next() == Some(part)).collect();
        let known = if near.is_empty() { "one of those that `cairn admin setting list --all` shows".to_owned() } else { near.join(", ") };
        Error::invalid("setting", known, format!("{:?}", name.chars().take(scope::SCOPE_ID_BYTES).collect::<String>()))
    };
    registry::find(name).ok_or_else(unknown)
}

/// The settings in force on a node. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Settings {
    inner: Arc<Inner>,
}

struct Inner {
    labels: Labels,
    table: ArcSwap<Table>,
}

impl Settings {
    /// The defaults, on a node with these labels.
    #[must_use]
    pub fn new(labels: Labels) -> Self {
        let table = ArcSwap::from_pointee(Table::new(0, &[], &labels));
        Settings { inner: Arc::new(Inner { labels, table }) }
    }

    /// The value of a setting for someone.
    #[must_use]
    pub fn get<T: Typed>(&self, setting: &Setting<T>, asker: Asker<'_>) -> T {
        self.table().get(setting, asker)
    }

    /// All values at one moment: for who asks several.
    #[must_use]
    pub fn table(&self) -> Guard<Arc<Table>> {
        self.inner.table.load()
    }

    /// The revision in force, 0 for the defaults. It rises with every change.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.table().revision()
    }

    /// Puts rows in force, as they were at a revision.
    pub fn replace(&self, revision: u64, records: &[v1::SettingRecord]) {
        self.inner.table.store(Arc::new(Table::new(revision, records, &self.inner.labels)));
    }

    /// The labels of this node that settings know.
    #[must_use]
    pub fn labels(&self) -> &Labels {
        &self.inner.labels
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings::new(Labels::default())
    }
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("revision", &self.revision()).field("labels", &self.inner.labels).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
