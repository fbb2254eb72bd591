//! A replica in quarantine is wiped here, once its group goes without it; and the node asks to be begun anew, once all do.

use super::quarantine::{self, Mark, Scope};
use super::{Node, OPEN_RETRY};
use crate::raft::wipe::wipe;
use metadb_engine::EngineError;
use metadb_proto::Error;

fn storage(group_id: u32, error: &EngineError) -> Error {
    Error::unavailable(format!("the replica of group {group_id} can't be wiped now: {error}"), OPEN_RETRY)
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
        tracing::info!(group_id, "a replica was wiped; it is made anew from its peers");
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
