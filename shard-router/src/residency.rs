//! Where replicas and shards may be: the rules that no plan and no operator's order breaks.
//!
//! A pod is a pool of nodes, told by their labels. A group of a pod has its replicas on the nodes of the pod. A tenant that is pinned to a
//! pod has its shards in groups of that pod; any other tenant may be anywhere. A group may be one tenant's own.
//!
//! Not here: what a node may be given by its state (`reconcile::office`).

use metadb_proto::v1::{GroupRecord, NodeRecord, PodRecord, TenantRecord};
use metadb_proto::{Error, directory};

/// Whether a node belongs to a pod.
#[must_use]
pub fn is_in(node: &NodeRecord, pod: &PodRecord) -> bool {
    let fits = |rule: &metadb_proto::v1::LabelRule| node.labels.get(&rule.label).is_some_and(|value| rule.values.contains(value));
    !pod.rules.is_empty() && pod.rules.iter().all(fits)
}

/// Whether a group may have a replica on a node. A pod that is not known has no nodes.
#[must_use]
pub fn may_be_on(group: &GroupRecord, node: &NodeRecord, pods: &[PodRecord]) -> bool {
    group.pod.is_empty() || pods.iter().find(|pod| pod.name == group.pod).is_some_and(|pod| is_in(node, pod))
}

/// Whether a tenant's shards may be in a group.
#[must_use]
pub fn may_hold(group: &GroupRecord, tenant: &TenantRecord) -> bool {
    let is_free = group.own_of_tenant == 0 || group.own_of_tenant == tenant.tenant_id;
    group.group_id != directory::DIRECTORY_GROUP && is_free && (tenant.pod.is_empty() || tenant.pod == group.pod)
}

/// Whether a tenant's shards are put into a group without anybody having named it: tenants of no pod go to groups of none.
#[must_use]
pub fn is_for(group: &GroupRecord, tenant: &TenantRecord) -> bool {
    may_hold(group, tenant) && group.pod == tenant.pod
}

/// The same as [`may_hold`], with what to do instead.
pub(crate) fn check_hold(group: &GroupRecord, tenant: &TenantRecord) -> Result<(), Error> {
    if may_hold(group, tenant) {
        return Ok(());
    }
    let (name, id) = (&tenant.name, group.group_id);
    if group.own_of_tenant != 0 && group.own_of_tenant != tenant.tenant_id {
        let limit = format!("a group that is not another tenant's own; `cairn admin group list` shows them, for {name:?}");
        return Err(Error::invalid("to_group_id", limit, format!("{id}, which is tenant {}'s own", group.own_of_tenant)));
    }
    let limit = format!(
        "a group of pod {pod:?}, which tenant {name:?} is pinned to: `cairn admin group list` shows them, `cairn admin group create --pod {pod}` makes one, \
         `cairn admin tenant pin` or `unpin` changes where it may be",
        pod = tenant.pod
    );
    let is = if group.pod.is_empty() { "of no pod".to_owned() } else { format!("of pod {:?}", group.pod) };
    Err(Error::invalid("to_group_id", limit, format!("{id}, {is}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use metadb_proto::v1::LabelRule;

    fn rule(label: &str, values: &[&str]) -> LabelRule {
        LabelRule { label: label.into(), values: values.iter().map(ToString::to_string).collect() }
    }

    fn node(labels: &[(&str, &str)]) -> NodeRecord {
        NodeRecord { labels: labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(), ..Default::default() }
    }

    #[test]
    fn a_node_is_in_a_pod_if_all_rules_fit() {
        let pod =
            PodRecord { name: "eu".into(), rules: vec![rule("region", &["fra", "ams"]), rule("disk", &["ssd"])], ..Default::default() };
        assert!(is_in(&node(&[("region", "ams"), ("disk", "ssd"), ("rack", "7")]), &pod));
        for labels in [&[("region", "iad"), ("disk", "ssd")][..], &[("region", "ams")], &[]] {
            assert!(!is_in(&node(labels), &pod), "{labels:?}");
        }
        assert!(!is_in(&node(&[]), &PodRecord { name: "no rules".into(), ..Default::default() }));
        let group = GroupRecord { group_id: 1, pod: "eu".into(), ..Default::default() };
        assert!(!may_be_on(&group, &node(&[]), &[]), "a pod that is not known");
        assert!(may_be_on(&GroupRecord::default(), &node(&[]), &[]));
    }

    #[test]
    fn a_pinned_tenant_is_in_groups_of_its_pod_only_and_nobody_in_another_ones_own() {
        let group = |pod: &str, own_of_tenant| GroupRecord { group_id: 3, pod: pod.into(), own_of_tenant, ..Default::default() };
        let tenant = |tenant_id, pod: &str| TenantRecord { tenant_id, name: "acme".into(), pod: pod.into(), ..Default::default() };
        let holds = |group: &GroupRecord, tenant: &TenantRecord| (may_hold(group, tenant), is_for(group, tenant));
        assert_eq!(holds(&group("eu", 0), &tenant(7, "eu")), (true, true));
        assert_eq!(holds(&group("us", 0), &tenant(7, "eu")), (false, false));
        assert_eq!(holds(&group("", 0), &tenant(7, "eu")), (false, false));
        assert_eq!(holds(&group("eu", 0), &tenant(7, "")), (true, false), "by order, and not by itself");
        assert_eq!(holds(&group("eu", 7), &tenant(7, "eu")), (true, true));
        assert_eq!(holds(&group("eu", 8), &tenant(7, "eu")), (false, false));
        assert_eq!(holds(&GroupRecord::default(), &tenant(7, "")), (false, false), "the directory");
        let told = check_hold(&group("us", 0), &tenant(7, "eu")).expect_err("refused").to_string();
        assert!(told.contains("pod \"eu\"") && told.contains("group create --pod eu"), "{told}");
        let told = check_hold(&group("eu", 8), &tenant(7, "eu")).expect_err("refused").to_string();
        assert!(told.contains("tenant 8's own"), "{told}");
    }
}
