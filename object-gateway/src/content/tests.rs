//! Three stores on temporary folders, over real gRPC on loopback.

mod collect;

use super::*;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const TENANT: u64 = 7;
const CLUSTER: &str = "0123456789abcdef0123456789abcdef";

#[derive(Default)]
struct Nodes(Mutex<Vec<Peer>>);

impl Peers for Nodes {
    fn nodes(&self) -> Vec<Peer> {
        self.0.lock().clone()
    }
}

#[derive(Default)]
struct Book {
    copies: Mutex<BTreeMap<[u8; 16], Vec<u64>>>,
    parts: Mutex<BTreeMap<[u8; 16], ContentPart>>,
}

impl Ledger for Book {
    fn record_copies(&self, _tenant_id: u64, content_id: [u8; 16], nodes: Vec<u64>) -> BoxFuture<'_, Result<(), Error>> {
        self.copies.lock().insert(content_id, nodes);
        Box::pin(async { Ok(()) })
    }

    fn content(&self, _tenant_id: u64, content_id: [u8; 16]) -> BoxFuture<'_, Result<Option<ContentPart>, Error>> {
        let mut part = self.parts.lock().get(&content_id).cloned();
        if let (Some(part), Some(nodes)) = (&mut part, self.copies.lock().get(&content_id)) {
            part.nodes.clone_from(nodes);
        }
        Box::pin(async { Ok(part) })
    }
}

/// A disk that is full when told so.
#[derive(Default)]
struct Disk(AtomicBool);

impl Room for Disk {
    fn require(&self) -> Result<(), String> {
        if self.0.load(Ordering::SeqCst) { Err("the disk is full".into()) } else { Ok(()) }
    }
}

struct Member {
    store: ContentStore,
    address: String,
    server: Option<JoinHandle<()>>,
    disk: Arc<Disk>,
}

struct Cluster {
    folder: tempfile::TempDir,
    nodes: Arc<Nodes>,
    book: Arc<Book>,
    ledger: Arc<dyn Ledger>,
    members: BTreeMap<u64, Member>,
}

fn secret() -> ClusterSecret {
    ClusterSecret::new(vec![3; 32]).expect("long enough")
}

impl Cluster {
    async fn start(size: u64) -> Cluster {
        let book = Arc::<Book>::default();
        Cluster { book: book.clone(), ..Cluster::start_over(size, book).await }
    }

    async fn start_over(size: u64, ledger: Arc<dyn Ledger>) -> Cluster {
        let folder = tempfile::tempdir().expect("a folder");
        let mut cluster = Cluster { folder, nodes: Arc::default(), book: Arc::default(), ledger, members: BTreeMap::new() };
        for id in 1..=size {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("bound").to_string();
            cluster.nodes.0.lock().push(Peer { node_id: id, address: address.clone(), stays: true });
            let disk = Arc::<Disk>::default();
            let store = cluster.open(id, &disk);
            let server = Some(serve(&store, listener));
            cluster.members.insert(id, Member { store, address, server, disk });
        }
        cluster
    }

    fn open(&self, id: u64, disk: &Arc<Disk>) -> ContentStore {
        let config = ContentConfig { node_id: id, cluster_id: CLUSTER.into() };
        let parts = Parts { peers: self.nodes.clone(), ledger: self.ledger.clone(), secret: secret(), room: disk.clone() };
        ContentStore::open(&self.root(id), config, parts).expect("opens")
    }

    fn root(&self, id: u64) -> PathBuf {
        self.folder.path().join(id.to_string())
    }

    fn store(&self, id: u64) -> &ContentStore {
        &self.members[&id].store
    }

    fn file(&self, id: u64, part: &ContentPart) -> PathBuf {
        let name = hex::encode(part.content_id);
        self.root(id).join("data").join(&name[..2]).join(name)
    }

    fn fill(&self, id: u64, is_full: bool) {
        self.members[&id].disk.0.store(is_full, Ordering::SeqCst);
    }

    async fn stop(&mut self, id: u64) {
        let server = self.members.get_mut(&id).and_then(|member| member.server.take()).expect("runs");
        server.abort();
        let _ = server.await;
    }

    async fn restart(&mut self, id: u64) {
        let member = self.members.get_mut(&id).expect("a member");
        let listener = TcpListener::bind(&member.address).await.expect("the same port");
        member.server = Some(serve(&member.store, listener));
    }

