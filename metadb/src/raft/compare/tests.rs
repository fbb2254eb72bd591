//! Slices of machines that applied the same entries.

use super::*;
use crate::command::{Command, Proposal};
use crate::machine::{Input, InputBody, Machine};
use crate::raft::snapshot::mark_replica;
use metadb_engine::sim::SimStore;
use metadb_engine::{Row, Store, StoreRead as _, WriteBatch};
use metadb_proto::v1::operation;
use metadb_proto::{Version, level};

const GROUP: u32 = 3;
const TENANT: u64 = 7;

fn entry(index: u64, command: Command) -> Input {
    let proposal = Proposal { level: level::NEWEST, proposed: Version(index), commands: vec![command] };
    Input { position: Bytes::copy_from_slice(&index.to_be_bytes()), body: InputBody::Proposal(proposal.encode()), asked: false }
}

fn put(number: u64) -> Command {
    let header = v1::RequestHeader { tenant_id: TENANT, request_id: number.to_be_bytes().repeat(2).into(), ..Default::default() };
    let row = operation::Put { key: format!("key-{:03}", number % 40).into(), value: vec![1; 50].into() };
    let operations = vec![v1::Operation { op: Some(operation::Op::Put(row)) }];
    Command::Transact(v1::TransactRequest { header: Some(header), operations, ..Default::default() })
}

fn compare((family, from): Place, max_bytes: u64) -> Command {
    Command::Compare(v1::CompareRequest { group_id: GROUP, began_ms: 1, family: family.into(), from, max_bytes })
}

struct Replica {
    store: Arc<SimStore>,
    machine: Machine,
    slices: Arc<Slices>,
}

impl Replica {
    /// One that owns a tenant with rows, applied in calls of so many entries, in a store with the rows of others.
    fn filled(calls: usize) -> Replica {
        let store = SimStore::new(calls as u64);
        mark_replica(&*store, GROUP).expect("it writes");
        for cf in COLUMN_FAMILIES {
            let mut batch = WriteBatch::default();
            batch.put(cf, [&(GROUP + 1).to_be_bytes()[..], &calls.to_be_bytes()].concat(), vec![0; 9]);
            store.write(batch).expect("it writes");
        }
        let machine = Machine::open(Arc::clone(&store) as Arc<dyn Store>, GROUP).expect("empty");
        let mut replica = Replica { store, machine, slices: Slices::new(GROUP) };
        let range = Some(v1::ShardRange { tenant_id: TENANT, ..Default::default() });
        let adopt = Command::AdoptShard(v1::AdoptShardRequest { group_id: GROUP, range, epoch: 1 });
        let entries: Vec<Input> = std::iter::once(entry(1, adopt)).chain((2..200).map(|index| entry(index, put(index)))).collect();
        entries.chunks(calls).for_each(|call| drop(replica.machine.apply(call.to_vec()).expect("it applies")));
        replica
    }

    /// Its rows of the group, but for the node's marks.
    fn rows(&self, cf: Cf) -> Vec<Row> {
        let (start, end) = travelling(cf, GROUP);
        self.store.cursor(cf, &start[..]..&end[..], false).collect::<Result<_, _>>().expect("they read")
    }

    async fn hash(&mut self, index: u64, at: Place, max_bytes: u64) -> Hashed {
        // Behind the entry that asks more follow in the same call: they are not in the slice.
        let entries = vec![entry(index, compare(at, max_bytes)), entry(index + 1, put(index + 1))];
        self.machine.apply(entries).expect("it applies");
        self.slices.hash(self.machine.take_slice().expect("it was asked for"));
        self.slices.at(&index.to_be_bytes()).await.expect("it is hashed")
    }

    /// All slices, one after the other, and how many there were.
    async fn walk(&mut self, max_bytes: u64) -> Vec<Hashed> {
        let (mut at, mut found) = (Some((0, Bytes::new())), Vec::new());
        while let Some(place) = at {
            let hashed = self.hash(1000 + found.len() as u64 * 2, place.clone(), max_bytes).await;
            assert!(hashed.next.as_ref().is_none_or(|next| *next > place), "{place:?} is followed by {hashed:?}");
            at = hashed.next.clone();
            found.push(hashed);
        }
        found
    }
}

