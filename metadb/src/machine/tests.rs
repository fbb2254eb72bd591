//! The machine against a model that is nothing but maps, and the promises that replicas rest on: how entries are cut into calls, and where
//! a replay starts, changes nothing.

#[path = "model.rs"]
mod model;

use super::{Input, InputBody, Machine, Outcome};
use crate::command::{Command, Proposal};
use crate::rows;
use bytes::Bytes;
use metadb_engine::sim::{Kind, SimStore};
use metadb_engine::{COLUMN_FAMILIES, Cf, EngineError, Row, Store, StoreRead as _, WriteBatch};
use metadb_proto::v1::{self, condition, operation};
use metadb_proto::{Error, Version, level, limits};
use model::{Model, TENANT};
use proptest::prelude::*;
use std::sync::Arc;

const GROUP: u32 = 3;

fn adopt(tenant_id: u64, start: &'static str, end: &'static str, epoch: u64) -> Command {
    let range = Some(v1::ShardRange { tenant_id, start: start.into(), end: end.into() });
    Command::AdoptShard(v1::AdoptShardRequest { group_id: GROUP, range, epoch })
}

fn release(start: &'static str, end: &'static str, epoch: u64) -> Command {
    let range = Some(v1::ShardRange { tenant_id: TENANT, start: start.into(), end: end.into() });
    Command::DropShard(v1::DropShardRequest { group_id: GROUP, range, epoch, to_group_id: Some(9) })
}

fn entry(index: u64, body: InputBody) -> Input {
    Input { position: Bytes::copy_from_slice(&index.to_be_bytes()), body, asked: true }
}

fn proposal(index: u64, proposed: u64, commands: Vec<Command>) -> Input {
    entry(index, InputBody::Proposal(Proposal { level: level::NEWEST, proposed: Version(proposed), commands }.encode()))
}

fn machine(seed: u64) -> (Arc<SimStore>, Machine) {
    let store = SimStore::new(seed);
    let machine = Machine::open(Arc::clone(&store) as Arc<dyn Store>, GROUP).expect("empty");
    (store, machine)
}

/// A machine that owns all of the tenant.
fn owner() -> (Arc<SimStore>, Machine) {
    let (store, mut machine) = machine(1);
    run(&mut machine, adopt(TENANT, "", "", 1));
    (store, machine)
}

fn run(machine: &mut Machine, command: Command) -> Outcome {
    let index = machine.applied().position.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes)) + 1;
    let outcomes = machine.apply(vec![proposal(index, 0, vec![command])]).expect("storage works");
    outcomes.into_iter().flatten().next().expect("one command, one outcome")
}

fn transact(machine: &mut Machine, conditions: Vec<v1::Condition>, operations: Vec<v1::Operation>) -> Result<v1::TransactResponse, Error> {
    match run(machine, Command::Transact(v1::TransactRequest { header: header(), conditions, operations })) {
        Outcome::Transact(outcome) => outcome,
        Outcome::Shard(_) | Outcome::Compare(_) => panic!("a transaction"),
    }
}

fn header() -> Option<v1::RequestHeader> {
    Some(v1::RequestHeader { tenant_id: TENANT, ..Default::default() })
}

fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> v1::Operation {
    v1::Operation { op: Some(operation::Op::Put(operation::Put { key: key.into(), value: value.into() })) }
}

fn add(key: &'static str, delta: i64) -> v1::Operation {
    v1::Operation { op: Some(operation::Op::Add(operation::Add { key: key.into(), delta })) }
}

fn delete_range(start: &'static str, end: &'static str) -> v1::Operation {
    v1::Operation { op: Some(operation::Op::DeleteRange(operation::DeleteRange { start: start.into(), end: end.into() })) }
}

fn get(machine: &Machine, key: &'static str) -> Result<Option<v1::KeyValue>, Error> {
    machine.view().get(&v1::GetRequest { header: header(), key: key.into(), read: None }).map(|response| response.row)
}

