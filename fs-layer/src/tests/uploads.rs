//! Uploads.

use super::{TENANT, fresh, version};
use crate::keys::{self, KeyKind};
use crate::limits::LIST_PAGE;
use crate::model::{Completed, FolderKind, NewPart, NewUpload, Precondition, UploadOptions};
use crate::{Namespace, ROOT};
use metadb_proto::Error;

fn part(etag: &str) -> NewPart {
    let version = version(etag);
    NewPart { content: version.content, size: version.size, etag: etag.into() }
}

async fn bucket(ns: &Namespace) -> u64 {
    ns.create_folder(ROOT, "b", FolderKind::Flat).await.expect("made").id
}

fn completed(parts: &[(u32, &str)]) -> Completed {
    Completed {
        parts: parts.iter().map(|(number, etag)| (*number, (*etag).to_owned())).collect(),
        etag: "whole-2".into(),
        ..Completed::default()
    }
}

#[tokio::test]
async fn a_file_of_parts() {
    let (ns, memory) = fresh();
    let bucket = bucket(&ns).await;
    let data = NewUpload { content_type: "x/y".into(), ..NewUpload::default() };
    let upload = ns.create_upload(bucket, "k", data).await.expect("begun").upload_id;
    for (number, etag) in [(1, "a"), (2, "b"), (3, "c"), (2, "b2")] {
        ns.put_part(bucket, "k", &upload, number, part(etag)).await.expect("put");
    }
    assert!(matches!(ns.stat_entry(bucket, "k").await, Err(Error::NotFound { .. })), "not there before it is complete");
    let listed = ns.list_parts(bucket, "k", &upload, 1, 1).await.expect("listed");
    assert_eq!((listed.parts[0].number, listed.parts[0].data.etag.as_str(), listed.more), (2, "b2", true));
    assert!(!ns.list_parts(bucket, "k", &upload, 2, 1).await.expect("listed").more);

    for (bad, expected) in [
        (completed(&[]), "parts"),
        (completed(&[(2, "b2"), (1, "a")]), "parts.number"),
        (completed(&[(1, "x")]), "parts.etag"),
        (completed(&[(4, "d")]), "parts.etag"),
    ] {
        assert!(matches!(ns.complete_upload(bucket, "k", &upload, bad).await, Err(Error::Invalid { field, .. }) if field == expected));
    }
    let file = ns.complete_upload(bucket, "k", &upload, completed(&[(1, "a"), (2, "b2")])).await.expect("completed");
    assert_eq!((file.size, file.etag.as_str(), file.content_type.as_str(), file.content.0.len()), (20, "whole-2", "x/y", 2));
    assert_eq!(ns.stat_entry(bucket, "k").await.expect("there"), file);
    for content in &file.content.0 {
        assert_eq!(ns.content(&content.content_id).await.expect("read").expect("named").names, 1);
    }
    let released: usize = ns.released(0).await.expect("listed").iter().map(|released| released.content_ids.len()).sum();
    assert_eq!(released, 2, "part 2 as it was first, and part 3");
    assert!(matches!(ns.complete_upload(bucket, "k", &upload, completed(&[(1, "a")])).await, Err(Error::NotFound { .. })));
    for kind in [KeyKind::Upload, KeyKind::UploadPart] {
        let (start, end) = keys::all(kind);
        assert!(!memory.rows(TENANT).iter().any(|row| row.key >= start && row.key < end), "{kind:?}");
    }
}

#[tokio::test]
async fn the_largest_upload_fits_one_transaction() {
    let (ns, _) = fresh();
    let bucket = bucket(&ns).await;
    let upload = ns.create_upload(bucket, "k", NewUpload::default()).await.expect("begun").upload_id;
    let mut parts = Vec::new();
    for number in 1..=10_000 {
        ns.put_part(bucket, "k", &upload, number, part("e")).await.expect("put");
        parts.push((number, "e"));
    }
    assert!(
        matches!(ns.put_part(bucket, "k", &upload, 10_001, part("e")).await, Err(Error::Invalid { field, .. }) if field == "part_number")
    );
    let file = ns.complete_upload(bucket, "k", &upload, completed(&parts)).await.expect("completed");
    assert_eq!(file.size, 100_000);
    ns.delete(bucket, "k", Precondition::None).await.expect("deleted");
    let released = ns.released(0).await.expect("listed").remove(0);
    while ns.collect(&released.ticket).await.expect("collected") {}
    assert_eq!(ns.unnamed(10_000).await.expect("listed").len(), 10_000);
}

