//! Every limit of the content store, with its unit and its reason.

use std::time::Duration;

/// Bytes of a chunk, the unit of checksums, of messages and of memory per copy in flight: large enough that its 8 bytes of framing and
/// one system call cost nothing, small enough that a range read wastes little.
pub const CHUNK_BYTES: usize = 1 << 20;
/// Largest gRPC message of `content.v1`: a chunk with room for its framing.
pub(crate) const MESSAGE_BYTES: usize = CHUNK_BYTES + (64 << 10);
/// Copies that a content should have, on distinct nodes.
pub const COPIES: usize = 3;
/// Durable copies before a write is acknowledged (fewer only where the cluster has fewer nodes).
pub const ACK_COPIES: usize = 2;
/// Chunks that wait for one copy's disk or network: the reader is held back when they are all taken.
pub(crate) const LANE_CHUNKS: usize = 2;
/// Contents written through this node at once; each holds at most `COPIES * LANE_CHUNKS` chunks.
pub(crate) const WRITES: usize = 64;
/// Contents that one tenant writes through this node at once: it never holds up all others, however slow its clients are.
pub(crate) const TENANT_WRITES: usize = 48;
/// Writes that wait for one of [`WRITES`]: about the connections of the doors.
pub(crate) const WRITES_WAITING: usize = 4096;
/// How long a write waits for its place: clients give up later than this, and then try again.
pub(crate) const WRITE_PATIENCE: Duration = Duration::from_secs(30);
/// A body that sends fewer bytes a second than this, for longer than [`SLOW_BODY_AFTER`], loses its place when others wait for one.
pub(crate) const SLOW_BODY_BYTES_PER_S: u64 = 16 << 10;
/// How long a body may be slow: a client may pause.
pub(crate) const SLOW_BODY_AFTER: Duration = Duration::from_secs(30);
/// Contents read through this node at once; each holds at most `READ_AHEAD_CHUNKS` chunks.
pub(crate) const READS: usize = 128;
/// How long a reader may take nothing before it is given up: it holds one of [`READS`] as long as it lasts.
pub(crate) const READER_IDLE: Duration = Duration::from_secs(120);
/// Chunks verified ahead of the reader.
pub(crate) const READ_AHEAD_CHUNKS: usize = 2;
/// Copies that other nodes may write here at once.
pub(crate) const INBOUND_WRITES: usize = 128;
/// Chunk streams that other nodes may fetch from here at once.
pub(crate) const INBOUND_FETCHES: usize = 128;
/// Local copies that wait for repair; further ones are found again by the next read or scrub.
pub(crate) const REPAIR_QUEUE: usize = 1024;
/// Contents that are paid their missing copies at once.
pub(crate) const DEBT_WORKERS: usize = 4;
/// Last copies that complete in the background at once; beyond that the writer waits for them.
pub(crate) const STRAGGLERS: usize = 64;
/// Abandoned copies that wait for removal; further ones are left for collection.
pub(crate) const DISCARD_QUEUE: usize = 1024;
/// How long to wait for a connection to a node on the same network.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A node that answers nothing for so long, or takes no chunk, is given up for this content.
pub(crate) const STALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last copy may lag behind an acknowledgement before a debt is written down for it.
pub(crate) const GRACE: Duration = Duration::from_millis(150);
/// How long a node that could not be reached is asked last.
pub(crate) const SUSPECT_TIME: Duration = Duration::from_secs(5);
/// How long a node that had no room gets no copy while others have some.
pub(crate) const FULL_TIME: Duration = Duration::from_secs(5);
/// First and longest pause between two attempts to pay a debt.
pub(crate) const DEBT_BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// A debt of a content that no row names after so long is forgotten: its writer died before naming it.
pub(crate) const NAMELESS_DEBT_AGE: Duration = Duration::from_secs(900);
/// Flow-control window of one stream: two chunks, so that one travels while one is written.
pub const STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// Flow-control window of a connection: several streams at full speed.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Files that a scrub verifies before it pauses for as long as they took: it takes half of a disk at most.
pub(crate) const SCRUB_BATCH: usize = 16;
/// How old a file must be before it may be taken for one that nobody will name: far longer than any request takes from its last byte to
/// its name, so that a clock that is wrong by hours does no harm either.
pub const ORPHAN_AGE: Duration = Duration::from_secs(24 * 3600);
/// Files looked at in a walk for orphans before a pause, and how long that is: at most 200 reads of rows a second.
pub(crate) const ORPHAN_BATCH: (usize, Duration) = (20, Duration::from_millis(100));

const _: () = assert!(TENANT_WRITES < WRITES, "some places are always left to other tenants");
const _: () = assert!(ACK_COPIES <= COPIES, "an acknowledgement can't ask for more copies than there are");
const _: () = assert!(CHUNK_BYTES < u32::MAX as usize, "a chunk's length is framed in 32 bits and its highest value marks the footer");