    async fn write(&self, id: u64, bytes: &[u8]) -> ContentPart {
        let part = self.store(id).write(TENANT, pieces(bytes), Some(bytes.len() as u64)).await.expect("written");
        self.book.parts.lock().insert(part.content_id, part.clone());
        part
    }

    async fn read(&self, id: u64, part: &ContentPart, range: Range<u64>) -> Result<Vec<u8>, Error> {
        let mut stream = self.store(id).read(TENANT, part, range).await?;
        let mut out = Vec::new();
        while let Some(bytes) = stream.next().await {
            out.extend_from_slice(&bytes?);
        }
        Ok(out)
    }

    fn files(&self, id: u64) -> usize {
        let count = |folder: PathBuf| std::fs::read_dir(folder).expect("a folder").count();
        let data = std::fs::read_dir(self.root(id).join("data")).expect("a folder");
        count(self.root(id).join("temp")) + data.map(|shard| count(shard.expect("an entry").path())).sum::<usize>()
    }
}

fn serve(store: &ContentStore, listener: TcpListener) -> JoinHandle<()> {
    let server = tonic::transport::Server::builder().add_service(store.door());
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(async move {
        let _ = server.serve_with_incoming(incoming).await;
    })
}

fn pieces(bytes: &[u8]) -> impl futures::Stream<Item = Result<Bytes, Infallible>> + Send + use<> {
    let pieces: Vec<_> = bytes.chunks(100_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    stream::iter(pieces)
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from((i * 31 + i / 251) % 256).expect("a byte")).collect()
}

