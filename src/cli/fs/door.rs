//! The client of `fs.v1`: any node that answers will do.

use crate::cli::connection::Session;
use crate::failure::{Code, Failure};
use fs_layer::v1;
use fs_layer::v1::fs_client::FsClient;
use metadb_proto::Error;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// A node of a healthy network accepts a connection within this.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// How long one node may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// How often all endpoints are tried.
const ROUNDS: usize = 3;
/// Pause between two rounds: an election takes less.
const PAUSE: Duration = Duration::from_millis(500);

/// Where a path leads.
pub(super) enum Located {
    /// A folder whose names have no slashes.
    Tree(String),
    /// A flat folder, and the key behind it.
    Flat { folder: String, key: String },
}

/// Speaks `fs.v1` as one session.
pub(super) struct Door {
    session: Session,
    request_id: [u8; 16],
}

impl Door {
    pub(super) fn new(session: Session) -> Self {
        Door { session, request_id: metadb_proto::seam::request_id() }
    }

    /// The header of this command's requests: a retry of its one change carries the same request id.
    pub(super) fn header(&self) -> v1::RequestHeader {
        v1::RequestHeader { request_id: self.request_id.to_vec().into(), ..Default::default() }
    }

    /// Asks one endpoint after the other until one answers.
    pub(super) async fn call<Q, A, F>(
        &self,
        call: impl Fn(FsClient<Channel>, tonic::Request<Q>) -> F,
        ask: Q,
        effects: bool,
    ) -> Result<A, Failure>
    where
        Q: Clone,
        F: Future<Output = Result<tonic::Response<A>, tonic::Status>>,
    {
        let mut last = Error::unavailable("no endpoint", Duration::ZERO);
        for round in 0..ROUNDS {
            if round > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            for endpoint in &self.session.endpoints {
                let client = match connect(endpoint).await {
                    Ok(client) => client,
                    Err(error) => {
                        last = error;
                        continue;
                    }
                };
                let mut request = tonic::Request::new(ask.clone());
                let bearer = format!("Bearer {}", self.session.token).parse();
                let bearer = bearer.map_err(|_| Failure::new(Code::Denied, "the access key holds characters that no key has"))?;
                request.metadata_mut().insert("authorization", bearer);
                match call(client, request).await {
                    Ok(answer) => return Ok(answer.into_inner()),
                    Err(status) => {
                        last = Error::from_status(&status, effects);
                        // The request id makes asking again safe.
                        if !matches!(last, Error::Unavailable { .. } | Error::UnknownOutcome { .. } | Error::Exhausted { .. }) {
                            return Err(last.into());
                        }
                    }
                }
            }
        }
        Err(last.into())
    }

    /// All that is known of a file or folder.
    pub(super) async fn stat(&self, path: &str) -> Result<v1::Node, Failure> {
        let target = Some(v1::Target { target: Some(v1::target::Target::Path(path.to_owned())) });
        let ask = v1::StatRequest { header: Some(self.header()), target };
        let answer = self.call(|mut client, request| async move { client.stat(request).await }, ask, false).await?;
        answer.node.ok_or_else(|| Failure::failed("the node answered nothing"))
    }

    /// Walks a path until it meets a flat folder, behind which everything is one key.
    pub(super) async fn locate(&self, path: &str) -> Result<Located, Failure> {
        let mut folder = String::new();
        let mut rest = path.trim_start_matches('/');
        while !rest.is_empty() {
            let (name, behind) = rest.split_once('/').unwrap_or((rest, ""));
            folder = format!("{folder}/{name}");
            rest = behind.trim_start_matches('/');
            let node = self.stat(&folder).await?;
            match node.kind() {
                v1::NodeKind::FlatFolder => return Ok(Located::Flat { folder, key: behind.to_owned() }),
                v1::NodeKind::TreeFolder => {}
                v1::NodeKind::File | v1::NodeKind::Unspecified => {
                    return Err(Failure::new(Code::Usage, format!("{folder} is a file")).hint(format!("`cairn fs stat {folder}` shows it")));
                }
            }
        }
        Ok(Located::Tree(if folder.is_empty() { "/".to_owned() } else { folder }))
    }

    /// The bucket and the key of a path, for bytes.
    pub(super) async fn bucket(&self, path: &str) -> Result<(String, String), Failure> {
        let name = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        if name.is_empty() {
            return Err(Failure::usage(format!("{path:?} names no bucket")).hint("write /BUCKET/KEY; `cairn fs ls /` shows the buckets"));
        }
        let node = self.stat(&format!("/{name}")).await.map_err(|failure| {
            let missing = failure.code == Code::NotFound;
            if missing { failure.hint(format!("`cairn fs mkdir --bucket /{name}` makes the bucket")) } else { failure }
        })?;
        if node.kind() != v1::NodeKind::FlatFolder {
            return Err(Failure::usage(format!("/{name} is no bucket"))
                .hint("bytes travel over S3, which has buckets only: `cairn fs mkdir --bucket`"));
        }
        let key = path.trim_start_matches('/').split_once('/').map_or("", |(_, key)| key);
        Ok((name.to_owned(), key.to_owned()))
    }
}

async fn connect(endpoint: &str) -> Result<FsClient<Channel>, Error> {
    let address = Endpoint::from_shared(format!("http://{endpoint}")).map_err(|_| Error::invalid("endpoint", "host:port", endpoint))?;
    let channel = address.connect_timeout(CONNECT_WITHIN).timeout(ANSWER_WITHIN).connect().await;
    let channel = channel.map_err(|error| Error::unavailable(format!("{endpoint}: {error}"), PAUSE))?;
    Ok(FsClient::new(channel).max_decoding_message_size(metadb_proto::limits::MESSAGE_BYTES))
}