fn dump(store: &SimStore) -> Vec<(Cf, Row)> {
    let rows = COLUMN_FAMILIES.into_iter().flat_map(|cf| store.cursor(cf, &[]..&[], false).map(move |row| row.map(|row| (cf, row))));
    rows.collect::<Result<_, _>>().expect("readable")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn it_does_what_the_model_does(entries in model::entries(1..12), cuts in prop::collection::vec(1..5_usize, 12)) {
        let (_, mut machine) = machine(1);
        let mut model = Model::default();
        let first = vec![(1, adopt(TENANT, "", "", 1)), (1, adopt(TENANT + 1, "", "", 1))];
        let expected: Vec<Vec<Outcome>> = model::with_first(&first, &entries).iter().map(|entry| model.apply(entry)).collect();
        let mut inputs = inputs(&model::with_first(&first, &entries)).into_iter();
        let mut outcomes = Vec::new();
        for cut in cuts.iter().cycle() {
            let call: Vec<Input> = inputs.by_ref().take(*cut).collect();
            if call.is_empty() { break; }
            outcomes.extend(machine.apply(call).expect("storage works"));
        }
        prop_assert_eq!(outcomes, expected);
        model.check(&machine.view());
    }

    #[test]
    fn neither_cuts_nor_crashes_change_the_state(
        entries in model::entries(1..12), cuts in prop::collection::vec(1..5_usize, 12), stop in 0..12_usize, seed: u64,
    ) {
        let first = vec![(1, adopt(TENANT, "", "", 1)), (1, adopt(TENANT + 1, "", "", 1))];
        let inputs = inputs(&model::with_first(&first, &entries));
        let (straight, mut machine) = machine(seed);
        machine.apply(inputs.clone()).expect("storage works");
        let straight = dump(&straight);

        let store = SimStore::new(seed);
        let mut machine = Machine::open(Arc::clone(&store) as Arc<dyn Store>, GROUP).expect("empty");
        let (mut done, mut cuts, mut stop) = (0, cuts.iter().cycle(), Some(stop));
        while done < inputs.len() {
            let next = (done + cuts.next().expect("a cycle")).min(inputs.len());
            machine.apply(inputs[done..next].to_vec()).expect("storage works");
            done = next;
            if stop.is_some_and(|stop| done > stop) {
                stop = None;
                drop(machine);
                store.crash(Kind::Kill);
                machine = Machine::open(Arc::clone(&store) as Arc<dyn Store>, GROUP).expect("a whole state");
                let position = machine.applied().position.first_chunk::<8>();
                done = position.map_or(0, |index| usize::try_from(u64::from_be_bytes(*index)).expect("small"));
            }
        }
        prop_assert_eq!(dump(&store), straight);
    }

    #[test]
    fn no_bytes_of_a_proposal_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), header: bool) {
        let (_, mut machine) = machine(1);
        let mut proposal = if header { vec![2, 0, 2, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1] } else { Vec::new() };
        proposal.extend(bytes);
        let before = machine.applied().clone();
        match machine.apply(vec![entry(1, InputBody::Proposal(proposal.into()))]) {
            Ok(outcomes) => prop_assert_eq!(outcomes.len(), 1),
            Err(EngineError::Foreign { .. } | EngineError::Corrupt { .. }) => prop_assert_eq!(machine.applied(), &before),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}

fn inputs(entries: &[model::Entry]) -> Vec<Input> {
    let proposal = |(at, (proposed, commands)): (usize, &model::Entry)| proposal(at as u64 + 1, *proposed, commands.clone());
    entries.iter().enumerate().map(proposal).collect()
}

#[test]
fn blank_and_membership_entries_move_the_position_and_give_no_version() {
    let (store, mut machine) = machine(1);
    let entries = vec![entry(1, InputBody::Membership(Bytes::from_static(b"members"))), entry(2, InputBody::Blank)];
    assert_eq!(machine.apply(entries).expect("storage works"), vec![vec![], vec![]]);
    let reopened = Machine::open(store, GROUP).expect("readable");
    assert_eq!(reopened.applied(), machine.applied());
    assert_eq!((machine.applied().version, &machine.applied().membership[..]), (Version::ZERO, &b"members"[..]));
    assert_eq!(machine.applied().position, Bytes::copy_from_slice(&2_u64.to_be_bytes()));
}

#[test]
fn an_add_that_overflows_undoes_the_whole_transaction() {
    let (_, mut machine) = owner();
    transact(&mut machine, vec![], vec![add("n", i64::MAX)]).expect("fits");
    let refused = transact(&mut machine, vec![], vec![put("k", "v"), add("n", 1)]);
    assert!(
        matches!(&refused, Err(Error::Invalid { field, value, .. }) if field == "operations.add.delta" && value.contains("plus 1")),
        "{refused:?}"
    );
    assert_eq!(get(&machine, "k"), Ok(None));
    transact(&mut machine, vec![], vec![put("text", "abc")]).expect("a put");
    assert!(matches!(transact(&mut machine, vec![], vec![add("text", 1)]), Err(Error::Invalid { .. })));
}

#[test]
fn a_range_with_too_many_keys_is_neither_deleted_nor_compared() {
    let (store, mut machine) = owner();
    let keys = limits::DELETE_RANGE_KEYS;
    transact(&mut machine, vec![], (0..keys).map(|n| put(format!("k{n:06}"), "")).collect()).expect("at the limit");
    let unchanged = |count| {
        let test = condition::RangeUnchanged { end: Bytes::new(), count, highest_version: machine_version(&store) };
        vec![v1::Condition { key: "k".into(), test: Some(condition::Test::RangeUnchanged(test)) }]
    };
    let at_limit = unchanged(limits::RANGE_CONDITION_KEYS);
    assert!(transact(&mut machine, at_limit, vec![put("l", "")]).expect("at the limit").committed);
    let refused = transact(&mut machine, vec![], vec![delete_range("k", "")]);
    assert!(
        matches!(&refused, Err(Error::Invalid { field, limit, .. }) if field == "operations.delete_range" && limit.contains("10000")),
        "{refused:?}"
    );
    let past = unchanged(limits::RANGE_CONDITION_KEYS + 1);
    assert!(matches!(transact(&mut machine, past, vec![]), Err(Error::Invalid { field, .. }) if field == "conditions.range_unchanged"));
    let deleted = transact(&mut machine, vec![], vec![delete_range("k", "l")]).expect("at the limit");
    assert_eq!(deleted.results[0].deleted, keys as u64);
}

#[test]
fn a_range_deletion_whose_keys_would_not_fit_a_message_is_refused() {
    let (_, mut machine) = owner();
    let keys_that_fit = limits::TRANSACTION_BYTES / limits::KEY_BYTES;
    let key = |n: usize| Bytes::from(format!("{n:0width$}", width = limits::KEY_BYTES));
    for n in 0..=keys_that_fit {
        transact(&mut machine, vec![], vec![put(key(n), "")]).expect("owned");
    }
    let refused = transact(&mut machine, vec![], vec![delete_range("", "")]);
    assert!(matches!(&refused, Err(Error::Invalid { field, .. }) if field == "operations.delete_range"), "{refused:?}");
    let last = v1::Operation { op: Some(operation::Op::Delete(operation::Delete { key: key(keys_that_fit) })) };
    transact(&mut machine, vec![], vec![last]).expect("owned");
    let deleted = transact(&mut machine, vec![], vec![delete_range("", "")]).expect("at the limit");
    assert_eq!(deleted.results[0].deleted, keys_that_fit as u64);
}

/// What another build may carry out is not answered here: the replica stops, says what to do, and has changed nothing.
#[test]
fn an_entry_of_a_newer_build_stops_the_replica() {
    let (store, mut machine) = owner();
    let before = dump(&store);
    let commands = vec![Command::Transact(v1::TransactRequest { header: header(), conditions: vec![], operations: vec![put("k", "v")] })];
    let newer = Proposal { level: level::NEWEST + 1, proposed: Version(1), commands: commands.clone() };
    let mut unknown = Proposal { level: level::NEWEST, proposed: Version(1), commands }.encode().to_vec();
    let kind_of_the_first = 15;
    unknown[kind_of_the_first] = 0x77;
    for bytes in [newer.encode(), unknown.into()] {
        let stopped = machine.apply(vec![proposal(8, 0, vec![]), entry(9, InputBody::Proposal(bytes))]);
        assert!(matches!(&stopped, Err(EngineError::Foreign { message, .. }) if message.contains("install that build")), "{stopped:?}");
    }
    assert_eq!(dump(&store), before);
}

/// What the first builds wrote into the log is applied as they did, whatever came since.
#[test]
fn an_entry_of_an_older_level_is_judged_by_its_own_rules() {
    let (_, mut machine) = owner();
    let keys = limits::RANGE_CONDITION_KEYS;
    let newest = transact(&mut machine, vec![], (0..keys).map(|n| put(format!("k{n:06}"), "")).collect()).expect("within").version;
    let unchanged = || {
        let test = condition::RangeUnchanged { end: Bytes::new(), count: keys, highest_version: newest };
        v1::Condition { key: "k".into(), test: Some(condition::Test::RangeUnchanged(test)) }
    };
    let request = v1::TransactRequest { header: header(), conditions: vec![unchanged(), unchanged()], operations: vec![] };
    let at = |level| {
        let proposal = Proposal { level, proposed: Version(1), commands: vec![Command::Transact(request.clone())] };
        entry(9, InputBody::Proposal(proposal.encode()))
    };
    let outcomes = machine.apply(vec![at(1), at(2)]).expect("both are known").concat();
    assert!(matches!(&outcomes[0], Outcome::Transact(Ok(answer)) if answer.committed), "each condition has a bound of its own");
    assert!(matches!(&outcomes[1], Outcome::Transact(Err(Error::Invalid { .. }))), "they share one");
}

/// A thousand small commands may ask for gigabytes: only so many of them are answered, the rest is told to come again, alike everywhere.
#[test]
fn an_entry_answers_only_so_much_and_refuses_the_rest_of_its_commands() {
    let (store, mut machine) = owner();
    transact(&mut machine, vec![], vec![put("k", vec![0; limits::VALUE_BYTES])]).expect("a large value");
    let read = || v1::Operation { op: Some(operation::Op::Get(operation::Get { key: "k".into() })) };
    let command = |n: u8| {
        let request_id = Bytes::from(vec![n; limits::REQUEST_ID_BYTES]);
        let header = Some(v1::RequestHeader { tenant_id: TENANT, request_id, ..Default::default() });
        let operations = vec![add("n", 1), read(), read(), read()];
        Command::Transact(v1::TransactRequest { header, conditions: vec![], operations })
    };
    let large = proposal(9, 0, (0..20).map(command).collect());
    let small =
        proposal(10, 0, vec![Command::Transact(v1::TransactRequest { header: header(), conditions: vec![], operations: vec![read()] })]);
    let outcomes = machine.apply(vec![large.clone(), Input { asked: false, ..large }, small]).expect("storage works");
    let committed = outcomes[0].iter().take_while(|outcome| matches!(outcome, Outcome::Transact(Ok(answer)) if answer.committed)).count();
    assert_eq!(committed, 6, "of 3 MiB each, the sixth goes past 16 MiB");
    let spent = |outcome: &Outcome| matches!(outcome, Outcome::Transact(Err(Error::Exhausted { .. })));
    assert!(outcomes[0][committed..].iter().all(spent), "the rest");
    assert_eq!(outcomes[1], vec![], "nobody asked");
    assert!(matches!(&outcomes[2][..], [Outcome::Transact(Ok(_))]), "the next entry has a budget of its own");
    let count = get(&machine, "n").expect("owned").expect("added").value;
    assert_eq!(count[0], 6, "a refused command did nothing, and a repeated one was answered from memory: {count:?}");
    drop(store);
}

#[test]
fn a_transaction_reads_only_so_many_bytes_however_it_asks() {
    let (_, mut machine) = owner();
    let rows = u8::try_from(limits::TRANSACTION_READ_BYTES / limits::VALUE_BYTES as u64).expect("few");
    for n in 0..rows {
        transact(&mut machine, vec![], vec![put(vec![b'k', n], vec![0; limits::VALUE_BYTES])]).expect("a large value");
    }
    let newest = machine.applied().version.0;
    let end = || Bytes::from_static(b"l");
    let unchanged =
        condition::Test::RangeUnchanged(condition::RangeUnchanged { end: end(), count: u64::from(rows), highest_version: newest });
    let unchanged = v1::Condition { key: "k".into(), test: Some(unchanged) };
    let exists = |n: u8| v1::Condition { key: vec![b'k', n].into(), test: Some(condition::Test::Exists(condition::Exists {})) };
    let told = |result: Result<v1::TransactResponse, Error>| {
        assert!(
            matches!(&result, Err(Error::Invalid { field, limit, .. }) if field == "transaction" && limit.contains("67108864")),
            "{result:?}"
        );
    };
    told(transact(&mut machine, vec![unchanged], vec![]));
    told(transact(&mut machine, (0..rows).map(exists).collect(), vec![]));
    told(transact(&mut machine, vec![], vec![put("other", "v"), delete_range("k", "l")]));
    assert_eq!(get(&machine, "other"), Ok(None), "all or nothing");
    let deleted = transact(&mut machine, vec![], vec![delete_range("k", "k\u{20}")]).expect("half of it");
    assert_eq!(deleted.results[0].deleted, 32);
}

#[test]
fn the_ranges_of_one_transaction_share_one_bound() {
    let (_, mut machine) = owner();
    let half = limits::RANGE_CONDITION_KEYS / 2;
    let put_all = (0..=half).map(|n| put(format!("k{n:06}"), "")).collect();
    let newest = transact(&mut machine, vec![], put_all).expect("within the limit").version;
    let unchanged = || {
        let test = condition::RangeUnchanged { end: Bytes::new(), count: half + 1, highest_version: newest };
        v1::Condition { key: "k".into(), test: Some(condition::Test::RangeUnchanged(test)) }
    };
    assert!(transact(&mut machine, vec![unchanged()], vec![]).expect("once is within the limit").committed);
    let refused = transact(&mut machine, vec![unchanged(), unchanged()], vec![]);
    assert!(matches!(&refused, Err(Error::Invalid { field, .. }) if field == "conditions.range_unchanged"), "{refused:?}");
}

fn machine_version(store: &Arc<SimStore>) -> u64 {
    Machine::open(Arc::clone(store) as Arc<dyn Store>, GROUP).expect("readable").applied().version.0
}

#[test]
fn results_larger_than_a_page_are_refused() {
    let (_, mut machine) = owner();
    transact(&mut machine, vec![], vec![put("k", vec![0; limits::VALUE_BYTES])]).expect("a large value");
    let read = || v1::Operation { op: Some(operation::Op::Get(operation::Get { key: "k".into() })) };
    let refused = transact(&mut machine, vec![], vec![put("other", "v"), read(), read(), read(), read()]);
    assert!(matches!(refused, Err(Error::Invalid { .. })));
    assert_eq!(get(&machine, "other"), Ok(None));
}

#[test]
fn a_request_id_is_remembered_for_the_retention_and_forgotten_after_twice_that() {
    let (store, mut machine) = owner();
    let request = |key: &'static str| {
        let header = v1::RequestHeader { tenant_id: TENANT, request_id: Bytes::from_static(&[1; 16]), ..Default::default() };
        Command::Transact(v1::TransactRequest { header: Some(header), conditions: vec![], operations: vec![put(key, "v")] })
    };
    let retention_ms = u64::try_from(limits::REQUEST_ID_RETENTION.as_millis()).expect("minutes");
    let at = |ms: u64| Version::from_unix_ms(10 * retention_ms + ms).0;
    let mut apply = |index, proposed, command| machine.apply(vec![proposal(index, proposed, vec![command])]).expect("storage works");
    let first = apply(2, at(0), request("a"));
    assert_eq!(apply(3, at(retention_ms), request("b")), first, "exactly as long as promised");
    assert_eq!(apply(4, at(2 * retention_ms - 1), request("b")), first);
    let later = apply(5, at(2 * retention_ms), request("b"));
    assert_ne!(later, first, "long gone");
    assert_eq!(get(&machine, "b").expect("owned").map(|row| row.value), Some("v".into()));
    let (start, end) = rows::request::before(GROUP, u64::MAX);
    assert_eq!(store.cursor(Cf::State, &start[..]..&end[..], false).count(), 1, "only the last is kept");
}