async fn eventually(what: &str, check: impl Fn() -> bool) {
    let waited = timeout(Duration::from_secs(15), async {
        while !check() {
            sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_read_through_every_node() {
    let cluster = Cluster::start(3).await;
    for len in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 5 * CHUNK_BYTES + 17] {
        let body = bytes(len);
        let part = cluster.write(1, &body).await;
        assert_eq!((part.size_bytes, part.blake3), (len as u64, *blake3::hash(&body).as_bytes()));
        assert_eq!(part.nodes.len(), if len == 0 { 0 } else { 3 }, "three copies, or a debt");
        for id in 1..=3 {
            assert!(cluster.read(id, &part, 0..len as u64).await.expect("read") == body, "{len} bytes through node {id}");
        }
        let (from, to) = (len as u64 / 3, len as u64 - len as u64 / 4);
        let (first, last) = (usize::try_from(from).expect("small"), usize::try_from(to).expect("small"));
        assert!(cluster.read(2, &part, from..to).await.expect("read") == body[first..last]);
        assert!(cluster.read(2, &part, 0..len as u64 + 1).await.is_err());
    }
    assert_eq!(cluster.store(1).debts(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_leaves_gets_no_new_copy_and_gives_what_it_has() {
    let cluster = Cluster::start(4).await;
    let body = bytes(1000);
    let mut before = Vec::new();
    while before.iter().filter(|part: &&ContentPart| part.nodes.contains(&4)).count() < 2 {
        before.push(cluster.write(1, &body).await);
    }
    cluster.nodes.0.lock().iter_mut().filter(|peer| peer.node_id == 4).for_each(|peer| peer.stays = false);
    for _ in 0..20 {
        let part = cluster.write(1, &body).await;
        assert_eq!(part.nodes.len(), 3);
        assert!(!part.nodes.contains(&4), "{:?}", part.nodes);
    }
    for part in before {
        let only_there = ContentPart { nodes: vec![*part.nodes.iter().max().expect("copies")], ..part };
        assert!(cluster.read(1, &only_there, 0..1000).await.expect("read") == body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn full_nodes_get_no_copy_while_others_have_room() {
    let cluster = Cluster::start(5).await;
    let body = bytes(3 * CHUNK_BYTES);
    // The writer itself, and another.
    cluster.fill(1, true);
    cluster.fill(2, true);
    for _ in 0..10 {
        let part = cluster.write(1, &body).await;
        assert!(part.nodes.len() >= ACK_COPIES && part.nodes.iter().all(|id| (3..=5).contains(id)), "{:?}", part.nodes);
        assert!(cluster.read(2, &part, 0..body.len() as u64).await.expect("read") == body);
    }
    eventually("the debts are paid by those that have room", || cluster.store(1).debts() == 0).await;
    assert_eq!([1, 2].map(|id| cluster.files(id)), [0, 0]);
    assert_eq!([3, 4, 5].map(|id| cluster.files(id)), [10, 10, 10]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_on_enough_nodes_a_write_is_refused_and_leaves_nothing() {
    let cluster = Cluster::start(3).await;
    cluster.fill(2, true);
    cluster.fill(3, true);
    for len in [1, CHUNK_BYTES, 7 * CHUNK_BYTES] {
        let refused = cluster.store(1).write(TENANT, pieces(&bytes(len)), None).await.expect_err("one node has room");
        assert!(matches!(&refused, WriteError::Store(Error::Exhausted { message, .. }) if message.contains("full")), "{len}: {refused}");
    }
    eventually("nothing is left", || (1..=3).all(|id| cluster.files(id) == 0)).await;
    // It is known for a while, and no body is asked for.
    assert!(matches!(cluster.store(1).begin_write(TENANT).await, Err(Error::Exhausted { .. })));
    cluster.fill(3, false);
    let others = async {
        while cluster.store(1).begin_write(TENANT).await.is_err() {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(Duration::from_secs(15), others).await.expect("it asks again");
    let part = cluster.write(1, &bytes(10)).await;
    assert!(part.nodes.contains(&1) && part.nodes.contains(&3) && part.nodes.len() == 2, "{:?}", part.nodes);
    assert_eq!(cluster.store(1).debts(), 1);
    cluster.fill(2, false);
    eventually("the third copy follows", || cluster.store(1).debts() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_in_the_middle_of_a_content_costs_one_copy() {
    let cluster = Cluster::start(4).await;
    let body = bytes(12 * CHUNK_BYTES);
    let pieces = pieces(&body).enumerate().map(|(number, piece)| {
        if number == 40 {
            cluster.fill(1, true);
        }
        piece
    });
    let part = cluster.store(1).write(TENANT, pieces, Some(body.len() as u64)).await.expect("two others have it");
    cluster.book.parts.lock().insert(part.content_id, part.clone());
    assert!(!part.nodes.contains(&1) && part.nodes.len() == 2, "{:?}", part.nodes);
    assert_eq!(cluster.files(1), 0, "what was begun is gone");
    assert!(cluster.read(1, &part, 0..body.len() as u64).await.expect("read") == body);
    eventually("the fourth node has the third copy", || cluster.store(1).debts() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_alone_acknowledges_one_copy() {
    let cluster = Cluster::start(1).await;
    let part = cluster.write(1, &bytes(10)).await;
    assert_eq!(part.nodes, [1]);
    assert_eq!(cluster.store(1).debts(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_node_down_two_copies_are_acknowledged_and_the_third_follows() {
    let mut cluster = Cluster::start(3).await;
    cluster.stop(3).await;
    let body = bytes(2 * CHUNK_BYTES + 5);
    let part = cluster.write(1, &body).await;
    let mut nodes = part.nodes.clone();
    nodes.sort_unstable();
    assert_eq!(nodes, [1, 2]);
    assert_eq!(cluster.store(1).debts(), 1);
    assert_eq!(std::fs::read_dir(cluster.root(1).join("todo")).expect("a folder").count(), 1, "the debt is durable");
    cluster.restart(3).await;
    eventually("the debt is paid", || cluster.store(1).debts() == 0).await;
    assert!(cluster.file(3, &part).exists());
    let mut recorded = cluster.book.copies.lock().get(&part.content_id).cloned().expect("the ledger knows");
    recorded.sort_unstable();
    assert_eq!(recorded, [1, 2, 3]);
    assert_eq!(std::fs::read_dir(cluster.root(1).join("todo")).expect("a folder").count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_came_later_is_read_when_the_first_ones_are_lost() {
    let mut cluster = Cluster::start(4).await;
    cluster.stop(3).await;
    cluster.stop(4).await;
    let body = bytes(2 * CHUNK_BYTES + 5);
    let part = cluster.write(1, &body).await;
    assert_eq!(part.nodes.len(), 2, "those that the version names");
    cluster.restart(3).await;
    cluster.restart(4).await;
    eventually("the debt is paid", || cluster.store(1).debts() == 0).await;
    for id in [1, 2] {
        std::fs::remove_file(cluster.file(id, &part)).expect("removed");
    }
    assert!(cluster.read(4, &part, 0..part.size_bytes).await.expect("read from the third copy") == body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_debt_survives_a_restart() {
    let mut cluster = Cluster::start(3).await;
    cluster.stop(2).await;
    let part = cluster.write(1, &bytes(100)).await;
    cluster.store(1).close();
    cluster.stop(1).await;
    cluster.restart(2).await;
    let store = cluster.open(1, &Arc::default());
    eventually("the debt is paid", || store.debts() == 0).await;
    assert!(cluster.file(2, &part).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_takes_the_place_of_one_that_is_down() {
    let mut cluster = Cluster::start(4).await;
    cluster.stop(4).await;
    for _ in 0..8 {
        let part = cluster.write(1, &bytes(50)).await;
        assert!(!part.nodes.contains(&4) && part.nodes.len() >= 2);
    }
    eventually("all debts are paid without it", || cluster.store(1).debts() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_nodes_refuse_and_leave_nothing() {
    let mut cluster = Cluster::start(3).await;
    cluster.stop(2).await;
    cluster.stop(3).await;
    let error = cluster.store(1).write(TENANT, pieces(&bytes(10)), None).await.expect_err("one copy is not enough");
    assert!(matches!(error, WriteError::Store(Error::Unavailable { .. })), "{error}");
    eventually("the only copy is removed", || cluster.files(1) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_copy_is_read_from_another_node_and_restored() {
    let cluster = Cluster::start(3).await;
    let body = bytes(3 * CHUNK_BYTES);
    let part = cluster.write(1, &body).await;
    std::fs::remove_file(cluster.file(1, &part)).expect("removed");
    assert!(cluster.read(1, &part, 0..part.size_bytes).await.expect("read") == body);
    eventually("the copy is back", || cluster.store(1).counters().repaired_copies == 1).await;
    assert!(cluster.file(1, &part).exists());
    assert_eq!(cluster.store(1).counters().missing_copies, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_is_never_served_and_repaired() {
    let cluster = Cluster::start(3).await;
    let body = bytes(3 * CHUNK_BYTES);
    let part = cluster.write(1, &body).await;
    let whole = std::fs::metadata(cluster.file(1, &part)).expect("there").len();
    // The header, a chunk's frame, the middle of a chunk, the last chunk, the footer.
    for (round, position) in [9, 61, 5_000, whole - 100, whole - 20].into_iter().enumerate() {
        flip(&cluster.file(1, &part), position);
        assert!(cluster.read(1, &part, 0..part.size_bytes).await.expect("read") == body, "bit at {position}");
        eventually("it is repaired", || cluster.store(1).counters().repaired_copies == round as u64 + 1).await;
    }
    let counters = cluster.store(1).counters();
    assert_eq!((counters.corrupt_copies, counters.set_aside), (5, 5));
    assert_eq!(std::fs::read_dir(cluster.root(1).join("aside")).expect("a folder").count(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_copy_of_another_node_is_repaired_there() {
    let cluster = Cluster::start(3).await;
    let body = bytes(2 * CHUNK_BYTES);
    let mut part = cluster.write(1, &body).await;
    flip(&cluster.file(2, &part), CHUNK_BYTES as u64 + 5_000);
    part.nodes = vec![2, 3];
    assert!(cluster.read(1, &part, 0..part.size_bytes).await.expect("read") == body);
    eventually("node 2 repaired its own", || cluster.store(2).counters().repaired_copies == 1).await;
    flip(&cluster.file(3, &part), 5_000);
    part.nodes = vec![3, 2];
    assert!(cluster.read(1, &part, 0..part.size_bytes).await.expect("read") == body);
    eventually("node 3 repaired its own", || cluster.store(3).counters().repaired_copies == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_told_when_every_copy_is_bad() {
    let cluster = Cluster::start(3).await;
    let part = cluster.write(1, &bytes(2 * CHUNK_BYTES)).await;
    for id in 1..=3 {
        flip(&cluster.file(id, &part), 5_000);
    }
    let error = cluster.read(1, &part, 0..10).await.expect_err("no copy is good");
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    cluster.read(1, &part, CHUNK_BYTES as u64..part.size_bytes).await.expect("the second chunk may still be served");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_or_lies_leaves_nothing() {
    let cluster = Cluster::start(3).await;
    let broken = stream::iter([Ok(Bytes::from(bytes(2 * CHUNK_BYTES + 9))), Err("broke off")]);
    let error = cluster.store(1).write(TENANT, broken, None).await.expect_err("must fail");
    assert!(matches!(error, WriteError::Body("broke off")));
    for (announced, found) in [(9, 10), (11, 10)] {
        let error = cluster.store(1).write(TENANT, pieces(&bytes(found)), Some(announced)).await.expect_err("must fail");
        assert!(matches!(error, WriteError::Length { .. }), "{error}");
    }
    for id in 1..=3 {
        eventually("nothing is left", || cluster.files(id) == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrub_finds_and_repairs() {
    let cluster = Cluster::start(3).await;
    let parts = [cluster.write(2, &bytes(10)).await, cluster.write(2, &bytes(CHUNK_BYTES + 1)).await];
    flip(&cluster.file(2, &parts[1]), 5_000);
    let report = cluster.store(2).scrub().await.expect("scrubbed");
    assert_eq!((report.contents, report.corrupt), (2, 1));
    eventually("it is repaired", || cluster.store(2).counters().repaired_copies == 1).await;
    assert_eq!(cluster.store(2).scrub().await.expect("scrubbed").corrupt, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrub_in_steps_misses_nothing_and_repairs() {
    let cluster = Cluster::start(3).await;
    let sizes = [0, 10, CHUNK_BYTES + 1, 4 * CHUNK_BYTES, 100];
    let mut parts = Vec::new();
    for size in sizes {
        parts.push(cluster.write(2, &bytes(size)).await);
    }
    // In the last chunk of a content that no step reads whole.
    flip(&cluster.file(2, &parts[3]), 3 * CHUNK_BYTES as u64 + 5_000);
    let store = cluster.store(2);
    let all = async || {
        let (mut from, mut corrupt, mut read, mut steps) = (Some(Vec::new()), Vec::new(), 0, 0);
        while let Some(place) = from {
            let step = store.scrub_step(&place, CHUNK_BYTES as u64).await.expect("it reads");
            corrupt.extend(step.corrupt);
            (from, read, steps) = (step.next, read + step.bytes, steps + 1);
        }
        (corrupt, read, steps)
    };
    let (corrupt, _, steps) = all().await;
    assert_eq!(corrupt, [parts[3].content_id]);
    assert!(steps >= 4, "{steps} steps");
    eventually("it is repaired", || store.counters().repaired_copies == 1).await;
    let (corrupt, read, _) = all().await;
    assert_eq!(corrupt, Vec::<[u8; 16]>::new());
    assert!(read >= sizes.iter().sum::<usize>() as u64, "{read}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_nodes_of_the_cluster_may_use_the_door() {
    let cluster = Cluster::start(3).await;
    let part = cluster.write(1, &bytes(10)).await;
    let endpoint = format!("http://{}", cluster.members[&1].address);
    let mut client = content_v1::content_client::ContentClient::connect(endpoint).await.expect("connects");
    let other = ClusterSecret::new(vec![4; 32]).expect("long enough");
    for token in [None, Some("Bearer key.AK.secret".to_owned()), Some(format!("Bearer {}", other.node_token(2)))] {
        let mut request = tonic::Request::new(content_v1::HasRequest { content: Some(ref_of(TENANT, &part)) });
        if let Some(token) = &token {
            request.metadata_mut().insert("authorization", token.parse().expect("ASCII"));
        }
        assert_eq!(client.has(request).await.expect_err("refused").code(), tonic::Code::Unauthenticated, "{token:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_another_cluster_is_refused_and_temporary_files_go() {
    let cluster = Cluster::start(1).await;
    let left = cluster.root(1).join("temp").join("left");
    std::fs::write(&left, b"half").expect("written");
    drop(cluster.open(1, &Arc::default()));
    assert!(!left.exists());
    let room = || Arc::<Disk>::default();
    let parts = || Parts { peers: cluster.nodes.clone(), ledger: cluster.book.clone(), secret: secret(), room: room() };
    let other = ContentConfig { node_id: 1, cluster_id: "f".repeat(32) };
    let error = ContentStore::open(&cluster.root(1), other, parts()).expect_err("another cluster's");
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
    let marker = cluster.root(1).join("FORMAT");
    std::fs::write(&marker, format!("cairn contents\nformat 2\ncluster {CLUSTER}\n")).expect("written");
    let config = ContentConfig { node_id: 1, cluster_id: CLUSTER.into() };
    assert!(matches!(ContentStore::open(&cluster.root(1), config, parts()), Err(Error::Invalid { .. })), "a newer format");
}

fn flip(path: &std::path::Path, position: u64) {
    let mut bytes = std::fs::read(path).expect("read");
    bytes[usize::try_from(position).expect("small")] ^= 0x10;
    std::fs::write(path, bytes).expect("written");
}
