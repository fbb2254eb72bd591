//! What a tenant may be called.

use metadb_proto::Error;

/// Longest name, in bytes: what fits one label of a DNS name.
const NAME_BYTES: usize = 63;

/// Checks a tenant's name: 1 to 63 characters of `a-z 0-9 . _ -`, so that it can stand in a path, a host name and a shell word; the first
/// is a letter, a digit or `_`, so that it is never taken for a flag or for a hidden file.
///
/// # Errors
/// [`Error::Invalid`].
pub fn check_tenant_name(name: &str) -> Result<(), Error> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > NAME_BYTES || !name.chars().all(allowed) {
        let shown: String = name.chars().take(NAME_BYTES + 1).collect();
        return Err(Error::invalid("name", format!("1 to {NAME_BYTES} characters of a-z 0-9 . _ -"), format!("{shown:?}")));
    }
    if name.starts_with(['-', '.']) {
        return Err(Error::invalid("name", "a name that begins with one of a-z 0-9 _", format!("{name:?}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_words() {
        for good in ["a", "_x", "0-", "acme", "acme-2.eu_west", &"x".repeat(63)] {
            check_tenant_name(good).expect(good);
        }
        for bad in ["", "-x", "--yes", ".", "..", ".hidden", "Acme", "a b", "a/b", "ä", "a\0", &"x".repeat(64)] {
            assert!(matches!(check_tenant_name(bad), Err(Error::Invalid { .. })), "{bad:?}");
        }
    }
}
