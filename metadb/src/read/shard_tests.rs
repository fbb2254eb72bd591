//! A shard read page by page while it is written, and imported elsewhere, is the same shard there.

use super::*;
use crate::command::{Command, Proposal};
use crate::machine::{Input, InputBody, Machine, Outcome};
use metadb_engine::Store;
use metadb_engine::sim::SimStore;
use metadb_proto::level;
use metadb_proto::v1::{operation, shard_change as step};
use proptest::prelude::*;
use std::sync::Arc;

const FROM: u32 = 3;
const TO: u32 = 4;
const TENANT: u64 = 7;
const EPOCH: u64 = 2;

struct Side {
    group_id: u32,
    machine: Machine,
    index: u64,
}

impl Side {
    fn new(group_id: u32) -> Self {
        let store = SimStore::new(u64::from(group_id)) as Arc<dyn Store>;
        Side { group_id, machine: Machine::open(store, group_id).expect("empty"), index: 0 }
    }

    fn run(&mut self, proposed: u64, commands: Vec<Command>) -> Vec<Outcome> {
        self.index += 1;
        let body = InputBody::Proposal(Proposal { level: level::NEWEST, proposed: Version(proposed), commands }.encode());
        let position = Bytes::copy_from_slice(&self.index.to_be_bytes());
        self.machine.apply(vec![Input { position, body, asked: true }]).expect("storage works").remove(0)
    }

    fn shard(&mut self, command: Command) -> Result<Version, Error> {
        match self.run(0, vec![command]).remove(0) {
            Outcome::Shard(result) => result,
            Outcome::Transact(_) | Outcome::Compare(_) => panic!("a change of ownership"),
        }
    }

    fn change(&mut self, change: step::Change) -> Result<Version, Error> {
        let change = v1::ShardChange { range: range(), epoch: EPOCH, change: Some(change) };
        self.shard(Command::ChangeShard(v1::ChangeShard { group_id: self.group_id, change: Some(change) }))
    }

    fn transact(&mut self, transaction: Command) -> Result<v1::TransactResponse, Error> {
        match self.run(0, vec![transaction]).remove(0) {
            Outcome::Transact(result) => result,
            Outcome::Shard(_) | Outcome::Compare(_) => panic!("a transaction"),
        }
    }
}

fn range() -> Option<v1::ShardRange> {
    Some(v1::ShardRange { tenant_id: TENANT, start: "b".into(), end: "y".into() })
}

fn owner() -> Side {
    let mut from = Side::new(FROM);
    for (start, end) in [("", "b"), ("b", "y"), ("y", "")] {
        let range = Some(v1::ShardRange { tenant_id: TENANT, start: start.into(), end: end.into() });
        from.shard(Command::AdoptShard(v1::AdoptShardRequest { group_id: FROM, range, epoch: 1 })).expect("free");
    }
    from
}

fn request(id: u8, keys: &[&'static str], value: &'static [u8]) -> Command {
    let request_id = if id == 0 { Bytes::new() } else { Bytes::from(vec![id; 16]) };
    let header = Some(v1::RequestHeader { tenant_id: TENANT, request_id, ..Default::default() });
    let op = |key: &&'static str| match value {
        b"" => operation::Op::Delete(operation::Delete { key: (*key).into() }),
        value => operation::Op::Put(operation::Put { key: (*key).into(), value: value.into() }),
    };
    let operations = keys.iter().map(|key| v1::Operation { op: Some(op(key)) }).collect();
    Command::Transact(v1::TransactRequest { header, conditions: Vec::new(), operations })
}

/// Reads a page and brings it over; where to go on.
fn bring(from: &Side, to: &mut Side, after: u64, continuation: Bytes, max_bytes: u32) -> (Bytes, u64) {
    let read = v1::ReadShardRequest { group_id: FROM, range: range(), after_version: after, continuation, max_bytes };
    let page = from.machine.view().read_shard(&read).expect("it is here");
    let v1::ReadShardResponse { rows, outcomes, continuation, through_version } = page;
    let import = v1::ImportRowsRequest { group_id: TO, range: range(), epoch: EPOCH, rows, outcomes, through_version, take_over: None };
    to.shard(Command::ImportRows(import)).expect("it is expected");
    (continuation, through_version)
}

fn bring_all(from: &mut Side, to: &mut Side, after: u64, max_bytes: u32, mut between: impl FnMut(&mut Side)) -> u64 {
    let mut continuation = Bytes::new();
    loop {
        let (next, through) = bring(from, to, after, continuation, max_bytes);
        if next.is_empty() {
            return through;
        }
        continuation = next;
        between(from);
    }
}

fn everything(side: &Side) -> Vec<(Bytes, Vec<Stored>)> {
    let keys = ["b", "c", "m", "xx"];
    keys.iter()
        .map(|key| (Bytes::from(*key), side.machine.view().history(TENANT, key.as_bytes(), Version::MAX, 1000).expect("owned")))
        .collect()
}

