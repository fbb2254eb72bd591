//! What `codec` promises, tested.

use super::*;
use crate::raft::SnapshotMeta;
use crate::raft::messages::{
    decode_append, decode_append_response, decode_snapshot_meta, decode_transfer, decode_transfer_response, decode_vote_request,
    decode_vote_response, encode_append, encode_append_response, encode_snapshot_meta, encode_transfer, encode_transfer_response,
    encode_vote_request, encode_vote_response,
};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest, VoteRequest, VoteResponse};
use proptest::prelude::*;

fn log_id() -> impl Strategy<Value = LogId> {
    (any::<u64>(), any::<u64>()).prop_map(|(term, index)| LogId::new_term_index(term, index))
}

fn maybe_log_id() -> impl Strategy<Value = Option<LogId>> {
    proptest::option::of(log_id())
}

fn vote() -> impl Strategy<Value = Vote> {
    (any::<u64>(), any::<u64>(), any::<bool>()).prop_map(
        |(term, node, committed)| {
            if committed { Vote::new_committed(term, node) } else { Vote::new(term, node) }
        },
    )
}

fn membership() -> impl Strategy<Value = Membership> {
    let members = proptest::collection::btree_map(any::<u64>(), "[a-z0-9.:-]{0,40}", 1..6);
    (members, any::<bool>()).prop_map(|(members, joint)| {
        let voters: BTreeSet<u64> = members.keys().copied().collect();
        let first: BTreeSet<u64> = voters.iter().copied().take(1).collect();
        let configs = if joint { vec![first, voters] } else { vec![voters] };
        let nodes: BTreeMap<u64, Member> = members.into_iter().map(|(id, address)| (id, Member { address })).collect();
        Membership::new(configs, nodes).expect("every voter has a node")
    })
}

fn entry() -> impl Strategy<Value = Entry> {
    let payload = prop_oneof![
        Just(EntryPayload::Blank),
        proptest::collection::vec(any::<u8>(), 0..200).prop_map(|bytes| EntryPayload::Normal(Payload(bytes.into()))),
        membership().prop_map(EntryPayload::Membership),
    ];
    (log_id(), payload).prop_map(|(log_id, payload)| Entry { log_id, payload })
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(entry in entry(), vote in vote(), id in log_id(), at in maybe_log_id(), members in membership()) {
        prop_assert_eq!(decode_entry(encode_entry(&entry)), Ok(entry));
        prop_assert_eq!(decode_vote(encode_vote(&vote)), Ok(vote));
        prop_assert_eq!(decode_log_id(encode_log_id(&id)), Ok(id));
        let stored = StoredMembership::new(at, members);
        prop_assert_eq!(decode_stored_membership(encode_stored_membership(&stored)), Ok(stored.clone()));
        let meta = SnapshotMeta { last_log_id: at, last_membership: stored };
        prop_assert_eq!(decode_snapshot_meta(encode_snapshot_meta(&meta)), Ok(meta));
    }

    #[test]
    fn messages_survive(
        vote in vote(), other in vote(), prev in maybe_log_id(), commit in maybe_log_id(),
        entries in proptest::collection::vec(entry(), 0..5), flag in any::<bool>(), node in any::<u64>(),
    ) {
        let request = AppendEntriesRequest { vote, prev_log_id: prev, entries, leader_commit: commit };
        let decoded = decode_append(encode_append(&request)).expect("decodes");
        prop_assert_eq!((decoded.vote, decoded.prev_log_id, decoded.leader_commit), (vote, prev, commit));
        prop_assert_eq!(decoded.entries, request.entries);
        for response in [
            AppendEntriesResponse::Success, AppendEntriesResponse::PartialSuccess(prev),
            AppendEntriesResponse::Conflict, AppendEntriesResponse::HigherVote(vote),
        ] {
            prop_assert_eq!(decode_append_response(encode_append_response(&response)), Ok(response));
        }
        let mut request = VoteRequest::new(vote, prev);
        request.leadership_transfer = flag;
        prop_assert_eq!(decode_vote_request(encode_vote_request(&request)), Ok(request));
        let response = VoteResponse::new(vote, prev, flag);
        prop_assert_eq!(decode_vote_response(encode_vote_response(&response)), Ok(response));
        let request = TransferLeaderRequest::new(vote, node, prev);
        prop_assert_eq!(decode_transfer(encode_transfer(&request)), Ok(request));
        for response in [
            Ok(()), Err(TransferLeaderError::VoteChanged { expected: vote, actual: other }),
            Err(TransferLeaderError::LogNotFlushed { expected: prev, actual: commit }),
        ] {
            prop_assert_eq!(decode_transfer_response(encode_transfer_response(&response)), Ok(response));
        }
    }

    #[test]
    fn nothing_that_is_cut_is_taken_for_whole(members in membership(), vote in vote()) {
        let stored = encode_stored_membership(&StoredMembership::new(None, members));
        for end in 0..stored.len() {
            prop_assert!(decode_stored_membership(stored.slice(..end)).is_err());
        }
        let vote = encode_vote(&vote);
        for end in 0..vote.len() {
            prop_assert!(decode_vote(vote.slice(..end)).is_err());
        }
    }

    #[test]
    fn garbage_is_refused_and_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let bytes = Bytes::from(bytes);
        let _ = (decode_entry(bytes.clone()), decode_append(bytes.clone()), decode_stored_membership(bytes.clone()));
        let _ = (decode_vote_request(bytes.clone()), decode_snapshot_meta(bytes.clone()), decode_transfer_response(bytes));
    }
}

#[test]
fn a_proposal_is_not_copied_when_its_entry_is_decoded() {
    let entry = Entry { log_id: LogId::new_term_index(1, 2), payload: EntryPayload::Normal(Payload(Bytes::from(vec![7; 1000]))) };
    let bytes = encode_entry(&entry);
    let EntryPayload::Normal(payload) = decode_entry(bytes.clone()).expect("decodes").payload else { panic!("a proposal") };
    assert_eq!(payload.0.as_ptr(), bytes[ENTRY_HEADER_BYTES..].as_ptr());
}

#[test]
fn the_bytes_of_the_log_are_frozen() {
    let log_id = LogId::new_term_index(3, 0x0102);
    let proposal = Entry { log_id, payload: EntryPayload::Normal(Payload(Bytes::from_static(b"ab"))) };
    assert_eq!(hex::encode(encode_entry(&proposal)), "010000000000000003000000000000010201".to_owned() + "6162");
    let nodes = BTreeMap::from([(7, Member { address: "a:1".into() })]);
    let members = Membership::new(vec![BTreeSet::from([7])], nodes).expect("valid");
    let entry = Entry { log_id, payload: EntryPayload::Membership(members.clone()) };
    let body = "00000001".to_owned() + "00000001" + "0000000000000007" + "00000001" + "0000000000000007" + "0003" + "613a31";
    assert_eq!(hex::encode(encode_entry(&entry)), "010000000000000003000000000000010202".to_owned() + &body);
    let stored = StoredMembership::new(Some(log_id), members);
    assert_eq!(hex::encode(encode_stored_membership(&stored)), "010100000000000000030000000000000102".to_owned() + &body);
    assert_eq!(hex::encode(encode_vote(&Vote::new_committed(3, 7))), "010000000000000003000000000000000701");
}