#[test]
fn a_clock_that_jumps_ahead_makes_no_request_forgotten() {
    let (store, mut machine) = owner();
    let header = v1::RequestHeader { tenant_id: TENANT, request_id: Bytes::from_static(&[1; 16]), ..Default::default() };
    let request = Command::Transact(v1::TransactRequest { header: Some(header), conditions: vec![], operations: vec![add("n", 1)] });
    let retention_ms = u64::try_from(limits::REQUEST_ID_RETENTION.as_millis()).expect("minutes");
    let at = |generation: u64| Version::from_unix_ms(generation * retention_ms).0;
    let apply = |machine: &mut Machine, index, proposed| {
        machine.apply(vec![proposal(index, proposed, vec![request.clone()])]).expect("storage works")
    };
    let first = apply(&mut machine, 2, at(10));
    // The answer is lost, the leader too, and the clock of the next one is hours ahead.
    assert_eq!(apply(&mut machine, 3, at(50)), first);
    let mut reopened = Machine::open(store, GROUP).expect("readable");
    assert_eq!(apply(&mut reopened, 4, at(50)), first);
    assert_ne!(apply(&mut reopened, 5, at(51)), first, "and is forgotten in the end");
}

#[test]
fn a_dropped_shard_forwards_loses_its_rows_and_comes_back_empty_even_in_one_call() {
    let (store, mut machine) = owner();
    transact(&mut machine, vec![], vec![put("a", "1"), put("b", "2")]).expect("owned");
    let absent = v1::Condition { key: "a".into(), test: Some(condition::Test::Absent(condition::Absent {})) };
    let create = v1::TransactRequest { header: header(), conditions: vec![absent], operations: vec![put("a", "3"), delete_range("", "")] };
    let commands = vec![release("", "", 1), adopt(TENANT, "", "", 2), Command::Transact(create)];
    let outcomes = machine.apply(vec![proposal(9, 0, commands)]).expect("storage works").remove(0);
    let Outcome::Transact(Ok(created)) = &outcomes[2] else { panic!("{outcomes:?}") };
    assert!(created.committed, "the old row is gone");
    assert_eq!(created.results[1].deleted, 1, "only the new row is there to be deleted");
    assert_eq!((get(&machine, "a"), get(&machine, "b")), (Ok(None), Ok(None)));

    run(&mut machine, release("", "", 2));
    assert!(matches!(get(&machine, "a"), Err(Error::Moved { redirect, .. }) if redirect.group_id == 9));
    assert!(matches!(transact(&mut machine, vec![], vec![put("a", "4")]), Err(Error::Moved { .. })));
    assert_eq!(store.cursor(Cf::Data, &[]..&[], false).count(), 0);
    let reopened = Machine::open(store, GROUP).expect("readable");
    assert_eq!((reopened.view().shards(), reopened.view().knows(TENANT)), (0, true));
}

