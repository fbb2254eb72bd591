//! Pages of keys in the form of S3: encodings, tokens, limits. Pure.

use super::error::refuse;
use super::limits::LIST_KEYS;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use fs_layer::{Entry, Listing};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::dto::{CommonPrefix, ETag, EncodingType, Object, ObjectStorageClass};
use s3s::{S3ErrorCode, S3Result};

/// What `encoding-type=url` leaves as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/').remove(b'*');

/// How names are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Plain,
    Url,
}

impl Encoding {
    pub(crate) fn parse(encoding: Option<&EncodingType>) -> S3Result<Self> {
        match encoding.map(EncodingType::as_str) {
            None | Some("") => Ok(Encoding::Plain),
            Some(EncodingType::URL) => Ok(Encoding::Url),
            Some(_) => Err(refuse(S3ErrorCode::InvalidArgument, "Invalid Encoding Method specified in Request")),
        }
    }

    pub(crate) fn tell(self, name: &str) -> String {
        match self {
            Encoding::Plain => name.to_owned(),
            Encoding::Url => utf8_percent_encode(name, PLAIN).to_string(),
        }
    }
}

/// How many to list: what was asked, within bounds.
pub(crate) fn limit(name: &str, asked: Option<i32>, most: usize) -> S3Result<usize> {
    let Some(asked) = asked else { return Ok(most) };
    let asked = usize::try_from(asked)
        .map_err(|_| refuse(S3ErrorCode::InvalidArgument, format!("Argument {name} must be an integer between 0 and 2147483647")))?;
    Ok(asked.min(most))
}

/// As in the answer.
pub(crate) fn told(limit: usize) -> Option<i32> {
    i32::try_from(limit).ok()
}

/// How many keys of a listing.
pub(crate) fn keys(asked: Option<i32>) -> S3Result<usize> {
    limit("max-keys", asked, LIST_KEYS)
}

/// A continuation as a token: opaque, and safe in a URL and in XML.
pub(crate) fn token(continuation: &str) -> String {
    BASE64.encode(continuation)
}

/// And back.
pub(crate) fn continuation(token: &str) -> S3Result<String> {
    let bytes = BASE64.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    bytes.ok_or_else(|| refuse(S3ErrorCode::InvalidArgument, "The continuation token provided is incorrect"))
}

/// The keys of a page.
pub(crate) fn objects(entries: &[Entry], encoding: Encoding) -> Vec<Object> {
    entries
        .iter()
        .map(|entry| Object {
            key: Some(encoding.tell(&entry.name)),
            size: i64::try_from(entry.size).ok(),
            e_tag: Some(ETag::Strong(entry.etag.clone())),
            last_modified: super::metadata::timestamp(entry.modified_at_ms),
            storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
            ..Default::default()
        })
        .collect()
}

/// The common prefixes of a page.
pub(crate) fn prefixes(prefixes: &[String], encoding: Encoding) -> Vec<CommonPrefix> {
    prefixes.iter().map(|prefix| CommonPrefix { prefix: Some(encoding.tell(prefix)) }).collect()
}

/// The last key or common prefix of a page.
pub(crate) fn last(listing: &Listing) -> Option<&str> {
    let key = listing.entries.last().map(|entry| entry.name.as_str());
    key.max(listing.common_prefixes.last().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_as_clients_decode_them() {
        let url = EncodingType::from_static(EncodingType::URL);
        assert_eq!(Encoding::parse(Some(&url)).expect("known").tell("a b/ü+%&.~"), "a%20b/%C3%BC%2B%25%26.~");
        assert_eq!(Encoding::parse(None).expect("none").tell("a b"), "a b");
        assert!(Encoding::parse(Some(&EncodingType::from_static("rot13"))).is_err());
    }

    #[test]
    fn limits_and_tokens() {
        assert_eq!(keys(None).ok(), Some(1000));
        assert_eq!(keys(Some(0)).ok(), Some(0));
        assert_eq!(keys(Some(5000)).ok(), Some(1000));
        assert!(keys(Some(-1)).is_err());
        assert_eq!(continuation(&token("a/ü\u{1}")).ok().as_deref(), Some("a/ü\u{1}"));
        assert!(continuation("no token!").is_err());
    }

    #[test]
    fn the_last_of_a_page_is_a_key_or_a_prefix() {
        let mut listing = Listing { common_prefixes: vec!["a/".into(), "c/".into()], ..Default::default() };
        assert_eq!(last(&listing), Some("c/"));
        listing.common_prefixes.clear();
        assert_eq!(last(&listing), None);
    }
}
