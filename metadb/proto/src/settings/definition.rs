//! What one setting is: its name, what it may be, for whom it may be set, and what holds when nobody set it.

use super::scope::{Scope, ScopeKind};
use crate::Error;
use std::marker::PhantomData;
use std::time::Duration;

/// A value. Every value is copied in a few bytes, so that a read costs nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// On or off.
    Flag(bool),
    /// A number, in the unit of its setting.
    Integer(u64),
    /// One of the words that its setting lists.
    Choice(&'static str),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Flag(value) => write!(f, "{value}"),
            Value::Integer(value) => write!(f, "{value}"),
            Value::Choice(value) => f.write_str(value),
        }
    }
}

/// What a setting may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Flag,
    /// A whole number within bounds, both included.
    Integer {
        /// The least.
        least: u64,
        /// The most.
        most: u64,
        /// In what it is counted; empty for a plain number.
        unit: &'static str,
    },
    /// One of these words.
    Choice {
        /// The words.
        of: &'static [&'static str],
    },
}

impl Kind {
    /// What a value may be, for an error and for a list.
    #[must_use]
    pub fn limit(&self) -> String {
        match self {
            Kind::Flag => "true or false".to_owned(),
            Kind::Integer { least, most, unit } => format!("{least} to {most} {unit}").trim_end().to_owned(),
            Kind::Choice { of } => of.join(", "),
        }
    }

    /// Reads a value; none if it is not one of this kind or out of its bounds.
    #[must_use]
    pub fn parse(&self, text: &str) -> Option<Value> {
        match self {
            Kind::Flag => text.parse().ok().map(Value::Flag),
            Kind::Integer { least, most, .. } => text.parse().ok().filter(|value| (*least..=*most).contains(value)).map(Value::Integer),
            Kind::Choice { of } => of.iter().find(|word| **word == text).copied().map(Value::Choice),
        }
    }
}

/// For whom a setting may be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// What a node does for everybody: cluster, data centre, pod, host group.
    Nodes,
    /// What may also differ by tenant.
    Tenants,
    /// What may also differ by tenant and by user.
    Users,
}

impl Reach {
    /// Whether a setting of this reach may be set for such a scope.
    #[must_use]
    pub fn allows(self, scope: ScopeKind) -> bool {
        match scope {
            ScopeKind::Cluster | ScopeKind::DataCentre | ScopeKind::Pod | ScopeKind::HostGroup => true,
            ScopeKind::Tenant => matches!(self, Reach::Tenants | Reach::Users),
            ScopeKind::User => matches!(self, Reach::Users),
        }
    }

    /// The scopes that it allows, as an operator names them.
    #[must_use]
    pub fn limit(self) -> String {
        ScopeKind::ALL.iter().filter(|scope| self.allows(**scope)).map(|scope| scope.name()).collect::<Vec<_>>().join(", ")
    }
}

/// One setting, whatever its type.
#[derive(Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its place in the registry.
    pub(super) index: usize,
    /// Its name, in parts from the general to the special: `tenant.weight`.
    pub name: &'static str,
    /// What it does, for a person.
    pub description: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// What holds when nobody set it.
    pub default: Value,
    /// For whom it may be set.
    pub reach: Reach,
}

impl Definition {
    /// Reads a value that someone wants to set.
    ///
    /// # Errors
    /// [`Error::Invalid`], naming the setting, what it may be and what was given.
    pub fn parse(&self, text: &str) -> Result<Value, Error> {
        self.kind.parse(text).ok_or_else(|| Error::invalid(self.name, self.kind.limit(), format!("{text:?}")))
    }

    /// Checks for whom someone wants to set it.
    ///
    /// # Errors
    /// [`Error::Invalid`], naming the setting, the scopes that it has and the one given.
    pub fn check_scope(&self, scope: &Scope) -> Result<(), Error> {
        scope.check()?;
        if self.reach.allows(scope.kind()) {
            return Ok(());
        }
        Err(Error::invalid(format!("the scope of {}", self.name), format!("one of: {}", self.reach.limit()), scope.to_string()))
    }
}

/// A type that a setting may have.
pub trait Typed: Copy + 'static {
    /// From the value, if it is of the kind.
    fn of(value: Value) -> Option<Self>;
}

impl Typed for bool {
    fn of(value: Value) -> Option<Self> {
        if let Value::Flag(value) = value { Some(value) } else { None }
    }
}

impl Typed for u64 {
    fn of(value: Value) -> Option<Self> {
        if let Value::Integer(value) = value { Some(value) } else { None }
    }
}

/// For settings in milliseconds.
impl Typed for Duration {
    fn of(value: Value) -> Option<Self> {
        if let Value::Integer(value) = value { Some(Duration::from_millis(value)) } else { None }
    }
}

impl Typed for &'static str {
    fn of(value: Value) -> Option<Self> {
        if let Value::Choice(value) = value { Some(value) } else { None }
    }
}

/// One setting with the type of its values: what code asks by.
#[derive(Debug)]
pub struct Setting<T> {
    /// What it is.
    pub definition: Definition,
    pub(super) of: PhantomData<fn() -> T>,
}
