//! Names: what is refused, and how two are compared.
//!
//! A name is kept as it was given and compared by its canonical form. In a tree folder that is `NFC(fold(NFD(name)))` with Unicode's full
//! case folding (the Unicode Standard, D145: canonical caseless matching), so `Été` and `ÉTÉ`, composed or not, are one name. In a flat
//! folder the canonical form is the name. No I/O here.

use crate::FolderKind;
use crate::limits::{FLAT_KEY_BYTES, TREE_NAME_BYTES};
use caseless::Caseless as _;
use metadb_proto::Error;
use unicode_normalization::UnicodeNormalization as _;

/// Longest part of a refused name that an error repeats, in characters.
const SHOWN: usize = 64;

/// Checks a name for a folder of this kind and gives its canonical form.
///
/// # Errors
/// [`Error::Invalid`], naming `field`.
pub fn canonical(field: &str, kind: FolderKind, name: &str) -> Result<String, Error> {
    check(field, kind, name)?;
    Ok(match kind {
        FolderKind::Tree => fold(name),
        FolderKind::Flat => name.to_owned(),
    })
}

/// The canonical form of any text, such as a prefix, in a folder of this kind. Not checked: it need not be a name.
#[must_use]
pub fn canonical_text(kind: FolderKind, text: &str) -> String {
    match kind {
        FolderKind::Tree => fold(text),
        FolderKind::Flat => text.to_owned(),
    }
}

/// A name from bytes of a protocol that does not promise UTF-8.
///
/// # Errors
/// [`Error::Invalid`], naming `field`.
pub fn from_bytes<'a>(field: &str, bytes: &'a [u8]) -> Result<&'a str, Error> {
    std::str::from_utf8(bytes).map_err(|error| {
        let at = format!(
            "byte {} begins no character in `{}`",
            error.valid_up_to(),
            String::from_utf8_lossy(bytes).chars().take(SHOWN).collect::<String>()
        );
        Error::invalid(field, "valid UTF-8", at)
    })
}

fn fold(name: &str) -> String {
    name.nfd().default_case_fold().nfc().collect()
}

fn check(field: &str, kind: FolderKind, name: &str) -> Result<(), Error> {
    let limit = match kind {
        FolderKind::Tree => TREE_NAME_BYTES,
        FolderKind::Flat => FLAT_KEY_BYTES,
    };
    if name.is_empty() || name.len() > limit {
        return Err(Error::invalid(field, format!("1 to {limit} bytes"), format!("{} bytes", name.len())));
    }
    if name.contains('\0') {
        return Err(Error::invalid(field, "without NUL", shown(name)));
    }
    if kind == FolderKind::Tree {
        if name == "." || name == ".." {
            return Err(Error::invalid(field, "neither `.` nor `..`", shown(name)));
        }
        if name.contains('/') {
            return Err(Error::invalid(field, "without `/`", shown(name)));
        }
    }
    Ok(())
}

fn shown(name: &str) -> String {
    format!("`{}`", name.chars().take(SHOWN).flat_map(char::escape_default).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tree(name: &str) -> Result<String, Error> {
        canonical("name", FolderKind::Tree, name)
    }

    #[test]
    fn one_name_however_it_is_typed() {
        for (a, b) in [("Été", "E\u{301}TE\u{301}"), ("straße", "STRASSE"), ("Ω", "ω"), ("\u{212b}", "a\u{30a}"), ("ΣΊΣΥΦΟΣ", "σίσυφος")]
        {
            assert_eq!(tree(a).expect("valid"), tree(b).expect("valid"), "{a} {b}");
        }
        assert_ne!(tree("a").expect("valid"), tree("ä").expect("valid"));
        assert_ne!(canonical("n", FolderKind::Flat, "A").expect("valid"), canonical("n", FolderKind::Flat, "a").expect("valid"));
    }

    #[test]
    fn bad_names_are_refused_with_field_limit_and_value() {
        let long = "é".repeat(128);
        for (bad, value) in
            [("", "0 bytes"), (".", "`.`"), ("..", "`..`"), ("a/b", "`a/b`"), ("a\0b", "`a\\u{0}b`"), (long.as_str(), "256 bytes")]
        {
            let Err(Error::Invalid { field, limit, value: told }) = tree(bad) else { panic!("{bad:?} is refused as invalid") };
            assert_eq!((field.as_str(), told.as_str()), ("name", value));
            assert!(!limit.is_empty());
        }
        tree(&"a".repeat(255)).expect("the longest");
        canonical("key", FolderKind::Flat, &"a/".repeat(512)).expect("the longest");
        for bad in ["a".repeat(1025), String::new(), "a\0".into()] {
            assert!(canonical("key", FolderKind::Flat, &bad).is_err());
        }
        assert!(matches!(from_bytes("name", b"ab\xff"), Err(Error::Invalid { field, limit, value })
            if field == "name" && limit == "valid UTF-8" && value.starts_with("byte 2")));
    }

    #[test]
    fn every_character_is_stable_and_grows_within_the_bound() {
        for c in (1..=u32::from(char::MAX)).filter_map(char::from_u32).filter(|c| *c != '/' && *c != '.') {
            let name = c.to_string();
            let once = tree(&name).expect("valid");
            assert!(once.len() <= name.len() * crate::limits::CANONICAL_GROWTH, "{c:?}");
            assert_eq!(fold(&once), once, "{c:?}");
            assert!(!once.is_empty() && !once.contains('\0') && !once.contains('/'), "{c:?}");
        }
    }

    proptest! {
        #[test]
        fn canonical_is_a_fixed_point_and_agrees_with_caseless_matching(a in "\\PC{1,20}", b in "\\PC{1,20}") {
            let (x, y) = (fold(&a), fold(&b));
            prop_assert_eq!(&fold(&x), &x);
            prop_assert_eq!(x == y, caseless::canonical_caseless_match_str(&a, &b));
            prop_assert_eq!(fold(&a.to_lowercase()) == x, caseless::canonical_caseless_match_str(&a.to_lowercase(), &a));
        }
    }
}
