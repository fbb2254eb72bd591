//! Strict serializability of transactions that append to lists and read them: one order of all transactions, in agreement with real time,
//! explains every list that was read.
//!
//! Source: Adya, "Weak consistency", 1999 (dependency graphs); Kingsbury and Alvaro, "Elle", 2020: since each element is appended once, a
//! list that was read tells the order of its writers, and from that follow the dependencies. A cycle among them, and the order of real
//! time, is an anomaly. Lists that are no prefixes of each other, elements doubled, lost, or of failed transactions are told by name.

use crate::Verdict;
use crate::history::Outcome;
use std::collections::{BTreeMap, BTreeSet};

/// A transaction: what it read, before what it appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Place of its invocation in the history.
    pub invoked: u64,
    /// Place of its answer.
    pub completed: Option<u64>,
    /// How it ended.
    pub outcome: Outcome<()>,
    /// Lists that it read whole, by name.
    pub reads: Vec<(String, Vec<u64>)>,
    /// What it appended, each element once in the whole history.
    pub appends: Vec<(String, u64)>,
}

/// Judges a history and the lists as they were in the end.
#[must_use]
pub fn check(history: &[Transaction], last: &BTreeMap<String, Vec<u64>>) -> Verdict {
    let mut violations = Vec::new();
    let longest = longest(history, last, &mut violations);
    let writers = writers(history);
    for (list, elements) in &longest {
        let mut seen = BTreeSet::new();
        for element in *elements {
            if !seen.insert(element) {
                violations.push(format!("list {list} has {element} twice: {elements:?}"));
            }
            match writers.get(&(*list, *element)) {
                None => violations.push(format!("list {list} has {element}, which nobody appended")),
                Some(writer) if history[*writer].outcome == Outcome::Fail => {
                    violations.push(format!("list {list} has {element}, whose transaction failed"));
                }
                Some(_) => {}
            }
        }
    }
    let done = history.iter().filter(|transaction| matches!(transaction.outcome, Outcome::Ok(())));
    for (list, element) in done.flat_map(|transaction| &transaction.appends) {
        if !longest.get(list.as_str()).is_some_and(|elements| elements.contains(element)) {
            violations.push(format!("list {list} lacks {element}, which was acknowledged"));
        }
    }
    if violations.is_empty() {
        violations.extend(cycle(history, &longest, &writers));
    }
    Verdict::from_violations(violations)
}

/// Each list in its longest form; that all other forms are beginnings of it is checked on the way.
fn longest<'a>(
    history: &'a [Transaction],
    last: &'a BTreeMap<String, Vec<u64>>,
    violations: &mut Vec<String>,
) -> BTreeMap<&'a str, &'a [u64]> {
    let read =
        history.iter().filter(|transaction| matches!(transaction.outcome, Outcome::Ok(()))).flat_map(|transaction| &transaction.reads);
    let read = read.map(|(list, elements)| (list.as_str(), &elements[..]));
    let forms: Vec<(&str, &[u64])> = read.chain(last.iter().map(|(list, elements)| (list.as_str(), &elements[..]))).collect();
    let mut longest: BTreeMap<&str, &[u64]> = BTreeMap::new();
    for (list, elements) in forms.iter().copied() {
        let known = longest.entry(list).or_insert(elements);
        if elements.len() > known.len() {
            *known = elements;
        }
    }
    for (list, elements) in forms {
        if !longest[list].starts_with(elements) {
            violations.push(format!("list {list} was read as {elements:?} and as {:?}", longest[list]));
        }
    }
    for (list, elements) in last {
        if longest[list.as_str()].len() > elements.len() {
            violations.push(format!("list {list} was read as {:?} and ended as {elements:?}", longest[list.as_str()]));
        }
    }
    longest
}

fn writers(history: &[Transaction]) -> BTreeMap<(&str, u64), usize> {
    let appends = history.iter().enumerate().flat_map(|(at, transaction)| transaction.appends.iter().map(move |append| (append, at)));
    appends.map(|((list, element), at)| ((list.as_str(), *element), at)).collect()
}

/// A node of the graph: a transaction, or the moment of an answer, through which real time is handed on.
type Graph = Vec<BTreeSet<usize>>;

fn cycle(history: &[Transaction], longest: &BTreeMap<&str, &[u64]>, writers: &BTreeMap<(&str, u64), usize>) -> Option<String> {
    let graph = dependencies(history, longest, writers);
    let mut incoming = vec![0_usize; graph.len()];
    graph.iter().flatten().for_each(|to| incoming[*to] += 1);
    let mut ready: Vec<usize> = (0..graph.len()).filter(|at| incoming[*at] == 0).collect();
    let mut left: BTreeSet<usize> = (0..graph.len()).collect();
    while let Some(at) = ready.pop() {
        left.remove(&at);
        for to in &graph[at] {
            incoming[*to] -= 1;
            if incoming[*to] == 0 {
                ready.push(*to);
            }
        }
    }
    let knot: Vec<_> = left.into_iter().filter(|at| *at < history.len()).take(4).map(|at| &history[at]).collect();
    (!knot.is_empty()).then(|| format!("no order explains these transactions: {knot:?}"))
}

fn dependencies(history: &[Transaction], longest: &BTreeMap<&str, &[u64]>, writers: &BTreeMap<(&str, u64), usize>) -> Graph {
    let mut answers: Vec<(u64, usize)> =
        history.iter().enumerate().filter_map(|(at, transaction)| Some((transaction.completed?, at))).collect();
    answers.sort_unstable();
    let mut graph = vec![BTreeSet::new(); history.len() + answers.len()];
    let mut edge = |from: usize, to: usize| {
        if from != to {
            graph[from].insert(to);
        }
    };
    for (list, elements) in longest {
        for pair in elements.windows(2) {
            edge(writers[&(*list, pair[0])], writers[&(*list, pair[1])]);
        }
    }
    for (at, transaction) in history.iter().enumerate().filter(|(_, transaction)| matches!(transaction.outcome, Outcome::Ok(()))) {
        for (list, elements) in &transaction.reads {
            if let Some(before) = elements.last() {
                edge(writers[&(list.as_str(), *before)], at);
            }
            if let Some(after) = longest[list.as_str()].get(elements.len()) {
                edge(at, writers[&(list.as_str(), *after)]);
            }
        }
    }
    for (moment, (_, at)) in answers.iter().enumerate() {
        edge(*at, history.len() + moment);
        if moment > 0 {
            edge(history.len() + moment - 1, history.len() + moment);
        }
    }
    for (at, transaction) in history.iter().enumerate() {
        let before = answers.partition_point(|(completed, _)| *completed < transaction.invoked);
        if let Some(moment) = before.checked_sub(1) {
            edge(history.len() + moment, at);
        }
    }
    graph
}

#[cfg(test)]
mod tests;
