//! A disk in memory. Appends wait until synced; a crash keeps a random prefix of what waits.
//!
//! A sync that fails behaves as Linux does: the bytes can still be read, are never written again, and a later sync that succeeds says
//! nothing about them. Renames, removals and cuts are durable at once, as [`Disk`] promises.

use super::{Chance, Kind};
use crate::EngineError;
use crate::disk::{Disk, Space};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// So many retired files are kept for their room.
const SPARES_MAX: usize = 2;
/// What a power failure leaves or takes as one piece, in bytes.
const SECTOR_BYTES: usize = 512;
/// A sync takes this long unless the test says otherwise: a good flash disk.
const DEFAULT_SYNC_LATENCY: Duration = Duration::from_micros(500);

/// A simulated disk: one folder of files.
#[derive(Debug)]
pub struct SimDisk {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    chance: Chance,
    files: BTreeMap<String, File>,
    latency: Range<Duration>,
    capacity_bytes: Option<u64>,
    syncs_to_fail: u32,
    reads_to_fail: u32,
    life: u64,
    /// What retired files held: new files are written over it.
    spares: Vec<Vec<u8>>,
}

#[derive(Debug, Default, Clone)]
struct File {
    bytes: Vec<u8>,
    /// What lies in the file's room, from its start: of what is behind the end, a crash brings it to light.
    room: Vec<u8>,
    /// Whether `room` was brought to light.
    reopened: bool,
    /// Up to here everything is durable, but for `lost`.
    synced: usize,
    /// Ends of the appends after `synced`.
    appends: Vec<usize>,
    /// Ranges whose sync failed: readable until a crash, never durable.
    lost: Vec<Range<usize>>,
    /// Whether its name is durable.
    named: bool,
}

impl SimDisk {
    /// An empty disk whose chance comes from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                chance: Chance::new(seed),
                files: BTreeMap::new(),
                latency: DEFAULT_SYNC_LATENCY..DEFAULT_SYNC_LATENCY,
                capacity_bytes: None,
                syncs_to_fail: 0,
                reads_to_fail: 0,
                life: 0,
                spares: Vec::new(),
            }),
        })
    }

    /// The disk as one life of a node sees it: after the next crash every call fails. Outside the simulator a killed node's tasks may
    /// still run; given a mount they can't touch the disk of the next life.
    #[must_use]
    pub fn mount(self: &Arc<Self>) -> Arc<SimMount> {
        Arc::new(SimMount { disk: Arc::clone(self), life: self.state.lock().life })
    }

    /// Takes down the machine.
    pub fn crash(&self, kind: Kind) {
        let mut state = self.state.lock();
        state.life += 1;
        state.syncs_to_fail = 0;
        state.reads_to_fail = 0;
        let State { chance, files, .. } = &mut *state;
        files.retain(|_, file| file.survive(kind, chance));
    }

    /// How long syncs take from now on: a random time in the range.
    pub fn set_sync_latency(&self, latency: Range<Duration>) {
        self.state.lock().latency = latency;
    }

    /// The next syncs fail with EIO, this many.
    pub fn fail_syncs(&self, count: u32) {
        self.state.lock().syncs_to_fail = count;
    }

    /// The next reads fail with EIO, this many.
    pub fn fail_reads(&self, count: u32) {
        self.state.lock().reads_to_fail = count;
    }

    /// How many bytes fit on the disk; none: no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().capacity_bytes = bytes;
    }

    /// Puts an empty disk in its place.
    pub fn replace(&self) {
        let mut state = self.state.lock();
        state.files.clear();
        state.spares.clear();
    }

    /// Bytes in all files.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.state.lock().used_bytes()
    }

    /// Flips one bit of a file. False: it has no such byte.
    pub fn flip(&self, name: &str, offset: u64, bit: u8) -> bool {
        let mut state = self.state.lock();
        let byte = state.files.get_mut(name).and_then(|file| file.bytes.get_mut(usize::try_from(offset).unwrap_or(usize::MAX)));
        byte.is_some_and(|byte| {
            *byte ^= 1 << (bit % 8);
            true
        })
    }

    /// How many bytes of a file a crash may take.
    #[must_use]
    pub fn unsynced_bytes(&self, name: &str) -> usize {
        self.state.lock().files.get(name).map_or(0, |file| file.bytes.len() - file.synced)
    }

    /// Flips a random bit of a random file among its durable bytes; says where.
    pub fn rot(&self) -> Option<(String, u64)> {
        self.rot_where(|_| true)
    }

    /// The same, in one of the files that fit.
    pub fn rot_where(&self, fits: impl Fn(&str) -> bool) -> Option<(String, u64)> {
        let mut state = self.state.lock();
        let State { chance, files, .. } = &mut *state;
        let mut filled: Vec<_> = files.iter_mut().filter(|(name, file)| file.synced > 0 && fits(name)).collect();
        if filled.is_empty() {
            return None;
        }
        let chosen = chance.index(filled.len());
        let (name, file) = filled.swap_remove(chosen);
        let offset = chance.index(file.synced);
        file.bytes[offset] ^= 1 << (chance.up_to(7));
        Some((name.clone(), offset as u64))
    }

    /// The same, in the first half of one file: whatever is written last there is whole.
    pub fn rot_first_half(&self, name: &str) -> Option<(String, u64)> {
        let mut state = self.state.lock();
        let State { chance, files, .. } = &mut *state;
        let file = files.get_mut(name).filter(|file| file.synced > 1)?;
        let offset = chance.index(file.synced / 2);
        file.bytes[offset] ^= 1 << (chance.up_to(7));
        Some((name.to_owned(), offset as u64))
    }
}

