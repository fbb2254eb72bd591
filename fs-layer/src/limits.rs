//! Every limit of the namespace, in one place, with its unit and reason.

use metadb_proto::limits as metadb;
use std::time::Duration;

/// Longest name in a tree folder, in bytes as given: what POSIX file systems and sync clients expect.
pub const TREE_NAME_BYTES: usize = 255;
/// Longest key in a flat folder, in bytes: as S3.
pub const FLAT_KEY_BYTES: usize = 1024;
/// How much longer a name can get by folding and normalising: full case folding triples the bytes of a character at most, composing
/// (of decomposed text) triples them at most.
pub const CANONICAL_GROWTH: usize = 9;
/// Deepest folder, in steps from the root: so deep a path is still one walk, and a cycle check is bounded.
pub const DEPTH: usize = metadb::WALK_SEGMENTS;
/// Longest path, in bytes: as many bytes as a flat key and a usual path ahead of it need.
pub const PATH_BYTES: usize = 8 << 10;

/// Most entries and common prefixes in a page of a listing: as many rows as metadb gives in one.
pub const LIST_PAGE: usize = metadb::PAGE_ROWS;
/// Entries in a page of a listing that names no limit: as S3.
pub const LIST_DEFAULT: usize = 1000;
/// Rows read at once while a delimiter is likely to skip most of them.
pub const LIST_PROBE: usize = 64;
/// Longest delimiter, in bytes.
pub const DELIMITER_BYTES: usize = 64;

/// Most content parts of a version: as many as S3 gives an upload. A version row of so many stays below the limit of a value.
pub const CONTENT_PARTS: usize = 10_000;
/// Most content parts that one put names for the first time: each costs a condition and an operation. More come through an upload.
pub const NEW_CONTENT_PARTS: usize = 1000;
/// Highest part number of an upload: as S3.
pub const PART_NUMBER: u32 = 10_000;
/// Most copies that are remembered of a content.
pub const COPIES: usize = 16;
/// Most attributes (user metadata) of a version, in bytes of keys and values: generous beside S3's 2 KiB.
pub const ATTRIBUTES_BYTES: usize = 8 << 10;
/// Longest content type, etag or author, in bytes.
pub const TEXT_BYTES: usize = 1024;
/// Most names in one deletion of many: as S3.
pub const DELETE_MANY: usize = 1000;
/// Names deleted in one transaction: at three rows and one condition each of at most some 1.2 KiB, well below the limits of one.
pub const DELETE_CHUNK: usize = 250;

/// Ids drawn from the tenant's counter at once, so that creating files does not contend for it.
pub const ID_BLOCK: u64 = 1024;
/// Attempts of an operation whose conditions keep failing.
pub const ATTEMPTS: u32 = 64;
/// Wait before the second attempt; doubles up to [`BACKOFF_MAX`].
pub const BACKOFF_MIN: Duration = Duration::from_millis(1);
/// Longest wait between two attempts.
pub const BACKOFF_MAX: Duration = Duration::from_millis(100);
/// Request ids are kept in slots of this length, so that old ones are found without an index.
pub const REQUEST_SLOT: Duration = Duration::from_secs(300);
/// Slots behind the present one that are kept.
pub const REQUEST_SLOTS_KEPT: u64 = 2;
/// Length of a request id, in bytes.
pub const REQUEST_ID_BYTES: usize = metadb::REQUEST_ID_BYTES;

const _: () = assert!(TREE_NAME_BYTES * CANONICAL_GROWTH + 64 <= metadb::KEY_BYTES, "the key of an entry must hold any canonical name");
const _: () = assert!(FLAT_KEY_BYTES + 64 <= metadb::KEY_BYTES, "the key of an entry must hold any flat key");
const _: () = assert!(CONTENT_PARTS * 96 + ATTRIBUTES_BYTES + 4 * TEXT_BYTES <= metadb::VALUE_BYTES, "a version row must fit a value");
const _: () = assert!(2 * NEW_CONTENT_PARTS + 16 <= metadb::TRANSACTION_OPERATIONS, "a put must fit a transaction");
const _: () = assert!(DELETE_CHUNK * (4 * (FLAT_KEY_BYTES + 64) + 2 * FLAT_KEY_BYTES) <= metadb::TRANSACTION_BYTES, "a chunk must fit");
