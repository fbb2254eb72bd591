//! Settings: set, unset, read, and what became of them.
//!
//! A change is one transaction: the row, its history and the revision of all settings. It is refused when somebody else changed the same
//! setting for the same scope since the operator looked, if the operator says what it saw.

use super::{Operator, PATIENCE, counter, nodes::decode, set_counter};
use crate::client::Scan;
use crate::directory::{record, records};
use crate::transaction::Transaction;
use metadb_proto::settings::{Definition, Scope};
use metadb_proto::v1::{SettingChange, SettingRecord, StatusResponse, node_record};
use metadb_proto::{Error, directory, seam};
use prost::Message as _;
use std::time::Duration;
use tokio::time::Instant;

/// Most values that may be set: every node reads all of them after a change, a few megabytes.
pub const SETTINGS: usize = 50_000;
/// Longest reason, in bytes.
pub const REASON_BYTES: usize = 512;
/// Changes of one setting that stay readable.
const HISTORY: usize = 1000;
/// How often nodes are asked whether a change is in force.
const ASK: Duration = Duration::from_millis(50);

/// A change of one setting for one scope.
#[derive(Debug, Clone)]
pub struct Change {
    /// Which setting.
    pub definition: &'static Definition,
    /// For whom.
    pub scope: Scope,
    /// The new value; none: it is not set any more, and what is more general holds.
    pub value: Option<String>,
    /// Who changes it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// The revision of the row that the operator saw, 0 for none; none: whatever it is.
    pub expected: Option<u64>,
    /// Only checks and tells.
    pub dry_run: bool,
}

/// What a change did, or would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// What was set before.
    pub old: Option<SettingRecord>,
    /// The value that is set now.
    pub new: Option<String>,
    /// The revision from which it holds; that of the settings before, if nothing was changed.
    pub revision: u64,
}

impl Operator {
    /// Every value that is set, for every scope.
    ///
    /// # Errors
    /// As [`crate::Client::scan`].
    pub async fn settings(&self) -> Result<Vec<SettingRecord>, Error> {
        self.all("setting").await
    }

    /// The newest changes of a setting, the newest first.
    ///
    /// # Errors
    /// As [`crate::Client::scan`].
    pub async fn setting_history(&self, definition: &Definition, limit: u32) -> Result<Vec<SettingChange>, Error> {
        let (start, end) = directory::range_of(&("setting_history", definition.name));
        let scan = Scan { start: start.into(), end: end.into(), limit, reverse: true, ..Scan::default() };
        self.directory().scan(scan).await?.rows.iter().map(record).collect()
    }

    /// Changes a setting, or only checks whether it could.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value, scope or reason that it can't have, or too many settings; [`Error::NotFound`] if there is no such
    /// tenant; [`Error::Conflict`] if it is not as expected any more.
    pub async fn change_setting(&self, change: &Change) -> Result<Changed, Error> {
        let value = check(change)?;
        let key = directory::setting_key(&change.scope.to_proto(), change.definition.name);
        if value.is_some() && self.directory().get(key).await?.is_none() {
            self.check_room().await?;
        }
        let value = &value;
        // A conflict from the body would be taken for a lost race and tried again: what does not match is passed out as a value.
        let changed = self.directory().run(|tx| async move { write(&tx, change, value.clone()).await }).await??;
        if !change.dry_run && changed.revision.is_multiple_of(64) {
            self.prune_history(change.definition).await;
        }
        Ok(changed)
    }

    /// Waits until the nodes that answer have settings of this revision in force. Returns how many have, and the ids of those that do not
    /// or do not answer.
    ///
    /// # Errors
    /// As [`crate::Client::scan`] on the directory.
    pub async fn settings_in_force(&self, revision: u64, patience: Duration) -> Result<(usize, Vec<u64>), Error> {
        let until = Instant::now() + patience;
        let mut nodes = self.nodes().await?;
        nodes.retain(|node| node.state() != node_record::State::Removed);
        loop {
            let answers = self.ask_nodes(nodes.clone()).await;
            let has = |status: &StatusResponse| status.settings_revision >= revision;
            let late = answers.iter().filter(|view| !view.status.as_ref().is_ok_and(has));
            let late: Vec<u64> = late.filter_map(|view| view.record.node.as_ref().map(|node| node.node_id)).collect();
            if late.is_empty() || Instant::now() + ASK >= until {
                return Ok((nodes.len() - late.len(), late));
            }
            tokio::time::sleep(ASK).await;
        }
    }

