//! Style is a test: what a reader relies on everywhere, and no compiler holds.
//!
//! Arrows between crates, the length of files, the purpose at the top of each, names that say nothing, work left undone, dead links.
//! See docs/ARCHITECTURE.md for the arrows and why they point as they do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Longest source file, in lines without its tests. The goal is 500.
const FILE_LINES: usize = 600;
/// Shortest charter of a crate, in bytes of `//!` lines: what it is, and what it leaves to whom.
const CHARTER_BYTES: usize = 150;

/// Who may depend on whom. `build` and plain dependencies; a crate not named here may not exist.
const ARROWS: &[(&str, &[&str])] = &[
    ("metadb-telemetry", &[]),
    ("metadb-proto", &[]),
    ("metadb-engine", &["metadb-telemetry"]),
    ("metadb", &["metadb-proto", "metadb-engine", "metadb-telemetry"]),
    ("shard-router", &["metadb-proto", "metadb-telemetry"]),
    ("fs-layer", &["shard-router", "metadb-proto", "metadb-telemetry"]),
    ("object-gateway", &["fs-layer", "shard-router", "metadb-proto", "metadb-telemetry"]),
    ("cairn", &["object-gateway", "fs-layer", "shard-router", "metadb-proto", "metadb", "metadb-engine", "metadb-telemetry", "jepsen"]),
    ("checkers", &[]),
    ("sim-tests", &["metadb", "metadb-engine", "metadb-proto", "shard-router", "fs-layer", "checkers"]),
    ("jepsen", &["checkers", "metadb-proto", "shard-router"]),
    ("cairn-benches", &["jepsen", "metadb-proto", "shard-router"]),
];
/// What tests may use beyond that: a real server to talk to. None of these makes an arrow in a built binary.
const TEST_ARROWS: &[(&str, &[&str])] = &[
    ("shard-router", &["metadb", "metadb-engine"]),
    ("fs-layer", &["metadb", "metadb-engine"]),
    ("object-gateway", &["metadb", "metadb-engine"]),
    ("cairn", &["checkers"]),
];
/// Libraries that only one crate may know, so that they can be exchanged there.
const OWNED: &[(&str, &[&str])] =
    &[("rocksdb", &["metadb-engine"]), ("openraft", &["metadb"]), ("s3s", &["object-gateway"]), ("foundationdb-tuple", &["metadb-proto"])];
/// Names of modules that say nothing.
const EMPTY_NAMES: &[&str] = &["util", "utils", "common", "misc", "types", "helpers"];
/// Marks of work left undone; in two halves, so that this file does not hold them.
const UNDONE: &[(&str, &str)] = &[("TO", "DO"), ("FIX", "ME"), ("XX", "X")];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of the project whose name ends so, with its text.
fn files(ends: &[&str]) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the project") {
            let path = entry.expect("its entry").path();
            let name = path.file_name().expect("entries have names").to_string_lossy().into_owned();
            if path.is_dir() && !["target", ".git", "node_modules", "cairn-data"].contains(&name.as_str()) {
                folders.push(path);
            } else if path.is_file() && ends.iter().any(|end| name.ends_with(end)) {
                let text = std::fs::read_to_string(&path).expect("source is text");
                found.push((path.strip_prefix(root()).expect("below the root").to_owned(), text));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no files end in {ends:?}");
    found
}

