//! Pods: named rules over the labels of nodes, and which tenants are pinned to which.

use super::membership::{enough_in_pods, placement_level, read};
use super::nodes::decode;
use super::{Operator, check_tenant_name, counter, set_counter};
use crate::directory::number;
use crate::residency;
use crate::transaction::Transaction;
use metadb_proto::v1::{GroupRecord, LabelRule, PodRecord, ShardChangeRecord, TenantRecord, group_record, tenant_record};
use metadb_proto::{Error, directory, seam};
use prost::Message as _;
use std::collections::BTreeSet;
use std::time::Duration;

/// The counter that every order of a change of a shard writes, and every pin.
const PLACED: &str = "shard_change";
/// Most rules of a pod, and most values of one.
const RULES: usize = 16;
const VALUES: usize = 64;
/// Longest label, and longest value, in bytes.
const LABEL_BYTES: usize = 128;
/// When to ask again for a tenant that is being made.
const RETRY: Duration = Duration::from_millis(500);

impl Operator {
    /// All pods.
    ///
    /// # Errors
    /// As [`crate::Client::scan`].
    pub async fn pods(&self) -> Result<Vec<PodRecord>, Error> {
        self.all("pod").await
    }

    /// Makes a pod, or gives one that is there other rules.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], or [`Error::NotFound`] for one that shall be there; [`Error::Invalid`] for rules that are none, and
    /// for rules by which its groups would not have enough nodes.
    pub async fn put_pod(&self, name: &str, rules: &[LabelRule], is_new: bool) -> Result<PodRecord, Error> {
        check_tenant_name(name)?;
        check_rules(rules)?;
        let alive = self.membership().await?.alive();
        let alive = &alive;
        let put = self.directory().run(|tx| async move {
            let mut records = read(&tx).await?;
            placement_level(&records.cluster)?;
            let known = records.pods.iter().position(|pod| pod.name == name);
            let pod = match (known, is_new) {
                (Some(_), true) => return Err(Error::AlreadyExists { message: format!("pod {name:?}: `cairn admin pod set` changes it") }),
                (None, false) => return Err(Error::not_found(format!("pod {name:?}: `cairn admin pod list` shows them"))),
                (Some(known), false) => {
                    let pod = &mut records.pods[known];
                    pod.rules = rules.to_vec();
                    pod.clone()
                }
                (None, true) => PodRecord { name: name.to_owned(), rules: rules.to_vec(), created_at_ms: seam::unix_ms() },
            };
            enough_in_pods(&records, alive)?;
            tx.put(directory::pod_key(name), pod.encode_to_vec());
            Ok(pod)
        });
        put.await
    }

    /// Removes a pod that nothing belongs to.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] while groups belong to it, or tenants are pinned to it.
    pub async fn delete_pod(&self, name: &str) -> Result<(), Error> {
        let deleted = self.directory().run(|tx| async move {
            // Every pin and every order of a move writes it: none comes between the look and the end.
            counter(&tx, PLACED).await?;
            let tenants = self.tenants().await?.into_iter();
            let pinned: Vec<String> = tenants.filter(|tenant| tenant.pod == name).map(|tenant| tenant.name).collect();
            if let Some(first) = pinned.first() {
                let limit = "a pod that no tenant is pinned to: `cairn admin tenant unpin` or `pin` to another one first";
                return Err(Error::invalid("pod", limit, format!("{name:?}, with {} tenants, {first:?} among them", pinned.len())));
            }
            let key = directory::pod_key(name);
            if tx.get(key.clone()).await?.is_none() {
                return Err(Error::not_found(format!("pod {name:?}: `cairn admin pod list` shows them")));
            }
            let groups: Vec<u32> = read(&tx).await?.groups.iter().filter(|group| group.pod == name).map(|group| group.group_id).collect();
            if !groups.is_empty() {
                let limit = "a pod without groups: `cairn admin group set-pod GROUP --none` takes one out";
                return Err(Error::invalid("pod", limit, format!("{name:?}, with groups {groups:?}")));
            }
            tx.delete(key);
            Ok(())
        });
        deleted.await
    }

    /// Has a group belong to a pod, or to none.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a group or a pod that is not there; [`Error::Invalid`] if the pod has too few nodes, or if a tenant in the group
    /// is pinned to the pod that it is in.
    pub async fn set_group_pod(&self, group_id: u32, pod: &str) -> Result<(), Error> {
        let alive = self.membership().await?.alive();
        let alive = &alive;
        let set = self.directory().run(|tx| async move {
            // As above.
            counter(&tx, PLACED).await?;
            let pinned = self.pinned_in(group_id).await?;
            let mut records = read(&tx).await?;
            placement_level(&records.cluster)?;
            if group_id == directory::DIRECTORY_GROUP {
                return Err(Error::invalid("group", "a group of tenants; group 0 holds the directory", "0"));
            }
            if !pod.is_empty() && !records.pods.iter().any(|known| known.name == pod) {
                return Err(Error::not_found(format!("pod {pod:?}: `cairn admin pod list` shows them")));
            }
            let group = super::membership::find_group(&mut records, group_id)?;
            if let Some(tenant) = pinned.iter().find(|tenant| tenant.pod != pod) {
                let limit = format!("a group without shards of tenants that are pinned to {:?}: move or unpin them first", tenant.pod);
                return Err(Error::invalid("group", limit, format!("{group_id}, with {:?}", tenant.name)));
            }
            pod.clone_into(&mut group.pod);
            let (key, row) = (directory::group_key(group_id), group.encode_to_vec());
            enough_in_pods(&records, alive)?;
            tx.put(key, row);
            Ok(())
        });
        set.await
    }

