//! Bytes of what replicas say to each other: the payloads of `PeerMessage`. Everything is encoded, in the simulator too.

use super::codec::{CodecError, Reader, decode_entry, put_count, put_entry, put_optional_log_id, put_stored_membership, put_vote};
use super::{SnapshotMeta, Types};
use bytes::{BufMut as _, Bytes, BytesMut};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse, VoteRequest,
    VoteResponse,
};

const SUCCESS: u8 = 0;
const PARTIAL_SUCCESS: u8 = 1;
const CONFLICT: u8 = 2;
const HIGHER_VOTE: u8 = 3;

const TRANSFERRED: u8 = 0;
const VOTE_CHANGED: u8 = 1;
const LOG_NOT_FLUSHED: u8 = 2;

/// vote, previous position, leader's commit, entries behind their lengths.
pub(crate) fn encode_append(request: &AppendEntriesRequest<Types>) -> Bytes {
    let mut out = BytesMut::with_capacity(64 + request.entries.iter().map(super::codec::entry_bytes).sum::<usize>());
    put_vote(&mut out, &request.vote);
    put_optional_log_id(&mut out, request.prev_log_id.as_ref());
    put_optional_log_id(&mut out, request.leader_commit.as_ref());
    put_count(&mut out, request.entries.len());
    for entry in &request.entries {
        let start = out.len();
        out.put_u32(0);
        put_entry(&mut out, entry);
        let length = u32::try_from(out.len() - start - 4).expect("entries are bounded far below 4 GiB");
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }
    out.freeze()
}

