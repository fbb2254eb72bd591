//! Linearizability: there is an order of all operations on a key that agrees with real time (what was answered before another was asked
//! comes first) and in which each answer is what one sequential object would have given, each operation taking effect once.
//!
//! Source: Herlihy and Wing, "Linearizability: a correctness condition for concurrent objects", 1990. The search is that of Wing and
//! Gong, 1993, with Lowe's cache of configurations seen ("Testing for linearizability", 2017): depth first over the operations that may
//! come next; a set of operations done together with the state they led to is never tried twice.
//!
//! Keys are independent objects and are judged one by one. An operation of unknown outcome may take effect at any time after its
//! invocation, or never; it need not be placed. One that failed took no effect and is left out.

use crate::Verdict;
use crate::history::{History, Operation, Outcome};
use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

/// A sequential object.
pub trait Model {
    /// What is asked.
    type Call: Debug;
    /// What is answered.
    type Return: Debug;
    /// Its state.
    type State: Clone + Eq + Hash + Debug;

    /// The state at the beginning.
    fn initial() -> Self::State;

    /// The state after a call, if the call may be answered so in this state. Without an answer (`None`) any would do.
    fn step(state: &Self::State, call: &Self::Call, answer: Option<&Self::Return>) -> Option<Self::State>;
}

/// Bounds of one key's search.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Steps of the search.
    pub steps: u64,
    /// Bytes of configurations remembered.
    pub cache_bytes: usize,
}

impl Default for Budget {
    /// About a second and a quarter of a gigabyte for a key.
    fn default() -> Self {
        Budget { steps: 5_000_000, cache_bytes: 256 << 20 }
    }
}

/// Judges every key of a history.
pub fn check<M: Model>(history: &History<M::Call, M::Return>, budget: Budget) -> Verdict {
    let mut undecided = None;
    for (key, operations) in history.by_key() {
        match Search::<M>::new(&operations).run(budget) {
            Verdict::Holds => {}
            Verdict::Violated(reason) => return Verdict::Violated(format!("key {key} is not linearizable: {reason}")),
            Verdict::Undecided(reason) => undecided = Some(format!("key {key}: {reason}")),
        }
    }
    undecided.map_or(Verdict::Holds, Verdict::Undecided)
}

/// End of the list of events, and "no such event".
const NONE: usize = usize::MAX;
/// The list's head; events start after it.
const HEAD: usize = 0;

#[derive(Clone, Copy)]
enum Event {
    Head,
    /// Index of the operation.
    Invoke(usize),
    Answer(usize),
}

/// One key's search: a linked list of events from which placed operations are lifted, and put back when the search turns round.
struct Search<'a, M: Model> {
    operations: Vec<&'a Operation<M::Call, M::Return>>,
    events: Vec<Event>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Event of each operation's answer, or [`NONE`].
    answer: Vec<usize>,
    /// Answered operations not placed yet.
    remaining: usize,
    placed: Vec<u64>,
    state: M::State,
    /// Placed operations, by event, with the state before.
    path: Vec<(usize, M::State)>,
    seen: HashSet<(Vec<u64>, M::State)>,
    /// Fewest operations left over at any moment, and the answer that could not be explained then.
    best: (usize, String),
}

