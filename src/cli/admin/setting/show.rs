//! Settings, as they are printed.

use super::Tenants;
use crate::cli::time;
use crate::output::Show;
use metadb_proto::settings::{Candidate, Definition, Scope, ScopeKind};
use metadb_proto::v1::{SettingChange, SettingRecord};
use serde::Serialize;
use shard_router::operator::{Change, Changed};

/// A scope with a tenant's name instead of its id.
fn scope_name(scope: Option<Scope>, tenants: &Tenants) -> String {
    match scope {
        Some(Scope::Tenant(id)) => tenants.get(&id).map_or_else(|| format!("tenant {id}"), |name| format!("tenant {name}")),
        Some(scope) => scope.to_string(),
        None => "unknown".to_owned(),
    }
}

/// What a setting is.
#[derive(Debug, Serialize)]
struct KnownRow {
    name: &'static str,
    may_be: String,
    default: String,
    scopes: String,
    description: &'static str,
}

/// Every setting there is.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct Known(Vec<KnownRow>);

impl Known {
    pub(super) fn new(definitions: &[&'static Definition]) -> Self {
        let row = |definition: &&'static Definition| KnownRow {
            name: definition.name,
            may_be: definition.kind.limit(),
            default: definition.default.to_string(),
            scopes: ScopeKind::ALL.iter().filter(|s| definition.reach.allows(**s)).map(|s| s.name()).collect::<Vec<_>>().join(", "),
            description: definition.description.trim(),
        };
        Known(definitions.iter().map(row).collect())
    }
}

impl Show for Known {
    fn columns(&self) -> Vec<&'static str> {
        vec!["NAME", "MAY BE", "DEFAULT", "MEANING"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |row: &KnownRow| vec![row.name.to_owned(), row.may_be.clone(), row.default.clone(), row.description.to_owned()];
        self.0.iter().map(row).collect()
    }
}

#[derive(Debug, Serialize)]
struct ValueRow {
    name: String,
    scope: String,
    value: String,
    revision: u64,
    set_at: String,
    set_by: String,
    reason: String,
}

impl ValueRow {
    fn new(record: &SettingRecord, tenants: &Tenants) -> Self {
        ValueRow {
            name: record.name.clone(),
            scope: scope_name(record.scope.as_ref().and_then(Scope::from_proto), tenants),
            value: record.value.clone(),
            revision: record.revision,
            set_at: time(record.set_at_ms),
            set_by: record.set_by.clone(),
            reason: record.reason.clone(),
        }
    }
}

/// The values that are set.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct Values(Vec<ValueRow>);

impl Values {
    pub(super) fn new(records: &[SettingRecord], tenants: &Tenants) -> Self {
        let mut rows: Vec<_> = records.iter().map(|record| ValueRow::new(record, tenants)).collect();
        rows.sort_by(|a, b| (&a.name, &a.scope).cmp(&(&b.name, &b.scope)));
        Values(rows)
    }
}

impl Show for Values {
    fn columns(&self) -> Vec<&'static str> {
        vec!["NAME", "SCOPE", "VALUE", "REVISION", "SET", "BY", "REASON"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |r: &ValueRow| {
            vec![
                r.name.clone(),
                r.scope.clone(),
                r.value.clone(),
                r.revision.to_string(),
                r.set_at.clone(),
                r.set_by.clone(),
                r.reason.clone(),
            ]
        };
        self.0.iter().map(row).collect()
    }

    fn empty(&self) -> &'static str {
        "nothing is set: every setting has its default; `cairn admin setting list --all` shows them"
    }
}

#[derive(Debug, Serialize)]
struct CandidateRow {
    scope: String,
    value: String,
    in_force: bool,
    set_at: Option<String>,
    set_by: Option<String>,
    reason: Option<String>,
}

/// The value in force and those that it won against.
#[derive(Debug, Serialize)]
pub(super) struct Explained {
    name: &'static str,
    value: String,
    won_by: String,
    candidates: Vec<CandidateRow>,
}

