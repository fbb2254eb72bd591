//! Checksums of a body as it passes: MD5 for the ETag, and what the client announced, in headers or in trailers.
//!
//! They are judged when the last byte has passed, before that end is told to the content store: a body that is not what it says fails
//! like one that breaks off, and nothing is stored.

use super::error::{bad_body, refuse, refuse_as};
use super::limits::BODY_IDLE_TIMEOUT;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures::Stream;
use http::HeaderMap;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::{Checksum, StreamingBlob};
use s3s::{S3Error, S3ErrorCode, S3Result, TrailingHeaders};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::time::{Instant, Sleep};

/// The checksum algorithms of S3, by the names that its headers use.
pub(crate) const ALGORITHMS: [&str; 5] = ["crc32", "crc32c", "crc64nvme", "sha1", "sha256"];

/// What a body must be.
#[derive(Debug, Default)]
pub(crate) struct Announced {
    md5: Option<[u8; 16]>,
    /// Checksums by algorithm, in base64.
    headers: BTreeMap<&'static str, String>,
    /// Algorithms whose checksums come in the trailer.
    trailers: Vec<&'static str>,
    /// An algorithm that is computed although nothing is announced.
    wanted: Option<&'static str>,
}

fn algorithm(name: &str) -> Option<&'static str> {
    ALGORITHMS.into_iter().find(|known| known.eq_ignore_ascii_case(name))
}

impl Announced {
    /// Reads what the headers announce.
    pub(crate) fn from_headers(headers: &HeaderMap) -> S3Result<Self> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let mut announced = Announced::default();
        if let Some(value) = text("content-md5") {
            let md5 = BASE64.decode(value).ok().and_then(|bytes| bytes.try_into().ok());
            announced.md5 = Some(md5.ok_or_else(|| refuse(S3ErrorCode::InvalidDigest, "The Content-MD5 you specified was invalid."))?);
        }
        for name in ALGORITHMS {
            if let Some(value) = text(&format!("x-amz-checksum-{name}")) {
                if BASE64.decode(value).map(|bytes| bytes.len()) != Ok(digest_len(name)) {
                    return Err(refuse(S3ErrorCode::InvalidRequest, format!("Value for x-amz-checksum-{name} header is invalid.")));
                }
                announced.headers.insert(name, value.to_owned());
            }
        }
        for trailer in headers.get_all("x-amz-trailer").iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')) {
            if let Some(name) = trailer.trim().to_ascii_lowercase().strip_prefix("x-amz-checksum-").map(algorithm) {
                let unknown = || {
                    refuse(
                        S3ErrorCode::InvalidRequest,
                        format!("The value specified in the x-amz-trailer header is not supported: {trailer}"),
                    )
                };
                announced.trailers.push(name.ok_or_else(unknown)?);
            }
        }
        if announced.headers.len() + announced.trailers.len() > 1 {
            return Err(refuse(
                S3ErrorCode::InvalidRequest,
                "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
            ));
        }
        if let Some(value) = text("x-amz-sdk-checksum-algorithm") {
            let unknown = || refuse(S3ErrorCode::InvalidRequest, format!("Checksum algorithm provided is unsupported: {value}"));
            announced.wanted = Some(algorithm(value).ok_or_else(unknown)?);
        }
        Ok(announced)
    }

    fn hasher(&self) -> ChecksumHasher {
        let mut hasher = ChecksumHasher::default();
        for name in self.headers.keys().chain(&self.trailers).copied().chain(self.wanted) {
            match name {
                "crc32" => hasher.crc32 = Some(s3s::crypto::Crc32::new()),
                "crc32c" => hasher.crc32c = Some(s3s::crypto::Crc32c::new()),
                "crc64nvme" => hasher.crc64nvme = Some(s3s::crypto::Crc64Nvme::new()),
                "sha1" => hasher.sha1 = Some(s3s::crypto::Sha1::new()),
                _ => hasher.sha256 = Some(s3s::crypto::Sha256::new()),
            }
        }
        hasher
    }
}

