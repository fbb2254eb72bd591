//! What a checker says.

use serde::{Deserialize, Serialize};

/// The judgement of one checker over one history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The property holds.
    Holds,
    /// It does not; why, for a person.
    Violated(String),
    /// The budget ran out before it could be told. Fails a run: a history too hard to judge proves nothing.
    Undecided(String),
}

impl Verdict {
    /// Whether a run with this verdict passes.
    #[must_use]
    pub fn passes(&self) -> bool {
        matches!(self, Verdict::Holds)
    }

    /// Why the run does not pass.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Verdict::Holds => None,
            Verdict::Violated(reason) | Verdict::Undecided(reason) => Some(reason),
        }
    }

    /// From the violations found.
    #[must_use]
    pub fn from_violations(violations: Vec<String>) -> Self {
        if violations.is_empty() { Verdict::Holds } else { Verdict::Violated(violations.join("\n")) }
    }
}
