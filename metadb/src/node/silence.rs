//! Replicas that were made anew in the place of one that was lost, and catch up: they neither vote nor stand for election yet.
//!
//! Such a replica replays the log from old memberships on, in which this node may count for a majority, though it has forgotten what it
//! promised then. It is silent until it has applied what its leader had when it was made: from there on it knows who the members are.
//!
//! A file of the spool, `silent-<group>`: the index as 8 big-endian bytes, twice, so that rot is told.

use metadb_engine::EngineError;
use metadb_engine::disk::Disk;

const PREFIX: &str = "silent-";
const DRAFT: &str = ".draft";

fn name(group_id: u32) -> String {
    format!("{PREFIX}{group_id:010}")
}

/// Up to which index a replica is silent; 0: it is not. One whose file does not read back stays silent.
pub(crate) fn load(spool: &dyn Disk, group_id: u32) -> Result<u64, EngineError> {
    let name = name(group_id);
    if spool.len(&name)?.is_none() {
        return Ok(0);
    }
    let bytes = spool.read(&name, 0, 16)?;
    let number = |at: usize| bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()).map(|bytes| u64::from_be_bytes(*bytes));
    Ok(number(0).filter(|first| number(8) == Some(*first)).unwrap_or(u64::MAX))
}

/// Makes a replica silent, durably.
pub(crate) fn keep(spool: &dyn Disk, group_id: u32, through: u64) -> Result<(), EngineError> {
    let (name, draft) = (name(group_id), name(group_id) + DRAFT);
    spool.remove(&draft)?;
    spool.append(&draft, &[through.to_be_bytes(), through.to_be_bytes()].concat())?;
    spool.sync(&draft)?;
    spool.rename(&draft, &name)
}

/// It knows enough.
pub(crate) fn end(spool: &dyn Disk, group_id: u32) -> Result<(), EngineError> {
    spool.remove(&name(group_id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use metadb_engine::sim::{Kind, SimDisk};

    #[test]
    fn silence_outlives_a_crash_and_rot() {
        let disk = SimDisk::new(1);
        assert_eq!(load(&*disk, 3).expect("it reads"), 0);
        keep(&*disk, 3, 77).expect("it keeps");
        disk.crash(Kind::PowerLoss);
        assert_eq!(load(&*disk, 3).expect("it reads"), 77);
        assert!(disk.flip(&name(3), 7, 1));
        assert_eq!(load(&*disk, 3).expect("it reads"), u64::MAX);
        end(&*disk, 3).expect("it ends");
        assert_eq!(load(&*disk, 3).expect("it reads"), 0);
    }
}
