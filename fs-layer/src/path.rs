//! Paths: names joined by `/`, from the root. No I/O.
//!
//! Empty segments are skipped, as everywhere. Behind a flat folder the rest of a path is one key, slashes included; which folder is flat is
//! known only after the walk, so a path keeps where each segment begins.

use crate::limits::{DEPTH, PATH_BYTES};
use crate::{FolderKind, name};
use metadb_proto::Error;

/// A path taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path<'a> {
    text: &'a str,
    segments: Vec<(usize, &'a str)>,
}

impl<'a> Path<'a> {
    /// Takes a path apart, without judging its names.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is too long or too deep.
    pub fn parse(text: &'a str) -> Result<Self, Error> {
        if text.len() > PATH_BYTES {
            return Err(Error::invalid("path", format!("at most {PATH_BYTES} bytes"), format!("{} bytes", text.len())));
        }
        let mut segments = Vec::new();
        let mut at = 0;
        for segment in text.split('/') {
            if !segment.is_empty() {
                segments.push((at, segment));
            }
            at += segment.len() + 1;
        }
        Ok(Path { text, segments })
    }

    /// Whether it names the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.segments.is_empty()
    }

    /// How many names it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.segments.len()
    }

    /// Whether it has no names: the root.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// The name at a position.
    #[must_use]
    pub fn segment(&self, index: usize) -> Option<&'a str> {
        self.segments.get(index).map(|(_, segment)| *segment)
    }

    /// All from a position on, as it was given: the key, if what is before it is a flat folder.
    #[must_use]
    pub fn rest(&self, index: usize) -> Option<&'a str> {
        self.segments.get(index).and_then(|(at, _)| self.text.get(*at..))
    }

    /// The canonical forms of the names, as far as a tree folder takes them.
    #[must_use]
    pub fn canonical_segments(&self) -> Vec<String> {
        self.segments.iter().map_while(|(_, segment)| name::canonical("path", FolderKind::Tree, segment).ok()).take(DEPTH).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_and_the_rest_of_a_key() {
        let path = Path::parse("//Bucket/a//B/").expect("valid");
        assert_eq!(path.canonical_segments(), ["bucket", "a", "b"]);
        assert_eq!((path.segment(0), path.rest(1), path.len()), (Some("Bucket"), Some("a//B/"), 3));
        assert!(Path::parse("/").expect("valid").is_root() && Path::parse("").expect("valid").is_root());
        assert_eq!(Path::parse("a/../b").expect("judged later").canonical_segments(), ["a"]);
        assert!(Path::parse(&"a".repeat(PATH_BYTES + 1)).is_err());
    }
}