impl<'a, M: Model> Search<'a, M> {
    fn new(operations: &[&'a Operation<M::Call, M::Return>]) -> Self {
        let operations: Vec<_> = operations.iter().copied().filter(|o| !matches!(o.outcome, Outcome::Fail)).collect();
        let mut timeline: Vec<(u64, Event)> = Vec::with_capacity(operations.len() * 2);
        for (index, operation) in operations.iter().enumerate() {
            timeline.push((operation.invoked, Event::Invoke(index)));
            timeline.extend(operation.completed.map(|at| (at, Event::Answer(index))));
        }
        timeline.sort_by_key(|(at, _)| *at);
        let events: Vec<Event> = std::iter::once(Event::Head).chain(timeline.into_iter().map(|(_, event)| event)).collect();
        let mut answer = vec![NONE; operations.len()];
        for (at, event) in events.iter().enumerate() {
            if let Event::Answer(index) = event {
                answer[*index] = at;
            }
        }
        let count = events.len();
        Search {
            next: (1..=count).map(|i| if i == count { NONE } else { i }).collect(),
            previous: (0..count).map(|i| i.checked_sub(1).unwrap_or(NONE)).collect(),
            remaining: answer.iter().filter(|at| **at != NONE).count(),
            placed: vec![0; operations.len().div_ceil(64)],
            state: M::initial(),
            path: Vec::new(),
            seen: HashSet::new(),
            best: (usize::MAX, String::new()),
            operations,
            events,
            answer,
        }
    }

    fn run(mut self, budget: Budget) -> Verdict {
        let bytes_each = self.placed.len() * 8 + std::mem::size_of::<(Vec<u64>, M::State)>() + 16;
        let mut steps = 0;
        let mut at = self.next[HEAD];
        while self.remaining > 0 {
            steps += 1;
            if steps > budget.steps || self.seen.len() * bytes_each > budget.cache_bytes {
                return Verdict::Undecided(format!("gave up after {steps} steps and {} configurations", self.seen.len()));
            }
            at = match self.events[at] {
                Event::Invoke(index) => match self.try_place(at, index) {
                    true => self.next[HEAD],
                    false => self.next[at],
                },
                Event::Answer(index) => {
                    self.note(index);
                    match self.turn_round() {
                        Some(next) => next,
                        None => return Verdict::Violated(self.best.1),
                    }
                }
                Event::Head => unreachable!("the head has no predecessor, so no link leads to it"),
            };
        }
        Verdict::Holds
    }

    /// Places an operation next, if its answer fits and the configuration is new.
    fn try_place(&mut self, at: usize, index: usize) -> bool {
        let operation = self.operations[index];
        let answer = match &operation.outcome {
            Outcome::Ok(answer) => Some(answer),
            Outcome::Fail | Outcome::Unknown => None,
        };
        let Some(state) = M::step(&self.state, &operation.call, answer) else { return false };
        if answer.is_none() && state == self.state {
            // It need not be placed, and would change nothing here: leaving it open allows more.
            return false;
        }
        let mut placed = self.placed.clone();
        placed[index / 64] |= 1 << (index % 64);
        if !self.seen.insert((placed.clone(), state.clone())) {
            return false;
        }
        self.placed = placed;
        self.path.push((at, std::mem::replace(&mut self.state, state)));
        self.lift(at);
        if self.answer[index] != NONE {
            self.lift(self.answer[index]);
            self.remaining -= 1;
        }
        true
    }

    /// Takes back the last placed operation; gives the event to go on from.
    fn turn_round(&mut self) -> Option<usize> {
        let (at, state) = self.path.pop()?;
        let Event::Invoke(index) = self.events[at] else { unreachable!("only invocations are placed") };
        self.state = state;
        self.placed[index / 64] &= !(1 << (index % 64));
        if self.answer[index] != NONE {
            self.put_back(self.answer[index]);
            self.remaining += 1;
        }
        self.put_back(at);
        Some(self.next[at])
    }

    fn lift(&mut self, at: usize) {
        let (before, after) = (self.previous[at], self.next[at]);
        self.next[before] = after;
        if after != NONE {
            self.previous[after] = before;
        }
    }

    fn put_back(&mut self, at: usize) {
        let (before, after) = (self.previous[at], self.next[at]);
        self.next[before] = at;
        if after != NONE {
            self.previous[after] = at;
        }
    }

    fn note(&mut self, index: usize) {
        if self.remaining >= self.best.0 {
            return;
        }
        let o = self.operations[index];
        let text = format!(
            "process {} asked {:?} at {} ns and was told {:?}, which no order explains; {} of {} operations could be placed, leading to {:?}",
            o.process,
            o.call,
            o.invoked_ns,
            o.outcome,
            self.path.len(),
            self.operations.len(),
            self.state,
        );
        self.best = (self.remaining, text);
    }
}
