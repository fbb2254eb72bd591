//! Who asks. Every request carries a principal; the decision what it may do is made where the data is.
//!
//! On a socket it travels as `authorization: Bearer <token>`. A node's token proves that it holds the cluster's secret; a key's
//! token is its id and secret, checked against the directory.

use crate::Error;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Principal {
    /// A node of this cluster, or a process that is about to become one (id 0).
    Node(u64),
    /// An operator, by the id of its access key.
    Operator(String),
    /// A tenant's key.
    Tenant {
        /// The tenant that it may use.
        tenant_id: u64,
        /// The id of its access key.
        access_key_id: String,
    },
}

/// The tenant that is the directory.
pub const DIRECTORY_TENANT: u64 = 0;

/// What a request is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Read or write keys of a tenant.
    Data {
        /// Whose keys.
        tenant_id: u64,
    },
    /// Look at a node's state.
    Inspect,
    /// Change replicas, members or ownership.
    Operate,
    /// Speak Raft.
    Replicate,
}

impl Principal {
    /// The one decision: may this principal do this?
    ///
    /// # Errors
    /// [`Error::Denied`], naming both.
    pub fn authorize(&self, action: Action) -> Result<(), Error> {
        let allowed = match (self, action) {
            (Principal::Node(_), _)
            | (Principal::Operator(_), Action::Data { .. } | Action::Inspect | Action::Operate)
            | (Principal::Tenant { .. }, Action::Inspect) => true,
            (Principal::Tenant { tenant_id, .. }, Action::Data { tenant_id: asked }) => *tenant_id == asked && asked != DIRECTORY_TENANT,
            (Principal::Operator(_), Action::Replicate) | (Principal::Tenant { .. }, Action::Operate | Action::Replicate) => false,
        };
        if allowed { Ok(()) } else { Err(Error::Denied { message: format!("{self} may not {action}") }) }
    }
}

impl std::fmt::Display for Principal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Principal::Node(id) => write!(f, "node {id}"),
            Principal::Operator(key) => write!(f, "operator key {key}"),
            Principal::Tenant { tenant_id, access_key_id } => write!(f, "key {access_key_id} of tenant {tenant_id}"),
        }
    }
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Action::Data { tenant_id: DIRECTORY_TENANT } => f.write_str("use the directory"),
            Action::Data { tenant_id } => write!(f, "use the data of tenant {tenant_id}"),
            Action::Inspect => f.write_str("look at a node"),
            Action::Operate => f.write_str("change a node's replicas"),
            Action::Replicate => f.write_str("replicate"),
        }
    }
}

/// The secret that makes nodes of one cluster recognise each other. At least 32 bytes. Never printed.
#[derive(Clone)]
pub struct ClusterSecret(Vec<u8>);

impl ClusterSecret {
    /// Shortest secret, in bytes.
    pub const MIN_BYTES: usize = 32;

    /// From its bytes.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is shorter than [`ClusterSecret::MIN_BYTES`].
    pub fn new(bytes: Vec<u8>) -> Result<Self, Error> {
        if bytes.len() < Self::MIN_BYTES {
            let limit = format!("at least {} bytes", Self::MIN_BYTES);
            return Err(Error::invalid("cluster_secret", limit, format!("{} bytes", bytes.len())));
        }
        Ok(ClusterSecret(bytes))
    }

    /// The token of a node.
    #[must_use]
    pub fn node_token(&self, node_id: u64) -> String {
        format!("node.{node_id}.{}", hex::encode(self.mac(node_id)))
    }

    fn mac(&self, node_id: u64) -> Vec<u8> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(b"cairn node ");
        mac.update(&node_id.to_be_bytes());
        mac.finalize().into_bytes().to_vec()
    }
}

impl std::fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClusterSecret(…)")
    }
}

/// A bearer token, taken apart.
#[derive(Clone, PartialEq, Eq)]
pub enum Token {
    /// `node.<id>.<hex>`
    Node {
        /// The node that it claims to be.
        node_id: u64,
        /// The proof.
        mac: Vec<u8>,
    },
    /// `key.<access key id>.<secret>`
    Key {
        /// Which key.
        access_key_id: String,
        /// Its secret.
        secret: String,
    },
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Token::Node { node_id, .. } => write!(f, "Token::Node({node_id}, …)"),
            Token::Key { access_key_id, .. } => write!(f, "Token::Key({access_key_id}, …)"),
        }
    }
}

