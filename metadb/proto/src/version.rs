//! Versions: a hybrid logical clock in 64 bits, 48 of Unix milliseconds above 16 of counter.
//!
//! Kulkarni et al., "Logical Physical Clocks" (OPODIS 2014). A version is given to each commit; it rises strictly within a group.

/// A hybrid logical clock reading. Ordered as a number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

impl Version {
    /// Before every commit.
    pub const ZERO: Version = Version(0);
    /// After every commit.
    pub const MAX: Version = Version(u64::MAX);

    /// The first version of a millisecond. Milliseconds past 48 bits (the year 10889) are cut to the highest.
    #[must_use]
    pub fn from_unix_ms(unix_ms: u64) -> Self {
        Version(unix_ms.min((1 << 48) - 1) << 16)
    }

    /// The Unix milliseconds in it.
    #[must_use]
    pub fn unix_ms(self) -> u64 {
        self.0 >> 16
    }

    /// The version for the next commit: `proposed`, unless that would not rise.
    #[must_use]
    pub fn next(self, proposed: Version) -> Version {
        Version(proposed.0.max(self.0.saturating_add(1)))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Version;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn next_rises_and_follows_the_clock(last in 0..u64::MAX - 1, ms in 0..1u64 << 48) {
            let proposed = Version::from_unix_ms(ms);
            let next = Version(last).next(proposed);
            prop_assert!(next > Version(last) && next >= proposed);
            prop_assert_eq!(proposed.unix_ms(), ms);
        }
    }
}
