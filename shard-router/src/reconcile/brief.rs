//! A step in a few words, for the log: what it does, and to which groups, nodes and tenants. The whole of it, with every address of every
//! voter of every group, takes kilobytes and tells no more.

use super::plan::Step;
use std::collections::BTreeSet;

/// What the ids are called in the records that a step holds.
const IDS: [(&str, &str); 3] = [("group_id: ", "groups"), ("node_id: ", "nodes"), ("tenant_id: ", "tenants")];
/// Most ids of a kind that are named; of more only the number is told.
const NAMED: usize = 16;

/// `DefineGroups groups 1 2 3 nodes 1 2 3`
pub(super) fn brief(step: &Step) -> String {
    shorten(&format!("{step:?}"))
}

fn shorten(told: &str) -> String {
    let mut words = vec![told.split([' ', '{']).next().unwrap_or_default().to_owned()];
    for (field, name) in IDS {
        let numbers = told.split(field).skip(1).map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
        let ids: BTreeSet<u64> = numbers.filter_map(|digits| digits.parse().ok()).collect();
        if ids.len() > NAMED {
            words.push(format!("{} {name}", ids.len()));
        } else if !ids.is_empty() {
            words.push(name.to_owned());
            words.extend(ids.iter().map(u64::to_string));
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use metadb_proto::v1::{GroupRecord, NodeRef};

    #[test]
    fn a_step_over_many_groups_is_one_short_line() {
        let voters: Vec<NodeRef> = (1..=3).map(|node_id| NodeRef { node_id, address: format!("10.0.0.{node_id}:7401") }).collect();
        let group = |group_id| GroupRecord { group_id, voters: voters.clone(), ..Default::default() };
        let step = |groups| Step::DefineGroups { groups };
        assert_eq!(brief(&step((1..=8).map(group).collect())), "DefineGroups groups 1 2 3 4 5 6 7 8 nodes 1 2 3");
        assert_eq!(brief(&step((1..=200).map(group).collect())), "DefineGroups 200 groups nodes 1 2 3");
        assert_eq!(brief(&Step::MoveLeader { group_id: 4, node_id: 2 }), "MoveLeader groups 4 nodes 2");
    }
}