    async fn check_room(&self) -> Result<(), Error> {
        let (start, end) = directory::records("setting");
        let mut scan = Scan { start: start.into(), end: end.into(), keys_only: true, ..Scan::default() };
        let mut found = 0;
        loop {
            let page = self.directory().scan(scan.clone()).await?;
            found += page.rows.len();
            if found >= SETTINGS {
                return Err(Error::invalid("settings", format!("at most {SETTINGS} values in a cluster"), found.to_string()));
            }
            if page.continuation.is_empty() {
                return Ok(());
            }
            scan.continuation = page.continuation;
        }
    }

    /// Changes past [`HISTORY`] go. What fails is done at a later change.
    async fn prune_history(&self, definition: &Definition) {
        let range = directory::range_of(&("setting_history", definition.name));
        let Ok(changes) = records::<SettingChange>(self.router(), range, Instant::now() + PATIENCE).await else { return };
        let old = changes.len().saturating_sub(HISTORY);
        let deletes =
            changes.iter().take(old).map(|change| crate::operation::delete(directory::setting_history_key(&change.name, change.revision)));
        let deletes: Vec<_> = deletes.collect();
        if !deletes.is_empty()
            && let Err(error) = self.directory().transact(Vec::new(), deletes).await
        {
            tracing::debug!(%error, setting = definition.name, "old changes stay for now");
        }
    }
}

/// The value in the one form that is stored.
fn check(change: &Change) -> Result<Option<String>, Error> {
    change.definition.check_scope(&change.scope)?;
    if change.reason.len() > REASON_BYTES {
        return Err(Error::invalid("reason", format!("at most {REASON_BYTES} bytes"), format!("{} bytes", change.reason.len())));
    }
    change.value.as_ref().map(|value| change.definition.parse(value).map(|value| value.to_string())).transpose()
}

async fn write(tx: &Transaction, change: &Change, value: Option<String>) -> Result<Result<Changed, Error>, Error> {
    if let Scope::Tenant(id) = &change.scope
        && value.is_some()
        && tx.get(directory::tenant_key(*id)).await?.is_none()
    {
        return Err(Error::not_found(format!("tenant {id}")));
    }
    let (name, scope) = (change.definition.name, change.scope.to_proto());
    let key = directory::setting_key(&scope, name);
    let old = tx.get(key.clone()).await?.map(|row| decode::<SettingRecord>(&row, "setting")).transpose()?;
    let seen = old.as_ref().map_or(0, |old| old.revision);
    if change.expected.is_some_and(|expected| expected != seen) {
        let told = old
            .as_ref()
            .map_or_else(|| "it is not set".to_owned(), |old| format!("{} set it to {} at revision {seen}", old.set_by, old.value));
        return Ok(Err(Error::Conflict { message: format!("{name} for {}: {told}", change.scope) }));
    }
    let last = counter(tx, directory::SETTINGS_COUNTER).await?;
    let nothing_to_do = old.is_none() && value.is_none();
    if change.dry_run || nothing_to_do {
        return Ok(Ok(Changed { old, new: value, revision: last }));
    }
    let (revision, now) = (last + 1, seam::unix_ms());
    let history = SettingChange {
        name: name.to_owned(),
        scope: Some(scope.clone()),
        old_value: old.as_ref().map(|old| old.value.clone()),
        new_value: value.clone(),
        revision,
        changed_at_ms: now,
        changed_by: change.by.clone(),
        reason: change.reason.clone(),
    };
    match &value {
        None => tx.delete(key),
        Some(value) => {
            let record = SettingRecord {
                name: name.to_owned(),
                scope: Some(scope),
                value: value.clone(),
                revision,
                set_at_ms: now,
                set_by: change.by.clone(),
                reason: change.reason.clone(),
            };
            tx.put(key, record.encode_to_vec());
        }
    }
    tx.put(directory::setting_history_key(name, revision), history.encode_to_vec());
    set_counter(tx, directory::SETTINGS_COUNTER, revision);
    Ok(Ok(Changed { old, new: value, revision }))
}
