//! `cairn admin pod`: pools of nodes by their labels, for groups and for tenants that must be somewhere.

use crate::cli::connection::Session;
use crate::cli::time;
use crate::failure::{Code, Failure};
use crate::output::{self, Format, Output, Show};
use clap::{Args, Subcommand};
use metadb_proto::v1::{LabelRule, NodeRecord, PodRecord, node_record};
use serde::Serialize;
use shard_router::operator::Operator;
use shard_router::residency;
use std::collections::BTreeMap;

const EXAMPLES: &str = "\
Examples:
  cairn admin pod create eu                                       nodes with the label pod=eu
  cairn admin pod create eu --match data_centre=fra,ams --match disk=ssd
  cairn admin pod list
  cairn admin pod show eu
  cairn admin group create --pod eu                               then groups for it
  cairn admin tenant pin acme --pod eu                            and tenants

Nodes get labels in their settings: `[labels]` in node.toml, or `cairn node --labels pod=eu,data_centre=fra`.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Pod {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a pod.
    #[command(after_help = "Examples:\n  cairn admin pod create eu\n  cairn admin pod create eu --match data_centre=fra,ams")]
    Create {
        /// Its name.
        name: String,
        #[command(flatten)]
        rules: Rules,
    },
    /// Give a pod other rules: replicas on nodes that do not fit any more move. Refused if its groups would have too few nodes.
    #[command(after_help = "Examples:\n  cairn admin pod set eu --match data_centre=fra,ams,par")]
    Set {
        /// Its name.
        name: String,
        #[command(flatten)]
        rules: Rules,
    },
    /// List the pods.
    #[command(after_help = "Examples:\n  cairn admin pod list\n  cairn admin pod list -o json")]
    List,
    /// Show a pod: its rules, nodes, groups and tenants, and what is not where it shall be.
    #[command(after_help = "Examples:\n  cairn admin pod show eu\n  cairn admin pod show eu -o yaml")]
    Show {
        /// Its name.
        name: String,
    },
    /// Remove a pod that no group belongs to and no tenant is pinned to.
    #[command(after_help = "Examples:\n  cairn admin pod delete eu")]
    Delete {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, Args)]
struct Rules {
    /// A label and the values that it may have, by commas; several must all fit. Without any: pod=NAME, as settings know a pod.
    #[arg(long = "match", value_name = "LABEL=VALUE[,VALUE]", value_parser = rule)]
    rules: Vec<LabelRule>,
}

impl Rules {
    fn of(self, name: &str) -> Vec<LabelRule> {
        if self.rules.is_empty() { vec![LabelRule { label: "pod".to_owned(), values: vec![name.to_owned()] }] } else { self.rules }
    }
}

fn rule(text: &str) -> Result<LabelRule, String> {
    let (label, values) = text.split_once('=').ok_or("a label, `=`, and values by commas, as in disk=ssd,nvme")?;
    Ok(LabelRule { label: label.to_owned(), values: values.split(',').map(str::to_owned).collect() })
}

/// A pod, as it is printed.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    rules: BTreeMap<String, Vec<String>>,
    nodes: Vec<u64>,
    groups: Vec<u32>,
    tenants: Vec<String>,
    created: String,
    /// What is not where it shall be, and what may surprise.
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Rows(Vec<Row>);

impl Show for Rows {
    fn columns(&self) -> Vec<&'static str> {
        vec!["POD", "NODES WITH", "NODES", "GROUPS", "TENANTS", "CREATED"]
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |pod: &Row| {
            let rules = pod.rules.iter().map(|(label, values)| format!("{label}={}", values.join(","))).collect::<Vec<_>>().join(" ");
            let nodes = pod.nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            let groups = pod.groups.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            vec![pod.name.clone(), rules, nodes, groups, pod.tenants.len().to_string(), pod.created.clone()]
        };
        self.0.iter().map(row).collect()
    }

    fn empty(&self) -> &'static str {
        "no pods; `cairn admin pod create NAME` makes one"
    }
}

impl Pod {
    pub(super) async fn run(self, session: &Session, output: Output) -> Result<(), Failure> {
        let operator = session.operator();
        match self.verb {
            Verb::Create { name, rules } => put(&operator, output, &name, rules, true).await,
            Verb::Set { name, rules } => put(&operator, output, &name, rules, false).await,
            Verb::List => output.show(&Rows(rows(&operator, operator.pods().await?).await?)),
            Verb::Show { name } => show(&operator, output, &name).await,
            Verb::Delete { name } => {
                operator.delete_pod(&name).await?;
                output.done(&format!("deleted pod {name}"), &serde_json::json!({ "deleted": name }))
            }
        }
    }
}

