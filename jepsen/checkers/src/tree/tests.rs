//! Trees: torn renames, lost files, cycles and orphans that must be caught, and correct ones that must pass.

use super::{Call, Entry, Place, ROOT, check};
use crate::{History, Outcome};

type Files = History<Call, ()>;

fn at(folder: u64, name: &str) -> Place {
    Place { folder, name: name.into() }
}

fn file(folder: u64, name: &str, id: u64) -> Entry {
    Entry { place: at(folder, name), id, mark: format!("m{id}"), folder: false }
}

fn folder(parent: u64, name: &str, id: u64) -> Entry {
    Entry { folder: true, ..file(parent, name, id) }
}

fn record(h: &mut Files, id: u64, call: Call, outcome: Outcome<()>) {
    let operation = h.invoke(1, format!("m{id}"), 0, call);
    h.complete(operation, 0, outcome);
}

fn created(ids: &[(u64, Place)]) -> Files {
    let mut h = Files::new();
    for (id, place) in ids {
        record(&mut h, *id, Call::Create(place.clone()), Outcome::Ok(()));
    }
    h
}

fn rename(from: &str, to: &str) -> Call {
    Call::Rename { from: at(ROOT, from), to: at(ROOT, to) }
}

#[test]
fn an_acknowledged_rename_leaves_exactly_the_new_name() {
    let mut h = created(&[(5, at(ROOT, "a"))]);
    record(&mut h, 5, rename("a", "b"), Outcome::Ok(()));
    assert!(check(&h, &[file(ROOT, "b", 5)]).passes());
    assert!(!check(&h, &[file(ROOT, "a", 5)]).passes(), "the rename was undone");
    assert!(!check(&h, &[file(ROOT, "a", 5), file(ROOT, "b", 5)]).passes(), "torn: both names");
    assert!(!check(&h, &[]).passes(), "torn: no name");
}

#[test]
fn an_unknown_rename_leaves_either_name_but_one() {
    let mut h = created(&[(5, at(ROOT, "a"))]);
    record(&mut h, 5, rename("a", "b"), Outcome::Unknown);
    assert!(check(&h, &[file(ROOT, "a", 5)]).passes());
    assert!(check(&h, &[file(ROOT, "b", 5)]).passes());
    assert!(!check(&h, &[]).passes());
    assert!(!check(&h, &[file(ROOT, "c", 5)]).passes());
}

#[test]
fn a_failed_rename_leaves_the_old_name() {
    let mut h = created(&[(5, at(ROOT, "a"))]);
    record(&mut h, 5, rename("a", "b"), Outcome::Fail);
    assert!(check(&h, &[file(ROOT, "a", 5)]).passes());
    assert!(!check(&h, &[file(ROOT, "b", 5)]).passes());
}

#[test]
fn a_deleted_file_stays_deleted_and_an_unknown_delete_is_open() {
    let mut h = created(&[(5, at(ROOT, "a"))]);
    record(&mut h, 5, Call::Delete(at(ROOT, "a")), Outcome::Unknown);
    assert!(check(&h, &[file(ROOT, "a", 5)]).passes() && check(&h, &[]).passes());
    record(&mut h, 5, Call::Delete(at(ROOT, "a")), Outcome::Ok(()));
    assert!(!check(&h, &[file(ROOT, "a", 5)]).passes());
    assert!(check(&h, &[]).passes());
}

#[test]
fn an_unknown_create_may_be_there_or_not() {
    let mut h = Files::new();
    record(&mut h, 5, Call::Create(at(ROOT, "a")), Outcome::Unknown);
    assert!(check(&h, &[file(ROOT, "a", 5)]).passes() && check(&h, &[]).passes());
    assert!(!check(&Files::new(), &[file(ROOT, "a", 5)]).passes(), "nobody made it");
}

#[test]
fn concurrent_renames_may_end_either_way() {
    let mut h = created(&[(5, at(ROOT, "a"))]);
    let one = h.invoke(1, "m5", 0, rename("a", "b"));
    let two = h.invoke(2, "m5", 0, rename("b", "c"));
    h.complete(one, 0, Outcome::Ok(()));
    h.complete(two, 0, Outcome::Ok(()));
    assert!(check(&h, &[file(ROOT, "b", 5)]).passes() && check(&h, &[file(ROOT, "c", 5)]).passes());
    assert!(!check(&h, &[file(ROOT, "a", 5)]).passes());
}

#[test]
fn a_cycle_of_folders_is_caught() {
    let h = created(&[(5, at(6, "a")), (6, at(5, "b"))]);
    assert!(!check(&h, &[folder(6, "a", 5), folder(5, "b", 6)]).passes());
    let h = created(&[(5, at(ROOT, "a")), (6, at(5, "b"))]);
    assert!(check(&h, &[folder(ROOT, "a", 5), folder(5, "b", 6)]).passes());
}

#[test]
fn an_orphan_is_caught() {
    let h = created(&[(7, at(6, "x"))]);
    assert!(!check(&h, &[file(6, "x", 7)]).passes());
}

#[test]
fn a_file_is_no_folder() {
    let h = created(&[(6, at(ROOT, "f")), (7, at(6, "x"))]);
    assert!(!check(&h, &[file(ROOT, "f", 6), file(6, "x", 7)]).passes());
}

#[test]
fn two_files_under_one_name_are_caught() {
    let h = created(&[(6, at(ROOT, "f")), (7, at(ROOT, "f"))]);
    assert!(!check(&h, &[file(ROOT, "f", 6), file(ROOT, "f", 7)]).passes());
}
