//! What the content store did, as numbers.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters since the start of the process.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
        pub struct Counters { $($(#[$doc])* pub $name: u64,)* }

        #[derive(Default)]
        pub(crate) struct Counting { $(pub(crate) $name: Counter,)* }

        impl Counting {
            pub(crate) fn snapshot(&self) -> Counters {
                Counters { $($name: self.$name.0.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Contents acknowledged to their writers.
    contents_written,
    /// Bytes of those.
    bytes_written,
    /// Contents that could not reach enough durable copies, or whose writer gave up.
    writes_failed,
    /// Contents opened for reading.
    reads,
    /// Copies that were given up in favour of another one.
    failovers,
    /// Own copies that did not match their checksums.
    corrupt_copies,
    /// Own copies that should have been there and were not.
    missing_copies,
    /// Own copies written again from another node's.
    repaired_copies,
    /// Repairs that failed, to be tried again when next found.
    repairs_failed,
    /// Contents acknowledged with a copy owed.
    debts,
    /// Debts paid.
    debts_paid,
    /// Bad files moved to the `aside` folder.
    set_aside,
    /// Contents without a name whose copies are all gone.
    collected,
    /// Bytes of those.
    bytes_collected,
    /// Copies removed for that, on any node.
    copies_removed,
    /// Copies that could not be removed then, to be tried again.
    removals_failed,
    /// Own files removed that no row knew.
    orphans_removed,
}

#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }
}