impl File {
    /// Its length for whoever reads it.
    fn len(&self) -> usize {
        if self.reopened { self.bytes.len().max(self.room.len()) } else { self.bytes.len() }
    }

    /// Bytes that can be read.
    fn content(&self, range: Range<usize>) -> Bytes {
        let end = range.end.min(self.len());
        let own = self.bytes.get(range.start..end.min(self.bytes.len())).unwrap_or_default();
        let behind = self.room.get(range.start.max(self.bytes.len())..end).unwrap_or_default();
        [own, behind].concat().into()
    }

    /// What was brought to light counts as the file's own from now on.
    fn own_room(&mut self) {
        if std::mem::take(&mut self.reopened) && self.room.len() > self.bytes.len() {
            self.bytes.extend_from_slice(&self.room[self.bytes.len()..]);
            self.synced = self.bytes.len();
        }
        self.room.clear();
    }

    /// What is left after a crash; false: not even the name.
    fn survive(&mut self, kind: Kind, chance: &mut Chance) -> bool {
        if kind == Kind::PowerLoss && !self.named && chance.one_in(2) {
            return false;
        }
        self.reopened = true;
        let kept = usize::try_from(chance.up_to(self.appends.len() as u64)).unwrap_or(0);
        let mut end = if kept == 0 { self.synced } else { self.appends[kept - 1] };
        if kind == Kind::Kill {
            // The system lives: what remains is still only in its memory, and a power failure can take it yet.
            self.bytes.truncate(end);
            self.appends.truncate(kept);
            return true;
        }
        for lost in std::mem::take(&mut self.lost) {
            self.bytes[lost].fill(0);
        }
        if let Some(&torn_end) = self.appends.get(kept) {
            end = self.tear(end..torn_end, chance);
        }
        self.bytes.truncate(end);
        self.synced = end;
        self.appends.clear();
        self.named = true;
        true
    }

    /// Tears the write of a range; returns where the file ends now.
    fn tear(&mut self, range: Range<usize>, chance: &mut Chance) -> usize {
        if chance.one_in(2) {
            return range.start + chance.index(range.len().max(1));
        }
        let mut at = range.start;
        while at < range.end {
            let next = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(range.end);
            if chance.one_in(2) {
                let old = self.room.get(at..next.min(self.room.len())).unwrap_or_default();
                self.bytes[at..at + old.len()].copy_from_slice(old);
                self.bytes[at + old.len()..next].fill(0);
            }
            at = next;
        }
        range.end
    }
}

impl State {
    fn used_bytes(&self) -> u64 {
        self.files.values().map(|file| file.bytes.len() as u64).sum()
    }

    fn file(&self, operation: &'static str, name: &str) -> Result<&File, EngineError> {
        self.files.get(name).ok_or_else(|| io(operation, name, "no such file"))
    }
}

fn io(operation: &'static str, name: &str, message: &str) -> EngineError {
    EngineError::Io { operation, path: name.to_owned(), message: message.to_owned() }
}

impl Disk for SimDisk {
    fn list(&self) -> Result<Vec<String>, EngineError> {
        Ok(self.state.lock().files.keys().cloned().collect())
    }

    fn len(&self, name: &str) -> Result<Option<u64>, EngineError> {
        Ok(self.state.lock().files.get(name).map(|file| file.len() as u64))
    }

    fn read(&self, name: &str, offset: u64, bytes: usize) -> Result<Bytes, EngineError> {
        let mut state = self.state.lock();
        if state.reads_to_fail > 0 {
            state.reads_to_fail -= 1;
            return Err(io("read", name, "injected: input/output error"));
        }
        let file = state.file("read", name)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(file.len());
        Ok(file.content(start..start.saturating_add(bytes)))
    }

    fn reserve(&self, name: &str, _: u64) {
        let mut state = self.state.lock();
        if !state.files.contains_key(name) {
            let room = state.spares.pop().unwrap_or_default();
            state.files.insert(name.to_owned(), File { room, ..File::default() });
        }
    }

    fn retire(&self, name: &str) -> Result<(), EngineError> {
        let mut state = self.state.lock();
        if let Some(mut file) = state.files.remove(name)
            && state.spares.len() < SPARES_MAX
        {
            file.own_room();
            state.spares.push(file.bytes);
        }
        Ok(())
    }

