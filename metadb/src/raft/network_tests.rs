//! What `network` promises, tested.

use super::super::link::FarEnd;
use super::super::messages::encode_append_response;
use super::*;
use crate::clock::{Clocks, MAX_CLOCK_OFFSET};
use crate::raft::Entry;
use crate::raft::snapshot::depot::SnapshotLimits;
use metadb_engine::sim::SimDisk;
use metadb_proto::principal::ClusterSecret;
use openraft::EntryPayload;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

fn conn() -> (Conn, FarEnd) {
    let (link, far) = FarEnd::new(2);
    let secret = ClusterSecret::new(vec![7; ClusterSecret::MIN_BYTES]).expect("long enough");
    let links = Links::new(1, "00", &secret, Arc::new(Clocks::new(MAX_CLOCK_OFFSET)));
    let depot = Depot::new(SimDisk::new(1).mount(), SnapshotLimits::default(), Arc::default());
    (Conn { links, link, node_id: 1, group_id: 1, depot, traffic: Arc::default() }, far)
}

/// An append of the entries behind `prev`, up to `last`.
fn append(prev: u64, last: u64) -> AppendEntriesRequest<Types> {
    let id = |index| LogId::new_term_index(1, index);
    let entries = (prev + 1..=last).map(|index| Entry { log_id: id(index), payload: EntryPayload::Blank }).collect();
    AppendEntriesRequest { vote: Vote::new_committed(1, 1), prev_log_id: Some(id(prev)), entries, leader_commit: Some(id(prev)) }
}

/// Sends appends; after each answer, up to where openraft is told that the follower has the log.
async fn told(appends: &[(u64, u64)]) -> Vec<Option<u64>> {
    let (conn, mut far) = conn();
    let (requests, input) = mpsc::channel(appends.len());
    for (prev, last) in appends {
        requests.send(append(*prev, *last)).await.expect("there is room");
    }
    let mut pipeline = Pipeline { conn: &conn, input: Some(ReceiverStream::new(input)), sent: VecDeque::new() };
    assert!(pipeline.next().now_or_never().is_none(), "all leave, none is answered");
    let answers: Vec<_> = std::iter::from_fn(|| far.asked()).collect();
    assert_eq!(answers.len(), appends.len());
    let mut told = Vec::new();
    for answer in answers {
        answer(encode_append_response(&AppendEntriesResponse::Success));
        told.push(pipeline.next().now_or_never().map(|item| match item {
            Some(Ok(Ok(Some(matched)))) => matched.index,
            other => panic!("{other:?}"),
        }));
    }
    drop(requests);
    assert!(pipeline.next().await.is_none(), "the end");
    told
}

#[tokio::test]
async fn each_append_that_ends_elsewhere_is_told_at_once() {
    assert_eq!(told(&[(0, 1), (1, 3), (3, 4)]).await, [Some(1), Some(3), Some(4)]);
}

#[tokio::test]
async fn an_early_answer_does_not_speak_for_what_left_later() {
    assert_eq!(told(&[(0, 1), (1, 1), (1, 1), (1, 2)]).await, [None, None, Some(1), Some(2)]);
}