#[test]
fn what_is_not_owned_is_refused_at_apply() {
    let (_, mut machine) = machine(1);
    assert!(matches!(transact(&mut machine, vec![], vec![put("k", "v")]), Err(Error::NotFound { .. })));
    run(&mut machine, adopt(TENANT, "", "m", 1));
    transact(&mut machine, vec![], vec![put("k", "v")]).expect("owned");
    for operation in [put("m", "v"), delete_range("a", "n"), delete_range("a", "")] {
        assert!(matches!(transact(&mut machine, vec![], vec![put("k", "w"), operation]), Err(Error::Moved { .. })));
    }
    assert_eq!(get(&machine, "k").expect("owned").map(|row| row.value), Some("v".into()));
    let wrong_group = Command::AdoptShard(v1::AdoptShardRequest { group_id: GROUP + 1, range: None, epoch: 1 });
    assert!(matches!(run(&mut machine, wrong_group), Outcome::Shard(Err(Error::Internal { .. }))));
}

#[test]
fn a_clock_at_the_end_of_time_is_refused_and_not_a_panic() {
    let (_, mut machine) = owner();
    let put = || Command::Transact(v1::TransactRequest { header: header(), conditions: vec![], operations: vec![put("k", "v")] });
    for index in 2..4 {
        let outcomes = machine.apply(vec![proposal(index, u64::MAX, vec![put()])]).expect("storage works");
        assert!(matches!(&outcomes[0][0], Outcome::Transact(Err(Error::Internal { .. }))), "{outcomes:?}");
    }
    let outcomes = machine.apply(vec![proposal(4, 0, vec![put()])]).expect("storage works");
    assert!(matches!(&outcomes[0][0], Outcome::Transact(Ok(_))), "later clocks still work");
}

