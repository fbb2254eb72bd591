//! The client against a node in the same process that obeys a script.

mod memory;

use bytes::Bytes;
use memory::{Memory, Scripted};
use metadb_proto::v1::{NodeRef, Redirect};
use metadb_proto::{Error, Principal};
use shard_router::{Client, Local, Router, RouterConfig, Scan, condition, operation};
use std::sync::Arc;
use std::time::Duration;

const TENANT: u64 = 7;

fn here() -> NodeRef {
    NodeRef { node_id: 1, address: String::new() }
}

fn router(memory: &Arc<Memory>) -> Router {
    let local = Local { node_id: 1, kv: memory.clone(), principal: Principal::Node(1) };
    Router::new(RouterConfig { local: Some(local), attempt_timeout: Duration::from_millis(100), ..RouterConfig::default() })
}

fn one_shard() -> (Arc<Memory>, Client) {
    let memory = Memory::new();
    memory.add_tenant(TENANT, &[("", 1)], &here());
    let client = router(&memory).tenant(TENANT);
    (memory, client)
}

fn unavailable() -> Error {
    Error::unavailable("an election", Duration::from_millis(1))
}

fn unknown() -> Error {
    Error::UnknownOutcome { message: "the leader stepped down".into() }
}

async fn put(client: &Client, key: &'static str) -> Result<bool, Error> {
    Ok(client.transact(vec![], vec![operation::put(key, "v")]).await?.committed)
}

#[tokio::test]
async fn a_retry_carries_the_same_request_id_and_happens_once() {
    let (memory, client) = one_shard();
    memory.script([Scripted::Refuse(unavailable()), Scripted::DoThenFail(unknown()), Scripted::Hang, Scripted::DoThenFail(unknown())]);
    assert!(put(&client, "k").await.expect("in time"));
    let state = memory.state.lock();
    assert_eq!(state.executed, 1, "executed once");
    assert_eq!(state.headers.len(), 5);
    assert!(state.headers.iter().all(|header| header.request_id == state.headers[0].request_id && header.request_id.len() == 16));
    assert!(state.headers.windows(2).all(|pair| pair[1].deadline_ms <= pair[0].deadline_ms), "the time left is told");
    assert!(state.headers.iter().all(|header| header.group_id == Some(1) && header.epoch == 1));
}

#[tokio::test]
async fn two_calls_have_two_request_ids_and_a_caller_may_bring_its_own() {
    let (memory, client) = one_shard();
    put(&client, "a").await.expect("put");
    put(&client, "b").await.expect("put");
    let id = Bytes::from(vec![9; 16]);
    let first = client.transact_as(id.clone(), vec![condition::absent("c")], vec![operation::put("c", "1")]).await.expect("first");
    let again = client.transact_as(id, vec![condition::absent("c")], vec![operation::put("c", "1")]).await.expect("again");
    assert_eq!(first, again);
    let state = memory.state.lock();
    assert_ne!(state.headers[0].request_id, state.headers[1].request_id);
}

#[tokio::test]
async fn a_failed_condition_is_an_answer() {
    let (_, client) = one_shard();
    let answer = client.transact(vec![condition::exists("nothing")], vec![]).await.expect("an answer");
    assert!(!answer.committed);
}

#[tokio::test]
async fn at_the_deadline_an_open_outcome_is_unknown_and_a_closed_one_is_not() {
    let (memory, client) = one_shard();
    let client = client.with_deadline(Duration::from_millis(150));
    memory.script((0..1000).map(|_| Scripted::Refuse(unavailable())));
    assert!(matches!(put(&client, "k").await, Err(Error::Unavailable { .. })));
    memory.state.lock().script.clear();
    memory.script([Scripted::Hang]);
    memory.script((0..1000).map(|_| Scripted::Refuse(unavailable())));
    assert!(matches!(put(&client, "k").await, Err(Error::UnknownOutcome { .. })), "refusals after it do not close it");
    memory.state.lock().script.clear();
    memory.script((0..1000).map(|_| Scripted::Hang));
    assert!(matches!(client.get("k").await, Err(Error::Unavailable { .. })), "a read has no outcome");
}