impl Explained {
    pub(super) fn new(definition: &'static Definition, candidates: &[Candidate], tenants: &Tenants) -> Self {
        let row = |(at, candidate): (usize, &Candidate)| CandidateRow {
            scope: candidate.scope.clone().map_or_else(|| "default".to_owned(), |scope| scope_name(Some(scope), tenants)),
            value: candidate.value.to_string(),
            in_force: at == 0,
            set_at: candidate.record.as_ref().map(|record| time(record.set_at_ms)),
            set_by: candidate.record.as_ref().map(|record| record.set_by.clone()),
            reason: candidate.record.as_ref().map(|record| record.reason.clone()),
        };
        let rows: Vec<_> = candidates.iter().enumerate().map(row).collect();
        let (value, won_by) = rows.first().map_or_else(Default::default, |row| (row.value.clone(), row.scope.clone()));
        Explained { name: definition.name, value, won_by, candidates: rows }
    }
}

impl Show for Explained {
    fn columns(&self) -> Vec<&'static str> {
        vec!["VALUE", "SCOPE", "", "SET", "BY", "REASON"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |r: &CandidateRow| {
            let known = |text: &Option<String>| text.clone().unwrap_or_default();
            let wins = if r.in_force { "in force" } else { "" };
            vec![r.value.clone(), r.scope.clone(), wins.to_owned(), known(&r.set_at), known(&r.set_by), known(&r.reason)]
        };
        self.candidates.iter().map(row).collect()
    }
}

#[derive(Debug, Serialize)]
struct ChangeRow {
    at: String,
    by: String,
    scope: String,
    old: Option<String>,
    new: Option<String>,
    revision: u64,
    reason: String,
}

/// What became of a setting.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct Changes(Vec<ChangeRow>);

impl Changes {
    pub(super) fn new(changes: Vec<SettingChange>, tenants: &Tenants) -> Self {
        let row = |change: SettingChange| ChangeRow {
            at: time(change.changed_at_ms),
            by: change.changed_by,
            scope: scope_name(change.scope.as_ref().and_then(Scope::from_proto), tenants),
            old: change.old_value,
            new: change.new_value,
            revision: change.revision,
            reason: change.reason,
        };
        Changes(changes.into_iter().map(row).collect())
    }
}

impl Show for Changes {
    fn columns(&self) -> Vec<&'static str> {
        vec!["WHEN", "WHO", "SCOPE", "OLD", "NEW", "REVISION", "REASON"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "not set".to_owned());
        let row = |r: &ChangeRow| {
            vec![r.at.clone(), r.by.clone(), r.scope.clone(), value(&r.old), value(&r.new), r.revision.to_string(), r.reason.clone()]
        };
        self.0.iter().map(row).collect()
    }

    fn empty(&self) -> &'static str {
        "nobody has changed it"
    }
}

/// What a change did.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    name: &'static str,
    scope: String,
    old: Option<String>,
    new: Option<String>,
    revision: u64,
    dry_run: bool,
    nodes_in_force: usize,
    nodes_late: Vec<u64>,
}

impl Outcome {
    pub(super) fn new(change: &Change, changed: Changed, (nodes_in_force, nodes_late): (usize, Vec<u64>)) -> Self {
        Outcome {
            name: change.definition.name,
            scope: change.scope.to_string(),
            old: changed.old.map(|old| old.value),
            new: changed.new,
            revision: changed.revision,
            dry_run: change.dry_run,
            nodes_in_force,
            nodes_late,
        }
    }

    /// For people.
    pub(super) fn sentence(&self) -> String {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "not set".to_owned());
        let (old, new, Outcome { name, scope, .. }) = (value(&self.old), value(&self.new), self);
        if self.dry_run {
            return format!("{name} for {scope} would go from {old} to {new}; nothing was changed");
        }
        let late: Vec<String> = self.nodes_late.iter().map(ToString::to_string).collect();
        let where_it_holds = if late.is_empty() {
            format!("in force on all {} nodes", self.nodes_in_force)
        } else {
            format!(
                "in force on {} nodes; not yet on {}, which will have it when they reach the directory",
                self.nodes_in_force,
                late.join(", ")
            )
        };
        format!("{name} for {scope}: {old} -> {new}, revision {}, {where_it_holds}", self.revision)
    }
}
