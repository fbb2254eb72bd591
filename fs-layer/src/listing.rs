//! The plan of a listing with prefix and delimiter: which names to read next, and what the names read come to. No I/O.
//!
//! Names are compared as bytes, which is the order of their keys. A common prefix is found at its first name; the plan then seeks behind
//! the last name that it could stand for, so a page costs reads by what it shows and not by what it hides. A common prefix at or before
//! `start_after` is not shown again, so the last one of a page can be given as `start_after` of the next.

use crate::limits::{LIST_PAGE, LIST_PROBE};
use metadb_proto::Error;

/// The state of a listing.
#[derive(Debug, Clone)]
pub struct Plan {
    prefix: String,
    delimiter: String,
    /// How many items are still to be shown.
    left: usize,
    /// Names at or behind this were not looked at yet.
    from: Vec<u8>,
    /// How many names to read at once while looking for common prefixes.
    probe: usize,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    /// All was seen.
    Exhausted,
    /// The page is full and there is more.
    Full,
}

/// Names to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// At or behind this. It may end in NUL, which no name holds, to mean "behind".
    pub from: Vec<u8>,
    /// Before this; absent: to the end of the folder.
    pub before: Option<Vec<u8>>,
    /// At most so many.
    pub limit: usize,
}

/// What is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// The name at this index of those fed.
    Name(usize),
    /// A common prefix.
    Prefix(String),
}

/// First byte of a continuation, so that its layout may change.
const CONTINUATION_FORMAT: u8 = 1;

impl Plan {
    /// A listing of at most `limit` items. All text is canonical.
    #[must_use]
    pub fn new(prefix: String, delimiter: String, start_after: &str, limit: usize) -> Self {
        let mut plan = Plan { prefix, delimiter, left: limit, from: Vec::new(), probe: LIST_PROBE, state: State::Reading };
        if limit == 0 {
            plan.state = State::Exhausted;
        }
        let behind = match plan.common_prefix(start_after) {
            _ if start_after.is_empty() => Vec::new(),
            Some(common) => end_of(common),
            None => after(start_after),
        };
        plan.from = behind.max(plan.prefix.clone().into_bytes());
        plan
    }

    /// Goes on where a page ended.
    ///
    /// # Errors
    /// [`Error::Invalid`] if that is no continuation.
    pub fn resume(&mut self, continuation: &str) -> Result<(), Error> {
        let bad = || Error::invalid("continuation", "as a page before gave it", continuation.chars().take(64).collect::<String>());
        let bytes = hex::decode(continuation).map_err(|_| bad())?;
        let (format, from) = bytes.split_first().ok_or_else(bad)?;
        if *format != CONTINUATION_FORMAT || from.len() > metadb_proto::limits::KEY_BYTES / 2 {
            return Err(bad());
        }
        self.from = std::mem::take(&mut self.from).max(from.to_vec());
        Ok(())
    }

    /// What to read next; none at the end.
    #[must_use]
    pub fn query(&self) -> Option<Query> {
        if self.state != State::Reading {
            return None;
        }
        let wanted = self.left + 1;
        let limit = if self.delimiter.is_empty() { wanted } else { wanted.min(self.probe) };
        let before = (!self.prefix.is_empty()).then(|| end_of(&self.prefix));
        Some(Query { from: self.from.clone(), before, limit: limit.min(LIST_PAGE) })
    }

    /// Takes the names that the last query gave, in order, and whether those are all. Gives what to show.
    pub fn feed(&mut self, names: &[String], all: bool) -> Vec<Item> {
        let mut items = Vec::new();
        let mut skipped = false;
        for (index, name) in names.iter().enumerate() {
            if name.as_bytes() < self.from.as_slice() {
                skipped = true;
                continue;
            }
            if self.left == 0 {
                self.state = State::Full;
                return items;
            }
            self.left -= 1;
            let (item, from) = match self.common_prefix(name) {
                Some(common) => (Item::Prefix(common.to_owned()), end_of(common)),
                None => (Item::Name(index), after(name)),
            };
            items.push(item);
            self.from = from;
        }
        // Reading far ahead pays only while nothing is skipped.
        self.probe = if skipped { LIST_PROBE } else { (self.probe * 2).min(LIST_PAGE) };
        if all {
            self.state = State::Exhausted;
        }
        items
    }

    /// Where the next page goes on; none if there is nothing more.
    #[must_use]
    pub fn continuation(&self) -> Option<String> {
        (self.state == State::Full).then(|| hex::encode([&[CONTINUATION_FORMAT], self.from.as_slice()].concat()))
    }

    /// The part of a name through the first delimiter behind the prefix.
    fn common_prefix<'a>(&self, name: &'a str) -> Option<&'a str> {
        if self.delimiter.is_empty() {
            return None;
        }
        let rest = name.strip_prefix(self.prefix.as_str())?;
        let at = rest.find(self.delimiter.as_str())?;
        name.get(..self.prefix.len() + at + self.delimiter.len())
    }
}

/// Before every longer name, behind the name.
fn after(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

/// Behind every name that begins with this, before every other name behind it.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        // No byte of UTF-8 is 0xff.
        *last += 1;
    }
    end
}

#[cfg(test)]
mod tests;
