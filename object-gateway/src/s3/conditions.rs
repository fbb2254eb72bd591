//! Conditional requests. Pure: conditions and an object in, a verdict out. RFC 9110 §13.2.2 tells the order.

use super::error::refuse;
use super::metadata::timestamp;
use fs_layer::{FileInfo, Precondition};
use s3s::dto::{ETag, ETagCondition, Timestamp};
use s3s::{S3ErrorCode, S3Result};

/// The conditions of a read or of a copy's source.
#[derive(Debug, Clone, Default)]
pub(crate) struct Conditions {
    pub(crate) if_match: Option<ETagCondition>,
    pub(crate) if_none_match: Option<ETagCondition>,
    pub(crate) if_modified_since: Option<Timestamp>,
    pub(crate) if_unmodified_since: Option<Timestamp>,
}

impl Conditions {
    /// For a read: `NotModified` where the client has what there is.
    pub(crate) fn check_read(&self, info: &FileInfo) -> S3Result<()> {
        self.check(info, S3ErrorCode::NotModified)
    }

    /// For the source of a copy: every failure is one of the precondition.
    pub(crate) fn check_source(&self, info: &FileInfo) -> S3Result<()> {
        self.check(info, S3ErrorCode::PreconditionFailed)
    }

    fn check(&self, info: &FileInfo, unchanged: S3ErrorCode) -> S3Result<()> {
        let failed = |what: &str| {
            Err(refuse(S3ErrorCode::PreconditionFailed, format!("At least one of the pre-conditions you specified did not hold: {what}")))
        };
        let unmodified_since = |since: &Timestamp| seconds(info.modified_at_ms) <= unix_seconds(since);
        match (&self.if_match, &self.if_unmodified_since) {
            (Some(condition), _) if !matches(condition, info) => return failed("If-Match"),
            (None, Some(since)) if !unmodified_since(since) => return failed("If-Unmodified-Since"),
            _ => {}
        }
        let is_unchanged = match (&self.if_none_match, &self.if_modified_since) {
            (Some(condition), _) => matches(condition, info),
            (None, Some(since)) => unmodified_since(since),
            (None, None) => false,
        };
        if is_unchanged {
            let mut error = refuse(unchanged, "At least one of the pre-conditions you specified did not hold: the object is not newer");
            error.set_headers(validators(info));
            return Err(error);
        }
        Ok(())
    }
}

fn validators(info: &FileInfo) -> http::HeaderMap {
    let etag = ETag::Strong(info.etag.clone()).to_http_header().ok();
    etag.into_iter().map(|value| (http::header::ETAG, value)).collect()
}

fn matches(condition: &ETagCondition, info: &FileInfo) -> bool {
    match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(etag) => etag.value() == info.etag,
    }
}

fn seconds(unix_ms: u64) -> i64 {
    i64::try_from(unix_ms / 1000).unwrap_or(i64::MAX)
}

fn unix_seconds(timestamp: &Timestamp) -> i64 {
    time::OffsetDateTime::from(timestamp.clone()).unix_timestamp()
}

/// The condition of a write.
pub(crate) fn precondition(if_match: Option<&ETagCondition>, if_none_match: Option<&ETagCondition>) -> S3Result<Precondition> {
    let unsupported = |what: &str| {
        Err(refuse(S3ErrorCode::NotImplemented, format!("A header you provided implies functionality that is not implemented: {what}")))
    };
    match (if_match, if_none_match) {
        (None, None) => Ok(Precondition::None),
        (None, Some(ETagCondition::Any)) => Ok(Precondition::Absent),
        (Some(ETagCondition::ETag(etag)), None) => Ok(Precondition::EtagIs(etag.value().to_owned())),
        (None, Some(ETagCondition::ETag(_))) => unsupported("If-None-Match with an ETag"),
        (Some(ETagCondition::Any), None) => Ok(Precondition::Exists),
        (Some(_), Some(_)) => unsupported("If-Match together with If-None-Match"),
    }
}

/// When it was modified, and its ETag, as S3 tells them.
pub(crate) fn etag(info_etag: &str) -> Option<ETag> {
    (!info_etag.is_empty()).then(|| ETag::Strong(info_etag.to_owned()))
}

/// When an object was modified.
pub(crate) fn last_modified(info: &FileInfo) -> Option<Timestamp> {
    timestamp(info.modified_at_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use s3s::dto::TimestampFormat;

    fn object() -> FileInfo {
        FileInfo {
            id: 5,
            kind: fs_layer::NodeKind::File,
            parent: 1,
            name: "k".into(),
            owner: String::new(),
            created_at_ms: 0,
            modified_at_ms: 1_000_500,
            version: 1,
            size: 0,
            etag: "abc".into(),
            content_type: String::new(),
            attributes: Default::default(),
            author: String::new(),
            content: fs_layer::Content::default(),
        }
    }

    fn tag(text: &str) -> Option<ETagCondition> {
        Some(text.parse().expect("a condition"))
    }

    fn at(seconds: u32) -> Option<Timestamp> {
        Some(Timestamp::parse(TimestampFormat::EpochSeconds, &seconds.to_string()).expect("a time"))
    }

    fn verdict(conditions: Conditions) -> String {
        conditions.check_read(&object()).err().map_or("ok".into(), |e| e.code().as_str().to_owned())
    }

    #[test]
    fn reads() {
        let none = Conditions::default;
        assert_eq!(verdict(none()), "ok");
        assert_eq!(verdict(Conditions { if_match: tag("\"abc\""), ..none() }), "ok");
        assert_eq!(verdict(Conditions { if_match: tag("\"other\""), ..none() }), "PreconditionFailed");
        assert_eq!(verdict(Conditions { if_match: tag("*"), ..none() }), "ok");
        assert_eq!(verdict(Conditions { if_none_match: tag("\"abc\""), ..none() }), "NotModified");
        assert_eq!(verdict(Conditions { if_none_match: tag("\"other\""), if_modified_since: at(2000), ..none() }), "ok");
        assert_eq!(verdict(Conditions { if_modified_since: at(1000), ..none() }), "NotModified");
        assert_eq!(verdict(Conditions { if_modified_since: at(999), ..none() }), "ok");
        assert_eq!(verdict(Conditions { if_unmodified_since: at(1000), ..none() }), "ok");
        assert_eq!(verdict(Conditions { if_unmodified_since: at(999), ..none() }), "PreconditionFailed");
        assert_eq!(verdict(Conditions { if_match: tag("\"abc\""), if_unmodified_since: at(999), ..none() }), "ok");
        let source = Conditions { if_none_match: tag("\"abc\""), ..none() }.check_source(&object()).expect_err("the same");
        assert_eq!(source.code().as_str(), "PreconditionFailed");
    }

    #[test]
    fn writes() {
        let of = |m: &str, n: &str| {
            let (m, n) = ((!m.is_empty()).then(|| tag(m)).flatten(), (!n.is_empty()).then(|| tag(n)).flatten());
            precondition(m.as_ref(), n.as_ref()).map_err(|e| e.code().as_str().to_owned())
        };
        assert_eq!(of("", ""), Ok(Precondition::None));
        assert_eq!(of("", "*"), Ok(Precondition::Absent));
        assert_eq!(of("*", ""), Ok(Precondition::Exists));
        assert_eq!(of("\"e\"", ""), Ok(Precondition::EtagIs("e".into())));
        assert_eq!(of("", "\"e\""), Err("NotImplemented".into()));
        assert_eq!(of("\"e\"", "*"), Err("NotImplemented".into()));
    }
}