#[tokio::test]
async fn a_redirect_is_followed_with_its_group_and_epoch() {
    let (memory, client) = one_shard();
    let redirect = Redirect { group_id: 5, leader: Some(here()), epoch: 3, ..Default::default() };
    memory.script([Scripted::Refuse(Error::Moved { message: "moved".into(), redirect })]);
    client.get("k").await.expect("followed");
    assert_eq!(client.router().counters().redirects, 1);
    let state = memory.state.lock();
    assert_eq!((state.headers[1].group_id, state.headers[1].epoch), (Some(5), 3));
}

#[tokio::test]
async fn final_errors_are_not_retried() {
    let (memory, client) = one_shard();
    for error in [Error::invalid("f", "l", "v"), Error::Denied { message: "no".into() }, Error::internal("bug")] {
        memory.script([Scripted::Refuse(error.clone())]);
        let before = client.router().counters().retries;
        assert_eq!(client.get("k").await.expect_err("refused"), error);
        assert_eq!(client.router().counters().retries, before);
    }
    assert!(matches!(client.get(vec![0; 5000]).await, Err(Error::Invalid { .. })), "refused here");
}

#[tokio::test]
async fn all_who_wait_share_one_load_of_the_routes() {
    let (memory, client) = one_shard();
    let gets = (0..200).map(|_| client.get("k"));
    futures::future::join_all(gets).await.into_iter().for_each(|got| assert!(got.expect("read").is_none()));
    assert_eq!(client.router().counters().refreshes, 1);
    assert_eq!(memory.state.lock().directory_scans, 1);
    // Later they are known.
    client.get("k").await.expect("read");
    assert_eq!(client.router().counters().refreshes, 1);
}

#[tokio::test]
async fn an_unknown_tenant_is_not_found() {
    let (_, client) = one_shard();
    let other = client.router().tenant(99);
    assert!(matches!(other.get("k").await, Err(Error::NotFound { .. })));
    assert!(matches!(client.router().tenant_named("nobody").await, Err(Error::NotFound { .. })));
}

fn three_shards() -> (Arc<Memory>, Client, Vec<Bytes>) {
    let memory = Memory::new();
    memory.add_tenant(TENANT, &[("", 1), ("key-030", 2), ("key-060", 1)], &here());
    let keys: Vec<Bytes> = (0..100).map(|n| Bytes::from(format!("key-{n:03}"))).collect();
    keys.iter().for_each(|key| memory.put(TENANT, key.clone(), "v"));
    let client = router(&memory).tenant(TENANT);
    (memory, client, keys)
}

#[tokio::test]
async fn a_scan_goes_across_shards_in_either_direction_whatever_the_pages() {
    let (memory, client, keys) = three_shards();
    for (page_rows, limit) in [(0, 0), (7, 0), (0, 13), (7, 10), (30, 30), (1, 0)] {
        for reverse in [false, true] {
            memory.state.lock().page_rows = page_rows;
            let mut scan = Scan { start: "key-005".into(), end: "key-095".into(), limit, reverse, ..Scan::default() };
            let mut seen: Vec<Bytes> = Vec::new();
            loop {
                let page = client.scan(scan.clone()).await.expect("page");
                assert!(limit == 0 || page.rows.len() <= limit as usize);
                seen.extend(page.rows.into_iter().map(|row| row.key));
                if page.continuation.is_empty() {
                    break;
                }
                scan.continuation = page.continuation;
            }
            if reverse {
                seen.reverse();
            }
            assert_eq!(seen, keys[5..95], "pages of {page_rows}, limit {limit}, reverse {reverse}");
        }
    }
}

