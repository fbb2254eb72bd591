//! Feature levels: how nodes of different builds stay one cluster.
//!
//! What an entry of a group's log does must be the same on every replica, so the leader says in it by the rules of which level it is to be
//! judged, and a build that does not know that level stops the replica instead of guessing. Each build knows the levels from [`OLDEST`] to
//! [`NEWEST`]. The level in force stands in the cluster's record in the directory; the reconciler raises it when every node of the directory
//! runs and knows a newer one, and tells it to the nodes. It never sinks: from then on a node of an older build can't join.
//!
//! A new limit, command, condition or operation that apply judges, and a new format of anything that one node writes and another reads,
//! comes with a new level and is not used below it.
//!
//! | level | since it |
//! | --- | --- |
//! | 1 | what the first builds did |
//! | 2 | what a transaction reads, and what an entry reads and makes, is bounded in bytes; range-unchanged conditions share one bound |
//! | 3 | the heartbeats of all groups between two nodes share a message; nodes leave, groups have chosen members |
//! | 4 | the replicas of a group compare their states: an entry has each of them hash the same slice |
//! | 5 | shards are split, merged and moved |
//! | 6 | nodes are drained; groups and tenants belong to pods |

use crate::Error;

/// The oldest level that this build can judge by.
pub const OLDEST: u16 = 1;
/// The newest level that this build can judge by.
pub const NEWEST: u16 = 6;
/// Since this level nodes understand heartbeats of many groups in one message, and records of what members a cluster shall have.
pub const MEMBERS: u16 = 3;
/// Since this level replicas compare their states.
pub const COMPARE: u16 = 4;
/// Since this level groups understand the steps of splits, merges and moves.
pub const SHARDS: u16 = 5;
/// Since this level nodes understand records of where things shall be: nodes that are drained, pods.
pub const PLACEMENT: u16 = 6;

const _: () = assert!(OLDEST >= 1 && OLDEST <= NEWEST, "a build knows at least one level");

/// A level as records and messages have it. Absent: the first, which did not tell.
///
/// # Errors
/// [`Error::Invalid`] for what is none.
pub fn read(field: &str, level: u32) -> Result<u16, Error> {
    u16::try_from(level.max(1)).map_err(|_| Error::invalid(field, "a feature level of 16 bits", level.to_string()))
}

/// Whether a build that knows the levels from `oldest` to `newest` may be in a cluster at `level`.
///
/// # Errors
/// [`Error::Invalid`], which says which build to install.
pub fn check_build(oldest: u32, newest: u32, level: u32) -> Result<(), Error> {
    let (oldest, newest, level) = (oldest.max(1), newest.max(1), level.max(1));
    if (oldest..=newest).contains(&level) {
        return Ok(());
    }
    let what = if newest < level {
        "a newer build: this one is too old for the cluster"
    } else {
        "an older build first, and upgrade step by step"
    };
    let value = format!("this build knows {oldest} to {newest}");
    Err(Error::invalid("feature level", format!("{level}, the level that the cluster is at; install {what}"), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_told_whether_it_is_too_old_or_too_new() {
        check_build(1, 2, 2).expect("within");
        check_build(0, 0, 0).expect("the first builds told nothing");
        let told = |result: Result<(), Error>| result.expect_err("refused").to_string();
        assert!(told(check_build(1, 1, 2)).contains("newer build"));
        assert!(told(check_build(3, 4, 2)).contains("older build"));
        assert_eq!(read("level", 0), Ok(1));
        read("level", 1 << 16).expect_err("too large");
    }
}
