//! Keeps the settings of a process fresh: looks at the directory's revision of all settings, reads them again when it has risen.
//!
//! The looks are a few per second and jittered, each the read of one row; a change is in force on every node that can reach the directory
//! well within a second. While the directory is away the last settings known stay in force, also over a restart, if someone keeps them.

use crate::client::Client;
use crate::directory::{number, records};
use crate::router::Router;
use futures::future::BoxFuture;
use metadb_proto::settings::Settings;
use metadb_proto::v1::{SettingRecord, SettingsSnapshot};
use metadb_proto::{Error, directory, seam};
use std::time::Duration;
use tokio::time::Instant;

/// Longest time between two looks at the revision; the shortest is half of it. With the read itself, half a second at most.
const LOOK: Duration = Duration::from_millis(300);
/// How long a look may take. It is tried again soon: better a new one than a long one.
const LOOK_WITHIN: Duration = Duration::from_millis(500);
/// How long reading all settings may take: [`crate::operator::SETTINGS`] rows are a few pages.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// Where the last settings known are kept over a restart.
pub trait Keep: Send + Sync + 'static {
    /// What was kept; none if nothing was, or it can't be read.
    fn kept(&self) -> Option<SettingsSnapshot>;

    /// Keeps these instead. What fails is told by the keeper: settings are in force either way.
    fn keep(&self, snapshot: SettingsSnapshot) -> BoxFuture<'_, ()>;
}

/// Keeps nothing: for processes that are no nodes.
#[derive(Debug)]
pub struct KeepNothing;

impl Keep for KeepNothing {
    fn kept(&self) -> Option<SettingsSnapshot> {
        None
    }

    fn keep(&self, _: SettingsSnapshot) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Follows the directory's settings.
pub struct Follower<K> {
    router: Router,
    settings: Settings,
    keep: K,
}

impl<K: Keep> Follower<K> {
    /// Puts in force what was kept, and is ready to follow the directory.
    pub fn new(router: Router, settings: Settings, keep: K) -> Self {
        if let Some(kept) = keep.kept() {
            settings.replace(kept.revision, &kept.records);
        }
        Follower { router, settings, keep }
    }

    /// Follows until it is dropped.
    pub async fn run(self) {
        let mut was_away = false;
        loop {
            match self.look().await {
                Ok(()) => was_away = false,
                Err(error) => {
                    if !was_away {
                        tracing::info!(%error, revision = self.settings.revision(), "settings can't be looked at; the last known stay");
                    }
                    was_away = true;
                }
            }
            tokio::time::sleep(pause(seam::random_u64())).await;
        }
    }

    /// Looks once, and reads all settings if any has changed.
    ///
    /// # Errors
    /// Whatever kept it from looking; what was in force stays.
    pub async fn look(&self) -> Result<(), Error> {
        let client = self.router.tenant(directory::DIRECTORY_TENANT).with_deadline(LOOK_WITHIN);
        let revision = revision(&client).await?;
        if revision == self.settings.revision() {
            return Ok(());
        }
        // Read after the revision, so they are at least as new; a change in between shows at the next look.
        let records: Vec<SettingRecord> = records(&self.router, directory::records("setting"), Instant::now() + READ_WITHIN).await?;
        self.settings.replace(revision, &records);
        let table = self.settings.table();
        if !table.unusable().is_empty() {
            tracing::warn!(settings = ?table.unusable(), "this build does not know these settings or values; they are not in force here");
        }
        drop(table);
        tracing::info!(revision, settings = records.len(), "settings in force");
        self.keep.keep(SettingsSnapshot { revision, records }).await;
        Ok(())
    }
}

/// The revision of all settings; 0 before the first change.
pub(crate) async fn revision(client: &Client) -> Result<u64, Error> {
    let row = client.get(directory::counter_key(directory::SETTINGS_COUNTER)).await?;
    Ok(row.and_then(|row| number(&row.value)).unwrap_or(0))
}

/// From half of [`LOOK`] to all of it, so that nodes do not look together.
fn pause(random: u64) -> Duration {
    let half = LOOK / 2;
    half + Duration::from_micros(random % u64::try_from(half.as_micros()).unwrap_or(u64::MAX).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_often_enough_for_a_second_and_not_together() {
        let pauses: std::collections::BTreeSet<Duration> = (0..1000_u64).map(|i| pause(i.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
        assert!(pauses.len() > 900 && pauses.iter().all(|pause| (LOOK / 2..=LOOK).contains(pause)));
        assert!(LOOK + LOOK_WITHIN < Duration::from_secs(1));
    }
}
