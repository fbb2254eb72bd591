//! Keys of the directory: tenant 0, one shard, always in group 0. Values are the records of `directory.proto`.
//!
//! | key | value |
//! | --- | --- |
//! | `("cluster")` | `ClusterRecord` |
//! | `("counter", name)` | the last id given out, 8 big-endian bytes |
//! | `("group", group id)` | `GroupRecord` |
//! | `("key", access key id)` | `KeyRecord` |
//! | `("node", node id)` | `NodeRecord` |
//! | `("pod", name)` | `PodRecord` |
//! | `("setting", scope kind, scope id, name)` | `SettingRecord` |
//! | `("setting_history", name, revision)` | `SettingChange` |
//! | `("shard", tenant id, start)` | `ShardRecord` |
//! | `("shard_change", tenant id, start)` | `ShardChangeRecord`, until the change is done |
//! | `("shard_history", tenant id, change id)` | `ShardHistoryRecord` |
//! | `("tenant", tenant id)` | `TenantRecord` |
//! | `("tenant_name", name)` | the tenant id, 8 big-endian bytes |
//! | `("tenant_unfinished", tenant id)` | the tenant id, 8 big-endian bytes, while it is made or deleted |

pub use crate::principal::DIRECTORY_TENANT;
use crate::{tuple, v1};

/// The group that is the directory.
pub const DIRECTORY_GROUP: u32 = 0;
/// Epoch of the directory's only shard.
pub const DIRECTORY_EPOCH: u64 = 1;
/// The counter that rises with every change of a setting: nodes look at it to learn whether to read them again.
pub const SETTINGS_COUNTER: &str = "settings";

/// The cluster's own record.
#[must_use]
pub fn cluster_key() -> Vec<u8> {
    tuple::pack(&("cluster",))
}

/// The counter that ids of a kind are drawn from: `node`, `group`, `tenant`. That of [`SETTINGS_COUNTER`] is the revision of all settings.
#[must_use]
pub fn counter_key(name: &str) -> Vec<u8> {
    tuple::pack(&("counter", name))
}

/// A group's record.
#[must_use]
pub fn group_key(group_id: u32) -> Vec<u8> {
    tuple::pack(&("group", group_id))
}

/// A credential's record.
#[must_use]
pub fn access_key_key(access_key_id: &str) -> Vec<u8> {
    tuple::pack(&("key", access_key_id))
}

/// A node's record.
#[must_use]
pub fn node_key(node_id: u64) -> Vec<u8> {
    tuple::pack(&("node", node_id))
}

/// A pod's record.
#[must_use]
pub fn pod_key(name: &str) -> Vec<u8> {
    tuple::pack(&("pod", name))
}

/// A setting's value for a scope.
#[must_use]
pub fn setting_key(scope: &v1::SettingScope, name: &str) -> Vec<u8> {
    tuple::pack(&("setting", scope.kind, scope.id.as_str(), name))
}

/// One change of a setting.
#[must_use]
pub fn setting_history_key(name: &str, revision: u64) -> Vec<u8> {
    tuple::pack(&("setting_history", name, revision))
}

/// A shard's record.
#[must_use]
pub fn shard_key(tenant_id: u64, start: &[u8]) -> Vec<u8> {
    tuple::pack(&("shard", tenant_id, start))
}

/// A change of a shard that is not done.
#[must_use]
pub fn shard_change_key(tenant_id: u64, start: &[u8]) -> Vec<u8> {
    tuple::pack(&("shard_change", tenant_id, start))
}

/// A change of a shard that ended.
#[must_use]
pub fn shard_history_key(tenant_id: u64, change_id: u64) -> Vec<u8> {
    tuple::pack(&("shard_history", tenant_id, change_id))
}

/// A tenant's record.
#[must_use]
pub fn tenant_key(tenant_id: u64) -> Vec<u8> {
    tuple::pack(&("tenant", tenant_id))
}

/// The index from a tenant's name to its id.
#[must_use]
pub fn tenant_name_key(name: &str) -> Vec<u8> {
    tuple::pack(&("tenant_name", name))
}

/// The mark of a tenant that is being made or deleted: it comes and goes in the transactions that change the tenant's state.
#[must_use]
pub fn tenant_unfinished_key(tenant_id: u64) -> Vec<u8> {
    tuple::pack(&("tenant_unfinished", tenant_id))
}

/// All keys whose tuple begins with `prefix`: from the first, inclusive, to the second, exclusive.
pub fn range_of<T: tuple::TuplePack>(prefix: &T) -> (Vec<u8>, Vec<u8>) {
    let start = tuple::pack(prefix);
    let mut end = start.clone();
    end.push(0xff);
    (start, end)
}

/// The range of all records of a kind: `group`, `key`, `node`, `pod`, `setting`, `setting_history`, `shard`, `shard_change`, `shard_history`, `tenant`,
/// `tenant_name`, `tenant_unfinished`.
#[must_use]
pub fn records(kind: &str) -> (Vec<u8>, Vec<u8>) {
    range_of(&(kind,))
}

impl std::fmt::Debug for v1::KeyRecord {
    /// All but the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyRecord")
            .field("access_key_id", &self.access_key_id)
            .field("role", &self.role())
            .field("tenant_id", &self.tenant_id)
            .field("description", &self.description)
            .field("created_at_ms", &self.created_at_ms)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_shown_without_its_secret() {
        let key = v1::KeyRecord { access_key_id: "AK".into(), secret: "hunter2".into(), ..v1::KeyRecord::default() };
        let shown = format!("{key:?} {:?}", Some(&key));
        assert!(shown.contains("AK") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn kinds_do_not_reach_into_each_other() {
        let (start, end) = records("tenant");
        assert!(tenant_key(u64::MAX) >= start && tenant_key(u64::MAX) < end);
        assert!(!(tenant_name_key("a") >= start && tenant_name_key("a") < end));
    }

    #[test]
    fn shards_of_a_tenant_sort_by_start() {
        assert!(
            shard_key(1, b"") < shard_key(1, b"\0")
                && shard_key(1, b"\0") < shard_key(1, b"a")
                && shard_key(1, b"\xff\xff") < shard_key(2, b"")
        );
    }
}
