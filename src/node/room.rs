//! The room for contents: their folder may lie on a disk of its own, and keeps the same reserve as the database's.

use metadb::node::room::{Room, judge, reserve_bytes};
use metadb_engine::disk::{Space, space_of};
use object_gateway::content;
use parking_lot::Mutex;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;

/// How long what was seen of the disk counts: what all writers together write in that time must fit in the reserve.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The disk of the contents.
pub(super) struct ContentRoom {
    folder: PathBuf,
    /// Bytes kept in reserve, at most.
    reserve: u64,
    seen: Mutex<Seen>,
}

struct Seen {
    at: Option<Instant>,
    room: Room,
    space: Option<Space>,
}

impl ContentRoom {
    pub(super) fn new(folder: PathBuf, reserve: u64) -> Self {
        ContentRoom { folder, reserve, seen: Mutex::new(Seen { at: None, room: Room::Plenty, space: None }) }
    }

    fn reserve(&self, space: Space) -> u64 {
        reserve_bytes(space.total_bytes, self.reserve)
    }

    fn told(&self, space: Option<Space>) -> String {
        let Some(space) = space else { return "the disk of this node's contents is full".to_owned() };
        format!(
            "the disk of this node's contents is full: {} MiB of {} MiB are free, {} MiB are kept in reserve",
            space.free_bytes >> 20,
            space.total_bytes >> 20,
            self.reserve(space) >> 20
        )
    }
}

impl content::Room for ContentRoom {
    fn require(&self) -> Result<(), String> {
        let mut seen = self.seen.lock();
        if seen.at.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
            let (before, space) = (seen.room, space_of(&self.folder));
            let room = space.map_or(Room::Plenty, |space| judge(before, space, self.reserve(space)));
            *seen = Seen { at: Some(Instant::now()), room, space };
            match (before, room) {
                (Room::Plenty, Room::Low | Room::Out) => tracing::error!("{}; no contents are written here", self.told(space)),
                (Room::Low | Room::Out, Room::Plenty) => tracing::info!("there is room for contents again"),
                (Room::Plenty, Room::Plenty) | (Room::Low | Room::Out, Room::Low | Room::Out) => {}
            }
        }
        if seen.room == Room::Plenty { Ok(()) } else { Err(self.told(seen.space)) }
    }
}
