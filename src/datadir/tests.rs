//! Folders that are refused stay as they were.

use super::*;

fn secret(byte: u8) -> ClusterSecret {
    ClusterSecret::new(vec![byte; 32]).expect("long enough")
}

fn claimed(path: &Path) {
    let mut folder = DataDir::open(path, None, &secret(1)).expect("opens");
    assert_eq!(folder.identity(), None);
    folder.claim(Identity::new("ab".repeat(16), 2, &secret(1))).expect("claimed");
}

#[test]
fn a_folder_remembers_whom_it_belongs_to() {
    let folder = tempfile::tempdir().expect("a folder");
    claimed(folder.path());
    let again = DataDir::open(folder.path(), Some(&"ab".repeat(16)), &secret(1)).expect("opens again");
    assert_eq!(again.identity().map(|identity| identity.node_id), Some(2));
}

#[test]
fn two_processes_never_share_a_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let _held = DataDir::open(folder.path(), None, &secret(1)).expect("opens");
    let refused = DataDir::open(folder.path(), None, &secret(1)).expect_err("is locked");
    assert_eq!(refused.code, Code::Conflict);
    assert!(refused.message.contains(&std::process::id().to_string()), "{refused}");
}

#[test]
fn another_clusters_folder_is_refused_by_id_and_by_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    claimed(folder.path());
    let by_id = DataDir::open(folder.path(), Some(&"cd".repeat(16)), &secret(1)).expect_err("another id");
    assert!(by_id.message.contains(&"ab".repeat(16)) && by_id.hint.is_some(), "{by_id}");
    let by_secret = DataDir::open(folder.path(), None, &secret(9)).expect_err("another secret");
    assert!(by_secret.message.contains("another cluster secret"), "{by_secret}");
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = "format = 2\nwhatever_a_newer_build_writes = true\n";
    std::fs::write(folder.path().join(IDENTITY), text).expect("written");
    let refused = DataDir::open(folder.path(), None, &secret(1)).expect_err("is newer");
    assert!(refused.message.contains("format 2") && refused.message.contains("format 1"), "{refused}");
    let names: Vec<_> = std::fs::read_dir(folder.path()).expect("listed").map(|entry| entry.expect("an entry").file_name()).collect();
    assert_eq!(names, [IDENTITY]);
}

#[test]
fn a_folder_with_other_peoples_files_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("thesis.tex"), "").expect("written");
    let refused = DataDir::open(folder.path(), None, &secret(1)).expect_err("is not ours");
    assert!(refused.message.contains("thesis.tex"), "{refused}");
}

#[test]
fn a_damaged_identity_is_told_not_overwritten() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join(IDENTITY), "format = 1\nnode_id = \"x\"\n").expect("written");
    assert!(DataDir::open(folder.path(), None, &secret(1)).expect_err("is damaged").message.contains("damaged"));
}