fn writes() -> impl Strategy<Value = Vec<Command>> {
    let keys = prop::collection::btree_set(prop::sample::select(vec!["a", "b", "c", "m", "xx", "y", "z"]), 0..4);
    let value = prop::sample::select(vec![&b""[..], b"v", b"a longer value than the others have"]);
    let write = (0..12_u8, keys, value).prop_map(|(id, keys, value)| request(id, &keys.into_iter().collect::<Vec<_>>(), value));
    prop::collection::vec(write, 0..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_moved_shard_is_the_same_shard(before in writes(), during in writes(), late in writes(), max_bytes in 1..200_u32, ahead in 0..1000_u64) {
        let (mut from, mut to) = (owner(), Side::new(TO));
        // The other group's clock is elsewhere.
        from.run(ahead, Vec::new());
        before.iter().for_each(|write| drop(from.transact(write.clone())));
        to.change(step::Change::Expect(v1::ExpectShard { from_group_id: FROM })).expect("free");
        let mut during = during.into_iter();
        let copied = bring_all(&mut from, &mut to, 0, max_bytes, |from| drop(during.next().map(|write| from.transact(write))));
        during.for_each(|write| drop(from.transact(write)));
        let caught_up = bring_all(&mut from, &mut to, copied, max_bytes, |_| {});
        late.iter().for_each(|write| drop(from.transact(write.clone())));
        let mut first = Vec::new();
        for id in 1..12 {
            first.push(from.transact(request(id, &["m"], b"again")));
        }
        let expected_after = everything(&from);
        let fence = from.change(step::Change::Fence(v1::FenceShard { to_group_id: TO })).expect("owned").0;
        let refused = from.transact(request(0, &["m"], b"late"));
        let redirected = matches!(&refused, Err(Error::Moved { redirect, .. }) if redirect.group_id == TO);
        prop_assert!(redirected, "{:?}", refused);
        let through = bring_all(&mut from, &mut to, caught_up, max_bytes, |_| {});
        prop_assert!(through >= fence);
        let taken = to.change(step::Change::TakeOver(v1::TakeOverShard { from_group_id: FROM, fence_version: fence })).expect("all is here").0;
        prop_assert!(taken > fence, "versions rise across a move");
        from.change(step::Change::HandOver(v1::HandOverShard { to_group_id: TO })).expect("taken over");
        prop_assert_eq!(everything(&to), expected_after);
        // The answer to a retry is the first answer, here too.
        for (id, first) in (1..12).zip(first) {
            prop_assert_eq!(to.transact(request(id, &["m"], b"again")), first);
        }
        let written = to.transact(request(0, &["m"], b"new")).expect("owned");
        prop_assert!(written.version > taken);
        let gone = matches!(from.machine.view().owns_key(TENANT, b"m", 0), Err(Error::Moved { .. }));
        prop_assert!(gone, "a mark stays");
        from.machine.view().owns_key(TENANT, b"a", 0).expect("neighbours stay");
    }
}

#[test]
fn a_mover_that_leaves_rows_out_is_refused() {
    let (mut from, mut to) = (owner(), Side::new(TO));
    from.transact(request(1, &["m"], b"v")).expect("owned");
    to.change(step::Change::Expect(v1::ExpectShard { from_group_id: FROM })).expect("free");
    let copied = bring_all(&mut from, &mut to, 0, 1, |_| {});
    from.transact(request(2, &["m"], b"w")).expect("owned");
    let fence_version = from.change(step::Change::Fence(v1::FenceShard { to_group_id: TO })).expect("owned").0;
    assert!(copied < fence_version);
    let take_over = step::Change::TakeOver(v1::TakeOverShard { from_group_id: FROM, fence_version });
    assert!(matches!(to.change(take_over.clone()), Err(Error::Conflict { .. })));
    assert!(matches!(to.machine.view().owns_key(TENANT, b"m", 0), Err(Error::Unavailable { .. })));
    bring_all(&mut from, &mut to, copied, 1, |_| {});
    to.change(take_over).expect("now all is here");
}

#[test]
fn a_move_taken_back_leaves_nothing() {
    let (mut from, mut to) = (owner(), Side::new(TO));
    from.transact(request(1, &["m"], b"v")).expect("owned");
    to.change(step::Change::Expect(v1::ExpectShard { from_group_id: FROM })).expect("free");
    bring_all(&mut from, &mut to, 0, 1, |_| {});
    from.change(step::Change::Fence(v1::FenceShard { to_group_id: TO })).expect("owned");
    to.change(step::Change::Decline(v1::DeclineShard { from_group_id: FROM })).expect("not taken over");
    from.change(step::Change::Lift(v1::LiftFence {})).expect("declined");
    from.transact(request(2, &["m"], b"w")).expect("owned again");
    let import = v1::ImportRowsRequest { group_id: TO, range: range(), epoch: EPOCH, ..Default::default() };
    assert!(matches!(to.shard(Command::ImportRows(import)), Err(Error::Conflict { .. })), "late rows find nothing that expects them");
    let Err(Error::Moved { redirect, .. }) = to.machine.view().owns_key(TENANT, b"m", 0) else { panic!("a mark") };
    assert_eq!(redirect.group_id, FROM);
}

#[test]
fn rows_from_elsewhere_are_refused_whole() {
    let mut to = Side::new(TO);
    to.change(step::Change::Expect(v1::ExpectShard { from_group_id: FROM })).expect("free");
    let row = |key: &'static str| v1::ShardRow { key: key.into(), version: 1, value: Some("v".into()) };
    let import = v1::ImportRowsRequest {
        group_id: TO,
        range: range(),
        epoch: EPOCH,
        rows: vec![row("m"), row("z")],
        through_version: 1,
        ..Default::default()
    };
    assert!(matches!(to.shard(Command::ImportRows(import)), Err(Error::Invalid { field, .. }) if field == "rows.key"));
    to.change(step::Change::TakeOver(v1::TakeOverShard { from_group_id: FROM, fence_version: 0 })).expect("an empty shard");
    assert_eq!(to.machine.view().history(TENANT, b"m", Version::MAX, 9).expect("owned"), []);
}
