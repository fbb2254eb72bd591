//! How a command reaches a cluster: flags, then environment variables, then the context file that `cairn dev` writes.

use crate::failure::{Code, Failure};
use clap::Args;
use metadb_proto::principal::{ClusterSecret, Token};
use serde::{Deserialize, Serialize};
use shard_router::operator::Operator;
use shard_router::{Router, RouterConfig};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The context file of a cluster started here by `cairn dev`.
const DEFAULT_CONTEXT: &str = "cairn-data/credentials.toml";

/// Where the cluster is, and who asks.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// host:port of the gRPC door of any node; several with commas.
    #[arg(long, global = true, env = "CAIRN_ENDPOINT", value_name = "HOST:PORT", value_delimiter = ',', value_parser = host_port)]
    endpoint: Vec<String>,
    /// URL of the S3 door of any node, through which the bytes of files travel; several with commas.
    #[arg(long, global = true, env = "CAIRN_S3_ENDPOINT", value_name = "URL", value_delimiter = ',', value_parser = http_url)]
    s3_endpoint: Vec<String>,
    /// The id of the access key to use.
    #[arg(long, global = true, env = "CAIRN_ACCESS_KEY_ID", value_name = "ID", requires = "secret_access_key")]
    access_key_id: Option<String>,
    /// Its secret. Better given as a variable: other users see command lines.
    #[arg(
        long,
        global = true,
        env = "CAIRN_SECRET_ACCESS_KEY",
        value_name = "SECRET",
        hide_env_values = true,
        allow_hyphen_values = true,
        requires = "access_key_id"
    )]
    secret_access_key: Option<String>,
    /// File with the cluster secret, instead of a key: for the first operator's key of a new cluster.
    #[arg(long, global = true, env = "CAIRN_CLUSTER_SECRET_FILE", value_name = "FILE")]
    cluster_secret_file: Option<PathBuf>,
    /// File with endpoints and keys.
    #[arg(long, global = true, env = "CAIRN_CONTEXT", value_name = "FILE", default_value = DEFAULT_CONTEXT)]
    context: PathBuf,
}

/// An access key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Key {
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({}, …)", self.access_key_id)
    }
}

impl Key {
    /// As it travels after `Bearer `.
    pub(crate) fn token(&self) -> String {
        Token::for_key(&self.access_key_id, &self.secret_access_key)
    }
}

/// What the context file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    pub(crate) endpoints: Vec<String>,
    pub(crate) s3_endpoints: Vec<String>,
    pub(crate) region: String,
    /// Whose files `cairn fs` means.
    pub(crate) tenant: String,
    pub(crate) operator: Key,
    pub(crate) tenants: BTreeMap<String, Key>,
}

impl Context {
    /// Reads a context file; none if there is no such file.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, Failure> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::io("read", path, &error)),
        };
        // The parser's message may quote a line, and a line may hold a secret.
        let wrong = |error: toml::de::Error| Failure::usage(format!("the context file {} is wrong: {}", path.display(), error.message()));
        toml::from_str(&text).map(Some).map_err(wrong)
    }

    /// Writes it, readable by its owner only.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Failure> {
        let text = toml::to_string(self).map_err(|error| Failure::failed(format!("the context can't be encoded: {error}")))?;
        let text = format!("# How to reach this cluster and as whom. Holds secrets. Read by `cairn admin` and `cairn fs`.\n{text}");
        crate::datadir::write_durably(path, text.as_bytes())
    }
}

/// A token and the nodes to present it to.
pub(crate) struct Session {
    pub(crate) endpoints: Vec<String>,
    pub(crate) token: String,
}

impl Session {
    /// Who asks, for records of changes: never the secret.
    pub(crate) fn who(&self) -> String {
        match Token::parse(&format!("Bearer {}", self.token)) {
            Ok(Token::Key { access_key_id, .. }) => access_key_id,
            Ok(Token::Node { .. }) => "holder of the cluster secret".to_owned(),
            Err(_) => "unknown".to_owned(),
        }
    }

    /// A router that asks as this session.
    pub(crate) fn router(&self) -> Router {
        Router::new(RouterConfig { seeds: self.endpoints.clone(), token: self.token.clone(), ..RouterConfig::default() })
    }

    /// The id of a tenant.
    pub(crate) async fn tenant_id(&self, name: &str) -> Result<u64, Failure> {
        Ok(self.router().tenant_named(name).await?.tenant_id())
    }

    /// The operator's work as this session.
    pub(crate) fn operator(&self) -> Operator {
        Operator::new(self.router())
    }
}

/// Where file bytes go, and as whom.
pub(crate) struct S3Session {
    pub(crate) endpoints: Vec<String>,
    pub(crate) region: String,
    pub(crate) key: Key,
}