async fn put(operator: &Operator, output: Output, name: &str, rules: Rules, is_new: bool) -> Result<(), Failure> {
    let pod = operator.put_pod(name, &rules.of(name), is_new).await?;
    let row = rows(operator, vec![pod]).await?.remove(0);
    let has = format!("pod {name} has nodes {:?}", row.nodes);
    let next = if is_new { format!("{has}; next: `cairn admin group create --pod {name}`") } else { has };
    output.done(&next, &row)
}

async fn show(operator: &Operator, output: Output, name: &str) -> Result<(), Failure> {
    let missing = || Failure::new(Code::NotFound, format!("no pod {name}")).hint("`cairn admin pod list` shows the pods");
    let pod = operator.pods().await?.into_iter().find(|pod| pod.name == name).ok_or_else(missing)?;
    let shown = Rows(rows(operator, vec![pod]).await?);
    output.show(&shown)?;
    if output.format == Format::Table {
        for row in &shown.0 {
            output::line(&format!("tenants: {}", if row.tenants.is_empty() { "none".to_owned() } else { row.tenants.join(" ") }))?;
            row.notes.iter().try_for_each(|note| output::line(note))?;
        }
    }
    Ok(())
}

async fn rows(operator: &Operator, pods: Vec<PodRecord>) -> Result<Vec<Row>, Failure> {
    let (nodes, groups, tenants) = (operator.nodes().await?, operator.groups().await?, operator.tenants().await?);
    let nodes: Vec<NodeRecord> = nodes.into_iter().filter(|node| node.state() != node_record::State::Removed).collect();
    let shards = operator.all_shards().await?;
    let row = |pod: PodRecord| {
        let inside: Vec<&NodeRecord> = nodes.iter().filter(|node| residency::is_in(node, &pod)).collect();
        let of_pod: Vec<_> = groups.iter().filter(|group| group.pod == pod.name).collect();
        let pinned: Vec<_> = tenants.iter().filter(|tenant| tenant.pod == pod.name).collect();
        let mut notes = Vec::new();
        for group in &of_pod {
            let outside = |id: u64| !inside.iter().any(|node| id_of(node) == id);
            for voter in group.voters.iter().chain(&group.learners).filter(|node| outside(node.node_id)) {
                notes.push(format!("group {} is still on node {}, outside of the pod", group.group_id, voter.node_id));
            }
        }
        for tenant in &pinned {
            let astray = |group_id: u32| !groups.iter().any(|group| group.group_id == group_id && residency::may_hold(group, tenant));
            let count = shards.iter().filter(|shard| shard.tenant_id == tenant.tenant_id && astray(shard.group_id)).count();
            if count > 0 {
                let how = format!("`cairn admin tenant pin {} --pod {}` moves them", tenant.name, pod.name);
                notes.push(format!("{count} shards of tenant {} are still in groups outside of the pod: {how}", tenant.name));
            }
        }
        for node in inside.iter().filter(|node| node.labels.get("pod") != Some(&pod.name)) {
            let id = id_of(node);
            notes.push(format!("settings of pod {0} do not hold on node {id}: they go by the label pod={0}, which it has not", pod.name));
        }
        Row {
            rules: pod.rules.into_iter().map(|rule| (rule.label, rule.values)).collect(),
            nodes: inside.iter().map(|node| id_of(node)).collect(),
            groups: of_pod.iter().map(|group| group.group_id).collect(),
            tenants: pinned.iter().map(|tenant| tenant.name.clone()).collect(),
            created: time(pod.created_at_ms),
            name: pod.name,
            notes,
        }
    };
    Ok(pods.into_iter().map(row).collect())
}

fn id_of(record: &NodeRecord) -> u64 {
    record.node.as_ref().map_or(0, |node| node.node_id)
}

/// `cairn admin group set-pod`.
pub(super) async fn set_group(session: &Session, output: Output, group: u32, pod: &str) -> Result<(), Failure> {
    session.operator().set_group_pod(group, pod).await?;
    let told = serde_json::json!({ "group": group, "pod": if pod.is_empty() { None } else { Some(pod) } });
    let sentence = if pod.is_empty() {
        format!("group {group} belongs to no pod; its replicas stay where they are")
    } else {
        format!("group {group} belongs to pod {pod}; its replicas move to nodes of it by themselves: `cairn admin pod show {pod}`")
    };
    output.done(&sentence, &told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_labels_and_values() {
        let two = rule("disk=ssd,nvme").expect("a rule");
        assert_eq!((two.label.as_str(), two.values), ("disk", vec!["ssd".to_owned(), "nvme".to_owned()]));
        assert!(rule("disk").is_err());
        let of_name = Rules { rules: Vec::new() }.of("eu");
        assert_eq!((of_name[0].label.as_str(), of_name[0].values.as_slice()), ("pod", &["eu".to_owned()][..]));
    }
}
