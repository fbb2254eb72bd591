//! Entries that sampled requests are in, from their proposal until they are applied, so that the log can tell when it had them.
//!
//! An entry has no index when it is proposed. What stays the same on its way through openraft to the log is where its bytes lie.

use bytes::Bytes;
use metadb_telemetry::trace::Context;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The entries of one replica that are followed now. Without any, looking costs one load.
#[derive(Debug, Default)]
pub(crate) struct Followed {
    count: AtomicUsize,
    entries: Mutex<Vec<(usize, Vec<Context>)>>,
}

/// Follows an entry as long as it lives.
pub(crate) struct Following {
    followed: Arc<Followed>,
    payload: Bytes,
}

fn place(payload: &Bytes) -> usize {
    payload.as_ptr().addr()
}

impl Followed {
    /// Follows a payload for these spans; nothing is done for none.
    pub(crate) fn follow(self: &Arc<Self>, payload: &Bytes, spans: Vec<Context>) -> Option<Following> {
        if spans.is_empty() {
            return None;
        }
        self.entries.lock().push((place(payload), spans));
        self.count.fetch_add(1, Ordering::SeqCst);
        // Holding the bytes keeps their place from being used again.
        Some(Following { followed: Arc::clone(self), payload: payload.clone() })
    }

    /// The spans that follow a payload.
    pub(crate) fn of(&self, payload: &Bytes) -> Vec<Context> {
        if self.count.load(Ordering::SeqCst) == 0 {
            return Vec::new();
        }
        let place = place(payload);
        self.entries.lock().iter().find(|(at, _)| *at == place).map(|(_, spans)| spans.clone()).unwrap_or_default()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let place = place(&self.payload);
        self.followed.entries.lock().retain(|(at, _)| *at != place);
        self.followed.count.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_known_by_its_place_while_it_is_followed() {
        let followed = Arc::new(Followed::default());
        let payload = Bytes::from(vec![1, 2, 3]);
        let same_bytes = Bytes::from(vec![1, 2, 3]);
        let span = Context { trace_id: 7, span_id: 9 };
        assert!(followed.follow(&payload, Vec::new()).is_none());
        let following = followed.follow(&payload, vec![span]);
        assert_eq!(followed.of(&payload.clone()), [span]);
        assert_eq!(followed.of(&same_bytes), []);
        drop(following);
        assert_eq!(followed.of(&payload), []);
    }
}
