//! What S3 keeps beside an object's bytes, as attributes of a version, and back.
//!
//! | attribute | what |
//! | --- | --- |
//! | `user.<name>` | user metadata, the header `x-amz-meta-<name>` |
//! | `http.<header>` | `cache-control`, `content-disposition`, `content-encoding`, `content-language`, `expires` |
//! | `checksum.<algorithm>` | a checksum of the whole object, base64 |

use super::digest::ALGORITHMS;
use super::error::refuse;
use super::limits::METADATA_BYTES;
use fs_layer::FileInfo;
use s3s::dto::{Checksum, Metadata, Timestamp, TimestampFormat};
use s3s::{S3ErrorCode, S3Result};
use std::collections::BTreeMap;

/// The headers that describe an object and come back with it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Described {
    pub(crate) content_type: Option<String>,
    pub(crate) cache_control: Option<String>,
    pub(crate) content_disposition: Option<String>,
    pub(crate) content_encoding: Option<String>,
    pub(crate) content_language: Option<String>,
    pub(crate) expires: Option<Timestamp>,
    pub(crate) metadata: Option<Metadata>,
}

/// What an object is, when nothing was said.
pub(crate) const DEFAULT_CONTENT_TYPE: &str = "binary/octet-stream";

impl Described {
    /// Content type and attributes.
    pub(crate) fn into_attributes(self) -> S3Result<(String, BTreeMap<String, String>)> {
        let mut attributes = BTreeMap::new();
        let bytes: usize = self.metadata.iter().flatten().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > METADATA_BYTES {
            let message =
                format!("Your metadata headers exceed the maximum allowed metadata size: {bytes} bytes, at most {METADATA_BYTES}");
            return Err(refuse(S3ErrorCode::MetadataTooLarge, message));
        }
        for (name, value) in self.metadata.into_iter().flatten() {
            attributes.insert(format!("user.{}", name.to_ascii_lowercase()), value);
        }
        let headers = [
            ("cache-control", self.cache_control),
            ("content-disposition", self.content_disposition),
            // The framing of the request is not the object's.
            ("content-encoding", self.content_encoding.and_then(|value| without_aws_chunked(&value))),
            ("content-language", self.content_language),
            ("expires", self.expires.as_ref().and_then(http_date)),
        ];
        for (name, value) in headers {
            if let Some(value) = value {
                attributes.insert(format!("http.{name}"), value);
            }
        }
        Ok((self.content_type.filter(|t| !t.is_empty()).unwrap_or_else(|| DEFAULT_CONTENT_TYPE.into()), attributes))
    }

    /// As it was when the object was put.
    pub(crate) fn of(info: &FileInfo) -> Self {
        let header = |name: &str| info.attributes.get(&format!("http.{name}")).cloned();
        let user = info.attributes.iter().filter_map(|(name, value)| Some((name.strip_prefix("user.")?.to_owned(), value.clone())));
        let metadata: Metadata = user.collect();
        let content_type = if info.content_type.is_empty() { DEFAULT_CONTENT_TYPE.to_owned() } else { info.content_type.clone() };
        Described {
            content_type: Some(content_type),
            cache_control: header("cache-control"),
            content_disposition: header("content-disposition"),
            content_encoding: header("content-encoding"),
            content_language: header("content-language"),
            expires: header("expires").and_then(|date| Timestamp::parse(TimestampFormat::HttpDate, &date).ok()),
            metadata: (!metadata.is_empty()).then_some(metadata),
        }
    }
}

/// Notes checksums among the attributes.
pub(crate) fn note_checksums(attributes: &mut BTreeMap<String, String>, checksums: &BTreeMap<&'static str, String>) {
    attributes.extend(checksums.iter().map(|(name, sum)| (format!("checksum.{name}"), sum.clone())));
}

/// The checksums among the attributes.
pub(crate) fn checksums_of(info: &FileInfo) -> Checksum {
    let sums = ALGORITHMS.iter().filter_map(|name| Some((*name, info.attributes.get(&format!("checksum.{name}"))?.clone())));
    super::digest::to_dto(&sums.collect())
}

/// A time in Unix milliseconds, as S3 tells it.
pub(crate) fn timestamp(unix_ms: u64) -> Option<Timestamp> {
    let nanos = i128::from(unix_ms) * 1_000_000;
    time::OffsetDateTime::from_unix_timestamp_nanos(nanos).ok().map(Timestamp::from)
}

fn http_date(timestamp: &Timestamp) -> Option<String> {
    let mut out = Vec::new();
    timestamp.format(TimestampFormat::HttpDate, &mut out).ok()?;
    String::from_utf8(out).ok()
}

fn without_aws_chunked(value: &str) -> Option<String> {
    let kept: Vec<&str> =
        value.split(',').map(str::trim).filter(|part| !part.is_empty() && !part.eq_ignore_ascii_case("aws-chunked")).collect();
    (!kept.is_empty()).then(|| kept.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_comes_back() {
        let expires = Timestamp::parse(TimestampFormat::HttpDate, "Sat, 21 Nov 2026 10:00:00 GMT").expect("a date");
        let described = Described {
            content_type: Some("text/plain".into()),
            content_encoding: Some("aws-chunked,gzip".into()),
            cache_control: Some("no-cache".into()),
            expires: Some(expires.clone()),
            metadata: Some([("Colour".to_owned(), "blue".to_owned())].into_iter().collect()),
            ..Default::default()
        };
        let (content_type, attributes) = described.into_attributes().expect("small");
        let info = FileInfo {
            id: 5,
            kind: fs_layer::NodeKind::File,
            parent: 1,
            name: "k".into(),
            owner: String::new(),
            created_at_ms: 0,
            modified_at_ms: 0,
            version: 1,
            size: 0,
            etag: String::new(),
            content_type,
            attributes,
            author: String::new(),
            content: fs_layer::Content::default(),
        };
        let back = Described::of(&info);
        assert_eq!(back.content_type.as_deref(), Some("text/plain"));
        assert_eq!(back.content_encoding.as_deref(), Some("gzip"));
        assert_eq!(back.cache_control.as_deref(), Some("no-cache"));
        assert_eq!(back.expires, Some(expires));
        assert_eq!(back.metadata.and_then(|m| m.get("colour").cloned()).as_deref(), Some("blue"));
    }

    #[test]
    fn too_much_metadata_is_refused() {
        let metadata: Metadata = [("a".to_owned(), "x".repeat(METADATA_BYTES))].into_iter().collect();
        let error = Described { metadata: Some(metadata), ..Default::default() }.into_attributes().expect_err("too large");
        assert_eq!(error.code().as_str(), "MetadataTooLarge");
        assert_eq!(without_aws_chunked("aws-chunked"), None);
    }
}