impl Connection {
    /// As an operator.
    pub(crate) fn operator(&self) -> Result<Session, Failure> {
        let context = Context::read(&self.context)?;
        let token = match (self.key(), &self.cluster_secret_file, &context) {
            (Some(key), _, _) => key.token(),
            (None, Some(file), _) => secret_token(&crate::config::read_secret(file)?),
            (None, None, Some(context)) => context.operator.token(),
            (None, None, None) => return Err(self.nobody("an operator's key")),
        };
        Ok(Session { endpoints: self.endpoints(context.as_ref())?, token })
    }

    /// As a tenant: the one named, or the one that the context file prefers.
    pub(crate) fn tenant(&self, name: Option<&str>) -> Result<Session, Failure> {
        let context = Context::read(&self.context)?;
        let key = self.tenant_key(name, context.as_ref())?;
        Ok(Session { endpoints: self.endpoints(context.as_ref())?, token: key.token() })
    }

    /// As a tenant, for bytes of files.
    pub(crate) fn s3(&self, name: Option<&str>) -> Result<S3Session, Failure> {
        let context = Context::read(&self.context)?;
        let key = self.tenant_key(name, context.as_ref())?;
        let mut endpoints = self.s3_endpoint.clone();
        if let (true, Some(context)) = (endpoints.is_empty(), &context) {
            endpoints.clone_from(&context.s3_endpoints);
        }
        if endpoints.is_empty() {
            return Err(
                Failure::usage("no S3 endpoint is known").hint("give --s3-endpoint http://host:port: the bytes of files travel over S3")
            );
        }
        let region = context.map_or_else(|| "us-east-1".to_owned(), |context| context.region);
        Ok(S3Session { endpoints, region, key })
    }

    /// Whether a key was given, and not taken from the context file.
    pub(crate) fn has_key(&self) -> bool {
        self.access_key_id.is_some()
    }

    fn key(&self) -> Option<Key> {
        let (id, secret) = (self.access_key_id.clone()?, self.secret_access_key.clone()?);
        Some(Key { access_key_id: id, secret_access_key: secret })
    }

    fn tenant_key(&self, name: Option<&str>, context: Option<&Context>) -> Result<Key, Failure> {
        if let Some(key) = self.key() {
            return Ok(key);
        }
        let context = context.ok_or_else(|| self.nobody("a tenant's key"))?;
        let name = name.unwrap_or(&context.tenant);
        context.tenants.get(name).cloned().ok_or_else(|| {
            Failure::new(Code::Denied, format!("the context file {} has no key of tenant {name}", self.context.display()))
                .hint(format!("make one with `cairn admin key create --tenant {name}`, then give --access-key-id and --secret-access-key"))
        })
    }

    fn endpoints(&self, context: Option<&Context>) -> Result<Vec<String>, Failure> {
        if !self.endpoint.is_empty() {
            return Ok(self.endpoint.clone());
        }
        let known = context.map(|context| context.endpoints.clone()).filter(|endpoints| !endpoints.is_empty());
        known.ok_or_else(|| {
            Failure::usage("no endpoint is known").hint("give --endpoint host:port, or start a cluster here with `cairn dev`")
        })
    }

    fn nobody(&self, wanted: &str) -> Failure {
        Failure::new(Code::Denied, format!("{wanted} is needed, and there is no context file {}", self.context.display()))
            .hint("start a cluster here with `cairn dev`, or give --endpoint, --access-key-id and --secret-access-key")
    }
}

/// An endpoint of the gRPC door.
fn host_port(text: &str) -> Result<String, String> {
    crate::config::check_host_port(text).map(|()| text.to_owned()).map_err(|()| "must be host:port, as in 10.0.0.1:7401".to_owned())
}

/// An endpoint of the S3 door.
fn http_url(text: &str) -> Result<String, String> {
    let address = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    match address {
        Some(address) if !address.trim_end_matches('/').is_empty() => Ok(text.to_owned()),
        _ => Err("must be a URL, as in http://10.0.0.1:7501".to_owned()),
    }
}

/// What the holder of the cluster secret presents: a process that is no node yet.
pub(crate) fn secret_token(secret: &ClusterSecret) -> String {
    secret.node_token(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_survives_its_file_and_tells_no_secret() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("credentials.toml");
        assert_eq!(Context::read(&file).expect("no file is fine"), None);
        let key = |name: &str| Key { access_key_id: name.into(), secret_access_key: "hunter2".into() };
        let context = Context {
            endpoints: vec!["127.0.0.1:7401".into()],
            s3_endpoints: vec!["http://127.0.0.1:7501".into()],
            region: "us-east-1".into(),
            tenant: "demo".into(),
            operator: key("OP"),
            tenants: [("demo".to_owned(), key("DEMO"))].into(),
        };
        context.write(&file).expect("written");
        assert_eq!(Context::read(&file).expect("reads"), Some(context.clone()));
        assert!(!format!("{context:?}").contains("hunter2"));
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).expect("there").permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
}