#[test]
fn rotten_rows_stop_the_replica_and_are_never_an_answer() {
    let (store, mut machine) = owner();
    let mut batch = WriteBatch::default();
    let stem = rows::data::stem(GROUP, TENANT, b"k");
    batch.put(Cf::Data, rows::data::row_key(&stem, Version(1)), Bytes::from_static(b"\x07rot"));
    store.write(batch).expect("storage works");
    assert!(matches!(get(&machine, "k"), Err(Error::Corrupt { .. })));
    let delete = v1::Operation { op: Some(operation::Op::Delete(operation::Delete { key: "k".into() })) };
    let command = Command::Transact(v1::TransactRequest { header: header(), conditions: vec![], operations: vec![delete] });
    assert!(matches!(machine.apply(vec![proposal(9, 0, vec![command])]), Err(EngineError::Corrupt { .. })));
    let mut batch = WriteBatch::default();
    batch.put(Cf::State, rows::applied::key(GROUP), Bytes::from_static(b"?"));
    store.write(batch).expect("storage works");
    assert!(matches!(Machine::open(store, GROUP), Err(EngineError::Corrupt { .. })));
}

#[test]
fn a_full_store_changes_nothing() {
    let (store, mut machine) = owner();
    let before = machine.applied().clone();
    store.set_full(true);
    let command = Command::Transact(v1::TransactRequest { header: header(), conditions: vec![], operations: vec![put("k", "v")] });
    machine.apply(vec![proposal(9, 0, vec![command])]).expect_err("full");
    assert_eq!(machine.applied(), &before);
    assert_eq!(get(&machine, "k"), Ok(None));
}

