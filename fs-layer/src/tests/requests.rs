//! Requests that are sent again, and answers that are lost.

use super::{TENANT, fresh, fresh_fs, version};
use crate::ROOT;
use crate::model::{FolderKind, Precondition};
use metadb_proto::Error;

#[tokio::test]
async fn the_same_request_is_done_once_and_answers_the_same() {
    let (ns, memory) = fresh();
    let again = |byte| ns.clone().with_request_id([byte; 16]);
    let made = again(1).create_folder(ROOT, "d", FolderKind::Tree).await.expect("made");
    let put = again(2).put_file(made.id, "f", version("e"), Precondition::Absent).await.expect("put");
    let renamed = again(3).rename(made.id, "f", ROOT, "g", false).await.expect("renamed");
    let deleted = again(4).delete(ROOT, "g", Precondition::None).await.expect("deleted");
    let many = again(5).delete_many(ROOT, &["x".into(), "d".into()]).await.expect("asked");
    let rows = memory.rows(TENANT);
    assert_eq!(again(1).create_folder(ROOT, "d", FolderKind::Tree).await, Ok(made.clone()));
    assert_eq!(again(2).put_file(made.id, "f", version("e"), Precondition::Absent).await, Ok(put));
    assert_eq!(again(3).rename(made.id, "f", ROOT, "g", false).await, Ok(renamed));
    assert_eq!(again(4).delete(ROOT, "g", Precondition::None).await, Ok(deleted));
    assert_eq!(again(5).delete_many(ROOT, &["x".into(), "d".into()]).await, Ok(many));
    assert_eq!(memory.rows(TENANT), rows);
    assert!(matches!(again(1).delete(ROOT, "d", Precondition::None).await, Err(Error::Invalid { field, .. }) if field == "request_id"));
    assert!(matches!(ns.create_folder(ROOT, "d", FolderKind::Tree).await, Err(Error::AlreadyExists { .. })));
    assert_eq!(ns.forget_requests().await, Ok(0));
    assert_eq!(memory.rows(TENANT), rows, "nothing is old yet");
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again() {
    let (ns, memory) = fresh();
    ns.create_folder(ROOT, "d", FolderKind::Tree).await.expect("made");
    memory.lose_answers(1);
    let made = ns.create_folder(ROOT, "e", FolderKind::Tree).await.expect("made once, told at the second attempt");
    assert_eq!(ns.stat_entry(ROOT, "e").await.expect("there").id, made.id);
    assert_eq!(ns.list(ROOT, crate::ListOptions::default()).await.expect("listed").entries.len(), 2);
}

#[tokio::test]
async fn a_request_and_its_retry_at_once_are_told_the_same() {
    let (ns, memory) = fresh();
    memory.dawdle(8);
    for round in 0..200_u8 {
        let again = |byte| ns.clone().with_request_id([byte, round, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let (one, two) = (again(1), again(1));
        let (one, two) = tokio::join!(
            one.put_file(ROOT, "f", version("e"), Precondition::Absent),
            two.put_file(ROOT, "f", version("e"), Precondition::Absent)
        );
        assert_eq!(one.expect("put").id, two.expect("the same put").id, "round {round}");
        let (one, two) = (again(2), again(2));
        let (one, two) = tokio::join!(one.delete(ROOT, "f", Precondition::None), two.delete(ROOT, "f", Precondition::None));
        assert_eq!(one.expect("deleted"), two.expect("the same deletion"), "round {round}");
    }
}

#[tokio::test]
async fn deleting_from_a_folder_that_another_process_removed_is_no_success() {
    let (here, memory) = fresh_fs();
    let there = super::over(memory).namespace(TENANT);
    let here = here.namespace(TENANT);
    let folder = here.create_folder(ROOT, "b", FolderKind::Flat).await.expect("made").id;
    assert_eq!(here.delete_many(folder, &["k".into()]).await, Ok(vec![Ok(false)]));
    there.delete(ROOT, "b", Precondition::None).await.expect("removed");
    assert!(matches!(here.delete_many(folder, &["k".into()]).await, Err(Error::NotFound { .. })));
}
