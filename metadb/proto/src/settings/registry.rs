//! Every setting there is. To add one, add an entry: its documentation is its description for operators, and everything else
//! (`cairn admin setting`, the bounds, the cache on each node) follows from it.

use super::definition::{Definition, Kind, Reach, Setting, Value};
use std::marker::PhantomData;

/// `NAME: type = "name", kind, default, reach;` with a doc comment.
macro_rules! registry {
    ($($(#[doc = $doc:literal])+ $ident:ident: $type:ty = $name:literal, $kind:expr, $default:expr, $reach:ident;)+) => {
        #[expect(non_camel_case_types, reason = "the settings' own names, numbered")]
        enum Index { $($ident),+ }
        $(
            $(#[doc = $doc])+
            pub static $ident: Setting<$type> = Setting {
                definition: Definition {
                    index: Index::$ident as usize,
                    name: $name,
                    description: concat!($($doc),+),
                    kind: $kind,
                    default: $default,
                    reach: Reach::$reach,
                },
                of: PhantomData,
            };
        )+
        /// All of them, in the order of the list above.
        pub static DEFINITIONS: &[&Definition] = &[$(&$ident.definition),+];
        #[cfg(test)]
        pub(super) fn defaults_have_their_types() -> Vec<(&'static str, bool)> {
            vec![$(($name, <$type as super::Typed>::of($ident.definition.default).is_some())),+]
        }
    };
}

const fn integer(least: u64, most: u64, unit: &'static str) -> Kind {
    Kind::Integer { least, most, unit }
}

registry! {
    /// What a tenant may do: `on` is everything, `read_only` refuses its writes, `suspended` refuses all of its requests. Operators may
    /// still look at its data. `cairn admin tenant suspend` and `resume` set it.
    TENANT_ACCESS: &'static str = "tenant.access", Kind::Choice { of: &["on", "read_only", "suspended"] }, Value::Choice("on"), Tenants;
    /// How large a part of a node a tenant gets while others want it too, against their weights. Alone, it may use everything.
    TENANT_WEIGHT: u64 = "tenant.weight", integer(1, 10_000, ""), Value::Integer(100), Tenants;
    /// Most requests of a tenant per second on a node; 0: no ceiling. What comes faster waits up to a tenth of a second, then is refused.
    TENANT_REQUESTS_PER_S: u64 = "tenant.requests_per_s", integer(0, 10_000_000, "requests/s"), Value::Integer(0), Tenants;
    /// Most bytes of a tenant's requests per second on a node; 0: no ceiling. What comes faster waits up to a tenth of a second, then is
    /// refused.
    TENANT_BYTES_PER_S: u64 = "tenant.bytes_per_s", integer(0, 1 << 40, "bytes/s"), Value::Integer(0), Tenants;
    /// Most requests of a tenant that wait in a group's queue, reads and writes each; more are refused.
    TENANT_QUEUE_REQUESTS: u64 = "tenant.queue_requests", integer(1, 4096, "requests"), Value::Integer(1024), Tenants;
    /// Most bytes of a tenant's requests that wait in a group's queue, reads and writes each; more are refused.
    TENANT_QUEUE_BYTES: u64 = "tenant.queue_bytes", integer(8 << 20, 256 << 20, "bytes"), Value::Integer(8 << 20), Tenants;
    /// Writes of a group that a node works on at once; more wait, and tenants take turns. More of them make larger batches, and longer
    /// waits for everybody. A large write counts as several: one for each 8 operations and each 8 KiB.
    HOST_WRITES_IN_FLIGHT: u64 = "host.writes_in_flight", integer(1, 65_536, "writes"), Value::Integer(256), Nodes;
    /// Reads of a group that a node works on at once; more wait, and tenants take turns. A large read counts as several: one for each 64
    /// rows that it may return.
    HOST_READS_IN_FLIGHT: u64 = "host.reads_in_flight", integer(1, 65_536, "reads"), Value::Integer(256), Nodes;
    /// How fast a node reads what it has at rest to find rot, at most. `cairn admin scrub --rate` overrides it for one pass.
    SCRUB_BYTES_PER_S: u64 = "scrub.bytes_per_s", integer(64 << 10, 16 << 30, "bytes/s"), Value::Integer(16 << 20), Nodes;
    /// How long after the end of one reading of everything at rest a node begins the next; 0: only when `cairn admin scrub` asks.
    SCRUB_INTERVAL_S: u64 = "scrub.interval_s", integer(0, 10 * 365 * 86_400, "s"), Value::Integer(7 * 86_400), Nodes;
    /// How much of their groups' states the leaders of a node have compared a second, at most: every replica of a group reads that much.
    COMPARE_BYTES_PER_S: u64 = "compare.bytes_per_s", integer(4 << 10, 1 << 30, "bytes/s"), Value::Integer(4 << 20), Nodes;
    /// How long after a group began to compare the states of its replicas it begins again; 0: it does not compare them.
    COMPARE_INTERVAL_S: u64 = "compare.interval_s", integer(0, 10 * 365 * 86_400, "s"), Value::Integer(86_400), Nodes;
    /// How much all moves of shards together may copy in a second; 0: as much as the disks allow.
    SHARDS_MOVE_MIB_PER_S: u64 = "shards.move_mib_per_s", integer(0, 65_536, "MiB/s"), Value::Integer(64), Nodes;
    /// How many changes of shards are carried at a time. More do not copy faster, and let each shard stand still for longer.
    SHARDS_CHANGES_AT_ONCE: u64 = "shards.changes_at_once", integer(1, 256, "changes"), Value::Integer(12), Nodes;
    /// Whether the cluster evens loads by itself: tenants over groups, replicas over nodes, leaders by requests. `cairn admin balance
    /// --dry-run` shows what it would do. Leaders are evened by number in any case.
    BALANCE_ENABLED: bool = "balance.enabled", Kind::Flag, Value::Flag(false), Nodes;
    /// Whether the S3 door serves. `cairn admin service disable s3` and `enable` set it.
    SERVICE_S3: bool = "service.s3", Kind::Flag, Value::Flag(true), Tenants;
    /// Whether the door fs.v1 serves. `cairn admin service disable fs` and `enable` set it.
    SERVICE_FS: bool = "service.fs", Kind::Flag, Value::Flag(true), Tenants;
    /// Whether tenants' own keys may use the door metadb.v1. The other doors go on. `cairn admin service disable kv` and `enable` set it.
    SERVICE_KV: bool = "service.kv", Kind::Flag, Value::Flag(true), Tenants;
}

/// The setting with this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Definition> {
    DEFINITIONS.iter().find(|definition| definition.name == name).copied()
}