#[test]
fn a_range_that_goes_leaves_no_row_however_many_there_are_and_whenever_they_came() {
    for rows in [3, 600] {
        let (store, mut machine) = owner();
        let write = |n: usize| {
            Command::Transact(v1::TransactRequest {
                header: header(),
                conditions: Vec::new(),
                operations: vec![put(format!("key/{:04}", n % rows), format!("{n}"))],
            })
        };
        for n in 0..rows + 2 {
            run(&mut machine, write(n));
        }
        // One more row of the range in the call that drops it.
        let index = 2 + rows as u64 + 2;
        let last = vec![proposal(index, 0, vec![write(rows)]), proposal(index + 1, 0, vec![release("", "", 2)])];
        let at_once = rows == 3;
        let entries = if at_once { last } else { last.into_iter().skip(1).collect() };
        let outcomes: Vec<Outcome> = machine.apply(entries).expect("storage works").into_iter().flatten().collect();
        assert!(matches!(outcomes.last(), Some(Outcome::Shard(Ok(_)))), "{outcomes:?}");
        assert_eq!(store.cursor(Cf::Data, &[]..&[], false).count(), 0, "{rows} rows");
    }
    let (store, mut machine) = owner();
    transact(&mut machine, Vec::new(), vec![put("a", "1"), put("m", "1"), put("z", "1")]).expect("no condition");
    run(&mut machine, Command::ChangeShard(split_at("m", 2)));
    run(&mut machine, release("m", "", 3));
    let left: Vec<Bytes> = store.cursor(Cf::Data, &[]..&[], false).map(|row| row.expect("readable").0).collect();
    assert_eq!(left.len(), 1, "only what was given away goes: {left:?}");
}

fn split_at(at: &'static str, epoch: u64) -> v1::ChangeShard {
    let range = Some(v1::ShardRange { tenant_id: TENANT, ..Default::default() });
    let change = Some(v1::shard_change::Change::Split(v1::SplitShard { at: at.into() }));
    v1::ChangeShard { group_id: GROUP, change: Some(v1::ShardChange { range, epoch, change }) }
}
