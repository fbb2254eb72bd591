//! All values in force on one node, put together from the rows of the directory. Immutable: a change makes a new table.
//!
//! What depends on the node's labels only is decided when the table is built, so a read of such a value is an index into an array.

use super::definition::{Definition, Setting, Typed, Value};
use super::registry::DEFINITIONS;
use super::scope::{Asker, Labels, Scope, ScopeKind};
use crate::v1;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A value that someone set.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    index: usize,
    value: Value,
    reason: Arc<str>,
}

/// All values in force.
#[derive(Debug, PartialEq, Eq)]
pub struct Table {
    revision: u64,
    /// By the place in the registry: what holds for nobody in particular.
    node: Vec<(Value, Arc<str>)>,
    tenants: BTreeMap<u64, Vec<Entry>>,
    users: BTreeMap<String, Vec<Entry>>,
    unusable: Vec<String>,
}

impl Table {
    /// The table of a node. Rows that this build can't use (an unknown name, a value out of bounds: another build wrote them) do not
    /// count; see [`Table::unusable`].
    #[must_use]
    pub fn new(revision: u64, records: &[v1::SettingRecord], labels: &Labels) -> Self {
        let nothing: Arc<str> = Arc::from("");
        let node = DEFINITIONS.iter().map(|definition| (definition.default, Arc::clone(&nothing))).collect();
        let mut table = Table { revision, node, tenants: BTreeMap::new(), users: BTreeMap::new(), unusable: Vec::new() };
        // Which kind of scope a value of the node came from: a more special one replaces it.
        let mut won: Vec<Option<ScopeKind>> = vec![None; DEFINITIONS.len()];
        for record in records {
            let Some((definition, scope, value)) = usable(record) else {
                table.unusable.push(format!("{} = {:?}", record.name, record.value));
                continue;
            };
            let entry = Entry { index: definition.index, value, reason: Arc::from(record.reason.as_str()) };
            match scope {
                Scope::Tenant(id) => table.tenants.entry(id).or_default().push(entry),
                Scope::User(id) => table.users.entry(id).or_default().push(entry),
                scope if scope.holds_for(labels, Asker::NODE) && won[entry.index] <= Some(scope.kind()) => {
                    won[entry.index] = Some(scope.kind());
                    table.node[entry.index] = (entry.value, entry.reason);
                }
                Scope::Cluster | Scope::DataCentre(_) | Scope::Pod(_) | Scope::HostGroup(_) => {}
            }
        }
        table
    }

    /// The revision that the table was made at, 0 for the defaults.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The value of a setting for someone.
    #[must_use]
    pub fn get<T: Typed>(&self, setting: &Setting<T>, asker: Asker<'_>) -> T {
        self.of(asker).get(setting)
    }

    /// The values for someone who asks for several.
    #[must_use]
    pub fn of(&self, asker: Asker<'_>) -> Held<'_> {
        let user = asker.user.filter(|_| !self.users.is_empty()).and_then(|user| self.users.get(user));
        let tenant = asker.tenant.filter(|_| !self.tenants.is_empty()).and_then(|tenant| self.tenants.get(&tenant));
        Held { table: self, special: [user.map(Vec::as_slice), tenant.map(Vec::as_slice)] }
    }

    /// Why the value in force was set; empty if nobody said, or nobody set it.
    #[must_use]
    pub fn reason(&self, definition: &Definition, asker: Asker<'_>) -> &str {
        self.of(asker).find(definition.index).1
    }

    /// Rows that are not in force because this build does not know what to do with them.
    #[must_use]
    pub fn unusable(&self) -> &[String] {
        &self.unusable
    }
}

/// What holds for someone.
#[derive(Debug, Clone, Copy)]
pub struct Held<'a> {
    table: &'a Table,
    /// What was set for exactly this user, and for this tenant.
    special: [Option<&'a [Entry]>; 2],
}

impl<'a> Held<'a> {
    /// The value of a setting.
    #[must_use]
    pub fn get<T: Typed>(&self, setting: &Setting<T>) -> T {
        let found = T::of(self.find(setting.definition.index).0);
        // Values are parsed by the kind of their own setting, and a test compares every default with its type.
        found.or_else(|| T::of(setting.definition.default)).expect("a default is of its setting's type")
    }

    fn find(&self, index: usize) -> (Value, &'a str) {
        for entries in self.special.into_iter().flatten() {
            if let Some(entry) = entries.iter().find(|entry| entry.index == index) {
                return (entry.value, &entry.reason);
            }
        }
        let (value, reason) = &self.table.node[index];
        (*value, reason)
    }
}

fn usable(record: &v1::SettingRecord) -> Option<(&'static Definition, Scope, Value)> {
    let definition = super::registry::find(&record.name)?;
    let scope = Scope::from_proto(record.scope.as_ref()?)?;
    definition.check_scope(&scope).ok()?;
    Some((definition, scope, definition.kind.parse(&record.value)?))
}

/// One value that may hold for someone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// For whom it was set; none: the default.
    pub scope: Option<Scope>,
    /// The value.
    pub value: Value,
    /// What the directory says of it.
    pub record: Option<v1::SettingRecord>,
}

/// Every value of a setting that may hold for someone on a node with these labels; the first is the one in force.
#[must_use]
pub fn explain(definition: &'static Definition, records: &[v1::SettingRecord], labels: &Labels, asker: Asker<'_>) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = records
        .iter()
        .filter(|record| record.name == definition.name)
        .filter_map(|record| usable(record).map(|(_, scope, value)| Candidate { scope: Some(scope), value, record: Some(record.clone()) }))
        .filter(|candidate| candidate.scope.as_ref().is_some_and(|scope| scope.holds_for(labels, asker)))
        .collect();
    found.sort_by_key(|candidate| std::cmp::Reverse(candidate.scope.as_ref().map(Scope::kind)));
    found.push(Candidate { scope: None, value: definition.default, record: None });
    found
}
