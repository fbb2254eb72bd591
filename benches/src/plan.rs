//! What is measured: for how long, with how many clients, how often.

use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// Bytes of a value.
pub const VALUE_BYTES: usize = 256;
/// Keys that are written and read, at random: more than a cache line, few enough to be filled before the gets.
pub const KEYS: u32 = 10_000;
/// Keys of one scan.
pub const SCAN_KEYS: u32 = 100;
/// How many clients wait for an answer at the same time.
pub const CLIENTS: [usize; 4] = [1, 16, 64, 256];
/// The same for scans: an answer is a hundred times larger, so fewer clients fill the machine.
pub const SCAN_CLIENTS: [usize; 3] = [1, 16, 64];
/// Client counts among which MariaDB's best is looked for.
pub const MARIADB_CLIENTS: [usize; 4] = [16, 64, 128, 256];
/// Connections that unary clients share, for both systems.
pub const CONNECTIONS: usize = 16;
/// The client count at which systems are compared.
pub const MANY: usize = 256;

/// A part of the report that can be asked for alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Section {
    /// What the machine allows: synced appends, echo calls.
    Limits,
    /// Durable puts, beside etcd and MariaDB.
    Put,
    /// Linearizable gets, beside etcd.
    Get,
    /// Scans of 100 keys, beside etcd.
    Scan,
    /// Latency at half of each system's own peak of puts.
    Half,
    /// Longest pause of a client when a leader is killed, beside etcd.
    Kill,
    /// Longest pause of a client when a leader is stopped in an orderly way, beside etcd.
    Term,
    /// Memory and processor time of a node with nothing to do and many tenants; how long it takes to make those.
    Idle,
    /// How soon a killed node serves again with much state.
    Restart,
    /// A tenant's latency while another floods.
    Neighbour,
    /// Bytes written to disk per byte put, beside etcd.
    Writes,
    /// What clients notice while shards move.
    Moves,
    /// What many shards cost, and how fast they are made, split and merged.
    Shards,
}

/// How long a run shall take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// Seconds: it proves that everything works, its figures mean nothing.
    Tiny,
    /// Some minutes.
    Short,
    /// As long as good figures take.
    Full,
}

/// One run.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// The binary to measure.
    pub cairn: PathBuf,
    /// etcd's, unless it is left out.
    pub etcd: Option<PathBuf>,
    /// MariaDB's server, unless it is left out.
    pub mariadb: Option<PathBuf>,
    /// What is measured.
    pub sections: Vec<Section>,
    /// How often each system is started afresh and measured.
    pub rounds: usize,
    /// How long a cell is loaded before it counts.
    pub warm_up: Duration,
    /// How long a cell counts.
    pub measure: Duration,
    /// How long each limit is measured.
    pub limit: Duration,
    /// How long latencies are measured at a fixed rate.
    pub paced: Duration,
    /// How often a leader is killed, or stopped.
    pub kills: usize,
    /// How long after that pauses are looked at.
    pub settle: Duration,
    /// Tenants of the idle node.
    pub tenants: usize,
    /// How long the idle node is left alone before it is looked at, and then looked at.
    pub quiet: Duration,
    /// Bytes of values that the node has when it is killed.
    pub state_bytes: u64,
    /// Puts whose bytes on disk are counted.
    pub counted_puts: u64,
    /// Moves that are made.
    pub moves: usize,
    /// Of how many shards.
    pub moving_shards: usize,
    /// Shards that are made.
    pub shards: usize,
    /// How many of them are split and merged.
    pub splits: usize,
}

impl Plan {
    /// The usual one of a length, of all sections.
    #[must_use]
    pub fn new(length: Length) -> Self {
        let ms = Duration::from_millis;
        let (rounds, warm_up, measure, limit, paced) = match length {
            Length::Tiny => (1, ms(50), ms(150), ms(80), ms(500)),
            Length::Short => (1, ms(200), ms(800), ms(400), ms(3000)),
            Length::Full => (3, ms(1000), ms(4000), ms(2000), ms(10_000)),
        };
        let (kills, settle, tenants, quiet, state_bytes, counted_puts) = match length {
            Length::Tiny => (1, ms(1000), 300, ms(1000), 8 << 20, 3_000),
            Length::Short => (3, ms(2500), 10_000, ms(10_000), 256 << 20, 60_000),
            Length::Full => (9, ms(4000), 10_000, ms(60_000), 1 << 30, 500_000),
        };
        let (moves, moving_shards, shards, splits) = match length {
            Length::Tiny => (4, 2, 100, 50),
            Length::Short => (64, 16, 12_288, 1_000),
            Length::Full => (1_000, 32, 12_288, 4_000),
        };
        Plan {
            cairn: "target/release/cairn".into(),
            etcd: Some("etcd".into()),
            mariadb: Some("mariadbd".into()),
            sections: <Section as clap::ValueEnum>::value_variants().to_vec(),
            rounds,
            warm_up,
            measure,
            limit,
            paced,
            kills,
            settle,
            tenants,
            quiet,
            state_bytes,
            counted_puts,
            moves,
            moving_shards,
            shards,
            splits,
        }
    }

    /// Whether a section is asked for.
    #[must_use]
    pub fn has(&self, section: Section) -> bool {
        self.sections.contains(&section)
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
    /// A linearizable scan of 100 keys.
    Scan,
}

impl std::fmt::Display for Verb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Verb::Put => "put",
            Verb::Get => "get",
            Verb::Scan => "scan",
        })
    }
}

/// To whom, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// etcd, unary gRPC at its leader.
    Etcd,
    /// One MariaDB server, prepared inserts, each its own transaction.
    Mariadb,
    /// Cairn, unary gRPC at the group's leader.
    CairnUnary,
    /// Cairn, through the router and its framed stream.
    CairnRouter,
    /// A bare unary gRPC call.
    Echo,
    /// A bare call gathered into frames.
    FramedEcho,
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Way::Etcd => "etcd",
            Way::Mariadb => "MariaDB",
            Way::CairnUnary => "Cairn unary",
            Way::CairnRouter => "Cairn router",
            Way::Echo => "echo unary",
            Way::FramedEcho => "echo framed",
        })
    }
}
