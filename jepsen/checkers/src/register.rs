//! One key as a register: get, put, compare-and-swap, delete and add, each taking effect exactly once.
//!
//! Source: the register workloads of Jepsen; exactly-once from Raft's thesis, section 6.3 (a retried request must not be applied again).
//! Give each put a value of its own, and a doubled put or swap shows as the register going back; a doubled add shows in the sum.

use crate::Verdict;
use crate::history::{History, Outcome};
use crate::linearizable::Model;
use serde::{Deserialize, Serialize};

/// What a client asks of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Call {
    /// The value.
    Get,
    /// Writes a value.
    Put(u64),
    /// Writes `new` if the value is `expected` (`None`: absent).
    Cas {
        /// What must be there.
        expected: Option<u64>,
        /// What is to be there.
        new: u64,
    },
    /// Removes the value.
    Delete,
    /// Adds to the value; an absent one counts as 0.
    Add(u64),
}

/// What a client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Return {
    /// Get: what is there.
    Value(Option<u64>),
    /// Put, and compare-and-swap that swapped.
    Written,
    /// Compare-and-swap that found something else.
    Refused(Option<u64>),
    /// Delete: whether there was something.
    Deleted(bool),
    /// Add: the sum.
    Sum(u64),
}

/// The model. Its state is the value.
#[derive(Debug)]
pub enum Register {}

impl Model for Register {
    type Call = Call;
    type Return = Return;
    type State = Option<u64>;

    fn initial() -> Option<u64> {
        None
    }

    fn step(state: &Option<u64>, call: &Call, answer: Option<&Return>) -> Option<Option<u64>> {
        let (next, expected) = match *call {
            Call::Get => (*state, Return::Value(*state)),
            Call::Put(value) => (Some(value), Return::Written),
            Call::Cas { expected, new } if expected == *state => (Some(new), Return::Written),
            Call::Cas { .. } => (*state, Return::Refused(*state)),
            Call::Delete => (None, Return::Deleted(state.is_some())),
            Call::Add(delta) => {
                let sum = state.unwrap_or(0).wrapping_add(delta);
                (Some(sum), Return::Sum(sum))
            }
        };
        match answer {
            Some(answer) if *answer != expected => None,
            Some(_) | None => Some(next),
        }
    }
}

/// For times when clocks ran beyond what leases allow for: takes the plain reads out of a history, and asks only one thing of them, that
/// a read gives nothing that nobody had asked to write before it was answered. Sums can't be told so and are left to the others.
pub fn excuse_reads(history: History<Call, Return>) -> (History<Call, Return>, Verdict) {
    let mut invented = Vec::new();
    for (key, operations) in history.by_key() {
        if operations.iter().any(|operation| matches!(operation.call, Call::Add(_))) {
            continue;
        }
        for read in &operations {
            let (Call::Get, Outcome::Ok(Return::Value(Some(value))), Some(completed)) = (read.call, &read.outcome, read.completed) else {
                continue;
            };
            let writes = |call: Call| matches!(call, Call::Put(new) | Call::Cas { new, .. } if new == *value);
            if !operations.iter().any(|write| write.invoked < completed && writes(write.call)) {
                invented.push(format!("key {key}: process {} read {value}, which nobody had asked to write", read.process));
            }
        }
    }
    (history.without(|operation| operation.call == Call::Get), Verdict::from_violations(invented))
}

#[cfg(test)]
mod tests;