impl Token {
    /// Takes `Bearer <token>` apart, without judging it.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`]; the message never holds the token.
    pub fn parse(authorization: &str) -> Result<Token, Error> {
        let bad =
            || Error::Unauthenticated { message: "authorization must be `Bearer node.<id>.<hex>` or `Bearer key.<id>.<secret>`".into() };
        let token = authorization.strip_prefix("Bearer ").ok_or_else(bad)?;
        let mut parts = token.splitn(3, '.');
        match (parts.next(), parts.next(), parts.next()) {
            (Some("node"), Some(id), Some(mac)) => {
                Ok(Token::Node { node_id: id.parse().map_err(|_| bad())?, mac: hex::decode(mac).map_err(|_| bad())? })
            }
            (Some("key"), Some(id), Some(secret)) => Ok(Token::Key { access_key_id: id.into(), secret: secret.into() }),
            _ => Err(bad()),
        }
    }

    /// The token of an access key, as `Token::parse` reads it after `Bearer `.
    #[must_use]
    pub fn for_key(access_key_id: &str, secret: &str) -> String {
        format!("key.{access_key_id}.{secret}")
    }

    /// Whether a node's proof holds. In constant time.
    #[must_use]
    pub fn proves_node(&self, cluster: &ClusterSecret) -> bool {
        match self {
            Token::Node { node_id, mac } => cluster.mac(*node_id).ct_eq(mac).into(),
            Token::Key { .. } => false,
        }
    }

    /// Whether a key's secret is this one. In constant time.
    #[must_use]
    pub fn proves_key(&self, expected_secret: &str) -> bool {
        match self {
            Token::Key { secret, .. } => secret.as_bytes().ct_eq(expected_secret.as_bytes()).into(),
            Token::Node { .. } => false,
        }
    }
}

/// Establishes principals. Implemented where the directory can be read.
pub trait Authenticate: Send + Sync + 'static {
    /// Who presents this `authorization` value?
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] if nobody known; [`Error::Unavailable`] if it can't be told now.
    fn authenticate<'a>(&'a self, authorization: &'a str) -> futures::future::BoxFuture<'a, Result<Principal, Error>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(byte: u8) -> ClusterSecret {
        ClusterSecret::new(vec![byte; 32]).expect("long enough")
    }

    #[test]
    fn a_node_token_proves_only_its_own_id_in_its_own_cluster() {
        let parse = |token: &str| Token::parse(&format!("Bearer {token}")).expect("well formed");
        let token = secret(1).node_token(7);
        assert!(parse(&token).proves_node(&secret(1)));
        assert!(!parse(&token).proves_node(&secret(2)));
        assert!(!parse(&token.replacen("node.7", "node.8", 1)).proves_node(&secret(1)));
    }

    #[test]
    fn secrets_do_not_reach_debug_output() {
        let token = Token::parse("Bearer key.AK.hunter2").expect("well formed");
        assert!(token.proves_key("hunter2") && !token.proves_key("hunter3"));
        assert!(!format!("{token:?} {:?}", secret(7)).contains("hunter2"));
    }

    #[test]
    fn a_tenant_reaches_its_own_data_and_nothing_else() {
        let tenant = Principal::Tenant { tenant_id: 5, access_key_id: "AK".into() };
        tenant.authorize(Action::Data { tenant_id: 5 }).expect("its own");
        for action in [Action::Data { tenant_id: 6 }, Action::Data { tenant_id: 0 }, Action::Operate, Action::Replicate] {
            assert!(matches!(tenant.authorize(action), Err(Error::Denied { .. })), "{action}");
        }
        let directory = Principal::Tenant { tenant_id: 0, access_key_id: "AK".into() };
        assert!(directory.authorize(Action::Data { tenant_id: 0 }).is_err());
    }

    #[test]
    fn malformed_tokens_are_refused_without_being_quoted() {
        for bad in ["", "Bearer ", "Basic abc", "Bearer node.x.00", "Bearer node.1.zz", "Bearer key.AKsecret"] {
            let error = Token::parse(bad).expect_err(bad);
            assert!(bad.is_empty() || !error.to_string().contains("AKsecret"));
        }
    }
}
