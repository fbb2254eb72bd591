//! What each stored row looks like: one record, one file, one frozen encoding.
//!
//! Numbers are big-endian. A group's rows begin with its id, so that they are one range per column family.
//!
//! | column family | key | value | record |
//! | --- | --- | --- | --- |
//! | data | group u32, tenant u64, escaped key, !version u64 | 1 and the value; 0: deleted | [`data`] |
//! | changes | group u32, version u64 | which keys the requests of an entry touched, and their ids | [`change`] |
//! | state | group u32, [`kind::APPLIED`] | position, membership, version | [`applied`] |
//! | state | group u32, [`kind::SHARD`], tenant u64, escaped start | a shard owned, or on its way, or where it went | [`shard`] |
//! | state | group u32, [`kind::REQUEST`], generation u64, tenant u64, request id | the first outcome | [`request`] |
//! | state | group u32, [`kind::COMPARISON`] | how far the comparison of the replicas' states is | [`comparison`] |
//!
//! Kinds from 0xfe on belong to the node, not to the group's state (`raft::snapshot`). Bytes that don't decode are
//! [`EngineError::Corrupt`], never a guess.

use metadb_engine::EngineError;

pub mod applied;
pub mod change;
pub mod comparison;
pub mod data;
pub mod escape;
pub mod request;
pub mod shard;

/// The byte after the group in a key of `Cf::State`. Frozen.
pub mod kind {
    /// How far the group was applied.
    pub const APPLIED: u8 = 0;
    /// A shard.
    pub const SHARD: u8 = 1;
    /// A remembered request.
    pub const REQUEST: u8 = 2;
    /// How far the comparison of the replicas' states is.
    pub const COMPARISON: u8 = 3;
}

/// The first key after all that begin with `prefix`; empty if there is none, which a cursor reads as "to the end".
#[must_use]
pub fn successor(prefix: &[u8]) -> Vec<u8> {
    let kept = prefix.iter().rposition(|byte| *byte != 0xff).map_or(0, |last| last + 1);
    let mut out = prefix[..kept].to_vec();
    if let Some(last) = out.last_mut() {
        *last += 1;
    }
    out
}

/// The key of a row of `Cf::State`, up to its kind.
fn state_prefix(group_id: u32, kind: u8, room: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(5 + room);
    out.extend_from_slice(&group_id.to_be_bytes());
    out.push(kind);
    out
}

fn corrupt(what: &str, bytes: &[u8]) -> EngineError {
    const SHOWN: usize = 64;
    let shown = hex::encode(&bytes[..bytes.len().min(SHOWN)]);
    EngineError::Corrupt { path: what.to_owned(), offset: 0, message: format!("{} bytes that are no such row: {shown}", bytes.len()) }
}

/// Takes a record apart from its front; `None` where it is too short.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(bytes)?;
        self.0 = tail;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// A length in 4 bytes, then that many.
    fn sized(&mut self) -> Option<&'a [u8]> {
        let bytes = self.u32()?;
        self.take(bytes as usize)
    }

    /// All that is left.
    fn rest(self) -> &'a [u8] {
        self.0
    }

    fn end(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

fn put_sized(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("keys, positions and memberships are bounded far below 4 GiB");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests;
