//! A small S3 client: `rusty-s3` builds and signs the requests, `hyper` carries them, and a request that a node can't answer is sent
//! to the next one. A body is a buffer; larger files travel in parts, so that memory stays bounded and a retry is cheap.

use crate::cli::Key;
use crate::failure::{Code, Failure};
use base64::Engine as _;
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rusty_s3::actions::{CreateMultipartUpload, S3Action};
use rusty_s3::{Bucket, Credentials, UrlStyle};
use std::time::Duration;
use tokio::time::Instant;
use url::Url;

/// The size of a part, and the largest body sent at once.
pub(crate) const PART_BYTES: usize = 16 << 20;
/// A node of a healthy network accepts a connection within this.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// A node answers, and goes on with an answer, within this; one that hangs is left.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long a signature holds: longer than an attempt can take.
const SIGNED_FOR: Duration = Duration::from_secs(300);
/// Pause after every endpoint failed once; doubles up to the second.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// The longest text of an error that is read.
const ERROR_BYTES: usize = 16 << 10;

/// Speaks S3 to any of several nodes.
#[derive(Clone)]
pub(crate) struct S3Client {
    http: Client<HttpConnector, Full<Bytes>>,
    endpoints: Vec<Url>,
    region: String,
    credentials: Credentials,
    /// How long a request is retried.
    pub(crate) patience: Duration,
}

