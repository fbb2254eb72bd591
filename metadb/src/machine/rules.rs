//! What the commands of one log entry may cost, and the meter that counts it.
//!
//! Everything here decides what an entry does to the state, so it must come out alike on every replica: only what is logically read and
//! written is counted, never what a cache or a compaction makes of it. A number is changed by adding the [`Rules`] of a new feature level
//! ([`metadb_proto::level`]), never in place: a test freezes those of each level.

use super::Refusal;
use metadb_proto::{Error, level, limits};
use std::cell::Cell;
use std::time::Duration;

/// When the caller of a command that found its entry's budget spent may try again: soon, in another entry.
const SPENT_RETRY: Duration = Duration::from_millis(20);

/// The limits that apply judges by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rules {
    /// Longest key that a transaction may make, in bytes.
    pub(super) key_bytes: usize,
    /// Bytes of rows in the results of one transaction.
    pub(super) result_bytes: usize,
    /// Keys that the ranges of one transaction's range-unchanged conditions hold together.
    pub(super) range_condition_keys: u64,
    /// Whether that is the sum of them; else each may hold so many.
    pub(super) ranges_share_their_bound: bool,
    /// Keys that one transaction's range deletions remove together.
    pub(super) delete_range_keys: usize,
    /// Bytes of those keys: the change log names each, and a row of it must fit a message.
    pub(super) delete_range_bytes: usize,
    /// Bytes of rows that one transaction's conditions and operations read together.
    pub(super) transaction_read_bytes: u64,
    /// After so many bytes of rows read, further commands of the entry are refused: a group applies nothing else meanwhile.
    pub(super) entry_read_bytes: u64,
    /// After so many bytes of answers and written rows, further commands of the entry are refused: all of it is in memory at once.
    pub(super) entry_made_bytes: u64,
}

/// Level 1 knew no bound of bytes read or made, and each range-unchanged condition had a bound of its own.
static LEVEL_1: Rules = Rules {
    ranges_share_their_bound: false,
    transaction_read_bytes: u64::MAX,
    entry_read_bytes: u64::MAX,
    entry_made_bytes: u64::MAX,
    ..RULES_2
};

/// Level 2.
static LEVEL_2: Rules = RULES_2;

const RULES_2: Rules = Rules {
    key_bytes: limits::KEY_BYTES,
    result_bytes: limits::PAGE_BYTES,
    range_condition_keys: limits::RANGE_CONDITION_KEYS,
    ranges_share_their_bound: true,
    delete_range_keys: limits::DELETE_RANGE_KEYS,
    delete_range_bytes: limits::TRANSACTION_BYTES,
    transaction_read_bytes: limits::TRANSACTION_READ_BYTES,
    entry_read_bytes: 2 * limits::TRANSACTION_READ_BYTES,
    entry_made_bytes: 16 << 20,
};

impl Rules {
    /// Those of a feature level, if this build knows it.
    pub(super) fn of(level: u16) -> Option<&'static Self> {
        match level {
            1 => Some(&LEVEL_1),
            2 | level::MEMBERS | level::COMPARE | level::SHARDS | level::PLACEMENT => Some(&LEVEL_2),
            _ => None,
        }
    }
}

/// Counts what the current transaction and the current entry cost.
#[derive(Debug)]
pub(super) struct Meter {
    rules: &'static Rules,
    /// A cell, for whoever reads holds the overlay shared; the same below.
    transaction_read: Cell<u64>,
    entry_read: Cell<u64>,
    entry_made: u64,
    /// Since the meter was made.
    made: u64,
}

impl Meter {
    pub(super) fn new() -> Self {
        Meter { rules: &LEVEL_2, transaction_read: Cell::new(0), entry_read: Cell::new(0), entry_made: 0, made: 0 }
    }