#[tokio::test]
async fn a_page_as_large_as_the_database_gives_tells_that_there_is_more() {
    let (ns, _) = fresh();
    let bucket = bucket(&ns).await;
    for _ in 0..=LIST_PAGE {
        ns.create_upload(bucket, "k", NewUpload::default()).await.expect("begun");
    }
    let options = UploadOptions { limit: LIST_PAGE, ..UploadOptions::default() };
    let first = ns.list_uploads(bucket, options.clone()).await.expect("listed");
    assert!(first.more);
    let last = first.uploads.last().expect("many");
    let after = UploadOptions { after_name: last.name.clone(), after_upload_id: last.upload_id.clone(), ..options };
    let rest = ns.list_uploads(bucket, after).await.expect("listed");
    assert_eq!((first.uploads.len() + rest.uploads.len(), rest.more), (LIST_PAGE + 1, false));
}

#[tokio::test]
async fn uploads_are_listed_and_given_up() {
    let (ns, _) = fresh();
    let bucket = bucket(&ns).await;
    let mut ids = Vec::new();
    for name in ["a", "b/1", "b/1", "b/2", "c"] {
        ids.push(ns.create_upload(bucket, name, NewUpload::default()).await.expect("begun").upload_id);
    }
    let list = async |options: UploadOptions| {
        let listing = ns.list_uploads(bucket, options).await.expect("listed");
        (listing.uploads.into_iter().map(|upload| (upload.name, upload.upload_id)).collect::<Vec<_>>(), listing.more)
    };
    let (all, more) = list(UploadOptions::default()).await;
    assert_eq!((all.len(), more), (5, false));
    let (under, more) = list(UploadOptions { prefix: "b/".into(), limit: 2, ..UploadOptions::default() }).await;
    assert_eq!((under.as_slice(), more), (&all[1..3], true));
    let after =
        UploadOptions { prefix: "b/".into(), after_name: "b/1".into(), after_upload_id: all[1].1.clone(), ..UploadOptions::default() };
    assert_eq!(list(after).await, (all[2..4].to_vec(), false));
    assert_eq!(list(UploadOptions { after_name: "b/1".into(), ..UploadOptions::default() }).await.0, all[3..]);

    ns.put_part(bucket, "a", &ids[0], 1, part("e")).await.expect("put");
    ns.abort_upload(bucket, "a", &ids[0]).await.expect("given up");
    assert_eq!(ns.released(0).await.expect("listed")[0].content_ids.len(), 1);
    for gone in [ids[0].as_str(), "zz", ""] {
        assert!(matches!(ns.put_part(bucket, "a", gone, 1, part("e")).await, Err(Error::NotFound { .. })));
        assert!(matches!(ns.abort_upload(bucket, "a", gone).await, Err(Error::NotFound { .. })));
        assert!(matches!(ns.list_parts(bucket, "a", gone, 0, 0).await, Err(Error::NotFound { .. })));
    }
    // Uploads go with their folder.
    ns.put_part(bucket, "c", &ids[4], 1, part("e")).await.expect("put");
    ns.delete(ROOT, "b", Precondition::None).await.expect("uploads are no entries");
    assert!(matches!(ns.complete_upload(bucket, "c", &ids[4], completed(&[(1, "e")])).await, Err(Error::NotFound { .. })));
    while let Some(released) = ns.released(1).await.expect("listed").pop() {
        while ns.collect(&released.ticket).await.expect("collected") {}
    }
    assert_eq!(ns.unnamed(0).await.expect("listed").len(), 2);
}
