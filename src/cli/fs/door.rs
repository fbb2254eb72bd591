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
    /// Whose namespace is meant, if that was said: an operator's key belongs to no tenant.
    tenant: Option<String>,
    request_id: [u8; 16],
}

impl Door {
    pub(super) fn new(session: Session, tenant: Option<String>) -> Self {
        Door { session, tenant, request_id: metadb_proto::seam::request_id() }
    }

    /// The header of this command's requests: a retry of its one change carries the same request id.
    pub(super) fn header(&self) -> v1::RequestHeader {
        let tenant = self.tenant.clone().map(v1::request_header::Tenant::TenantName);
        v1::RequestHeader { request_id: self.request_id.to_vec().into(), tenant, ..Default::default() }
    }

    /// Asks for something that is done to a path; what fails is told by that path.
    pub(super) async fn call<Q, A, F>(
        &self,
        path: &str,
        call: impl Fn(FsClient<Channel>, tonic::Request<Q>) -> F,
        ask: Q,
        effects: bool,
    ) -> Result<A, Failure>
    where
        Q: Clone,
        F: Future<Output = Result<tonic::Response<A>, tonic::Status>>,
    {
        if self.session.token.bytes().any(|byte| !(b' '..=b'~').contains(&byte)) {
            return Err(Failure::new(Code::Denied, "the access key holds characters that no key has"));
        }
        self.ask(call, ask, effects).await.map_err(|error| told(error, path))
    }

    /// Asks one endpoint after the other until one answers.
    async fn ask<Q, A, F>(&self, call: impl Fn(FsClient<Channel>, tonic::Request<Q>) -> F, ask: Q, effects: bool) -> Result<A, Error>
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
                let bearer = bearer.map_err(|_| Error::Unauthenticated { message: "the access key is no text".into() })?;
                request.metadata_mut().insert("authorization", bearer);
                match call(client, request).await {
                    Ok(answer) => return Ok(answer.into_inner()),
                    Err(status) => {
                        last = Error::from_status(&status, effects);
                        // The request id makes asking again safe.
                        if !matches!(last, Error::Unavailable { .. } | Error::UnknownOutcome { .. } | Error::Exhausted { .. }) {
                            return Err(last);
                        }
                    }
                }
            }
        }
        Err(last)
    }

    /// All that is known of a file or folder.
    pub(super) async fn stat(&self, path: &str) -> Result<v1::Node, Failure> {
        let target = Some(v1::Target { target: Some(v1::target::Target::Path(path.to_owned())) });
        let ask = v1::StatRequest { header: Some(self.header()), target };
        let answer = self.call(path, |mut client, request| async move { client.stat(request).await }, ask, false).await?;
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
            return Err(Failure::usage(format!("/{name} is no bucket, and bytes of files live in buckets"))
                .hint("put it into a bucket: `cairn fs ls /` shows them, `cairn fs mkdir --bucket /NAME` makes one"));
        }
        let key = path.trim_start_matches('/').split_once('/').map_or("", |(_, key)| key);
        Ok((name.to_owned(), key.to_owned()))
    }
}

/// What failed, by the path that the person wrote: ids of folders and names of fields are the node's own business.
fn told(error: Error, path: &str) -> Failure {
    let above = path.trim_end_matches('/').rsplit_once('/').map_or("/", |(above, _)| if above.is_empty() { "/" } else { above });
    match &error {
        Error::NotFound { message } if message.starts_with("tenant") => error.into(),
        Error::NotFound { .. } => Failure::new(Code::NotFound, format!("{path}: there is no such file or folder"))
            .hint(format!("`cairn fs ls {above}` shows what is there")),
        Error::AlreadyExists { .. } => Failure::new(Code::Conflict, format!("{path} exists already"))
            .hint("in folders that are no buckets, names that differ only in case are the same"),
        Error::Invalid { field, .. } if field.starts_with("header.tenant") => {
            Failure::usage("the key is an operator's, which belongs to no tenant").hint("say whose files are meant with --tenant NAME")
        }
        Error::Invalid { limit, value, .. } => Failure::usage(format!("{path}: must be {limit}, is {value}")),
        Error::Denied { .. } => {
            Failure::from(error).hint("the key is of another tenant than --tenant names: leave --tenant out, or use a key of it")
        }
        Error::Conflict { .. }
        | Error::Suspended { .. }
        | Error::Moved { .. }
        | Error::Unavailable { .. }
        | Error::Exhausted { .. }
        | Error::UnknownOutcome { .. }
        | Error::Unauthenticated { .. }
        | Error::Corrupt { .. }
        | Error::Internal { .. } => error.into(),
    }
}

async fn connect(endpoint: &str) -> Result<FsClient<Channel>, Error> {
    let address = Endpoint::from_shared(format!("http://{endpoint}")).map_err(|_| Error::invalid("endpoint", "host:port", endpoint))?;
    let channel = address.connect_timeout(CONNECT_WITHIN).timeout(ANSWER_WITHIN).connect().await;
    let channel = channel.map_err(|error| Error::unavailable(format!("{endpoint}: {error}"), PAUSE))?;
    Ok(FsClient::new(channel).max_decoding_message_size(metadb_proto::limits::MESSAGE_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_name_the_path_and_nothing_of_the_inside() {
        let told = |error: Error| {
            let failure = told(error, "/projects/one");
            (failure.code, format!("{} {}", failure.message, failure.hint.unwrap_or_default()))
        };
        let missing = told(Error::not_found("`one` in folder 17"));
        assert!(missing.0 == Code::NotFound && missing.1.starts_with("/projects/one:") && !missing.1.contains("17"), "{missing:?}");
        assert!(missing.1.contains("`cairn fs ls /projects`"), "{missing:?}");
        let there = told(Error::AlreadyExists { message: "`one` in folder 17".into() });
        assert!(there.0 == Code::Conflict && !there.1.contains("17"), "{there:?}");
        let full = told(Error::invalid("to_name", "an empty folder", "a folder with entries"));
        assert!(full.0 == Code::Usage && full.1.contains("must be an empty folder") && !full.1.contains("to_name"), "{full:?}");
        let operator = told(Error::invalid("header.tenant", "named, unless a tenant's key asks", "absent"));
        assert!(operator.1.contains("operator's") && operator.1.contains("--tenant"), "{operator:?}");
    }
}