/// What is asked of a bucket.
#[derive(Debug, Clone)]
pub(crate) enum Ask<'a> {
    CreateBucket,
    Put { key: &'a str, body: Bytes },
    Get { key: &'a str },
    Head { key: &'a str },
    CreateUpload { key: &'a str },
    PutPart { key: &'a str, upload: &'a str, number: u16, body: Bytes },
    CompleteUpload { key: &'a str, upload: &'a str, etags: &'a [String] },
    AbortUpload { key: &'a str, upload: &'a str },
}

/// Why an attempt failed.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum S3Error {
    /// No answer, or half of one.
    #[error("{0}")]
    Transport(String),
    /// The node said no.
    #[error("{status}{code}: {message}", code = if code.is_empty() { String::new() } else { format!(" {code}") })]
    Answer { status: StatusCode, code: String, message: String },
}

impl S3Error {
    fn is_worth_a_retry(&self) -> bool {
        match self {
            S3Error::Transport(_) => true,
            S3Error::Answer { status, .. } => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
        }
    }

    fn is(&self, wanted: &str) -> bool {
        matches!(self, S3Error::Answer { code, .. } if code == wanted)
    }
}

impl From<S3Error> for Failure {
    fn from(error: S3Error) -> Self {
        let code = match &error {
            S3Error::Transport(_) => Code::Unavailable,
            S3Error::Answer { status, .. } => match *status {
                StatusCode::NOT_FOUND => Code::NotFound,
                StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => Code::Conflict,
                StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => Code::Denied,
                StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Code::Unavailable,
                _ => Code::Failed,
            },
        };
        Failure::new(code, format!("S3: {error}"))
    }
}

/// A result and what it took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Took<T> {
    pub(crate) value: T,
    pub(crate) retries: u64,
    pub(crate) elapsed: Duration,
}

impl S3Client {
    /// A client of these endpoints, as `http://host:port`.
    pub(crate) fn new(endpoints: &[String], region: &str, key: &Key) -> Result<Self, Failure> {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_WITHIN));
        connector.set_nodelay(true);
        let parsed = endpoints.iter().map(|endpoint| {
            endpoint
                .parse()
                .map_err(|error| Failure::usage(format!("invalid S3 endpoint {endpoint:?}: {error}")).hint("write http://host:port"))
        });
        let endpoints: Vec<Url> = parsed.collect::<Result<_, _>>()?;
        if let Some(other) = endpoints.iter().find(|endpoint| endpoint.scheme() != "http") {
            let told = format!("invalid S3 endpoint {other}: must be http://host:port");
            return Err(Failure::usage(told).hint("for S3 behind TLS use aws-cli or rclone"));
        }
        Ok(S3Client {
            http: Client::builder(TokioExecutor::new()).build(connector),
            endpoints,
            region: region.to_owned(),
            credentials: Credentials::new(key.access_key_id.clone(), key.secret_access_key.clone()),
            patience: Duration::from_secs(60),
        })
    }

    /// Makes a bucket; one that is there already is as good.
    pub(crate) async fn create_bucket(&self, bucket: &str) -> Result<(), S3Error> {
        match self.ask(0, bucket, Ask::CreateBucket).await {
            Err(error) if error.is("BucketAlreadyOwnedByYou") || error.is("BucketAlreadyExists") => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Writes a file of at most [`PART_BYTES`].
    pub(crate) async fn put(&self, first: usize, bucket: &str, key: &str, body: Bytes) -> Result<Took<()>, S3Error> {
        let took = self.ask(first, bucket, Ask::Put { key, body }).await?;
        Ok(Took { value: (), retries: took.retries, elapsed: took.elapsed })
    }

    /// Reads a file; `sink` gets its bytes in order, and is told with `None` when they start again from the beginning.
    pub(crate) async fn get(
        &self,
        first: usize,
        bucket: &str,
        key: &str,
        mut sink: impl FnMut(Option<&[u8]>) -> std::io::Result<()>,
    ) -> Result<Took<u64>, S3Error> {
        let (started, mut retries) = (Instant::now(), 0);
        loop {
            sink(None).map_err(|error| S3Error::Transport(error.to_string()))?;
            let took = self.send_until_answered(first + usize::try_from(retries).unwrap_or(0), bucket, &Ask::Get { key }, started).await?;
            retries += took.retries;
            match drain(took.value, &mut sink).await {
                Ok(bytes) => return Ok(Took { value: bytes, retries, elapsed: started.elapsed() }),
                Err(error) if started.elapsed() < self.patience && error.is_worth_a_retry() => retries += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Starts an upload in parts and gives its id.
    pub(crate) async fn create_upload(&self, first: usize, bucket: &str, key: &str) -> Result<Took<String>, S3Error> {
        let took = self.ask(first, bucket, Ask::CreateUpload { key }).await?;
        let parsed = CreateMultipartUpload::parse_response(&String::from_utf8_lossy(&took.value.1))
            .map(|answer| answer.upload_id().to_owned())
            .map_err(|error| S3Error::Transport(format!("the answer is not understood: {error}")))?;
        Ok(Took { value: parsed, retries: took.retries, elapsed: took.elapsed })
    }

    /// Sends a part and gives its entity tag.
    pub(crate) async fn put_part(&self, first: usize, bucket: &str, ask: Ask<'_>) -> Result<Took<String>, S3Error> {
        let took = self.ask(first, bucket, ask).await?;
        let etag = took.value.0.headers.get("etag").and_then(|value| value.to_str().ok());
        let etag = etag.ok_or_else(|| S3Error::Transport("the answer to a part has no ETag".into()))?.to_owned();
        Ok(Took { value: etag, retries: took.retries, elapsed: took.elapsed })
    }

    /// Makes the parts one file. If an earlier attempt may have done so, the file itself tells.
    pub(crate) async fn complete_upload(&self, first: usize, bucket: &str, ask: Ask<'_>, bytes: u64) -> Result<Took<()>, S3Error> {
        let Ask::CompleteUpload { key, .. } = ask else { return Err(S3Error::Transport("not a completion".into())) };
        let started = Instant::now();
        match self.ask(first, bucket, ask).await {
            Ok(took) => Ok(Took { value: (), retries: took.retries, elapsed: took.elapsed }),
            Err(error) if error.is("NoSuchUpload") => {
                let there = self.ask(first, bucket, Ask::Head { key }).await?;
                let length = there.value.0.headers.get("content-length").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
                if length == Some(bytes) { Ok(Took { value: (), retries: 1, elapsed: started.elapsed() }) } else { Err(error) }
            }
            Err(error) => Err(error),
        }
    }

    /// Asks the endpoints one after the other, from `first` on, until one answers; gives the answer's head and body.
    pub(crate) async fn ask(&self, first: usize, bucket: &str, ask: Ask<'_>) -> Result<Took<(http::response::Parts, Bytes)>, S3Error> {
        let started = Instant::now();
        let (mut first, mut retries) = (first, 0);
        loop {
            let took = self.send_until_answered(first, bucket, &ask, started).await?;
            retries += took.retries;
            let (parts, body) = took.value.into_parts();
            match tokio::time::timeout(ANSWER_WITHIN, body.collect()).await {
                Ok(Ok(body)) => return Ok(Took { value: (parts, body.to_bytes()), retries, elapsed: started.elapsed() }),
                _ if started.elapsed() < self.patience => (first, retries) = (first + 1, retries + 1),
                _ => return Err(S3Error::Transport("the answer broke off".into())),
            }
        }
    }

    /// The driver of every request: next endpoint, pause, deadline.
    async fn send_until_answered(
        &self,
        first: usize,
        bucket: &str,
        ask: &Ask<'_>,
        started: Instant,
    ) -> Result<Took<Response<Incoming>>, S3Error> {
        let (mut pause, mut retries) = (PAUSE_MIN, 0_u64);
        loop {
            let at = (first + usize::try_from(retries).unwrap_or(0)) % self.endpoints.len();
            let error = match self.send_once(at, bucket, ask).await {
                Ok(value) => return Ok(Took { value, retries, elapsed: started.elapsed() }),
                Err(error) => error,
            };
            if !error.is_worth_a_retry() || started.elapsed() >= self.patience {
                return Err(error);
            }
            tracing::debug!(endpoint = %self.endpoints[at], %error, "another attempt");
            retries += 1;
            if retries.is_multiple_of(self.endpoints.len() as u64) {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }

    async fn send_once(&self, at: usize, bucket: &str, ask: &Ask<'_>) -> Result<Response<Incoming>, S3Error> {
        let request = self.sign(at, bucket, ask)?;
        let answer = tokio::time::timeout(ANSWER_WITHIN, self.http.request(request)).await;
        let answer = answer.map_err(|_| S3Error::Transport(format!("{} does not answer", self.endpoints[at])))?;
        let answer = answer.map_err(|error| S3Error::Transport(format!("{}: {}", self.endpoints[at], chain(&error))))?;
        if answer.status().is_success() { Ok(answer) } else { Err(refusal(answer).await) }
    }

    fn sign(&self, at: usize, bucket: &str, ask: &Ask<'_>) -> Result<Request<Full<Bytes>>, S3Error> {
        let unusable = |error: String| S3Error::Transport(format!("the request can't be made: {error}"));
        let bucket = Bucket::new(self.endpoints[at].clone(), UrlStyle::Path, bucket.to_owned(), self.region.clone());
        let (bucket, who) = (bucket.map_err(|error| unusable(error.to_string()))?, &self.credentials);
        let (method, url, body) = match ask {
            Ask::CreateBucket => (Method::PUT, bucket.create_bucket(who).sign(SIGNED_FOR), Bytes::new()),
            Ask::Get { key } => (Method::GET, bucket.get_object(Some(who), key).sign(SIGNED_FOR), Bytes::new()),
            Ask::Head { key } => (Method::HEAD, bucket.head_object(Some(who), key).sign(SIGNED_FOR), Bytes::new()),
            Ask::CreateUpload { key } => (Method::POST, bucket.create_multipart_upload(Some(who), key).sign(SIGNED_FOR), Bytes::new()),
            Ask::CompleteUpload { key, upload, etags } => {
                let action = bucket.complete_multipart_upload(Some(who), key, upload, etags.iter().map(String::as_str));
                (Method::POST, action.sign(SIGNED_FOR), Bytes::from(action.body()))
            }
            Ask::AbortUpload { key, upload } => {
                (Method::DELETE, bucket.abort_multipart_upload(Some(who), key, upload).sign(SIGNED_FOR), Bytes::new())
            }
            Ask::Put { key, body } => return with_checksum(bucket.put_object(Some(who), key), body),
            Ask::PutPart { key, upload, number, body } => return with_checksum(bucket.upload_part(Some(who), key, *number, upload), body),
        };
        let mut request = Request::builder().method(&method).uri(url.as_str());
        if method == Method::PUT || method == Method::POST {
            request = request.header(CONTENT_LENGTH, body.len());
        }
        request.body(Full::new(body)).map_err(|error| unusable(error.to_string()))
    }
}

/// A body whose checksum is signed with the rest, so that the server stores these bytes or none.
fn with_checksum<'a>(mut action: impl S3Action<'a>, body: &Bytes) -> Result<Request<Full<Bytes>>, S3Error> {
    const HEADER: &str = "x-amz-checksum-crc32c";
    let checksum = base64::engine::general_purpose::STANDARD.encode(crc32c::crc32c(body).to_be_bytes());
    action.headers_mut().insert(HEADER, checksum.clone());
    let request = Request::builder().method(Method::PUT).uri(action.sign(SIGNED_FOR).as_str()).header(HEADER, checksum);
    // Said even of an empty body: without it S3 refuses the request.
    let request = request.header(CONTENT_LENGTH, body.len());
    request.body(Full::new(body.clone())).map_err(|error| S3Error::Transport(format!("the request can't be made: {error}")))
}

async fn drain(answer: Response<Incoming>, sink: &mut impl FnMut(Option<&[u8]>) -> std::io::Result<()>) -> Result<u64, S3Error> {
    let mut body = answer.into_body();
    let mut bytes = 0;
    loop {
        let frame = tokio::time::timeout(ANSWER_WITHIN, body.frame()).await;
        match frame.map_err(|_| S3Error::Transport("the answer stopped in the middle".into()))? {
            None => return Ok(bytes),
            Some(Err(error)) => return Err(S3Error::Transport(format!("the answer broke off: {}", chain(&error)))),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    bytes += data.len() as u64;
                    sink(Some(&data)).map_err(|error| S3Error::Transport(error.to_string()))?;
                }
            }
        }
    }
}

async fn refusal(answer: Response<Incoming>) -> S3Error {
    let status = answer.status();
    let body = http_body_util::Limited::new(answer.into_body(), ERROR_BYTES).collect();
    let text = match tokio::time::timeout(ANSWER_WITHIN, body).await {
        Ok(Ok(body)) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        _ => String::new(),
    };
    let element = |name: &str| {
        let start = text.find(&format!("<{name}>"))? + name.len() + 2;
        let end = start + text[start..].find("</")?;
        Some(text[start..end].to_owned())
    };
    S3Error::Answer { status, code: element("Code").unwrap_or_default(), message: element("Message").unwrap_or_default() }
}

/// An error with its causes: hyper's own text tells the least.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