/// The inverse of [`encode_append`].
pub(crate) fn decode_append(bytes: Bytes) -> Result<AppendEntriesRequest<Types>, CodecError> {
    let mut reader = Reader::new(bytes, "append");
    let vote = reader.vote()?;
    let prev_log_id = reader.optional_log_id()?;
    let leader_commit = reader.optional_log_id()?;
    let count = reader.u32()?;
    let mut entries = Vec::new();
    for _ in 0..count {
        entries.push(decode_entry(reader.sized()?)?);
    }
    reader.end()?;
    Ok(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
}

/// kind, then what belongs to it.
pub(crate) fn encode_append_response(response: &AppendEntriesResponse<Types>) -> Bytes {
    let mut out = BytesMut::new();
    match response {
        AppendEntriesResponse::Success => out.put_u8(SUCCESS),
        AppendEntriesResponse::PartialSuccess(upto) => {
            out.put_u8(PARTIAL_SUCCESS);
            put_optional_log_id(&mut out, upto.as_ref());
        }
        AppendEntriesResponse::Conflict => out.put_u8(CONFLICT),
        AppendEntriesResponse::HigherVote(vote) => {
            out.put_u8(HIGHER_VOTE);
            put_vote(&mut out, vote);
        }
    }
    out.freeze()
}

/// The inverse of [`encode_append_response`].
pub(crate) fn decode_append_response(bytes: Bytes) -> Result<AppendEntriesResponse<Types>, CodecError> {
    let mut reader = Reader::new(bytes, "append response");
    let response = match reader.u8()? {
        SUCCESS => AppendEntriesResponse::Success,
        PARTIAL_SUCCESS => AppendEntriesResponse::PartialSuccess(reader.optional_log_id()?),
        CONFLICT => AppendEntriesResponse::Conflict,
        HIGHER_VOTE => AppendEntriesResponse::HigherVote(reader.vote()?),
        other => return Err(reader.unknown(other.into())),
    };
    reader.end().map(|()| response)
}

/// vote, last position, whether the leader asked for it.
pub(crate) fn encode_vote_request(request: &VoteRequest<Types>) -> Bytes {
    let mut out = BytesMut::new();
    put_vote(&mut out, &request.vote);
    put_optional_log_id(&mut out, request.last_log_id.as_ref());
    out.put_u8(request.leadership_transfer.into());
    out.freeze()
}

/// The inverse of [`encode_vote_request`].
pub(crate) fn decode_vote_request(bytes: Bytes) -> Result<VoteRequest<Types>, CodecError> {
    let mut reader = Reader::new(bytes, "vote request");
    let mut request = VoteRequest::new(reader.vote()?, reader.optional_log_id()?);
    request.leadership_transfer = reader.flag()?;
    reader.end().map(|()| request)
}

/// vote, granted, last position.
pub(crate) fn encode_vote_response(response: &VoteResponse<Types>) -> Bytes {
    let mut out = BytesMut::new();
    put_vote(&mut out, &response.vote);
    out.put_u8(response.vote_granted.into());
    put_optional_log_id(&mut out, response.last_log_id.as_ref());
    out.freeze()
}

/// The inverse of [`encode_vote_response`].
pub(crate) fn decode_vote_response(bytes: Bytes) -> Result<VoteResponse<Types>, CodecError> {
    let mut reader = Reader::new(bytes, "vote response");
    let (vote, vote_granted) = (reader.vote()?, reader.flag()?);
    let last_log_id = reader.optional_log_id()?;
    reader.end()?;
    Ok(VoteResponse { vote, vote_granted, last_log_id })
}

/// the leader's vote, the heir, the position it must have.
pub(crate) fn encode_transfer(request: &TransferLeaderRequest<Types>) -> Bytes {
    let mut out = BytesMut::new();
    put_vote(&mut out, request.from_leader());
    out.put_u64(*request.to_node_id());
    put_optional_log_id(&mut out, request.last_log_id());
    out.freeze()
}

/// The inverse of [`encode_transfer`].
pub(crate) fn decode_transfer(bytes: Bytes) -> Result<TransferLeaderRequest<Types>, CodecError> {
    let mut reader = Reader::new(bytes, "transfer");
    let (from, to) = (reader.vote()?, reader.u64()?);
    let last_log_id = reader.optional_log_id()?;
    reader.end()?;
    Ok(TransferLeaderRequest::new(from, to, last_log_id))
}

/// kind, then what belongs to it.
pub(crate) fn encode_transfer_response(response: &TransferLeaderResponse<Types>) -> Bytes {
    let mut out = BytesMut::new();
    match response {
        Ok(()) => out.put_u8(TRANSFERRED),
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            out.put_u8(VOTE_CHANGED);
            put_vote(&mut out, expected);
            put_vote(&mut out, actual);
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            out.put_u8(LOG_NOT_FLUSHED);
            put_optional_log_id(&mut out, expected.as_ref());
            put_optional_log_id(&mut out, actual.as_ref());
        }
    }
    out.freeze()
}

/// The inverse of [`encode_transfer_response`].
pub(crate) fn decode_transfer_response(bytes: Bytes) -> Result<TransferLeaderResponse<Types>, CodecError> {
    let mut reader = Reader::new(bytes, "transfer response");
    let response = match reader.u8()? {
        TRANSFERRED => Ok(()),
        VOTE_CHANGED => Err(TransferLeaderError::VoteChanged { expected: reader.vote()?, actual: reader.vote()? }),
        LOG_NOT_FLUSHED => {
            Err(TransferLeaderError::LogNotFlushed { expected: reader.optional_log_id()?, actual: reader.optional_log_id()? })
        }
        other => return Err(reader.unknown(other.into())),
    };
    reader.end().map(|()| response)
}

/// last position, membership.
pub(crate) fn encode_snapshot_meta(meta: &SnapshotMeta) -> Bytes {
    let mut out = BytesMut::new();
    put_optional_log_id(&mut out, meta.last_log_id.as_ref());
    put_stored_membership(&mut out, &meta.last_membership);
    out.freeze()
}

/// The inverse of [`encode_snapshot_meta`].
pub(crate) fn decode_snapshot_meta(bytes: Bytes) -> Result<SnapshotMeta, CodecError> {
    let mut reader = Reader::new(bytes, "snapshot meta");
    let last_log_id = reader.optional_log_id()?;
    let last_membership = reader.stored_membership()?;
    reader.end()?;
    Ok(SnapshotMeta { last_log_id, last_membership })
}
