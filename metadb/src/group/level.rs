//! The feature level by which this node's leaders propose.

use metadb_proto::level::{NEWEST, OLDEST};
use metadb_proto::{Error, v1};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// A node that has just started is told the cluster's level within a round of the reconciler.
const TOLD_WITHIN: Duration = Duration::from_millis(500);

/// A level that only rises. One cell for all groups of a node; clones share it.
///
/// A node that has not been told starts at the oldest that it knows, which every node of the cluster can judge by: nothing is wrong with
/// proposals of a lower level, they only lack what the newer levels brought.
#[derive(Debug, Clone)]
pub(crate) struct LevelInForce(Arc<AtomicU16>);

impl Default for LevelInForce {
    fn default() -> Self {
        LevelInForce(Arc::new(AtomicU16::new(OLDEST)))
    }
}

impl LevelInForce {
    /// As it is now.
    pub(crate) fn get(&self) -> u16 {
        self.0.load(Ordering::Acquire)
    }

    /// Raises it, and says what it is now.
    pub(crate) fn raise(&self, request: &v1::RaiseLevelRequest) -> Result<u16, Error> {
        let level = metadb_proto::level::read("feature_level", request.feature_level)?;
        if level > NEWEST {
            let limit = format!("at most {NEWEST}, the newest that this build knows; install the newer build on this node");
            return Err(Error::invalid("feature_level", limit, level.to_string()));
        }
        Ok(self.0.fetch_max(level, Ordering::AcqRel).max(level))
    }

    /// Whether a command of a level may be proposed.
    pub(crate) fn allows(&self, needed: u16) -> Result<(), Error> {
        let level = self.get();
        if needed <= level {
            return Ok(());
        }
        let message = format!(
            "the request needs feature level {needed}, this node knows of {level}: it is raised when every node of the cluster runs the newer build"
        );
        Err(Error::unavailable(message, TOLD_WITHIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_only_rises_and_never_past_what_the_build_knows() {
        let level = LevelInForce::default();
        let raise = |feature_level| level.raise(&v1::RaiseLevelRequest { feature_level });
        assert_eq!(level.get(), OLDEST);
        level.allows(OLDEST).expect("known");
        assert!(matches!(level.allows(NEWEST + 1), Err(Error::Unavailable { .. })));
        assert_eq!(raise(u32::from(NEWEST)), Ok(NEWEST));
        assert_eq!(raise(0), Ok(NEWEST), "a late message changes nothing");
        assert!(matches!(raise(u32::from(NEWEST) + 1), Err(Error::Invalid { .. })));
        assert_eq!(level.clone().get(), NEWEST);
    }
}
