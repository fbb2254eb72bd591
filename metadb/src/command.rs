//! What is proposed to a group: many commands in one log entry, the version that its leader proposes for them, and the feature level by
//! whose rules every replica judges them.
//!
//! `format u8 = 2, level u16, proposed u64, count u32`, then per command `kind u8, length u32, protobuf`. Numbers are big-endian. Format 1
//! has no level, and is of level 1.
//!
//! A build that can't read a proposal stops its replica: it must not answer with an error what another build carries out.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use metadb_proto::{Version, level, v1};
use prost::Message;

/// The format of the first builds: written by none any more, read as long as [`level::OLDEST`] is 1.
const FORMAT_1: u8 = 1;
const FORMAT: u8 = 2;
const KIND_TRANSACT: u8 = 1;
const KIND_ADOPT_SHARD: u8 = 2;
const KIND_DROP_SHARD: u8 = 3;
const KIND_COMPARE: u8 = 4;
const KIND_CHANGE_SHARD: u8 = 5;
const KIND_IMPORT_ROWS: u8 = 6;
const HEADER_BYTES: usize = 1 + 2 + 8 + 4;
const COMMAND_HEADER_BYTES: usize = 1 + 4;

/// The body of a log entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// By whose rules it is judged.
    pub level: u16,
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
    /// Every replica hashes a slice of its state. It changes nothing that a reader could see, and has no version.
    Compare(v1::CompareRequest),
    /// A split, a merge or a step of a move.
    ChangeShard(v1::ChangeShard),
    /// Rows of a shard that arrives.
    ImportRows(v1::ImportRowsRequest),
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
    #[error("proposal format {format}, this build knows {FORMAT_1} to {FORMAT}")]
    Format {
        /// Which.
        format: u8,
    },
    /// A feature level that this build does not know.
    #[error("feature level {level}, this build knows {} to {}", level::OLDEST, level::NEWEST)]
    Level {
        /// Which.
        level: u16,
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

impl CommandError {
    /// Whether another build may be able to read it; else the bytes are damaged.
    #[must_use]
    pub fn is_of_another_build(&self) -> bool {
        match self {
            CommandError::Format { .. } | CommandError::Level { .. } | CommandError::Kind { .. } => true,
            CommandError::Short | CommandError::Trailing { .. } | CommandError::Body { .. } => false,
        }
    }
}

impl Command {
    /// The lowest feature level at which it may be proposed: builds that know only lower ones can't carry it out. What a new level brings
    /// is told apart here.
    #[must_use]
    pub fn level(&self) -> u16 {
        match self {
            Command::Transact(_) | Command::AdoptShard(_) | Command::DropShard(_) => 1,
            Command::Compare(_) => level::COMPARE,
            Command::ChangeShard(_) | Command::ImportRows(_) => level::SHARDS,
        }
    }

    /// Bytes that it takes in a proposal.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        COMMAND_HEADER_BYTES
            + match self {
                Command::Transact(request) => request.encoded_len(),
                Command::AdoptShard(request) => request.encoded_len(),
                Command::DropShard(request) => request.encoded_len(),
                Command::Compare(request) => request.encoded_len(),
                Command::ChangeShard(request) => request.encoded_len(),
                Command::ImportRows(request) => request.encoded_len(),
            }
    }

    fn encode(&self, out: &mut BytesMut) {
        match self {
            Command::Transact(request) => put(out, KIND_TRANSACT, request),
            Command::AdoptShard(request) => put(out, KIND_ADOPT_SHARD, request),
            Command::DropShard(request) => put(out, KIND_DROP_SHARD, request),
            Command::Compare(request) => put(out, KIND_COMPARE, request),
            Command::ChangeShard(request) => put(out, KIND_CHANGE_SHARD, request),
            Command::ImportRows(request) => put(out, KIND_IMPORT_ROWS, request),
        }
    }

    fn decode(kind: u8, bytes: Bytes) -> Result<Self, CommandError> {
        match kind {
            KIND_TRANSACT => v1::TransactRequest::decode(bytes).map(Command::Transact),
            KIND_ADOPT_SHARD => v1::AdoptShardRequest::decode(bytes).map(Command::AdoptShard),
            KIND_DROP_SHARD => v1::DropShardRequest::decode(bytes).map(Command::DropShard),
            KIND_COMPARE => v1::CompareRequest::decode(bytes).map(Command::Compare),
            KIND_CHANGE_SHARD => v1::ChangeShard::decode(bytes).map(Command::ChangeShard),
            KIND_IMPORT_ROWS => v1::ImportRowsRequest::decode(bytes).map(Command::ImportRows),
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
        out.put_u16(self.level);
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
        let level = match format {
            FORMAT_1 => 1,
            FORMAT => bytes.try_get_u16().map_err(|_| CommandError::Short)?,
            format => return Err(CommandError::Format { format }),
        };
        if !(level::OLDEST..=level::NEWEST).contains(&level) {
            return Err(CommandError::Level { level });
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
        if bytes.is_empty() { Ok(Proposal { level, proposed, commands }) } else { Err(CommandError::Trailing { bytes: bytes.len() }) }
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
        Proposal { level: 2, proposed: Version(0x0102), commands: vec![Command::AdoptShard(adopt), Command::Transact(transact)] }
    }

    #[test]
    fn the_bytes_are_frozen() {
        let commands = "020000000b0803120508071a016d180201000000040a020807";
        let expected = format!("02000200000000000001020000000{}{commands}", 2);
        assert_eq!(hex::encode(proposal().encode()), expected);
        let first = hex::decode(format!("0100000000000001020000000{}{commands}", 2)).expect("hex");
        assert_eq!(Proposal::decode(first.into()), Ok(Proposal { level: 1, ..proposal() }), "of the first builds");
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
        let with = |at: usize, byte: u8| {
            let mut other = bytes.to_vec();
            other[at] = byte;
            let error = Proposal::decode(other.into()).expect_err("of another build");
            assert!(error.is_of_another_build());
            error
        };
        assert_eq!(with(0, 9), CommandError::Format { format: 9 });
        assert_eq!(with(1, 1), CommandError::Level { level: 0x0102 });
        assert_eq!(with(2, 0), CommandError::Level { level: 0 });
        assert_eq!(with(HEADER_BYTES, 99), CommandError::Kind { kind: 99 });
    }
}
