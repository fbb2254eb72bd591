//! A remembered request: `group u32, kind, generation u64, tenant u64, request id` → format, the first outcome.
//!
//! Ids made by the router begin with the time, so new rows lie beside each other at the end of their tenant's: writing one, and finding that
//! one is not there, touches what is in the processor's caches anyway. Random ids work as well, only slower. The tenant comes first because
//! a move takes the tenant's outcomes along.
//!
//! A generation is a span of version time as long as the retention. A new one makes all but itself and the one in use before it be
//! forgotten, with one range deletion, so an outcome is remembered for at least the retention; also when a new leader's clock is far ahead
//! of the old one's, which then ends one generation and not all.

use super::{Fields, corrupt, kind, state_prefix, successor};
use bytes::Bytes;
use metadb_engine::EngineError;
use metadb_proto::{Version, limits, v1};
use prost::Message as _;

const FORMAT: u8 = 1;
/// The group and the kind of a row's key.
const PREFIX_BYTES: usize = 4 + 1;

/// The generation that a version falls into.
#[must_use]
pub fn generation(version: Version) -> u64 {
    let retention_ms = u64::try_from(limits::REQUEST_ID_RETENTION.as_millis()).expect("minutes");
    version.unix_ms() / retention_ms
}

/// The row's key.
#[must_use]
pub fn key(group_id: u32, generation: u64, tenant_id: u64, request_id: &[u8]) -> Bytes {
    let mut out = state_prefix(group_id, kind::REQUEST, 16 + request_id.len());
    out.extend_from_slice(&generation.to_be_bytes());
    out.extend_from_slice(&tenant_id.to_be_bytes());
    out.extend_from_slice(request_id);
    out.into()
}

/// The keys of a tenant's requests of a generation.
#[must_use]
pub fn of_tenant(group_id: u32, generation: u64, tenant_id: u64) -> (Bytes, Bytes) {
    let start = key(group_id, generation, tenant_id, &[]);
    let end = successor(&start);
    (start, end.into())
}

/// The request id in a row's key.
///
/// # Errors
/// [`EngineError::Corrupt`].
pub fn id_of(key: &Bytes) -> Result<Bytes, EngineError> {
    let id = PREFIX_BYTES + 8 + 8;
    if key.len() >= id { Ok(key.slice(id..)) } else { Err(corrupt("request row key", key)) }
}

/// The generation in a row's key.
///
/// # Errors
/// [`EngineError::Corrupt`].
pub fn generation_of(key: &[u8]) -> Result<u64, EngineError> {
    let generation = key.get(PREFIX_BYTES..).and_then(|rest| rest.first_chunk::<8>());
    generation.map(|bytes| u64::from_be_bytes(*bytes)).ok_or_else(|| corrupt("request row key", key))
}

/// The keys of all generations before one.
#[must_use]
pub fn before(group_id: u32, generation: u64) -> (Bytes, Bytes) {
    let start = state_prefix(group_id, kind::REQUEST, 0);
    let mut end = state_prefix(group_id, kind::REQUEST, 8);
    end.extend_from_slice(&generation.to_be_bytes());
    (start.into(), end.into())
}

/// The keys of all generations from one on.
#[must_use]
pub fn from(group_id: u32, generation: u64) -> (Bytes, Bytes) {
    let prefix = state_prefix(group_id, kind::REQUEST, 8);
    let end = successor(&prefix);
    let mut start = prefix;
    start.extend_from_slice(&generation.to_be_bytes());
    (start.into(), end.into())
}

/// The row's value.
#[must_use]
pub fn encode(outcome: &v1::TransactResponse) -> Bytes {
    let mut out = Vec::with_capacity(1 + outcome.encoded_len());
    out.push(FORMAT);
    outcome.encode_raw(&mut out);
    out.into()
}

/// From the row's value.
///
/// # Errors
/// [`EngineError::Corrupt`].
pub fn decode(bytes: &Bytes) -> Result<v1::TransactResponse, EngineError> {
    let decode = || {
        if Fields(bytes).u8()? != FORMAT {
            return None;
        }
        v1::TransactResponse::decode(bytes.slice(1..)).ok()
    };
    decode().ok_or_else(|| corrupt("request row", bytes))
}