fn digest_len(algorithm: &str) -> usize {
    match algorithm {
        "crc64nvme" => 8,
        "sha1" => 20,
        "sha256" => 32,
        _ => 4,
    }
}

/// What a body was.
#[derive(Debug, Clone, Default)]
pub(crate) struct Digests {
    /// MD5 in hex: the ETag of a simple object.
    pub(crate) md5: String,
    /// Checksums that were asked for, by algorithm, in base64.
    pub(crate) checksums: BTreeMap<&'static str, String>,
}

/// The checksums in the form of an S3 output, field by field.
pub(crate) fn to_dto(checksums: &BTreeMap<&'static str, String>) -> Checksum {
    let get = |name: &str| checksums.get(name).cloned();
    Checksum {
        checksum_crc32: get("crc32"),
        checksum_crc32c: get("crc32c"),
        checksum_crc64nvme: get("crc64nvme"),
        checksum_sha1: get("sha1"),
        checksum_sha256: get("sha256"),
        ..Default::default()
    }
}

fn from_dto(sums: Checksum) -> BTreeMap<&'static str, String> {
    let all = [sums.checksum_crc32, sums.checksum_crc32c, sums.checksum_crc64nvme, sums.checksum_sha1, sums.checksum_sha256];
    ALGORITHMS.into_iter().zip(all).filter_map(|(name, sum)| sum.map(|sum| (name, sum))).collect()
}

/// A body on its way to the content store.
pub(crate) struct HashedBody {
    inner: Option<StreamingBlob>,
    trailing: Option<TrailingHeaders>,
    announced: Announced,
    md5: Md5,
    hasher: ChecksumHasher,
    result: Arc<parking_lot::Mutex<Digests>>,
    idle: Pin<Box<Sleep>>,
}

impl HashedBody {
    /// The body and, once it ended well, what it was.
    pub(crate) fn new(
        body: Option<StreamingBlob>,
        announced: Announced,
        trailing: Option<TrailingHeaders>,
    ) -> (Self, Arc<parking_lot::Mutex<Digests>>) {
        let result = Arc::new(parking_lot::Mutex::new(Digests::default()));
        let (md5, hasher) = (Md5::new(), announced.hasher());
        let idle = Box::pin(tokio::time::sleep(BODY_IDLE_TIMEOUT));
        (HashedBody { inner: body, trailing, announced, md5, hasher, result: result.clone(), idle }, result)
    }

    fn judge(&mut self) -> S3Result<()> {
        let md5 = std::mem::take(&mut self.md5).finalize();
        if self.announced.md5.is_some_and(|announced| announced != md5) {
            return Err(refuse(S3ErrorCode::BadDigest, "The Content-MD5 you specified did not match what we received."));
        }
        let checksums = from_dto(std::mem::take(&mut self.hasher).finalize());
        for name in &self.announced.trailers {
            let header = format!("x-amz-checksum-{name}");
            let value = self.trailing.as_ref().and_then(|trailing| {
                trailing.read(|map| map.get(header.as_str()).and_then(|value| value.to_str().ok()).map(str::to_owned)).flatten()
            });
            let missing = || refuse_as("MalformedTrailerError", format!("The trailer {header} was announced and did not come."));
            self.announced.headers.insert(name, value.ok_or_else(missing)?);
        }
        for (name, announced) in &self.announced.headers {
            if checksums.get(name) != Some(announced) {
                let name = name.to_ascii_uppercase();
                return Err(refuse(S3ErrorCode::BadDigest, format!("The {name} you specified did not match the calculated checksum.")));
            }
        }
        *self.result.lock() = Digests { md5: hex::encode(md5), checksums };
        Ok(())
    }
}

