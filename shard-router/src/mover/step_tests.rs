//! Every way in which movers can die and messages can come late, tried out: nobody loses a shard, no two groups own it, and whoever goes on
//! comes to an end.

#![expect(clippy::wildcard_enum_match_arm, reason = "each match picks the steps that it is about")]

use super::*;
use std::collections::BTreeSet;

const FROM: u32 = 3;
const TO: u32 = 4;
/// The version of the fence, and what a copy reaches before it.
const FENCE: u64 = 5;
const COPIED: u64 = 3;
/// Attempts that are tried: each has an epoch of its own.
const EPOCHS: u64 = 4;

/// What a group's log says of the shard: state, epoch, the epoch of the move, how far rows are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Log {
    state: i32,
    epoch: u64,
    move_epoch: u64,
    through: u64,
}

/// What a mover sends, at its epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Message {
    Expect(u64),
    Bring(u64),
    Fence(u64),
    /// With how often the shard had been written again after a fence when the last rows were read.
    TakeOver(u64, u32),
    HandOver(u64),
    Decline(u64),
    Lift(u64),
}

/// Everything: the directory, two logs, and messages that may still arrive.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct World {
    epoch: u64,
    state: i32,
    /// Whether the change ended, and at which epoch the shard is.
    ended: Option<u64>,
    source: Log,
    destination: Log,
    /// How often a fence was lifted.
    lifted: u32,
    late: BTreeSet<Message>,
}

impl World {
    fn new() -> Self {
        let log = |state: Seen, epoch| Log { state: state.into(), epoch, move_epoch: 0, through: 0 };
        let (source, destination) = (log(Seen::Owned, 1), log(Seen::Unspecified, 0));
        World { epoch: 2, state: State::Running.into(), ended: None, source, destination, lifted: 0, late: BTreeSet::new() }
    }

    fn sight(&self, is_close: bool, retreats: bool) -> Sight {
        let status = |log: &Log| ShardStatus {
            range: Some(ShardRange::default()),
            state: log.state,
            epoch: log.epoch,
            move_epoch: log.move_epoch,
            through_version: log.through,
            version: FENCE,
            ..Default::default()
        };
        let record = ShardChangeRecord {
            kind: Kind::Move.into(),
            group_id: FROM,
            to_group_id: TO,
            epoch: self.epoch,
            state: self.state,
            ..Default::default()
        };
        let known = self.destination.state != i32::from(Seen::Unspecified);
        Sight {
            record,
            source: vec![status(&self.source)],
            destination: known.then(|| status(&self.destination)).into_iter().collect(),
            is_close,
            retreats,
        }
    }

    fn message(&self, step: &Step) -> Option<Message> {
        Some(match step {
            Step::Expect => Message::Expect(self.epoch),
            Step::Copy | Step::CatchUp { .. } => Message::Bring(self.epoch),
            Step::Fence => Message::Fence(self.epoch),
            Step::TakeOver { .. } => Message::TakeOver(self.epoch, self.lifted),
            Step::HandOver { epoch } => Message::HandOver(*epoch),
            Step::Decline => Message::Decline(self.epoch),
            Step::Lift { epoch } => Message::Lift(*epoch),
            _ => return None,
        })
    }

    /// What the groups do, as `metadb::machine::ownership` has it.
    fn deliver(&mut self, message: Message) {
        let is = |log: &Log, state: Seen| log.state == i32::from(state);
        let (source, destination) = (&mut self.source, &mut self.destination);
        match message {
            Message::Expect(epoch) if destination.epoch < epoch && !is(destination, Seen::Owned) => {
                let through = if is(destination, Seen::Expected) { destination.through } else { 0 };
                *destination = Log { state: Seen::Expected.into(), epoch, move_epoch: 0, through };
            }
            Message::Bring(epoch) if is(destination, Seen::Expected) && destination.epoch == epoch => {
                destination.through = destination.through.max(COPIED);
            }
            Message::Fence(epoch) if is(source, Seen::Owned) && source.epoch < epoch => {
                (source.state, source.move_epoch) = (Seen::Fenced.into(), epoch);
            }
            Message::Fence(epoch) if is(source, Seen::Fenced) && source.move_epoch < epoch => source.move_epoch = epoch,
            Message::TakeOver(epoch, lifted) if is(destination, Seen::Expected) && destination.epoch == epoch => {
                assert_eq!(lifted, self.lifted, "taken over without what was written since");
                *destination = Log { state: Seen::Owned.into(), epoch, move_epoch: 0, through: 0 };
            }
            Message::HandOver(epoch) if is(source, Seen::Fenced) && source.move_epoch == epoch => {
                *source = Log { state: Seen::Dropped.into(), epoch, move_epoch: 0, through: 0 };
            }
            Message::Decline(epoch) if destination.epoch <= epoch && !is(destination, Seen::Owned) => {
                *destination = Log { state: Seen::Dropped.into(), epoch, move_epoch: 0, through: 0 };
            }
            Message::Lift(epoch)
                if is(source, Seen::Fenced) && source.move_epoch <= epoch || is(source, Seen::Owned) && source.epoch < epoch =>
            {
                self.lifted += u32::from(is(source, Seen::Fenced));
                *source = Log { state: Seen::Owned.into(), epoch, move_epoch: 0, through: 0 };
            }
            _ => {}
        }
    }

    fn check(&self) {
        let (owned, dropped) = (i32::from(Seen::Owned), i32::from(Seen::Dropped));
        assert!(!(self.source.state == owned && self.destination.state == owned), "two owners: {self:?}");
        assert!(self.source.state != dropped || self.destination.state == owned, "nobody has the rows: {self:?}");
    }

