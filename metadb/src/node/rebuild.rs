//! A replica in quarantine is wiped here, once its group goes without it, and so is one whose node was removed from the group; and the
//! node asks to be begun anew, once all groups go without it.

use super::quarantine::{self, Mark, Scope};
use super::{Node, OPEN_RETRY, silence};
use crate::group::Group;
use crate::raft::log_store::GroupLog;
use crate::raft::wipe::wipe;
use metadb_engine::EngineError;
use metadb_proto::{Error, v1};
use std::sync::Arc;
use std::time::Duration;

/// How long a replica that is deleted may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(2);
/// How often is looked whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(5);

fn storage(group_id: u32, error: &EngineError) -> Error {
    Error::unavailable(format!("the replica of group {group_id} can't be wiped now: {error}"), OPEN_RETRY)
}

async fn wound_down(group: &Group) {
    group.shutdown().await;
    while !group.is_gone() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

impl Node {
    /// Wipes a replica that is in quarantine. The caller has made sure that this node is none of the group's members. If the whole storage
    /// of the node is in doubt, nothing is wiped: it is replaced when every group has let go of it.
    ///
    /// # Errors
    /// [`Error::Conflict`] for the ticket of another quarantine; [`Error::Unavailable`] while the replica still winds down, or the disk
    /// refuses.
    pub async fn rebuild_replica(&self, group_id: u32, ticket: u64) -> Result<(), Error> {
        let _making = self.making.lock().await;
        let Some(mark) = self.quarantined.lock().get(&group_id).cloned() else { return Ok(()) };
        if mark.ticket != ticket {
            let message = format!("the replica of group {group_id} is in quarantine {:x}, not {ticket:x}", mark.ticket);
            return Err(Error::Conflict { message });
        }
        let mark = Mark { released: true, ..mark };
        quarantine::keep(&*self.spool, group_id, &mark).map_err(|error| storage(group_id, &error))?;
        self.quarantined.lock().insert(group_id, mark.clone());
        if mark.scope == Scope::Node {
            self.ask_for_replacement();
            return Ok(());
        }
        self.wipe_released(group_id).await
    }

    /// Deletes a replica of a group whose members go without this node, of which the caller has made sure. One that has heard from its group
    /// since the caller looked stays: it may be a member again.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it stays; [`Error::Unavailable`] while it still winds down, or the disk refuses.
    pub async fn drop_replica(&self, request: &v1::DropReplicaRequest) -> Result<(), Error> {
        let group_id = request.group_id;
        let _making = self.making.lock().await;
        let Some(group) = self.group(group_id) else {
            // One that was begun is ended. What is in quarantine goes the way of those.
            let begun = self.quarantined.lock().get(&group_id).is_some_and(|mark| mark.released && mark.scope == Scope::Replica);
            return if begun { self.wipe_released(group_id).await } else { Ok(()) };
        };
        let seen = (request.term, request.last_log_index);
        let heard = |now: (u64, u64)| {
            let message =
                format!("the replica of group {group_id} is at term and entry {now:?}, not at {seen:?}: it has heard from its group");
            Error::Conflict { message }
        };
        let status = group.status();
        if (status.term, status.last_log_index) != seen {
            return Err(heard((status.term, status.last_log_index)));
        }
        // Nothing reaches it from here on, so that the second look is the last word.
        self.groups.write().remove(&group_id);
        let stopped = tokio::time::timeout(STOP_WITHIN, wound_down(&group)).await.is_ok();
        let ends = GroupLog::new(self.log.clone(), group_id).ends().await;
        let released = matches!(&ends, Ok(now) if *now == seen);
        if stopped && !released {
            self.open(group_id).await?;
            return Err(ends.map_or_else(|error| Error::unavailable(format!("group {group_id}: {error}"), OPEN_RETRY), heard));
        }
        self.leaving.lock().insert(group_id, Arc::clone(&group));
        let mark = Mark { released, ..Mark::new(Scope::Replica, "the members of its group go without this node") };
        self.quarantined.lock().insert(group_id, mark.clone());
        if !released {
            return Err(Error::unavailable(format!("the replica of group {group_id} does not stop"), OPEN_RETRY));
        }
        // From here on it is gone, whatever restarts in between.
        quarantine::keep(&*self.spool, group_id, &mark).map_err(|error| storage(group_id, &error))?;
        drop(group);
        self.wipe_released(group_id).await
    }

    /// Wipes a replica whose group goes without it.
    pub(super) async fn wipe_released(&self, group_id: u32) -> Result<(), Error> {
        let winding_down = self.leaving.lock().get(&group_id).is_some_and(|group| !group.is_gone());
        if winding_down {
            return Err(Error::unavailable(format!("the replica of group {group_id} still winds down"), OPEN_RETRY));
        }
        wipe(&self.store, &self.log, &self.spool, group_id).await.map_err(|error| storage(group_id, &error))?;
        quarantine::forget(&*self.spool, group_id).map_err(|error| storage(group_id, &error))?;
        self.leaving.lock().remove(&group_id);
        self.quarantined.lock().remove(&group_id);
        if let Err(error) = silence::end(&*self.spool, group_id) {
            tracing::debug!(group_id, %error, "a replica that is gone is still silent");
        }
        tracing::info!(group_id, "a replica was wiped; if it is a member again, it is made anew from its peers");
        if self.quarantined.lock().is_empty() {
            self.log.clear_aside();
        }
        Ok(())
    }

    fn ask_for_replacement(&self) {
        if self.quarantined.lock().values().all(|mark| mark.released) {
            tracing::warn!("no group counts on this node any more: its storage is replaced by an empty one");
            self.condemned.notify_one();
        }
    }

    /// Waits until the node's storage is to be replaced by an empty one: see [`quarantine::is_condemned`].
    pub async fn condemned(&self) {
        self.condemned.notified().await;
    }
}