impl Stream for HashedBody {
    type Item = Result<Bytes, S3Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let next = match &mut this.inner {
            None => Poll::Ready(None),
            Some(inner) => Pin::new(inner).poll_next(cx),
        };
        match next {
            Poll::Ready(Some(Ok(bytes))) => {
                this.md5.update(&bytes);
                this.hasher.update(&bytes);
                this.idle.as_mut().reset(Instant::now() + BODY_IDLE_TIMEOUT);
                Poll::Ready(Some(Ok(bytes)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(bad_body(&error)))),
            Poll::Ready(None) => Poll::Ready(this.judge().err().map(Err)),
            Poll::Pending => {
                std::task::ready!(this.idle.as_mut().poll(cx));
                let message = "Your socket connection to the server was not read from or written to within the timeout period.";
                Poll::Ready(Some(Err(refuse(S3ErrorCode::RequestTimeout, message))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt as _;

    async fn pass(headers: &[(&'static str, &str)], body: &'static [u8]) -> Result<Digests, S3Error> {
        let headers = headers.iter().map(|(k, v)| (http::HeaderName::from_static(k), v.parse().expect("a value"))).collect::<HeaderMap>();
        let blob = StreamingBlob::wrap(futures::stream::iter(body.chunks(3).map(|b| Ok::<_, std::io::Error>(Bytes::from_static(b)))));
        let (mut stream, digests) = HashedBody::new(Some(blob), Announced::from_headers(&headers)?, None);
        while let Some(bytes) = stream.next().await {
            bytes?;
        }
        let result = digests.lock().clone();
        Ok(result)
    }

    #[tokio::test]
    async fn right_checksums_pass_and_are_returned() {
        let digests = pass(&[("x-amz-checksum-crc32", "DUoRhQ=="), ("content-md5", "XrY7u+Ae7tCTyyK7j1rNww==")], b"hello world")
            .await
            .expect("right");
        assert_eq!(digests.md5, "5eb63bbbe01eeed093cb22bb8f5acdc3");
        assert_eq!(digests.checksums.get("crc32").map(String::as_str), Some("DUoRhQ=="));
        for (header, value) in [
            ("x-amz-checksum-crc32c", "yZRlqg=="),
            ("x-amz-checksum-sha1", "Kq5sNclPz7QV2+lfQIuc6R7oRu0="),
            ("x-amz-checksum-sha256", "uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek="),
        ] {
            pass(&[(header, value)], b"hello world").await.expect(header);
        }
        assert!(
            pass(&[("x-amz-sdk-checksum-algorithm", "CRC64NVME")], b"hello").await.expect("no claim").checksums.contains_key("crc64nvme")
        );
    }

    #[tokio::test]
    async fn wrong_malformed_and_contradicting_ones_are_refused() {
        let code = |result: Result<Digests, S3Error>| result.expect_err("must be refused").code().as_str().to_owned();
        assert_eq!(code(pass(&[("x-amz-checksum-crc32", "AAAAAA==")], b"hello world").await), "BadDigest");
        assert_eq!(code(pass(&[("content-md5", "AAAAAAAAAAAAAAAAAAAAAA==")], b"hello world").await), "BadDigest");
        assert_eq!(code(pass(&[("content-md5", "nonsense")], b"x").await), "InvalidDigest");
        assert_eq!(code(pass(&[("x-amz-checksum-crc32", "AAA=")], b"x").await), "InvalidRequest");
        assert_eq!(
            code(pass(&[("x-amz-checksum-crc32", "AAAAAA=="), ("x-amz-checksum-crc32c", "AAAAAA==")], b"x").await),
            "InvalidRequest"
        );
        assert_eq!(code(pass(&[("x-amz-trailer", "x-amz-checksum-crc32")], b"x").await), "MalformedTrailerError");
        assert_eq!(code(pass(&[("x-amz-trailer", "x-amz-checksum-rot13")], b"x").await), "InvalidRequest");
    }
}