#[tokio::test]
async fn a_page_is_full_though_a_shard_ends_in_it() {
    let (_, client, _) = three_shards();
    let page = client.scan(Scan { start: "key-025".into(), limit: 50, ..Scan::default() }).await.expect("page");
    assert_eq!(page.rows.len(), 50);
    let bad = Scan { continuation: Bytes::from_static(b"nonsense"), ..Scan::default() };
    assert!(matches!(client.scan(bad).await, Err(Error::Invalid { .. })));
}

#[tokio::test]
async fn a_transaction_across_groups_is_refused_and_within_one_is_not() {
    let (memory, client, _) = three_shards();
    let across = client.transact(vec![], vec![operation::put("key-001", ""), operation::put("key-031", "")]).await;
    assert!(matches!(across, Err(Error::Invalid { .. })), "{across:?}");
    let range = client.transact(vec![], vec![operation::delete_range("key-001", "key-031")]).await;
    assert!(matches!(range, Err(Error::Invalid { .. })), "{range:?}");
    let within = client.transact(vec![], vec![operation::put("key-001", ""), operation::put("key-061", "")]).await;
    assert!(within.expect("one group").committed);
    assert_eq!(memory.state.lock().headers.last().expect("asked").epoch, 0, "two shards have no epoch in common");
}

#[tokio::test]
async fn run_reads_its_own_writes_and_commits_them_together() {
    let (memory, client) = one_shard();
    memory.put(TENANT, "a", "1");
    memory.put(TENANT, "c", "3");
    let done = client.run(|tx| async move {
        assert_eq!(tx.get("a").await?, Some("1".into()));
        tx.put("b", "2");
        tx.delete("c");
        tx.add("n", 5);
        tx.add("n", -2);
        assert_eq!((tx.get("b").await?, tx.get("c").await?), (Some("2".into()), None));
        assert_eq!(tx.get("n").await?, Some(Bytes::copy_from_slice(&3_i64.to_le_bytes())));
        let rows = tx.scan("a", "d", 0).await?;
        assert_eq!(rows, vec![("a".into(), "1".into()), ("b".into(), "2".into())]);
        Ok("done")
    });
    assert_eq!(done.await.expect("committed"), "done");
    assert_eq!(client.get("b").await.expect("read").expect("there").value, "2");
    assert!(client.get("c").await.expect("read").is_none());
}

#[tokio::test]
async fn run_counts_right_when_many_run_at_once() {
    let (_, client) = one_shard();
    let client = client.with_deadline(Duration::from_secs(20));
    let add = || {
        client.run(|tx| async move {
            let count: u64 = tx.get("count").await?.map_or(0, |value| String::from_utf8_lossy(&value).parse().expect("a number"));
            tx.put("count", (count + 1).to_string());
            Ok(())
        })
    };
    futures::future::join_all((0..20).map(|_| add())).await.into_iter().for_each(|result| result.expect("in time"));
    assert_eq!(client.get("count").await.expect("read").expect("there").value, "20");
    assert!(client.router().counters().conflicts > 0);
}

#[tokio::test]
async fn run_ends_in_conflict_at_the_deadline_and_sees_a_range_change() {
    let (memory, client) = one_shard();
    let client = client.with_deadline(Duration::from_millis(200));
    let disturb = |range: bool| {
        let memory = Arc::clone(&memory);
        client.run(move |tx| {
            let memory = Arc::clone(&memory);
            async move {
                if range {
                    tx.scan("a", "z", 0).await?;
                } else {
                    tx.get("k").await?;
                }
                memory.put(TENANT, "k", "changed");
                tx.put("other", "x");
                Ok(())
            }
        })
    };
    assert!(matches!(disturb(false).await, Err(Error::Conflict { .. })));
    assert!(matches!(disturb(true).await, Err(Error::Conflict { .. })));
    assert!(client.get("other").await.expect("read").is_none());
}