    fn mark(&self, name: &str, bytes: &[u8]) {
        let mut state = self.state.lock();
        if let Some(file) = state.files.get_mut(name) {
            if file.reopened {
                file.own_room();
            }
            let (start, end) = (file.bytes.len(), file.bytes.len() + bytes.len());
            if file.room.len() < end {
                file.room.resize(end, 0);
            }
            file.room[start..end].copy_from_slice(bytes);
        }
    }

    fn append(&self, name: &str, bytes: &[u8]) -> Result<(), EngineError> {
        let mut state = self.state.lock();
        if state.capacity_bytes.is_some_and(|capacity| state.used_bytes() + bytes.len() as u64 > capacity) {
            return Err(EngineError::Full { path: name.to_owned() });
        }
        let file = state.files.entry(name.to_owned()).or_default();
        if file.reopened {
            file.own_room();
        }
        file.bytes.extend_from_slice(bytes);
        file.appends.push(file.bytes.len());
        Ok(())
    }

    fn sync(&self, name: &str) -> Result<(), EngineError> {
        let mut state = self.state.lock();
        let fails = state.syncs_to_fail > 0;
        state.syncs_to_fail = state.syncs_to_fail.saturating_sub(1);
        let file = state.files.get_mut(name).ok_or_else(|| io("sync", name, "no such file"))?;
        let pending = file.synced..file.bytes.len();
        file.synced = pending.end;
        file.appends.clear();
        if fails {
            if !pending.is_empty() {
                file.lost.push(pending);
            }
            return Err(io("sync", name, "injected: input/output error"));
        }
        file.named = true;
        Ok(())
    }

    fn truncate(&self, name: &str, bytes: u64) -> Result<(), EngineError> {
        let mut state = self.state.lock();
        let file = state.files.get_mut(name).ok_or_else(|| io("truncate", name, "no such file"))?;
        file.own_room();
        let end = usize::try_from(bytes).unwrap_or(usize::MAX).min(file.bytes.len());
        file.bytes.truncate(end);
        file.synced = end;
        file.appends.clear();
        file.lost.retain_mut(|lost| {
            lost.end = lost.end.min(end);
            lost.start < lost.end
        });
        file.named = true;
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), EngineError> {
        self.state.lock().files.remove(name);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), EngineError> {
        let mut state = self.state.lock();
        let mut file = state.files.remove(from).ok_or_else(|| io("rename", from, "no such file"))?;
        file.named = true;
        state.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn space(&self) -> Option<Space> {
        let state = self.state.lock();
        let total_bytes = state.capacity_bytes?;
        Some(Space { free_bytes: total_bytes.saturating_sub(state.used_bytes()), total_bytes })
    }

    fn simulated_sync_latency(&self) -> Option<Duration> {
        let mut state = self.state.lock();
        let spread = state.latency.end.saturating_sub(state.latency.start).as_nanos();
        let extra = state.chance.up_to(u64::try_from(spread).unwrap_or(u64::MAX));
        Some(state.latency.start + Duration::from_nanos(extra))
    }
}

/// A [`SimDisk`] until its next crash.
#[derive(Debug)]
pub struct SimMount {
    disk: Arc<SimDisk>,
    life: u64,
}

impl SimMount {
    fn alive(&self, operation: &'static str, name: &str) -> Result<&SimDisk, EngineError> {
        if self.disk.state.lock().life == self.life { Ok(&self.disk) } else { Err(io(operation, name, "the machine went down")) }
    }
}

impl Disk for SimMount {
    fn list(&self) -> Result<Vec<String>, EngineError> {
        self.alive("list", "")?.list()
    }

    fn len(&self, name: &str) -> Result<Option<u64>, EngineError> {
        self.alive("length", name)?.len(name)
    }

    fn read(&self, name: &str, offset: u64, bytes: usize) -> Result<Bytes, EngineError> {
        self.alive("read", name)?.read(name, offset, bytes)
    }

    fn reserve(&self, name: &str, bytes: u64) {
        if let Ok(disk) = self.alive("reserve", name) {
            disk.reserve(name, bytes);
        }
    }

    fn retire(&self, name: &str) -> Result<(), EngineError> {
        self.alive("retire", name)?.retire(name)
    }

    fn mark(&self, name: &str, bytes: &[u8]) {
        if let Ok(disk) = self.alive("mark", name) {
            disk.mark(name, bytes);
        }
    }

    fn append(&self, name: &str, bytes: &[u8]) -> Result<(), EngineError> {
        self.alive("append", name)?.append(name, bytes)
    }

    fn sync(&self, name: &str) -> Result<(), EngineError> {
        self.alive("sync", name)?.sync(name)
    }

    fn truncate(&self, name: &str, bytes: u64) -> Result<(), EngineError> {
        self.alive("truncate", name)?.truncate(name, bytes)
    }

    fn remove(&self, name: &str) -> Result<(), EngineError> {
        self.alive("remove", name)?.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), EngineError> {
        self.alive("rename", from)?.rename(from, to)
    }

    fn space(&self) -> Option<Space> {
        self.disk.space()
    }

    fn simulated_sync_latency(&self) -> Option<Duration> {
        self.disk.simulated_sync_latency()
    }
}
