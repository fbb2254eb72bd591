//! What is proposed to a group: many commands in one log entry, and the version that its leader proposes for them.
//!
//! `format u8 = 1, proposed u64, count u32`, then per command `kind u8, length u32, protobuf`. Numbers are big-endian.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use metadb_proto::{Version, v1};
use prost::Message;

const FORMAT: u8 = 1;
const KIND_TRANSACT: u8 = 1;
const KIND_ADOPT_SHARD: u8 = 2;
const KIND_DROP_SHARD: u8 = 3;
const HEADER_BYTES: usize = 1 + 8 + 4;
const COMMAND_HEADER_BYTES: usize = 1 + 4;

/// The body of a log entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// The leader's clock.
    pub proposed: Version,
    /// In order.
    pub commands: Vec<Command>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// A transaction. Of its header only tenant, epoch and request id count.
    Transact(v1::TransactRequest),
    /// The group owns a range from now on.
    AdoptShard(v1::AdoptShardRequest),
    /// The group owns a range no longer.
    DropShard(v1::DropShardRequest),
}

/// Why bytes are no proposal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// They end too early.
    #[error("a proposal is cut short")]
    Short,
    /// They go on after the last command.
    #[error("{bytes} bytes after the last command of a proposal")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// A format that this build does not know.
    #[error("proposal format {format}, this build knows {FORMAT}")]
    Format {
        /// Which.
        format: u8,
    },
    /// A kind of command that this build does not know.
    #[error("command kind {kind} is not known to this build")]
    Kind {
        /// Which.
        kind: u8,
    },
    /// A command's own bytes.
    #[error("command kind {kind}: {source}")]
    Body {
        /// Which.
        kind: u8,
        /// What is wrong with it.
        source: prost::DecodeError,
    },
}

impl Command {
    /// Bytes that it takes in a proposal.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        COMMAND_HEADER_BYTES
            + match self {
                Command::Transact(request) => request.encoded_len(),
                Command::AdoptShard(request) => request.encoded_len(),
                Command::DropShard(request) => request.encoded_len(),
            }
    }

    fn encode(&self, out: &mut BytesMut) {
        match self {
            Command::Transact(request) => put(out, KIND_TRANSACT, request),
            Command::AdoptShard(request) => put(out, KIND_ADOPT_SHARD, request),
            Command::DropShard(request) => put(out, KIND_DROP_SHARD, request),
        }
    }

    fn decode(kind: u8, bytes: Bytes) -> Result<Self, CommandError> {
        match kind {
            KIND_TRANSACT => v1::TransactRequest::decode(bytes).map(Command::Transact),
            KIND_ADOPT_SHARD => v1::AdoptShardRequest::decode(bytes).map(Command::AdoptShard),
            KIND_DROP_SHARD => v1::DropShardRequest::decode(bytes).map(Command::DropShard),
            kind => return Err(CommandError::Kind { kind }),
        }
        .map_err(|source| CommandError::Body { kind, source })
    }
}

fn put(out: &mut BytesMut, kind: u8, message: &impl Message) {
    out.put_u8(kind);
    out.put_u32(u32::try_from(message.encoded_len()).expect("requests are bounded by the size of a message"));
    message.encode_raw(out);
}

impl Proposal {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let commands: usize = self.commands.iter().map(Command::encoded_len).sum();
        let mut out = BytesMut::with_capacity(HEADER_BYTES + commands);
        out.put_u8(FORMAT);
        out.put_u64(self.proposed.0);
        out.put_u32(u32::try_from(self.commands.len()).expect("a proposal is bounded far below that"));
        for command in &self.commands {
            command.encode(&mut out);
        }
        out.freeze()
    }

    /// From its bytes, which the commands go on to share.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn decode(mut bytes: Bytes) -> Result<Self, CommandError> {
        let format = bytes.try_get_u8().map_err(|_| CommandError::Short)?;
        if format != FORMAT {
            return Err(CommandError::Format { format });
        }
        let proposed = Version(bytes.try_get_u64().map_err(|_| CommandError::Short)?);
        let count = bytes.try_get_u32().map_err(|_| CommandError::Short)?;
        let mut commands = Vec::with_capacity((count as usize).min(bytes.len() / COMMAND_HEADER_BYTES));
        for _ in 0..count {
            let kind = bytes.try_get_u8().map_err(|_| CommandError::Short)?;
            let length = bytes.try_get_u32().map_err(|_| CommandError::Short)? as usize;
            if bytes.len() < length {
                return Err(CommandError::Short);
            }
            commands.push(Command::decode(kind, bytes.split_to(length))?);
        }
        if bytes.is_empty() { Ok(Proposal { proposed, commands }) } else { Err(CommandError::Trailing { bytes: bytes.len() }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposal() -> Proposal {
        let range = v1::ShardRange { tenant_id: 7, start: Bytes::new(), end: Bytes::from_static(b"m") };
        let adopt = v1::AdoptShardRequest { group_id: 3, range: Some(range), epoch: 2 };
        let header = v1::RequestHeader { tenant_id: 7, ..Default::default() };
        let transact = v1::TransactRequest { header: Some(header), ..Default::default() };
        Proposal { proposed: Version(0x0102), commands: vec![Command::AdoptShard(adopt), Command::Transact(transact)] }
    }

    #[test]
    fn the_bytes_are_frozen() {
        let expected = "01000000000000010200000002020000000b080312050807 1a016d1802 01000000040a020807".replace(' ', "");
        assert_eq!(hex::encode(proposal().encode()), expected);
    }

    #[test]
    fn whatever_is_cut_or_appended_is_refused() {
        let bytes = proposal().encode();
        assert_eq!(Proposal::decode(bytes.clone()), Ok(proposal()));
        for end in 0..bytes.len() {
            Proposal::decode(bytes.slice(..end)).expect_err("cut");
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert_eq!(Proposal::decode(longer.into()), Err(CommandError::Trailing { bytes: 1 }));
        let mut newer = bytes.to_vec();
        newer[0] = 9;
        assert_eq!(Proposal::decode(newer.into()), Err(CommandError::Format { format: 9 }));
    }
}
