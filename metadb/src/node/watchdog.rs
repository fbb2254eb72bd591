//! Looks after the node's disks and replicas: room, bytes that do not read back, replicas that stopped by themselves.
//!
//! * No room: told, and everything that asks [`super::room::Gauge`] behaves accordingly, until there is room.
//! * A store or log in which something does not read back: all replicas of the node go into quarantine, durably, and lead and vote no more.
//! * A replica whose state is not that of most others ([`super::compare`]) goes into quarantine, durably.
//! * A replica that stopped by itself (a panic, an entry that can't be applied) goes into quarantine until the node is restarted or the
//!   replica is rebuilt. One that stopped since the log or the store failed does not: a restart reads what is really there.
//!
//! Not here: who wipes it and adds it anew: the directory's reconciler, with [`super::Node::rebuild_replica`].

use super::Node;
use super::quarantine::{self, Mark, Scope};
use super::room::{Room, reserve_bytes};
use metadb_engine::EngineError;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How often it looks.
const LOOK: Duration = Duration::from_millis(100);
/// How often the room is looked at, in looks: it costs a system call per disk.
const LOOKS_PER_ROOM: u64 = 5;
/// How often a replica is opened again that found no room to be opened, in looks.
const LOOKS_PER_OPEN: u64 = 50;

/// How long is waited for a replica to stop; one that does not is out of service all the same.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// Starts the task. It ends with the node.
pub(super) fn start(node: &Arc<Node>) {
    tokio::spawn(run(Arc::downgrade(node)));
}

async fn run(node: Weak<Node>) {
    for look in 0_u64.. {
        let Some(node) = node.upgrade().filter(|node| !node.stopping.begun()) else { return };
        if look.is_multiple_of(LOOKS_PER_ROOM) {
            node.look_at_room().await;
        }
        node.look_at_replicas().await;
        if look % LOOKS_PER_OPEN == LOOKS_PER_OPEN - 1 {
            node.open_failed().await;
        }
        drop(node);
        tokio::time::sleep(LOOK).await;
    }
}

/// What is wrong with store or log, if anything is but the want of room.
fn broken(node: &Node) -> Option<EngineError> {
    let both = [node.store.trouble(), node.log.trouble()];
    let broken = both.into_iter().flatten().filter(|error| !matches!(error, EngineError::Full { .. }));
    // Rot first: it decides what is to be done.
    broken.min_by_key(|error| !matches!(error, EngineError::Corrupt { .. }))
}

impl Node {
    async fn look_at_room(self: &Arc<Self>) {
        let spaces = [self.store.space(), self.log.space(), self.spool.space()];
        let most = self.config.disk_reserve_bytes;
        let seen = spaces.into_iter().flatten().map(|space| (space, reserve_bytes(space.total_bytes, most)));
        let fullest = seen.min_by_key(|(space, reserve)| (space.free_bytes.saturating_sub(*reserve), space.free_bytes));
        let is_full = |trouble: Option<EngineError>| matches!(trouble, Some(EngineError::Full { .. }));
        let stuck = is_full(self.store.trouble()) || is_full(self.log.trouble());
        match self.room.look(fullest, stuck) {
            (before, now) if before == now => {}
            (_, Room::Plenty) => tracing::info!("there is room on the disk again: writes are taken"),
            (before, Room::Low | Room::Out) => {
                tracing::error!("{}", self.room.told());
                if before == Room::Plenty {
                    // What the log keeps for followers that lag is room, too.
                    let node = Arc::clone(self);
                    tokio::spawn(async move {
                        if let Err(error) = node.flush_keeping(0).await {
                            tracing::warn!(%error, "the log could not be shortened");
                        }
                    });
                }
            }
        }
    }

    async fn look_at_replicas(&self) {
        match broken(self) {
            Some(error @ EngineError::Corrupt { .. }) => {
                let failed: Vec<u32> = self.failed.lock().keys().copied().collect();
                for group_id in self.groups().iter().map(|group| group.group_id()).chain(failed) {
                    self.quarantine(group_id, Mark::new(Scope::Node, format!("the node's storage: {error}"))).await;
                }
            }
            // A restart reads what is really there.
            Some(_) => {}
            None => {
                for group in self.groups() {
                    if let Some(reason) = group.distrusted() {
                        self.differed.fetch_add(1, Ordering::Relaxed);
                        self.quarantine(group.group_id(), Mark::new(Scope::Replica, reason)).await;
                    } else if let Some(problem) = group.problem() {
                        self.set_apart(group.group_id(), Mark::new(Scope::Replica, problem)).await;
                    }
                }
            }
        }
    }

    /// Takes a replica out of service, durably: it may have forgotten what it promised, or its state may be wrong.
    pub(super) async fn quarantine(&self, group_id: u32, mark: Mark) {
        // Stopped first: what is not yet marked must not go on either.
        self.set_apart(group_id, mark.clone()).await;
        if let Err(error) = quarantine::keep(&*self.spool, group_id, &mark) {
            tracing::error!(group_id, %error, "the quarantine of a replica could not be written down; it holds until the node restarts");
        }
    }

    /// Takes a replica out of service until the node restarts.
    pub(super) async fn set_apart(&self, group_id: u32, mark: Mark) {
        let _making = self.making.lock().await;
        let group = self.groups.write().remove(&group_id);
        self.failed.lock().remove(&group_id);
        tracing::error!(
            group_id,
            reason = mark.reason,
            "a replica goes into quarantine: it serves, votes and leads no more until it is rebuilt"
        );
        self.quarantined.lock().insert(group_id, mark);
        let Some(group) = group else { return };
        if tokio::time::timeout(STOP_WITHIN, group.shutdown()).await.is_err() {
            tracing::warn!(group_id, "a replica in quarantine does not stop yet");
        }
        self.leaving.lock().insert(group_id, group);
    }

    /// Opens replicas again that did not open for want of room.
    async fn open_failed(&self) {
        if broken(self).is_some() || self.room.room() != Room::Plenty {
            return;
        }
        let failed: Vec<u32> = self.failed.lock().keys().copied().collect();
        for group_id in failed {
            let _making = self.making.lock().await;
            if self.open(group_id).await.is_ok() {
                tracing::info!(group_id, "a replica opened after all");
            }
        }
    }

    /// How many of its replicas went into quarantine since it started because their state was not that of most others.
    #[must_use]
    pub fn differed(&self) -> u64 {
        self.differed.load(Ordering::Relaxed)
    }

    /// How many of its replicas are in quarantine.
    #[must_use]
    pub fn quarantined(&self) -> usize {
        self.quarantined.lock().len()
    }

    /// What an operator should know of the node as a whole.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.room.room() != Room::Plenty {
            problems.push(self.room.told());
        }
        match broken(self) {
            Some(error @ EngineError::Corrupt { .. }) => {
                problems.push(format!("{error}: the node is rebuilt from its peers; nothing of it is served until then"));
            }
            Some(error) => {
                problems.push(format!("{error}: the node acknowledges nothing until it is restarted; if it comes again, replace the disk"));
            }
            None => {}
        }
        problems
    }
}