    pub(super) fn rules(&self) -> &'static Rules {
        self.rules
    }

    /// A new entry begins, which is judged by these rules.
    pub(super) fn begin_entry(&mut self, rules: &'static Rules) {
        self.rules = rules;
        self.entry_read.set(0);
        self.entry_made = 0;
    }

    /// A new command begins, if the entry's budget is not spent.
    pub(super) fn begin_command(&mut self) -> Result<(), Error> {
        self.transaction_read.set(0);
        let (read, made) = (self.rules.entry_read_bytes, self.rules.entry_made_bytes);
        let what = if self.entry_made >= made {
            format!("{made} bytes of answers and written rows")
        } else if self.entry_read.get() >= read {
            format!("{read} bytes of rows read")
        } else {
            return Ok(());
        };
        let message = format!("the commands before it in its log entry spent the entry's budget, {what}; nothing was done, try again");
        Err(Error::Exhausted { message, retry_after: SPENT_RETRY })
    }

    /// A row was read.
    pub(super) fn read(&self, bytes: usize) -> Result<(), Refusal> {
        let bytes = bytes as u64;
        self.entry_read.set(self.entry_read.get() + bytes);
        let read = self.transaction_read.get() + bytes;
        self.transaction_read.set(read);
        let limit = self.rules.transaction_read_bytes;
        if read > limit {
            let limit = format!("conditions and operations that read at most {limit} bytes of rows together; split it");
            return Err(Error::invalid("transaction", limit, format!("at least {read} bytes")).into());
        }
        Ok(())
    }

    /// Bytes of an answer or of a written row came about.
    pub(super) fn made(&mut self, bytes: usize) {
        self.entry_made += bytes as u64;
        self.made += bytes as u64;
    }

    /// Whether so much was made that it should be written before more is.
    pub(super) fn is_full(&self) -> bool {
        self.made >= RULES_2.entry_made_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metadb_proto::level;

    /// Replicas of different builds apply the same entry by these numbers: a new number is a new level.
    #[test]
    fn the_rules_of_a_level_are_frozen() {
        let frozen = Rules {
            key_bytes: 4096,
            result_bytes: 4_194_304,
            range_condition_keys: 10_000,
            ranges_share_their_bound: true,
            delete_range_keys: 10_000,
            delete_range_bytes: 4_194_304,
            transaction_read_bytes: 67_108_864,
            entry_read_bytes: 134_217_728,
            entry_made_bytes: 16_777_216,
        };
        let unbounded = u64::MAX;
        let first = Rules {
            ranges_share_their_bound: false,
            transaction_read_bytes: unbounded,
            entry_read_bytes: unbounded,
            entry_made_bytes: unbounded,
            ..frozen.clone()
        };
        assert_eq!((Rules::of(1), Rules::of(2)), (Some(&first), Some(&frozen)));
        assert_eq!((Rules::of(0), Rules::of(level::NEWEST + 1)), (None, None));
        assert!((level::OLDEST..=level::NEWEST).all(|level| Rules::of(level).is_some()), "what a build says that it knows it knows");
        assert_eq!(limits::REQUEST_ID_RETENTION, Duration::from_secs(300), "the generations of remembered requests are cut by it");
    }

    #[test]
    fn a_spent_entry_refuses_and_the_next_one_does_not() {
        let mut meter = Meter::new();
        meter.begin_command().expect("nothing spent");
        meter.made(16 << 20);
        assert!(matches!(meter.begin_command(), Err(Error::Exhausted { .. })));
        assert!(meter.is_full());
        meter.begin_entry(&LEVEL_2);
        meter.begin_command().expect("a new entry");
        meter.read(64 << 20).unwrap_or_else(|_| panic!("at the limit"));
        assert!(matches!(meter.read(1), Err(Refusal::Told(Error::Invalid { field, .. })) if field == "transaction"));
        meter.begin_command().expect("another may read");
        meter.read(63 << 20).unwrap_or_else(|_| panic!("within"));
        meter.read(1 << 20).unwrap_or_else(|_| panic!("within"));
        assert!(matches!(meter.begin_command(), Err(Error::Exhausted { .. })));
    }
}
