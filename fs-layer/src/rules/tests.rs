//! The rules against a naive model of a tree: what they allow keeps it a tree, what they refuse would not.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const ROOT: u64 = 1;

/// A namespace in memory: `(parent, name)` → node.
#[derive(Debug, Clone, Default)]
struct Model {
    entries: BTreeMap<(u64, String), (u64, NodeKind)>,
}

impl Model {
    fn kind(&self, id: u64) -> NodeKind {
        self.entries.values().find(|(node, _)| *node == id).map_or(NodeKind::Tree, |(_, kind)| *kind)
    }

    fn parent(&self, id: u64) -> Option<u64> {
        self.entries.iter().find(|(_, (node, _))| *node == id).map(|((parent, _), _)| *parent)
    }

    fn above(&self, mut id: u64) -> Vec<u64> {
        let mut ids = vec![id];
        while let Some(parent) = self.parent(id) {
            ids.push(parent);
            id = parent;
        }
        ids
    }

    /// Every node is reached from the root, once, and only folders hold something.
    fn is_a_tree(&self) -> bool {
        let (mut seen, mut open) = (BTreeSet::new(), vec![ROOT]);
        while let Some(folder) = open.pop() {
            if !seen.insert(folder) {
                return false;
            }
            open.extend(self.entries.iter().filter(|((parent, _), _)| *parent == folder).map(|(_, (id, _))| *id));
        }
        let folders_only = self.entries.iter().all(|((parent, _), (_, kind))| match self.kind(*parent) {
            NodeKind::Tree => true,
            NodeKind::Flat => *kind == NodeKind::File,
            NodeKind::File => false,
        });
        seen.len() == self.entries.len() + 1 && folders_only
    }
}

fn entry(parent: u64, name: &str, (id, kind): (u64, NodeKind)) -> Entry {
    Entry { parent, name: name.into(), id, kind, size: 0, version: 1, etag: String::new(), content_type: String::new(), modified_at_ms: 0 }
}

#[derive(Debug, Clone)]
enum Step {
    Make(usize, u8, NodeKind),
    Rename(usize, usize, u8, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let kinds = prop::sample::select(vec![NodeKind::Tree, NodeKind::Tree, NodeKind::Tree, NodeKind::Flat, NodeKind::File]);
    prop_oneof![
        (any::<usize>(), 0u8..3, kinds).prop_map(|(at, name, kind)| Step::Make(at, name, kind)),
        (any::<usize>(), any::<usize>(), 0u8..3, any::<bool>()).prop_map(|(from, to, name, replace)| Step::Rename(from, to, name, replace)),
    ]
}

fn try_rename(model: &mut Model, from: usize, to: usize, name: &str, replace: bool) {
    let Some(((from_parent, from_name), node)) = model.entries.iter().nth(from % model.entries.len().max(1)).map(|(k, v)| (k.clone(), *v))
    else {
        return;
    };
    let folders: Vec<u64> =
        std::iter::once(ROOT).chain(model.entries.values().filter(|(_, k)| *k != NodeKind::File).map(|(id, _)| *id)).collect();
    let to_parent = folders[to % folders.len()];
    let to_kind = model.kind(to_parent).folder().expect("a folder");
    let source = entry(from_parent, &from_name, node);
    let target = model.entries.get(&(to_parent, name.to_owned())).map(|node| entry(to_parent, name, *node));
    let target_empty = target.as_ref().is_some_and(|target| !model.entries.keys().any(|(parent, _)| *parent == target.id));
    let decided = rename(&Rename {
        source: &source,
        from: Place { parent: from_parent, name: &from_name, canonical: &from_name },
        to: Place { parent: to_parent, name, canonical: name },
        to_kind,
        target: target.as_ref(),
        target_empty,
        replace,
        ancestors: &model.above(to_parent),
    });
    let mut after = model.clone();
    after.entries.remove(&(from_parent, from_name.clone()));
    let displaced = after.entries.insert((to_parent, name.to_owned()), node);
    match decided {
        Ok(Renaming::Nothing) => assert_eq!((from_parent, from_name.as_str()), (to_parent, name)),
        Ok(Renaming::Respell) => panic!("names are spelled one way here"),
        Ok(Renaming::Move | Renaming::Replace) => {
            assert!(after.is_a_tree(), "{source:?} to {name} in {to_parent}");
            assert!(displaced.is_none_or(|(_, kind)| replace && kind == node.1));
            *model = after;
        }
        Err(Error::AlreadyExists { .. }) => assert!(displaced.is_some() && !replace),
        Err(Error::Invalid { .. }) => assert!(!after.is_a_tree() || displaced.is_some_and(|(_, kind)| kind != node.1 || !target_empty)),
        Err(other) => panic!("{other}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn what_is_allowed_keeps_the_tree_a_tree(steps in prop::collection::vec(step(), 1..60)) {
        let (mut model, mut next) = (Model::default(), ROOT + 1);
        for step in steps {
            match step {
                Step::Make(at, name, kind) => {
                    let folders: Vec<u64> = std::iter::once(ROOT).chain(model.entries.values().filter(|(_, k)| *k == NodeKind::Tree).map(|(id, _)| *id)).collect();
                    model.entries.entry((folders[at % folders.len()], name.to_string())).or_insert((next, kind));
                    next += 1;
                }
                Step::Rename(from, to, name, replace) => try_rename(&mut model, from, to, &name.to_string(), replace),
            }
            prop_assert!(model.is_a_tree());
        }
    }
}

#[test]
fn preconditions_say_what_they_met() {
    let place = Place { parent: 1, name: "n", canonical: "n" };
    let mut file = entry(1, "n", (2, NodeKind::File));
    file.etag = "e".into();
    let folder = entry(1, "n", (2, NodeKind::Tree));
    assert!(check(&Precondition::None, place, None).is_ok() && check(&Precondition::Absent, place, None).is_ok());
    assert!(
        check(&Precondition::VersionIs(1), place, Some(&file)).is_ok()
            && check(&Precondition::EtagIs("e".into()), place, Some(&file)).is_ok()
    );
    assert!(matches!(check(&Precondition::Absent, place, Some(&folder)), Err(Error::AlreadyExists { .. })));
    for entry in [None, Some(&folder)] {
        assert!(matches!(check(&Precondition::EtagIs("e".into()), place, entry), Err(Error::NotFound { .. })));
    }
    for precondition in [Precondition::VersionIs(2), Precondition::EtagIs("f".into())] {
        assert!(crate::error::is_precondition_failed(&check(&precondition, place, Some(&file)).expect_err("does not hold")));
    }
}