    /// The tenants that are pinned somewhere and have a shard in a group.
    async fn pinned_in(&self, group_id: u32) -> Result<Vec<TenantRecord>, Error> {
        // In this order: a move that ends meanwhile is in one of them.
        let coming = self.changes(None).await?.into_iter().filter(|change| change.to_group_id == group_id).map(|change| change.tenant_id);
        let there = self.all_shards().await?.into_iter().filter(|shard| shard.group_id == group_id).map(|shard| shard.tenant_id);
        let there: BTreeSet<u64> = there.chain(coming).collect();
        Ok(self.tenants().await?.into_iter().filter(|tenant| !tenant.pod.is_empty() && there.contains(&tenant.tenant_id)).collect())
    }

    /// Pins a tenant to a pod, or to none. Its shards are not moved by this.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a tenant or a pod that is not there; [`Error::Invalid`] if no group of the pod could hold it;
    /// [`Error::Unavailable`] while it is made or deleted, and while a shard of it moves to where it may not be then.
    pub async fn pin_tenant(&self, name: &str, pod: &str) -> Result<TenantRecord, Error> {
        let pinned = self.directory().run(|tx| async move {
            let records = read(&tx).await?;
            placement_level(&records.cluster)?;
            let missing = || Error::not_found(format!("tenant {name:?}"));
            let id = tx.get(directory::tenant_name_key(name)).await?.ok_or_else(missing)?;
            let key = directory::tenant_key(number(&id).ok_or_else(missing)?);
            let mut tenant: TenantRecord = decode(&tx.get(key.clone()).await?.ok_or_else(missing)?, "tenant")?;
            if tenant.state() != tenant_record::State::Active {
                return Err(Error::unavailable(format!("tenant {name:?} is being made or deleted"), RETRY));
            }
            pod.clone_into(&mut tenant.pod);
            if !pod.is_empty() {
                if !records.pods.iter().any(|known| known.name == pod) {
                    return Err(Error::not_found(format!("pod {pod:?}: `cairn admin pod list` shows them")));
                }
                let mut active = records.groups.iter().filter(|group| group.state() == group_record::State::Active);
                if !active.any(|group| residency::is_for(group, &tenant)) {
                    let limit = format!("a pod with a group that takes tenants: `cairn admin group create --pod {pod}` makes one");
                    return Err(Error::invalid("pod", limit, format!("{pod:?}")));
                }
            }
            check_moves(&tx, &tenant, &records.groups).await?;
            let placed = counter(&tx, PLACED).await?;
            set_counter(&tx, PLACED, placed);
            tx.put(key, tenant.encode_to_vec());
            Ok(tenant)
        });
        pinned.await
    }
}

/// Whether no shard of a tenant is on its way to where it may not be.
async fn check_moves(tx: &Transaction, tenant: &TenantRecord, groups: &[GroupRecord]) -> Result<(), Error> {
    let (start, end) = directory::range_of(&("shard_change", tenant.tenant_id));
    for (_, row) in tx.scan(start, end, 0).await? {
        let change: ShardChangeRecord = decode(&row, "change of a shard")?;
        let to = groups.iter().find(|group| group.group_id == change.to_group_id);
        if to.is_some_and(|group| !residency::may_hold(group, tenant)) {
            let message = format!(
                "change {} moves a shard of tenant {:?} to group {}, where it may not be then: wait for its end, or `cairn admin shard cancel {}`",
                change.change_id, tenant.name, change.to_group_id, change.change_id
            );
            return Err(Error::unavailable(message, RETRY));
        }
    }
    Ok(())
}

fn check_rules(rules: &[LabelRule]) -> Result<(), Error> {
    if rules.is_empty() || rules.len() > RULES {
        return Err(Error::invalid("rules", format!("1 to {RULES}: a pod without any has no nodes"), rules.len().to_string()));
    }
    let fits = |text: &String| !text.is_empty() && text.len() <= LABEL_BYTES && text.chars().all(|c| !c.is_control());
    for rule in rules {
        if !fits(&rule.label) || rule.values.is_empty() || rule.values.len() > VALUES || !rule.values.iter().all(fits) {
            let limit = format!("a label and 1 to {VALUES} values, each 1 to {LABEL_BYTES} bytes of printable text");
            return Err(Error::invalid(
                "rule",
                limit,
                format!("{:?} with {} values", rule.label.chars().take(LABEL_BYTES).collect::<String>(), rule.values.len()),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_told_what_is_wrong_with_them() {
        let rule =
            |label: &str, values: &[&str]| LabelRule { label: label.into(), values: values.iter().map(ToString::to_string).collect() };
        check_rules(&[rule("pod", &["eu"]), rule("disk", &["ssd", "nvme"])]).expect("good");
        let long = "x".repeat(LABEL_BYTES + 1);
        let many = vec![rule("pod", &["eu"]); RULES + 1];
        for bad in [
            &[][..],
            &[rule("", &["eu"])],
            &[rule("pod", &[])],
            &[rule("pod", &[""])],
            &[rule("pod", &[&long])],
            &[rule("a\nb", &["c"])],
            &many,
        ] {
            assert!(matches!(check_rules(bad), Err(Error::Invalid { .. })), "{bad:?}");
        }
    }
}