#[track_caller]
fn none(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

struct Manifest {
    dependencies: BTreeSet<String>,
    dev_dependencies: BTreeSet<String>,
}

/// Name to manifest of every crate of the workspace.
fn manifests() -> BTreeMap<String, Manifest> {
    let mut all = BTreeMap::new();
    for (path, text) in files(&["Cargo.toml"]) {
        let manifest: toml::Table = text.parse().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let Some(name) = manifest.get("package").and_then(|p| p.get("name")).and_then(toml::Value::as_str) else { continue };
        let targets = manifest.get("target").and_then(toml::Value::as_table);
        let tables =
            || std::iter::once(&manifest).chain(targets.into_iter().flat_map(toml::Table::values).filter_map(toml::Value::as_table));
        let names = |kind: &str| -> BTreeSet<String> {
            tables().filter_map(|t| t.get(kind).and_then(toml::Value::as_table)).flat_map(|t| t.keys().cloned()).collect()
        };
        let dependencies = &names("dependencies") | &names("build-dependencies");
        all.insert(name.to_owned(), Manifest { dependencies, dev_dependencies: names("dev-dependencies") });
    }
    all
}

fn allowed(table: &[(&str, &[&str])], name: &str) -> BTreeSet<String> {
    table.iter().filter(|(from, _)| *from == name).flat_map(|(_, to)| to.iter().map(ToString::to_string)).collect()
}

#[test]
fn arrows_point_one_way() {
    let crates = manifests();
    let mut problems = Vec::new();
    for (name, manifest) in &crates {
        if !ARROWS.iter().any(|(from, _)| from == name) {
            problems.push(format!("crate {name} has no place among the arrows"));
        }
        let (plain, tests) = (allowed(ARROWS, name), allowed(TEST_ARROWS, name));
        for to in manifest.dependencies.iter().filter(|to| crates.contains_key(*to)) {
            if !plain.contains(to) {
                problems.push(format!("{name} may not depend on {to}"));
            }
        }
        for to in manifest.dev_dependencies.iter().filter(|to| crates.contains_key(*to)) {
            if !plain.contains(to) && !tests.contains(to) {
                problems.push(format!("tests of {name} may not depend on {to}"));
            }
        }
    }
    none(&problems);
}

#[test]
fn a_client_never_links_the_storage_engine() {
    let crates = manifests();
    for client in ["shard-router", "fs-layer", "object-gateway"] {
        let mut reached = BTreeSet::from([client.to_owned()]);
        let mut open = vec![client.to_owned()];
        while let Some(name) = open.pop() {
            for to in crates[&name].dependencies.iter().filter(|to| crates.contains_key(*to)) {
                if reached.insert(to.clone()) {
                    open.push(to.clone());
                }
            }
        }
        assert!(!reached.contains("metadb-engine") && !reached.contains("metadb"), "{client} links {reached:?}");
    }
}

#[test]
fn libraries_that_may_change_are_known_to_one_crate() {
    let mut problems = Vec::new();
    for (name, manifest) in manifests() {
        for (library, owners) in OWNED {
            if manifest.dependencies.contains(*library) && !owners.contains(&name.as_str()) {
                problems.push(format!("{name} depends on {library}, which only {owners:?} may"));
            }
        }
    }
    none(&problems);
}

fn is_test_file(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "tests.rs" || name.to_string_lossy().ends_with("_tests.rs"))
        || path.components().any(|part| part.as_os_str() == "tests")
}

#[test]
fn files_are_short() {
    let mut problems = Vec::new();
    for (path, text) in files(&[".rs"]) {
        let lines = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
        if lines > FILE_LINES && !is_test_file(&path) {
            problems.push(format!("{}: {lines} lines without tests, may have {FILE_LINES}", path.display()));
        }
    }
    none(&problems);
}

#[test]
fn every_file_opens_with_its_purpose() {
    let mut problems = Vec::new();
    for (path, text) in files(&[".rs"]) {
        if !text.starts_with("//! ") {
            problems.push(format!("{}: does not start with `//! ` and why it is there", path.display()));
        }
    }
    none(&problems);
}

#[test]
fn every_crate_has_a_charter() {
    let mut problems = Vec::new();
    for (path, text) in files(&["lib.rs"]) {
        let charter: usize = text.lines().take_while(|line| line.starts_with("//!")).map(str::len).sum();
        if path.ends_with("src/lib.rs") && charter < CHARTER_BYTES {
            problems.push(format!("{}: its charter must say what the crate is and what it leaves to whom", path.display()));
        }
    }
    none(&problems);
}

#[test]
fn names_say_something_and_nothing_is_left_undone() {
    let mut problems = Vec::new();
    for (path, text) in files(&[".rs", ".proto", ".toml", ".md", ".py", ".sh", "Makefile"]) {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let folder = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        if EMPTY_NAMES.contains(&&*name) || EMPTY_NAMES.contains(&&*folder) {
            problems.push(format!("{}: a name that says nothing", path.display()));
        }
        for (number, line) in text.lines().enumerate() {
            let word = |mark: &str| line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == mark);
            if UNDONE.iter().any(|(a, b)| word(&format!("{a}{b}"))) {
                problems.push(format!("{}:{}: work left undone", path.display(), number + 1));
            }
            let module =
                line.trim_start().trim_start_matches("pub ").strip_prefix("mod ").map(|rest| rest.trim_end_matches([';', '{', ' ']));
            if path.extension().is_some_and(|e| e == "rs") && module.is_some_and(|m| EMPTY_NAMES.contains(&m)) {
                problems.push(format!("{}:{}: a module name that says nothing", path.display(), number + 1));
            }
        }
    }
    none(&problems);
}

/// Targets of `[text](target)` outside code.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            found.extend(line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next()).map(str::to_owned));
        }
    }
    found
}

#[test]
fn links_lead_somewhere() {
    let mut problems = Vec::new();
    for (path, text) in files(&[".md"]) {
        for link in links(&text) {
            let target = link.split('#').next().unwrap_or_default();
            let elsewhere = target.is_empty() || target.contains("://") || target.starts_with("mailto:");
            if !elsewhere && !root().join(path.parent().unwrap_or(Path::new(""))).join(target).exists() {
                problems.push(format!("{}: dead link to {link}", path.display()));
            }
        }
    }
    none(&problems);
}

#[test]
fn links_are_found() {
    assert_eq!(links("a [b](c.md#d) [e](f)\n```\n[g](h)\n```\n[i](j \"k\")"), ["c.md#d", "f", "j"]);
}
