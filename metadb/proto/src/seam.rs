//! The two things that a library may not ask the system for by itself: wall-clock time and randomness.
//!
//! Outside they are the system's; inside the simulator they are the simulator's, so that a seed decides them. Monotonic time, sleeping,
//! spawning and sockets go through `tokio` and `tonic`, which switch by themselves.

#[cfg(madsim)]
pub mod simulated;

/// Milliseconds since the Unix epoch. May jump; nothing that must be ordered relies on it alone.
#[must_use]
#[cfg_attr(not(madsim), expect(clippy::disallowed_methods, reason = "this is the seam"))]
pub fn unix_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let true_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    #[cfg(madsim)]
    {
        true_ms.saturating_add_signed(simulated::wall_offset_ms())
    }
    #[cfg(not(madsim))]
    {
        true_ms
    }
}

/// 64 random bits.
#[must_use]
pub fn random_u64() -> u64 {
    #[cfg(madsim)]
    {
        madsim::rand::random()
    }
    #[cfg(not(madsim))]
    {
        rand::random()
    }
}

/// A fresh request id: 6 bytes of [`unix_ms`], 10 random ones, in the manner of RFC 9562's version 7. Ids of one time sort together, which
/// makes remembering them cheap; nothing relies on the time in them.
#[must_use]
pub fn request_id() -> [u8; 16] {
    let mut id = random_id();
    id[..6].copy_from_slice(&unix_ms().to_be_bytes()[2..]);
    id
}

/// 16 random bytes: an upload id, a content id.
#[must_use]
pub fn random_id() -> [u8; 16] {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&random_u64().to_be_bytes());
    id[8..].copy_from_slice(&random_u64().to_be_bytes());
    id
}
