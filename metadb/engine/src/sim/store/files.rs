//! Sorted files of the simulated store: rows in the clear, a checksum behind them, the same bytes for the same rows.
//!
//! | part | bytes |
//! | --- | --- |
//! | start | `CSST` |
//! | rows | each: key length u32, key, value length u32, value |
//! | end | CRC32C of all before it, u32 |

use super::{Bound, EngineError, Shared, State, bounds, slot};
use crate::disk::Disk;
use crate::{BatchOp, Exported, FileExport, Replacement, Row, WriteBatch};
use bytes::{Buf as _, BufMut as _, Bytes};
use std::sync::Arc;

const START: [u8; 4] = *b"CSST";
/// One append of the disk.
const APPEND_BYTES: usize = 4 << 10;
/// Rows read before others get their turn.
const ROWS_PER_TURN: u64 = 64;

fn corrupt(name: &str, offset: usize, message: &str) -> EngineError {
    EngineError::Corrupt { path: name.to_owned(), offset: offset as u64, message: message.to_owned() }
}

fn put_sized(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_u32(u32::try_from(bytes.len()).expect("keys and values are far below 4 GiB"));
    out.put_slice(bytes);
}

/// See [`crate::Store::export`].
pub(super) async fn export(export: FileExport) -> Result<Exported, EngineError> {
    let FileExport { view, cf, range, disk, name, max_bytes } = export;
    let mut exported = Exported { rows: 0, next: None };
    let (mut bytes, mut written, mut crc) = (START.to_vec(), 0_u64, 0);
    let mut append = |bytes: &mut Vec<u8>| {
        crc = crc32c::crc32c_append(crc, bytes);
        let appended = disk.append(&name, bytes);
        bytes.clear();
        appended.map(|()| crc)
    };
    for row in view.cursor(cf, &range.start..&range.end, false) {
        let (key, value) = row?;
        if exported.rows > 0 && written + bytes.len() as u64 >= max_bytes {
            exported.next = Some(key);
            break;
        }
        put_sized(&mut bytes, &key);
        put_sized(&mut bytes, &value);
        exported.rows += 1;
        if bytes.len() >= APPEND_BYTES {
            written += bytes.len() as u64;
            append(&mut bytes)?;
        }
        if exported.rows.is_multiple_of(ROWS_PER_TURN) {
            tokio::task::yield_now().await;
        }
    }
    if exported.rows > 0 {
        let crc = append(&mut bytes)?;
        disk.append(&name, &crc.to_be_bytes())?;
    }
    Ok(exported)
}

/// The rows of a file.
fn read(disk: &dyn Disk, name: &str) -> Result<Vec<Row>, EngineError> {
    let length = disk.len(name)?.unwrap_or(0);
    let bytes = disk.read(name, 0, usize::try_from(length).unwrap_or(usize::MAX))?;
    let Some((content, end)) = bytes.split_last_chunk::<4>() else { return Err(corrupt(name, 0, "too short")) };
    if crc32c::crc32c(content) != u32::from_be_bytes(*end) {
        return Err(corrupt(name, 0, "fails its checksum"));
    }
    if !content.starts_with(&START) {
        return Err(corrupt(name, 0, "no sorted file"));
    }
    let mut rest = bytes.slice(START.len()..content.len());
    let mut rows: Vec<Row> = Vec::new();
    while !rest.is_empty() {
        let mut sized = || -> Option<Bytes> {
            let length = usize::try_from(rest.try_get_u32().ok()?).ok()?;
            (length <= rest.len()).then(|| rest.split_to(length))
        };
        let row = sized().zip(sized()).ok_or_else(|| corrupt(name, content.len(), "ends inside a row"))?;
        if rows.last().is_some_and(|(last, _)| *last >= row.0) {
            return Err(corrupt(name, 0, "rows out of order"));
        }
        rows.push(row);
    }
    Ok(rows)
}

/// The deletion of all that the ranges hold.
pub(super) fn emptying(parts: &[Replacement], state: &State) -> WriteBatch {
    let mut batch = WriteBatch::default();
    for Replacement { cf, range, .. } in parts {
        let end = if range.end.is_empty() {
            let last = state.live[slot(*cf)].last_key_value().map(|(key, _)| key.to_vec()).unwrap_or_default();
            [&last[..], &[0]].concat().into()
        } else {
            range.end.clone()
        };
        if state.live[slot(*cf)].range::<[u8], _>(bounds(&range.start, &end)).next().is_some() {
            batch.delete_range(*cf, range.start.clone(), end);
        }
    }
    batch
}

/// Takes the files of a part in: all of them, visible and durable at once.
pub(super) fn take_in(shared: &Arc<Shared>, life: u64, disk: &dyn Disk, part: &Replacement) -> Result<(), EngineError> {
    let mut rows: Vec<Row> = Vec::new();
    for name in &part.files {
        let next = read(disk, name)?;
        if rows.last().zip(next.first()).is_some_and(|((last, _), (first, _))| last >= first) {
            return Err(corrupt(name, 0, "overlaps the file before it"));
        }
        rows.extend(next);
    }
    let mut state = shared.state.write();
    if state.life != life {
        return Err(EngineError::Stopped { message: "the machine went down".to_owned() });
    }
    state.ready()?;
    assert!(!state.unflushed.iter().any(|(_, batch)| touches(batch, part)), "somebody else wrote to a range that is being replaced");
    state.now += 1;
    for (key, value) in rows {
        state.durable[slot(part.cf)].insert(key.clone(), value.clone());
        state.bad_rows.remove(&(part.cf, key.clone()));
        state.set(part.cf, &key, Some(value));
    }
    Ok(())
}

fn touches(batch: &WriteBatch, part: &Replacement) -> bool {
    let upper = if part.range.end.is_empty() { Bound::Unbounded } else { Bound::Excluded(&part.range.end[..]) };
    let inside = |key: &Bytes| std::ops::RangeBounds::<[u8]>::contains(&(Bound::Included(&part.range.start[..]), upper), &key[..]);
    batch.ops().iter().any(|(cf, op)| {
        *cf == part.cf
            && match op {
                BatchOp::Put(key, _) | BatchOp::Delete(key) => inside(key),
                BatchOp::DeleteRange(start, end) => {
                    start < end && (inside(start) || (*start < part.range.start && *end > part.range.start))
                }
            }
    })
}
