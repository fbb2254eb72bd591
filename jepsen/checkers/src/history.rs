//! What clients asked and what they were told, in the order in which they asked and were told.
//!
//! The order is that of recording: a client records its invocation before it sends anything and its answer after it has it, so if one
//! operation is completed here before another is invoked, it was so in real time. Times are kept for people; judgement uses the order,
//! since two events may fall on the same nanosecond.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome<R> {
    /// It took effect and answered this.
    Ok(R),
    /// It took no effect and never will.
    Fail,
    /// Nobody knows: it may have taken effect, may do so later, or never.
    Unknown,
}

/// One request of one client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation<C, R> {
    /// The client.
    pub process: u64,
    /// What it touched.
    pub key: String,
    /// What it asked.
    pub call: C,
    /// What it was told.
    pub outcome: Outcome<R>,
    /// Place of the invocation in the history.
    pub invoked: u64,
    /// Place of the answer in the history; none while the operation is open or if its outcome is unknown.
    pub completed: Option<u64>,
    /// When it was invoked, in nanoseconds of the recorder's clock.
    pub invoked_ns: u64,
    /// When it was answered.
    pub completed_ns: Option<u64>,
}

impl<C, R> Operation<C, R> {
    /// Whether this one had its answer before the other was asked.
    pub fn precedes<D, S>(&self, other: &Operation<D, S>) -> bool {
        self.completed.is_some_and(|completed| completed < other.invoked)
    }
}

/// Names an operation while it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OperationId(usize);

/// Operations in order of invocation. One that is never answered counts as unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History<C, R> {
    operations: Vec<Operation<C, R>>,
    events: u64,
}

impl<C, R> History<C, R> {
    /// An empty history.
    #[must_use]
    pub fn new() -> Self {
        History { operations: Vec::new(), events: 0 }
    }

    /// Records that a client is about to ask something.
    pub fn invoke(&mut self, process: u64, key: impl Into<String>, at_ns: u64, call: C) -> OperationId {
        let invoked = self.event();
        self.operations.push(Operation {
            process,
            key: key.into(),
            call,
            outcome: Outcome::Unknown,
            invoked,
            completed: None,
            invoked_ns: at_ns,
            completed_ns: None,
        });
        OperationId(self.operations.len() - 1)
    }

    /// Records how it ended. An unknown outcome leaves the operation open.
    pub fn complete(&mut self, id: OperationId, at_ns: u64, outcome: Outcome<R>) {
        let event = self.event();
        let operation = &mut self.operations[id.0];
        if !matches!(outcome, Outcome::Unknown) {
            operation.completed = Some(event);
        }
        operation.completed_ns = Some(at_ns);
        operation.outcome = outcome;
    }

    /// One operation.
    #[must_use]
    pub fn operation(&self, id: OperationId) -> &Operation<C, R> {
        &self.operations[id.0]
    }

    /// All operations, in order of invocation.
    #[must_use]
    pub fn operations(&self) -> &[Operation<C, R>] {
        &self.operations
    }

    /// The same history without some of its operations.
    #[must_use]
    pub fn without(self, mut left_out: impl FnMut(&Operation<C, R>) -> bool) -> Self {
        History { operations: self.operations.into_iter().filter(|operation| !left_out(operation)).collect(), events: self.events }
    }

    /// The operations of each key, in order of invocation.
    #[must_use]
    pub fn by_key(&self) -> BTreeMap<&str, Vec<&Operation<C, R>>> {
        let mut keys: BTreeMap<&str, Vec<&Operation<C, R>>> = BTreeMap::new();
        for operation in &self.operations {
            keys.entry(&operation.key).or_default().push(operation);
        }
        keys
    }

    /// How many operations ended as Ok, failed, and unknown.
    #[must_use]
    pub fn tally(&self) -> (usize, usize, usize) {
        self.operations.iter().fold((0, 0, 0), |(ok, fail, unknown), operation| match operation.outcome {
            Outcome::Ok(_) => (ok + 1, fail, unknown),
            Outcome::Fail => (ok, fail + 1, unknown),
            Outcome::Unknown => (ok, fail, unknown + 1),
        })
    }

    fn event(&mut self) -> u64 {
        self.events += 1;
        self.events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answered_operations_precede_others() {
        let mut history: History<&str, ()> = History::new();
        let a = history.invoke(1, "k", 0, "a");
        let b = history.invoke(2, "k", 0, "b");
        history.complete(a, 5, Outcome::Ok(()));
        history.complete(b, 5, Outcome::Unknown);
        let c = history.invoke(1, "k", 5, "c");
        history.complete(c, 6, Outcome::Fail);
        let [a, b, c] = history.operations() else { panic!("three operations") };
        assert!(a.precedes(c) && !b.precedes(c) && !a.precedes(b));
        assert_eq!(history.tally(), (1, 1, 1));
    }

    #[test]
    fn a_history_survives_json() {
        let mut history: History<u32, u32> = History::new();
        let a = history.invoke(1, "k", 0, 7);
        history.complete(a, 5, Outcome::Ok(8));
        let text = serde_json::to_string(&history).expect("plain data");
        assert_eq!(serde_json::from_str::<History<u32, u32>>(&text).expect("its own output"), history);
    }
}