    /// All that may come next: the mover's step done and answered, done and the mover dead, not done (yet) and the mover dead; a late message;
    /// an operator who has it taken back.
    fn successors(&self) -> Vec<World> {
        let mut all = Vec::new();
        for message in &self.late {
            let mut world = self.clone();
            world.late.remove(message);
            world.deliver(*message);
            all.push(world);
        }
        if self.ended.is_some() {
            return all;
        }
        if self.state == i32::from(State::Running) {
            all.push(World { state: State::Cancelling.into(), ..self.clone() });
        }
        for (is_close, retreats) in [(false, false), (true, false), (true, true)] {
            let step = next(&self.sight(is_close, retreats));
            match &step {
                Step::Claim => all.extend(self.claimed()),
                Step::RecordDone { epoch } | Step::RecordCancelled { epoch } => all.push(World { ended: Some(*epoch), ..self.clone() }),
                Step::Stuck { why } => panic!("{why}: {self:?}"),
                step => {
                    let message = self.message(step).unwrap_or_else(|| panic!("{step:?} sends nothing"));
                    let mut done = self.clone();
                    done.deliver(message);
                    all.push(done.clone());
                    all.extend(done.claimed());
                    let mut late = self.clone();
                    late.late.insert(message);
                    all.extend(late.claimed());
                }
            }
        }
        all
    }

    /// Another mover goes on.
    fn claimed(&self) -> Option<World> {
        (self.epoch < EPOCHS).then(|| World { epoch: self.epoch + 1, ..self.clone() })
    }

    /// One mover, to whom nothing happens, comes to an end.
    fn ends(&self) {
        let mut world = World { late: BTreeSet::new(), ..self.clone() };
        let mut is_close = false;
        for _ in 0..20 {
            if world.ended.is_some() {
                return;
            }
            let step = next(&world.sight(is_close, false));
            is_close |= matches!(step, Step::CatchUp { .. });
            match &step {
                Step::Claim => world.epoch += 1,
                Step::RecordDone { epoch } | Step::RecordCancelled { epoch } => world.ended = Some(*epoch),
                step => world.deliver(world.message(step).unwrap_or_else(|| panic!("{step:?} in {world:?}"))),
            }
        }
        panic!("it never ends: {self:?}");
    }
}

#[test]
fn movers_may_die_anywhere_and_messages_come_late() {
    let mut seen = BTreeSet::new();
    let mut open = vec![World::new()];
    let (mut done, mut cancelled) = (0, 0);
    while let Some(world) = open.pop() {
        world.check();
        world.ends();
        let owned = i32::from(Seen::Owned);
        match world.ended {
            Some(epoch) if world.destination.state == owned => {
                assert_eq!(world.destination.epoch, epoch, "the directory has another epoch: {world:?}");
                done += 1;
            }
            Some(epoch) => {
                assert_eq!((world.source.state, world.source.epoch), (owned, epoch), "the directory says what is not so: {world:?}");
                cancelled += 1;
            }
            None => {}
        }
        open.extend(world.successors().into_iter().filter(|next| seen.insert(next.clone())));
    }
    assert!(done > 100 && cancelled > 100, "{} states, {done} done, {cancelled} cancelled", seen.len());
}

fn owned(start: &'static str, end: &'static str, epoch: u64) -> ShardStatus {
    let range = Some(ShardRange { tenant_id: 0, start: start.into(), end: end.into() });
    ShardStatus { range, state: Seen::Owned.into(), epoch, ..Default::default() }
}

#[test]
fn a_split_and_a_merge_are_done_until_they_are() {
    let record =
        |kind: Kind| ShardChangeRecord { kind: kind.into(), at: "m".into(), epoch: 5, state: State::Running.into(), ..Default::default() };
    let step = |kind, source, state: State| {
        next(&Sight { record: ShardChangeRecord { state: state.into(), ..record(kind) }, source, ..Sight::default() })
    };
    let (whole, halves) = (|epoch| vec![owned("", "", epoch)], |epoch| vec![owned("", "m", epoch), owned("m", "", epoch)]);
    assert_eq!(step(Kind::Split, whole(4), State::Running), Step::Split);
    assert_eq!(step(Kind::Split, halves(5), State::Running), Step::RecordDone { epoch: 5 });
    assert_eq!(step(Kind::Split, halves(5), State::Cancelling), Step::RecordDone { epoch: 5 });
    assert_eq!(step(Kind::Split, whole(4), State::Cancelling), Step::Bar);
    assert_eq!(step(Kind::Split, whole(5), State::Cancelling), Step::RecordCancelled { epoch: 5 });
    assert_eq!(step(Kind::Merge, vec![owned("", "m", 5), owned("m", "", 4)], State::Cancelling), Step::Bar);
    assert_eq!(step(Kind::Merge, vec![owned("", "m", 5), owned("m", "", 4)], State::Running), Step::Claim);
    assert_eq!(step(Kind::Split, whole(5), State::Running), Step::Claim);
    assert_eq!(step(Kind::Merge, halves(4), State::Running), Step::Merge);
    assert_eq!(step(Kind::Merge, halves(4), State::Paused), Step::Wait);
    assert_eq!(step(Kind::Merge, whole(6), State::Running), Step::RecordDone { epoch: 6 });
    assert!(matches!(step(Kind::Merge, vec![owned("", "k", 4)], State::Running), Step::Stuck { .. }));
}
