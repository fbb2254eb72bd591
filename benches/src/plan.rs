//! What is measured: for how long, with how many clients, how often.

use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// Bytes of a value.
pub const VALUE_BYTES: usize = 256;
/// Keys that are written and read, at random: more than a cache line, few enough to be filled before the gets.
pub const KEYS: u32 = 10_000;
/// How many clients wait for an answer at the same time.
pub const CLIENTS: [usize; 4] = [1, 16, 64, 256];
/// Connections that unary clients share, for both systems.
pub const CONNECTIONS: usize = 16;

/// One run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The binary to measure.
    pub cairn: PathBuf,
    /// etcd's, unless it is left out.
    pub etcd: Option<PathBuf>,
    /// How often each system is started afresh and measured.
    pub rounds: usize,
    /// How long a cell is loaded before it counts.
    pub warm_up: Duration,
    /// How long a cell counts.
    pub measure: Duration,
    /// How long each limit is measured.
    pub limit: Duration,
}

impl Plan {
    /// The usual one, or the one for a hurry.
    #[must_use]
    pub fn new(short: bool) -> Self {
        let ms = Duration::from_millis;
        let (rounds, warm_up, measure, limit) = if short { (1, ms(200), ms(900), ms(500)) } else { (3, ms(1000), ms(4000), ms(2000)) };
        Plan { cairn: "target/release/cairn".into(), etcd: Some("etcd".into()), rounds, warm_up, measure, limit }
    }
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// A durable put of 256 bytes.
    Put,
    /// A linearizable get.
    Get,
}

impl std::fmt::Display for Verb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Verb::Put => "put",
            Verb::Get => "get",
        })
    }
}

/// To whom, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// etcd, unary gRPC at its leader.
    Etcd,
    /// Cairn, unary gRPC at the group's leader.
    CairnUnary,
    /// Cairn, through the router and its framed stream.
    CairnRouter,
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Way::Etcd => "etcd",
            Way::CairnUnary => "cairn unary",
            Way::CairnRouter => "cairn router",
        })
    }
}