#[tokio::test]
async fn replicas_that_applied_the_same_find_the_same_however_calls_were_cut() {
    let all = Replica::filled(1).walk(u64::MAX).await;
    assert_eq!(all.len(), 3, "a slice ends with its family");
    for (calls, max_bytes) in [(1, 2000), (7, 2000), (200, 2000)] {
        let mut replica = Replica::filled(calls);
        let before: u64 =
            COLUMN_FAMILIES.into_iter().flat_map(|cf| replica.rows(cf)).map(|(key, value)| (key.len() + value.len()) as u64).sum();
        let slices = replica.walk(max_bytes).await;
        assert!(slices.len() > 10 && slices.iter().map(|slice| slice.bytes).sum::<u64>() >= before, "{} slices", slices.len());
        assert!(slices.iter().all(|slice| slice.bytes < max_bytes + 1000));
        assert_eq!(slices, Replica::filled(13).walk(max_bytes).await, "calls of {calls}");
    }
}

#[tokio::test]
async fn every_row_counts() {
    let whole = Replica::filled(50).walk(u64::MAX).await;
    for (number, cf) in COLUMN_FAMILIES.into_iter().enumerate() {
        let rows = Replica::filled(50).rows(cf);
        // The applied row is written anew by every entry.
        for (key, value) in rows.iter().filter(|(key, _)| *key != crate::rows::applied::key(GROUP)).step_by(7) {
            for change in 0..3 {
                let mut replica = Replica::filled(50);
                let mut batch = WriteBatch::default();
                match change {
                    0 => batch.delete(cf, key.clone()),
                    1 => batch.put(cf, key.clone(), [&value[..], &[0]].concat()),
                    _ => batch.put(cf, [&key[..], &[0]].concat(), value.clone()),
                }
                replica.store.write(batch).expect("it writes");
                let at = (u8::try_from(number).expect("few"), Bytes::new());
                let position = 1000 + 2 * number as u64;
                for earlier in 0..number as u64 {
                    replica.hash(1000 + 2 * earlier, (u8::try_from(earlier).expect("few"), Bytes::new()), u64::MAX).await;
                }
                let altered = replica.hash(position, at, u64::MAX).await;
                assert_ne!(altered.hash, whole[number].hash, "{cf:?} {key:?}, change {change}");
            }
        }
    }
}

#[tokio::test]
async fn a_slice_is_given_up_for_the_next_and_when_the_rows_go() {
    let mut replica = Replica::filled(50);
    let mut take = |index| {
        replica.machine.apply(vec![entry(index, compare((0, Bytes::new()), u64::MAX))]).expect("it applies");
        replica.machine.take_slice().expect("it was asked for")
    };
    let (first, second, third) = (take(500), take(501), take(502));
    replica.slices.hash(first);
    replica.slices.hash(second);
    assert_eq!(replica.slices.at(&501_u64.to_be_bytes()).await.expect("the later one").position[..], 501_u64.to_be_bytes());
    replica.slices.hash(third);
    replica.slices.forget();
    tokio::task::yield_now().await;
    assert_eq!(replica.slices.last().expect("the one before").position[..], 501_u64.to_be_bytes());
}

#[tokio::test]
async fn where_the_comparison_is_stands_in_the_state() {
    let mut replica = Replica::filled(50);
    replica.hash(300, (1, Bytes::from_static(b"\0\0\0\x03x")), 100).await;
    let row = replica.store.get(Cf::State, &crate::rows::comparison::key(GROUP)).expect("it reads").expect("it is there");
    let row = crate::rows::comparison::Comparison::decode(&row).expect("it decodes");
    assert_eq!((row.began_ms, row.family, &row.from[..]), (1, 1, &b"\0\0\0\x03x"[..]));
    let wrong = replica.machine.apply(vec![Input { asked: true, ..entry(400, compare((3, Bytes::new()), 1)) }]).expect("it applies");
    assert!(matches!(&wrong[0][..], [crate::machine::Outcome::Compare(Err(Error::Invalid { .. }))]), "{wrong:?}");
    assert!(replica.machine.take_slice().is_none());
}
